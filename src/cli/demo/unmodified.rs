//! A bot that nobody changed: it signs each REST request with the key that it has, as Kraken's documentation says.
//!
//! It has a local key, and does not know that. Source: docs.kraken.com, "Spot REST authentication".

use super::super::Exit;
use super::act::Act;
use super::bot::{Bot, PATIENCE, Proof, connector};
use super::screen::{Screen, Who};
use crate::credential::{SecretFormat, Signer, sha256};
use crate::identity::local::LocalKey;
use crate::secret::Secret;
use crate::simulator::{Direction, Entry, Kind, Record};
use crate::supply::clock::Clock;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use tokio::net::TcpStream;

/// What each of two programs asks at the same time: enough for their requests to overtake each other.
const CALLS_EACH: u64 = 20;

/// Where the bot finds what it takes for Kraken, and the key that it was given.
pub(super) struct Desk<'a> {
    pub(super) port: SocketAddr,
    pub(super) certs: &'a Path,
    pub(super) key: &'a LocalKey,
    pub(super) kraken: &'a Record,
}

/// Asks for its balance, places an order and cancels it.
pub(super) async fn trade(screen: &Screen, desk: &Desk<'_>) -> Result<(), Exit> {
    let mut bot = Program::start(desk, 1).await?;
    bot.show(screen, desk, "Balance", "").await?;
    let order = "ordertype=limit&type=buy&pair=XBTUSD&price=26500.10&volume=0.5";
    let placed = bot.show(screen, desk, "AddOrder", order).await?;
    let id = placed["result"]["txid"][0].as_str().unwrap_or_default();
    let canceled = bot.show(screen, desk, "CancelOrder", &format!("txid={id}")).await?;
    if canceled["result"]["count"] == 1 { Ok(()) } else { Err(Exit::failed("the order was not canceled")) }
}

/// Buys a token and subscribes to a private channel with it.
pub(super) async fn subscribe(screen: &Screen, desk: &Desk<'_>) -> Result<(), Exit> {
    let mut program = Program::start(desk, 1).await?;
    let sold = program.show(screen, desk, "GetWebSocketsToken", "").await?;
    let token = sold["result"]["token"].as_str().ok_or_else(|| Exit::failed("the bot got no token"))?;
    // From here on the exchange calls it a leak if this comes in.
    desk.kraken.forbid(token);
    let bot = Bot::connect(desk.port, desk.certs, "localhost", "/v2", Proof::Nothing).await?;
    let mut act = Act::new(screen, bot, desk.kraken);
    let text = format!(
        r#"{{"method":"subscribe","params":{{"channel":"balances","token":"{token}","snapshot":true}},"req_id":1}}"#
    );
    let told = act.say(&text, |told| told["req_id"] == 1).await?;
    act.leave().await;
    if told["success"] == true { Ok(()) } else { Err(Exit::failed("the placeholder did not open the channel")) }
}

/// Two programs that know nothing of each other use one key at the same time.
pub(super) async fn two_at_once(screen: &Screen, desk: &Desk<'_>) -> Result<(), Exit> {
    let from = desk.kraken.snapshot().last().map_or(0, |entry| entry.number + 1);
    // One counts milliseconds, the other microseconds: at the exchange itself, the first would never get in again.
    let (mut first, mut second) = (Program::start(desk, 1).await?, Program::start(desk, 1000).await?);
    for (program, unit) in [(&first, "milliseconds"), (&second, "microseconds")] {
        screen.line(
            Who::Bot,
            &format!("{CALLS_EACH} × POST /0/private/Balance  nonce={}…, counted in {unit}", program.nonce + 1),
        );
    }
    let (one, other) = tokio::join!(first.ask_often(), second.ask_often());
    let answers = one? + other?;
    let nonces: Vec<u64> = desk
        .kraken
        .snapshot()
        .iter()
        .filter(|entry| entry.number >= from)
        .filter_map(|entry| nonce_of(entry))
        .collect();
    let is_rising = nonces.is_sorted_by(|one, next| one < next);
    let (Some(lowest), Some(highest)) = (nonces.first(), nonces.last()) else {
        return Err(Exit::failed("the exchange got nothing of two programs"));
    };
    if !is_rising || nonces.len() as u64 != 2 * CALLS_EACH || answers != 2 * CALLS_EACH {
        return Err(Exit::failed("the exchange did not get the requests of two programs in one order"));
    }
    let got = nonces.len();
    screen.line(Who::Exchange, &format!("{got} requests, each nonce above the one before: {lowest} … {highest}"));
    screen.line(Who::Told, &format!("{answers} balances, and not one `EAPI:Invalid nonce`"));
    Ok(())
}

