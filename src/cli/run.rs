//! `countersign run`: starts a program with everything set, beside a proxy that is there or that it starts.

mod shared;

use super::proxy::{self, Found};
use super::{ConfigArgs, Exit, assemble, env, run_secret};
use crate::config::{Config, Keys, SecretRef};
use clap::Args;
use rustix::process::{Pid, kill_process};
use shared::Shared;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep};

/// How long a proxy may take to be ready: the first start makes certificates and waits for no exchange.
const READY: Duration = Duration::from_secs(30);
/// How often it is asked.
const LOOK: Duration = Duration::from_millis(50);
/// When a person is told that we still wait.
const STILL: Duration = Duration::from_secs(3);
/// How long a proxy may take to end beyond its own limit for that.
const END: Duration = Duration::from_secs(5);
/// Lines of a log that say why a proxy did not start.
const LOG_LINES: usize = 10;

/// Start a program with everything set that points it here
///
///   countersign run -- python3 bot.py
///
/// For programs whose library reads HTTPS_PROXY (requests, websockets from 15 on, curl); for others, `countersign env
/// --for LIBRARY` says what they need. Finds the proxy by `admin.address`; where there is none it starts one, which ends
/// with the last program that was started so. Ends with the program's own exit code, 128 and its number after a signal.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct RunArgs {
    /// Say so if no connection has come by then
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    warn_after: Duration,

    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) fn run(args: &ConfigArgs, wanted: &RunArgs) -> Result<(), Exit> {
    let config = assemble::load(args)?;
    run_secret::ensure_possible(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Exit::failed)?;
    let outcome = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let looking = async {
            let (shared, turn) = Shared::join(&config.store_path).await?;
            Ok((present(&config).await?, shared, turn))
        };
        let (present, shared, turn) = tokio::select! {
            looked = looking => looked?,
            number = signals.any() => return Err(stopped_early(number)),
        };
        let mut started = None;
        let found = match present {
            Some(found) => Ok(found),
            None => start(args, &config, &shared, &mut started, &mut signals).await,
        };
        drop(turn);
        let status = match found {
            Ok(found) => beside(&config, wanted, &found, started.as_mut(), &mut signals).await,
            Err(exit) => Err(exit),
        };
        leave(&config, shared, started).await;
        status
    });
    runtime.shutdown_background();
    let status = outcome?;
    match status.code().map(u8::try_from) {
        Some(Ok(0)) => Ok(()),
        Some(Ok(code)) => Err(Exit::Program(code, String::new())),
        // By the convention of shells.
        _ => Err(Exit::Program(128_u8.saturating_add(signal_number(status)), String::new())),
    }
}

fn signal_number(status: ExitStatus) -> u8 {
    status.signal().and_then(|number| u8::try_from(number).ok()).unwrap_or(0)
}

/// The proxy that is there; waits for one that is on its way out.
async fn present(config: &Config) -> Result<Option<Found>, Exit> {
    if config.admin_address.port() == 0 {
        return Err(Exit::configuration("admin.address: `countersign run` finds the proxy by it; choose a port but 0"));
    }
    let end = Instant::now() + READY;
    loop {
        match proxy::find(config)? {
            Some(found) if !found.is_draining => return Ok(Some(found)),
            None => return Ok(None),
            Some(_) if Instant::now() < end => sleep(LOOK).await,
            Some(_) => return Err(Exit::failed("a proxy has been ending for half a minute; try again when it has")),
        }
    }
}

