//! Turns what was written into what it means, and notes what means nothing.
//!
//! Goes on after a mistake, with a stand-in that nobody gets to see: one mistake anywhere, and there is no
//! configuration.

mod accounts;
mod clients;
mod grants;
mod ports;
mod texts;

use super::layers::Layers;
use super::mistakes::{Key, Mistake, Mistakes};
use super::raw::{Raw, RawListen, RawLog, RawReference, RawTls};
use super::shape::Sources;
use super::{Config, ConfigErrors, Known, Listen, Log, LogFormat, SecretRef, Tls};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a process can hold open; more is refused by the system anyway.
const CONNECTIONS_MAX: u64 = 1_000_000;
/// More than any machine needs whose processors have other work too.
const THREADS_MAX: u64 = 64;

pub(super) fn check(
    raw: &Raw,
    layers: Layers,
    sources: Sources,
    known: &Known<'_>,
    mistakes: Mistakes,
) -> Result<Config, ConfigErrors> {
    let checker = &mut Checker { sources, written_in: layers.written_in, base: &layers.base, known, mistakes };
    let listen = listen(&raw.listen, checker);
    let admin_key = Key::top("admin").then("address");
    let admin_address = checker.address(raw.admin.address.as_deref(), 9443, &admin_key);
    let connect_address = ports::connect(raw.connect.as_ref(), checker);
    let store_path = checker.path(raw.store.path.as_deref().unwrap_or("state"), &Key::top("store").then("path"));
    let log = log(&raw.log, checker);
    let limits = raw.limits.check(checker);
    let clients = clients::clients(raw, checker);
    if connect_address.is_some() && clients.local_keys.is_none() {
        let help = "write [clients.local_keys]: the secrets of `countersign run` are made of its master key";
        checker.missing(&Key::top("clients").then("local_keys"), "is missing, and [connect] needs it", help);
    }
    let accounts = accounts::accounts(&raw.accounts, checker);
    let grants = grants::grants(raw, checker);
    let ports = ports::ports(raw, &accounts, &grants, checker);
    let mut listeners = vec![(Key::top("listen").then("address"), listen.address), (admin_key, admin_address)];
    listeners.extend(connect_address.map(|address| (Key::top("connect").then("address"), address)));
    let numbered = ports.iter().enumerate();
    listeners.extend(numbered.map(|(index, port)| (Key::top("ports").at(index).then("address"), port.address)));
    ports::each_on_its_own(&listeners, checker);
    if !checker.mistakes.is_empty() {
        return Err(std::mem::take(&mut checker.mistakes).into_errors());
    }
    let base = layers.base;
    Ok(Config {
        base,
        listen,
        ports,
        connect_address,
        clients,
        accounts,
        grants,
        admin_address,
        store_path,
        log,
        limits,
    })
}

/// Reads values and collects mistakes.
pub(super) struct Checker<'a> {
    sources: Sources,
    written_in: String,
    base: &'a Path,
    known: &'a Known<'a>,
    mistakes: Mistakes,
}

impl Checker<'_> {
    /// Notes a mistake in what stands under the key.
    pub(super) fn wrong(&mut self, key: &Key, what: &str, help: &str) {
        let source = self.sources.of(key).unwrap_or_else(|| "default".to_owned());
        self.note(key, source, what, help);
    }

    /// Notes that something is not there.
    fn missing(&mut self, key: &Key, what: &str, help: &str) {
        self.note(key, self.written_in.clone(), what, help);
    }

    fn note(&mut self, key: &Key, source: String, what: &str, help: &str) {
        let mistake = Mistake { key: key.to_string(), source, what: what.to_owned(), help: help.to_owned() };
        self.mistakes.add(key, mistake);
    }

    /// True if something below that table is wrong: what follows from it is no mistake of its own.
    fn has_mistakes_in(&self, table: &str) -> bool {
        self.mistakes.is_any_within(table)
    }

    /// A duration between two bounds.
    pub(super) fn time(
        &mut self,
        raw: Option<&str>,
        default: &str,
        key: &Key,
        min: Duration,
        max: Duration,
    ) -> Duration {
        let Ok(time) = humantime::parse_duration(raw.unwrap_or(default)) else {
            self.wrong(key, "must be a duration", "write \"10s\", \"500ms\" or \"24h\"");
            return min;
        };
        if time < min {
            self.wrong(key, &format!("must be at least {}", humantime::format_duration(min)), "");
        } else if time > max {
            self.wrong(key, &format!("must be at most {}", humantime::format_duration(max)), "");
        }
        time
    }

    /// A number from one up to a bound.
    pub(super) fn number(&mut self, raw: Option<u64>, default: u64, key: &Key, max: u64) -> u64 {
        let number = raw.unwrap_or(default);
        if number == 0 {
            self.wrong(key, "must be at least 1", "");
        } else if number > max {
            self.wrong(key, &format!("must be at most {max}"), "");
        }
        number.clamp(1, max)
    }

    fn address(&mut self, raw: Option<&str>, default_port: u16, key: &Key) -> SocketAddr {
        let default = SocketAddr::from((Ipv4Addr::LOCALHOST, default_port));
        let Some(text) = raw else { return default };
        text.parse().unwrap_or_else(|_| {
            self.wrong(key, "must be an address with a port", &format!("write \"{default}\""));
            default
        })
    }

    fn path(&mut self, text: &str, key: &Key) -> PathBuf {
        if text.is_empty() || text.contains('\0') {
            self.wrong(key, "must be a path", "");
        }
        self.base.join(text)
    }

    fn reference(&mut self, raw: &RawReference, key: &Key) -> SecretRef {
        match (&raw.env, &raw.file) {
            (Some(env), None) => {
                let key = key.then("env");
                if !texts::is_variable_name(env) {
                    self.wrong(&key, "is not the name of an environment variable", "name the variable, not its value");
                }
                SecretRef::Env(env.clone())
            }
            (None, Some(file)) => {
                let key = key.then("file");
                self.path(file, &key);
                if file.contains('*') {
                    self.wrong(&key, "must name one file", "a secret has no wildcards");
                }
                SecretRef::File(file.into())
            }
            (both_or_neither, _) => {
                let what = if both_or_neither.is_some() { "names both a file and a variable" } else { "names nothing" };
                // With one of the two taken out as a mistake, the other cannot be missed.
                if !self.mistakes.is_spoiled(&key.then("env")) && !self.mistakes.is_spoiled(&key.then("file")) {
                    self.wrong(key, what, "write one of { env = … } and { file = … }");
                }
                SecretRef::Env(String::new())
            }
        }
    }

    /// A reference that has to be there.
    fn required(&mut self, raw: Option<&RawReference>, key: &Key, help: &str) -> SecretRef {
        if let Some(raw) = raw {
            return self.reference(raw, key);
        }
        self.missing(key, "is missing", help);
        SecretRef::Env(String::new())
    }
}

