//! One WebSocket of a simulated exchange: reads, lets the conversation answer, writes, and misbehaves on demand.
//!
//! Knows no exchange's language; that is the [`Conversation`]'s. Reading and writing go on side by side, so that a
//! peer that does not read can still be heard.

use super::faults::{Faults, SocketAction, Switches};
use super::frame::{self, FrameReader, Incoming, Opcode};
use super::record::{Kind, Record};
use super::server::{Counted, ResetHandle};
use bytes::Bytes;
use std::io;
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// Messages that may wait for a peer that does not read. One more, and the connection is dropped.
const OUTBOX_MESSAGES_MAX: usize = 8192;
/// A flood leaves this many of them waiting at most, so that answers still have room.
const FLOOD_MESSAGES_MAX: usize = 256;
/// How long a peer may take for its half of a close.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// A flood comes in portions, this far apart.
const FLOOD_INTERVAL: Duration = Duration::from_millis(10);

/// One peer's conversation with the exchange. Its answers go into the [`Outbox`] that it was opened with.
pub(super) trait Conversation: Send {
    /// The socket is open: time for a greeting.
    fn opened(&mut self);
    /// A text message came in.
    fn text(&mut self, text: &str);
    /// The socket has been silent for the heartbeat's interval.
    fn beat(&mut self);
    /// Whether a flood may fill this socket.
    fn is_subscribed(&self) -> bool;
    /// Whether the socket may be silent for longer than the idle limit. What is subscribed may, at most venues.
    fn may_idle(&self) -> bool {
        self.is_subscribed()
    }
    /// Whether what came in starts the idle limit anew.
    fn is_traffic(&self, _incoming: &Incoming) -> bool {
        true
    }
    /// A message of about this many bytes, as a channel would send it.
    fn filler(&self, bytes: usize) -> String;
    /// An error in the venue's shape that quotes what came in.
    fn echo(&self, text: &str) -> String;
    /// The socket is over, for whatever reason.
    fn closed(&mut self);
}

/// What waits to be written to one peer. Clones write to the same.
#[derive(Debug, Clone)]
pub(super) struct Outbox {
    waiting: mpsc::Sender<Outgoing>,
    overrun: CancellationToken,
}

#[derive(Debug)]
enum Outgoing {
    Text(String),
    Raw(Bytes),
    Control(Opcode, Bytes),
    Close(u16, String),
}

impl Outbox {
    /// An outbox, and what the writer takes from it.
    pub(super) fn new() -> (Self, OutboxEnd) {
        let (sender, waiting) = mpsc::channel(OUTBOX_MESSAGES_MAX);
        let overrun = CancellationToken::new();
        (Self { waiting: sender, overrun: overrun.clone() }, OutboxEnd { waiting, overrun })
    }

    /// Sends a text message.
    pub(super) fn text(&self, text: impl Into<String>) {
        self.push(Outgoing::Text(text.into()));
    }

    /// Sends a JSON message.
    pub(super) fn json(&self, value: &serde_json::Value) {
        self.text(value.to_string());
    }

    /// Closes the socket.
    pub(super) fn close(&self, code: u16, reason: &str) {
        self.push(Outgoing::Close(code, reason.to_owned()));
    }

    fn push(&self, outgoing: Outgoing) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.waiting.try_send(outgoing) {
            self.overrun.cancel();
        }
    }

    fn has_room_for_flood(&self) -> bool {
        self.waiting.capacity() > OUTBOX_MESSAGES_MAX - FLOOD_MESSAGES_MAX
    }
}

/// The writer's end of an [`Outbox`].
#[derive(Debug)]
pub(super) struct OutboxEnd {
    waiting: mpsc::Receiver<Outgoing>,
    overrun: CancellationToken,
}

/// What a socket's life depends on.
pub(super) struct Surroundings {
    pub(super) connection: u64,
    pub(super) record: Record,
    pub(super) faults: Faults,
    pub(super) idle_close: Duration,
    pub(super) heartbeat: Duration,
    pub(super) stop: CancellationToken,
}

/// Why reading ended.
enum End {
    /// The peer is gone, or broke the protocol.
    Gone,
    /// A close frame has been queued: let it out.
    Closing,
    /// At once, with a reset.
    Reset,
}

