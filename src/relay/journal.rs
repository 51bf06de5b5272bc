//! What a session leaves in the log: that it opened, what it refused, and one line when it closed.

use crate::fault;
use crate::names::AccountName;
use crate::policy::Permit;
use crate::scope::Right;
use crate::session::{End, Refused, Session};
use std::net::SocketAddr;
use std::time::Instant;
use tracing::{info, warn};

/// Refusals that a session writes to the log; its last line tells how many there were. A client in a loop must not
/// fill the disk.
const REFUSALS_LOGGED_MAX: u64 = 20;

/// The counts of one session.
pub(super) struct Journal {
    peer: SocketAddr,
    started: Instant,
    messages_in: u64,
    bytes_in: u64,
    messages_out: u64,
    bytes_out: u64,
    refused: u64,
}

impl Journal {
    pub(super) fn new(peer: SocketAddr) -> Self {
        Self { peer, started: Instant::now(), messages_in: 0, bytes_in: 0, messages_out: 0, bytes_out: 0, refused: 0 }
    }

    /// Where the client comes from.
    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The client sent a message of so many bytes.
    pub(super) fn client_sent(&mut self, bytes: usize) {
        self.messages_in += 1;
        self.bytes_in += bytes as u64;
    }

    /// The client was sent so many messages, of so many bytes together.
    pub(super) fn client_was_sent(&mut self, messages: u64, bytes: usize) {
        self.messages_out += messages;
        self.bytes_out += bytes as u64;
    }

    /// A message of the client was not sent on.
    pub(super) fn refused(&mut self, session: &Session, refused: Refused) {
        self.refused += 1;
        if self.refused <= REFUSALS_LOGGED_MAX {
            warn!(
                session = %session.id(),
                client = session.permit().map(|permit| permit.client().as_str()),
                reason = refused.slug,
                operation = refused.operation,
                lacking = refused.lacking.map(Right::word),
                "message refused"
            );
        }
    }

    /// The client may talk.
    pub(super) fn opened(&self, session: &Session) {
        let permit = session.permit();
        info!(
            session = %session.id(),
            peer = %self.peer,
            client = permit.map(|permit| permit.client().as_str()),
            proof = permit.map(|permit| permit.method().word()),
            account = permit.and_then(Permit::account).map(AccountName::as_str),
            route = ?session.route(),
            scope = permit.map(|permit| permit.scope().to_string()),
            "session opened"
        );
    }

    /// A client that was nobody has proved who it is.
    pub(super) fn risen(&self, session: &Session) {
        let permit = session.permit();
        info!(
            session = %session.id(),
            client = permit.map(|permit| permit.client().as_str()),
            proof = permit.map(|permit| permit.method().word()),
            account = permit.and_then(Permit::account).map(AccountName::as_str),
            scope = permit.map(|permit| permit.scope().to_string()),
            "session risen"
        );
    }

    /// The session is over; `code` is what its client was told, if it was.
    pub(super) fn closed(&self, session: &Session, end: End, code: Option<u16>) {
        let permit = session.permit();
        let peer_code = match end {
            End::UpstreamClosed(code) | End::ClientClosed(code) => Some(code),
            _ => None,
        };
        info!(
            session = %session.id(),
            peer = %self.peer,
            client = permit.map(|permit| permit.client().as_str()),
            account = permit.and_then(Permit::account).map(AccountName::as_str),
            route = ?session.route(),
            duration_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            messages_in = self.messages_in,
            bytes_in = self.bytes_in,
            messages_out = self.messages_out,
            bytes_out = self.bytes_out,
            refused = self.refused,
            unanswered = session.unanswered(),
            blame = end.blame().word(),
            code,
            peer_code,
            reason = fault::slug(end),
            "session closed"
        );
    }
}
