//! Why the process ends with something other than 0, and what it says then.

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

/// An end that is no success.
#[derive(Debug)]
pub enum Exit {
    /// The command line was wrong; it has been said.
    Usage,
    /// The configuration, a secret or a certificate is wrong.
    Configuration(String),
    /// The state folder cannot be used: code 73, or 75 if another process uses it.
    State(u8, String),
    /// Something else went wrong.
    Failed(String),
    /// Stopped before everything had ended.
    Hurried,
    /// The code of a program that we ran, or could not run, and what there is to say about it.
    Program(u8, String),
}

impl Exit {
    /// A wrong configuration.
    pub fn configuration(what: impl Display) -> Self {
        Self::Configuration(what.to_string())
    }

    /// Something that could not be done.
    pub fn failed(what: impl Display) -> Self {
        Self::Failed(what.to_string())
    }

    /// The exit code, by the convention of `sysexits.h`.
    pub fn code(&self) -> ExitCode {
        match self {
            Exit::Usage | Exit::Configuration(_) => ExitCode::from(64),
            Exit::State(code, _) | Exit::Program(code, _) => ExitCode::from(*code),
            Exit::Failed(_) | Exit::Hurried => ExitCode::from(1),
        }
    }

    /// What went wrong, a line for each mistake.
    pub(super) fn lines(&self) -> impl Iterator<Item = &str> {
        let text = match self {
            Exit::Usage => "",
            Exit::Configuration(text) | Exit::State(_, text) | Exit::Failed(text) | Exit::Program(_, text) => text,
            Exit::Hurried => "stopped before every session had ended",
        };
        text.lines()
    }

    pub(super) fn print(&self) {
        let mut stderr = std::io::stderr().lock();
        for line in self.lines() {
            let _ = writeln!(stderr, "countersign: {line}");
        }
    }
}
