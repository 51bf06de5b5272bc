//! Local keys from the outside: what `countersign key` prints, what bots' libraries make of it, what a policy says.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod house;
mod program;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use countersign::credential::{SecretFormat, Signer};
use countersign::fresh::UnixMillis;
use countersign::identity::local::{LocalGrants, LocalKeyFor, LocalKeys};
use countersign::identity::{Principal, Proof, TrustedKeys, authenticate};
use countersign::names::{AccountName, ClientName};
use countersign::policy::{ClientPattern, Denied, Grant, Policy};
use countersign::scope::Right;
use countersign::secret::Secret;
use countersign::venue::{self, Manner, Route, SignatureScheme, SignedLogin};
use house::Folder;
use program::{Outcome, run};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

// ---- countersign key ------------------------------------------------------------------------------------------------

#[test]
fn a_kraken_bot_s_library_takes_the_pair_for_a_real_one() {
    let folder = user_folder();
    let pair = json(folder.path(), "bot-a", "kraken_main");
    assert_eq!((&pair["client"], &pair["account"]), (&"bot-a".into(), &"kraken_main".into()));
    assert_eq!((&pair["venue"], &pair["generation"]), (&"kraken".into(), &1.into()));
    let (key, secret) = (pair["key"].as_str().unwrap(), pair["secret"].as_str().unwrap());
    assert_eq!(BASE64.decode(secret).unwrap().len(), 64);
    assert!(secret.len() == 88 && secret.ends_with("=="));
    assert!(key.len() == 56 && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(&byte)), "{key}");
}

#[test]
fn a_bitfinex_pair_is_letters_and_digits() {
    let folder = user_folder();
    let pair = json(folder.path(), "bot-a", "bitfinex_main");
    for half in ["key", "secret"] {
        let text = pair[half].as_str().unwrap();
        assert!(text.len() == 43 && text.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{text}");
    }
    assert_ne!(pair["key"], pair["secret"]);
}

#[test]
fn a_pair_is_printed_with_how_to_use_it_and_again_the_same() {
    let folder = user_folder();
    let pair = json(folder.path(), "bot-a", "kraken_main");
    let told = key(folder.path(), &["--client", "bot-a", "--account", "kraken_main"]);
    assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""), "{told:?}");
    for (word, value) in [("key", &pair["key"]), ("secret", &pair["secret"])] {
        let line = told.stdout.lines().find(|line| line.starts_with(word)).unwrap();
        assert_eq!(line.split_whitespace().nth(1), value.as_str());
    }
    assert!(told.stdout.contains("Give both to bot-a in place of its keys for kraken"), "{told:?}");
    for (client, account) in [("bot-b", "kraken_main"), ("bot-a", "bitfinex_main")] {
        let other = json(folder.path(), client, account);
        assert_ne!((&other["key"], &other["secret"]), (&pair["key"], &pair["secret"]));
    }
}

#[test]
fn a_pair_that_no_grant_takes_comes_with_the_lines_to_add() {
    let folder = user_folder();
    let told = key(folder.path(), &["--client", "bot-b", "--account", "kraken_main", "--json"]);
    assert_eq!(told.code, Some(0));
    assert!(
        serde_json::from_str::<Value>(&told.stdout).is_ok(),
        "what is to be read by a program stays alone: {told:?}"
    );
    for line in
        ["no grant lets bot-b use kraken_main", "[[grants]]", "client = \"key:bot-b\"", "account = \"kraken_main\""]
    {
        assert!(told.stderr.contains(line), "{told:?}");
    }
    let file = folder.path().join("proxy.toml");
    let (_, lines) = told.stderr.split_once("[[grants]]").unwrap();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("[[grants]]", &format!("[[grants]]{lines}\n[[grants]]"), 1)).unwrap();
    let granted = key(folder.path(), &["--client", "bot-b", "--account", "kraken_main"]);
    assert_eq!((granted.code, granted.stderr.as_str()), (Some(0), ""), "the lines are right as they are");
}

#[test]
fn a_higher_generation_prints_another_pair() {
    let folder = user_folder();
    let before = json(folder.path(), "bot-a", "kraken_main");
    edit(folder.path(), "# generations = { \"bot-a\" = 2 }", "generations = { \"bot-a\" = 2 }");
    let after = json(folder.path(), "bot-a", "kraken_main");
    assert_eq!(after["generation"], 2);
    assert!(after["key"] != before["key"] && after["secret"] != before["secret"]);
}

