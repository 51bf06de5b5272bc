//! `countersign demo`: two simulated exchanges, the proxy before them, and three bots without credentials.
//!
//! Shows each message as the bot sent it beside what the exchange received, from the exchange's own record. Nothing is
//! acted: every signature, nonce and token is verified by the exchanges, whatever proved a bot to us is forbidden
//! there, and one thing wrong fails it.

mod act;
mod bot;
mod screen;
mod unmodified;

use super::assemble::{self, Running};
use super::{Exit, logs};
use crate::config::Config;
use crate::identity::jwt::Mint;
use crate::identity::local::{LocalKey, LocalKeyFor};
use crate::names::{AccountName, ClientName};
use crate::server::Threads;
use crate::simulator::Record;
use crate::supply::clock::Clock;
use crate::venue;
use act::Act;
use bot::{Bot, Proof};
use clap::Args;
use screen::Screen;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::level_filters::LevelFilter;
use unmodified::Desk;

/// Watch three bots without credentials trade on two simulated exchanges.
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
[[ports]]
address = "127.0.0.1:0"
venue = "kraken"
[clients.jwt]
secret = { file = "certs/client-jwt.key" }
[clients.mtls]
authority = { file = "certs/client-ca.pem" }
[clients.local_keys]
master = { file = "certs/local-keys.key" }
[accounts.kraken_main]
venue = "kraken"
upstream = "simulator"
[accounts.bitfinex_main]
venue = "bitfinex"
upstream = "simulator"
[[grants]]
client = "key:bot-u"
account = "kraken_main"
scope = ["read", "trade"]
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
scope = ["read"]
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
    let house = assemble::start(&config, Threads::here()).await?;
    let certs = folder.join("certs");
    let kraken = house.simulators.kraken.as_ref().expect("the configuration asks for it").record().clone();
    let bitfinex = house.simulators.bitfinex.as_ref().expect("the configuration asks for it").record().clone();

    let screen = Screen::new();
    screen.title("Two exchanges on loopback, the proxy before them, three bots without any exchange credential.");
    let key = local_key(&config)?;
    let token = token(&config)?;
    for record in [&kraken, &bitfinex] {
        // What a bot proves itself with has no business at an exchange: one that sees it says so.
        record.forbid(&key.api_key);
        record.forbid(&String::from_utf8_lossy(key.secret.expose()));
        record.forbid(&token);
    }

    let desk = Desk { port: house.ports[0], certs: &certs, key: &key, kraken: &kraken };
    screen
        .title("1. bot-u, unmodified, on Kraken's REST API: it signs with a local key, Kraken gets the real signature");
    unmodified::trade(&screen, &desk).await?;
    screen.title("2. bot-u on Kraken's private socket: the token that it gets is a placeholder, Kraken sees its own");
    unmodified::subscribe(&screen, &desk).await?;
    screen.title("3. bot-u twice, two programs on one key at the same time");
    unmodified::two_at_once(&screen, &desk).await?;

    let address = house.address;
    let by_token = || Proof::Token(token.clone());
    let by_certificate = || Proof::Certificate("bot-b");
    screen.title("4. bot-a on Kraken's socket, without any key: logs in with a token in its first message");
    let bot = Bot::connect(address, &certs, "localhost", "/kraken/v2", by_token()).await?;
    act::at_kraken(Act::new(&screen, bot, &kraken)).await?;
    screen.title("5. bot-a on Bitfinex: the proxy logs in with the real key");
    let bot = Bot::connect(address, &certs, "localhost", "/bitfinex/v2", by_token()).await?;
    act::at_bitfinex(Act::new(&screen, bot, &bitfinex)).await?;
    screen.title("6. bot-b on Kraken: a client certificate, no login message, the venue's own name");
    let bot = Bot::connect(address, &certs, "ws-auth.kraken.com", "/v2", by_certificate()).await?;
    act::balances_at_kraken(Act::new(&screen, bot, &kraken)).await?;
    screen.title("7. bot-b on Bitfinex may only read: its order is refused here, and the exchange never sees it");
    let bot = Bot::connect(address, &certs, "localhost", "/bitfinex/v2", by_certificate()).await?;
    act::refused_at_bitfinex(Act::new(&screen, bot, &bitfinex)).await?;

    let outcome = verdict(&screen, &[&kraken, &bitfinex]);
    if args.keep && outcome.is_ok() {
        keep(&screen, &house, folder).await;
    }
    house.stop().await;
    outcome
}

/// What `countersign key` prints for bot-u.
fn local_key(config: &Config) -> Result<LocalKey, Exit> {
    let local = assemble::local::keys(config)?.expect("the configuration has a master key");
    let whose = LocalKeyFor {
        client: ClientName::parse("bot-u").expect("a name"),
        account: AccountName::parse("kraken_main").expect("a name"),
        venue: venue::by_name("kraken").expect("in the table"),
    };
    Ok(local.issue(&whose).expect("Kraken's bots sign"))
}

/// What `countersign token` prints for bot-a.
fn token(config: &Config) -> Result<String, Exit> {
    let jwt = assemble::jwt_keys(config)?.expect("the configuration has a secret");
    let subject = ClientName::parse("bot-a").expect("a name");
    let wanted = Mint { subject: &subject, scope: None, lifetime: Duration::from_secs(900), random: [0; 16] };
    let token = jwt.mint(&wanted, Clock::System.now()).map_err(Exit::failed)?;
    Ok(String::from_utf8_lossy(token.expose()).into_owned())
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
    super::say("  Next: `countersign serve` runs the same from proxy.toml. docs/bots.md points your bot at it, and");
    super::say("  README.md says how to name a real key.");
    Ok(())
}

async fn keep(screen: &Screen, house: &Running, folder: &Path) {
    screen.title("Everything keeps running. Ctrl-C ends it.");
    super::say(format_args!("  wss://localhost:{}/kraken/v2  and  /bitfinex/v2", house.address.port()));
    super::say(format_args!("  https://localhost:{}  for an unmodified bot of Kraken's", house.ports[0].port()));
    super::say(format_args!("  trust    {}", folder.join("certs/ca.pem").display()));
    let config = folder.join("proxy.toml");
    super::say(format_args!("  a token  countersign token --config {} --subject bot-a", config.display()));
    super::say(format_args!(
        "  a key    countersign key --config {} --client bot-u --account kraken_main",
        config.display()
    ));
    // Without a signal handler there is nothing to wait for but the end of the process.
    let _ = tokio::signal::ctrl_c().await;
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
