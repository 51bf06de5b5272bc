//! The commands as a user runs them: what they print, which files they make, how they end. `serve` and `simulate` have
//! files of their own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod commands_stage;
mod house;
mod program;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use commands_stage::{CANARY, edit, token};
use house::Folder;
use program::{run, user_folder};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

const COMMANDS: [&str; 12] =
    ["serve", "demo", "check", "certs", "token", "key", "run", "env", "simulate", "status", "account", "healthcheck"];

// ---- check ----------------------------------------------------------------------------------------------------------

#[test]
fn the_file_in_the_repository_is_good_before_and_after_the_first_start() {
    let folder = user_folder();
    let first = run(folder.path(), &["check"]);
    assert_eq!((first.code, first.stderr.as_str()), (Some(0), ""));
    assert!(first.stdout.starts_with("the configuration is good\n"), "{first:?}");
    assert!(!folder.path().join("certs").exists(), "a check changes nothing");
    assert_eq!(run(folder.path(), &["certs"]).code, Some(0));
    let later = run(folder.path(), &["check"]);
    assert_eq!(later.code, Some(0));
    for told in
        ["certificates: good", "account kraken_main: kraken, simulated", "jwt:bot-a may use account kraken_main"]
    {
        assert!(later.stdout.contains(told), "{told}: {later:?}");
    }
}

#[test]
fn every_mistake_is_a_line_with_its_key_and_without_its_value() {
    let folder = user_folder();
    let mistakes = [
        ("address = \"127.0.0.1:8443\"", format!("address = \"{CANARY}\""), "listen.address"),
        (
            "# connections_max = 1000",
            format!("{CANARY} = 1").replace("hunter2-canary", "conections_max"),
            "listen.conections_max",
        ),
        ("# audience = \"countersign\"", format!("audience = [\"{CANARY}\"]"), "clients.jwt.audience"),
        (
            "[accounts.kraken_main]\nvenue = \"kraken\"",
            format!("[accounts.kraken_main]\nvenue = \"{CANARY}\""),
            "accounts.kraken_main.venue",
        ),
        ("# max_sessions = 8", format!("max_sessions = \"{CANARY}\""), "grants[0].max_sessions"),
        ("# level = \"info\"", format!("level = \"{CANARY}\""), "log.level"),
        ("# ping_interval = \"10s\"", format!("ping_interval = \"{CANARY}\""), "limits.ping_interval"),
    ];
    for (from, to, _) in &mistakes {
        edit(folder.path(), from, to);
    }
    let checked = run(folder.path(), &["check"]);
    assert_eq!((checked.code, checked.stdout.as_str()), (Some(64), ""));
    let lines: Vec<&str> = checked.stderr.lines().collect();
    assert_eq!(lines.len(), mistakes.len(), "{}", checked.stderr);
    for (_, _, key) in &mistakes {
        let count = lines.iter().filter(|line| line.contains(&format!("proxy.toml: {key}: "))).count();
        assert_eq!(count, 1, "{key}: {}", checked.stderr);
    }
    assert!(lines.iter().all(|line| line.starts_with("countersign: ")), "{}", checked.stderr);
    assert!(!checked.stderr.contains(CANARY), "{}", checked.stderr);
    // What does not check does not serve.
    assert_eq!(run(folder.path(), &["serve"]).code, Some(64));
}

#[test]
fn a_syntax_error_on_the_line_of_a_secret_does_not_show_it() {
    let folder = user_folder();
    edit(folder.path(), "secret = { file = \"certs/client-jwt.key\" }", &format!("secret = \"{CANARY}"));
    let checked = run(folder.path(), &["check"]);
    assert_eq!(checked.code, Some(64));
    assert!(checked.stderr.contains("proxy.toml: ") && checked.stderr.contains("line "), "{checked:?}");
    assert!(!checked.stderr.contains("hunter2"), "{checked:?}");
}

#[test]
fn a_secret_that_is_not_there_is_a_mistake_before_anything_is_bound() {
    let folder = user_folder();
    edit(
        folder.path(),
        "upstream = \"simulator\"",
        "key = { env = \"NOT_SET_KEY\" }\nsecret = { file = \"not-there\" }",
    );
    for command in ["check", "serve"] {
        let refused = run(folder.path(), &[command]);
        assert_eq!(refused.code, Some(64));
        assert!(
            refused.stderr.contains("accounts.kraken_main.key") && refused.stderr.contains("NOT_SET_KEY"),
            "{refused:?}"
        );
    }
}

#[test]
fn a_configuration_file_that_is_not_there_is_a_mistake() {
    let folder = user_folder();
    let refused = run(folder.path(), &["check", "--config", "desk.toml"]);
    assert_eq!(refused.code, Some(64));
    assert!(refused.stderr.contains("desk.toml"), "{refused:?}");
    let lost = run(Folder::new().path(), &["serve"]);
    assert_eq!(lost.code, Some(64));
    assert!(lost.stderr.starts_with("countersign: there is no proxy.toml in this folder"), "{lost:?}");
    assert!(!refused.stderr.contains("in this folder"), "{refused:?}");
}

#[test]
fn wrong_usage_ends_with_64_and_points_to_help() {
    let folder = user_folder();
    for wrong in [
        &["frobnicate"][..],
        &["serve", "--frobnicate"],
        &["token"],
        &["token", "--subject", "bot-a", "--ttl", "soon"],
        &["simulate", "coinbase"],
        &["simulate", "kraken", "--key", "only"],
        &["serve", "--set", CANARY],
    ] {
        let refused = run(folder.path(), wrong);
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(64), ""), "{wrong:?}");
        assert!(refused.stderr.contains("--help"), "{refused:?}");
    }
}

