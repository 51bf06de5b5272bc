//! What is true of an exchange, whoever talks to it: one [`Venue`] each, its REST API ([`rest`]), and one [`Dialect`]
//! per conversation.
//!
//! Everything here is pure: messages and time in, [`Step`]s out; no socket, clock, task or file. That is what
//! makes a venue testable by a transcript and readable beside the exchange's documentation.
//!
//! A new exchange is one module, one transcript fixture under `tests/transcripts`, and one row in `venues!` below.

use crate::credential::{KeyShape, SecretFormat, Signer};
use crate::fresh::{Fresh, Nonce, NonceUnit, TokenId, UnixMillis};
use crate::message::Message;
use crate::scope::{Acts, Right, Scope};
use crate::secret::Secret;
use bytes::Bytes;
use memchr::memmem::Finder;
use rest::Subjects;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

pub mod bitfinex;
pub mod kraken;
pub mod plain;
pub mod projectx;
pub mod rest;
pub mod wire;

/// The table of venues: registration and documentation in one. The README's table is held to it by a test.
macro_rules! venues {
    ($($venue:path, $says:literal;)*) => {
        /// Every venue that this build knows, with what it speaks.
        pub static VENUES: &[(&dyn Venue, &str)] = &[$((&$venue, $says)),*];
    };
}

venues! {
    kraken::Kraken, "Kraken Spot: REST, WebSocket v2 and v1, public and private";
    bitfinex::Bitfinex, "Bitfinex: REST v2 and WebSocket v2, public and private";
    projectx::ProjectX, "ProjectX (TopstepX): REST, and the SignalR hubs of user and market";
    plain::Plain, "any WebSocket server of your own, with an optional bearer token";
}

/// The venue of that name.
pub fn by_name(name: &str) -> Option<&'static dyn Venue> {
    VENUES.iter().map(|(venue, _)| *venue).find(|venue| venue.name() == name)
}

/// An exchange: its doors, its way to sign, its languages.
pub trait Venue: Sync {
    /// The word in `proxy.toml`, in paths and in logs.
    fn name(&self) -> &'static str;

    /// Its doors. Names and paths are unique within a venue.
    fn endpoints(&self) -> &'static [Endpoint];

    /// How it hands out API secrets. `None`: this venue knows no keys.
    fn secret_format(&self) -> Option<SecretFormat>;

    /// What the key pairs that we issue to its bots look like. `None`: bots of this venue do not sign.
    fn local_key_shape(&self) -> Option<KeyShape> {
        None
    }

    /// What its nonces may be. `None`: its requests carry none, and its accounts have no lane.
    fn nonces(&self) -> Option<NonceRules>;

    /// Its REST API, for venues that have one.
    fn rest(&self) -> Option<&dyn rest::Rest> {
        None
    }

    /// The request that buys a socket token, for venues that sell one.
    fn minting(&self) -> Option<&dyn Minting> {
        None
    }

    /// How its bearer token is carried, for venues whose whole protocol hangs on one.
    fn bearer(&self) -> Option<&dyn Bearer> {
        None
    }

    /// True if one set of keys leads to several trading accounts, each with a number of its own: a grant may be narrowed
    /// to some of them.
    fn has_sub_accounts(&self) -> bool {
        false
    }

    /// What the upgrade request to the exchange carries beside the WebSocket headers: name and value.
    fn dial_headers(&self, _signer: Option<&Signer>) -> Vec<(&'static str, Secret)> {
        Vec::new()
    }

    /// What makes this venue's own client libraries come back, where they do not take the usual answers for that.
    fn comeback(&self) -> Comeback {
        Comeback::default()
    }

    /// Begins a conversation at one of the venue's socket endpoints.
    fn dialect(&self, endpoint: &Endpoint) -> Box<dyn Dialect>;
}

/// How a venue's bearer token is carried: in `Authorization`, and in the query of an upgrade. Clients show a
/// placeholder in the same places.
pub trait Bearer: Sync {
    /// The parameter of an upgrade's query that carries the token, to us and to the exchange.
    fn parameter(&self) -> &'static str;

