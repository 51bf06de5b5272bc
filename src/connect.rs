//! The listener for clients that read the proxy variables: CONNECT alone, and to nothing but this house.
//!
//! Not a proxy for the rest of the world: a tunnel ends in our own TLS, under the name that it was opened for, and
//! every other name is refused. Plain HTTP, because that is what `HTTPS_PROXY` means, so it is for loopback; what it
//! asks for is a secret that `countersign run` hands out, and no proof of who the client is.

use crate::http::{self as house_http, Door};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION};
use http::header::{HeaderName, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpStream;
use tracing::{debug, warn};
use zeroize::Zeroizing;

/// The user that `countersign run` writes into the proxy URL.
pub const USER: &str = "run";

/// Headers of a CONNECT; libraries send three or four.
const HEADERS_MAX: usize = 32;
/// Bytes of its head: the least that hyper reads into.
const HEAD_BYTES_MAX: usize = 8192;
/// The port of every exchange's real door.
const HTTPS: u16 = 443;

/// Answers whether somebody may open tunnels.
pub type SecretCheck = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// What the listener asks of those who come.
#[derive(Clone)]
pub struct Gate {
    /// True for a secret that was handed out. Has to take the same time for all that were not.
    pub is_secret: SecretCheck,
}

/// A tunnel that was granted: what comes through it has to be TLS for that name.
#[derive(Debug)]
pub struct Tunnel {
    /// The connection, with nothing read from it behind the request.
    pub socket: TcpStream,
    /// The exchange's host name, in lower case.
    pub name: String,
}

/// Reads the one request of a connection and answers it. `None`: it was refused, or the client left; either has been
/// logged. Bounded by the time for a request's head, and by the delay of the failure budget.
pub async fn receive(gate: &Gate, door: &Arc<Door>, socket: TcpStream, peer: SocketAddr) -> Option<Tunnel> {
    let granted: Arc<Mutex<Option<Granted>>> = Arc::default();
    let service = service_fn(|request| {
        let granted = Arc::clone(&granted);
        async move {
            let answer = match admit(gate, door, peer, request).await {
                Ok(tunnel) => {
                    *granted.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel);
                    Response::new(Full::default())
                }
                Err(refusal) => {
                    let (reason, status) = (refusal.slug, refusal.status.as_u16());
                    warn!(%peer, reason, status, "tunnel refused");
                    refusal.into_answer()
                }
            };
            Ok::<_, Infallible>(answer)
        }
    });
    // Every answer is the last: a tunnel takes the connection over, and a refusal closes it.
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(door.limits.request_head)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    if let Err(error) = serving.await {
        debug!(%peer, %error, "proxy connection ended");
    }
    let Granted { name, upgrade } = granted.lock().unwrap_or_else(PoisonError::into_inner).take()?;
    let parts = upgrade.await.ok()?.downcast::<TokioIo<TcpStream>>().ok()?;
    if !parts.read_buf.is_empty() {
        // Whoever talks before the answer does not know whom it talks to.
        warn!(%peer, reason = "spoke_early", "tunnel refused");
        return None;
    }
    Some(Tunnel { socket: parts.io.into_inner(), name })
}

struct Granted {
    name: String,
    upgrade: OnUpgrade,
}

async fn admit(gate: &Gate, door: &Door, peer: SocketAddr, mut request: Request<Incoming>) -> Result<Granted, Refusal> {
    if request.method() != Method::CONNECT {
        return Err(Refusal {
            status: StatusCode::METHOD_NOT_ALLOWED,
            slug: "method_not_allowed",
            advice: "this is a proxy for TLS: CONNECT alone; other clients connect to `listen.address`",
        });
    }
    let (host, port) = target(&request)?;
    secret(gate, door, peer, request.headers()).await?;
    if port != HTTPS || !door.routes.is_venue_host(&host) {
        return Err(Refusal {
            status: StatusCode::FORBIDDEN,
            slug: "not_served_here",
            advice: "not served here; only names of configured venues, at port 443; list other hosts in NO_PROXY",
        });
    }
    let upgrade = request.extensions_mut().remove::<OnUpgrade>().ok_or(BAD_REQUEST)?;
    Ok(Granted { name: host, upgrade })
}