#[test]
fn help_teaches_every_command_and_its_options() {
    let folder = Folder::new();
    let all = run(folder.path(), &["--help"]);
    assert_eq!((all.code, all.stderr.as_str()), (Some(0), ""));
    for text in
        COMMANDS.into_iter().chain(["--config", "--set", "--log-format", "--log-level", "Exit codes: 0", "proxy.toml"])
    {
        assert!(all.stdout.contains(text), "{text}");
    }
    for (command, texts) in [
        ("serve", &["--config", "--set"][..]),
        ("demo", &["--keep"]),
        ("check", &["--config"]),
        (
            "certs",
            &["--directory", "--client", "--force", "SSL_CERT_FILE=", "NODE_EXTRA_CA_CERTS=", "REQUESTS_CA_BUNDLE="],
        ),
        ("token", &["--subject", "--scope", "--ttl", "TOKEN=$(countersign token"]),
        ("simulate", &["--port", "--key", "--secret", "--quiet", "kraken, bitfinex", "verifies signatures"]),
        ("run", &["countersign run -- python3 bot.py", "--warn-after"]),
        ("env", &["eval \"$(countersign env)\"", "--for", "--json"]),
        ("status", &["--json", "the breaker is open"]),
        ("account", &["refresh", "reset", "unfreeze", "as the same user"]),
        ("healthcheck", &["exit 0"]),
    ] {
        let help = run(folder.path(), &[command, "--help"]);
        assert_eq!(help.code, Some(0));
        for text in texts {
            assert!(help.stdout.contains(text), "{command} --help does not have {text}:\n{}", help.stdout);
        }
    }
}

// ---- certs, token ---------------------------------------------------------------------------------------------------

#[test]
fn certs_makes_what_is_missing_and_keeps_what_is_there() {
    let folder = user_folder();
    let made = run(folder.path(), &["certs", "--client", "bot-b"]);
    assert_eq!(made.code, Some(0));
    let certs = folder.path().join("certs");
    for (name, mode) in [
        ("ca.pem", 0o644),
        ("ca.key", 0o600),
        ("server.pem", 0o644),
        ("server.key", 0o600),
        ("client-ca.pem", 0o644),
        ("client-ca.key", 0o600),
        ("bot-b.pem", 0o644),
        ("bot-b.key", 0o600),
        ("client-jwt.key", 0o600),
        ("local-keys.key", 0o600),
    ] {
        let facts = fs::metadata(certs.join(name)).unwrap();
        assert_eq!(facts.permissions().mode() & 0o777, mode, "{name}");
    }
    let read = |name: &str| fs::read(certs.join(name)).unwrap();
    let names = ["ca.pem", "server.pem", "bot-b.key", "client-jwt.key", "local-keys.key"];
    let before: Vec<_> = names.map(read).into();
    let kept = run(folder.path(), &["certs", "--client", "bot-b"]);
    assert!(kept.stdout.lines().all(|line| line.ends_with(": kept")), "{kept:?}");
    assert_eq!(names.map(read).to_vec(), before);

    let forced = run(folder.path(), &["certs", "--client", "bot-b", "--force"]);
    assert_eq!(forced.code, Some(0));
    for (name, before) in names.iter().zip(before) {
        assert_ne!(read(name), before, "{name}");
    }

    let refused = run(folder.path(), &["certs", "--client", "../bot"]);
    assert_eq!(refused.code, Some(64));
    assert!(refused.stderr.contains("cannot be a client's name"), "{refused:?}");
}

#[test]
fn a_token_is_printed_alone_and_says_what_was_asked() {
    let folder = user_folder();
    assert_eq!(run(folder.path(), &["certs"]).code, Some(0));
    let token = token(folder.path(), &["--subject", "bot-a", "--scope", "read,trade", "--ttl", "90s"]);
    let claims = claims(&token);
    assert_eq!((&claims["sub"], &claims["aud"]), (&"bot-a".into(), &"countersign".into()), "{claims}");
    assert_eq!(claims["scope"], "read trade");
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 90);
    assert!(house::now().seconds().abs_diff(claims["iat"].as_u64().unwrap()) < 60);
}

#[test]
fn a_token_without_a_scope_limits_nothing_and_lasts_15_minutes() {
    let folder = user_folder();
    assert_eq!(run(folder.path(), &["certs"]).code, Some(0));
    let claims = claims(&token(folder.path(), &["--subject", "bot-a"]));
    assert_eq!(claims.get("scope"), None);
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 15 * 60);
}

#[test]
fn a_token_that_would_be_refused_is_not_made() {
    let folder = user_folder();
    let early = run(folder.path(), &["token", "--subject", "bot-a"]);
    assert_eq!((early.code, early.stdout.as_str()), (Some(64), ""));
    assert!(early.stderr.contains("countersign certs"), "what to do about the missing secret: {early:?}");
    assert_eq!(run(folder.path(), &["certs"]).code, Some(0));
    for (arguments, advice) in [
        (&["--subject", "bot-a", "--scope", "read,everything"][..], "--scope: the rights are public, read, trade"),
        (&["--subject", "bot-a", "--ttl", "48h"], "--ttl: must be from 1 second to `clients.jwt.lifetime_max`"),
        (&["--subject", "bot-a", "--ttl", "0s"], "--ttl: must be from 1 second to `clients.jwt.lifetime_max`"),
        (&["--subject", "anonymous"], "--subject"),
        (&["--subject", "bot a"], "--subject"),
    ] {
        let refused = run(folder.path(), &[&["token"], arguments].concat());
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(64), ""), "{arguments:?}");
        assert!(refused.stderr.contains(advice), "{refused:?}");
    }
}

fn claims(token: &str) -> Value {
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts.len(), 3);
    serde_json::from_slice(&BASE64URL.decode(parts[1]).unwrap()).unwrap()
}
