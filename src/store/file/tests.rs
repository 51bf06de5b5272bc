use super::*;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

const KEY: KeyFingerprint = *b"\x01\x02\x03\x04\x05\x06\x07\x08";

/// A folder for one test, gone with it.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("countersign-store-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a fresh folder");
        Self(path)
    }

    fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.state().join(name)
    }

    fn open(&self) -> Result<FileStore, StoreError> {
        FileStore::open(&self.state())
    }

    /// The folder as an earlier run left it, with one file in it.
    fn with_file(name: &str, content: &str, mode: u32) -> Self {
        let place = Self::new();
        drop(place.open().expect("opens"));
        fs::write(place.file(name), content).expect("written");
        fs::set_permissions(place.file(name), Permissions::from_mode(mode)).expect("chmod");
        place
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("removed");
    }
}

fn account() -> AccountName {
    AccountName::parse("kraken_main").expect("a name")
}

fn mark(reserved: u64) -> Mark {
    Mark { unit: NonceUnit::Nanoseconds, reserved }
}

fn token(text: &str) -> StoredToken {
    StoredToken { secret: text.to_owned().into(), minted_at: UnixMillis(1), expires_at: UnixMillis(900_001) }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").mode() & 0o777
}

#[test]
fn a_mark_survives_a_restart_to_the_last_digit() {
    let place = Place::new();
    for reserved in [1, 9_007_199_254_740_993, 1_790_000_000_000_000_999, u64::MAX] {
        place.open().expect("opens").write_mark(&account(), &mark(reserved)).expect("written");
        assert_eq!(place.open().expect("opens").read_mark(&account()).expect("read"), Some(mark(reserved)));
    }
}

#[test]
fn a_mark_is_one_line_that_a_person_can_repair() {
    let place = Place::new();
    let store = place.open().expect("opens");
    assert_eq!(store.read_mark(&account()).expect("read"), None);
    store.write_mark(&account(), &mark(1_790_000_000_000_000_000)).expect("written");
    let text = fs::read_to_string(place.file("kraken_main.nonce")).expect("there");
    assert_eq!(text, "{\"version\":1,\"unit\":\"ns\",\"reserved\":1790000000000000000}\n");
}

#[test]
fn folder_and_files_are_for_the_owner_alone() {
    let place = Place::new();
    let store = place.open().expect("opens");
    store.write_mark(&account(), &mark(1)).expect("written");
    store.write_token(&account(), &KEY, &token("t")).expect("written");
    assert_eq!(mode(&place.state()), 0o700);
    for name in ["lock", "kraken_main.nonce", "kraken_main.token"] {
        assert_eq!(mode(&place.file(name)), 0o600, "{name}");
    }
    assert_eq!(fs::read_dir(place.state()).expect("there").count(), 3, "no temporary file stays");
}

#[test]
fn missing_folders_above_are_made_for_the_owner_alone() {
    let place = Place::new();
    let deep = place.0.join("a/b/state/");
    drop(FileStore::open(&deep).expect("opens"));
    for made in [place.0.join("a"), place.0.join("a/b"), deep] {
        assert_eq!(mode(&made), 0o700);
    }
}

#[test]
fn a_damaged_mark_is_an_error_and_not_a_new_start() {
    for torn in [
        "",
        "{\"version\":1,\"unit\":\"ns\",\"res",
        "{\"version\":1,\"unit\":\"ns\",\"reserved\":1.79e18}",
        "{\"version\":1,\"unit\":\"ns\",\"reserved\":-1}",
        "{\"version\":1,\"unit\":\"ns\",\"reserved\":18446744073709551616}",
        "{\"version\":1,\"unit\":\"ns\",\"reserved\":1,\"reserved\":2}",
        "{\"version\":1,\"unit\":\"s\",\"reserved\":1}",
        "{\"version\":2,\"unit\":\"ns\",\"reserved\":1}",
        "{\"version\":1,\"unit\":\"ns\",\"reserved\":1}\n{",
    ] {
        let place = Place::with_file("kraken_main.nonce", torn, 0o600);
        let store = place.open().expect("opens");
        let error = store.read_mark(&account()).expect_err(torn);
        assert!(matches!(error, StoreError::Damaged { .. }), "{torn:?}: {error}");
        assert_eq!(error.exit_code(), 73);
        assert!(error.to_string().contains("kraken_main.nonce") && error.to_string().contains("{\"version\":1,"));
        assert!(store.write_mark(&account(), &mark(5)).is_err(), "a damaged mark was overwritten");
    }
}