    /// Further parameters that client libraries write there. They go no further.
    fn ignored_parameters(&self) -> &'static [&'static str];

    /// Takes a client's token out of the shape that the venue's tokens have. `None`: it is no placeholder, whoever
    /// made it.
    fn shown(&self, text: &str) -> Option<ClientLogin>;
}

/// What an unmodified bot of a venue is told so that it tries again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Comeback {
    /// The status of an upgrade that cannot be made just now. `None`: the usual one.
    pub status: Option<u16>,
    /// The close code of a session that ends through no fault of its client. `None`: the usual one.
    pub close: Option<u16>,
}

/// One door of a venue.
#[derive(Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The word for it in logs and in the configuration.
    pub name: &'static str,
    /// What it speaks.
    pub kind: EndpointKind,
    /// The exchange's own host name. Empty: the account's configuration names it.
    pub host: &'static str,
    /// The path there. Empty: the account's configuration names it.
    pub path: &'static str,
    /// The path under which plain WebSocket clients find it here. `None`: by name alone.
    pub local_path: Option<&'static str>,
}

/// What an endpoint speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointKind {
    /// Requests and answers over HTTP.
    Rest,
    /// A WebSocket.
    Socket,
}

/// Where a client came in.
#[derive(Clone, Copy)]
pub struct Route {
    /// The exchange that it asked for.
    pub venue: &'static dyn Venue,
    /// The door of that exchange.
    pub endpoint: &'static Endpoint,
    /// How it asked: which decides whether messages of our own may appear on the socket.
    pub manner: Manner,
}

/// How a client named the endpoint that it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// By the venue's real name or its `.localhost` form: an unmodified bot, which must see nothing but the venue.
    Native,
    /// By path: a client that knows us, and is told `connected` once it may talk.
    Path,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.venue.name(), self.endpoint.name)
    }
}

/// What a venue takes as a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NonceRules {
    /// The unit that we count in unless the account says otherwise.
    pub unit: NonceUnit,
    /// The greatest number that the venue takes.
    pub max: u64,
}

/// A venue's own proof of who is calling, as an unmodified bot shows it: made with a local key, or with a token that
/// was bought here. Read by the venue, verified by `identity`.
#[derive(Debug, Clone)]
pub enum ClientLogin {
    /// A signed request, or a signed login event.
    Signed(SignedLogin),
    /// A token, where the venue's protocol has one.
    Token(Secret),
    /// A local key as it is: where a venue's login signs nothing and sends the key itself.
    Key {
        /// What stands in the place of the API key or user name.
        api_key: String,
        /// What stands in the place of the secret.
        secret: Secret,
    },
}

impl ClientLogin {
    /// The token that stands in a message. `None`: it is empty, or no string.
    fn token(value: wire::json::Value<'_>) -> Option<Self> {
        let text = value.text().filter(|text| !text.is_empty())?;
        Some(Self::Token(Secret::from(text.into_owned())))
    }
}

/// A signature that a client made, and what it says to have signed.
#[derive(Clone)]
pub struct SignedLogin {
    /// The API key that the client named.
    pub api_key: String,
    /// The client's own nonce, of whatever unit.
    pub nonce: u64,
    /// How the venue signs.
    pub scheme: SignatureScheme,
    /// The bytes that have to be signed.
    pub message: Vec<u8>,
    /// The signature, decoded.
    pub signature: Vec<u8>,
}

/// How a signature is made of a secret and a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureScheme {
    /// HMAC with SHA-384.
    HmacSha384,
    /// HMAC with SHA-512.
    HmacSha512,
}

impl SignedLogin {
    /// True if the holder of this key made the signature. Compares in constant time.
    pub fn is_by(&self, signer: &Signer) -> bool {
        let made = match self.scheme {
            SignatureScheme::HmacSha384 => Secret::new(signer.hmac_sha384(&[&self.message]).to_vec()),
            SignatureScheme::HmacSha512 => Secret::new(signer.hmac_sha512(&[&self.message]).to_vec()),
        };
        made == Secret::new(self.signature.clone())
    }
}

