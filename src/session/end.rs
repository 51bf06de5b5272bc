//! Every way in which a session can end, and whose doing it was.
//!
//! What a peer is told about it is not decided here: that is `fault`.

use crate::scope::Right;

/// Why a session ended, or never began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client closed, with this code (1005: none).
    ClientClosed(u16),
    /// The client's connection broke without a close.
    ClientLost,
    /// The client did not answer a ping that it had answered before.
    ClientSilent,
    /// The client sent no whole message for too long, or did not begin with the venue's protocol in time.
    ClientIdle,
    /// The client broke RFC 6455.
    ClientProtocol,
    /// The client sent text that is not UTF-8.
    ClientNotUtf8,
    /// The client sent a message over the limit.
    ClientMessageTooBig,
    /// The client sent binary data where the venue speaks text.
    ClientBinary,
    /// The client pinged more often than the limit.
    PingFlood,
    /// The client did not read: its outbox stayed full.
    SlowConsumer,

    /// The first message was no login.
    AuthenticationRequired,
    /// No login came in time.
    AuthenticationTimeout,
    /// The login carried no token.
    TokenMissing,
    /// The token was not accepted, for whatever reason.
    InvalidToken,
    /// The proof was good and no grant fits it.
    AuthenticationFailed,
    /// The client has as many sessions as it may.
    MaxConnections,
    /// No key is configured to verify such a proof.
    AuthenticationUnavailable,
    /// The proof has come to its end.
    TokenExpired,
    /// The grant was taken away.
    GrantRemoved,
    /// A second login named another client.
    ReauthIdentityChanged,
    /// Certificate and token name different clients.
    IdentityMismatch,

    /// The exchange could not be reached.
    UpstreamUnavailable,
    /// The exchange's certificate was not accepted.
    UpstreamTls,
    /// The exchange refused the upgrade for its credentials.
    UpstreamAuthFailed,
    /// The exchange refused our login.
    UpstreamAuthRejected,
    /// The exchange did not answer our login in time.
    UpstreamLoginTimeout,
    /// No token of the exchange is to be had.
    TokenUnavailable,
    /// No nonce is to be had.
    NonceUnavailable,
    /// The exchange closed with this code (1005: none).
    UpstreamClosed(u16),
    /// The connection to the exchange broke, or fell silent.
    UpstreamLost,
    /// The exchange took nothing for too long.
    UpstreamStalled,
    /// The exchange broke RFC 6455.
    UpstreamProtocol,
    /// The exchange sent text that is not UTF-8.
    UpstreamNotUtf8,
    /// The exchange sent a message over the limit.
    UpstreamMessageTooBig,

    /// The house is closing.
    Draining,
    /// The house has as many connections as it may.
    Overloaded,
    /// A fault of our own.
    Internal,
}

/// Whose doing an end was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The client's.
    Client,
    /// The exchange's, or the network's on the way there.
    Upstream,
    /// Our own.
    Proxy,
}

impl End {
    /// Whose doing it was.
    pub const fn blame(self) -> Blame {
        match self {
            End::ClientClosed(_)
            | End::ClientLost
            | End::ClientSilent
            | End::ClientIdle
            | End::ClientProtocol
            | End::ClientNotUtf8
            | End::ClientMessageTooBig
            | End::ClientBinary
            | End::PingFlood
            | End::SlowConsumer
            | End::AuthenticationRequired
            | End::AuthenticationTimeout
            | End::TokenMissing
            | End::InvalidToken
            | End::AuthenticationFailed
            | End::MaxConnections
            | End::TokenExpired
            | End::ReauthIdentityChanged
            | End::IdentityMismatch => Blame::Client,
            End::UpstreamUnavailable
            | End::UpstreamTls
            | End::UpstreamAuthFailed
            | End::UpstreamAuthRejected
            | End::UpstreamLoginTimeout
            | End::TokenUnavailable
            | End::UpstreamClosed(_)
            | End::UpstreamLost
            | End::UpstreamStalled
            | End::UpstreamProtocol
            | End::UpstreamNotUtf8
            | End::UpstreamMessageTooBig => Blame::Upstream,
            End::AuthenticationUnavailable
            | End::GrantRemoved
            | End::NonceUnavailable
            | End::Draining
            | End::Overloaded
            | End::Internal => Blame::Proxy,
        }
    }
}

impl Blame {
    /// The word in the log.
    pub const fn word(self) -> &'static str {
        match self {
            Blame::Client => "client",
            Blame::Upstream => "upstream",
            Blame::Proxy => "proxy",
        }
    }
}

/// One refusal of a client's message, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// The word for why.
    pub slug: &'static str,
    /// The venue's word for the operation; empty if unknown.
    pub operation: &'static str,
    /// The right that was lacking, if that was why.
    pub lacking: Option<Right>,
}