const BAD_REQUEST: Refusal = Refusal {
    status: StatusCode::BAD_REQUEST,
    slug: "bad_connect",
    advice: "send `CONNECT name:443 HTTP/1.1`, a Host that names the same, and no body",
};

/// Where the client wants to go: a name in lower case, and a port.
///
/// HTTP/1.0 without a Host is taken too: that is how Python's `http.client` asked before 3.12.
fn target(request: &Request<Incoming>) -> Result<(String, u16), Refusal> {
    let is_known_version = matches!(request.version(), Version::HTTP_10 | Version::HTTP_11);
    let has_body = [CONTENT_LENGTH, TRANSFER_ENCODING].iter().any(|name| request.headers().contains_key(name));
    let authority = request.uri().authority().ok_or(BAD_REQUEST)?;
    let port = authority.port_u16().ok_or(BAD_REQUEST)?;
    let is_plain = authority.as_str() == format!("{}:{}", authority.host(), authority.port().ok_or(BAD_REQUEST)?);
    let is_named_alike = match one(request.headers(), &HOST)? {
        Some(host) => {
            let host = host.as_bytes();
            host.eq_ignore_ascii_case(authority.as_str().as_bytes())
                || host.eq_ignore_ascii_case(authority.host().as_bytes())
        }
        None => request.version() == Version::HTTP_10,
    };
    if !is_known_version || has_body || !is_plain || !is_named_alike {
        return Err(BAD_REQUEST);
    }
    Ok((authority.host().to_ascii_lowercase(), port))
}

/// Checks the secret. A wrong one counts as a failed login of its source; one that is missing is a client that waits
/// to be asked.
async fn secret(gate: &Gate, door: &Door, peer: SocketAddr, headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(shown) = one(headers, &PROXY_AUTHORIZATION)? else { return Err(WHO) };
    if basic(shown).is_some_and(|secret| (gate.is_secret)(&secret)) {
        return Ok(());
    }
    let house = &door.house;
    let source = house_http::source_of(peer.ip());
    let delay = house.budget.lock().unwrap_or_else(PoisonError::into_inner).failed(source, house.clock.now());
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    Err(WHO)
}

const WHO: Refusal = Refusal {
    status: StatusCode::PROXY_AUTHENTICATION_REQUIRED,
    slug: "proxy_auth_required",
    advice: "start the program with `countersign run -- …`, which hands it the secret of this proxy",
};

/// The secret in `Basic base64(run:secret)`.
fn basic(value: &HeaderValue) -> Option<Zeroizing<Vec<u8>>> {
    let (scheme, encoded) = value.as_bytes().split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let pair = Zeroizing::new(BASE64.decode(encoded.trim_ascii()).ok()?);
    let secret = pair.strip_prefix(USER.as_bytes())?.strip_prefix(b":")?;
    Some(Zeroizing::new(secret.to_vec()))
}

/// The header, if it is there once.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(BAD_REQUEST),
    }
}

/// Why no tunnel is opened.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    slug: &'static str,
    advice: &'static str,
}

impl Refusal {
    fn into_answer(self) -> Response<Full<Bytes>> {
        let mut answer = Response::new(Full::from(format!("countersign: {}: {}\n", self.slug, self.advice)));
        *answer.status_mut() = self.status;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert("countersign-reason", HeaderValue::from_static(self.slug));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        if self.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            headers.insert(PROXY_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"countersign\""));
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("CONNECT"));
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &'static str) -> Option<Vec<u8>> {
        basic(&HeaderValue::from_static(value)).map(|secret| secret.to_vec())
    }

    #[test]
    fn the_secret_is_what_stands_behind_the_user_run() {
        assert_eq!(shown("Basic cnVuOnMzY3JldA==").as_deref(), Some(&b"s3cret"[..]));
        assert_eq!(shown("basic cnVuOnMzY3JldA==").as_deref(), Some(&b"s3cret"[..]));
        assert_eq!(shown("Basic cnVuOg==").as_deref(), Some(&b""[..]));
    }

    #[test]
    fn another_user_another_scheme_and_no_base64_show_no_secret() {
        for value in ["Basic cm9vdDpzM2NyZXQ=", "Bearer cnVuOnMzY3JldA==", "Basic !", "Basic", "", "Basic cnVuczNjcmV0"]
        {
            assert_eq!(shown(value), None, "{value}");
        }
    }
}
