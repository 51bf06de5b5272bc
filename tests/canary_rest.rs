//! Canaries in requests: secrets of the exchange, of the house and of its clients, planted in a real process that is
//! mistreated by clients and exchanges, and searched for in everything that left it.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by where it panics")]

mod canaries;
mod house;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use canaries::market::{BITFINEX_KEY, BITFINEX_SECRET, Market};
use canaries::parrot::Manner;
use canaries::{API_KEY, API_SECRET, Proxy, Secrets, addresses, files_below, program, whole_answer};
use countersign::credential::SecretFormat;
use countersign::identity::local::{LocalGrants, LocalKeys};
use countersign::secret::Secret;
use countersign::simulator::{Direction, Record};
use futures_util::{SinkExt as _, StreamExt as _};
use house::{PATIENCE, Told, fresh_nonce, kraken_head, now, signer};
use rustix::process::Signal;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

const ORDER: &str = "ordertype=limit&type=buy&pair=XBTUSD&price=100&volume=1";
/// A body that is passed on as it comes: a shorter one than 64 KiB is read whole first.
const LONG: usize = 80 * 1024;

/// API key and secret.
type Keys = (String, String);

#[tokio::test]
async fn no_request_makes_a_process_that_logs_json_tell_a_secret() {
    no_request_makes_a_process_tell_a_secret("json").await;
}

#[tokio::test]
async fn no_request_makes_a_process_that_logs_text_tell_a_secret() {
    no_request_makes_a_process_tell_a_secret("text").await;
}

async fn no_request_makes_a_process_tell_a_secret(format: &str) {
    let market = Market::open().await;
    let proxy = Proxy::serve(format, |folder| market.config(folder)).await;
    let mut scene = Scene::open(proxy, market);
    scene.good_calls().await;
    scene.bad_proofs().await;
    scene.secrets_where_they_do_not_belong().await;
    scene.an_exchange_that_repeats_what_it_heard().await;
    scene.an_exchange_that_does_not_answer().await;
    scene.tunnels().await;
    scene.reloads().await;
    for path in ["/readyz", "/healthz", "/metrics", "/status"] {
        let told = scene.proxy.admin(path).await;
        scene.told.push((path.to_owned(), told));
    }
    scene.shut_down_and_search().await;
}

/// The process, the exchanges, whoever calls, and what they were told.
struct Scene {
    proxy: Proxy,
    market: Market,
    secrets: Secrets,
    bot: Keys,
    bitfinex_bot: Keys,
    viewer: Keys,
    bearer: String,
    run_secret: String,
    placeholder: String,
    told: Vec<(String, Vec<u8>)>,
}

impl Scene {
    fn open(proxy: Proxy, market: Market) -> Self {
        let mut secrets = Secrets::default();
        for (name, text) in [
            ("Kraken's key", API_KEY),
            ("Kraken's secret", API_SECRET),
            ("Bitfinex' key", BITFINEX_KEY),
            ("Bitfinex' secret", BITFINEX_SECRET),
        ] {
            secrets.plant(name, text.as_bytes());
        }
        secrets.plant("Kraken's secret decoded", &STANDARD.decode(API_SECRET).unwrap());
        let master = std::fs::read(proxy.folder.path().join("certs/local-keys.key")).unwrap();
        secrets.plant("master key", master.trim_ascii());
        secrets.plant("master key decoded", &URL_SAFE_NO_PAD.decode(master.trim_ascii()).unwrap());
        secrets.plant("secret of client tokens", proxy.jwt_secret().trim_ascii());

        let [bot, bitfinex_bot, viewer] =
            [("bot-a", "kraken_main"), ("bot-a", "bitfinex_main"), ("viewer", "kraken_main")]
                .map(|(client, account)| local_key(&proxy, &secrets, client, account));
        let local = LocalKeys::new(&Secret::new(master), LocalGrants::default(), PATIENCE, now()).unwrap();
        let run_secret = String::from_utf8(local.run_secret([7; 16]).expose().to_vec()).unwrap();
        let bearer = proxy.token("bot-a", &proxy.jwt_secret(), Duration::from_secs(900));
        let of_clients = [&bot, &bitfinex_bot, &viewer].into_iter().flat_map(|(key, secret)| [key, secret]);
        for (number, text) in of_clients.chain([&run_secret, &bearer]).enumerate() {
            secrets.plant(&format!("a client's secret, number {number}"), text.as_bytes());
            market.forbid(text);
        }
        let placeholder = String::new();
        Self { proxy, market, secrets, bot, bitfinex_bot, viewer, bearer, run_secret, placeholder, told: Vec::new() }
    }

