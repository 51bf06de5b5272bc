//! The JWTs of a simulated ProjectX: whose they are, until when, and where they may be shown.
//!
//! Looked up, not verified by their signature: only what was minted here is known. What a request shows is read here
//! too, because the proxy's own reader would hide the proxy's own mistakes.

use super::super::server::Received;
use crate::fresh::UnixMillis;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use http::header::AUTHORIZATION;
use serde_json::json;
use sha2::Sha256;
use std::collections::VecDeque;
use std::time::Duration;

/// Tokens that are remembered, live or not; the oldest is forgotten, and with it refused.
const TOKENS_MAX: usize = 1000;
/// How a hub's address carries the token (gateway.docs.projectx.com, "Real time data").
pub(super) const QUERY_NAME: &str = "access_token";

/// Why a bearer is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BearerRefused {
    Missing,
    Unknown,
    Expired,
    Revoked,
}

/// Every token that was minted.
#[derive(Debug)]
pub(super) struct Tokens {
    secret: [u8; 32],
    minted: VecDeque<Minted>,
    count: u64,
}

#[derive(Debug)]
struct Minted {
    token: String,
    user: String,
    expires_at: UnixMillis,
    is_revoked: bool,
}

impl Tokens {
    pub(super) fn new() -> Self {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).expect("the system has random bytes");
        Self { secret, minted: VecDeque::new(), count: 0 }
    }

    /// A JWT that ends when its `exp` says so: at the first whole second after `lifetime`.
    pub(super) fn mint(&mut self, user: &str, now: UnixMillis, lifetime: Duration) -> String {
        self.count += 1;
        let lifetime = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        let expires = now.0.saturating_add(lifetime).div_ceil(1000);
        let head = URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "typ": "JWT"}).to_string());
        let claims = json!({"sub": user, "jti": format!("simulated-{}", self.count), "exp": expires});
        let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC takes a key of any length");
        mac.update(signed.as_bytes());
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()));
        if self.minted.len() == TOKENS_MAX {
            self.minted.pop_front();
        }
        let expires_at = UnixMillis(expires * 1000);
        self.minted.push_back(Minted { token: token.clone(), user: user.to_owned(), expires_at, is_revoked: false });
        token
    }

    /// Whose a token is that may be used now.
    pub(super) fn holder(&self, token: &str, now: UnixMillis) -> Result<String, BearerRefused> {
        let minted = self.minted.iter().find(|minted| minted.token == token).ok_or(BearerRefused::Unknown)?;
        if minted.is_revoked {
            return Err(BearerRefused::Revoked);
        }
        if now >= minted.expires_at {
            return Err(BearerRefused::Expired);
        }
        Ok(minted.user.clone())
    }

    pub(super) fn revoke(&mut self, token: &str) {
        for minted in self.minted.iter_mut().filter(|minted| minted.token == token) {
            minted.is_revoked = true;
        }
    }

    pub(super) fn revoke_all(&mut self) {
        for minted in &mut self.minted {
            minted.is_revoked = true;
        }
    }

    /// How many could be used now.
    pub(super) fn live(&self, now: UnixMillis) -> usize {
        self.minted.iter().filter(|minted| !minted.is_revoked && now < minted.expires_at).count()
    }

    /// Whether any token, live or not, is in these bytes.
    pub(super) fn is_in(&self, bytes: &[u8]) -> bool {
        self.minted.iter().any(|minted| memchr::memmem::find(bytes, minted.token.as_bytes()).is_some())
    }
}

/// The token that a request shows: in `Authorization`, or on a hub's path in the query, which counts if both are there
/// (learn.microsoft.com, "Authentication and authorization in ASP.NET Core SignalR").
pub(super) fn shown(request: &Received, is_hub: bool) -> Result<String, BearerRefused> {
    let in_query = if is_hub { in_query(request) } else { None };
    in_query.or_else(|| in_header(request)).ok_or(BearerRefused::Missing)
}

