//! Each mistake: found, named by its key, and told without the value.

use super::{CANARY, SMALL, VENUES, file, keys, known, read, read_with};
use crate::config::{Known, load};
use crate::fresh::NonceUnit;
use std::path::Path;

/// What to replace in [`SMALL`], by what, and the key of the one mistake that this makes. Nothing to replace: put
/// before the first table.
const MISTAKES: &[(&str, &str, &str)] = &[
    // Unknown keys, at every depth.
    ("", "hunter = 1", "hunter"),
    ("[listen]", "[listen]\nadress = 'hunter2-canary'", "listen.adress"),
    ("[listen]", "[listen]\ntls = { unsafe_plaintext = true }", "listen.tls.unsafe_plaintext"),
    ("{ file = \"client.key\" }", "{ file = 'k', vault = 'hunter2-canary' }", "clients.jwt.secret.vault"),
    ("ws = \"wss", "url = 'hunter2-canary', ws = \"wss", "accounts.feed.upstream.url"),
    ("client = \"anonymous\"", "client = 'anonymous'\nrate = 'hunter2-canary'", "grants[1].rate"),
    ("", "limits.pong_timout = 'hunter2-canary'", "limits.pong_timout"),
    // Values of the wrong type.
    ("\"127.0.0.1:8443\"", "8443", "listen.address"),
    ("[listen]", "[listen]\nunsafe_no_auth = 'hunter2-canary'", "listen.unsafe_no_auth"),
    ("[listen]", "[listen]\nconnections_max = 'hunter2-canary'", "listen.connections_max"),
    ("[listen]", "[listen]\nconnections_max = -1", "listen.connections_max"),
    ("[listen]", "[listen]\norigins = 'hunter2-canary'", "listen.origins"),
    ("[listen]", "[listen]\norigins = [1]", "listen.origins[0]"),
    ("", "store = 'hunter2-canary'", "store"),
    ("[\"read\", \"trade\"]", "['read', { a = 'hunter2-canary' }]", "grants[0].scope[1]"),
    ("\"kraken_main\"", "1234567890", "grants[0].account"),
    ("[\"kraken\"]", "'hunter2-canary'", "grants[1].venues"),
    ("", "limits.headers_max = 'hunter2-canary'", "limits.headers_max"),
    ("", "limits.headers_max = 1.5", "limits.headers_max"),
    ("", "limits.hold_max = 500", "limits.hold_max"),
    // Secrets where a reference belongs.
    ("{ env = \"KEY\" }", "'hunter2-canary'", "accounts.kraken_main.key"),
    ("{ file = \"client.key\" }", "'hunter2-canary'", "clients.jwt.secret"),
    ("{ file = \"secret\" }", "12345678901234567", "accounts.kraken_main.secret"),
    ("{ env = \"KEY\" }", "{ env = 'hunter2-canary' }", "accounts.kraken_main.key.env"),
    ("{ env = \"KEY\" }", "{ env = '*' }", "accounts.kraken_main.key.env"),
    ("{ env = \"KEY\" }", "{ env = 'K', file = 'hunter2-canary' }", "accounts.kraken_main.key"),
    ("{ env = \"KEY\" }", "{}", "accounts.kraken_main.key"),
    ("{ file = \"secret\" }", "{ file = '/run/hunter2-canary/*' }", "accounts.kraken_main.secret.file"),
    ("{ file = \"secret\" }", "{ file = '' }", "accounts.kraken_main.secret.file"),
    ("{ file = \"secret\" }", "{ file = 7 }", "accounts.kraken_main.secret.file"),
    // [listen], [admin], [store], [log].
    ("127.0.0.1:8443", "hunter2-canary:8443", "listen.address"),
    ("127.0.0.1:8443\"", "0.0.0.0:8443\"\nunsafe_no_auth = true", "listen.unsafe_no_auth"),
    ("[listen]", "[listen]\ntls = { certificate = 'hunter2-canary' }", "listen.tls.key"),
    ("[listen]", "[listen]\ntls = { directory = 'c', key = 'hunter2-canary' }", "listen.tls"),
    ("[listen]", "[listen]\norigins = ['https://u:hunter2-canary@desk']", "listen.origins[0]"),
    ("[listen]", "[listen]\nhosts = ['*.hunter2-canary']", "listen.hosts[0]"),
    ("[listen]", "[listen]\nconnections_max = 0", "listen.connections_max"),
    ("127.0.0.1:8443", "127.0.0.1:9443", "admin.address"),
    ("", "admin.address = '0.0.0.0:8443'", "admin.address"),
    ("", "admin.address = 'hunter2-canary'", "admin.address"),
    ("", "store.path = ''", "store.path"),
    ("", "log.format = 'hunter2-canary'", "log.format"),
    ("", "log.level = 'hunter2-canary'", "log.level"),
    // [[ports]], [connect].
    ("", "ports = [{ address = '127.0.0.1:8601' }]", "ports[0].venue"),
    ("", "ports = [{ venue = 'kraken' }]", "ports[0].address"),
    ("", "ports = [{ address = 'hunter2-canary', venue = 'kraken' }]", "ports[0].address"),
    ("", "ports = [{ address = '127.0.0.1:1', venue = 'hunter2-canary' }]", "ports[0].venue"),
    ("", "ports = [{ address = '127.0.0.1:1', venue = 'bitfinex' }]", "ports[0].venue"),
    ("", "ports = [{ address = '127.0.0.1:1', venue = 'kraken', endpoint = 'hunter2-canary' }]", "ports[0].endpoint"),
    ("", "ports = [{ address = '127.0.0.1:1', venue = 'kraken', path = 'hunter2-canary' }]", "ports[0].path"),
    ("", "ports = [{ address = '127.0.0.1:8443', venue = 'kraken' }]", "ports[0].address"),
    ("", "ports = [{ address = '0.0.0.0:9443', venue = 'kraken' }]", "ports[0].address"),
    (
        "",
        "ports = [{ address = '127.0.0.1:1', venue = 'kraken' }, { address = '127.0.0.1:1', venue = 'plain' }]",
        "ports[1].address",
    ),
    ("", "connect.address = 'hunter2-canary'\nclients.local_keys.master.file = 'm'", "connect.address"),
    ("", "connect.address = '0.0.0.0:8444'\nclients.local_keys.master.file = 'm'", "connect.address"),
    ("", "connect.address = '127.0.0.1:8443'\nclients.local_keys.master.file = 'm'", "connect.address"),
    ("", "connect.secret = 'hunter2-canary'\nclients.local_keys.master.file = 'm'", "connect.secret"),
    ("", "connect = {}", "clients.local_keys"),
    // How requests of a key follow each other.
    ("{ env = \"KEY\" }", "{ env = 'K' }\nordering = 'hunter2-canary'", "accounts.kraken_main.ordering"),
    ("{ env = \"KEY\" }", "{ env = 'K' }\nordering = 'window'", "accounts.kraken_main.window"),
    ("{ env = \"KEY\" }", "{ env = 'K' }\nordering = 'window'\nwindow = 1", "accounts.kraken_main.window"),
    ("{ env = \"KEY\" }", "{ env = 'K' }\nordering = 'window'\nwindow = 257", "accounts.kraken_main.window"),
    ("{ env = \"KEY\" }", "{ env = 'K' }\nwindow = 8", "accounts.kraken_main.window"),
    // [clients].
    ("secret = { file = \"client.key\" }", "", "clients.jwt"),
    ("authority = { file = \"ca.pem\" }", "", "clients.mtls.authority"),
    ("{ file = \"ca.pem\" }", "{ env = 'CA' }", "clients.mtls.authority.env"),
    ("[clients.jwt]", "[clients.jwt]\nlifetime_max = '0s'", "clients.jwt.lifetime_max"),
    ("[clients.jwt]", "[clients.jwt]\nlifetime_max = 'hunter2-canary'", "clients.jwt.lifetime_max"),
    ("[clients.jwt]", "[clients.jwt]\nleeway = '1h'", "clients.jwt.leeway"),
    ("[clients.jwt]", "[clients.jwt]\naudience = ''", "clients.jwt.audience"),
    ("[clients.jwt]", "[clients.jwt]\nissuer = ''", "clients.jwt.issuer"),
    ("[clients.jwt]", "[clients.jwt]\nkeys = [{ pem = { file = 'p' } }]", "clients.jwt.keys[0].algorithm"),
    ("[clients.jwt]", "[clients.jwt]\nkeys = [{ algorithm = 'RS256' }]", "clients.jwt.keys[0].pem"),
    (
        "[clients.jwt]",
        "[clients.jwt]\nkeys = [{ algorithm = 'hunter2-canary', pem = { file = 'p' } }]",
        "clients.jwt.keys[0].algorithm",
    ),
    (
        "[clients.jwt]",
        "[clients.jwt]\nkeys = [{ algorithm = 'HS256', pem = { file = 'p' } }]",
        "clients.jwt.keys[0].algorithm",
    ),
    (
        "[clients.jwt]",
        "[clients.jwt]\nkeys = [{ algorithm = 'ES256', pem = { file = 'p' }, kid = 'hunter2-canary' }, \
         { algorithm = 'EdDSA', pem = { file = 'p' }, kid = 'hunter2-canary' }]",
        "clients.jwt.keys[1].kid",
    ),
    ("[clients.mtls]", "[clients.local_keys]\n[clients.mtls]", "clients.local_keys.master"),
    ("[clients.mtls]", "[clients.local_keys]\nmaster = 'hunter2-canary'\n[clients.mtls]", "clients.local_keys.master"),
    (
        "[clients.mtls]",
        "[clients.local_keys]\nmaster = { file = 'client.key' }\n[clients.mtls]",
        "clients.local_keys.master",
    ),
    (
        "[clients.mtls]",
        "[clients.local_keys]\nmaster = { file = 'm' }\nplaceholder_lifetime = '32d'\n[clients.mtls]",
        "clients.local_keys.placeholder_lifetime",
    ),
    (
        "[clients.mtls]",
        "[clients.local_keys]\nmaster = { file = 'm' }\ngenerations = { 'bot-a' = 0 }\n[clients.mtls]",
        "clients.local_keys.generations.bot-a",
    ),
    (
        "[clients.mtls]",
        "[clients.local_keys]\nmaster = { file = 'm' }\ngenerations = { bot_a = 2 }\n[clients.mtls]",
        "clients.local_keys.generations.bot_a",
    ),
    (
        "[clients.mtls]",
        "[clients.local_keys]\nmaster = { file = 'm' }\nbearer_lifetime = '32d'\n[clients.mtls]",
        "clients.local_keys.bearer_lifetime",
    ),
    // [accounts].
    ("venue = \"kraken\"", "", "accounts.kraken_main.venue"),
    ("venue = \"kraken\"", "venue = 'hunter2-canary'", "accounts.kraken_main.venue"),
    ("key = { env = \"KEY\" }", "", "accounts.kraken_main.key"),
    ("secret = { file = \"secret\" }", "", "accounts.kraken_main.secret"),
    ("venue = \"kraken\"", "venue = 'kraken'\nnonce_unit = 'hunter2-canary'", "accounts.kraken_main.nonce_unit"),
    ("venue = \"kraken\"", "venue = 'kraken'\ntoken = { env = 'T' }", "accounts.kraken_main.token"),
    ("venue = \"kraken\"", "venue = 'kraken'\nupstream = 'hunter2-canary'", "accounts.kraken_main.upstream"),
    ("venue = \"kraken\"", "venue = 'kraken'\nupstream = 7", "accounts.kraken_main.upstream"),
    ("wss://feed.example/v1", "wss://user:hunter2-canary@feed.example", "accounts.feed.upstream.ws"),
    ("wss://feed.example/v1", "wss://feed.example/v1?token=hunter2-canary", "accounts.feed.upstream.ws"),
    ("wss://feed.example/v1", "ws://hunter2-canary", "accounts.feed.upstream.ws"),
    ("ws = \"wss", "rest = 'https://feed.example/hunter2-canary', ws = \"wss", "accounts.feed.upstream.rest"),
    ("ws = \"wss", "addresses = ['hunter2-canary'], ws = \"wss", "accounts.feed.upstream.addresses[0]"),
    ("ws = \"wss", "roots = '', ws = \"wss", "accounts.feed.upstream.roots"),
    ("upstream = { ws = \"wss://feed.example/v1\" }", "", "accounts.feed.upstream.ws"),
    ("{ ws = \"wss://feed.example/v1\" }", "{ local = true }", "accounts.feed.upstream.ws"),
    ("{ ws = \"wss://feed.example/v1\" }", "'simulator'", "accounts.feed.upstream"),
    ("venue = \"plain\"", "venue = 'plain'\nkey = { env = 'K' }", "accounts.feed.key"),
    ("venue = \"plain\"", "venue = 'plain'\nnonce_unit = 'ns'", "accounts.feed.nonce_unit"),
    ("venue = \"kraken\"", "venue = 'projectx'\nnonce_unit = 'ns'", "accounts.kraken_main.nonce_unit"),
    ("venue = \"kraken\"", "venue = 'projectx'\nordering = 'strict'", "accounts.kraken_main.ordering"),
    ("[accounts.feed]", "[accounts.Feed-1]", "accounts.Feed-1"),
    // [[grants]].
    ("client = \"jwt:bot-a\"", "", "grants[0].client"),
    ("jwt:bot-a", "hunter2-canary x", "grants[0].client"),
    ("jwt:bot-a", "", "grants[0].client"),
    ("jwt:bot-a", "bot-a", "grants[0].client"),
    ("jwt:bot-a", "spiffe://desk/bot/*", "grants[0].client"),
    ("jwt:bot-a", "*", "grants[0].client"),
    ("jwt:bot-a", "key:bot-a", "grants[0].client"),
    ("\"anonymous\"", "'anonymous*'", "grants[1].client"),
    ("account = \"kraken_main\"", "account = 'hunter2-canary'", "grants[0].account"),
    ("account = \"kraken_main\"", "", "grants[0]"),
    ("account = \"kraken_main\"", "account = 'kraken_main'\nvenues = ['kraken']", "grants[0]"),
    ("jwt:bot-a", "anonymous", "grants[0].account"),
    ("venues = [\"kraken\"]", "venues = []", "grants[1].venues"),
    ("venues = [\"kraken\"]", "venues = ['hunter2-canary']", "grants[1].venues[0]"),
    ("venues = [\"kraken\"]", "venues = ['plain']", "grants[1].venues[0]"),
    ("[\"public\"]", "['public', 'read']", "grants[1].scope"),
    ("[\"public\"]", "[]", "grants[1].scope"),
    ("scope = [\"public\"]", "", "grants[1].scope"),
    ("\"trade\"]", "'hunter2-canary']", "grants[0].scope[1]"),
    ("\"trade\"]", "'*']", "grants[0].scope[1]"),
    ("client = \"anonymous\"", "client = 'anonymous'\nmax_sessions = 0", "grants[1].max_sessions"),
    ("client = \"anonymous\"\nvenues = [\"kraken\"]", "client = 'jwt:bot-a'\naccount = 'kraken_main'", "grants[1]"),
    (
        "account = \"kraken_main\"",
        "account = 'kraken_main'\ntrading_accounts = 'hunter2-canary'",
        "grants[0].trading_accounts",
    ),
    ("account = \"kraken_main\"", "account = 'kraken_main'\ntrading_accounts = [1]", "grants[0].trading_accounts"),
    ("client = \"anonymous\"", "client = 'anonymous'\ntrading_accounts = [1]", "grants[1].trading_accounts"),
    // [limits].
    ("", "limits.headers_max = 0", "limits.headers_max"),
    ("", "limits.headers_max = 99999999999", "limits.headers_max"),
    ("", "limits.head_bytes_max = 8191", "limits.head_bytes_max"),
    ("", "limits.hold_max = '0s'", "limits.hold_max"),
    ("", "limits.hold_max = '2days'", "limits.hold_max"),
    ("", "limits.hold_max = 'hunter2-canary'", "limits.hold_max"),
    ("", "limits.token_refresh = '15/15'", "limits.token_refresh"),
    ("", "limits.token_refresh = 'hunter2-canary'", "limits.token_refresh"),
];

