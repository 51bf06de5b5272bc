//! What a peer is told when something ends: the one map from [`End`] to close codes, reasons and HTTP statuses.
//!
//! A fixed sentence or slug and a code, never a cause: causes go to the log.

use crate::session::{Blame, End};
use crate::venue::Comeback;
use http::StatusCode;

/// A close frame: code and reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Farewell {
    /// The close code of RFC 6455 section 7.4.
    pub code: u16,
    /// ASCII, at most 123 bytes, nothing in it that came from a peer.
    pub reason: String,
}

/// The word for an end: in the log, and as the reason of a close that has no sentence.
pub const fn slug(end: End) -> &'static str {
    match end {
        End::ClientClosed(_) => "client_closed",
        End::ClientLost => "client_reset",
        End::ClientSilent => "client_silent",
        End::ClientIdle => "idle_timeout",
        End::ClientProtocol => "protocol_error",
        End::ClientNotUtf8 => "invalid_utf8",
        End::ClientMessageTooBig => "message_too_big",
        End::ClientBinary => "binary_not_supported",
        End::PingFlood => "ping_flood",
        End::SlowConsumer => "slow_consumer",
        End::AuthenticationRequired => "auth_malformed",
        End::AuthenticationTimeout => "auth_timeout",
        End::TokenMissing => "auth_token_missing",
        End::InvalidToken => "auth_invalid",
        End::AuthenticationFailed => "identity_not_mapped",
        End::MaxConnections => "connection_limit",
        End::AuthenticationUnavailable => "auth_unavailable",
        End::TokenExpired => "token_expired",
        End::GrantRemoved => "grant_removed",
        End::ReauthIdentityChanged => "reauth_identity_changed",
        End::IdentityMismatch => "identity_mismatch",
        End::UpstreamUnavailable => "upstream_unavailable",
        End::UpstreamTls => "upstream_tls",
        End::UpstreamAuthFailed => "upstream_auth_failed",
        End::UpstreamAuthRejected => "upstream_auth_rejected",
        End::UpstreamLoginTimeout => "upstream_login_timeout",
        End::TokenUnavailable => "token_unavailable",
        End::NonceUnavailable => "nonce_unavailable",
        End::UpstreamClosed(_) => "upstream_closed",
        End::UpstreamLost => "upstream_lost",
        End::UpstreamStalled => "upstream_stalled",
        End::UpstreamProtocol | End::UpstreamNotUtf8 => "upstream_protocol_error",
        End::UpstreamMessageTooBig => "upstream_message_too_big",
        End::Draining => "draining",
        End::Overloaded => "overloaded",
        End::Internal => "internal_error",
    }
}

/// What the client's close frame says. `unanswered`: how many orders and cancels the exchange has not answered,
/// whose fate the client must find out. `None`: the client gets no close frame.
pub fn to_client(end: End, unanswered: usize) -> Option<Farewell> {
    let (code, sentence) = match end {
        End::ClientLost | End::ClientSilent => return None,
        End::ClientClosed(code) => (echoed(code), ""),
        End::ClientProtocol => (1002, slug(end)),
        End::ClientBinary => (1003, slug(end)),
        End::ClientNotUtf8 => (1007, slug(end)),
        End::ClientMessageTooBig => (1009, slug(end)),
        End::AuthenticationRequired => (1008, "Authentication required"),
        End::AuthenticationTimeout => (1008, "Authentication timeout"),
        End::TokenMissing => (1008, "Token missing"),
        End::InvalidToken => (1008, "Invalid token"),
        End::AuthenticationFailed => (1008, "Authentication failed"),
        End::MaxConnections => (1008, "Max connections reached"),
        End::ClientIdle
        | End::PingFlood
        | End::SlowConsumer
        | End::TokenExpired
        | End::GrantRemoved
        | End::ReauthIdentityChanged
        | End::IdentityMismatch => (1008, slug(end)),
        End::Draining => (1001, slug(end)),
        // A venue's own codes mean something to its bots; the registered ones speak of a connection that is not
        // the client's.
        End::UpstreamClosed(code @ 3000..=4999) => (code, slug(end)),
        End::UpstreamClosed(_) | End::UpstreamLost | End::UpstreamStalled => (1012, slug(end)),
        End::UpstreamUnavailable
        | End::UpstreamLoginTimeout
        | End::TokenUnavailable
        | End::NonceUnavailable
        | End::AuthenticationUnavailable
        | End::Overloaded => (1013, slug(end)),
        End::UpstreamTls
        | End::UpstreamAuthFailed
        | End::UpstreamAuthRejected
        | End::UpstreamProtocol
        | End::UpstreamNotUtf8
        | End::UpstreamMessageTooBig
        | End::Internal => (1011, slug(end)),
    };
    let reason = if unanswered > 0 && code != 1000 {
        format!("{sentence}; maybe-sent: {unanswered}")
    } else {
        sentence.to_owned()
    };
    Some(Farewell { code, reason })
}