/// Whether a request to a hub shows two tokens that differ.
pub(super) fn is_contradictory(request: &Received) -> bool {
    in_query(request).zip(in_header(request)).is_some_and(|(query, header)| query != header)
}

fn in_header(request: &Received) -> Option<String> {
    request.header(AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    })
}

fn in_query(request: &Received) -> Option<String> {
    query(request).into_iter().find(|(name, _)| name.eq_ignore_ascii_case(QUERY_NAME)).map(|(_, value)| value)
}

/// The members of a request's query, decoded.
pub(super) fn query(request: &Received) -> Vec<(String, String)> {
    let pairs = request.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(n, v)| (decoded(n), decoded(v))).collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let named = (first == b'%').then(|| tail.get(..2).and_then(|digits| hex::decode(digits).ok())).flatten();
        rest = if named.is_some() { &tail[2..] } else { tail };
        bytes.extend(named.unwrap_or_else(|| vec![if first == b'+' { b' ' } else { first }]));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;
    use bytes::Bytes;
    use http::{HeaderMap, Method};

    fn request(uri: &str, authorization: Option<&str>) -> Received {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.parse().unwrap());
        }
        Received { connection: 1, method: Method::GET, uri: uri.parse().unwrap(), headers, body: Bytes::new() }
    }

    #[test]
    fn a_token_ends_when_its_exp_says_so_and_not_before() {
        let mut tokens = Tokens::new();
        let token = tokens.mint("alice", UnixMillis(1_000_500), Duration::from_secs(3));
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!((&claims["exp"], &claims["sub"]), (&json!(1004), &json!("alice")));
        assert_eq!(tokens.holder(&token, UnixMillis(1_003_999)), Ok("alice".to_owned()));
        assert_eq!(tokens.holder(&token, UnixMillis(1_004_000)), Err(BearerRefused::Expired));
        assert_eq!((tokens.live(UnixMillis(1_003_999)), tokens.live(UnixMillis(1_004_000))), (1, 0));
    }

    #[test]
    fn a_revoked_token_is_not_an_unknown_one() {
        let (mut tokens, now) = (Tokens::new(), UnixMillis(0));
        let [first, second] = [(); 2].map(|()| tokens.mint("alice", now, Duration::from_secs(3)));
        assert_ne!(first, second);
        tokens.revoke(&first);
        assert_eq!(tokens.holder(&first, now), Err(BearerRefused::Revoked));
        assert!(tokens.holder(&second, now).is_ok());
        tokens.revoke_all();
        assert_eq!(tokens.holder(&second, now), Err(BearerRefused::Revoked));
        assert_eq!(tokens.holder("a.b.c", now), Err(BearerRefused::Unknown));
        assert!(tokens.is_in(format!("before{first}after").as_bytes()) && !tokens.is_in(b"nothing"));
    }

    #[test]
    fn a_hub_takes_the_query_before_the_header() {
        let shown_by = |uri, header, is_hub| shown(&request(uri, header), is_hub);
        assert_eq!(shown_by("/hubs/user?access_token=a.b%2Ec", None, true), Ok("a.b.c".to_owned()));
        assert_eq!(shown_by("/hubs/user", Some("bearer a.b.c"), true), Ok("a.b.c".to_owned()));
        assert_eq!(shown_by("/hubs/user?access_token=a", Some("Bearer b"), true), Ok("a".to_owned()));
        assert!(is_contradictory(&request("/hubs/user?access_token=a", Some("Bearer b"))));
        assert!(!is_contradictory(&request("/hubs/user?access_token=a", Some("Bearer a"))));
        assert!(!is_contradictory(&request("/hubs/user?access_token=a", None)));
        assert_eq!(shown_by("/api/x?access_token=a", None, false), Err(BearerRefused::Missing));
        assert_eq!(shown_by("/hubs/user", Some("Basic a"), true), Err(BearerRefused::Missing));
    }
}
