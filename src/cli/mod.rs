//! The command line: what each command is called, what its help teaches, and its exit code.

mod account;
pub mod assemble;
mod certs;
mod check;
#[cfg(feature = "simulator")]
mod demo;
mod env;
mod exit;
mod healthcheck;
mod key;
mod logs;
mod proxy;
mod run;
mod run_secret;
mod serve;
#[cfg(feature = "simulator")]
mod simulate;
mod status;
mod stop;
mod token;

pub use exit::Exit;

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Countersign: bots connect here without credentials; it signs for them with the real key.
///
/// Try it with no account at all:
///   countersign demo
///
/// Run it from ./proxy.toml (simulated exchanges until you name real keys):
///   countersign
#[derive(Parser)]
#[command(name = "countersign", version, max_term_width = 100, verbatim_doc_comment)]
#[command(after_help = "Exit codes: 0 done, 1 stopped in a hurry, 64 wrong usage or configuration,\n\
                        73 the state folder cannot be used, 75 another process uses it;\n\
                        of `run`: the program's own, 126 not executable, 127 not found, 128+N ended by signal N.")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    config: ConfigArgs,
}

/// Which configuration: defaults < file < COUNTERSIGN__SECTION__KEY < --set.
#[derive(Args, Clone, Default)]
pub(crate) struct ConfigArgs {
    /// The configuration file [default: ./proxy.toml if it is there]
    #[arg(long, short, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Set one key, over file and environment: --set listen.address=127.0.0.1:9000
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,

    /// How logs look [default: text on a terminal, JSON elsewhere]
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<LogFormat>,

    /// Log this much: error, warn, info, debug, trace (no payload at any level)
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl ConfigArgs {
    /// The same choice, for another start of this program.
    fn as_arguments(&self) -> Vec<OsString> {
        let mut arguments = Vec::new();
        let mut option = |name: &str, value: OsString| arguments.extend([OsString::from(name), value]);
        if let Some(path) = &self.config {
            option("--config", path.into());
        }
        for (key, value) in &self.set {
            option("--set", format!("{key}={value}").into());
        }
        if let Some(format) = self.log_format {
            option("--log-format", format.word().into());
        }
        if let Some(level) = &self.log_level {
            option("--log-level", level.into());
        }
        arguments
    }
}

impl LogFormat {
    fn word(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Start the proxy (the default)
    Serve,
    /// Watch three bots without credentials trade on two simulated exchanges, message by message
    #[cfg(feature = "simulator")]
    Demo(demo::DemoArgs),
    /// Check the configuration, the secrets that it names and the certificates, and start nothing
    Check,
    // These say for themselves what they do: a line here would take the place of their whole help.
    Certs(certs::CertsArgs),
    Token(token::TokenArgs),
    Key(key::KeyArgs),
    Run(run::RunArgs),
    Env(env::EnvArgs),
    #[cfg(feature = "simulator")]
    Simulate(simulate::SimulateArgs),
    Status(status::StatusArgs),
    Account(account::AccountArgs),
    /// Ask the admin listener of a running proxy whether it is ready: exit 0 if so (for images without curl)
    Healthcheck,
}

/// Runs the command line and says with which code the process ends.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    crate::tls::install_crypto();
    crate::identity::jwt::install_crypto();
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, not mistakes.
            let code = if error.use_stderr() { Exit::Usage.code() } else { ExitCode::SUCCESS };
            let _ = error.print();
            return code;
        }
    };
    let outcome = match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(&cli.config),
        #[cfg(feature = "simulator")]
        Command::Demo(args) => demo::run(&args),
        Command::Check => check::run(&cli.config),
        Command::Certs(args) => certs::run(&cli.config, &args),
        Command::Token(args) => token::run(&cli.config, &args),
        Command::Key(args) => key::run(&cli.config, &args),
        Command::Run(args) => run::run(&cli.config, &args),
        Command::Env(args) => env::run(&cli.config, &args),
        #[cfg(feature = "simulator")]
        Command::Simulate(args) => simulate::run(&args),
        Command::Status(args) => status::run(&cli.config, &args),
        Command::Account(args) => account::run(&cli.config, &args),
        Command::Healthcheck => healthcheck::run(&cli.config),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            exit.print();
            exit.code()
        }
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        // The text is not repeated: it could be a value that should not be seen.
        _ => Err("write KEY=VALUE, as in listen.address=127.0.0.1:9000".to_owned()),
    }
}

/// Prints a line of a command's answer. A closed pipe is not our fault: `countersign demo | head` ends well.
pub(crate) fn say(line: impl std::fmt::Display) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Keeps what is in this process's memory in it: no core files, and no debugger of the same user.
pub(crate) fn harden() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core files could not be switched off");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "the process can be dumped");
    }
}
