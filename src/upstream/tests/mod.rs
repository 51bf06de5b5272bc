//! Exchanges on loopback that behave, misbehave or say nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod resolving;
mod rest;
mod websocket;

use super::*;
use crate::certs::{Wanted, ensure};
use crate::tls::tests::{Scratch, now};
use crate::tls::{Acceptor, Certificates, ClientRoots, ServerSettings, Stream};
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const HOST: &str = "api.exchange.example";

/// An exchange with a certificate of its own.
struct Exchange {
    listener: TcpListener,
    acceptor: Acceptor,
    target: Target,
}

impl Exchange {
    async fn new() -> Self {
        Self::named(HOST, now()).await
    }

    /// One whose certificate is for `name` and was made at `made_at`.
    async fn named(name: &str, made_at: UnixMillis) -> Self {
        let scratch = Scratch::new();
        let directory = scratch.path().to_owned();
        ensure(
            &Wanted { directory: directory.clone(), names: vec![name.to_owned()], clients: vec![], is_forced: false },
            made_at,
        )
        .unwrap();
        let settings = ServerSettings {
            certificates: Certificates::Directory(directory.clone()),
            client_authority: None,
            client_revocations: None,
        };
        let acceptor = settings.load(made_at).unwrap();
        let roots = ClientRoots::Pem(std::fs::read(directory.join("ca.pem")).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut target = Target::new(HOST, port, Connector::with_roots(&roots).unwrap()).unwrap();
        target.addresses = vec![(Ipv4Addr::LOCALHOST, port).into()];
        Self { listener, acceptor, target }
    }

    /// Takes one connection and follows `script`. Gives the target, and a handle to what the script found.
    fn play<T, Script, Played>(self, script: Script) -> (Target, JoinHandle<T>)
    where
        T: Send + 'static,
        Script: FnOnce(Stream) -> Played + Send + 'static,
        Played: Future<Output = T> + Send,
    {
        let played = tokio::spawn(async move {
            let (socket, _) = self.listener.accept().await.unwrap();
            script(self.acceptor.accept(socket).await.unwrap()).await
        });
        (self.target, played)
    }

    /// Takes one connection and counts what arrives above TLS until it ends. None: TLS was not set up.
    fn count(self) -> (Target, JoinHandle<Option<usize>>) {
        let counted = tokio::spawn(async move {
            let (socket, _) = self.listener.accept().await.unwrap();
            let mut stream = self.acceptor.accept(socket).await.ok()?;
            let mut bytes = Vec::new();
            let _may_be_reset = stream.read_to_end(&mut bytes).await;
            Some(bytes.len())
        });
        (self.target, counted)
    }
}

/// A request's head, as text.
async fn read_head(stream: &mut Stream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        key.eq_ignore_ascii_case(name).then_some(value)
    })
}

/// A resolver that a test with configured addresses must never reach.
fn nobody() -> Resolver {
    Resolver::with_servers(Vec::new())
}

fn short() -> DialLimits {
    DialLimits { connect: Duration::from_millis(300), handshake: Duration::from_millis(300), ..DialLimits::default() }
}