    /// Sends a request under a host name, and keeps the answer.
    async fn ask(&mut self, host: &str, line: &str, head: &str, body: &str) -> Told {
        let length =
            if line.starts_with("GET") { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let request = format!("{line} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{length}{head}\r\n{body}");
        let answer = self.proxy.request_at(host, &request).await;
        self.heard(line, &answer)
    }

    /// Keeps an answer, as it came and without the marks of its chunks.
    fn heard(&mut self, what: &str, answer: &[u8]) -> Told {
        let told = Told::read(answer);
        self.told.push((what.to_owned(), [answer, b"\n", &told.body].concat()));
        told
    }

    /// A call to Kraken, signed with these keys. The signature is the client's own.
    async fn kraken(&mut self, keys: &Keys, method: &str, fields: &str) -> Told {
        let (line, head, body) = self.signed(keys, method, fields);
        self.ask("api.kraken.com", &line, &head, &body).await
    }

    fn signed(&mut self, keys: &Keys, method: &str, fields: &str) -> (String, String, String) {
        let (path, nonce) = (format!("/0/private/{method}"), fresh_nonce());
        let body = format!("nonce={nonce}&{fields}").trim_end_matches('&').to_owned();
        let head = kraken_head(keys, &path, nonce, &body);
        let signature = head.lines().find_map(|line| line.strip_prefix("api-sign: ")).unwrap().to_owned();
        self.is_of_a_client("a client's signature", &signature);
        (format!("POST {path}"), head, body)
    }

    async fn bitfinex(&mut self, keys: &Keys, path: &str, body: &str) -> Told {
        let nonce = fresh_nonce();
        let message = format!("/api/v2/{path}{nonce}{body}");
        let signature = hex::encode(signer(keys, SecretFormat::Text).hmac_sha384(&[message.as_bytes()]));
        self.is_of_a_client("a client's signature", &signature);
        let head = format!("bfx-nonce: {nonce}\r\nbfx-apikey: {}\r\nbfx-signature: {signature}\r\n", keys.0);
        self.ask("api.bitfinex.com", &format!("POST /v2/{path}"), &head, body).await
    }

    fn is_of_a_client(&mut self, name: &str, text: &str) {
        self.secrets.plant(name, text.as_bytes());
        self.market.forbid(text);
    }

    /// Calls that succeed, and everything that they need.
    async fn good_calls(&mut self) {
        let (bot, bitfinex_bot) = (self.bot.clone(), self.bitfinex_bot.clone());
        for (method, fields) in [("Balance", ""), ("AddOrder", ORDER), ("CancelAll", "")] {
            let told = self.kraken(&bot, method, fields).await;
            assert!(told.json()["error"].as_array().unwrap().is_empty(), "{told:?}");
        }
        let told = self.bitfinex(&bitfinex_bot, "auth/r/wallets", "{}").await;
        assert_eq!(told.said(), ("-", "answered"), "{told:?}");
        let head = format!("authorization: Bearer {}\r\n", self.bearer);
        let told = self.ask("api.kraken.com", "POST /0/private/Balance", &head, "").await;
        assert_eq!(told.said(), ("-", "answered"), "{told:?}");
        self.ask("api.kraken.com", "GET /0/public/Time", &head, "").await;

        // At a port, the host is whatever the bot was given.
        let line = self.proxy.line_where(|line| line.contains("listening") && line.contains("venue")).await;
        let tls = self.proxy.tls_over(TcpStream::connect(addresses(&line)[0]).await.unwrap(), "localhost").await;
        let (line, head, body) = self.signed(&bot, "Balance", "");
        let head = format!("{head}content-length: {}\r\nconnection: close", body.len());
        let answer = whole_answer(tls, &format!("{line} HTTP/1.1\r\nhost: localhost\r\n{head}\r\n\r\n{body}")).await;
        assert_eq!(self.heard("a port", &answer).said(), ("-", "answered"));

        // A client is told its own placeholder, once, in the answer that sells it.
        let told = self.kraken(&bot, "GetWebSocketsToken", "").await;
        self.placeholder = told.json()["result"]["token"].as_str().unwrap().to_owned();
        let (_, sale) = self.told.last_mut().unwrap();
        *sale = String::from_utf8_lossy(sale).replace(&self.placeholder, "its own").into_bytes();
        let placeholder = self.placeholder.clone();
        self.is_of_a_client("placeholder", &placeholder);
        // Two tokens of the exchange: the one that was replaced lives on beside the other.
        self.subscribe().await;
        self.market.kraken.exchange().invalidate_tokens();
        self.subscribe().await;
    }

    /// Subscribes on a socket with the placeholder, for which the proxy needs the exchange's token.
    async fn subscribe(&mut self) {
        let tcp = TcpStream::connect(self.proxy.address).await.unwrap();
        let tls = self.proxy.tls_over(tcp, "ws-auth.kraken.com").await;
        let request = "wss://ws-auth.kraken.com/v2".into_client_request().unwrap();
        let (mut socket, _) = tokio_tungstenite::client_async(request, tls).await.unwrap();
        let token = &self.placeholder;
        let subscribe = r#"{"method":"subscribe","params":{"channel":"balances","token":"TOKEN"},"req_id":1}"#;
        socket.send(Message::text(subscribe.replace("TOKEN", token))).await.unwrap();
        let mut told = Vec::new();
        while let Some(Ok(message)) = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap() {
            told.extend_from_slice(&message.into_data());
            if memchr::memmem::find(&told, br#""req_id":1"#).is_some() {
                break;
            }
        }
        assert!(memchr::memmem::find(&told, br#""success":true"#).is_some(), "{}", String::from_utf8_lossy(&told));
        self.told.push(("a socket".to_owned(), told));
    }

    /// Proofs that do not hold. None of them reaches an exchange.
    async fn bad_proofs(&mut self) {
        let (bot, viewer) = (self.bot.clone(), self.viewer.clone());
        let sent = self.market.requests();
        let (line, head, body) = self.signed(&bot, "AddOrder", ORDER);
        let told = self.ask("api.kraken.com", &line, &head, &body.replace("buy", "sell")).await;
        assert_eq!(told.said(), ("auth_required", "not-sent"), "{told:?}");
        let (line, head, body) = self.signed(&bot, "AddOrder", ORDER);
        assert_eq!(self.ask("api.kraken.com", &line, &head, &body).await.said(), ("-", "answered"));
        let told = self.ask("api.kraken.com", &line, &head, &body).await;
        assert_eq!(told.said(), ("replayed", "not-sent"), "{told:?}");

        // The alarm: somebody holds the exchange's own key. With the signature of its secret, and with half of it.
        let real = (API_KEY.to_owned(), API_SECRET.to_owned());
        let told = self.kraken(&real, "Balance", "").await;
        assert_eq!(told.said(), ("auth_required", "not-sent"), "{told:?}");
        let real = (BITFINEX_KEY.to_owned(), BITFINEX_SECRET.to_owned());
        let told = self.bitfinex(&real, "auth/r/wallets", "{}").await;
        assert_eq!(told.said(), ("auth_required", "not-sent"), "{told:?}");
        for half in head.split_inclusive("\r\n").take(2) {
            let told = self.ask("api.kraken.com", &line, half, &body).await;
            assert_eq!(told.said(), ("auth_required", "not-sent"), "{told:?}");
        }
        let half = format!("bfx-apikey: {}\r\n", self.bitfinex_bot.0);
        let told = self.ask("api.bitfinex.com", "POST /v2/auth/r/wallets", &half, "{}").await;
        assert_eq!(told.said(), ("auth_required", "not-sent"), "{told:?}");

        for (keys, method, fields) in [(&viewer, "AddOrder", ORDER), (&bot, "Withdraw", "asset=XBT&key=a&amount=1")] {
            let told = self.kraken(keys, method, fields).await;
            assert_eq!(told.said(), ("scope_denied", "not-sent"), "{told:?}");
        }
        assert_eq!(self.market.requests(), sent + 1, "something but the one good order was sent");
    }

    /// Every secret that a client could hold, in every place of a request where none belongs.
    async fn secrets_where_they_do_not_belong(&mut self) {
        let sent = self.market.requests();
        let token = tokens(self.market.kraken.record()).pop().unwrap();
        let held = [&self.bot.0, &self.bot.1, &self.bearer, &self.run_secret, &self.placeholder, &token];
        let held: Vec<String> = held.into_iter().cloned().chain([API_KEY.to_owned(), API_SECRET.to_owned()]).collect();
        let proof = format!("authorization: Bearer {}\r\n", self.bearer);
        for it in &held {
            let json = "content-type: application/json\r\n";
            for (head, body) in [
                (json, format!(r#"{{"nonce":1,"{it}":1,"{it}":2}}"#)),
                (json, format!(r#"{{"nonce":1}}{it}"#)),
                (json, format!(r#"{{"nonce":"{it}"#)),
                ("", format!("nonce=1&{it}=1&{it}=2")),
                ("", format!("nonce=1&pair=%zz{it}")),
                ("content-encoding: gzip\r\n", it.clone()),
            ] {
                let head = format!("{proof}{head}");
                self.refused("api.kraken.com", "POST /0/private/AddOrder", &head, &body).await;
                self.refused("api.bitfinex.com", "POST /v2/auth/w/order/submit", &head, &body).await;
            }
            for header in [
                "authorization: Basic IT",
                "authorization: Bearer ITx",
                "authorization: IT",
                "countersign-account: IT",
                "content-type: IT",
                "content-encoding: IT",
                "transfer-encoding: IT",
                "origin: https://IT",
                "IT: x",
                "api-key: IT",
                "api-key: IT\r\napi-sign: IT",
                "api-key: IT\r\napi-key: IT",
                "cookie: IT\r\nx-forwarded-for: IT",
            ] {
                let header = format!("{}\r\n", header.replace("IT", it));
                self.refused("api.kraken.com", "POST /0/private/Balance", &header, "nonce=1").await;
            }
            for line in [
                format!("POST /0/private/{it}"),
                format!("POST /{it}"),
                format!("POST /0/private/Balance?{it}"),
                format!("POST /0/private/Balance?token={it}"),
                format!("GET /0/public/Ticker?pair=%zz{it}"),
                format!("{it} /0/private/Balance"),
                format!("POST https://{it}@api.kraken.com/0/private/Balance"),
            ] {
                self.refused("api.kraken.com", &line, &proof, "").await;
            }
            let answer = self.proxy.request(&format!("POST / HTTP/1.1\r\nhost: {it}\r\n\r\n")).await;
            self.heard("a host", &answer);
        }
        assert_eq!(self.market.requests(), sent, "something was sent");
    }

    async fn refused(&mut self, host: &str, line: &str, head: &str, body: &str) {
        let told = self.ask(host, line, head, body).await;
        assert_ne!(told.header("countersign-upstream"), Some("answered"), "{line} {head} {body}: {told:?}");
    }

    /// Answers of every kind, full of what the exchange knows.
    async fn an_exchange_that_repeats_what_it_heard(&mut self) {
        let (bot, bitfinex_bot) = (self.bot.clone(), self.bitfinex_bot.clone());
        for status in [200, 401, 403, 429, 500, 503] {
            let sizes = if matches!(status, 200 | 500) { &[0, LONG][..] } else { &[0] };
            for (bytes_min, is_chunked) in sizes.iter().flat_map(|size| [(*size, false), (*size, true)]) {
                self.market.be(Manner::Repeats { status, bytes_min, is_chunked });
                let answers = [
                    self.kraken(&bot, "CancelAll", "").await,
                    self.bitfinex(&bitfinex_bot, "auth/r/wallets", "{}").await,
                    self.ask("api.kraken.com", "GET /0/public/Time", "", "").await,
                ];
                for told in answers {
                    assert_eq!((told.status, told.said()), (status, ("-", "answered")));
                    assert!(told.body.len() >= bytes_min && told.body.ends_with(b"0]}"), "it was cut");
                    assert!(told.text().contains("************"), "nothing was repeated");
                }
            }
        }
        self.market.be(Manner::RepeatsInHeaders);
        let told = self.kraken(&bot, "CancelAll", "").await;
        assert_eq!((told.status, told.text().as_str()), (200, "{}"));
        self.bitfinex(&bitfinex_bot, "auth/r/wallets", "{}").await;
        self.ask("api.kraken.com", "GET /0/public/Time", "", "").await;
        self.market.be(Manner::Faithful);
    }

    /// Answers that do not come, or come in part.
    async fn an_exchange_that_does_not_answer(&mut self) {
        let (bot, bitfinex_bot) = (self.bot.clone(), self.bitfinex_bot.clone());
        for (manner, said) in [
            (Manner::Cuts { bytes_min: 0 }, ("answer_incomplete", "answered")),
            (Manner::Cuts { bytes_min: LONG }, ("-", "answered")),
            (Manner::HangsUp, ("upstream_lost", "maybe-sent")),
            (Manner::FallsSilent, ("upstream_timeout", "maybe-sent")),
        ] {
            self.market.be(manner);
            let told = self.kraken(&bot, "CancelAll", "").await;
            assert_eq!(told.said(), said, "{manner:?}");
            let told = self.bitfinex(&bitfinex_bot, "auth/r/wallets", "{}").await;
            assert_eq!(told.said(), said, "{manner:?}");
        }
        self.market.be(Manner::Faithful);
    }

    /// Tunnels with a wrong secret and with the right one.
    async fn tunnels(&mut self) {
        let line = self.proxy.line_where(|line| line.contains("listening for CONNECT")).await;
        let basic = |user: &str, secret: &str| STANDARD.encode(format!("{user}:{secret}"));
        let shown = basic("run", &self.run_secret);
        self.is_of_a_client("the header of a tunnel", &shown);
        let wrong = [basic("root", &self.run_secret), basic("run", &self.bot.1), basic("run", API_SECRET)];
        for (number, text) in wrong.iter().enumerate() {
            self.is_of_a_client(&format!("a wrong header of a tunnel, number {number}"), text);
        }
        let connect = |name: &str, shown: &str| {
            let host = format!("{name}:443");
            format!("CONNECT {host} HTTP/1.1\r\nhost: {host}\r\nproxy-authorization: Basic {shown}\r\n\r\n")
        };
        let name = "api.kraken.com";
        let nowhere = self.run_secret.clone();
        let refused = wrong.iter().map(|wrong| (name, wrong, 407)).chain([(nowhere.as_str(), &shown, 403)]);
        for (name, shown, status) in refused {
            let tcp = TcpStream::connect(addresses(&line)[0]).await.unwrap();
            let answer = whole_answer(tcp, &connect(name, shown)).await;
            assert_eq!(self.heard("no tunnel", &answer).status, status);
        }
        let mut tcp = TcpStream::connect(addresses(&line)[0]).await.unwrap();
        tcp.write_all(connect(name, &shown).as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(tokio::time::timeout(PATIENCE, tcp.read_u8()).await.unwrap().unwrap());
        }
        assert_eq!(self.heard("a tunnel", &answer).status, 200);
        let tls = self.proxy.tls_over(tcp, name).await;
        let (line, head, body) = self.signed(&self.bot.clone(), "Balance", "");
        let head = format!("{head}content-length: {}\r\nconnection: close", body.len());
        let answer = whole_answer(tls, &format!("{line} HTTP/1.1\r\nhost: {name}\r\n{head}\r\n\r\n{body}")).await;
        assert_eq!(self.heard("in a tunnel", &answer).said(), ("-", "answered"));
    }

    /// A reload with secrets in the wrong places, and one that is right again.
    async fn reloads(&mut self) {
        let file = self.proxy.folder.path().join("proxy.toml");
        let good = std::fs::read_to_string(&file).unwrap();
        let mut reloads = 0;
        for mistake in [
            format!("secret = \"{API_SECRET}\""),
            format!("[accounts.kraken_main]\nkey = \"{API_KEY}\""),
            format!("[[grants]]\nclient = \"{}\"", self.bot.1),
            self.run_secret.clone(),
        ] {
            std::fs::write(&file, format!("{good}\n{mistake}\n")).unwrap();
            self.proxy.signal(Signal::HUP);
            reloads += 1;
            self.proxy.lines_where(reloads, |line| line.contains("reload_failed")).await;
        }
        std::fs::write(&file, good).unwrap();
        self.proxy.signal(Signal::HUP);
        self.proxy.line_where(|line| line.contains("grants reloaded")).await;
        let told = self.kraken(&self.bot.clone(), "Balance", "").await;
        assert_eq!(told.said(), ("-", "answered"), "{told:?}");
    }

    /// Ends the process while a call waits for its answer, and searches everything that left it.
    async fn shut_down_and_search(mut self) {
        self.secrets.assert_not_in("the command line", &self.proxy.command_line());
        if let Some(environment) = self.proxy.environment() {
            self.secrets.assert_not_in("the environment", &environment);
        }
        self.market.be(Manner::FallsSilent);
        let (line, head, body) = self.signed(&self.bot.clone(), "AddOrder", ORDER);
        let head = format!("{head}content-length: {}\r\nconnection: close", body.len());
        let tcp = TcpStream::connect(self.proxy.address).await.unwrap();
        let tls = self.proxy.tls_over(tcp, "api.kraken.com").await;
        let request = format!("{line} HTTP/1.1\r\nhost: api.kraken.com\r\n{head}\r\n\r\n{body}");
        let (parrot, before) = (self.market.kraken_parrot.clone(), self.market.kraken_parrot.requests());
        let (answer, ()) = tokio::join!(whole_answer(tls, &request), async {
            while parrot.requests() == before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            self.proxy.signal(Signal::TERM);
        });
        let told = self.heard("a call in the middle of the end", &answer);
        assert_eq!(told.said(), ("upstream_timeout", "maybe-sent"), "{told:?}");
        self.search();
    }

    fn search(self) {
        let Self { proxy, market, mut secrets, told, .. } = self;
        let tokens = tokens(market.kraken.record());
        assert!(tokens.len() >= 2, "{} tokens were sold", tokens.len());
        let (kraken, bitfinex) =
            (signatures(market.kraken.record(), "api-sign: "), signatures(market.bitfinex.record(), "bfx-signature: "));
        assert!(kraken.len() >= 20 && bitfinex.len() >= 20, "{} and {}", kraken.len(), bitfinex.len());
        for token in &tokens {
            secrets.plant("exchange's token", token.as_bytes());
        }
        for signature in kraken.iter().chain(&bitfinex) {
            secrets.plant("signature", signature.as_bytes());
        }
        let (printed, folder) = proxy.ended();
        for (what, answer) in &told {
            let start = String::from_utf8_lossy(&answer[..answer.len().min(2000)]).into_owned();
            secrets.assert_not_in(&format!("what a client was told: {what}: {start}"), answer);
        }
        for (name, text) in &printed {
            for line in text.split(|byte| *byte == b'\n') {
                secrets.assert_not_in(&format!("{name}: {}", String::from_utf8_lossy(line)), line);
            }
        }
        let log = printed.iter().map(|(_, text)| String::from_utf8_lossy(text)).collect::<String>();
        for line in
            ["foreign_key", "request refused", "reload_failed", "tunnel refused", "token state", "placeholder issued"]
        {
            assert!(log.contains(line), "the log was not searched, or not written: {line}");
        }
        let state = files_below(&folder.path().join("state"));
        assert!(!state.is_empty(), "the state folder was not searched");
        for path in state {
            secrets.assert_not_in(&path.display().to_string(), &std::fs::read(&path).unwrap());
        }
        for record in [market.kraken.record(), market.bitfinex.record()] {
            let mut verdicts = record.verdicts();
            // The one that was made worthless to have two.
            verdicts.retain(|verdict| verdict != "token: unknown");
            assert_eq!((record.leaks(), verdicts), (0, Vec::new()));
        }
    }
}

/// The local key of a client, as the program prints it, which prints nothing else that is secret.
fn local_key(proxy: &Proxy, secrets: &Secrets, client: &str, account: &str) -> Keys {
    let file = proxy.folder.path().join("proxy.toml");
    let mut command = program();
    command.args(["key", "--json", "--client", client, "--account", account, "--config"]).arg(file);
    let output = command.output().unwrap();
    for printed in [&output.stdout, &output.stderr] {
        secrets.assert_not_in("`countersign key`", printed);
    }
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |name: &str| told[name].as_str().unwrap().to_owned();
    (text("key"), text("secret"))
}

/// The tokens that Kraken has sold, as they stand in its answers.
fn tokens(kraken: &Record) -> Vec<String> {
    let entries = kraken.snapshot();
    let answers = entries.iter().filter(|entry| entry.direction == Direction::Sent);
    let bodies = answers.filter_map(|entry| serde_json::from_slice::<serde_json::Value>(&entry.bytes).ok());
    bodies.filter_map(|body| body["result"]["token"].as_str().map(str::to_owned)).collect()
}

/// The signatures that came in, which stand behind this name.
fn signatures(record: &Record, name: &str) -> Vec<String> {
    let entries = record.snapshot();
    let received = entries.iter().filter(|entry| entry.direction == Direction::Received);
    let signatures = received.flat_map(|entry| {
        let text = entry.text().into_owned();
        text.lines().filter_map(|line| line.strip_prefix(name).map(str::to_owned)).collect::<Vec<_>>()
    });
    signatures.collect()
}
