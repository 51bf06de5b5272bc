//! Bitfinex: REST v2 and WebSocket v2, public and private.
//!
//! One login per socket: an `auth` event, signed over a nonce that it shares with the REST calls of the key.
//! A client's own `auth` is consumed and answered here; `filter`, `dms`, `calc` and `subId` are carried over.
//!
//! Sources: docs.bitfinex.com, "General", "Authenticated channels" and "WS inputs".

mod acts;
mod login;
mod rest;
mod v2;

use super::{Comeback, Dialect, Endpoint, EndpointKind, NonceRules, Venue};
use crate::credential::{KeyShape, SecretFormat, TextShape};
use crate::fresh::NonceUnit;

pub use acts::rest_act;

/// Bitfinex.
pub struct Bitfinex;

static ENDPOINTS: &[Endpoint] = &[
    Endpoint { name: "rest", kind: EndpointKind::Rest, host: "api.bitfinex.com", path: "/v2", local_path: None },
    Endpoint {
        name: "rest-public",
        kind: EndpointKind::Rest,
        host: "api-pub.bitfinex.com",
        path: "/v2",
        local_path: None,
    },
    Endpoint {
        name: "private",
        kind: EndpointKind::Socket,
        host: "api.bitfinex.com",
        path: "/ws/2",
        local_path: Some("/bitfinex/v2"),
    },
    Endpoint {
        name: "public",
        kind: EndpointKind::Socket,
        host: "api-pub.bitfinex.com",
        path: "/ws/2",
        local_path: Some("/bitfinex/public/v2"),
    },
];

impl Venue for Bitfinex {
    fn name(&self) -> &'static str {
        "bitfinex"
    }

    fn endpoints(&self) -> &'static [Endpoint] {
        ENDPOINTS
    }

    fn secret_format(&self) -> Option<SecretFormat> {
        Some(SecretFormat::Text)
    }

    fn local_key_shape(&self) -> Option<KeyShape> {
        let text = TextShape::Alphanumeric { characters: 43 };
        Some(KeyShape { api_key: text, secret: text })
    }

    /// At most 2^53 - 1: nanoseconds do not fit.
    fn nonces(&self) -> Option<NonceRules> {
        Some(NonceRules { unit: NonceUnit::Microseconds, max: 9_007_199_254_740_991 })
    }

    fn rest(&self) -> Option<&dyn super::rest::Rest> {
        Some(self)
    }

    /// bitfinex-api-py comes back after a close with 1012 (or none) and an upgrade answered with 408, and gives up at
    /// every other code and status (its `_connect` and `start`, version 4.0.0).
    fn comeback(&self) -> Comeback {
        Comeback { status: Some(408), close: Some(1012) }
    }

    fn dialect(&self, endpoint: &Endpoint) -> Box<dyn Dialect> {
        Box::new(v2::Conversation::new(endpoint.name == "private"))
    }
}
