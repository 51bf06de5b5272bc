//! What this program is: the benchmark itself, or one of the processes that it starts.

use super::{answers, echo, server};
use std::path::Path;
use std::process::ExitCode;
use tokio::runtime::{Builder, Runtime};

/// Does what the arguments say: without a role, `measure`.
pub(crate) fn main(measure: impl FnOnce(&[&str])) -> ExitCode {
    countersign::tls::install_crypto();
    countersign::identity::jwt::install_crypto();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["--role", "echo", certificates] => {
            end_with_parent();
            runtime().block_on(server::serve(Path::new(certificates), echo::converse));
        }
        ["--role", "answers", certificates] => {
            end_with_parent();
            runtime().block_on(server::serve(Path::new(certificates), answers::converse));
        }
        ["--role", "proxy", ..] => {
            end_with_parent();
            let rest = arguments.into_iter().skip(2).map(std::ffi::OsString::from);
            return countersign::cli::run(std::iter::once("countersign".into()).chain(rest));
        }
        _ => measure(&words),
    }
    ExitCode::SUCCESS
}

/// True for a look whether it runs. `cargo test --benches` starts it without `--bench`.
pub(crate) fn is_quick(words: &[&str]) -> bool {
    words.contains(&"--quick") || !words.contains(&"--bench")
}

/// How many threads the proxy gets.
pub(crate) fn threads(words: &[&str]) -> usize {
    let threads = words.iter().skip_while(|word| **word != "--threads").nth(1);
    threads.map_or(1, |count| count.parse().expect("--threads takes a number"))
}

pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Standard input is a pipe from the process that started this one: at its end that one is gone.
fn end_with_parent() {
    std::thread::spawn(|| {
        drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        std::process::exit(0);
    });
}
