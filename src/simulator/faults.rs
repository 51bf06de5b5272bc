//! What a simulated exchange does wrong, on demand and while it runs.
//!
//! Switches stay until they are set back; a [`SocketAction`] happens once, to every open socket. Faults that need
//! the exchange's books ("all tokens are invalid now") are methods of the exchange.

use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, watch};

/// Actions that may wait for a socket that is busy; more are lost for it.
const ACTIONS_WAITING_MAX: usize = 64;

/// The faults of one simulator. Clones share them.
#[derive(Debug, Clone)]
pub struct Faults(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    switches: watch::Sender<Switches>,
    actions: broadcast::Sender<SocketAction>,
}

/// What stays wrong until it is set back. The default is an exchange in order.
#[derive(Debug, Clone, Default)]
pub struct Switches {
    /// How obtaining a token fails.
    pub mint: MintFault,
    /// How long obtaining a token takes.
    pub mint_delay: Duration,
    /// A REST request arrives up to this much later, each by a different time: a network that changes the order.
    pub arrival_delay_max: Duration,
    /// How long every other REST answer takes, after the request was executed.
    pub answer_delay: Duration,
    /// Answers every REST request with this status and HTML, unread.
    pub rest_status: Option<u16>,
    /// Executes REST requests, then closes the connection without an answer.
    pub hang_up: bool,
    /// Refuses every upgrade with this status.
    pub handshake_status: Option<u16>,
    /// Refuses every login and every token as if the key had been revoked.
    pub refuse_auth: bool,
    /// Answers every private request with the venue's rate limit error (ProjectX: with `Retry-After`).
    pub rate_limited: bool,
    /// Answers every message that came in with an error that holds it, token included, raw and `\/`-escaped.
    pub echo: bool,
    /// Puts `subscription.token` into Kraken's v1 `subscriptionStatus`, as its reference documents.
    pub echo_token: bool,
    /// Holds ProjectX's users to their rates; off, so that load tests measure something else.
    pub keeps_rates: bool,
    /// Ends the old token when ProjectX's `validate` makes a new one.
    pub revoke_validated: bool,
    /// Ends ProjectX's hub connections together with the token that they were opened with. The framework's default is to
    /// leave them.
    pub hubs_end_with_token: bool,
    /// Tells ProjectX's user events as documented, without the `action` that wraps them in practice.
    pub unwrapped_events: bool,
    /// Puts a first event into the message that answers ProjectX's hub handshake.
    pub coalesced_handshake: bool,
    /// Refuses a hub handshake whose version is not 1, as older servers do. Newer ones take any up to 2.
    pub strict_handshake: bool,
    /// Stops reading from sockets.
    pub stall: bool,
    /// Fills every subscribed socket.
    pub flood: Option<Flood>,
}

/// Messages that fill a subscribed socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flood {
    /// How many each second.
    pub per_second: u32,
    /// How long each is.
    pub bytes: usize,
}

/// How obtaining a token fails (Kraken's `GetWebSocketsToken`, Bitfinex's `auth/w/token`, ProjectX's login).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum MintFault {
    /// It does not.
    #[default]
    None,
    /// HTTP 503.
    Unavailable,
    /// HTTP 200 with this error in the venue's shape.
    Error(String),
    /// HTTP 200 with an empty token.
    EmptyToken,
    /// HTTP 200 with a web page.
    Html,
}

/// What is done to every open connection, once.
#[derive(Debug, Clone)]
pub enum SocketAction {
    /// Ends TCP with a reset. HTTP connections too.
    Reset,
    /// Ends TCP without a close frame.
    HangUp,
    /// Sends a close frame and ends.
    Close {
        /// The close code.
        code: u16,
        /// The close reason.
        reason: String,
    },
    /// Sends this text message.
    Text(String),
    /// Sends a text message of this many bytes.
    Oversize(usize),
    /// Sends a text message that is not UTF-8.
    InvalidUtf8,
    /// Sends a masked frame, which a server must not.
    Masked,
    /// Sends a frame with a reserved bit set.
    ReservedBit,
    /// Sends these bytes as they are, in between two frames.
    Raw(Bytes),
    /// Sends a protocol ping with this payload.
    Ping(Bytes),
}

impl Faults {
    /// An exchange in order.
    pub fn none() -> Self {
        let switches = watch::Sender::new(Switches::default());
        Self(Arc::new(Inner { switches, actions: broadcast::Sender::new(ACTIONS_WAITING_MAX) }))
    }

    /// Turns switches.
    pub fn set(&self, turn: impl FnOnce(&mut Switches)) {
        self.0.switches.send_modify(turn);
    }

    /// Turns every switch back.
    pub fn clear(&self) {
        self.set(|switches| *switches = Switches::default());
    }

    /// How the switches stand.
    pub fn switches(&self) -> Switches {
        self.0.switches.borrow().clone()
    }

    /// Does this to every open connection.
    pub fn act(&self, action: SocketAction) {
        // Nobody connected is nobody to do it to.
        let _ = self.0.actions.send(action);
    }

    /// Ends every TCP connection with a reset.
    pub fn reset_all(&self) {
        self.act(SocketAction::Reset);
    }

    /// Closes every socket.
    pub fn close_all(&self, code: u16, reason: &str) {
        self.act(SocketAction::Close { code, reason: reason.to_owned() });
    }

    pub(super) fn watch(&self) -> watch::Receiver<Switches> {
        self.0.switches.subscribe()
    }

    pub(super) fn actions(&self) -> broadcast::Receiver<SocketAction> {
        self.0.actions.subscribe()
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::none()
    }
}
