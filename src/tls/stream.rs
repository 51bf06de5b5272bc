//! One TLS connection over TCP that holds no buffer while no bytes are under way.
//!
//! The records are [`super::records`]'; this reads and writes the socket. Bytes lie in buffers that the thread lends,
//! and a connection at rest keeps none: only the beginning of a record whose end has not come is kept, in its own size.

use super::records::{Connection, Outcome, Pass, RECORD_PLAINTEXT_MAX, Write};
use crate::buffer::Buffer;
use rustls::HandshakeKind;
use rustls::pki_types::CertificateDer;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The least room to read into: a full record with what is around it (RFC 8446, section 5.2).
const READ_BYTES_MIN: usize = RECORD_PLAINTEXT_MAX + 256 + 5;
/// The most that one read takes: four full records. Others have their turn after it, and what is read has to lie
/// somewhere.
const READ_BYTES_MAX: usize = 4 * READ_BYTES_MIN;
/// What may be kept of records and messages whose end has not come: rustls' own limit for one handshake message, and
/// for what a buffered connection keeps.
const KEPT_BYTES_MAX: usize = 0xffff;
/// A writer that goes through [`AsyncWrite`] has to wait while so much is sealed and not taken by the socket.
const SEALED_BYTES_MAX: usize = 64 * 1024;

/// One TLS connection over TCP, whichever side of it we are.
pub struct Stream {
    // In one piece, and elsewhere: whoever holds a stream moves it about.
    parts: Box<Parts>,
}

struct Parts {
    socket: TcpStream,
    connection: Connection,
    server_name: Option<Box<str>>,
    /// The beginning of a record or handshake message whose end has not come.
    kept: Box<[u8]>,
    /// Plaintext that nobody has taken yet.
    received: Buffer,
    /// Records that the socket has not taken yet.
    sealed: Buffer,
    /// Why nothing more will be received.
    ended: Option<End>,
    /// Whether the peer was told that nothing more will be sent.
    has_said_goodbye: bool,
}

/// How receiving came to its end.
enum End {
    /// The peer said that it will send no more.
    Closed,
    /// The connection ended without a word. What came last may be missing.
    Cut,
    /// It broke the protocol, or told us that we did.
    Failed(Box<rustls::Error>),
}

impl End {
    fn answer(&self) -> io::Result<usize> {
        match self {
            Self::Closed => Ok(0),
            Self::Cut => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection ended without the end that TLS has; something between may have cut it",
            )),
            Self::Failed(error) => Err(failure(error)),
        }
    }
}

fn failure(error: &rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.clone())
}

impl Stream {
    /// Shakes hands. Has no limit of its own; dropping the future drops the connection.
    pub(super) async fn open(socket: TcpStream, connection: Connection) -> io::Result<Self> {
        let parts = Parts {
            socket,
            connection,
            server_name: None,
            kept: Box::default(),
            received: Buffer::new(),
            sealed: Buffer::new(),
            ended: None,
            has_said_goodbye: false,
        };
        let mut stream = Self { parts: Box::new(parts) };
        std::future::poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    /// The same, where the client asked for this name.
    pub(super) fn with_server_name(mut self, server_name: Option<Box<str>>) -> Self {
        self.parts.server_name = server_name;
        self
    }

    /// The TCP socket below.
    pub fn tcp(&self) -> &TcpStream {
        &self.parts.socket
    }

    /// The name that the client asked for (SNI), where we are the server.
    pub fn server_name(&self) -> Option<&str> {
        self.parts.server_name.as_deref()
    }

    /// The certificates that the peer proved to hold, its own first.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.parts.connection.facts().peer_certificates().unwrap_or_default()
    }

    /// Whether the handshake was a full one, or resumed an earlier session.
    pub fn handshake_kind(&self) -> Option<HandshakeKind> {
        self.parts.connection.facts().handshake_kind()
    }

    /// Reads the socket once if it has something, and gives the plaintext of every whole record to `take`, in order.
    /// Returns how many bytes that was.
    ///
    /// 0: the peer closed in the TLS way. [`io::ErrorKind::UnexpectedEof`]: the connection ended without that, and what
    /// came last may be missing. [`io::ErrorKind::InvalidData`]: a [`rustls::Error`]; the peer has been told, as far as
    /// the socket took it. Bytes that came before an end or an error are given first.
    ///
    /// Reads again if only records of TLS itself came, such as tickets and key updates.
    pub fn poll_records(&mut self, cx: &mut Context<'_>, take: &mut dyn FnMut(&[u8])) -> Poll<io::Result<usize>> {
        self.poll_plaintext(cx, READ_BYTES_MAX, take)
    }