#[test]
fn what_cannot_be_is_refused_with_what_can() {
    let folder = user_folder();
    edit(
        folder.path(),
        "# ---- Who may do what",
        "[accounts.feed]\nvenue = \"plain\"\nupstream = { ws = \"wss://feed.example/\" }\n# ---- Who may do what",
    );
    for (client, account, told) in [
        ("bot-a", "kraken_other", "known are bitfinex_main, feed, kraken_main"),
        ("bot-a", "hunter2-canary", "unknown account"),
        ("bot-a", "feed", "feed is at plain, whose bots do not sign"),
        ("bot-*", "kraken_main", "a local key is made for one client"),
        ("anonymous", "kraken_main", "is not a client name"),
        ("", "kraken_main", "is not a client name"),
    ] {
        let refused = key(folder.path(), &["--client", client, "--account", account]);
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(64), ""), "{refused:?}");
        assert!(refused.stderr.contains(told) && !refused.stderr.contains("hunter2"), "{refused:?}");
    }
}

#[test]
fn without_the_table_or_its_file_the_answer_says_what_to_do() {
    let folder = Folder::new();
    copy(folder.path());
    let early = key(folder.path(), &["--client", "bot-a", "--account", "kraken_main"]);
    assert_eq!(early.code, Some(64));
    assert!(
        early.stderr.contains("local-keys.key") && early.stderr.contains("`countersign certs` makes it"),
        "{early:?}"
    );

    fs::create_dir(folder.path().join("certs")).unwrap();
    write_private(&folder.path().join("certs/local-keys.key"), "thirty-one-bytes-are-not-enough");
    let short = key(folder.path(), &["--client", "bot-a", "--account", "kraken_main"]);
    assert_eq!(short.code, Some(64));
    assert!(short.stderr.contains("shorter than 32 bytes; make one with `openssl rand"), "{short:?}");
    assert!(!short.stderr.contains("thirty-one") && !short.stderr.contains("countersign certs"), "{short:?}");

    let without = "[listen]\naddress = \"127.0.0.1:0\"\n[clients.jwt]\nsecret = { file = \"x\" }\n\
                   [accounts.kraken_main]\nvenue = \"kraken\"\nupstream = \"simulator\"\n\
                   [[grants]]\nclient = \"jwt:bot-a\"\naccount = \"kraken_main\"\nscope = [\"read\"]\n";
    fs::write(folder.path().join("proxy.toml"), without).unwrap();
    let refused = key(folder.path(), &["--client", "bot-a", "--account", "kraken_main"]);
    assert_eq!(refused.code, Some(64));
    for line in ["[clients.local_keys]", "master = { file = \"certs/local-keys.key\" }", "openssl rand -base64 48"] {
        assert!(refused.stderr.contains(line), "{refused:?}");
    }
}

#[test]
fn the_help_teaches_how_a_bot_gets_its_key() {
    let folder = Folder::new();
    let help = run(folder.path(), &["key", "--help"]).stdout;
    for taught in
        ["--client", "--account", "--json", "client = \"key:bot-a\"", "generations", "countersign key --client"]
    {
        assert!(help.contains(taught), "{taught}: {help}");
    }
}

#[test]
fn a_configuration_whose_master_is_missing_is_found_by_check() {
    let folder = user_folder();
    let good = run(folder.path(), &["check"]);
    assert_eq!(good.code, Some(0), "{good:?}");
    assert!(good.stdout.contains("key:bot-a may use account kraken_main"), "{good:?}");
    fs::remove_file(folder.path().join("certs/local-keys.key")).unwrap();
    let missing = run(folder.path(), &["check"]);
    assert_eq!(missing.code, Some(64));
    assert!(
        missing.stderr.contains("clients.local_keys.master") && missing.stderr.contains("is not there"),
        "{missing:?}"
    );
}

/// The checked-in configuration, and the certificates and secrets that it names.
fn user_folder() -> Folder {
    let folder = Folder::new();
    copy(folder.path());
    assert_eq!(run(folder.path(), &["certs"]).code, Some(0));
    folder
}

fn copy(folder: &Path) {
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy.toml"), folder.join("proxy.toml")).unwrap();
}

fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn edit(folder: &Path, from: &str, to: &str) {
    let file = folder.join("proxy.toml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "proxy.toml has no {from}");
    fs::write(&file, text.replacen(from, to, 1)).unwrap();
}

fn key(folder: &Path, arguments: &[&str]) -> Outcome {
    run(folder, &[&["key"], arguments].concat())
}

fn json(folder: &Path, client: &str, account: &str) -> Value {
    let printed = key(folder, &["--client", client, "--account", account, "--json"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    serde_json::from_str(&printed.stdout).unwrap()
}

// ---- what a policy says of them -------------------------------------------------------------------------------------

/// A client that signed with its local key for an account at Kraken.
fn signer(name: &str, what: &str, generation: u32) -> Principal {
    let whose = LocalKeyFor {
        client: ClientName::parse(name).expect("a name"),
        account: account(what),
        venue: venue::by_name("kraken").expect("in the table"),
    };
    let generations = BTreeMap::from([(whose.client.clone(), generation)]);
    let grants = LocalGrants { keys: vec![whose.clone()], generations };
    let local = LocalKeys::new(&Secret::new(vec![7; 32]), grants, Duration::ZERO, UnixMillis(0));
    let local = local.expect("long enough");
    let pair = local.issue(&whose).expect("Kraken has keys");
    let key = Secret::from(pair.api_key.clone());
    let signature = Signer::new(&key, &pair.secret, SecretFormat::Base64).expect("a pair").hmac_sha512(&[b"m"]);
    let (scheme, message) = (SignatureScheme::HmacSha512, b"m".to_vec());
    let login = SignedLogin { api_key: pair.api_key, nonce: 1, scheme, message, signature: signature.to_vec() };
    let proof = Proof::LocalKey { venue: "kraken", login };
    authenticate(&proof, UnixMillis(0), &TrustedKeys::new(None, Some(local))).expect("its own key")
}

#[test]
fn a_local_key_picks_its_account_and_opens_no_other_one() {
    let both = [grant("key:bot-a", "kraken_a", &[Right::Read]), grant("key:bot-a", "kraken_b", &[Right::Trade])];
    let policy = policy(both.to_vec());
    let who = signer("bot-a", "kraken_b", 1);
    let mut permit = policy.authorize(&who, &route(), None).expect("granted");
    assert_eq!((permit.account(), permit.scope().to_string()), (Some(&account("kraken_b")), "public,trade".to_owned()));
    assert!(policy.authorize(&who, &route(), Some(&account("kraken_b"))).is_ok());
    let other = policy.authorize(&who, &route(), Some(&account("kraken_a")));
    assert_eq!(other.expect_err("bound"), Denied::NotThatAccount);
    assert!(policy.renew(&mut permit, &who, &route()).is_ok());
    let of_other = policy.renew(&mut permit, &signer("bot-a", "kraken_a", 1), &route());
    assert_eq!(of_other, Err(Denied::NotThatAccount));
}

#[test]
fn a_grant_for_one_kind_of_proof_is_none_for_another() {
    let by_token = policy(vec![grant("jwt:bot-a", "kraken_a", &[Right::Read])]);
    let refused = by_token.authorize(&signer("bot-a", "kraken_a", 1), &route(), None);
    assert_eq!(refused.expect_err("by token alone"), Denied::NotThatAccount);
    let unprefixed = policy(vec![grant("bot-a", "kraken_a", &[Right::Read])]);
    assert!(unprefixed.authorize(&signer("bot-a", "kraken_a", 1), &route(), None).is_ok());
}

#[test]
fn a_session_by_a_key_of_an_earlier_generation_is_no_longer_granted() {
    let policy = policy(vec![grant("bot-a", "kraken_a", &[Right::Read])]);
    let by_key = policy.authorize(&signer("bot-a", "kraken_a", 1), &route(), None).expect("granted");
    let unproved = Principal::danger_unproved_for_development(ClientName::parse("bot-a").expect("a name"));
    let unproved = policy.authorize(&unproved, &route(), None).expect("granted");
    assert!(policy.still_grants(&by_key, &route()));
    let name = by_key.client().clone();
    let again = vec![grant("bot-a", "kraken_a", &[Right::Read])];
    let raised = policy.with_grants(again).with_generations(BTreeMap::from([(name, 2)]));
    assert!(!raised.still_grants(&by_key, &route()));
    assert!(raised.still_grants(&unproved, &route()), "which no local key let in");
    let late = raised.authorize(&signer("bot-a", "kraken_a", 1), &route(), None);
    assert_eq!(late.expect_err("shown just before"), Denied::NoGrant);
    let mut new = raised.authorize(&signer("bot-a", "kraken_a", 2), &route(), None).expect("the new key");
    let back = raised.renew(&mut new, &signer("bot-a", "kraken_a", 1), &route());
    assert_eq!(back, Err(Denied::NoGrant));
}

fn account(name: &str) -> AccountName {
    AccountName::parse(name).expect("a name")
}

fn grant(client: &str, what: &str, scope: &[Right]) -> Grant {
    Grant {
        client: ClientPattern::parse(client).expect("a pattern"),
        account: Some(account(what)),
        venues: Vec::new(),
        scope: scope.iter().copied().collect(),
        max_sessions: 8,
        sub_accounts: None,
    }
}

fn policy(grants: Vec<Grant>) -> Policy {
    Policy::new(grants, ["kraken_a", "kraken_b"].map(|name| (account(name), "kraken")).into())
}

fn route() -> Route {
    let venue = venue::by_name("kraken").expect("in the table");
    let endpoint = venue.endpoints().iter().find(|endpoint| endpoint.name == "private").expect("an endpoint");
    Route { venue, endpoint, manner: Manner::Native }
}