impl std::fmt::Debug for SignedLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SignedLogin({:?})", self.scheme)
    }
}

/// How a venue sells tokens over REST.
pub trait Minting: Sync {
    /// True if the request for a token carries one of the account's nonces. If not, it does not pass the lane, and a
    /// lane that is frozen does not stop it.
    fn needs_nonce(&self) -> bool {
        true
    }

    /// The request for a token: signed, or with the key itself where the venue signs nothing. The nonce is there if
    /// the request [needs](Self::needs_nonce) one.
    fn request(&self, signer: &Signer, nonce: Option<Nonce>) -> SignedRequest;

    /// Reads the answer to it, which came just now.
    fn read(&self, status: u16, body: &[u8], now: UnixMillis) -> Result<Minted, NotMinted>;
}

/// A request that is ready to be written: nothing in it may change without signing anew.
pub struct SignedRequest {
    /// The host, by the name of the endpoint that it goes to.
    pub endpoint: &'static str,
    /// The method.
    pub method: &'static str,
    /// Path and query, byte for byte as signed.
    pub path: String,
    /// Headers: name and value.
    pub headers: Vec<(&'static str, Secret)>,
    /// The body, byte for byte as signed.
    pub body: Vec<u8>,
}

impl SignedRequest {
    /// The values of its headers, but for the plain ones.
    pub fn secrets(&self, plain: &[&str]) -> Vec<Secret> {
        let hidden = self.headers.iter().filter(|(name, _)| !plain.contains(name));
        hidden.map(|(_, value)| value.clone()).collect()
    }

    /// The request as it is written. Fails where a header or the path holds what HTTP cannot carry.
    pub fn to_http(&self) -> Result<http::Request<Bytes>, http::Error> {
        let mut builder = http::Request::builder().method(self.method).uri(&self.path);
        for (name, value) in &self.headers {
            let mut value = http::HeaderValue::from_bytes(value.expose())?;
            value.set_sensitive(true);
            builder = builder.header(http::HeaderName::from_static(name), value);
        }
        builder.body(Bytes::copy_from_slice(&self.body))
    }
}

/// A token as it was sold.
#[derive(Debug)]
pub struct Minted {
    /// Its text.
    pub secret: Secret,
    /// How long the venue takes it for something new.
    pub lives: Duration,
}

/// Why no token was sold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotMinted {
    /// The nonce was not greater than the last: another program uses the key.
    #[error("the exchange saw a greater nonce before; is another program using this key?")]
    NonceTooSmall,
    /// The key is unknown, revoked, may not do this, or its secret is wrong.
    #[error("the exchange refused the key; check that it is right and has the permission for WebSockets")]
    Credential,
    /// The exchange is busy, down, or limits us.
    #[error("the exchange could not answer just now")]
    Unavailable,
    /// The answer is not what the venue documents.
    #[error("the exchange's answer could not be read")]
    Unreadable,
    /// Those that were sold last were refused as soon as they were used.
    #[error("the exchange refuses the tokens that it has just sold; is its clock, or its status page, in order?")]
    RefusedWhenUsed,
}

/// One conversation in a venue's socket language: a pure state machine between two sockets.
///
/// It judges nothing: it says what a message does ([`Dialect::read`]), and the session decides.
pub trait Dialect: Send {
    /// Tells the dialect what happened around it.
    fn on_event(&mut self, event: Event, out: &mut Steps);

    /// True if a client can prove who it is on this socket, in the venue's own protocol.
    fn takes_login(&self) -> bool {
        false
    }

    /// Says what the exchange says first, to a client for whom no exchange has been called yet.
    fn greet(&self, _now: UnixMillis, _out: &mut Steps) {}

    /// Answers a client's own ping (an [`Reading::operation`] of that name) while no exchange can.
    fn pong(&self, _message: &Message, _reading: &Reading, _now: UnixMillis, _out: &mut Steps) {}

    /// Reads a client's message once: what it does, what of it is to be edited, whom to answer.
    fn read(&self, message: &Message) -> Reading;