/// The nonce of a private request that came in.
fn nonce_of(entry: &Entry) -> Option<u64> {
    let is_request = entry.direction == Direction::Received && matches!(entry.kind, Kind::Request { .. });
    let text = entry.text();
    let (_, body) = text.split_once("\r\n\r\n").filter(|_| is_request)?;
    body.split('&').find_map(|field| field.strip_prefix("nonce="))?.parse().ok()
}

/// One program and its connection.
struct Program {
    signer: Signer,
    nonce: u64,
    connection: SendRequest<Full<Bytes>>,
}

impl Program {
    /// `per_milli`: by how much its nonces grow in a millisecond.
    async fn start(desk: &Desk<'_>, per_milli: u64) -> Result<Self, Exit> {
        let key = Secret::from(desk.key.api_key.clone());
        let signer = Signer::new(&key, &desk.key.secret, SecretFormat::Base64).map_err(Exit::failed)?;
        let tcp = TcpStream::connect(desk.port).await.map_err(Exit::failed)?;
        let name = ServerName::try_from("localhost").map_err(Exit::failed)?;
        let tls = connector(desk.certs, None)?.connect(name, tcp).await.map_err(Exit::failed)?;
        let (connection, driver) = handshake(TokioIo::new(tls)).await.map_err(Exit::failed)?;
        // Ends with the connection, whose user hears of whatever goes wrong.
        tokio::spawn(driver);
        Ok(Self { signer, nonce: Clock::System.now().0 * per_milli, connection })
    }

    /// Asks, and shows what it sent, what the exchange got of it, and what it was told.
    async fn show(&mut self, screen: &Screen, desk: &Desk<'_>, method: &str, fields: &str) -> Result<Value, Exit> {
        let from = desk.kraken.snapshot().last().map_or(0, |entry| entry.number + 1);
        let request = self.signed(method, fields);
        screen.request(Who::Bot, &request.path, &request.text());
        let told = self.send(request).await?;
        desk.kraken.snapshot().iter().filter(|entry| entry.number >= from).for_each(|entry| screen.received(entry));
        screen.line(Who::Told, &told.to_string());
        Ok(told)
    }

    async fn ask_often(&mut self) -> Result<u64, Exit> {
        for _ in 0..CALLS_EACH {
            let request = self.signed("Balance", "");
            self.send(request).await?;
        }
        Ok(CALLS_EACH)
    }

    fn signed(&mut self, method: &str, fields: &str) -> Signed {
        self.nonce += 1;
        let path = format!("/0/private/{method}");
        let separator = if fields.is_empty() { "" } else { "&" };
        let body = format!("nonce={}{separator}{fields}", self.nonce);
        let digest = sha256(&[self.nonce.to_string().as_bytes(), body.as_bytes()]);
        let signature = BASE64.encode(self.signer.hmac_sha512(&[path.as_bytes(), &digest]));
        Signed { path, key: self.signer.expose_api_key().to_owned(), signature, body }
    }

    /// The answer. One with an error in it fails the demo.
    async fn send(&mut self, request: Signed) -> Result<Value, Exit> {
        let asking = async {
            self.connection.ready().await.map_err(Exit::failed)?;
            let answer = self.connection.send_request(request.into_http()?).await.map_err(Exit::failed)?;
            let body = answer.into_body().collect().await.map_err(Exit::failed)?.to_bytes();
            serde_json::from_slice::<Value>(&body).map_err(Exit::failed)
        };
        let asked = tokio::time::timeout(PATIENCE, asking).await;
        let told = asked.map_err(|_| Exit::failed("an expected answer did not come"))??;
        match told["error"].as_array() {
            Some(errors) if errors.is_empty() => Ok(told),
            _ => Err(Exit::failed(format!("a request was refused: {}", told["error"]))),
        }
    }
}

/// A request as the bot signed it.
struct Signed {
    path: String,
    key: String,
    signature: String,
    body: String,
}

impl Signed {
    /// As the record of an exchange would have it.
    fn text(&self) -> String {
        format!("api-key: {}\r\napi-sign: {}\r\n\r\n{}", self.key, self.signature, self.body)
    }

    fn into_http(self) -> Result<http::Request<Full<Bytes>>, Exit> {
        let builder = http::Request::post(self.path)
            .header("host", "localhost")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("api-key", self.key)
            .header("api-sign", self.signature);
        builder.body(Full::from(self.body)).map_err(Exit::failed)
    }
}
