//! What `countersign serve` says at its start, as its readers use it: every line that can be pasted is pasted.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod house;
mod libraries;
mod program;

use house::Folder;
use libraries::is_skipped;
use program::{Outcome, PATIENCE, Program, Serving, finish, user_folder};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A bot for Kraken as its documentation has one, in the standard library. It reads HTTPS_PROXY, as most do.
const MY_BOT: &str = r#"
import base64, hashlib, hmac, json, os, time, urllib.request

nonce = str(time.time_ns() // 1000)
path, body = "/0/private/Balance", "nonce=" + nonce
message = path.encode() + hashlib.sha256((nonce + body).encode()).digest()
signature = hmac.new(base64.b64decode(os.environ["API_SECRET"]), message, hashlib.sha512).digest()
headers = {"API-Key": os.environ["API_KEY"], "API-Sign": base64.b64encode(signature).decode()}
place = os.environ.get("PLACE", "https://api.kraken.com")
answer = urllib.request.urlopen(urllib.request.Request(place + path, body.encode(), headers))
print(json.load(answer), answer.headers["countersign-upstream"])
"#;

#[test]
fn serve_makes_certificates_and_says_how_to_connect() {
    let folder = user_folder();
    let mut proxy = Serving::open(folder.path(), &[]);
    proxy.program.line_where(|line| line.contains("Paste this"));
    let said = proxy.program.said();
    for file in ["ca.pem", "server.pem", "client-ca.pem", "bot-a.pem", "client-jwt.key"] {
        assert!(folder.path().join("certs").join(file).exists(), "{file}");
        assert!(said.lines().any(|line| line.contains(file) && line.ends_with("created")), "{file}: {said}");
    }
    for path in ["/kraken/v2", "/bitfinex/v2"] {
        assert!(said.contains(&format!("wss://localhost:{}{path}", proxy.address.port())), "{said}");
    }
}

// ---- For a bot that nobody changes ----------------------------------------------------------------------------------

#[test]
fn an_unmodified_bot_comes_in_by_the_lines_as_they_are_printed() {
    let desk = Desk::open();
    let pair = desk.paste(&desk.line(" key --client "));
    let half = |word: &str| {
        let line = pair.stdout.lines().find(|line| line.starts_with(word)).unwrap_or_else(|| panic!("{pair:?}"));
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    let keys = format!("API_KEY='{}' API_SECRET='{}'", half("key"), half("secret"));
    let by_run = desk.paste(&format!("{keys} {}", desk.line(" run -- ").trim()));
    let door = desk.line("kraken, REST").split_whitespace().next().unwrap().to_owned();
    let by_port = desk.paste(&format!("{keys} PLACE={door} SSL_CERT_FILE=certs/ca.pem python3 my_bot.py"));
    for told in [&by_run, &by_port] {
        assert_eq!(told.code, Some(0), "{told:?}");
        assert!(told.stdout.contains("'error': []") && told.stdout.contains("ZUSD"), "{told:?}");
        assert!(told.stdout.ends_with("answered\n"), "{told:?}");
    }

    let stranger = format!("API_KEY='{}' API_SECRET=bm90IHRoZSBzZWNyZXQ=", half("key"));
    let refused = desk.paste(&format!("{stranger} {}", desk.line(" run -- ").trim()));
    assert!(refused.stdout.contains("EAPI:Invalid key") && refused.stdout.ends_with("not-sent\n"), "{refused:?}");
}

#[test]
fn what_a_library_needs_is_printed_by_the_line_for_that() {
    let desk = Desk::open();
    let told = desk.paste(&desk.line(" env --for "));
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stdout.contains("export HTTPS_PROXY='http://run:"), "{told:?}");
    assert!(told.stdout.contains("requests_trust_env"), "{told:?}");
}

#[test]
fn ways_that_are_not_configured_are_not_told() {
    let folder = user_folder();
    let file = folder.path().join("proxy.toml");
    let text = fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once("[[ports]]").unwrap();
    let (_, after) = rest.split_once("# ---- How clients prove").unwrap();
    fs::write(&file, format!("{before}# ---- How clients prove{after}")).unwrap();
    let mut proxy = Serving::open(folder.path(), &[]);
    proxy.program.line_where(|line| line.contains("Paste this"));
    let said = proxy.program.said();
    assert!(said.contains(" key --client bot-a --account kraken_main"), "{said}");
    for untold in [" run -- ", " env --for ", "https://localhost:"] {
        assert!(!said.contains(untold), "{untold}: {said}");
    }
}

/// A proxy that was started with the repository's file, and what it said.
struct Desk {
    folder: Folder,
    said: String,
    _proxy: Serving,
}

impl Desk {
    fn open() -> Self {
        let folder = user_folder();
        fs::write(folder.path().join("my_bot.py"), MY_BOT).unwrap();
        let mut proxy = Serving::open_findable(folder.path());
        proxy.program.line_where(|line| line.contains("Paste this"));
        Self { folder, said: proxy.program.said(), _proxy: proxy }
    }

    /// The first line that was said with these words in it.
    fn line(&self, words: &str) -> String {
        let line = self.said.lines().find(|line| line.contains(words));
        line.unwrap_or_else(|| panic!("no line with {words}: {}", self.said)).to_owned()
    }

    fn paste(&self, text: &str) -> Outcome {
        let path = std::env::var("PATH").unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", text]).current_dir(self.folder.path()).env_clear().env("PATH", path);
        finish(&mut shell, PATIENCE)
    }
}

// ---- For a bot without any key --------------------------------------------------------------------------------------

#[test]
fn the_line_to_paste_logs_a_bot_in() {
    if is_skipped("the_line_to_paste_logs_a_bot_in") {
        return;
    }
    let python = libraries::websockets().program;
    let folder = user_folder();
    let mut proxy = Serving::open(folder.path(), &[]);
    let pasted = line_to_paste(&mut proxy.program);
    let answer = paste(&pasted, folder.path(), &python);
    assert!(answer.stdout.contains(r#""type":"connected""#), "{answer:?}");
    assert!(answer.stdout.contains(r#""client_id":"bot-a""#), "{answer:?}");
}

#[test]
fn the_line_to_paste_works_with_a_configuration_from_elsewhere() {
    if is_skipped("the_line_to_paste_works_with_a_configuration_from_elsewhere") {
        return;
    }
    let python = libraries::websockets().program;
    let (folder, elsewhere) = (user_folder(), Folder::new());
    let place = folder.path().join("a folder");
    fs::create_dir(&place).unwrap();
    fs::rename(folder.path().join("proxy.toml"), place.join("desk.toml")).unwrap();
    let file = place.join("desk.toml");
    let mut proxy = Serving::open(elsewhere.path(), &["--config", file.to_str().unwrap()]);
    let pasted = line_to_paste(&mut proxy.program);
    let answer = paste(&pasted, elsewhere.path(), &python);
    assert!(answer.stdout.contains(r#""type":"connected""#), "{answer:?}\n{pasted}");
}

/// What `serve` tells a person to paste.
fn line_to_paste(program: &mut Program) -> String {
    program.line_where(|line| line.contains("Paste this"));
    program.line_where(|line| line.ends_with('\''));
    let said = program.said();
    let (_, pasted) = said.split_once("install websockets`):\n").unwrap();
    pasted.to_owned()
}

/// Pastes it into a shell that has a Python with `websockets`.
fn paste(text: &str, folder: &Path, python: &Path) -> Outcome {
    let path = format!("{}:{}", python.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-c", text]).current_dir(folder).env_clear().env("PATH", path);
    finish(&mut shell, PATIENCE)
}