    /// Sends on a message that was read and allowed. `scope` narrows what a login may carry.
    fn forward(&mut self, message: Message, reading: &Reading, scope: Scope, now: UnixMillis, out: &mut Steps);

    /// Refuses a message in the venue's own shape, with the request's own ids.
    fn refuse(&self, message: &Message, reading: &Reading, why: Refusal, now: UnixMillis, out: &mut Steps);

    /// Reads a message of the exchange that [`Dialect::watch`] asked for, already scrubbed of secrets.
    fn on_upstream(&mut self, message: Message, out: &mut Steps);

    /// Which messages of the exchange have to be read.
    fn watch(&self) -> Watch<'_>;

    /// When [`Event::Wake`] is due, for dialects that have to say something from time to time.
    fn wakes_at(&self) -> Option<UnixMillis> {
        None
    }

    /// How many orders and cancels were sent on and not yet answered, as far as the dialect can tell.
    fn unanswered(&self) -> usize {
        0
    }
}

/// What happens around a dialect.
pub enum Event {
    /// The exchange's socket is open.
    Opened {
        /// Whether and when to log in.
        login: Login,
        /// What the client may do: a login may carry no more.
        scope: Scope,
        /// Which of the account's own trading accounts the client may see and touch. `None`: all of them.
        sub_accounts: Option<Arc<[u64]>>,
        /// When that was.
        now: UnixMillis,
    },
    /// The moment of [`Dialect::wakes_at`] has come.
    Wake(UnixMillis),
    /// A client for whom the socket was opened without an account has proved who it is, and may use one.
    Risen {
        /// What the client may do from now on.
        scope: Scope,
    },
    /// What a [`Step::NeedNonce`] or [`Step::NeedToken`] asked for.
    Fresh {
        /// Signs the login.
        signer: Arc<Signer>,
        /// The nonce or token.
        fresh: Fresh,
    },
    /// What was asked for is not to be had. A dialect that can go on without it answers [`Step::Ready`].
    NotFresh,
}

/// Whether and when to log in at the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// The client may use no account: public data alone.
    Never,
    /// As soon as the socket is open: the client waits for `connected`.
    AtOnce,
    /// When the client asks for it, by the venue's own login or by a message that needs it.
    OnDemand,
}

/// One thing that a dialect wants done.
#[derive(Debug)]
pub enum Step {
    /// Send this to the exchange.
    ToUpstream(Message),
    /// Send this to the client.
    ToClient(Message),
    /// Lease the next nonce of the account; the client is not read until [`Step::Ready`].
    NeedNonce,
    /// The exchange answered the login: the nonce is no longer in flight.
    LoginSettled(LoginOutcome),
    /// Obtain the account's token, and not the one that was `refused`; the client is not read until
    /// [`Step::Ready`].
    NeedToken {
        /// The token that the exchange no longer takes.
        refused: Option<TokenId>,
    },
    /// Keep this message until [`Step::Ready`], then read it again.
    Hold(Message),
    /// From now on, overwrite this wherever the exchange sends it.
    Guard(Secret),
    /// The client may talk.
    Ready,
    /// The exchange refused our login: this conversation is over.
    LoginRefused,
    /// The exchange says that the token with which this socket was opened has ended. The socket may live on.
    TokenEnded,
    /// The client has not begun with the venue's protocol in time: this conversation is over.
    ClientIdle,
    /// What the exchange sent is not its own protocol, and cannot be made good: this conversation is over.
    ProtocolBroken,
}

/// What an exchange said to a login or to a signed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginOutcome {
    /// Yes.
    Accepted,
    /// It saw a greater nonce before.
    NonceTooSmall,
    /// No: the key, or its signature.
    Refused,
    /// Something else, which says nothing of key or nonce.
    Undecided,
}

/// The steps of one turn, in order. The driver keeps one and drains it, so that a turn allocates nothing.
pub type Steps = Vec<Step>;

