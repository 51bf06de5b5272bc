//! `countersign serve`: opens the house, says how to connect, and closes it when told.

use super::assemble::{self, Running};
use super::stop::Stop;
use super::{ConfigArgs, Exit, logs};
use crate::config::{Config, LogFormat, Tls};
use std::path::Path;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing::{error, info, warn};

pub(super) fn run(args: &ConfigArgs) -> Result<(), Exit> {
    let config = assemble::load(args)?;
    let format = match config.log.format {
        LogFormat::Auto => logs::Format::Auto,
        LogFormat::Text => logs::Format::Text,
        LogFormat::Json => logs::Format::Json,
    };
    let _logging = logs::start(format, LevelFilter::from_level(config.log.level));
    super::harden();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Exit::failed)?;
    let outcome = runtime.block_on(serve(args, config));
    // Whatever still runs has had its limit.
    runtime.shutdown_background();
    outcome
}

async fn serve(args: &ConfigArgs, config: Config) -> Result<(), Exit> {
    let mut signals = Signals::new()?;
    let house = assemble::start(&config).await?;
    if config.listen.unsafe_no_auth {
        warn!("unsafe_no_auth: EVERYBODY on this machine may trade with every account, without any proof");
    }
    info!(address = %house.address, admin = %house.admin_address, "listening");
    for (port, address) in std::iter::zip(&config.ports, &house.ports) {
        info!(%address, venue = port.venue, endpoint = port.endpoint, "listening");
    }
    if let Some(address) = house.connect_address {
        info!(%address, "listening for CONNECT");
    }
    // Programs that read our logs are told nothing else.
    if config.log.format != LogFormat::Json {
        greet(args, &config, &house);
    }
    loop {
        tokio::select! {
            () = signals.stop.wait() => break,
            _ = signals.reload.recv() => reload(args, &house),
        }
    }
    info!("draining: no new connections; sessions are told 1001");
    tokio::select! {
        has_emptied = house.stop() => {
            info!(has_emptied, "stopped");
            if has_emptied { Ok(()) } else { Err(Exit::Hurried) }
        }
        () = signals.stop.wait() => {
            warn!("stopped at the second signal");
            Err(Exit::Hurried)
        }
    }
}

struct Signals {
    stop: Stop,
    reload: Signal,
}

impl Signals {
    fn new() -> Result<Self, Exit> {
        Ok(Self { stop: Stop::new()?, reload: signal(SignalKind::hangup()).map_err(Exit::failed)? })
    }
}

/// Takes the grants of the configuration as it is now. One with a mistake changes nothing.
fn reload(args: &ConfigArgs, house: &Running) {
    let outcome = assemble::load(args).and_then(|config| house.regrant(&config));
    match outcome {
        Ok(()) => info!("grants reloaded; every other change takes a restart"),
        Err(exit) => {
            // One line, whatever the format: what watches the log reads lines.
            let mistakes = exit.lines().collect::<Vec<_>>().join(" | ");
            error!(reason = "reload_failed", %mistakes, "the grants stay as they were; mend them and send SIGHUP again");
        }
    }
}

/// Tells a person how to connect, with lines to paste.
fn greet(args: &ConfigArgs, config: &Config, house: &Running) {
    let port = house.address.port();
    let routes = assemble::routes(config);
    super::say(format_args!("\nCountersign listens on {}.", house.address));
    if let Some(made) = &house.certificates {
        for line in made.to_string().lines() {
            super::say(format_args!("  {line}"));
        }
    }
    for (port, address) in std::iter::zip(&config.ports, &house.ports) {
        let narrowed = port.endpoint.map_or_else(String::new, |endpoint| format!(", at the host of `{endpoint}`"));
        super::say(format_args!("  {address} leads to {}{narrowed}", port.venue));
    }
    if let Some(address) = house.connect_address {
        super::say(format_args!("  {address} takes CONNECT (`countersign run -- COMMAND` sets HTTPS_PROXY to it)"));
    }
    super::say("\nSockets for clients:");
    for path in routes.local_paths() {
        super::say(format_args!("  wss://localhost:{port}{path}"));
    }
    let paths = routes.local_paths();
    let path = paths.iter().find(|path| **path == "/kraken/v2").or(paths.first()).copied();
    if let (Tls::Directory(directory), Some(_), Some(path)) = (&config.listen.tls, &config.clients.jwt, path) {
        super::say("\nPaste this to see one log in (Python, `pip install websockets`):\n");
        super::say(first_bot(args, port, &directory.join("ca.pem"), path));
    }
}

/// One line that mints a token, connects and prints what comes.
fn first_bot(args: &ConfigArgs, port: u16, authority: &Path, path: &str) -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "countersign".into());
    let config = args.config.as_ref().map_or_else(String::new, |path| format!(" --config {}", shown(path)));
    let (program, authority) = (shown(&program), shown(authority));
    format!(
        "SSL_CERT_FILE={authority} TOKEN=$({program} token{config} --subject bot-a) python3 -c 'import os, json\n\
         from websockets.sync.client import connect\n\
         with connect(\"wss://localhost:{port}{path}\") as socket:\n\
         \x20   socket.send(json.dumps({{\"type\": \"auth\", \"token\": os.environ[\"TOKEN\"]}}))\n\
         \x20   print(socket.recv())'\n"
    )
}

/// The path as somebody in this folder would write it in a shell.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    match path.strip_prefix(&here) {
        Ok(below) => format!("./{}", quoted(below)),
        Err(_) => quoted(path),
    }
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if text.bytes().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        assert_eq!(quoted(Path::new("certs/ca.pem")), "certs/ca.pem");
        assert_eq!(quoted(Path::new("/my desk/ca.pem")), "'/my desk/ca.pem'");
        assert_eq!(quoted(Path::new("it's")), r"'it'\''s'");
    }
}
