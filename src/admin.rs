//! A listener of its own for those who look after the process: is it alive, is it ready?
//!
//! Plain HTTP, loopback by default: probes and scrapers speak nothing else. It says nothing secret and takes no
//! orders.

use crate::server::Arrivals;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tracing::{debug, warn};

/// Connections at a time; probes come one by one.
const CONNECTIONS_MAX: usize = 32;
/// How long a request may take to arrive.
const REQUEST_HEAD: Duration = Duration::from_secs(5);

/// What the admin listener can say.
#[derive(Debug, Clone)]
pub struct Status {
    /// Where clients connect.
    pub listening_on: String,
    /// The listeners that lead to one venue, in the order of the configuration.
    pub ports: Vec<Port>,
    /// Where clients that read the proxy variables connect, if anywhere.
    pub connect: Option<String>,
    /// Clients that came.
    pub arrivals: Arrivals,
    /// The accounts whose keys were found, by name.
    pub accounts: Vec<String>,
    /// True once the process is on its way out.
    pub draining: watch::Receiver<bool>,
}

/// A listener that leads to one venue.
#[derive(Debug, Clone)]
pub struct Port {
    /// Where it listens.
    pub address: String,
    /// The venue.
    pub venue: &'static str,
    /// The endpoint to whose host it is narrowed, if any.
    pub endpoint: Option<&'static str>,
}

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, status: Status) {
    let status = Arc::new(status);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                warn!(%error, "admin accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
        let status = Arc::clone(&status);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answer = answer(&status, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_HEAD)
                .max_headers(64)
                .max_buf_size(8192)
                .keep_alive(false)
                .serve_connection(TokioIo::new(socket), service);
            if let Err(error) = serving.await {
                debug!(%error, "admin connection ended");
            }
            drop(slot);
        });
    }
}

fn answer(status: &Status, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if let Some(refusal) = refusal(request) {
        return refusal;
    }
    let is_draining = *status.draining.borrow();
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        // An exchange that is down does not make us unready: restarting us would not bring it back.
        "/readyz" => {
            let code = if is_draining { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
            let port = |port: &Port| json!({"address": port.address, "venue": port.venue, "endpoint": port.endpoint});
            let body = json!({
                "countersign": env!("CARGO_PKG_VERSION"),
                "pid": std::process::id(),
                "ready": !is_draining,
                "draining": is_draining,
                "listening_on": status.listening_on,
                "ports": status.ports.iter().map(port).collect::<Vec<_>>(),
                "connect": status.connect,
                "connections": status.arrivals.count(),
                "accounts": status.accounts,
            });
            let mut answer = text(code, format!("{body}\n"));
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            answer
        }
        _ => text(StatusCode::NOT_FOUND, "there are /healthz and /readyz\n"),
    }
}

/// A page of a browser may not look in here, by whatever name it found us.
fn refusal(request: &Request<Incoming>) -> Option<Response<Full<Bytes>>> {
    let headers = request.headers();
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "GET alone\n");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(answer);
    }
    if headers.contains_key(ORIGIN) {
        return Some(text(StatusCode::FORBIDDEN, "not for browser pages\n"));
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let is_ours = name == "localhost" || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    (!is_ours).then(|| text(StatusCode::MISDIRECTED_REQUEST, "ask by address or as localhost\n"))
}

fn text(code: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = code;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