fn listen(raw: &RawListen, checker: &mut Checker<'_>) -> Listen {
    let table = Key::top("listen");
    let address = checker.address(raw.address.as_deref(), 8443, &table.then("address"));
    if raw.unsafe_no_auth && !address.ip().is_loopback() {
        checker.wrong(
            &table.then("unsafe_no_auth"),
            "would let everybody on the network trade, because listen.address is not loopback",
            "remove it, or listen on 127.0.0.1",
        );
    }
    for (index, origin) in raw.origins.iter().enumerate() {
        if !texts::is_origin(origin) {
            let key = table.then("origins").at(index);
            checker.wrong(
                &key,
                "is not an origin",
                "write it as browsers do: \"https://desk.example\", lower case, no path",
            );
        }
    }
    for (index, host) in raw.hosts.iter().enumerate() {
        if !texts::is_host_name(host) {
            checker.wrong(&table.then("hosts").at(index), "is not a host name", "write it without port and wildcards");
        }
    }
    let threads = checker.number(raw.threads, 1, &table.then("threads"), THREADS_MAX);
    let connections_max = checker.number(raw.connections_max, 1000, &table.then("connections_max"), CONNECTIONS_MAX);
    Listen {
        address,
        tls: tls(&raw.tls, checker),
        origins: raw.origins.clone(),
        hosts: raw.hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
        unsafe_no_auth: raw.unsafe_no_auth,
        connections_max: usize::try_from(connections_max).expect("`number` keeps it within a million"),
        threads: usize::try_from(threads).expect("`number` keeps it within 64"),
    }
}

fn tls(raw: &RawTls, checker: &mut Checker<'_>) -> Tls {
    let table = Key::top("listen").then("tls");
    match (&raw.directory, &raw.certificate, &raw.key) {
        (directory, None, None) => {
            Tls::Directory(checker.path(directory.as_deref().unwrap_or("certs"), &table.then("directory")))
        }
        (None, Some(certificate), Some(key)) => Tls::Pair {
            certificate: checker.path(certificate, &table.then("certificate")),
            key: checker.path(key, &table.then("key")),
        },
        (None, certificate, _) => {
            let absent = if certificate.is_none() { "certificate" } else { "key" };
            checker.missing(&table.then(absent), "is missing", "a certificate and its key come together");
            Tls::Directory(PathBuf::new())
        }
        (Some(_), ..) => {
            checker.wrong(
                &table,
                "names both a directory and a pair of files",
                "write { directory = … } or { certificate = …, key = … }",
            );
            Tls::Directory(PathBuf::new())
        }
    }
}

fn log(raw: &RawLog, checker: &mut Checker<'_>) -> Log {
    let table = Key::top("log");
    let format = match raw.format.as_deref() {
        None | Some("auto") => LogFormat::Auto,
        Some("text") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        Some(_) => {
            checker.wrong(&table.then("format"), "unknown format", "known are auto, text, json");
            LogFormat::Auto
        }
    };
    let level = match raw.level.as_deref() {
        Some("error") => tracing::Level::ERROR,
        Some("warn") => tracing::Level::WARN,
        None | Some("info") => tracing::Level::INFO,
        Some("debug") => tracing::Level::DEBUG,
        Some("trace") => tracing::Level::TRACE,
        Some(_) => {
            checker.wrong(&table.then("level"), "unknown level", "known are error, warn, info, debug, trace");
            tracing::Level::INFO
        }
    };
    Log { format, level }
}

/// True if one address takes what the other one needs. Port 0 is whatever is free.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let is_same_host = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && is_same_host
}
