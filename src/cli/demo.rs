//! `countersign demo`: two simulated exchanges, the proxy before them, and two bots without credentials.
//!
//! Shows each frame as the bot sent it beside the frame as the exchange received it, from the exchange's own record.
//! Nothing is acted: every signature, nonce and token is verified by the exchanges, and one that is wrong fails it.

mod bot;

use super::assemble::{self, Running};
use super::{Exit, logs, simulate};
use crate::identity::jwt::Mint;
use crate::names::ClientName;
use crate::simulator::{Direction, Kind, Record};
use crate::supply::clock::Clock;
use bot::{Bot, Proof};
use clap::Args;
use serde_json::Value;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::level_filters::LevelFilter;

/// Watch two bots without credentials trade on two simulated exchanges.
///
/// Ends by itself, with exit code 0 if the exchanges accepted everything that the proxy signed.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct DemoArgs {
    /// Leave everything running at the end, to connect a bot of your own
    #[arg(long)]
    keep: bool,
}

const CONFIG: &str = r#"
[listen]
address = "127.0.0.1:0"
[clients.jwt]
secret = { file = "certs/client-jwt.key" }
[clients.mtls]
authority = { file = "certs/client-ca.pem" }
[accounts.kraken_main]
venue = "kraken"
upstream = "simulator"
[accounts.bitfinex_main]
venue = "bitfinex"
upstream = "simulator"
[[grants]]
client = "jwt:bot-a"
account = "kraken_main"
scope = ["read", "trade"]
[[grants]]
client = "jwt:bot-a"
account = "bitfinex_main"
scope = ["read", "trade"]
[[grants]]
client = "cert:bot-b"
account = "kraken_main"
scope = ["read", "trade"]
[[grants]]
client = "cert:bot-b"
account = "bitfinex_main"
scope = ["read"]
[admin]
address = "127.0.0.1:0"
[log]
level = "warn"
"#;

pub(super) fn run(args: &DemoArgs) -> Result<(), Exit> {
    let _logging = logs::start(logs::Format::Text, LevelFilter::ERROR);
    let folder = Folder::new()?;
    let runtime = tokio::runtime::Runtime::new().map_err(Exit::failed)?;
    runtime.block_on(show(args, &folder.0))
}

async fn show(args: &DemoArgs, folder: &Path) -> Result<(), Exit> {
    let file = folder.join("proxy.toml");
    std::fs::write(&file, CONFIG).map_err(Exit::failed)?;
    let config = assemble::read(Some(&file), &[]).map_err(Exit::configuration)?;
    bot::certificates(&config, folder)?;
    let house = assemble::start(&config).await?;
    let certs = folder.join("certs");
    let kraken = house.simulators.kraken.as_ref().expect("the configuration asks for it").record().clone();
    let bitfinex = house.simulators.bitfinex.as_ref().expect("the configuration asks for it").record().clone();

    let screen = Screen { is_colourful: std::io::stdout().is_terminal() };
    screen.title("Two exchanges on loopback, the proxy before them, two bots without any exchange credential.");
    let jwt = assemble::jwt_keys(&config)?.expect("the configuration has a secret");
    let subject = ClientName::parse("bot-a").expect("a name");
    let wanted = Mint { subject: &subject, scope: None, lifetime: Duration::from_secs(900), random: [0; 16] };
    let token = jwt.mint(&wanted, Clock::System.now()).map_err(Exit::failed)?;
    let token = String::from_utf8_lossy(token.expose()).into_owned();

    let address = house.address;
    let by_token = || Proof::Token(token.clone());
    let by_certificate = || Proof::Certificate("bot-b");
    screen.title("1. bot-a on Kraken: logs in with a token in its first message");
    let bot = Bot::connect(address, &certs, "localhost", "/kraken/v2", by_token()).await?;
    kraken_act(Act::new(&screen, bot, &kraken), true).await?;
    screen.title("2. bot-a on Bitfinex: the proxy logs in with the real key");
    let bot = Bot::connect(address, &certs, "localhost", "/bitfinex/v2", by_token()).await?;
    bitfinex_act(Act::new(&screen, bot, &bitfinex)).await?;
    screen.title("3. bot-b on Kraken: a client certificate, no login message, the venue's own name");
    let bot = Bot::connect(address, &certs, "ws-auth.kraken.com", "/v2", by_certificate()).await?;
    kraken_act(Act::new(&screen, bot, &kraken), false).await?;
    screen.title("4. bot-b on Bitfinex may only read: its order is refused here, and the exchange never sees it");
    let bot = Bot::connect(address, &certs, "localhost", "/bitfinex/v2", by_certificate()).await?;
    refused_act(Act::new(&screen, bot, &bitfinex)).await?;

    let outcome = verdict(&screen, &[&kraken, &bitfinex]);
    if args.keep && outcome.is_ok() {
        keep(&screen, &house, folder).await;
    }
    house.stop().await;
    outcome
}