fn with(from: &str, to: &str) -> String {
    if from.is_empty() {
        return format!("{to}\n{SMALL}");
    }
    assert!(SMALL.contains(from), "{from:?} is not in the text");
    SMALL.replacen(from, to, 1)
}

#[test]
fn trading_accounts_narrow_a_grant_where_the_venue_has_such() {
    let with = |ids: &str| {
        let account = format!("account = 'kraken_main'\ntrading_accounts = {ids}");
        read(&SMALL.replacen("venue = \"kraken\"", "venue = 'bitfinex'", 1).replacen(
            "account = \"kraken_main\"",
            &account,
            1,
        ))
    };
    let config = with("[123, 456]").unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.grants[0].trading_accounts, Some(vec![123, 456]));
    assert_eq!(config.grants[1].trading_accounts, None);
    let many = format!("{:?}", (0..257).collect::<Vec<u64>>());
    for bad in ["[]", "[-1]", &many] {
        let errors = with(bad).expect_err("refused").to_string();
        assert!(errors.contains("grants[0].trading_accounts"), "{bad}: {errors}");
    }
}

#[test]
fn a_nonce_unit_is_taken_where_there_are_nonces_and_told_to_be_removed_where_there_are_none() {
    let with = |venue: &str| {
        let text = SMALL.replacen("venue = \"kraken\"", &format!("venue = '{venue}'\nnonce_unit = 'us'"), 1);
        read(&text.replace("venues = [\"kraken\"]", "venues = ['bitfinex']"))
    };
    let config = with("kraken").unwrap_or_else(|errors| panic!("{errors}"));
    assert!(config.accounts.iter().any(|account| account.nonce_unit == Some(NonceUnit::Microseconds)));
    let errors = with("projectx").expect_err("refused").to_string();
    assert!(errors.contains("accounts.kraken_main.nonce_unit: is not used by this venue"), "{errors}");
    assert!(errors.contains("carry no nonces; remove it"), "{errors}");
}

