//! `countersign simulate`: one simulated exchange, to test bots with no account and no proxy.

use super::assemble::simulators::trust;
use super::stop::Stop;
use super::{Exit, assemble, logs};
use crate::simulator::{Direction, Entry, Kind, Options, SimKey, bitfinex, kraken, projectx};
use clap::{Args, ValueEnum};
use std::borrow::Cow;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tracing::level_filters::LevelFilter;

/// Run one simulated exchange, to test bots with no account
///
/// It verifies signatures, nonces and tokens as the venue documents them, keeps orders and sends private events.
/// It shows what comes in and what it finds wrong, with keys, signatures and tokens shortened.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct SimulateArgs {
    /// Which exchange
    venue: Which,

    /// The port on 127.0.0.1 [default: any that is free]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    port: u16,

    /// An API key that it knows, or the user's name for ProjectX [default: one is made]
    #[arg(long, value_name = "KEY", requires = "secret")]
    key: Option<String>,

    /// The secret of that key: base64 for Kraken, any text for Bitfinex, the API key for ProjectX. It guards nothing real
    #[arg(long, value_name = "SECRET", requires = "key")]
    secret: Option<String>,

    /// How long its tokens live, in seconds, to see how a bot renews them (ProjectX only) [default: a day]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    token_lifetime: Option<u64>,

    /// Where its certificates are, and are made if they are missing. Clients trust `ca.pem` there
    #[arg(long, value_name = "DIR", default_value = "certs/simulator")]
    directory: PathBuf,

    /// Say nothing of what comes in
    #[arg(long)]
    quiet: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    Kraken,
    Bitfinex,
    Projectx,
}

pub(super) fn run(args: &SimulateArgs) -> Result<(), Exit> {
    let _logging = logs::start(logs::Format::Auto, LevelFilter::WARN);
    let runtime = tokio::runtime::Runtime::new().map_err(Exit::failed)?;
    runtime.block_on(async {
        let mut stop = Stop::new()?;
        let (acceptor, _) = trust(&args.directory)?;
        let key = key(args)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
        match args.venue {
            Which::Kraken => {
                let options = Options { address, ..Options::kraken(acceptor, vec![key.clone()]) };
                let running = kraken::start(options).await.map_err(|error| not_started(address, &error))?;
                // Before anybody is told where it is: the first request has to be seen too.
                let entries = running.record().subscribe();
                let at = running.address();
                introduce(args, &key, &[format!("https://{at}"), format!("wss://{at}/v2")]);
                show(args, entries, &mut stop).await;
                running.stop().await;
            }
            Which::Bitfinex => {
                let options = Options { address, ..Options::bitfinex(acceptor, vec![key.clone()]) };
                let running = bitfinex::start(options).await.map_err(|error| not_started(address, &error))?;
                let entries = running.record().subscribe();
                let at = running.address();
                introduce(args, &key, &[format!("https://{at}/v2"), format!("wss://{at}/ws/2")]);
                show(args, entries, &mut stop).await;
                running.stop().await;
            }
            Which::Projectx => {
                let mut options = Options { address, ..Options::projectx(acceptor, vec![key.clone()]) };
                options.token_lifetime = args.token_lifetime.map_or(options.token_lifetime, Duration::from_secs);
                let running = projectx::start(options).await.map_err(|error| not_started(address, &error))?;
                let entries = running.record().subscribe();
                let at = running.address();
                introduce(
                    args,
                    &key,
                    &["/api", "/hubs/user", "/hubs/market"].map(|path| format!("https://{at}{path}")),
                );
                show(args, entries, &mut stop).await;
                running.stop().await;
            }
        }
        Ok(())
    })
}

fn key(args: &SimulateArgs) -> Result<SimKey, Exit> {
    if let (Some(key), Some(secret)) = (&args.key, &args.secret) {
        return Ok(SimKey::new(key, secret));
    }
    assemble::simulators::random_key(matches!(args.venue, Which::Kraken))
}