    /// Encrypts these bytes behind those that wait to be sent. Does not write to the socket.
    ///
    /// [`io::ErrorKind::BrokenPipe`]: this side has been closed. [`io::ErrorKind::InvalidData`]: the connection has
    /// failed, as [`Stream::poll_records`] says.
    pub fn seal(&mut self, plaintext: &[u8]) -> io::Result<()> {
        if let Some(End::Failed(error)) = &self.parts.ended {
            return Err(failure(error));
        }
        if self.parts.has_said_goodbye {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.write(Write::Plaintext(plaintext))
    }

    /// Encrypted bytes that the socket has not taken yet.
    pub fn sealed_bytes(&self) -> usize {
        self.parts.sealed.len()
    }

    /// Writes what is sealed. Ready once nothing waits any more.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.parts.sealed.is_empty() {
            let sent = ready!(Pin::new(&mut self.parts.socket).poll_write(cx, self.parts.sealed.bytes()))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.parts.sealed.consume(sent);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A client has the first word.
        self.write(Write::Nothing)?;
        let mut received = std::mem::take(&mut self.parts.received);
        let done = loop {
            match self.poll_send(cx) {
                Poll::Ready(Ok(())) if self.parts.connection.facts().is_handshaking() => {}
                done => break done,
            }
            // Here, and not in a loop that reads on until there is plaintext: a flight must be answered first.
            match self.poll_pass(cx, usize::MAX, &mut |plaintext| received.push(plaintext)) {
                Poll::Ready(Ok(())) => {}
                done => break done,
            }
            if let Some(end) = &self.parts.ended
                && self.parts.connection.facts().is_handshaking()
            {
                break Poll::Ready(Err(end.answer().err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())));
            }
        };
        self.parts.received = received;
        done
    }

    /// Gives plaintext to `take`: what is left of earlier records, else that of the next.
    fn poll_plaintext(
        &mut self,
        cx: &mut Context<'_>,
        read_bytes_max: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        if !self.parts.received.is_empty() {
            let received = std::mem::take(&mut self.parts.received);
            take(received.bytes());
            return Poll::Ready(Ok(received.len()));
        }
        let mut given = 0;
        while given == 0 {
            if let Some(end) = &self.parts.ended {
                return Poll::Ready(end.answer());
            }
            ready!(self.poll_pass(cx, read_bytes_max, &mut |plaintext| {
                given += plaintext.len();
                take(plaintext);
            }))?;
        }
        Poll::Ready(Ok(given))
    }

    /// Reads the socket once, at most so many bytes, and looks at what there is then. Notes the end where it sees it.
    fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        read_bytes_max: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<()>> {
        let mut incoming = Buffer::new();
        incoming.push(&self.parts.kept);
        let space = incoming.space(READ_BYTES_MIN);
        let count = space.len().min(read_bytes_max);
        let mut unread = ReadBuf::new(&mut space[..count]);
        ready!(Pin::new(&mut self.parts.socket).poll_read(cx, &mut unread))?;
        let read = unread.filled().len();
        if read == 0 {
            self.parts.kept = Box::default();
            self.parts.ended = Some(End::Cut);
            return Poll::Ready(Ok(()));
        }
        incoming.fill(read);

        let sealed_before = self.parts.sealed.len();
        let Pass { consumed, outcome } =
            self.parts.connection.pass(incoming.bytes_mut(), &mut self.parts.sealed, take, Write::Nothing);
        incoming.consume(consumed);
        self.parts.ended = match outcome {
            Ok(_) if incoming.len() > KEPT_BYTES_MAX => {
                Some(End::Failed(Box::new(rustls::InvalidMessage::HandshakePayloadTooLarge.into())))
            }
            Ok(Outcome::Done | Outcome::Unwritten) => None,
            Ok(Outcome::PeerClosed) => Some(End::Closed),
            Err(error) => Some(End::Failed(Box::new(error))),
        };
        self.parts.kept = if self.parts.ended.is_none() { Box::from(incoming.bytes()) } else { Box::default() };
        if self.parts.sealed.len() > sealed_before {
            // An alert, or an answer of TLS itself, which nobody else knows of. What the socket does not take now goes
            // with the next bytes; if it is broken, they will learn.
            let _ = self.poll_send(cx);
        }
        Poll::Ready(Ok(()))
    }

    /// Seals this behind what TLS itself has to say.
    fn write(&mut self, write: Write<'_>) -> io::Result<()> {
        let received = &mut self.parts.received;
        let take = &mut |plaintext: &[u8]| received.push(plaintext);
        let Pass { consumed, outcome } =
            self.parts.connection.pass(&mut self.parts.kept, &mut self.parts.sealed, take, write);
        if consumed > 0 {
            self.parts.kept = Box::from(&self.parts.kept[consumed..]);
        }
        match outcome {
            Ok(Outcome::Done) => Ok(()),
            Ok(Outcome::PeerClosed) => {
                self.parts.ended = Some(End::Closed);
                Ok(())
            }
            Ok(Outcome::Unwritten) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(error) => {
                let failed = failure(&error);
                self.parts.ended = Some(End::Failed(Box::new(error)));
                Err(failed)
            }
        }
    }

    /// True once there is room for more to be sealed; until then it sends.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.parts.sealed.len() >= SEALED_BYTES_MAX {
            let sent = self.poll_send(cx)?;
            if sent.is_pending() && self.parts.sealed.len() >= SEALED_BYTES_MAX {
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Seals these bytes, and sends what the socket takes at once.
    fn seal_and_send(&mut self, cx: &mut Context<'_>, plaintext: &[u8]) -> Poll<io::Result<usize>> {
        self.seal(plaintext)?;
        // What the socket does not take now is for `poll_flush`.
        let _sent = self.poll_send(cx)?;
        Poll::Ready(Ok(plaintext.len()))
    }
}