#[test]
fn the_text_without_mistakes_has_none() {
    assert_eq!(read(SMALL).map(|_| ()), Ok(()));
}

#[test]
fn every_mistake_is_named_by_its_key_and_never_by_its_value() {
    for (from, to, key) in MISTAKES {
        let outcome = read(&with(from, to));
        assert!(outcome.is_err(), "{to:?} was taken");
        let shown = format!("{outcome:?}");
        assert_eq!(keys(outcome), [*key], "{to:?} gives {shown}");
    }
}

#[test]
fn all_mistakes_come_in_one_report() {
    let text = r#"
        hunter = 1
        grants = [1, { client = "jwt:a", account = "nowhere", scope = ["read", 7, "hunter2-canary"] }]
        [listen]
        address = 8443
        unsafe_no_auth = "hunter2-canary"
        [clients.jwt]
        secret = "hunter2-canary"
        lifetime_max = "0s"
        [accounts]
        wrong = "hunter2-canary"
        [accounts.kraken_main]
        venue = "hunter2-canary"
        key = 12345
        upstream = { ws = "wss://x", url = 1 }
        [limits]
        headers_max = "hunter2-canary"
        outbox_stall = "0s"
    "#;
    let mut found = keys(read(text));
    found.sort();
    assert_eq!(
        found,
        [
            "accounts.kraken_main.key",
            "accounts.kraken_main.upstream.url",
            "accounts.kraken_main.venue",
            "accounts.wrong",
            "clients.jwt.lifetime_max",
            "clients.jwt.secret",
            "grants[0]",
            "grants[1].account",
            "grants[1].scope[1]",
            "grants[1].scope[2]",
            "hunter",
            "limits.headers_max",
            "limits.outbox_stall",
            "listen.address",
            "listen.unsafe_no_auth",
        ]
    );
}