fn not_started(address: SocketAddr, error: &io::Error) -> Exit {
    match error.kind() {
        ErrorKind::AddrInUse => Exit::configuration(format!(
            "--port: {address}: {error}; end the program that listens there, choose another port, or leave --port out"
        )),
        // The one input that it reads: the key itself has no format.
        ErrorKind::InvalidInput => Exit::configuration("--secret: must be base64, as Kraken's secrets are"),
        _ => Exit::failed(format!("the simulator did not start: {error}")),
    }
}

fn introduce(args: &SimulateArgs, key: &SimKey, places: &[String]) {
    for place in places {
        super::say(format_args!("listening  {place}"));
    }
    super::say(format_args!("trust      {}", absolute(&args.directory).join("ca.pem").display()));
    if args.key.is_none() {
        let (key_name, secret_name) = match args.venue {
            Which::Kraken | Which::Bitfinex => ("key", "secret"),
            Which::Projectx => ("user", "key"),
        };
        super::say(format_args!("{key_name:<11}{}", key.api_key));
        super::say(format_args!("{secret_name:<11}{}", key.secret));
    }
    super::say("Ctrl-C ends it.\n");
}

/// For whoever runs the bot in another folder.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Shows what happens until it is told to stop.
async fn show(args: &SimulateArgs, mut entries: Receiver<Arc<Entry>>, stop: &mut Stop) {
    loop {
        let entry = tokio::select! {
            () = stop.wait() => return,
            entry = entries.recv() => entry,
        };
        match entry {
            Ok(entry) if !args.quiet => {
                if let Some(line) = line(&entry) {
                    super::say(line);
                }
            }
            Ok(_) => {}
            Err(RecvError::Lagged(count)) => super::say(format_args!("… {count} entries not shown")),
            Err(RecvError::Closed) => return,
        }
    }
}

/// One entry of the record as a line, with what must not be seen shortened. `None`: not worth one.
pub(super) fn line(entry: &Entry) -> Option<String> {
    let arrow = match entry.direction {
        Direction::Received => "→",
        Direction::Sent => "←",
        Direction::Internal => "·",
    };
    let what = match &entry.kind {
        Kind::Request { method, path } => shortened(&format!("{method} {path}")),
        Kind::Frame => shortened(&entry.text()),
        Kind::Close { code } => format!("close {code}"),
        Kind::Verdict => format!("WRONG: {}", entry.text()),
        _ => return None,
    };
    Some(format!("{:>3} {arrow} {what}", entry.connection))
}

/// The text with every key, signature and token cut to its first characters.
pub(super) fn shortened(text: &str) -> String {
    let mut short = String::with_capacity(text.len());
    let mut rest = text;
    let names = ["\"token\":\"", "\"apiKey\":\"", "\"authSig\":\"", "access_token=", "Bearer ", "&id=", "?id="];
    while let Some((at, name)) = names.iter().filter_map(|name| Some((rest.find(name)?, *name))).min() {
        let (before, value) = rest.split_at(at + name.len());
        short.push_str(before);
        let end = value.find(['"', '&', ' ']).unwrap_or(value.len());
        short.push_str(&cut(&value[..end]));
        rest = &value[end..];
    }
    short + rest
}

/// The first characters of a key, signature or token.
pub(super) fn cut(value: &str) -> Cow<'_, str> {
    const SHOWN: usize = 6;
    match value.char_indices().nth(SHOWN) {
        Some((end, _)) => Cow::Owned(format!("{}…", &value[..end])),
        None => Cow::Borrowed(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_in_an_address_or_a_record_is_shortened() {
        let request = "GET /hubs/user?access_token=header.claims.mark&id=0123456789";
        assert_eq!(shortened(request), "GET /hubs/user?access_token=header…&id=012345…");
        let record = r#"{"headers":{"Authorization":"Bearer header.claims.mark"},"target":"x"}"#;
        assert_eq!(shortened(record), r#"{"headers":{"Authorization":"Bearer header…"},"target":"x"}"#);
    }

    #[test]
    fn keys_signatures_and_tokens_are_shortened() {
        let frame = r#"{"event":"auth","apiKey":"SIM0123456789","authSig":"abcdef0123","x":1,"token":"a"}"#;
        assert_eq!(shortened(frame), r#"{"event":"auth","apiKey":"SIM012…","authSig":"abcdef…","x":1,"token":"a"}"#);
    }
}
