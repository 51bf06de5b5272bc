//! A bot that runs: a program of somebody else's, which ends or hangs.
//!
//! A bot that hangs is made to tell where it stands: "the bot hangs" alone sends nobody to the cause.
#![allow(dead_code, clippy::unwrap_used, reason = "shared by test programs that use a part each")]

use rustix::process::{Pid, Signal, kill_process};
use std::fmt::Display;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

/// How long a bot may take before it is said to hang. No test waits for it to pass.
const BOT_PATIENCE: Duration = Duration::from_secs(60);
/// How long a bot that hangs may take to say where it stands.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// How a bot ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Whether it was content itself.
    pub(crate) is_well: bool,
    pub(crate) said: String,
    pub(crate) complaints: String,
}

/// Runs a bot to its end. Panics if it hangs, with everything that it had said until then, where in its code a Python bot
/// stood, and what `scene` knows: which bot it was, what the exchange saw of it.
pub(crate) async fn finish<T: Display>(mut command: Command, scene: impl FnOnce() -> T) -> Ended {
    // What a killed Python held back is lost; on SIGABRT it prints the stack of each of its threads.
    command.env("PYTHONUNBUFFERED", "1").env("PYTHONFAULTHANDLER", "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let named = format!("{:?}", command.as_std());
    let began = Instant::now();
    let mut bot = command.spawn().unwrap_or_else(|error| panic!("{named}: {error}"));
    let process = Pid::from_raw(i32::try_from(bot.id().unwrap()).unwrap()).unwrap();
    let (said, complaints) = (Arc::default(), Arc::default());
    let streams = [
        tokio::spawn(listen(bot.stdout.take().unwrap(), Arc::clone(&said))),
        tokio::spawn(listen(bot.stderr.take().unwrap(), Arc::clone(&complaints))),
    ];
    let ending = async {
        let status = bot.wait().await.unwrap();
        for stream in streams {
            stream.await.unwrap();
        }
        status
    };
    tokio::pin!(ending);
    let Ok(status) = tokio::time::timeout(BOT_PATIENCE, &mut ending).await else {
        // It may have ended just now. Limited, for a bot below `countersign run` keeps the streams open.
        let _ = kill_process(process, Signal::ABORT);
        let _ = tokio::time::timeout(LAST_WORDS, ending).await;
        panic!(
            "the bot hangs after {:?}: {named}\nit said:\n{}\nand complained:\n{}\n{}",
            began.elapsed(),
            text(&said),
            text(&complaints),
            scene()
        );
    };
    Ended { is_well: status.success(), said: text(&said), complaints: text(&complaints) }
}

/// Keeps what comes, so that it is there whether or not the stream ends.
async fn listen(mut stream: impl AsyncRead + Unpin, heard: Arc<Mutex<Vec<u8>>>) {
    let mut part = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut part).await {
        heard.lock().unwrap().extend_from_slice(&part[..count]);
    }
}

fn text(heard: &Mutex<Vec<u8>>) -> String {
    String::from_utf8_lossy(&heard.lock().unwrap()).into_owned()
}