#[test]
fn an_empty_file_says_that_nobody_could_connect() {
    assert_eq!(keys(read("")), ["grants", "clients"]);
}

#[test]
fn a_file_with_syntax_errors_is_told_by_line_and_column_without_its_text() {
    let texts = [
        ("[clients.jwt]\nsecret = \"hunter2-canary\n", "line 2, column "),
        ("[clients.jwt]\nsecret = hunter2-canary\"\n", "line 2, column "),
        ("a = 1\n[hunter2-canary", "line 2, column "),
        ("a = 1\nb = hunter2-canary\n", "line 2, column "),
        ("hunter2-canary\n", "line 1, column "),
        ("[log]\nlevel = \"hunter2-canary\"\nlevel = \"info\"\n", "line 3, column 1: a key or table is written twice"),
    ];
    for (text, place) in texts {
        let outcome = read(text);
        let shown = outcome.as_ref().expect_err("it is not TOML").to_string();
        assert!(shown.contains("proxy.toml: line") && shown.contains(place), "{shown}");
        assert_eq!(keys(outcome), [""]);
    }
}

#[test]
fn a_file_that_is_named_has_to_be_there() {
    let missing = Path::new("/nonexistent/proxy.toml");
    let errors = load(Some(missing), &[], std::iter::empty(), &known()).expect_err("there is no file");
    let line = "/nonexistent/proxy.toml: the file is not there; name the file, or run in the folder of `proxy.toml`";
    assert_eq!(errors.to_string(), line);
    let folder = file(SMALL).parent().expect("it is in a folder").to_owned();
    let errors = load(Some(&folder), &[], std::iter::empty(), &known()).expect_err("it is a folder");
    assert!(errors.to_string().ends_with(": is a folder; name the file in it"), "{errors}");
}

