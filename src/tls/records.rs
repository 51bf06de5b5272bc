//! TLS as a machine over bytes: records in, plaintext out; plaintext in, records out. No socket and no buffer of its own.
//!
//! rustls keeps the keys and decides everything. This drives its unbuffered side: what arrives is decrypted where it
//! lies, what leaves is encrypted where it will be sent from.

use crate::buffer::Buffer;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedConnectionCommon,
    UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, Error};
use std::ops::Deref;

/// The most plaintext that one record holds (RFC 8446, section 5.1).
pub(super) const RECORD_PLAINTEXT_MAX: usize = 16 * 1024;
/// What a record adds to its plaintext, at most and with the ciphers that rustls speaks: header 5, TLS 1.2's explicit
/// nonce 8, authentication tag 16.
const RECORD_OVERHEAD: usize = 32;
/// Room for an alert, and for most of what a handshake says at once; rustls asks for more where it needs more.
const ENCODED_BYTES: usize = 4 * 1024;

/// One connection, whichever side of it we are.
pub(super) enum Connection {
    /// We called.
    Client(UnbufferedClientConnection),
    /// We were called.
    Server(UnbufferedServerConnection),
}

/// What came of a look at received bytes.
#[must_use]
pub(super) struct Pass {
    /// So many bytes at the front are done with. The others were changed in place: they come first at the next pass.
    pub(super) consumed: usize,
    /// What there is to know beside the plaintext.
    pub(super) outcome: Result<Outcome, Error>,
}

/// How a pass ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Everything whole was read. What was to be written, is.
    Done,
    /// As before, and the peer said that it will send no more.
    PeerClosed,
    /// What was to be written was not: there are no keys for it yet, or both sides have closed.
    Unwritten,
}

/// What to write once everything received was looked at.
#[derive(Clone, Copy)]
pub(super) enum Write<'a> {
    /// Nothing but what TLS itself has to say.
    Nothing,
    /// These bytes.
    Plaintext(&'a [u8]),
    /// That we will send no more (`close_notify`).
    Goodbye,
}

impl Connection {
    /// Reads every whole record in `received`, gives its plaintext to `take`, and puts behind `sealed` whatever has to
    /// be sent, `write` last.
    ///
    /// After an error that is the peer's fault `sealed` holds the alert that says so, and the connection must not be
    /// given further bytes.
    pub(super) fn pass(
        &mut self,
        received: &mut [u8],
        sealed: &mut Buffer,
        take: &mut dyn FnMut(&[u8]),
        write: Write<'_>,
    ) -> Pass {
        match self {
            Self::Client(connection) => pass(&mut **connection, received, sealed, take, write),
            Self::Server(connection) => pass(&mut **connection, received, sealed, take, write),
        }
    }

    /// What both sides know: certificates, versions, how far the handshake is.
    pub(super) fn facts(&self) -> &CommonState {
        match self {
            Self::Client(connection) => connection,
            Self::Server(connection) => connection,
        }
    }
}

/// The one method that rustls has on each side apart.
trait Side: Deref<Target = CommonState> {
    type Data;

    fn process<'c, 'i>(&'c mut self, received: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Side for UnbufferedConnectionCommon<ClientConnectionData> {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, received: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(received)
    }
}

impl Side for UnbufferedConnectionCommon<ServerConnectionData> {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, received: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(received)
    }
}

fn pass<S: Side>(
    connection: &mut S,
    received: &mut [u8],
    sealed: &mut Buffer,
    take: &mut dyn FnMut(&[u8]),
    write: Write<'_>,
) -> Pass {
    let mut consumed = 0;
    let mut has_peer_closed = false;
    let outcome = loop {
        // Also where nothing was received: rustls counts from the front of what it has not done with, and would miss
        // the beginning of a message that came in part.
        let UnbufferedStatus { discard, state } = connection.process(&mut received[consumed..]);
        let mut outcome = None;
        match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    match record {
                        Ok(record) => {
                            take(record.payload);
                            consumed += record.discard;
                        }
                        Err(error) => outcome = Some(Err(error)),
                    }
                }
            }
            Ok(ConnectionState::EncodeTlsData(data)) => encode(data, sealed),
            // It leaves with what else is sealed, in order: that is all that rustls asks.
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed) => has_peer_closed = true,
            Ok(ConnectionState::WriteTraffic(traffic)) => {
                outcome = Some(finish(traffic, sealed, write).map(|()| Outcome::Done));
            }
            Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => {
                let is_unwritten = !matches!(write, Write::Nothing);
                outcome = Some(Ok(if is_unwritten { Outcome::Unwritten } else { Outcome::Done }));
            }
            // Early data is off on both sides.
            Ok(_) => outcome = Some(Err(Error::General("a TLS state that was not asked for".to_owned()))),
            Err(error) => outcome = Some(Err(error)),
        }
        consumed += discard;
        if let Some(outcome) = outcome {
            break outcome;
        }
    };
    if outcome.is_err() {
        seal_alert(connection, sealed);
    }
    let outcome = match outcome {
        Ok(Outcome::Done) if has_peer_closed => Ok(Outcome::PeerClosed),
        outcome => outcome,
    };
    Pass { consumed, outcome }
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, sealed: &mut Buffer) {
    let mut room = ENCODED_BYTES;
    loop {
        match data.encode(sealed.space(room)) {
            Ok(count) => return sealed.fill(count),
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => room = required_size,
            Err(EncodeError::AlreadyEncoded) => return,
        }
    }
}

fn finish<D>(mut traffic: WriteTraffic<'_, D>, sealed: &mut Buffer, write: Write<'_>) -> Result<(), Error> {
    let mut room = match write {
        Write::Nothing | Write::Plaintext([]) => return Ok(()),
        Write::Plaintext(plaintext) => {
            plaintext.len() + plaintext.len().div_ceil(RECORD_PLAINTEXT_MAX) * RECORD_OVERHEAD
        }
        Write::Goodbye => ENCODED_BYTES,
    };
    loop {
        let space = sealed.space(room);
        let written = match write {
            Write::Nothing => Ok(0),
            Write::Plaintext(plaintext) => traffic.encrypt(plaintext, space),
            Write::Goodbye => traffic.queue_close_notify(space),
        };
        match written {
            Ok(count) => {
                sealed.fill(count);
                return Ok(());
            }
            // A key update or smaller records than the usual take more.
            Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => room = required_size,
            Err(EncryptError::EncryptExhausted) => return Err(Error::EncryptError),
        }
    }
}

/// Puts out what rustls wants the peer to hear of an error.
fn seal_alert<S: Side>(connection: &mut S, sealed: &mut Buffer) {
    // What waits is given before any byte is looked at, so that none is looked at again.
    while connection.wants_write() {
        let UnbufferedStatus { discard: _, state } = connection.process(&mut []);
        let Ok(ConnectionState::EncodeTlsData(data)) = state else { return };
        encode(data, sealed);
    }
}
