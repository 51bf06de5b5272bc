//! A venue's REST API seen from the middle: what a client's request does, who the client says it is, how the request
//! is signed anew.
//!
//! Pure, and one reading for each request: [`Rest::read`] finds everything out, [`Rest::sign`] writes down what was
//! found. Not the judge: whether the acts are allowed is decided where the permit is.

use super::wire::path;
use super::{ClientLogin, Endpoint, LoginOutcome, Refusal, SignedRequest};
use crate::credential::Signer;
use crate::fresh::{Nonce, UnixMillis};
use crate::scope::Acts;
use crate::secret::Secret;
use bytes::Bytes;
use http::{HeaderMap, Method};
use std::ops::Range;

/// A client's request, read whole. Its path is canonical, or the request was refused before it came here.
pub struct RestRequest {
    /// Where it came in.
    pub endpoint: &'static Endpoint,
    /// The method.
    pub method: Method,
    /// The path, from its first slash on, without a percent sign, an empty segment or one of dots.
    pub path: String,
    /// What stands behind `?`, as the client wrote it.
    pub query: Option<String>,
    /// Everything that the client sent as a header: to be read, never to be copied.
    pub headers: HeaderMap,
    /// The body as it came.
    pub body: Bytes,
}

/// What one reading of a request found.
#[derive(Debug)]
pub struct RestReading {
    /// The venue's word for the operation, from its table.
    pub operation: &'static str,
    /// Everything that the request does; never empty.
    pub acts: Acts,
    /// Who answers it, and with which credential it is sent on.
    pub handling: Handling,
    /// The venue's own proof of who is calling, if the request carries one.
    pub shown: Option<ClientLogin>,
    /// The trading accounts that it names, where one account of ours holds several.
    pub sub_accounts: Vec<u64>,
    /// Which orders it is about: a cancel takes back what its client has still in the queue.
    pub subjects: Subjects,
    /// What the exchange gets as the body.
    pub body: Vec<Piece>,
    /// What the exchange is told that the body is. `None`: it gets no body.
    pub content_type: Option<MediaType>,
}

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    /// `application/json`
    Json,
    /// `application/x-www-form-urlencoded`
    Form,
}

impl MediaType {
    /// Its name, as it is written to the exchange.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Form => "application/x-www-form-urlencoded",
        }
    }
}

/// Who answers a request, and with which credential it is sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    /// The exchange, without any credential.
    Public,
    /// The exchange, signed anew with the next nonce of the account.
    Signed,
    /// The exchange, with the account's bearer token.
    Bearer,
    /// We do, and nothing is sent.
    Local(Local),
}

/// What is answered here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local {
    /// It asks for a token, and gets a placeholder: a login, the renewal of one, a token for sockets.
    Token,
    /// It gives its placeholder up.
    Logout,
    /// It asks how to open a socket. Needs no account.
    Negotiate,
}

/// What an answer of our own is made of.
#[derive(Debug, Clone, Copy)]
pub enum Given<'a> {
    /// The placeholder, and the first moment at which it is no longer taken.
    Token {
        /// Its text, as it was issued.
        placeholder: &'a Secret,
        /// When it ends.
        ends_at: UnixMillis,
        /// When it was issued.
        now: UnixMillis,
    },
    /// The placeholder is no longer taken.
    LoggedOut,
    /// A random number by which the socket may be known.
    Negotiated(u128),
}

/// Which orders a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subjects {
    /// None, or none that can be told.
    None,
    /// Every order of the account.
    All,
    /// Those with these ids, as the client wrote them: its own ids and the exchange's alike.
    Named(Vec<Box<str>>),
}

impl Subjects {
    /// True if a cancel of these could mean an order of those.
    pub fn meet(&self, others: &Self) -> bool {
        match (self, others) {
            (Self::All, _) | (_, Self::All) => true,
            (Self::Named(ours), Self::Named(theirs)) => ours.iter().any(|name| theirs.contains(name)),
            (Self::None, _) | (_, Self::None) => false,
        }
    }
}

/// A part of the body that the exchange gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// These bytes of the client's body.
    Kept(Range<usize>),
    /// A text of our own.
    Text(&'static str),
    /// The nonce, in decimal digits.
    Nonce,
}

impl Piece {
    /// The body that these pieces make.
    pub fn render(pieces: &[Self], body: &[u8], nonce: Nonce) -> Vec<u8> {
        let mut rendered = Vec::with_capacity(body.len() + 32);
        for piece in pieces {
            match piece {
                Self::Kept(range) => rendered.extend_from_slice(&body[range.clone()]),
                Self::Text(text) => rendered.extend_from_slice(text.as_bytes()),
                Self::Nonce => rendered.extend_from_slice(nonce.to_string().as_bytes()),
            }
        }
        rendered
    }
}

/// Why a request got no answer of the exchange, or not the whole of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// It was read and refused. Nothing was sent.
    Refused(Refusal),
    /// Too many requests wait, or it waited too long. Nothing was sent.
    Busy,
    /// Its client's own cancel took it back before it was sent.
    Withdrawn,
    /// The exchange, or what a request needs for it, is not to be had. Nothing was sent.
    Unavailable,
    /// It may have arrived. Whether it did has to be asked.
    MaybeSent,
}

impl Unanswered {
    /// The word for it in logs and in the `countersign` member of an answer.
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Refused(why) => why.slug(),
            Self::Busy => "busy",
            Self::Withdrawn => "withdrawn",
            Self::Unavailable => "upstream_unavailable",
            Self::MaybeSent => "maybe-sent",
        }
    }
}

/// An answer of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestAnswer {
    /// The status.
    pub status: u16,
    /// The body: JSON in the venue's own shape.
    pub body: String,
}