#[test]
fn a_line_says_where_what_and_what_to_do() {
    let cases = [
        (
            "venue = \"kraken\"",
            "venue = 'x'",
            "accounts.kraken_main.venue: unknown venue; known are kraken, bitfinex, projectx, plain",
        ),
        ("[listen]", "[listen]\nadress = 'x'", "listen.adress: unknown key; did you mean `address`?"),
        ("", "limits.pong_timout = 'x'", "limits.pong_timout: unknown key; did you mean `pong_timeout`?"),
        ("", "log.colour = 'x'", "log.colour: unknown key; known here are format, level"),
        ("{ env = \"KEY\" }", "'x'", "accounts.kraken_main.key: a secret is a reference: { env = … } or { file = … }"),
        (
            "",
            "'hunter 2 \\ncanary that goes on and on and on' = 1",
            "\"hunter 2 \\\\ncanary that goes on a…\": unknown key",
        ),
    ];
    for (from, to, line) in cases {
        let errors = read(&with(from, to)).expect_err("there is a mistake").to_string();
        assert!(errors.contains(&format!("/proxy.toml: {line}")), "{errors}");
    }
}

#[test]
fn a_secret_in_place_of_a_key_is_cut_short() {
    let secret = "kQH5HW/8p1uGOVjbgWA7FunAmGO8lsSUXNsu3eow76sz84Q18fWxnyRzBHCd3pd5nE9qa99HAZtuZuj6F1huXg==";
    let errors = read(&with("", &format!("'{secret}' = 1"))).expect_err("no such key").to_string();
    assert!(!errors.contains(&secret[..40]), "{errors}");
}