#[test]
fn a_mark_never_falls_and_never_changes_its_unit() {
    let place = Place::new();
    let store = place.open().expect("opens");
    store.write_mark(&account(), &mark(2000)).expect("written");
    store.write_mark(&account(), &mark(2000)).expect("the same again, after a write of unknown outcome");
    let other_unit = Mark { unit: NonceUnit::Microseconds, reserved: 3000 };
    for refused in [mark(1999), other_unit] {
        let error = store.write_mark(&account(), &refused).expect_err("refused");
        assert!(matches!(error, StoreError::MarkWouldFall { .. }));
    }
    assert_eq!(store.read_mark(&account()).expect("read"), Some(mark(2000)));
}

#[test]
fn a_second_process_is_locked_out_until_the_first_is_gone() {
    let place = Place::new();
    let first = place.open().expect("opens");
    let error = place.open().expect_err("locked");
    assert!(matches!(error, StoreError::Locked { .. }));
    assert_eq!(error.exit_code(), 75);
    drop(first);
    drop(place.open().expect("free again"));
}

#[test]
fn a_symbolic_link_is_refused_as_folder_file_and_lock() {
    let place = Place::new();
    let real = place.0.join("real");
    fs::create_dir(&real).expect("made");
    fs::set_permissions(&real, Permissions::from_mode(0o700)).expect("chmod");
    symlink(&real, place.state()).expect("linked");
    for path in [place.state(), place.0.join("state/"), place.0.join("state/.")] {
        assert!(matches!(FileStore::open(&path), Err(StoreError::NotPlain { .. })), "{}", path.display());
    }

    for name in ["kraken_main.nonce", "kraken_main.token"] {
        let place = Place::with_file("elsewhere", "{}", 0o600);
        symlink(place.file("elsewhere"), place.file(name)).expect("linked");
        let store = place.open().expect("opens");
        let error = match name {
            "kraken_main.nonce" => store.read_mark(&account()).err(),
            _ => store.read_token(&account(), &KEY).err(),
        };
        assert!(matches!(error, Some(StoreError::NotPlain { .. })), "{name}");
    }

    let place = Place::with_file("elsewhere", "", 0o600);
    fs::remove_file(place.file("lock")).expect("removed");
    symlink(place.file("elsewhere"), place.file("lock")).expect("linked");
    assert!(matches!(place.open(), Err(StoreError::NotPlain { .. })));
}

#[test]
fn a_folder_under_the_name_of_a_file_is_refused() {
    let place = Place::new();
    let store = place.open().expect("opens");
    fs::create_dir(place.file("kraken_main.nonce")).expect("made");
    assert!(matches!(store.read_mark(&account()), Err(StoreError::NotPlain { .. })));
}

#[test]
fn what_group_or_others_can_reach_is_refused() {
    for loose in [0o640, 0o604, 0o620] {
        let place = Place::with_file("kraken_main.nonce", "{}", loose);
        let error = place.open().expect("opens").read_mark(&account()).expect_err("refused");
        assert!(matches!(error, StoreError::OpenToOthers { .. }));
        assert!(error.to_string().contains("chmod 600 "), "{error}");

        let place = Place::with_file("kraken_main.token", "{}", loose);
        let error = place.open().expect("opens").read_token(&account(), &KEY).expect_err("refused");
        assert!(matches!(error, StoreError::OpenToOthers { .. }));
    }
    // Whoever can open the lock can take it, and keep us from starting.
    let place = Place::with_file("lock", "", 0o644);
    assert!(matches!(place.open(), Err(StoreError::OpenToOthers { .. })));
    for loose in [0o750, 0o701, 0o777] {
        let place = Place::with_file("kraken_main.nonce", "{}", 0o600);
        fs::set_permissions(place.state(), Permissions::from_mode(loose)).expect("chmod");
        let error = place.open().expect_err("refused");
        assert!(error.to_string().contains("chmod 700 "), "{error}");
    }
}