/// Runs a socket to its end.
pub(super) async fn converse(
    stream: Counted,
    read_ahead: Bytes,
    mut conversation: Box<dyn Conversation>,
    outbox: Outbox,
    outbox_end: OutboxEnd,
    around: Surroundings,
) {
    let _open = around.record.socket_opened();
    let reset = ResetHandle::of(stream.tcp());
    let (reading, writing) = tokio::io::split(stream);
    let mut reader = FrameReader::new(reading, &read_ahead);
    // Before the greeting: who has seen that may act on this socket, and must not act in vain.
    let actions = around.faults.actions();
    conversation.opened();

    let overrun = outbox_end.overrun.clone();
    let (end, writing) = {
        let mut writer = pin!(write(writing, outbox_end.waiting, &around));
        let mut reading = pin!(read(&mut reader, &mut *conversation, &outbox, actions, &around));
        tokio::select! {
            written = &mut writer => (End::Gone, Some(written)),
            () = overrun.cancelled() => {
                around.record.verdict(around.connection, "slow reader: dropped");
                (End::Gone, None)
            }
            end = &mut reading => match end {
                End::Closing => (End::Closing, tokio::time::timeout(CLOSE_LIMIT, writer).await.ok()),
                End::Gone | End::Reset => (end, None),
            },
        }
    };
    conversation.closed();
    if let (End::Reset, Some(reset)) = (&end, reset) {
        reset.danger_reset();
    } else if let Some(Ok(mut writing)) = writing {
        // Our close is out. The peer's may still come; what does after that is its loss.
        let _ = tokio::time::timeout(CLOSE_LIMIT, last_words(&mut reader, &around)).await;
        let _ = tokio::time::timeout(CLOSE_LIMIT, writing.shutdown()).await;
    }
}

async fn last_words(reader: &mut FrameReader<ReadHalf<Counted>>, around: &Surroundings) {
    while let Ok(Some(incoming)) = reader.next().await {
        let is_close = matches!(incoming, Incoming::Close(..));
        write_down(&incoming, around);
        if is_close {
            return;
        }
    }
}

async fn read(
    reader: &mut FrameReader<ReadHalf<Counted>>,
    conversation: &mut dyn Conversation,
    outbox: &Outbox,
    mut actions: broadcast::Receiver<SocketAction>,
    around: &Surroundings,
) -> End {
    let mut switches: watch::Receiver<Switches> = around.faults.watch();
    let mut idle_since = Instant::now();
    let mut heartbeat = interval(around.heartbeat);
    let mut flood = interval(FLOOD_INTERVAL);
    let mut owed = 0.0;
    loop {
        let (is_stalled, flooding) = {
            let now = switches.borrow_and_update();
            (now.stall, now.flood.filter(|_| conversation.is_subscribed()))
        };
        tokio::select! {
            biased;
            () = around.stop.cancelled() => {
                outbox.close(1001, "stopped");
                return End::Closing;
            }
            action = actions.recv() => match action {
                Ok(action) => if let Some(end) = act(action, outbox) { return end },
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return End::Gone,
            },
            // The next turn looks at them.
            changed = switches.changed() => if changed.is_err() { return End::Gone },
            incoming = reader.next(), if !is_stalled => {
                match incoming {
                    Ok(Some(incoming)) => {
                        if conversation.is_traffic(&incoming) {
                            idle_since = Instant::now();
                        }
                        if let Some(end) = take(incoming, conversation, outbox, around) {
                            return end;
                        }
                    }
                    Ok(None) => return End::Gone,
                    Err(error) => {
                        around.record.verdict(around.connection, format!("frame: {error}"));
                        outbox.close(1002, "");
                        return End::Closing;
                    }
                }
            }
            () = tokio::time::sleep_until(idle_since + around.idle_close), if !is_stalled && !conversation.may_idle() => {
                around.record.note(around.connection, "idle: closed");
                outbox.close(1000, "");
                return End::Closing;
            }
            _ = heartbeat.tick() => conversation.beat(),
            _ = flood.tick(), if flooding.is_some() => if let Some(flood) = flooding {
                owed += f64::from(flood.per_second) * FLOOD_INTERVAL.as_secs_f64();
                while owed >= 1.0 {
                    owed -= 1.0;
                    if outbox.has_room_for_flood() {
                        outbox.text(conversation.filler(flood.bytes));
                    }
                }
            },
        }
    }
}

