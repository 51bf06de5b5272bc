//! One side of a session: a WebSocket with a bounded outbox, read and written without waiting.
//!
//! The relay's seam: everything above sees messages, pings and ends. A leg that moves frames instead of messages
//! can stand in for this one without touching sessions or venues.

use crate::message::{Kind, Message};
use crate::session::End;
use crate::tls::Stream;
use bytes::Bytes;
use futures_util::{Sink as _, Stream as _};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as WsError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message as WsMessage, Utf8Bytes};

/// What a read buffer grows to per socket. 4 KiB holds an order and a dozen updates; a larger message grows its
/// own buffer for as long as it lasts.
const READ_BUFFER: usize = 4 * 1024;
/// Bytes that are gathered before they are written: one TLS record's worth.
const WRITE_BUFFER: usize = 16 * 1024;

/// What a message costs us beside its bytes: an empty one is not free.
const MESSAGE_COST: usize = 64;

/// What a message counts for where memory is bounded, in bytes.
pub(super) fn cost(message_bytes: usize) -> usize {
    message_bytes + MESSAGE_COST
}

/// Who is at the other end of a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// A client: it masks its frames, we do not.
    Client,
    /// An exchange: we mask.
    Exchange,
}

/// What came in on a leg.
#[derive(Debug)]
pub(super) enum Incoming {
    Message(Message),
    /// A ping, whose payload had so many bytes.
    Ping(usize),
    /// A pong, likewise.
    Pong(usize),
    /// The peer closed, with this code (1005: none).
    Closed(u16),
    Broken(Broken),
}

/// How a leg broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// The connection ended without a close frame.
    Lost,
    /// The peer broke RFC 6455.
    Protocol,
    /// Text that is not UTF-8.
    NotUtf8,
    /// A message over the limit.
    TooBig,
}

/// A WebSocket and what waits to be written to it.
pub(super) struct Leg {
    socket: WebSocketStream<Counted>,
    outbox: VecDeque<WsMessage>,
    outbox_bytes: usize,
    is_dirty: bool,
    /// The peer's close has come; the library has queued the answer to it, and takes nothing more.
    is_closed_by_peer: bool,
    /// The peer sent what cannot be read, so nothing behind it can.
    is_unreadable: bool,
    /// Everything that had come was taken, down to the TCP socket.
    is_drained: bool,
}

