//! The built program, as a user runs it: in a folder, with arguments and signals; its output and its exit code.
#![allow(dead_code, clippy::unwrap_used, reason = "shared by test programs that use a part each")]

use crate::house::Folder;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How long anything may take before a test is said to hang. No test waits for it to pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The program.
pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_countersign"))
}

/// The program in a folder, with nothing in its environment that could configure it.
pub(crate) fn countersign(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(folder).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// A folder with the repository's proxy.toml in it, but for its fixed ports: tests run side by side.
pub(crate) fn user_folder() -> Folder {
    let folder = Folder::new();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy.toml");
    let mut text = fs::read_to_string(file).unwrap();
    for port in ["8601", "8602", "8603", "8444"] {
        let (fixed, free) = (format!("address = \"127.0.0.1:{port}\""), "address = \"127.0.0.1:0\"");
        assert!(text.contains(&fixed), "proxy.toml has no {fixed}");
        text = text.replace(&fixed, free);
    }
    fs::write(folder.path().join("proxy.toml"), text).unwrap();
    folder
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end.
pub(crate) fn finish(command: &mut Command, limit: Duration) -> Outcome {
    let mut running = Program::start(command);
    let code = running.ended(limit);
    let text = |wanted| {
        let lines = running.seen.iter().filter(|(from, _)| *from == wanted);
        lines.map(|(_, line)| format!("{line}\n")).collect()
    };
    Outcome { code, stdout: text(From::Stdout), stderr: text(From::Stderr) }
}

/// Runs the program in a folder to its end.
pub(crate) fn run(folder: &Path, arguments: &[&str]) -> Outcome {
    finish(&mut countersign(folder, arguments), PATIENCE)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Stdout,
    Stderr,
}

/// A program that runs. Killed when dropped.
pub(crate) struct Program {
    child: Child,
    lines: Receiver<(From, String)>,
    seen: Vec<(From, String)>,
    /// How far into `seen` each stream was searched. Which stream comes first is chance, so each has its own.
    searched: [usize; 2],
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (sender, lines) = channel();
        read(From::Stdout, child.stdout.take().unwrap(), sender.clone());
        read(From::Stderr, child.stderr.take().unwrap(), sender);
        Self { child, lines, seen: Vec::new(), searched: [0, 0] }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the next line that fits, on either stream. What a stream said before it is passed over.
    pub(crate) fn line_where(&mut self, fits: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut next = 0;
        loop {
            while let Some((from, line)) = self.seen.get(next) {
                next += 1;
                let searched = &mut self.searched[*from as usize];
                if next > *searched && fits(line) {
                    *searched = next;
                    return line.clone();
                }
            }
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(_) => panic!("the line did not come, after {:#?}", self.seen),
            }
        }
    }

    /// Waits for the end: the exit code, if there is one.
    pub(crate) fn ended(&mut self, limit: Duration) -> Option<i32> {
        let deadline = Instant::now() + limit;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                // Both streams are closed: it has ended, or is about to.
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().unwrap().code(),
                Err(RecvTimeoutError::Timeout) => panic!("it did not end, after {:#?}", self.seen),
            }
        }
    }

    /// What it has told its user so far; the log has the other stream.
    pub(crate) fn said(&self) -> String {
        let said = self.seen.iter().filter(|(from, _)| *from == From::Stdout);
        said.map(|(_, line)| format!("{line}\n")).collect()
    }

    /// Everything that came on either stream so far.
    pub(crate) fn output(&self) -> String {
        self.seen.iter().map(|(_, line)| format!("{line}\n")).collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(from: From, stream: impl Read + Send + 'static, lines: Sender<(From, String)>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if lines.send((from, line)).is_err() {
                return;
            }
        }
    });
}

/// `countersign serve` in a folder, listening on ports that the system chose.
pub(crate) struct Serving {
    pub(crate) program: Program,
    pub(crate) folder: PathBuf,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Serving {
    /// Starts it and waits until it listens.
    pub(crate) fn open(folder: &Path, arguments: &[&str]) -> Self {
        let ports = ["--set", "listen.address=127.0.0.1:0", "--set", "admin.address=127.0.0.1:0"];
        let all = [&["serve", "--log-format", "text"], &ports[..], arguments].concat();
        let mut program = Program::start(&mut countersign(folder, &all));
        let line = program.line_where(|line| line.contains(" listening "));
        let field = |name: &str| {
            let value = line.split(' ').find_map(|word| word.strip_prefix(name)).unwrap();
            value.parse().unwrap()
        };
        let (address, admin) = (field("address="), field("admin="));
        Self { program, folder: folder.to_owned(), address, admin }
    }

    /// Starts it with an admin address that stands in the file, by which `countersign run` and `env` find it.
    pub(crate) fn open_findable(folder: &Path) -> Self {
        let admin = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let file = folder.join("proxy.toml");
        let text = fs::read_to_string(&file).unwrap();
        let own = text.replace("# address = \"127.0.0.1:9443\"", &format!("address = \"{admin}\""));
        assert_ne!(own, text, "proxy.toml does not show the admin address");
        fs::write(&file, own).unwrap();
        Self::open(folder, &["--set", &format!("admin.address={admin}")])
    }

    /// The status and body of an answer of the admin listener.
    pub(crate) fn ask(&self, path: &str) -> (u16, String) {
        let mut socket = TcpStream::connect(self.admin).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(socket, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.admin).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}