/// Takes one message; says so if it ended the socket.
fn take(
    incoming: Incoming,
    conversation: &mut dyn Conversation,
    outbox: &Outbox,
    around: &Surroundings,
) -> Option<End> {
    write_down(&incoming, around);
    match incoming {
        Incoming::Text(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            if around.faults.switches().echo {
                outbox.text(conversation.echo(&text));
                outbox.text(conversation.echo(&text).replace('/', "\\/"));
            } else {
                conversation.text(&text);
            }
        }
        Incoming::Binary(_) => around.record.verdict(around.connection, "frame: binary, which no client sends"),
        Incoming::Ping(bytes) => outbox.push(Outgoing::Control(Opcode::Pong, bytes)),
        Incoming::Pong(_) => {}
        Incoming::Close(code, _) => {
            outbox.close(if code == 1005 { 1000 } else { code }, "");
            return Some(End::Closing);
        }
    }
    None
}

fn write_down(incoming: &Incoming, around: &Surroundings) {
    let (kind, bytes) = match incoming {
        Incoming::Text(bytes) | Incoming::Binary(bytes) => (Kind::Frame, bytes),
        Incoming::Ping(bytes) => (Kind::Ping, bytes),
        Incoming::Pong(bytes) => (Kind::Pong, bytes),
        Incoming::Close(code, reason) => (Kind::Close { code: *code }, reason),
    };
    around.record.received(around.connection, kind, bytes.clone());
}

fn act(action: SocketAction, outbox: &Outbox) -> Option<End> {
    match action {
        SocketAction::Reset => return Some(End::Reset),
        SocketAction::HangUp => return Some(End::Gone),
        SocketAction::Close { code, reason } => {
            outbox.close(code, &reason);
            return Some(End::Closing);
        }
        SocketAction::Text(text) => outbox.text(text),
        SocketAction::Oversize(bytes) => outbox.text("x".repeat(bytes)),
        SocketAction::InvalidUtf8 => outbox.push(Outgoing::Raw(frame::write(Opcode::Text, b"\"\xc3\x28\""))),
        SocketAction::Masked => outbox.push(Outgoing::Raw(frame::write_masked(b"{}"))),
        SocketAction::ReservedBit => outbox.push(Outgoing::Raw(frame::write_reserved_bit(b"{}"))),
        SocketAction::Raw(bytes) => outbox.push(Outgoing::Raw(bytes)),
        SocketAction::Ping(payload) => outbox.push(Outgoing::Control(Opcode::Ping, payload)),
    }
    None
}

/// Writes until a close frame is out, and gives the stream back.
async fn write(
    mut stream: WriteHalf<Counted>,
    mut waiting: mpsc::Receiver<Outgoing>,
    around: &Surroundings,
) -> io::Result<WriteHalf<Counted>> {
    while let Some(outgoing) = waiting.recv().await {
        let (kind, noted, bytes) = match outgoing {
            Outgoing::Text(text) => {
                let bytes = frame::write(Opcode::Text, text.as_bytes());
                (Kind::Frame, Bytes::from(text), bytes)
            }
            Outgoing::Raw(bytes) => (Kind::Frame, bytes.clone(), bytes),
            Outgoing::Control(opcode, payload) => {
                let kind = if opcode == Opcode::Ping { Kind::Ping } else { Kind::Pong };
                let bytes = frame::write(opcode, &payload);
                (kind, payload, bytes)
            }
            Outgoing::Close(code, reason) => {
                around.record.sent(around.connection, Kind::Close { code }, Bytes::from(reason.clone()));
                put(&mut stream, &frame::write_close(code, &reason)).await?;
                return Ok(stream);
            }
        };
        around.record.sent(around.connection, kind, noted);
        put(&mut stream, &bytes).await?;
    }
    Ok(stream)
}

async fn put(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

fn interval(period: Duration) -> tokio::time::Interval {
    // An interval of zero would panic.
    let period = period.max(Duration::from_millis(1));
    let mut interval = tokio::time::interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
