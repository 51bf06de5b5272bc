//! A bot as a trader would write one: a WebSocket client that knows no key of any exchange.

use super::super::{Exit, assemble};
use crate::certs::{self, Wanted};
use crate::config::Config;
use crate::supply::clock::Clock;
use crate::tls::{Connector, Stream};
use futures_util::{SinkExt as _, StreamExt as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// How long an answer may take before the demo is said to have failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// What the bot proves itself with.
pub(super) enum Proof {
    Token(String),
    Certificate(&'static str),
    /// Its messages prove who it is, in the exchange's own protocol.
    Nothing,
}

pub(super) struct Bot {
    socket: WebSocketStream<Stream>,
    proof: Proof,
}

/// Makes the certificates of the house and of both bots.
pub(super) fn certificates(config: &Config, folder: &Path) -> Result<(), Exit> {
    let names = assemble::routes(config).names();
    let clients = vec!["bot-a".to_owned(), "bot-b".to_owned()];
    let wanted = Wanted { directory: folder.join("certs"), names, clients, is_forced: false };
    certs::ensure(&wanted, Clock::System.now()).map(drop).map_err(Exit::failed)
}

/// Trusts the proxy's authority alone, and shows a certificate if it is given the name of one.
pub(super) fn connector(certs: &Path, certificate: Option<&str>) -> Result<Connector, Exit> {
    let mut roots = rustls::RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(certs.join("ca.pem")).map_err(Exit::failed)?;
    roots.add(authority).map_err(Exit::failed)?;
    let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
    let config = match certificate {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let leaf = CertificateDer::from_pem_file(certs.join(format!("{name}.pem"))).map_err(Exit::failed)?;
            let key = PrivateKeyDer::from_pem_file(certs.join(format!("{name}.key"))).map_err(Exit::failed)?;
            builder.with_client_auth_cert(vec![leaf], key).map_err(Exit::failed)?
        }
    };
    Ok(Connector::new(Arc::new(config)))
}

impl Bot {
    /// Connects to the proxy under a host name and path, trusting its authority alone.
    pub(super) async fn connect(
        proxy: SocketAddr,
        certs: &Path,
        host: &str,
        path: &str,
        proof: Proof,
    ) -> Result<Self, Exit> {
        let certificate = match &proof {
            Proof::Certificate(name) => Some(*name),
            Proof::Token(_) | Proof::Nothing => None,
        };
        let connector = connector(certs, certificate)?;
        let tcp = TcpStream::connect(proxy).await.map_err(Exit::failed)?;
        let name = ServerName::try_from(host.to_owned()).map_err(Exit::failed)?;
        let stream = connector.connect(name, tcp).await.map_err(Exit::failed)?;
        let upgrade = tokio_tungstenite::client_async(format!("wss://{host}{path}"), stream);
        let (socket, _) = tokio::time::timeout(PATIENCE, upgrade).await.map_err(Exit::failed)?.map_err(Exit::failed)?;
        Ok(Self { socket, proof })
    }

    /// The first message of a bot that logs in by token.
    pub(super) fn login(&self) -> Option<String> {
        match &self.proof {
            Proof::Token(token) => Some(format!(r#"{{"type":"auth","token":"{token}"}}"#)),
            Proof::Certificate(_) | Proof::Nothing => None,
        }
    }

    pub(super) async fn say(&mut self, text: &str) -> Result<(), Exit> {
        self.socket.send(Message::text(text)).await.map_err(Exit::failed)
    }

    /// The first message that fits, as text and as JSON.
    pub(super) async fn hear(&mut self, fits: impl Fn(&Value) -> bool) -> Result<(String, Value), Exit> {
        let heard = async {
            while let Some(message) = self.socket.next().await {
                let Message::Text(text) = message.map_err(Exit::failed)? else { continue };
                let value: Value = serde_json::from_str(&text).map_err(Exit::failed)?;
                if fits(&value) {
                    return Ok((text.to_string(), value));
                }
            }
            Err(Exit::failed("the proxy closed the socket"))
        };
        tokio::time::timeout(PATIENCE, heard).await.map_err(|_| Exit::failed("an expected answer did not come"))?
    }

    pub(super) async fn leave(mut self) {
        // The proxy answers the close and ends its own socket to the exchange; nothing is left to be done here.
        let _ = self.socket.close(None).await;
    }
}
