//! A listener of its own for those who look after the process: is it alive, is it ready, how are its accounts? And for
//! what only a person can decide: to renew a token, reset a breaker, unfreeze nonces.
//!
//! Plain HTTP, loopback by default: probes and scrapers speak nothing else. It says nothing secret. What changes
//! something has to come from this machine, with the secret that this process wrote into its state folder.

mod actions;
mod pages;

use crate::secret::Secret;
use crate::server::Arrivals;
use crate::supply::account::Account;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

pub use actions::{Action, SECRET_HEADER, path_of};

/// Connections at a time; probes come one by one.
const CONNECTIONS_MAX: usize = 32;
/// How long a request may take to arrive.
const REQUEST_HEAD: Duration = Duration::from_secs(5);

/// What the admin listener can say, and what it can have done.
pub struct Status {
    /// Where clients connect.
    pub listening_on: String,
    /// The listeners that lead to one venue, in the order of the configuration.
    pub ports: Vec<Port>,
    /// Where clients that read the proxy variables connect, if anywhere.
    pub connect: Option<String>,
    /// Clients that came.
    pub arrivals: Arrivals,
    /// The sessions that live.
    pub sessions: TaskTracker,
    /// The accounts of the configuration.
    pub accounts: Vec<Listed>,
    /// True once the process is on its way out.
    pub draining: watch::Receiver<bool>,
    /// When the house was opened.
    pub opened_at: Instant,
    /// Proves that an action is asked for by somebody who may read the state folder.
    pub secret: Secret,
}

/// An account of the configuration.
pub struct Listed {
    /// Its name.
    pub name: String,
    /// The name of its venue.
    pub venue: &'static str,
    /// `None`: it has no keys, and so neither a token nor nonces.
    pub account: Option<Account>,
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
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
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
                let status = Arc::clone(&status);
                async move { Ok::<_, Infallible>(answer(&status, peer, &request).await) }
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

async fn answer(status: &Status, peer: SocketAddr, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if let Some(refusal) = refusal(request) {
        return refusal;
    }
    let path = request.uri().path();
    if let Some((account, action)) = actions::named(path) {
        return if *request.method() == Method::POST {
            actions::answer(status, peer, request, account, action).await
        } else {
            not_allowed("POST")
        };
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return not_allowed("GET, HEAD");
    }
    match path {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => pages::ready(status),
        "/status" => pages::status(status).await,
        _ => text(StatusCode::NOT_FOUND, "there are /healthz, /readyz and /status\n"),
    }
}

/// A page of a browser may not look in here, by whatever name it found us.
fn refusal(request: &Request<Incoming>) -> Option<Response<Full<Bytes>>> {
    let headers = request.headers();
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

fn not_allowed(allowed: &'static str) -> Response<Full<Bytes>> {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, format!("{allowed} alone\n"));
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

fn json(code: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut answer = text(code, format!("{body}\n"));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn text(code: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = code;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