impl Leg {
    /// A leg over a socket whose upgrade is done; `read_ahead` came with it.
    pub(super) async fn new(stream: Stream, read_ahead: Bytes, peer: Peer, message_bytes_max: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max));
        let role = match peer {
            Peer::Client => Role::Server,
            Peer::Exchange => Role::Client,
        };
        let counted = Counted { stream, bytes_read: read_ahead.len() as u64 };
        let socket = WebSocketStream::from_partially_read(counted, read_ahead.into(), role, Some(config)).await;
        Self {
            socket,
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            is_dirty: false,
            is_closed_by_peer: false,
            is_unreadable: false,
            is_drained: false,
        }
    }

    /// The next thing that the peer sent.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Incoming> {
        // Both legs are asked after every message. WebSocket and TLS clear a buffer each before they find out that
        // nothing came, so the TCP socket is asked first. Its error, if it has one, is theirs to tell.
        if self.is_drained && self.socket.get_ref().stream.tcp().poll_read_ready(cx).is_pending() {
            return Poll::Pending;
        }
        let next = Pin::new(&mut self.socket).poll_next(cx);
        self.is_drained = next.is_pending();
        let incoming = match ready!(next) {
            Some(Ok(WsMessage::Text(text))) => Incoming::Message(Message::from_peer(Kind::Text, text.into())),
            Some(Ok(WsMessage::Binary(bytes))) => Incoming::Message(Message::from_peer(Kind::Binary, bytes)),
            Some(Ok(WsMessage::Ping(payload))) => {
                // The library has queued the pong; it leaves with the next flush.
                self.is_dirty = true;
                Incoming::Ping(payload.len())
            }
            Some(Ok(WsMessage::Pong(payload))) => Incoming::Pong(payload.len()),
            Some(Ok(WsMessage::Close(frame))) => {
                // As with a ping: the answer is queued. Nothing else can be sent any more.
                self.is_dirty = true;
                self.is_closed_by_peer = true;
                self.outbox.clear();
                self.outbox_bytes = 0;
                Incoming::Closed(frame.map_or(1005, |frame| frame.code.into()))
            }
            // Never read from a socket, by the library's documentation.
            Some(Ok(WsMessage::Frame(_))) => Incoming::Broken(Broken::Protocol),
            Some(Err(error)) => Incoming::Broken(broken(&error)),
            None => Incoming::Broken(Broken::Lost),
        };
        self.is_unreadable |= matches!(incoming, Incoming::Broken(_));
        Poll::Ready(incoming)
    }

    /// Puts a message into the outbox. Does not wait: whoever fills it looks at [`Leg::outbox_bytes`] first. A
    /// peer that has closed takes nothing more.
    pub(super) fn push(&mut self, message: Message) {
        if self.is_closed_by_peer {
            return;
        }
        self.outbox_bytes += cost(message.len());
        let kind = message.kind();
        let payload = message.into_payload();
        self.outbox.push_back(match kind {
            Kind::Text => match Utf8Bytes::try_from(payload) {
                Ok(text) => WsMessage::Text(text),
                Err(_) => unreachable!("text is checked where it is read, and edits put in ASCII"),
            },
            Kind::Binary => WsMessage::Binary(payload),
        });
    }

    /// Puts a protocol ping into the outbox.
    pub(super) fn ping(&mut self) {
        if !self.is_closed_by_peer {
            self.outbox.push_back(WsMessage::Ping(Bytes::new()));
        }
    }

    /// Puts a close frame behind everything that waits, or in its place. A peer that has closed gets its answer and
    /// nothing else.
    pub(super) fn close(&mut self, code: u16, reason: String, drop_waiting: bool) {
        if self.is_closed_by_peer {
            return;
        }
        if drop_waiting {
            self.outbox.clear();
            self.outbox_bytes = 0;
        }
        self.outbox
            .push_back(WsMessage::Close(Some(CloseFrame { code: CloseCode::from(code), reason: reason.into() })));
    }

    /// What waits to be written, in bytes, by [`cost`].
    pub(super) fn outbox_bytes(&self) -> usize {
        self.outbox_bytes
    }

    /// All bytes that came in, whole messages or not.
    pub(super) fn bytes_read(&self) -> u64 {
        self.socket.get_ref().bytes_read
    }

    /// Writes as much as the peer takes. Ready once nothing waits any more.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let mut socket = Pin::new(&mut self.socket);
        while !self.outbox.is_empty() {
            ready!(socket.as_mut().poll_ready(cx)).map_err(|error| broken(&error))?;
            let Some(message) = self.outbox.pop_front() else { break };
            if !message.is_ping() && !message.is_close() {
                self.outbox_bytes -= cost(message.len());
            }
            self.is_dirty = true;
            socket.as_mut().start_send(message).map_err(|error| broken(&error))?;
        }
        if self.is_dirty {
            ready!(socket.poll_flush(cx)).map_err(|error| broken(&error))?;
            self.is_dirty = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what waits, waits for the peer's close if it should, and closes the connection so that the peer still
    /// gets all of it. For the farewell, within a limit of the caller's.
    pub(super) async fn finish(&mut self, await_peer: bool) {
        if poll_fn(|cx| self.poll_write(cx)).await.is_err() {
            return;
        }
        while await_peer && !self.is_closed_by_peer && !self.is_unreadable {
            poll_fn(|cx| self.poll_read(cx)).await;
        }
        // An end without TLS's own could be anybody's.
        let stream = &mut self.socket.get_mut().stream;
        if stream.shutdown().await.is_err() {
            return;
        }
        // A socket that is dropped with bytes unread is reset, and a reset overtakes what was written last.
        let mut unread = [0; 512];
        while stream.read(&mut unread).await.is_ok_and(|count| count > 0) {}
    }
}

fn broken(error: &WsError) -> Broken {
    match error {
        WsError::Capacity(CapacityError::MessageTooLong { .. }) => Broken::TooBig,
        WsError::Utf8(_) => Broken::NotUtf8,
        WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Broken::Lost,
        WsError::Protocol(_) | WsError::AttackAttempt => Broken::Protocol,
        _ => Broken::Lost,
    }
}

/// A stream that counts what it reads, so that bytes without messages can be told from silence.
struct Counted {
    stream: Stream,
    bytes_read: u64,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.bytes_read += (buf.filled().len() - before) as u64;
        outcome
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// How a session ends whose client's leg broke.
pub(super) fn client_end(broken: Broken) -> End {
    match broken {
        Broken::Lost => End::ClientLost,
        Broken::Protocol => End::ClientProtocol,
        Broken::NotUtf8 => End::ClientNotUtf8,
        Broken::TooBig => End::ClientMessageTooBig,
    }
}

/// How a session ends whose exchange's leg broke.
pub(super) fn upstream_end(broken: Broken) -> End {
    match broken {
        Broken::Lost => End::UpstreamLost,
        Broken::Protocol => End::UpstreamProtocol,
        Broken::NotUtf8 => End::UpstreamNotUtf8,
        Broken::TooBig => End::UpstreamMessageTooBig,
    }
}
