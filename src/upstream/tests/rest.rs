//! What became of a request, by what the exchange did with it.

use super::super::home::Home;
use super::*;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use std::sync::Arc;
use tokio::sync::oneshot;

const LIMITS: AnswerLimits =
    AnswerLimits { timeout: Duration::from_secs(10), bytes_max: 1024, stall: Duration::from_secs(10) };

fn order() -> Request<Full<Bytes>> {
    Request::post("/0/private/AddOrder")
        .header("api-sign", "signature")
        .body(Full::new(Bytes::from_static(b"nonce=1&volume=2")))
        .unwrap()
}

async fn connect(target: &Target) -> HttpConnection {
    connect_http(target, &DialLimits::default(), &nobody()).await.unwrap()
}

/// A connection to a place that keeps connections, and the place.
async fn connect_at_home(target: &Target) -> (HttpConnection, Arc<Home>) {
    let home = Home::new(1, Duration::from_secs(60));
    (connect(target).await.at_home(Arc::downgrade(&home)), home)
}

async fn whole(fate: Fate) -> Response<Bytes> {
    let Fate::Answered(answer) = fate else { panic!("{fate:?}") };
    read_whole(*answer, usize::MAX).await.expect("a whole body")
}

async fn read_order(stream: &mut Stream) -> String {
    let head = read_head(stream).await;
    let mut body = vec![0; header(&head, "content-length").unwrap().parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    assert_eq!(body, b"nonce=1&volume=2");
    head
}

#[tokio::test]
async fn answers_come_whole_and_the_connection_serves_again() {
    let (target, played) = Exchange::new().await.play(async |mut stream| {
        let head = read_order(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await.unwrap();
        read_order(&mut stream).await;
        let refused = b"HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example/\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n";
        stream.write_all(refused).await.unwrap();
        head
    });
    let (mut connection, home) = connect_at_home(&target).await;
    connection.ready().await.unwrap();
    let answer = whole(connection.send(order(), &LIMITS).await).await;
    assert_eq!((answer.status(), answer.body().as_ref()), (StatusCode::OK, b"{}".as_slice()));

    let mut connection = home.take(Duration::MAX).expect("its answer was read to its end");
    connection.ready().await.unwrap();
    let answer = whole(connection.send(order(), &LIMITS).await).await;
    assert_eq!((answer.status(), answer.body().as_ref()), (StatusCode::FOUND, b"no".as_slice()));

    let head = played.await.unwrap();
    assert!(head.starts_with("POST /0/private/AddOrder HTTP/1.1\r\n"), "{head}");
    assert_eq!(header(&head, "api-sign"), Some("signature"));
}

#[tokio::test]
async fn host_and_path_are_the_targets_whatever_the_request_says() {
    let (target, played) = Exchange::new().await.play(async |mut stream| {
        let head = read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        head
    });
    let request = Request::get("https://elsewhere.example/time?x=1").header("host", "elsewhere.example");
    let fate = connect(&target).await.send(request.body(Full::default()).unwrap(), &LIMITS).await;
    assert_eq!(fate.word(), "answered");
    let head = played.await.unwrap();
    assert!(head.starts_with("GET /time?x=1 HTTP/1.1\r\n"), "{head}");
    assert!(!head.contains("elsewhere"), "{head}");
}

#[tokio::test]
async fn nothing_is_sent_before_a_request_is() {
    let (target, counted) = Exchange::new().await.count();
    let mut connection = connect(&target).await;
    connection.ready().await.unwrap();
    drop(connection);
    assert_eq!(counted.await.unwrap(), Some(0));
}

#[tokio::test]
async fn a_request_that_was_read_and_not_answered_has_an_unknown_fate() {
    let (target, played) = Exchange::new().await.play(async |mut stream| {
        read_order(&mut stream).await;
    });
    let mut connection = connect(&target).await;
    connection.ready().await.unwrap();
    assert!(matches!(connection.send(order(), &LIMITS).await, Fate::Unknown(Silence::Lost)));
    played.await.unwrap();
}

#[tokio::test]
async fn an_answer_that_comes_too_late_is_never_taken_for_the_next_one() {
    let (target, played) = Exchange::new().await.play(async |mut stream| {
        read_order(&mut stream).await;
        stream.read_u8().await.is_err()
    });
    let (mut connection, home) = connect_at_home(&target).await;
    connection.ready().await.unwrap();
    let limits = AnswerLimits { timeout: Duration::from_millis(100), ..LIMITS };
    assert!(matches!(connection.send(order(), &limits).await, Fate::Unknown(Silence::Late)));
    assert!(home.take(Duration::MAX).is_none(), "what is still to come over it is nobody's");
    assert!(played.await.unwrap(), "the connection is closed");
}

#[tokio::test]
async fn a_request_on_a_connection_that_the_exchange_closed_comes_back() {
    let (close, closing) = oneshot::channel::<()>();
    let (target, played) = Exchange::new().await.play(async |mut stream| {
        closing.await.unwrap();
        let mut bytes = Vec::new();
        stream.shutdown().await.unwrap();
        let _may_be_reset = stream.read_to_end(&mut bytes).await;
        bytes.len()
    });
    let mut connection = connect(&target).await;
    connection.ready().await.unwrap();
    close.send(()).unwrap();
    // Long enough for the end to arrive on loopback; a shorter wait could only make this test fail.
    tokio::time::sleep(Duration::from_millis(200)).await;

    let fate = connection.send(order(), &LIMITS).await;
    let Fate::Unsent(request) = fate else { panic!("{fate:?}") };
    let (head, body) = request.into_parts();
    assert_eq!(head.headers["api-sign"], "signature");
    assert_eq!(body.collect().await.unwrap().to_bytes(), "nonce=1&volume=2");
    assert_eq!(played.await.unwrap(), 0);
}

#[tokio::test]
async fn a_closed_connection_is_noticed_before_a_nonce_is_spent() {
    let (close, closing) = oneshot::channel::<()>();
    let (target, played) = Exchange::new().await.play(async |stream| {
        closing.await.unwrap();
        drop(stream);
    });
    let mut connection = connect(&target).await;
    connection.ready().await.unwrap();
    close.send(()).unwrap();
    played.await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(connection.ready().await, Err(Closed));
    assert!(!connection.is_open());
}

#[tokio::test]
async fn an_end_that_the_runtime_has_not_seen_yet_is_noticed_too() {
    let (close, closing) = oneshot::channel::<()>();
    let (target, played) = Exchange::new().await.play(async |stream| {
        closing.await.unwrap();
        drop(stream);
    });
    let mut connection = connect(&target).await;
    connection.ready().await.unwrap();
    close.send(()).unwrap();
    played.await.unwrap();
    assert_eq!(connection.ready().await, Err(Closed));
}

#[tokio::test]
async fn a_body_that_is_cut_or_too_long_is_an_answer_in_part() {
    for (answer, why) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", CutShort::TooLong),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", CutShort::Cut),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n", CutShort::Cut),
        ("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n01234567890123456789", CutShort::TooLong),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n01234567890123456789\r\n0\r\n\r\n",
            CutShort::TooLong,
        ),
    ] {
        let (target, played) = Exchange::new().await.play(async move |mut stream| {
            read_order(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let (connection, home) = connect_at_home(&target).await;
        let limits = AnswerLimits { bytes_max: 10, ..LIMITS };
        let Fate::Answered(response) = connection.send(order(), &limits).await else { panic!("no head of {answer}") };
        let part = read_whole(*response, usize::MAX).await.expect_err(answer);
        assert_eq!((part.status, part.why), (StatusCode::OK, why), "{answer}");
        assert!(home.take(Duration::MAX).is_none(), "{answer}");
        played.await.unwrap();
    }
}

#[tokio::test]
async fn junk_instead_of_an_answer_is_an_unknown_fate() {
    let (target, played) = Exchange::new().await.play(async |mut stream| {
        read_order(&mut stream).await;
        stream.write_all(b"\x15\x03\x01 not http\r\n\r\n").await.unwrap();
    });
    assert!(matches!(connect(&target).await.send(order(), &LIMITS).await, Fate::Unknown(Silence::Lost)));
    played.await.unwrap();
}

#[tokio::test]
async fn a_dropped_send_closes_the_connection() {
    let (target, played) = Exchange::new().await.play(async |mut stream| {
        read_order(&mut stream).await;
        stream.read_u8().await.is_err()
    });
    let mut connection = connect(&target).await;
    connection.ready().await.unwrap();
    let given_up = timeout_of(connection.send(order(), &LIMITS)).await;
    assert!(given_up.is_err());
    assert!(played.await.unwrap());
}

async fn timeout_of<T>(future: impl Future<Output = T>) -> Result<T, tokio::time::error::Elapsed> {
    tokio::time::timeout(Duration::from_millis(200), future).await
}

#[tokio::test]
async fn the_head_comes_before_the_body_and_the_body_as_it_is_sent() {
    let (go_on, going_on) = oneshot::channel::<()>();
    let (target, played) = Exchange::new().await.play(async |mut stream| {
        read_order(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234").await.unwrap();
        going_on.await.unwrap();
        stream.write_all(b"56789").await.unwrap();
        let _until_the_client_leaves = stream.read_u8().await;
    });
    let (connection, home) = connect_at_home(&target).await;
    let Fate::Answered(answer) = connection.send(order(), &LIMITS).await else { panic!("no head") };
    let mut body = answer.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "01234");
    assert!(home.take(Duration::MAX).is_none(), "half of the answer is still to come");
    go_on.send(()).unwrap();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "56789");
    assert!(home.take(Duration::MAX).is_some());
    played.await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_dropped_half_read_closes_its_connection() {
    let (target, played) = Exchange::new().await.play(async |mut stream| {
        read_order(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234").await.unwrap();
        stream.read_u8().await.is_err()
    });
    let (connection, home) = connect_at_home(&target).await;
    let Fate::Answered(answer) = connection.send(order(), &LIMITS).await else { panic!("no head") };
    drop(answer);
    assert!(played.await.unwrap());
    assert!(home.take(Duration::MAX).is_none());
}

#[tokio::test]
async fn a_body_that_stands_still_is_cut_short() {
    let (target, played) = Exchange::new().await.play(async |mut stream| {
        read_order(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234").await.unwrap();
        stream.read_u8().await.is_err()
    });
    let limits = AnswerLimits { stall: Duration::from_millis(100), ..LIMITS };
    let Fate::Answered(answer) = connect(&target).await.send(order(), &limits).await else { panic!("no head") };
    let part = read_whole(*answer, usize::MAX).await.expect_err("half of it never comes");
    assert_eq!(part.why, CutShort::Stalled);
    assert!(played.await.unwrap(), "the connection is closed");
}

#[tokio::test]
async fn interim_answers_are_no_answer() {
    let (target, played) = Exchange::new().await.play(async |mut stream| {
        read_order(&mut stream).await;
        let interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
        stream.write_all(interim).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await.unwrap();
    });
    let answer = whole(connect(&target).await.send(order(), &LIMITS).await).await;
    assert_eq!((answer.status(), answer.body().as_ref()), (StatusCode::OK, b"{}".as_slice()));
    assert!(answer.headers().get("link").is_none());
    played.await.unwrap();
}

#[tokio::test]
async fn a_place_that_asks_us_to_stay_away_is_left_alone_and_another_header_of_that_name_is_not_heeded() {
    for (answer, is_away) in [
        ("HTTP/1.1 429 Too Many Requests\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", false),
        ("HTTP/1.1 202 Accepted\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n", false),
    ] {
        let (target, played) = Exchange::new().await.play(async move |mut stream| {
            read_order(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let (connection, home) = connect_at_home(&target).await;
        assert_eq!(home.check(), Ok(()));
        whole(connection.send(order(), &LIMITS).await).await;
        assert_eq!(matches!(home.check(), Err(NotOpened::Status { .. })), is_away, "{answer}");
        played.await.unwrap();
    }
}

#[tokio::test]
async fn idle_connections_are_bounded_in_number_and_closed_after_their_time() {
    let exchange = Exchange::new().await;
    let target = exchange.target.clone();
    let ended = tokio::spawn(async move {
        let mut ended = Vec::new();
        for _ in 0..2 {
            let (socket, _) = exchange.listener.accept().await.unwrap();
            let mut stream = exchange.acceptor.accept(socket).await.unwrap();
            ended.push(tokio::spawn(async move { stream.read_u8().await.is_err() }));
        }
        for ended in ended {
            assert!(ended.await.unwrap());
        }
    });
    let home = Home::new(1, Duration::from_millis(200));
    for _ in 0..2 {
        connect(&target).await.at_home(Arc::downgrade(&home)).keep();
    }
    let kept = home.take(Duration::MAX).expect("one is kept");
    assert!(home.take(Duration::MAX).is_none(), "and one alone");
    kept.keep();
    assert!(home.take(Duration::ZERO).is_none(), "it was idle for longer than that");
    ended.await.unwrap();
    assert!(home.take(Duration::MAX).is_none());
}

// A place full of connections too old for orders closed every new one after its first order.
#[tokio::test]
async fn a_full_place_keeps_the_connection_that_came_back_last() {
    let exchange = Exchange::new().await;
    let target = exchange.target.clone();
    let played = tokio::spawn(async move {
        let mut streams = Vec::new();
        for _ in 0..2 {
            let (socket, _) = exchange.listener.accept().await.unwrap();
            streams.push(exchange.acceptor.accept(socket).await.unwrap());
        }
        let [mut first, mut last] = <[_; 2]>::try_from(streams).ok().unwrap();
        assert!(first.read_u8().await.is_err(), "the first is closed, and was never used");
        read_order(&mut last).await;
        last.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    });
    let home = Home::new(1, Duration::from_secs(60));
    for _ in 0..2 {
        connect(&target).await.at_home(Arc::downgrade(&home)).keep();
    }
    let mut kept = home.take(Duration::MAX).expect("one is kept");
    assert!(home.take(Duration::MAX).is_none(), "and one alone");
    kept.ready().await.unwrap();
    assert_eq!(kept.send(order(), &LIMITS).await.word(), "answered");
    played.await.unwrap();
}
