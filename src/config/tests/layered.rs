//! The file under the environment under the flags.

use super::{SMALL, file, keys, known, read, read_with};
use crate::config::{Keys, SecretRef, Tls, Upstream, load};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

#[test]
fn the_environment_wins_over_the_file_and_flags_win_over_both() {
    let env = [("COUNTERSIGN__LISTEN__ADDRESS", "127.0.0.1:1"), ("COUNTERSIGN__LOG__LEVEL", "debug")];
    let flags = [("listen.address", "127.0.0.1:2"), ("listen.address", "127.0.0.1:3")];
    let config = read_with(SMALL, &env, &flags).expect("no mistakes");
    assert_eq!(config.listen.address.port(), 3);
    assert_eq!(config.log.level, tracing::Level::DEBUG);
    assert_eq!(read_with(SMALL, &env, &[]).expect("no mistakes").listen.address.port(), 1);
}

#[test]
fn a_variable_holds_whatever_its_key_asks_for() {
    let env = [
        ("COUNTERSIGN__LIMITS__HEADERS_MAX", "12"),
        ("COUNTERSIGN__LIMITS__HOLD_MAX", "750ms"),
        ("COUNTERSIGN__LISTEN__UNSAFE_NO_AUTH", "true"),
        ("COUNTERSIGN__LISTEN__HOSTS", "[\"Proxy.desk\"]"),
        ("COUNTERSIGN__ACCOUNTS__KRAKEN_MAIN__UPSTREAM", "simulator"),
        ("COUNTERSIGN__ACCOUNTS__FEED__UPSTREAM__ADDRESSES", "[\"127.0.0.1:9001\"]"),
        ("COUNTERSIGN__ACCOUNTS__FEED__TOKEN", "{ env = \"FEED\" }"),
        ("COUNTERSIGN__GRANTS", "[{ client = \"cert:x\", account = \"feed\", scope = [\"read\"], max_sessions = 3 }]"),
    ];
    let config = read_with(SMALL, &env, &[]).expect("no mistakes");
    assert_eq!((config.limits.headers_max, config.limits.hold_max), (12, Duration::from_millis(750)));
    assert!(config.listen.unsafe_no_auth);
    assert_eq!(config.listen.hosts, ["proxy.desk"]);
    let [feed, kraken] = &config.accounts[..] else { panic!("two accounts") };
    assert_eq!((&kraken.upstream, &kraken.keys), (&Upstream::Simulator, &Keys::Simulated));
    assert_eq!(feed.keys, Keys::None { token: Some(SecretRef::Env("FEED".to_owned())) });
    let Upstream::Hosts(hosts) = &feed.upstream else { panic!("hosts") };
    assert_eq!((hosts.addresses.len(), hosts.ws.as_ref().map(|url| url.path.as_str())), (1, Some("/v1")));
    assert_eq!(config.grants.iter().map(|grant| grant.max_sessions).collect::<Vec<_>>(), [3]);
}

#[test]
fn a_variable_may_have_several_lines_but_not_several_values() {
    let hosts = [("COUNTERSIGN__LISTEN__HOSTS", "[\n  \"a\",\n  \"b\"\n]\n")];
    assert_eq!(read_with(SMALL, &hosts, &[]).expect("no mistakes").listen.hosts, ["a", "b"]);
    let two = [("COUNTERSIGN__LIMITS__HEADERS_MAX", "64\nhunter2 = 1")];
    assert_eq!(keys(read_with(SMALL, &two, &[])), ["limits.headers_max"]);
}

#[test]
fn digits_stay_the_text_that_they_are_where_a_text_belongs() {
    let env = [("COUNTERSIGN__CLIENTS__JWT__AUDIENCE", "0012"), ("COUNTERSIGN__CLIENTS__JWT__ISSUER", "true")];
    let jwt = read_with(SMALL, &env, &[("store.path", "007")]).map(|config| (config.clients.jwt, config.store_path));
    let (jwt, store_path) = jwt.expect("no mistakes");
    let jwt = jwt.expect("it is in the file");
    assert_eq!((jwt.audience.as_str(), jwt.issuer.as_deref()), ("0012", Some("true")));
    assert!(store_path.ends_with("007"));
}

#[test]
fn a_secret_in_a_variable_of_ours_is_refused_and_not_shown() {
    for secret in ["hunter2-canary", "12345678901234567890", "0012", "123456", "{ hunter2 = 1", "a\nb = 1"] {
        let env = [("COUNTERSIGN__ACCOUNTS__KRAKEN_MAIN__SECRET", secret)];
        let outcome = read_with(SMALL, &env, &[]);
        let shown = outcome.as_ref().expect_err("it is no reference").to_string();
        assert!(!shown.contains(secret), "{shown}");
        let line = "COUNTERSIGN__ACCOUNTS__KRAKEN_MAIN__SECRET: accounts.kraken_main.secret: a secret is a reference";
        assert!(shown.starts_with(line), "{shown}");
        // As a whole, over the table in the file.
        assert_eq!(keys(outcome), ["accounts.kraken_main.secret"]);
    }
}