#[test]
fn nobody_is_let_in_where_no_client_can_prove_itself() {
    let closed = "
        accounts.kraken_main = { venue = 'kraken', upstream = 'simulator' }
        grants = [{ client = 'jwt:a', account = 'kraken_main', scope = ['read'] }]
    ";
    assert_eq!(keys(read(closed)), ["clients"]);
    assert!(read(&format!("listen.unsafe_no_auth = true\n{closed}")).is_ok());
    let anonymous = "grants = [{ client = 'anonymous', venues = ['kraken'], scope = ['public'] }]";
    assert!(read(anonymous).is_ok());
    let jwt = "clients.jwt.secret = { env = 'S' }";
    assert!(read(&format!("{jwt}\n{closed}")).is_ok());
    let unprefixed = closed.replace("jwt:a", "a");
    assert!(read(&format!("{jwt}\n{unprefixed}")).is_ok(), "one way to prove a name needs no prefix");
    let local = "clients.local_keys.master = { env = 'M' }";
    let by_key = closed.replace("jwt:a", "key:a");
    assert!(read(&format!("{local}\n{by_key}")).is_ok());
    assert!(read(&format!("{local}\n{unprefixed}")).is_ok());
    assert_eq!(keys(read(&format!("{local}\n{closed}"))), ["grants[0].client"]);
    assert_eq!(keys(read(&format!("{jwt}\n{local}\n{unprefixed}"))), ["grants[0].client"]);
    let no_keys =
        by_key.replace("{ venue = 'kraken', upstream = 'simulator' }", "{ venue = 'plain', upstream.ws = 'wss://a' }");
    assert_eq!(keys(read(&format!("{local}\n{no_keys}"))), ["grants[0].account"]);
    let wrong_way = closed.replace("jwt:a", "cert:a");
    assert_eq!(keys(read(&format!("{jwt}\n{wrong_way}"))), ["grants[0].client"]);
}