#[test]
fn what_belongs_to_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return; // only root can give a file away
    }
    let someone = Some(65_534);
    let place = Place::with_file("kraken_main.nonce", "{}", 0o600);
    std::os::unix::fs::chown(place.file("kraken_main.nonce"), someone, None).expect("chown");
    let store = place.open().expect("opens");
    assert!(matches!(store.read_mark(&account()), Err(StoreError::ForeignOwner { .. })));
    drop(store);
    std::os::unix::fs::chown(place.state(), someone, None).expect("chown");
    assert!(matches!(place.open(), Err(StoreError::ForeignOwner { .. })));
}

#[test]
fn a_crash_before_the_rename_leaves_the_mark_before_and_is_cleared_away() {
    let place = Place::with_file("kraken_main.nonce", "{\"version\":1,\"unit\":\"ns\",\"reserved\":7}", 0o600);
    let leftovers = [".kraken_main.nonce.tmp", ".kraken_main.token.tmp", ".gone_account.token.tmp"];
    for name in leftovers {
        fs::write(place.file(name), "{\"version\":1,\"uni").expect("written");
    }
    let store = place.open().expect("opens");
    for name in leftovers {
        assert!(!place.file(name).exists(), "{name}");
    }
    assert_eq!(store.read_mark(&account()).expect("read"), Some(mark(7)));
    store.write_mark(&account(), &mark(1007)).expect("written");
}

#[test]
fn a_write_that_failed_does_not_stand_in_the_way_of_the_next() {
    let place = Place::new();
    let store = place.open().expect("opens");
    let elsewhere = place.0.join("elsewhere");
    fs::write(&elsewhere, "untouched").expect("written");
    symlink(&elsewhere, place.file(".kraken_main.nonce.tmp")).expect("linked");
    store.write_mark(&account(), &mark(1)).expect("written");
    assert_eq!(fs::read_to_string(&elsewhere).expect("there"), "untouched");
    assert_eq!(store.read_mark(&account()).expect("read"), Some(mark(1)));
}

#[test]
fn a_write_that_fails_says_where_and_keeps_the_mark_before() {
    let place = Place::new();
    let store = place.open().expect("opens");
    store.write_mark(&account(), &mark(1)).expect("written");
    // A folder in the temporary file's place: the one failure that root meets too.
    fs::create_dir(place.file(".kraken_main.nonce.tmp")).expect("made");
    let error = store.write_mark(&account(), &mark(2)).expect_err("refused");
    assert!(matches!(&error, StoreError::Io { .. }), "{error}");
    assert!(error.to_string().contains("kraken_main.nonce"), "{error}");
    assert_eq!(store.read_mark(&account()).expect("read"), Some(mark(1)));
}

#[test]
fn a_token_survives_a_restart_for_its_own_key_alone() {
    let place = Place::new();
    let kept = token("WW91ciBhdXRo/ZW50aWNhdGlvbiB0b2tl+biBnb2VzI");
    place.open().expect("opens").write_token(&account(), &KEY, &kept).expect("written");
    let store = place.open().expect("opens");
    assert_eq!(store.read_token(&account(), &KEY).expect("read"), Some(kept));
    assert_eq!(store.read_token(&account(), &[9; 8]).expect("read"), None);
    store.forget_token(&account()).expect("forgotten");
    store.forget_token(&account()).expect("nothing left to forget");
    assert_eq!(store.read_token(&account(), &KEY).expect("read"), None);
    assert!(!place.file("kraken_main.token").exists());
}

#[test]
fn a_torn_token_is_fetched_again() {
    let place = Place::new();
    let store = place.open().expect("opens");
    store.write_token(&account(), &KEY, &token("secret-token")).expect("written");
    let whole = fs::read_to_string(place.file("kraken_main.token")).expect("there");
    for length in 0..whole.len() - 1 {
        fs::write(place.file("kraken_main.token"), &whole[..length]).expect("torn");
        assert_eq!(store.read_token(&account(), &KEY).expect("no error"), None, "at {length}");
    }
    store.write_token(&account(), &KEY, &token("")).expect("written");
    assert_eq!(store.read_token(&account(), &KEY).expect("no error"), None, "an empty token");
}

#[test]
fn no_error_shows_what_a_file_holds() {
    let place = Place::with_file("kraken_main.nonce", "canary-content", 0o600);
    let error = place.open().expect("opens").read_mark(&account()).expect_err("damaged");
    assert!(!format!("{error} {error:?}").contains("canary"));
}
