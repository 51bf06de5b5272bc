//! Holds the source to its own map: which module may use which, and which are pure.
//!
//! Reads every path in every file, not only `use` lines, and is run on planted violations too: a rule that cannot
//! fail keeps nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A module may use those before it, and itself.
const ORDER: &[&str] = &[
    "scope",
    "names",
    "secret",
    "message",
    "fresh",
    "credential",
    "venue",
    "identity",
    "policy",
    "session",
    "fault",
    "store",
    "buffer",
    "tls",
    "certs",
    "upstream",
    "supply",
    "relay",
    "http",
    "connect",
    "server",
    "admin",
    "config",
    "simulator",
    "cli",
];

/// Modules in which nothing happens by itself: no socket, task, file, environment or clock.
const PURE: &[&str] =
    &["scope", "names", "secret", "message", "fresh", "credential", "venue", "identity", "policy", "session", "fault"];

/// What a pure module does not name.
const IMPURE: &[&str] = &[
    "tokio",
    "hyper",
    "hyper_util",
    "rustls",
    "tokio_rustls",
    "socket2",
    "rustix",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "std::process",
    "SystemTime::now",
    "Instant::now",
];

/// Names that only these files may hold.
const CONFINED: &[(&str, &[&str])] = &[
    ("tokio_rustls", &["src/simulator/"]),
    ("SystemTime::now", &["src/supply/clock.rs", "src/simulator/"]),
    ("crate::config", &["src/config/", "src/cli/", "src/main.rs"]),
    ("tokio_tungstenite", &["src/relay/inbox/", "src/http/", "src/upstream/", "src/simulator/", "src/cli/demo"]),
];

/// A simulator that shared code with what it verifies would verify nothing.
const SIMULATOR_MAY_NOT: &[&str] = &["venue", "credential", "supply", "identity", "policy", "session"];

#[test]
fn every_module_uses_only_what_stands_before_it() {
    let sources = sources();
    assert!(sources.len() > 40, "only {} files were found", sources.len());
    let broken: Vec<String> = sources.iter().flat_map(|(path, text)| violations(path, text)).collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_module_has_a_place_in_the_order() {
    let lib = std::fs::read_to_string(root().join("src/lib.rs")).expect("lib.rs");
    let declared = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    for module in declared {
        assert!(ORDER.contains(&module), "{module} has no place in the order");
    }
}

#[test]
fn a_planted_violation_is_found() {
    for (path, text) in [
        ("src/venue/kraken.rs", "fn f() { let at = std::time::Instant::now(); }"),
        ("src/venue/kraken.rs", "use tokio::net::TcpStream;"),
        ("src/session/mod.rs", "use crate::{relay::House, venue};"),
        ("src/policy.rs", "fn f() -> crate::session::End { todo() }"),
        ("src/relay/mod.rs", "use crate::config::Config;"),
        ("src/simulator/kraken/mod.rs", "use crate::credential::Signer;"),
        ("src/tls/stream.rs", "type S = tokio_rustls::TlsStream<()>;"),
        ("src/identity/mod.rs", "fn f() { std::fs::read(\"x\").ok(); }"),
        ("src/scope.rs", "use crate::{\n    names::ClientName,\n    secret::Secret,\n};"),
    ] {
        assert!(!violations(path, text).is_empty(), "{path}: {text} passed");
    }
    assert_eq!(violations("src/relay/mod.rs", "use crate::session::Session; // crate::http"), [""; 0]);
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> BTreeMap<String, String> {
    fn collect(folder: &Path, found: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && path.ends_with("tests") {
                continue;
            }
            if path.is_dir() {
                collect(&path, found);
            } else if path.ends_with("tests.rs") || path.ends_with("oracle.rs") {
                // Tests may use what they like.
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
                found.insert(name, std::fs::read_to_string(&path).expect("a text"));
            }
        }
    }
    let mut found = BTreeMap::new();
    collect(&root().join("src"), &mut found);
    found
}

fn violations(path: &str, text: &str) -> Vec<String> {
    let code = code_of(text);
    let mut found = Vec::new();
    for (name, places) in CONFINED {
        if holds(&code, name) && !places.iter().any(|place| path.starts_with(place)) {
            found.push(format!("{path}: {name} belongs to {places:?}"));
        }
    }
    let module = path.trim_start_matches("src/").split(['/', '.']).next().unwrap_or_default();
    let Some(place) = ORDER.iter().position(|known| *known == module) else { return found };
    if PURE.contains(&module) {
        found.extend(
            IMPURE.iter().filter(|name| holds(&code, name)).map(|name| format!("{path}: is pure, names {name}")),
        );
    }
    for used in modules_used(&code) {
        match ORDER.iter().position(|known| *known == used) {
            Some(other) if other > place => found.push(format!("{path}: {used} stands behind {module}")),
            _ if module == "simulator" && SIMULATOR_MAY_NOT.contains(&used.as_str()) => {
                found.push(format!("{path}: a simulator verifies with code of its own, not with {used}"));
            }
            _ => {}
        }
    }
    found
}

/// The text without comments, strings' contents aside, and without tests.
fn code_of(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// True if the name stands in the code as a whole path segment.
fn holds(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + name.len()..].chars().next();
        let is_word = |character: Option<char>| character.is_some_and(|it| it.is_alphanumeric() || it == '_');
        !is_word(before) && !is_word(after)
    })
}

/// Every module named behind `crate::`, in groups too.
fn modules_used(code: &str) -> Vec<String> {
    let mut used = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut word = String::new();
            let mut at_start = true;
            for character in group.chars() {
                match character {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        used.push(std::mem::take(&mut word));
                        at_start = true;
                    }
                    ':' if depth == 0 => at_start = false,
                    it if depth == 0 && at_start && (it.is_alphanumeric() || it == '_') => word.push(it),
                    _ => {}
                }
            }
            used.push(word);
        } else {
            used.push(rest.chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect());
        }
    }
    used.retain(|name| !name.is_empty());
    used
}
