//! What this program is: the benchmark itself, or one of the processes that it starts.

use super::{Offer, answers, echo, server};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::os::unix::process::CommandExt as _;
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
        ["--role", role @ ("echo" | "echo-one-of-each" | "answers"), certificates] => {
            end_with_parent();
            let certificates = Path::new(certificates);
            match role {
                "echo" => runtime().block_on(server::serve(certificates, Offer::Everything, echo::converse)),
                "echo-one-of-each" => {
                    runtime().block_on(server::serve(certificates, Offer::OneOfEach, echo::converse));
                }
                _ => runtime().block_on(server::serve(certificates, Offer::Everything, answers::converse)),
            }
        }
        ["--role", "become", processors, program, ..] => become_program(processors, program, &words[4..]),
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

/// Runs on these processors alone. None: nothing changes. Threads and processes that are started later inherit it.
pub(crate) fn stay_on(processors: &[usize]) {
    if !processors.is_empty() {
        let mut set = CpuSet::new();
        processors.iter().for_each(|number| set.set(*number));
        sched_setaffinity(None, &set).expect("the processors exist");
    }
}

/// The processors that this program may run on.
pub(crate) fn processors() -> Vec<usize> {
    let set = sched_getaffinity(None).expect("Linux tells every process");
    (0..CpuSet::MAX_CPU).filter(|number| set.is_set(*number)).collect()
}

/// Ends this program for another, which ends with the process that started this one.
fn become_program(processors: &str, program: &str, arguments: &[&str]) {
    let processors: Vec<usize> = processors.split(',').filter_map(|number| number.parse().ok()).collect();
    stay_on(&processors);
    set_parent_process_death_signal(Some(Signal::TERM)).expect("Linux has it");
    let error = std::process::Command::new(program).args(arguments).exec();
    panic!("{program} cannot be started: {error}");
}

/// Standard input is a pipe from the process that started this one: at its end that one is gone.
fn end_with_parent() {
    std::thread::spawn(|| {
        drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        std::process::exit(0);
    });
}