/// What one reading of a client's message found.
#[derive(Debug)]
pub struct Reading {
    /// Everything that the message does, or why it cannot be judged.
    pub acts: Result<Acts, Refusal>,
    /// What to change in it before it is sent on.
    pub edit: Edit,
    /// The venue's word for the operation; empty if it has none that we know.
    pub operation: &'static str,
    /// Where the message names its own id, for the answer.
    pub reply_to: Option<Range<usize>>,
    /// The venue's own proof of who is calling, if the message carries one.
    pub shown: Option<ClientLogin>,
    /// The trading accounts that the message names, where one account of ours holds several.
    pub sub_accounts: Vec<u64>,
    /// Which orders it cancels: those that its client has still in the account's queue must not follow it.
    pub cancels: Subjects,
}

impl Reading {
    /// A reading that ends in a refusal.
    pub fn refused(why: Refusal) -> Self {
        Self {
            acts: Err(why),
            edit: Edit::None,
            operation: "",
            reply_to: None,
            shown: None,
            sub_accounts: Vec::new(),
            cancels: Subjects::None,
        }
    }

    /// The message's own id, as it is written there.
    pub fn id<'a>(&self, message: &'a Message) -> Option<&'a str> {
        let span = self.reply_to.clone()?;
        std::str::from_utf8(&message.payload()[span]).ok()
    }
}

/// An edit of a client's message, by byte offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// It leaves as it came.
    None,
    /// The bytes of the range give way to `before`, the venue's token, and `after`.
    Token {
        /// What is replaced; empty where the token is put in.
        range: Range<usize>,
        /// JSON before the token.
        before: &'static str,
        /// JSON behind the token.
        after: &'static str,
    },
    /// A credential of the client's own that has no business at the exchange.
    Remove(Range<usize>),
    /// The message gives way to this one, which was written anew from what was read of it. Empty: nothing is left that
    /// the exchange should get.
    Rebuilt(Message),
    /// The whole message is a login of the client's own: it is answered here.
    Login,
}

impl Edit {
    /// The message with the edit made; every byte outside it as it was. `None`: it cannot be sent, because it
    /// needs a token and there is none, or because nothing of it is for the exchange.
    pub fn apply(&self, message: &Message, token: Option<&Secret>) -> Option<Message> {
        match self {
            Edit::None => Some(message.clone()),
            Edit::Remove(range) => Some(message.spliced(range.clone(), &[])),
            Edit::Token { range, before, after } => {
                Some(message.spliced(range.clone(), &[before.as_bytes(), token?.expose(), after.as_bytes()]))
            }
            Edit::Rebuilt(rebuilt) => Some(rebuilt.clone()).filter(|rebuilt| !rebuilt.is_empty()),
            Edit::Login => None,
        }
    }
}

/// Why a client's message is not sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not JSON, or JSON that two readers may read differently.
    Malformed,
    /// The venue's table does not know the operation, channel or type.
    Unknown,
    /// The client's scope lacks this right.
    NotPermitted(Right),
    /// A credential stands where the venue has none, or it is that of another client or account.
    CredentialField,
    /// The client has not proved who it is, or its proof is not good.
    NotAuthenticated,
    /// The client's own nonce or signature was seen before.
    Replayed,
}

impl Refusal {
    /// The word for it in logs and in the `countersign` member of a refusal.
    pub const fn slug(self) -> &'static str {
        match self {
            Refusal::Malformed => "malformed_message",
            Refusal::Unknown => "method_not_allowed",
            Refusal::NotPermitted(_) => "scope_denied",
            Refusal::CredentialField => "credential_field_not_allowed",
            Refusal::NotAuthenticated => "auth_required",
            Refusal::Replayed => "replayed",
        }
    }
}

/// Which messages of the exchange have to be read, once the client may talk.
pub enum Watch<'a> {
    /// None: they pass as bytes.
    Nothing,
    /// Those that hold one of these.
    Needles(&'a [Finder<'static>]),
    /// All.
    Everything,
}

impl Watch<'_> {
    /// True if a message with these bytes has to be read.
    pub fn wants(&self, payload: &[u8]) -> bool {
        match self {
            Watch::Nothing => false,
            Watch::Needles(needles) => needles.iter().any(|needle| needle.find(payload).is_some()),
            Watch::Everything => true,
        }
    }
}