/// Starts a proxy of the same configuration and waits until it is ready.
async fn start(
    args: &ConfigArgs,
    config: &Config,
    shared: &Shared,
    started: &mut Option<Child>,
    signals: &mut Signals,
) -> Result<Found, Exit> {
    let (log, log_path) = shared.log()?;
    let mut command = Command::new(std::env::current_exe().map_err(Exit::failed)?);
    command.arg("serve").args(args.as_arguments());
    if config.connect_address.is_none() {
        command.args(["--set", "connect.address=127.0.0.1:0"]);
    }
    command.stdin(Stdio::null()).stdout(log.try_clone().map_err(Exit::failed)?).stderr(log);
    // A group of its own: Ctrl-C is for the program, and the proxy has to outlive it to let its orders end.
    let child = command.process_group(0).spawn().map_err(Exit::failed)?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
    let child = started.insert(child);
    shared.started(pid)?;
    note(format_args!("started a proxy; its log is {}", log_path.display()));

    let began = Instant::now();
    let mut is_told = false;
    loop {
        if let Some(found) = proxy::find(config)?.filter(|found| found.pid == pid) {
            return Ok(found);
        }
        if let Some(status) = child.try_wait().map_err(Exit::failed)? {
            let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
            let text = format!("the proxy did not start; its log ends so:\n{}", last_lines(&log_path));
            return Err(Exit::Program(code, text));
        }
        if began.elapsed() > READY {
            return Err(Exit::failed(format!("the proxy was not ready in time; see {}", log_path.display())));
        }
        if !is_told && began.elapsed() > STILL {
            is_told = true;
            note(format_args!("waiting for the proxy to be ready"));
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            number = signals.any() => return Err(stopped_early(number)),
        }
    }
}

/// Runs the program to its end, passing signals on to it.
async fn beside(
    config: &Config,
    wanted: &RunArgs,
    found: &Found,
    mut started: Option<&mut Child>,
    signals: &mut Signals,
) -> Result<ExitStatus, Exit> {
    let connect = found.listening.connect.ok_or_else(|| {
        Exit::configuration(
            "the proxy that runs here has no CONNECT listener; add\n[connect]\naddress = \"127.0.0.1:8444\"\nto its \
             configuration and restart it, or point the program at it by `countersign env --for …`",
        )
    })?;
    let trust = env::trust(config)?;
    if trust.is_ours_alone {
        note(format_args!("no roots of the system were found: the program can reach nothing but this proxy"));
    }
    let secret = run_secret::run_secret(config)?;
    let (program, arguments) = wanted.command.split_first().expect("clap asks for one at least");
    let mut command = Command::new(program);
    command.args(arguments).envs(env::variables(&trust, Some((connect, &secret))));
    for name in credential_variables(config) {
        // The keys of the exchange may be in our environment. They are no business of a bot.
        command.env_remove(name);
    }
    let mut child = command.spawn().map_err(|error| not_started(program, &error))?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let warning = sleep(wanted.warn_after);
    tokio::pin!(warning);
    let (mut has_warned, mut is_alone) = (false, false);
    loop {
        tokio::select! {
            status = child.wait() => return status.map_err(Exit::failed),
            number = signals.next() => {
                if let Some(pid) = pid {
                    // It may have ended just now, which the next turn finds.
                    let _ = kill_process(pid, number);
                }
            }
            () = &mut warning, if !has_warned => {
                has_warned = true;
                if proxy::find(config).is_ok_and(|now| now.is_some_and(|now| now.connections == found.connections)) {
                    let time = humantime::format_duration(wanted.warn_after);
                    note(format_args!(
                        "no connection came in {time}; does the program's library read HTTPS_PROXY? See `countersign \
                         env --for {}`", env::library_names().join("|")
                    ));
                }
            }
            () = ended(started.as_deref_mut()), if started.is_some() && !is_alone => {
                is_alone = true;
                note(format_args!("the proxy has ended; see run.log in the state folder"));
            }
        }
    }
}

async fn ended(child: Option<&mut Child>) {
    if let Some(child) = child {
        let _ = child.wait().await;
    }
}

