//! HTTP/1.1 by hyper on top.

use super::other_end::{Settings, VERSIONS, We, pattern, within};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use tokio::io::{AsyncRead, AsyncWrite};

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let echo = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Ok::<_, Infallible>(Response::new(Full::new(body)))
    });
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), echo).await.unwrap();
}

async fn ask(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    for size in [0, 1, 16_384, 100_000, 3_000_000] {
        let told = Bytes::from(pattern(size));
        let request = Request::post("/").header("host", "localhost").body(Full::new(told.clone())).unwrap();
        sender.ready().await.unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert!(answer.into_body().collect().await.unwrap().to_bytes() == told, "{size} bytes changed");
    }
    drop(sender);
    connection.await.unwrap().unwrap();
}

#[tokio::test]
async fn large_bodies_go_both_ways_where_we_serve() {
    let (ours, theirs) = Settings::new(&VERSIONS).meet(We::AreCalled).await;
    within(async { tokio::join!(serve(ours), ask(theirs)) }).await;
}

#[tokio::test]
async fn large_bodies_go_both_ways_where_we_ask() {
    let (ours, theirs) = Settings::new(&VERSIONS).meet(We::Call).await;
    within(async { tokio::join!(serve(theirs), ask(ours)) }).await;
}