/// The same for an unmodified bot of a venue: where it would take the code for the end of all things, it gets the one
/// after which its library comes back.
pub fn to_native_client(end: End, unanswered: usize, comeback: Comeback) -> Option<Farewell> {
    let mut farewell = to_client(end, unanswered)?;
    if let (1001 | 1013, Some(code)) = (farewell.code, comeback.close) {
        farewell.code = code;
    }
    Some(farewell)
}

/// What the exchange's close frame says.
pub fn to_upstream(end: End) -> Farewell {
    let code = match end {
        End::UpstreamProtocol => 1002,
        End::UpstreamNotUtf8 => 1007,
        End::UpstreamMessageTooBig => 1009,
        _ => 1000,
    };
    Farewell { code, reason: String::new() }
}

/// The status of an upgrade or request that ends so before it began.
pub fn status(end: End) -> StatusCode {
    match end {
        End::AuthenticationRequired
        | End::TokenMissing
        | End::InvalidToken
        | End::AuthenticationTimeout
        | End::TokenExpired => StatusCode::UNAUTHORIZED,
        End::AuthenticationFailed | End::IdentityMismatch | End::GrantRemoved | End::ReauthIdentityChanged => {
            StatusCode::FORBIDDEN
        }
        End::MaxConnections => StatusCode::TOO_MANY_REQUESTS,
        End::UpstreamUnavailable | End::UpstreamLoginTimeout => StatusCode::BAD_GATEWAY,
        End::AuthenticationUnavailable
        | End::TokenUnavailable
        | End::NonceUnavailable
        | End::Draining
        | End::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        _ => match end.blame() {
            Blame::Client => StatusCode::BAD_REQUEST,
            Blame::Upstream => StatusCode::BAD_GATEWAY,
            Blame::Proxy => StatusCode::INTERNAL_SERVER_ERROR,
        },
    }
}

/// The code that answers a client's close: its own, where that may be sent.
const fn echoed(code: u16) -> u16 {
    match code {
        1000 | 1001 | 3000..=4999 => code,
        _ => 1000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentences_of_the_first_message_are_the_documented_ones() {
        let said = |end| to_client(end, 0).expect("a close frame");
        for (end, sentence) in [
            (End::AuthenticationRequired, "Authentication required"),
            (End::TokenMissing, "Token missing"),
            (End::InvalidToken, "Invalid token"),
            (End::AuthenticationFailed, "Authentication failed"),
            (End::AuthenticationTimeout, "Authentication timeout"),
            (End::MaxConnections, "Max connections reached"),
        ] {
            assert_eq!(said(end), Farewell { code: 1008, reason: sentence.to_owned() });
        }
    }

    #[test]
    fn a_lost_exchange_is_1012_and_counts_what_it_did_not_answer() {
        let farewell = to_client(End::UpstreamLost, 3).expect("a close frame");
        assert_eq!(farewell, Farewell { code: 1012, reason: "upstream_lost; maybe-sent: 3".to_owned() });
    }

    #[test]
    fn an_exchange_s_own_code_is_passed_on_and_a_registered_one_is_not() {
        assert_eq!(to_client(End::UpstreamClosed(4008), 0).map(|said| said.code), Some(4008));
        for code in [1000, 1006, 1014, 1016, 1005] {
            assert_eq!(to_client(End::UpstreamClosed(code), 0).map(|said| said.code), Some(1012), "{code}");
        }
    }

    #[test]
    fn a_bot_whose_library_knows_one_code_alone_gets_that_when_it_should_come_back() {
        let comeback = Comeback { status: Some(408), close: Some(1012) };
        let code = |end| to_native_client(end, 0, comeback).map(|said| said.code);
        assert_eq!(code(End::Draining), Some(1012));
        assert_eq!(code(End::TokenUnavailable), Some(1012));
        assert_eq!(code(End::TokenExpired), Some(1008), "coming back would not help");
        assert_eq!(to_native_client(End::Draining, 0, Comeback::default()).map(|said| said.code), Some(1001));
    }

    #[test]
    fn a_reason_fits_into_a_close_frame() {
        let longest = to_client(End::ReauthIdentityChanged, usize::MAX).expect("a close frame");
        assert!(longest.reason.len() <= 123);
    }
}
