//! What `countersign serve` tells a person at its start: how each kind of bot comes in, with lines to paste.

use crate::cli::assemble::{self, Running};
use crate::cli::{ConfigArgs, say};
use crate::config::{Config, Reach, Tls};
use crate::venue;
use std::net::SocketAddr;
use std::path::Path;

/// Tells a person how to connect.
pub(super) fn greet(args: &ConfigArgs, config: &Config, house: &Running) {
    say(format_args!("\nCountersign listens on {}.", house.address));
    if let Some(made) = &house.certificates {
        for line in made.to_string().lines() {
            say(format_args!("  {line}"));
        }
    }
    let program = Program::new(args);
    unmodified_bots(config, house, &program);
    first_messages(config, house, &program);
}

/// A local key, and where to take it.
fn unmodified_bots(config: &Config, house: &Running, program: &Program) {
    if let Some(line) = key_line(config, program) {
        say("\nFor a bot that nobody changes, a local key in place of the exchange's:");
        say(line);
    }
    if !house.ports.is_empty() {
        say("\nand one of these in place of its URL (docs/bots.md has the lines for each library):");
        for (port, address) in std::iter::zip(&config.ports, &house.ports) {
            say(door(port.venue, port.endpoint, *address));
        }
        say(program.line("env --for ccxt"));
    }
    if house.connect_address.is_some() {
        say("\nor, where its library reads HTTPS_PROXY, the URL that it has:");
        say(program.line("run -- python3 my_bot.py"));
    }
}

/// One of `[[ports]]`, and what is behind it.
fn door(venue: &'static str, endpoint: Option<&'static str>, address: SocketAddr) -> String {
    let host = if address.ip().is_loopback() { "localhost".to_owned() } else { address.ip().to_string() };
    let port = address.port();
    let known = venue::by_name(venue);
    let narrowed_to = endpoint.and_then(|name| known?.endpoints().iter().find(|door| door.name == name));
    let leads_to = match narrowed_to {
        Some(door) => format!("in place of {}", door.host),
        None if known.is_some_and(|venue| venue.rest().is_some()) => "REST and private sockets".to_owned(),
        None => "its socket".to_owned(),
    };
    format!("  https://{host}:{port}  wss://{host}:{port}  {venue}, {leads_to}")
}

/// Prints the local key of the first client that a grant names for one.
fn key_line(config: &Config, program: &Program) -> Option<String> {
    config.clients.local_keys.as_ref()?;
    let mut grants = config.grants.iter();
    grants.find_map(|grant| {
        let client = grant.client.as_str().strip_prefix("key:")?;
        let Reach::Account(account) = &grant.reach else { return None };
        Some(program.line(&format!("key --client {} --account {account}", quoted(client))))
    })
}

/// Sockets for clients that know of us, and a bot that does.
fn first_messages(config: &Config, house: &Running, program: &Program) {
    let port = house.address.port();
    let routes = assemble::routes(config);
    let paths = routes.local_paths();
    say("\nFor a bot without any key, sockets that take a token in the first message:");
    for path in &paths {
        say(format_args!("  wss://localhost:{port}{path}"));
    }
    let path = paths.iter().find(|path| **path == "/kraken/v2").or(paths.first()).copied();
    if let (Tls::Directory(directory), Some(_), Some(path)) = (&config.listen.tls, &config.clients.jwt, path) {
        say("\nPaste this to see one log in (Python, `pip install websockets`):\n");
        say(first_bot(program, port, &directory.join("ca.pem"), path));
    }
}

/// One line that mints a token, connects and prints what comes.
fn first_bot(program: &Program, port: u16, authority: &Path, path: &str) -> String {
    let (token, authority) = (program.command("token --subject bot-a"), shown(authority));
    format!(
        "SSL_CERT_FILE={authority} TOKEN=$({token}) python3 -c 'import os, json\n\
         from websockets.sync.client import connect\n\
         with connect(\"wss://localhost:{port}{path}\") as socket:\n\
         \x20   socket.send(json.dumps({{\"type\": \"auth\", \"token\": os.environ[\"TOKEN\"]}}))\n\
         \x20   print(socket.recv())'\n"
    )
}

/// This program with this configuration, as it is started from a shell.
struct Program {
    path: String,
    config: String,
}

impl Program {
    fn new(args: &ConfigArgs) -> Self {
        let path = std::env::current_exe().unwrap_or_else(|_| "countersign".into());
        let config = args.config.as_ref().map_or_else(String::new, |path| format!("--config {} ", shown(path)));
        Self { path: shown(&path), config }
    }

    fn command(&self, rest: &str) -> String {
        format!("{} {}{rest}", self.path, self.config)
    }

    fn line(&self, rest: &str) -> String {
        format!("  {}", self.command(rest))
    }
}

/// The path as somebody in this folder would write it in a shell.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    match path.strip_prefix(&here) {
        Ok(below) => format!("./{}", quoted_path(below)),
        Err(_) => quoted_path(path),
    }
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.display().to_string())
}

/// A text as one word of a shell.
fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if text.bytes().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_word_of_a_shell() {
        assert_eq!(quoted("certs/ca.pem"), "certs/ca.pem");
        assert_eq!(quoted("/my desk/ca.pem"), "'/my desk/ca.pem'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }

    #[test]
    fn a_port_says_what_is_behind_it() {
        let at = |endpoint| door("kraken", endpoint, SocketAddr::from(([127, 0, 0, 1], 8601)));
        assert_eq!(at(None), "  https://localhost:8601  wss://localhost:8601  kraken, REST and private sockets");
        assert!(at(Some("public")).ends_with("  kraken, in place of ws.kraken.com"));
        assert!(door("plain", None, SocketAddr::from(([127, 0, 0, 1], 1))).ends_with("  plain, its socket"));
    }
}