/// Subscribes to private events, places an order and cancels it.
async fn kraken_act(mut act: Act<'_>, is_by_message: bool) -> Result<(), Exit> {
    if is_by_message {
        act.log_in().await?;
    }
    act.say(r#"{"method":"subscribe","params":{"channel":"executions"},"req_id":1}"#, |told| told["req_id"] == 1)
        .await?;
    let order = r#"{"method":"add_order","params":{"order_type":"limit","side":"buy","symbol":"BTC/USD","order_qty":0.5,"limit_price":26500.10},"req_id":2}"#;
    let placed = act.say(order, |told| told["req_id"] == 2).await?;
    let id = placed["result"]["order_id"].as_str().unwrap_or_default().to_owned();
    act.hear(|told| told["channel"] == "executions" && told["data"][0]["order_id"] == id.as_str()).await?;
    let cancel = format!(r#"{{"method":"cancel_order","params":{{"order_id":["{id}"]}},"req_id":3}}"#);
    act.say(&cancel, |told| told["req_id"] == 3).await?;
    act.leave().await;
    Ok(())
}

async fn bitfinex_act(mut act: Act<'_>) -> Result<(), Exit> {
    act.log_in().await?;
    act.hear(|told| told["event"] == "auth").await?;
    let order =
        r#"[0,"on",null,{"cid":12345,"type":"EXCHANGE LIMIT","symbol":"tBTCUSD","price":"26500.10","amount":"0.5"}]"#;
    let placed = act.say(order, |told| told[1] == "on").await?;
    let cancel = format!(r#"[0,"oc",null,{{"id":{}}}]"#, placed[2][0]);
    act.say(&cancel, |told| told[1] == "oc").await?;
    act.leave().await;
    Ok(())
}

async fn refused_act(mut act: Act<'_>) -> Result<(), Exit> {
    act.hear(|told| told["type"] == "connected").await?;
    let order = r#"[0,"on",null,{"cid":777,"type":"EXCHANGE MARKET","symbol":"tBTCUSD","amount":"-100"}]"#;
    let told = act.say(order, |told| told[2][1] == "on-req").await?;
    act.leave().await;
    if told[2][6] == "ERROR" { Ok(()) } else { Err(Exit::failed("an order that is not granted was not refused")) }
}

/// One bot's part: what it says and hears, and what the exchange has received meanwhile.
struct Act<'a> {
    screen: &'a Screen,
    bot: Bot,
    record: &'a Record,
    shown: u64,
}

impl<'a> Act<'a> {
    fn new(screen: &'a Screen, bot: Bot, record: &'a Record) -> Self {
        let shown = record.snapshot().last().map_or(0, |entry| entry.number + 1);
        Self { screen, bot, record, shown }
    }

    async fn log_in(&mut self) -> Result<(), Exit> {
        if let Some(login) = self.bot.login() {
            self.say(&login, |told| told["type"] == "connected").await?;
        }
        Ok(())
    }

    /// Says something, and shows it, what the exchange got of it, and the answer that fits.
    async fn say(&mut self, text: &str, fits: impl Fn(&Value) -> bool) -> Result<Value, Exit> {
        self.screen.line(Who::Bot, "bot sent", text);
        self.bot.say(text).await?;
        self.hear(fits).await
    }

    /// Waits for a message that fits, and shows what the exchange has received until then.
    async fn hear(&mut self, fits: impl Fn(&Value) -> bool) -> Result<Value, Exit> {
        let (text, value) = self.bot.hear(fits).await?;
        let from = self.shown;
        for entry in self.record.snapshot().iter().filter(|entry| entry.number >= from) {
            self.shown = entry.number + 1;
            if entry.direction != Direction::Received {
                continue;
            }
            match &entry.kind {
                Kind::Frame => self.screen.line(Who::Exchange, "exchange got", &entry.text()),
                Kind::Request { method, path } if method == "POST" => {
                    self.screen.line(
                        Who::Exchange,
                        "exchange got",
                        &format!("{method} {path}  (signed by the real key)"),
                    );
                }
                _ => {}
            }
        }
        self.screen.line(Who::Bot, "bot was told", &text);
        Ok(value)
    }

    async fn leave(self) {
        self.bot.leave().await;
    }
}

/// Whether the exchanges found anything wrong.
fn verdict(screen: &Screen, records: &[&Record]) -> Result<(), Exit> {
    let wrong: Vec<String> = records.iter().flat_map(|record| record.verdicts()).collect();
    let tokens: u64 = records.iter().map(|record| record.tokens_minted()).sum();
    let signatures: u64 = records.iter().map(|record| record.signature_errors() + record.nonce_errors()).sum();
    if !wrong.is_empty() || signatures > 0 {
        return Err(Exit::failed(format!("the exchanges found something wrong: {}", wrong.join("; "))));
    }
    screen.title("The exchanges verified every signature, nonce and token, and found nothing wrong.");
    super::say(format_args!("  Tokens bought: {tokens}, for all sessions together. No bot saw one.\n"));
    super::say("  Next: `countersign serve` runs the same from proxy.toml; README.md says how to name a real key.");
    Ok(())
}

async fn keep(screen: &Screen, house: &Running, folder: &Path) {
    screen.title("Everything keeps running. Ctrl-C ends it.");
    super::say(format_args!("  wss://localhost:{}/kraken/v2  and  /bitfinex/v2", house.address.port()));
    super::say(format_args!("  trust    {}", folder.join("certs/ca.pem").display()));
    let config = folder.join("proxy.toml");
    super::say(format_args!("  a token  countersign token --config {} --subject bot-a", config.display()));
    // Without a signal handler there is nothing to wait for but the end of the process.
    let _ = tokio::signal::ctrl_c().await;
}

/// Enough for every frame that a bot sends here; what an exchange tells is longer than anybody reads.
const LINE_CHARS_MAX: usize = 200;

enum Who {
    Bot,
    Exchange,
}

struct Screen {
    is_colourful: bool,
}

impl Screen {
    fn title(&self, text: &str) {
        let (on, off) = if self.is_colourful { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        super::say(format_args!("\n{on}{text}{off}\n"));
    }

    /// One frame, with tokens, keys and signatures shortened.
    fn line(&self, who: Who, what: &str, text: &str) {
        let (on, off) = match (self.is_colourful, who) {
            (false, _) => ("", ""),
            (true, Who::Bot) => ("\x1b[36m", "\x1b[0m"),
            (true, Who::Exchange) => ("\x1b[32m", "\x1b[0m"),
        };
        let text = simulate::shortened(text);
        let shown = text.char_indices().nth(LINE_CHARS_MAX).map_or(text.as_str(), |(cut, _)| &text[..cut]);
        let rest = if shown.len() < text.len() { " …" } else { "" };
        super::say(format_args!("  {on}{what:<13}{off} {shown}{rest}"));
    }
}

/// A folder of its own, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, Exit> {
        let number = getrandom::u64().map_err(|_| Exit::failed("the system gave no random numbers"))?;
        let path = std::env::temp_dir().join(format!("countersign-demo-{number:016x}"));
        std::fs::create_dir(&path).map_err(Exit::failed)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays behind in the system's temporary folder harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
