//! Exchanges that are down, refuse, hang up, fall silent or say too much: end to end, over real TLS. Cases U1 to U9 and
//! U14 of the fault catalogue, and of tokens and nonces those that show at a socket.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by where it panics")]

mod house;

use bytes::Bytes;
use countersign::certs::{self, Wanted};
use countersign::cli::assemble;
use countersign::server::Threads;
use countersign::simulator::kraken::Kraken;
use countersign::simulator::{
    Direction, Kind, MintFault, Options, Record, Running, SimClock, SimKey, SocketAction, kraken,
};
use countersign::tls::{Acceptor, Certificates, ServerSettings};
use house::{Folder, House, PATIENCE, Socket, now};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio_tungstenite::tungstenite::Error;

const API_KEY: &str = "KEYuDqV5oF8mCh3TbLzA1eRwXn7Ks2Jg4Pi6Yt9Qv0aMdNcHfGr";
const API_SECRET: &str = "kQH5HW/8p1uGOVjbgWA7FunAmGO8lsSUXNsu3eow76sz84Q18fWxnyRzBHCd3pd5nE9qa99HAZtuZuj6F1huXg==";

/// A Kraken of its own beside the house, with certificates of its own authority, and a key that outlives the house.
struct Exchange {
    running: Running<Kraken>,
    clock: SimClock,
    folder: Folder,
}

impl Exchange {
    async fn open() -> Self {
        countersign::tls::install_crypto();
        let folder = Folder::new();
        let acceptor = acceptor(folder.path());
        let clock = SimClock::real();
        let keys = vec![SimKey::new(API_KEY, API_SECRET)];
        let options = Options { clock: clock.clone(), ..Options::kraken(acceptor, keys) };
        Self { running: kraken::start(options).await.unwrap(), clock, folder }
    }

    fn record(&self) -> &Record {
        self.running.record()
    }

    /// A house whose account is at this exchange.
    async fn house(&self) -> House {
        self.house_trusting(self.folder.path()).await
    }

    /// A house that trusts the authority in this folder to vouch for the exchange.
    async fn house_trusting(&self, authority: &Path) -> House {
        House::from(&account_at(self.running.address().port(), authority, self.folder.path())).await
    }

    fn placed(&self) -> usize {
        self.running.exchange().orders_placed(API_KEY)
    }
}

fn acceptor(folder: &Path) -> Acceptor {
    let names = ["api.kraken.com", "ws.kraken.com", "ws-auth.kraken.com"].map(str::to_owned).to_vec();
    certs::ensure(&Wanted { directory: folder.to_owned(), names, clients: Vec::new(), is_forced: false }, now())
        .unwrap();
    let certificates = Certificates::Directory(folder.to_owned());
    ServerSettings { certificates, client_authority: None, client_revocations: None }.load(now()).unwrap()
}

/// A configuration with one account with real keys, at the exchange that listens on this port.
fn account_at(port: u16, authority: &Path, keys: &Path) -> String {
    write_secret(&keys.join("api.key"), API_KEY);
    write_secret(&keys.join("api.secret"), API_SECRET);
    let (keys, authority) = (keys.display(), authority.join("ca.pem"));
    format!(
        r#"
[listen]
address = "127.0.0.1:0"
[clients.jwt]
secret = {{ file = "certs/client-jwt.key" }}
[accounts.kraken_main]
venue = "kraken"
key = {{ file = "{keys}/api.key" }}
secret = {{ file = "{keys}/api.secret" }}
upstream = {{ rest = "https://api.kraken.com", ws = "wss://ws-auth.kraken.com", roots = "{}", addresses = ["127.0.0.1:{port}"] }}
[[grants]]
client = "jwt:bot-a"
account = "kraken_main"
scope = ["read", "trade"]
max_sessions = 64
[admin]
address = "127.0.0.1:0"
"#,
        authority.display()
    )
}