/// A venue's REST API.
pub trait Rest: Sync {
    /// Reads a request once.
    fn read(&self, request: &RestRequest) -> Result<RestReading, Refusal>;

    /// True if a request to this path with these headers may carry the venue's own proof of who is calling. A request
    /// that does not, and that nothing else proves, is not worth reading.
    ///
    /// A placeholder for a [bearer token](super::Bearer) is looked for elsewhere. What needs no proof counts as well.
    fn may_prove(&self, path: &str, headers: &HeaderMap) -> bool;

    /// Signs a request anew. Nothing that authenticates its client is left in it.
    fn sign(&self, request: &RestRequest, reading: &RestReading, signer: &Signer, nonce: Nonce) -> SignedRequest;

    /// The headers of a signed request that say nothing of its credential. The value of every other one is a secret,
    /// and overwritten where the exchange repeats it.
    fn plain_headers(&self) -> &'static [&'static str] {
        &["content-type", "user-agent"]
    }

    /// Sends a public request on as it came: method, path, query and body.
    fn pass(&self, request: &RestRequest) -> SignedRequest {
        SignedRequest {
            endpoint: request.endpoint.name,
            method: if request.method == Method::POST { "POST" } else { "GET" },
            path: request.path_and_query(),
            headers: request.media_type().ok().flatten().map(content_type).into_iter().chain([user_agent()]).collect(),
            body: request.body.to_vec(),
        }
    }

    /// What the exchange said to the signature, from the status and the first bytes of its answer.
    fn outcome(&self, status: u16, body_start: &[u8]) -> LoginOutcome;

    /// An answer that the venue's client libraries understand, where the exchange gave none to this request.
    fn refuse(&self, request: Option<&RestRequest>, why: Unanswered) -> RestAnswer;

    /// Sends a request on with the account's bearer token, and nothing of the client's. Only for venues whose requests
    /// are read as [`Handling::Bearer`].
    fn bear(&self, request: &RestRequest, reading: &RestReading, token: &Secret) -> SignedRequest {
        let mut borne = self.pass(request);
        borne.body = Piece::render(&reading.body, &request.body, Nonce(0));
        let value = [b"Bearer ", token.expose()].concat();
        borne.headers.push(("authorization", Secret::new(value)));
        borne
    }

    /// Our own answer to a request that is read as [`Handling::Local`].
    fn answer(&self, request: &RestRequest, _given: Given<'_>) -> RestAnswer {
        self.refuse(Some(request), Unanswered::Refused(Refusal::Unknown))
    }

    /// What of the exchange's answer a client gets that may use these trading accounts alone: asked only about a client
    /// that is limited so, with the whole body. `None`: the body as it is.
    fn narrow(&self, _request: &RestRequest, _body: &[u8], _allowed: &[u64]) -> Option<Vec<u8>> {
        None
    }
}

impl RestRequest {
    /// A header's value, if it is there once and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?;
        if values.next().is_some() { None } else { value.to_str().ok() }
    }

    /// Two headers of one name, or one that is no text: somebody else would read another value there.
    pub(super) fn has_unreadable(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.headers.contains_key(*name) && self.header(name).is_none())
    }

    /// Refuses a path or query that two servers may read as two different things.
    pub(super) fn refuse_ambiguous(&self) -> Result<(), Refusal> {
        let is_plain = path::is_canonical(&self.path) && self.query.as_deref().is_none_or(path::query_is_plain);
        if is_plain { Ok(()) } else { Err(Refusal::Malformed) }
    }

    /// What the client says that its body is, whatever character set it adds: the exchange is told ours. `None`: it
    /// says nothing. Refused is what no venue takes.
    pub(super) fn media_type(&self) -> Result<Option<MediaType>, Refusal> {
        if self.has_unreadable(&["content-type"]) {
            return Err(Refusal::Malformed);
        }
        let Some(named) = self.header("content-type") else { return Ok(None) };
        let name = named.split(';').next().unwrap_or_default().trim();
        let known =
            [MediaType::Json, MediaType::Form].into_iter().find(|known| known.name().eq_ignore_ascii_case(name));
        known.map(Some).ok_or(Refusal::Malformed)
    }

    /// Path and query as they stand in a request line.
    pub fn path_and_query(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }
}

/// The header that says what the body is.
pub(super) fn content_type(media_type: MediaType) -> (&'static str, Secret) {
    ("content-type", Secret::from(media_type.name().to_owned()))
}

/// The header that says who we are. Kraken recommends one; what stands before exchanges turns away who has none.
pub(super) fn user_agent() -> (&'static str, Secret) {
    ("user-agent", Secret::from(concat!("countersign/", env!("CARGO_PKG_VERSION")).to_owned()))
}

impl std::fmt::Debug for RestRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Queries, headers and bodies hold what a log must not.
        write!(f, "RestRequest({} {}, {} bytes)", self.method, self.path, self.body.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancel_means_what_it_names_or_everything() {
        let named = |names: &[&str]| Subjects::Named(names.iter().map(|name| (*name).into()).collect());
        assert!(named(&["a", "b"]).meet(&named(&["b"])));
        assert!(!named(&["a"]).meet(&named(&["b"])));
        assert!(Subjects::All.meet(&named(&["b"])) && Subjects::All.meet(&Subjects::None));
        assert!(!named(&["a"]).meet(&Subjects::None));
    }

    #[test]
    fn a_body_is_what_its_pieces_make() {
        let pieces = [Piece::Kept(0..6), Piece::Nonce, Piece::Kept(7..11), Piece::Text("!")];
        assert_eq!(Piece::render(&pieces, b"nonce=1&a=b", Nonce(42)), b"nonce=42&a=b!");
    }
}