/// What is inside, for the tests.
#[cfg(test)]
impl Stream {
    pub(super) fn facts(&self) -> &rustls::CommonState {
        self.parts.connection.facts()
    }

    pub(super) fn kept_bytes(&self) -> usize {
        self.parts.kept.len()
    }

    pub(super) fn received_bytes(&self) -> usize {
        self.parts.received.len()
    }

    pub(super) fn sealed(&self) -> &[u8] {
        self.parts.sealed.bytes()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if !stream.parts.received.is_empty() {
            let count = stream.parts.received.len().min(buf.remaining());
            buf.put_slice(&stream.parts.received.bytes()[..count]);
            stream.parts.received.consume(count);
            return Poll::Ready(Ok(()));
        }
        // Not all that the socket has: a reader that is slow must not make us hold more than a record or two for it.
        let read_bytes_max = buf.remaining().max(READ_BYTES_MIN);
        let mut left = Buffer::new();
        let given = stream.poll_plaintext(cx, read_bytes_max, &mut |plaintext| {
            let (now, later) = plaintext.split_at(plaintext.len().min(buf.remaining()));
            buf.put_slice(now);
            left.push(later);
        });
        stream.parts.received = left;
        given.map_ok(|_| ())
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        ready!(stream.poll_room(cx))?;
        stream.seal_and_send(cx, &buf[..buf.len().min(SEALED_BYTES_MAX)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        ready!(stream.poll_room(cx))?;
        // Together, so that a head and a body make one record.
        let mut joined = Buffer::new();
        for slice in bufs {
            joined.push(&slice[..slice.len().min(SEALED_BYTES_MAX - joined.len())]);
        }
        stream.seal_and_send(cx, joined.bytes())
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    /// Says goodbye in TLS, and closes this side of TCP once that is sent.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        if !stream.parts.has_said_goodbye {
            stream.parts.has_said_goodbye = true;
            if !matches!(stream.parts.ended, Some(End::Failed(_))) {
                stream.write(Write::Goodbye)?;
            }
        }
        ready!(stream.poll_send(cx))?;
        match ready!(Pin::new(&mut stream.parts.socket).poll_shutdown(cx)) {
            // The peer was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            closed => Poll::Ready(closed),
        }
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let side = match &self.parts.connection {
            Connection::Client(_) => "client",
            Connection::Server(_) => "server",
        };
        write!(f, "Stream({side}, {} bytes sealed)", self.parts.sealed.len())
    }
}