fn write_secret(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// The same house once more, on the same folder.
async fn restarted(house: House) -> House {
    let House { running, folder, jwt_secret } = house;
    assert!(running.stop().await, "a house without sessions closes at once");
    let config =
        assemble::read(Some(&folder.path().join("proxy.toml")), &[]).unwrap_or_else(|errors| panic!("{errors}"));
    let running = assemble::start(&config, Threads::here()).await.unwrap_or_else(|exit| panic!("{exit:?}"));
    House { running, folder, jwt_secret }
}

/// A port of this machine at which nobody listens.
async fn closed_port() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

/// The status and slug of an upgrade that is refused.
async fn upgrade_refused(house: &House, path: &str) -> (u16, String) {
    let bearer = format!("Bearer {}", house.token("bot-a"));
    match house.upgrade(path, &[("authorization", &bearer)], None).await {
        Err(Error::Http(answer)) => {
            assert_eq!(answer.headers()["countersign-upstream"], "not-sent");
            let slug = answer.headers()["countersign-reason"].to_str().unwrap().to_owned();
            (answer.status().as_u16(), slug)
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the upgrade was granted"),
    }
}

/// How a session ends whose client logged in by its first message.
async fn login_refused(house: &House, path: &str) -> (u16, String) {
    let mut socket = house.socket(path).await;
    socket.log_in(&house.token("bot-a")).await;
    socket.closed().await
}

/// Logs in again and again until it works.
async fn logged_in_at_last(house: &House, path: &str) -> Socket {
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < PATIENCE, "no login ever worked");
        let mut socket = house.socket(path).await;
        socket.log_in(&house.token("bot-a")).await;
        if let Some(Ok(message)) = socket.next().await
            && message.is_text()
        {
            return socket;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn order(id: u64) -> String {
    json!({"method": "add_order", "req_id": id, "params": {
        "order_type": "limit", "side": "buy", "symbol": "BTC/USD", "order_qty": 1.0, "limit_price": 100.1,
    }})
    .to_string()
}

async fn ask(bot: &mut Socket, request: String, id: u64) -> Value {
    bot.say(request).await;
    bot.json_where(|it| it["req_id"] == id && it["method"] != "echo").await
}

fn subscribe(channel: &str, id: u64) -> String {
    json!({"method": "subscribe", "params": {"channel": channel}, "req_id": id}).to_string()
}

/// The tokens that an exchange has sold, as they stand in its answers.
fn tokens_sold(record: &Record) -> Vec<String> {
    let entries = record.snapshot();
    let answers = entries.iter().filter(|entry| entry.direction == Direction::Sent);
    let bodies = answers.filter_map(|entry| serde_json::from_slice::<Value>(&entry.bytes).ok());
    bodies.filter_map(|body| body["result"]["token"].as_str().map(str::to_owned)).collect()
}

/// The key that a house signs with, as it stands in its requests.
fn key_in_use(record: &Record) -> String {
    let entries = record.snapshot();
    let heads = entries
        .iter()
        .filter(|entry| matches!(entry.kind, Kind::Request { .. }))
        .map(|entry| entry.text().into_owned());
    let key =
        heads.filter_map(|head| head.lines().find_map(|line| line.strip_prefix("api-key: ").map(str::to_owned))).next();
    key.unwrap()
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn an_exchange_where_nobody_listens_is_a_bad_gateway_or_try_again_later() {
    let exchange = Exchange::open().await;
    let house = House::from(&account_at(closed_port().await, exchange.folder.path(), exchange.folder.path())).await;
    assert_eq!(upgrade_refused(&house, "/kraken/v2").await, (502, "upstream_unavailable".to_owned()));
    assert_eq!(login_refused(&house, "/kraken/v2").await, (1013, "upstream_unavailable".to_owned()));
}

#[tokio::test]
async fn a_certificate_of_another_authority_gets_no_byte_of_ours() {
    let exchange = Exchange::open().await;
    let stranger = Folder::new();
    acceptor(stranger.path());
    let house = exchange.house_trusting(stranger.path()).await;
    assert_eq!(upgrade_refused(&house, "/kraken/v2").await, (502, "upstream_tls".to_owned()));
    assert_eq!(login_refused(&house, "/kraken/v2").await, (1011, "upstream_tls".to_owned()));
    assert_eq!(exchange.record().tcp_connections(), 2);
    assert_eq!(exchange.record().bytes_received(), 0);
}

#[tokio::test]
async fn an_exchange_that_refuses_the_upgrade_is_not_followed_or_mistaken() {
    let house = House::open().await;
    for (status, code, slug) in [
        (401, 1011, "upstream_auth_failed"),
        (403, 1011, "upstream_auth_failed"),
        (429, 1013, "upstream_unavailable"),
        (301, 1013, "upstream_unavailable"),
        (503, 1013, "upstream_unavailable"),
        (200, 1013, "upstream_unavailable"),
    ] {
        house.kraken_exchange().faults().set(|switches| switches.handshake_status = Some(status));
        let before = house.kraken().tcp_connections();
        assert_eq!(login_refused(&house, "/kraken/v2").await, (code, slug.to_owned()), "{status}");
        assert_eq!(upgrade_refused(&house, "/kraken/v2").await, (502, slug.to_owned()), "{status}");
        assert_eq!(house.kraken().tcp_connections(), before + 2, "{status}: one try each");
    }
    house.kraken_exchange().faults().clear();
    house.logged_in("/kraken/v2", "bot-a").await;
}

#[tokio::test]
async fn a_login_that_the_exchange_refuses_ends_the_session() {
    let house = House::open().await;
    house.bitfinex_exchange().faults().set(|switches| switches.refuse_auth = true);
    assert_eq!(login_refused(&house, "/bitfinex/v2").await, (1011, "upstream_auth_rejected".to_owned()));
    house.bitfinex_exchange().faults().clear();
    house.logged_in("/bitfinex/v2", "bot-a").await;
}

#[tokio::test]
async fn a_lost_exchange_says_how_many_orders_it_did_not_answer_and_none_is_sent_again() {
    let house = House::open().await;
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    let key = key_in_use(house.kraken());
    house.kraken_exchange().faults().set(|switches| switches.stall = true);
    for id in 1..=5 {
        bot.say(order(id)).await;
    }
    // The order of one stream: what follows the orders has left behind them.
    let mut other = house.logged_in("/kraken/v2", "viewer").await;
    house.kraken_exchange().faults().reset_all();
    let (code, reason) = bot.closed().await;
    assert_eq!(code, 1012);
    assert_eq!(reason, "upstream_lost; maybe-sent: 5");
    assert_eq!(other.closed().await, (1012, "upstream_lost".to_owned()));

    house.kraken_exchange().faults().clear();
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    let placed = ask(&mut bot, order(6), 6).await;
    assert_eq!(placed["success"], true, "{placed}");
    assert_eq!(house.kraken_exchange().exchange().orders_placed(&key), 1);
    let orders = house.kraken().frames_received();
    assert_eq!(orders.iter().filter(|frame| frame.contains("add_order")).count(), 1, "{orders:?}");
}

#[tokio::test]
async fn an_exchange_that_falls_silent_is_lost() {
    let house = House::with("[limits]\nping_interval = \"50ms\"\npong_timeout = \"300ms\"").await;
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    house.kraken_exchange().faults().set(|switches| switches.stall = true);
    bot.say(order(1)).await;
    assert_eq!(bot.closed().await, (1012, "upstream_lost; maybe-sent: 1".to_owned()));
}

#[tokio::test]
async fn an_exchange_that_stops_inside_a_frame_is_lost() {
    let house = House::with("[limits]\nping_interval = \"50ms\"\npong_timeout = \"300ms\"").await;
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    // What comes behind this, pongs too, is taken for its payload.
    let half_a_frame = [&[0x81, 126, 0xff, 0xff][..], b"{\"channel\":"].concat();
    house.kraken_exchange().faults().act(SocketAction::Raw(Bytes::from(half_a_frame)));
    assert_eq!(bot.closed().await, (1012, "upstream_lost".to_owned()));
}

#[tokio::test]
async fn an_exchange_that_restarts_tells_its_clients_so() {
    let house = House::open().await;
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    house.kraken_exchange().faults().close_all(1012, "service restart");
    assert_eq!(bot.closed().await, (1012, "upstream_closed".to_owned()));
}

#[tokio::test]
async fn fifty_sessions_that_are_dropped_at_once_can_all_come_back() {
    let exchange = Exchange::open().await;
    let house = exchange.house().await;
    let all =
        || async { futures_util::future::join_all((0..50).map(|_| house.logged_in("/kraken/v2", "bot-a"))).await };
    let bots = all().await;
    exchange.running.faults().reset_all();
    for mut bot in bots {
        assert_eq!(bot.closed().await, (1012, "upstream_lost".to_owned()));
    }
    eventually("the exchange has lost them", || exchange.record().sockets_live() == 0).await;
    let bots = all().await;
    assert_eq!(exchange.record().sockets_live(), 50);
    assert_eq!(exchange.record().sockets_opened(), 100, "nobody was reconnected behind a client's back");
    drop(bots);
    assert_eq!(exchange.record().tokens_minted(), 1);
}

#[tokio::test]
async fn an_exchange_that_repeats_a_token_does_not_reach_the_client_with_it() {
    let house = House::open().await;
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    let token = tokens_sold(house.kraken()).pop().unwrap();
    assert!(token.contains('/'), "the escaped form has to be another: {token}");
    house.kraken_exchange().faults().set(|switches| switches.echo = true);
    bot.say(subscribe("executions", 1)).await;
    for form in [token.clone(), token.replace('/', "\\/")] {
        let echo = loop {
            let text = bot.text().await;
            if text.contains("echo") {
                break text;
            }
        };
        assert!(!echo.contains(&form) && !echo.contains(&token[4..20]), "{echo}");
        assert!(echo.contains(&"*".repeat(form.len())), "the same length: {echo}");
    }
    assert!(house.kraken().frames_received().iter().any(|frame| frame.contains(&token)), "it was sent at all");
}

#[tokio::test]
async fn bitfinex_repeats_no_key_and_no_signature() {
    let house = House::open().await;
    house.bitfinex_exchange().faults().set(|switches| switches.echo = true);
    let mut bot = house
        .upgrade_at(
            "api.bitfinex.com",
            "/ws/2",
            &[("authorization", &format!("Bearer {}", house.token("bot-a")))],
            None,
        )
        .await
        .unwrap();
    bot.say(r#"{"event":"auth","apiKey":"local","authSig":"00","authNonce":1,"authPayload":"AUTH1"}"#).await;
    let login = house.bitfinex().wait_for(|entry| entry.received("authSig"), PATIENCE).await.unwrap();
    let login: Value = serde_json::from_slice(&login.bytes).unwrap();
    let mut told = String::new();
    while let Some(Ok(message)) = bot.next().await {
        if message.is_close() || told.contains("**") {
            break;
        }
        told.push_str(message.to_text().unwrap_or_default());
    }
    for member in ["apiKey", "authSig"] {
        assert!(!told.contains(login[member].as_str().unwrap()), "{member}: {told}");
    }
}

#[tokio::test]
async fn a_mint_that_is_down_costs_new_sessions_and_no_running_one() {
    for fault in [
        MintFault::Unavailable,
        MintFault::Error("EService:Unavailable".to_owned()),
        MintFault::EmptyToken,
        MintFault::Html,
    ] {
        let house = House::open().await;
        house.kraken_exchange().faults().set(|switches| switches.mint = fault.clone());
        assert_eq!(login_refused(&house, "/kraken/v2").await, (1013, "token_unavailable".to_owned()), "{fault:?}");
        assert_eq!(house.kraken().tokens_minted(), 0);
        house.kraken_exchange().faults().clear();
        let mut bot = logged_in_at_last(&house, "/kraken/v2").await;
        assert_eq!(ask(&mut bot, order(1), 1).await["success"], true);

        house.kraken_exchange().faults().set(|switches| switches.mint = fault.clone());
        let mut second = house.logged_in("/kraken/v2", "bot-a").await;
        assert_eq!(ask(&mut second, order(2), 2).await["success"], true, "the old token serves to its end");
        assert_eq!(house.kraken().tokens_minted(), 1);
    }
}

#[tokio::test]
async fn a_mint_that_is_down_is_not_hammered() {
    let house = House::open().await;
    house.kraken_exchange().faults().set(|switches| switches.mint = MintFault::Unavailable);
    for _ in 0..10 {
        assert_eq!(login_refused(&house, "/kraken/v2").await, (1013, "token_unavailable".to_owned()));
    }
    let entries = house.kraken().snapshot();
    let asked = entries.iter().filter(|entry| entry.received("GetWebSocketsToken")).count();
    assert!(asked <= 3, "{asked} requests for ten sessions");
}

#[tokio::test]
async fn fifty_sessions_at_once_buy_one_token() {
    let exchange = Exchange::open().await;
    let house = exchange.house().await;
    exchange.running.faults().set(|switches| switches.mint_delay = Duration::from_millis(100));
    let bots = futures_util::future::join_all((0..50).map(|_| house.logged_in("/kraken/v2", "bot-a"))).await;
    assert_eq!((bots.len(), exchange.record().tokens_minted()), (50, 1));
}

#[tokio::test]
async fn a_subscription_outlives_its_token_and_an_order_is_left_to_the_client() {
    let exchange = Exchange::open().await;
    let house = exchange.house().await;
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    assert_eq!(ask(&mut bot, order(1), 1).await["success"], true);

    exchange.running.exchange().invalidate_tokens();
    let told = ask(&mut bot, subscribe("executions", 2), 2).await;
    assert_eq!(told["success"], true, "the client hears nothing of the old token: {told}");
    assert_eq!(exchange.record().tokens_minted(), 2);

    exchange.running.exchange().invalidate_tokens();
    let told = ask(&mut bot, order(3), 3).await;
    assert_eq!(told["error"], "ESession:Invalid session", "{told}");
    let told = ask(&mut bot, order(4), 4).await;
    assert_eq!(told["success"], true, "the next one has a new token: {told}");
    assert_eq!((exchange.placed(), exchange.record().tokens_minted()), (2, 3));
    let frames = exchange.record().frames_received();
    assert_eq!(frames.iter().filter(|frame| frame.contains("add_order")).count(), 3, "none was sent twice");
}

#[tokio::test]
async fn a_socket_keeps_its_token_when_the_account_has_a_new_one() {
    let exchange = Exchange::open().await;
    let house = exchange.house().await;
    let mut old = house.logged_in("/kraken/v2", "bot-a").await;
    assert_eq!(ask(&mut old, subscribe("executions", 1), 1).await["success"], true);
    // Too old for a first use, and good on the socket that has used it.
    exchange.clock.advance(Duration::from_secs(901));
    let mut new = house.logged_in("/kraken/v2", "bot-a").await;
    assert_eq!(ask(&mut new, subscribe("executions", 2), 2).await["success"], true);
    assert_eq!(exchange.record().tokens_minted(), 2);
    assert_eq!(ask(&mut old, order(3), 3).await["success"], true);
    assert_eq!(ask(&mut new, order(4), 4).await["success"], true);
    let tokens = tokens_sold(exchange.record());
    let frames = exchange.record().frames_received();
    let carried = |id: u64| {
        tokens.iter().position(|token| {
            frames.iter().any(|frame| frame.contains(&format!("\"req_id\":{id}")) && frame.contains(token))
        })
    };
    assert_eq!((carried(3), carried(4)), (Some(0), Some(1)));
}

#[tokio::test]
async fn a_nonce_that_another_program_has_passed_heals_once() {
    let exchange = Exchange::open().await;
    let house = exchange.house().await;
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    exchange.running.exchange().raise_nonce(API_KEY, now().0 * 1_000_000);
    exchange.running.exchange().invalidate_tokens();
    assert_eq!(ask(&mut bot, subscribe("executions", 1), 1).await["success"], true);
    assert_eq!(exchange.record().nonce_errors(), 1);
    assert_eq!(exchange.record().tokens_minted(), 2);
}

#[tokio::test]
async fn a_bitfinex_login_with_a_passed_nonce_heals_once() {
    let house = House::open().await;
    house.logged_in("/bitfinex/v2", "bot-a").await;
    let login = house.bitfinex().wait_for(|entry| entry.received("apiKey"), PATIENCE).await.unwrap();
    let login: Value = serde_json::from_slice(&login.bytes).unwrap();
    house.bitfinex_exchange().exchange().raise_nonce(login["apiKey"].as_str().unwrap(), now().0 * 1000);
    house.logged_in("/bitfinex/v2", "bot-a").await;
    assert_eq!(house.bitfinex().nonce_errors(), 1);
}

#[tokio::test]
async fn a_restart_keeps_the_token_and_never_goes_back_with_a_nonce() {
    let exchange = Exchange::open().await;
    let house = exchange.house().await;
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    assert_eq!(ask(&mut bot, order(1), 1).await["success"], true);
    drop(bot);
    let house = restarted(house).await;
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    assert_eq!(ask(&mut bot, order(2), 2).await["success"], true);
    assert_eq!(exchange.record().tokens_minted(), 1, "the token was kept");

    exchange.running.exchange().invalidate_tokens();
    assert_eq!(ask(&mut bot, subscribe("executions", 3), 3).await["success"], true);
    drop(bot);
    let house = restarted(house).await;
    exchange.running.exchange().invalidate_tokens();
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    assert_eq!(ask(&mut bot, subscribe("executions", 4), 4).await["success"], true);
    let nonces = exchange.running.exchange().accepted_nonces(API_KEY);
    assert_eq!(nonces.len(), 3);
    assert!(nonces.is_sorted_by(|earlier, later| earlier < later), "{nonces:?}");
    assert_eq!(exchange.record().nonce_errors(), 0);
}