#[test]
fn transfer_and_admin_are_granted_by_name() {
    let config = read(&with("\"trade\"]", "'transfer', 'admin']")).expect("all words are known");
    assert_eq!(config.grants[0].scope.to_string(), "read,transfer,admin");
}

#[test]
fn a_build_without_the_simulator_says_so() {
    let path = file(&with("key = { env = \"KEY\" }", "upstream = 'simulator'"));
    let known = Known { has_simulator: false, venues: &VENUES, ..known() };
    let errors = load(Some(&path), &[], std::iter::empty(), &known).expect_err("there is none");
    assert!(errors.to_string().contains("upstream: is not in this build"), "{errors}");
}

#[test]
fn a_flood_of_mistakes_ends() {
    let flood: String = (0..5000).map(|number| format!("k{number} = '{CANARY}'\n")).collect();
    assert_eq!(keys(read(&flood)).len(), 100);
}

#[test]
fn a_value_of_any_kind_anywhere_is_judged_and_not_shown() {
    let paths = [
        "listen",
        "listen.tls",
        "listen.origins",
        "clients",
        "clients.jwt",
        "clients.jwt.keys",
        "clients.jwt.secret",
        "clients.jwt.secret.env",
        "clients.mtls",
        "accounts",
        "accounts.a",
        "accounts.a.upstream",
        "accounts.a.key",
        "accounts.a.upstream.addresses",
        "grants",
        "admin",
        "store",
        "log",
        "limits",
        "limits.headers_max",
    ];
    let values = [
        "'hunter2-canary'",
        "7",
        "-7",
        "1.5",
        "inf",
        "true",
        "2026-01-01",
        "[]",
        "[7]",
        "['hunter2-canary']",
        "[['hunter2-canary']]",
        "[{}, 'hunter2-canary', 7]",
        "[{ hunter = 'hunter2-canary' }]",
        "{}",
        "{ hunter = 'hunter2-canary' }",
        "{ hunter = ['hunter2-canary'] }",
    ];
    for path in paths {
        for value in values {
            // The rest is missing, so there is always a mistake.
            assert!(!keys(read(&format!("{path} = {value}"))).is_empty());
            let env = [(&*format!("COUNTERSIGN__{}", path.to_uppercase().replace('.', "__")), value)];
            assert!(!keys(read_with("", &env, &[])).is_empty());
        }
    }
}
