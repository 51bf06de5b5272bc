//! `countersign serve`: opens the house, says how to connect, and closes it when told.

mod greeting;

use super::assemble::{self, Running};
use super::stop::Stop;
use super::{ConfigArgs, Exit, logs};
use crate::config::{Config, LogFormat};
use crate::server::Threads;
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
    // The thread of the listeners and the accounts, and the first one of the connections.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Exit::failed)?;
    let outcome = runtime.block_on(serve(args, config));
    // Whatever still runs has had its limit.
    runtime.shutdown_background();
    outcome
}

async fn serve(args: &ConfigArgs, config: Config) -> Result<(), Exit> {
    let mut signals = Signals::new()?;
    let threads = Threads::start(config.listen.threads).map_err(Exit::failed)?;
    let house = assemble::start(&config, threads).await?;
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
        greeting::greet(args, &config, &house);
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