#[test]
fn unknown_variables_and_flags_are_mistakes_and_those_of_others_are_not() {
    let env = [
        ("COUNTERSIGN_SKIP_CLIENTS", "hunter2-canary"),
        ("COUNTERSIGN_LISTEN__ADDRESS", "hunter2-canary"),
        ("PATH", "hunter2-canary"),
    ];
    assert!(read_with(SMALL, &env, &[]).is_ok());
    let env = [
        ("COUNTERSIGN__LISTEN__ADRESS", "hunter2-canary"),
        ("COUNTERSIGN__X__Y", "hunter2-canary"),
        ("COUNTERSIGN__LISTEN", "hunter2-canary"),
        ("COUNTERSIGN__", "hunter2-canary"),
        ("COUNTERSIGN__LIMITS__HEADERS_MAX", "hunter2-canary"),
    ];
    let outcome = read_with(SMALL, &env, &[("log.leven", "hunter2-canary"), ("log..level", "hunter2-canary")]);
    let shown = outcome.as_ref().expect_err("mistakes").to_string();
    assert!(shown.contains("command line: log.leven: unknown key; did you mean `level`?"), "{shown}");
    assert!(shown.contains("COUNTERSIGN__X__Y: x: unknown key"), "{shown}");
    assert!(shown.contains("is set as a whole, and in part by COUNTERSIGN__LISTEN__ADRESS"), "{shown}");
    let mut keys = keys(outcome);
    keys.sort();
    assert_eq!(keys, ["", "limits.headers_max", "listen", "log.\"\".level", "log.leven", "x"]);
}

#[test]
fn what_is_not_utf_8_is_a_mistake() {
    let value = OsString::from_vec(b"hunter2\xff".to_vec());
    let env = [(OsString::from("COUNTERSIGN__LOG__LEVEL"), value)];
    let errors = load(Some(&file(SMALL)), &[], env.into_iter(), &known()).expect_err("a mistake");
    assert_eq!(errors.to_string(), "COUNTERSIGN__LOG__LEVEL: is not UTF-8");
}

#[test]
fn a_mistake_in_the_file_is_told_though_a_variable_hides_it() {
    let text = format!("limits.headers_max = 'hunter2-canary'\n{SMALL}");
    let outcome = read_with(&text, &[("COUNTERSIGN__LIMITS__HEADERS_MAX", "64")], &[]);
    assert_eq!(keys(outcome), ["limits.headers_max"]);
}

#[test]
fn a_mistake_names_the_layer_that_made_it() {
    let env = [("COUNTERSIGN__ACCOUNTS__KRAKEN_MAIN__VENUE", "hunter2-canary")];
    let outcome = read_with(SMALL, &env, &[("grants", "[{ client = \"jwt:a\", account = 7, scope = [\"x\"] }]")]);
    let shown = outcome.as_ref().expect_err("mistakes").to_string();
    assert!(shown.contains("COUNTERSIGN__ACCOUNTS__KRAKEN_MAIN__VENUE: accounts.kraken_main.venue:"), "{shown}");
    assert!(shown.contains("command line: grants[0].account: must be a text"), "{shown}");
    assert!(shown.contains("command line: grants[0].scope[0]: unknown scope"), "{shown}");
    assert_eq!(keys(outcome).len(), 3);
}

#[test]
fn relative_paths_start_at_the_folder_of_the_file() {
    let path = file(&SMALL.replace("[listen]", "[listen]\ntls = { certificate = 'c.pem', key = '/k.pem' }"));
    let folder = path.parent().expect("it is in a folder");
    let config = load(Some(&path), &[], std::iter::empty(), &known()).expect("no mistakes");
    assert_eq!(config.base, folder);
    assert_eq!(config.store_path, folder.join("state"));
    assert_eq!(config.listen.tls, Tls::Pair { certificate: folder.join("c.pem"), key: Path::new("/k.pem").to_owned() });
    assert_eq!(config.clients.mtls.map(|mtls| mtls.authority), Some(folder.join("ca.pem")));
}

#[test]
fn what_is_not_said_has_its_default() {
    let config = read(SMALL).expect("no mistakes");
    assert_eq!(config.admin_address.to_string(), "127.0.0.1:9443");
    assert_eq!((config.listen.connections_max, config.grants[0].max_sessions), (1000, 8));
    let jwt = config.clients.jwt.expect("it is in the file");
    assert_eq!((jwt.audience.as_str(), jwt.lifetime_max.as_secs(), jwt.leeway.as_secs()), ("countersign", 86400, 5));
    assert!(config.listen.origins.is_empty() && !config.listen.unsafe_no_auth);
    assert_eq!((config.ports, config.connect_address), (Vec::new(), None));
}

#[test]
fn a_port_may_be_any_that_is_free_as_often_as_one_likes() {
    let ports = "ports = [{ address = '127.0.0.1:0', venue = 'kraken', endpoint = 'public' }, \
                 { address = '127.0.0.1:0', venue = 'plain' }]\nconnect = {}\n\
                 clients.local_keys = { master = { file = 'm' } }\n";
    let config = read(&format!("{ports}{SMALL}")).expect("no mistakes");
    let ports: Vec<_> = config.ports.iter().map(|port| (port.venue, port.endpoint)).collect();
    assert_eq!(ports, [("kraken", Some("public")), ("plain", None)]);
    assert_eq!(config.connect_address.map(|address| address.to_string()).as_deref(), Some("127.0.0.1:8444"));
}

#[test]
fn nobody_is_let_in_unproved_at_a_port_of_the_network() {
    let open = |address: &str| {
        let ports = format!("ports = [{{ address = '{address}', venue = 'kraken' }}]\n");
        let listen = "[listen]\nunsafe_no_auth = true";
        let small =
            SMALL.replace("[listen]", listen).replace("[clients.jwt]\nsecret = { file = \"client.key\" }\n", "");
        read(&format!("{ports}{small}"))
    };
    assert_eq!(keys(open("0.0.0.0:8601")), ["ports[0].address"]);
    assert!(open("127.0.0.1:8601").is_ok());
}