/// Ends the proxy if a run started it and this one is the last.
async fn leave(config: &Config, shared: Shared, started: Option<Child>) {
    if !shared.is_last() {
        return;
    }
    let limit = config.limits.drain_timeout + END;
    if let Some(mut child) = started {
        let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) else { return };
        let _ = kill_process(pid, rustix::process::Signal::TERM);
        if tokio::time::timeout(limit, child.wait()).await.is_err() {
            note(format_args!("the proxy did not end in time and is killed"));
            let _ = child.kill().await;
        }
        return;
    }
    let Ok(Some(found)) = proxy::find(config) else { return };
    let Some(pid) = Pid::from_raw(found.pid).filter(|_| shared.is_ours(&found)) else { return };
    let _ = kill_process(pid, rustix::process::Signal::TERM);
    let end = Instant::now() + limit;
    while matches!(proxy::find(config), Ok(Some(still)) if still.pid == found.pid) && Instant::now() < end {
        sleep(LOOK).await;
    }
}

/// The variables in which the configuration says that secrets stand.
fn credential_variables(config: &Config) -> Vec<&str> {
    let mut names = Vec::new();
    for account in &config.accounts {
        match &account.keys {
            Keys::Signing { key, secret } => names.extend([key, secret]),
            Keys::None { token } => names.extend(token),
            Keys::Simulated => {}
        }
    }
    names.extend(config.clients.jwt.as_ref().and_then(|jwt| jwt.secret.as_ref()));
    names.extend(config.clients.local_keys.as_ref().map(|local| &local.master));
    names
        .into_iter()
        .filter_map(|reference| match reference {
            SecretRef::Env(name) => Some(name.as_str()),
            SecretRef::File(_) => None,
        })
        .collect()
}

fn not_started(program: &OsString, error: &io::Error) -> Exit {
    let shown = Path::new(program).display();
    match error.kind() {
        io::ErrorKind::NotFound => Exit::Program(127, format!("{shown}: not found; check its name and PATH")),
        io::ErrorKind::PermissionDenied => {
            Exit::Program(126, format!("{shown}: may not be executed; run `chmod +x` on it, or name its interpreter"))
        }
        _ => Exit::Program(126, format!("{shown}: {error}")),
    }
}

fn last_lines(path: &PathBuf) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

/// Tells a person something, beside what the program prints.
fn note(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "countersign run: {line}");
}

fn stopped_early(signal: rustix::process::Signal) -> Exit {
    let number = u8::try_from(signal.as_raw()).unwrap_or(0);
    Exit::Program(128_u8.saturating_add(number), "stopped before the program was started".to_owned())
}

/// The signals that are meant for the program.
struct Signals {
    all: Vec<(rustix::process::Signal, Signal)>,
}

impl Signals {
    fn new() -> Result<Self, Exit> {
        use rustix::process::Signal as Raw;
        let mut wanted = vec![
            (Raw::TERM, SignalKind::terminate()),
            (Raw::HUP, SignalKind::hangup()),
            (Raw::USR1, SignalKind::user_defined1()),
            (Raw::USR2, SignalKind::user_defined2()),
            (Raw::INT, SignalKind::interrupt()),
            (Raw::QUIT, SignalKind::quit()),
        ];
        let all = wanted.drain(..).map(|(raw, kind)| Ok((raw, signal(kind).map_err(Exit::failed)?)));
        Ok(Self { all: all.collect::<Result<_, Exit>>()? })
    }

    /// The next one to pass on. Ctrl-C and Ctrl-\ at a terminal reach the program without us, and twice would be once
    /// too often.
    async fn next(&mut self) -> rustix::process::Signal {
        use rustix::process::Signal as Raw;
        loop {
            let raw = self.any().await;
            let is_from_terminal = matches!(raw, Raw::INT | Raw::QUIT) && std::fs::File::open("/dev/tty").is_ok();
            if !is_from_terminal {
                return raw;
            }
        }
    }

    /// The next one, wherever it comes from.
    async fn any(&mut self) -> rustix::process::Signal {
        let arriving = self.all.iter_mut().map(|(raw, signal)| {
            let raw = *raw;
            Box::pin(async move {
                signal.recv().await;
                raw
            })
        });
        futures_util::future::select_all(arriving).await.0
    }
}
