//! How a connection ends: by a goodbye, by a cut, or because a peer broke the protocol.

use super::other_end::{ByHand, Settings, VERSIONS, We, look, pattern, read, send, sockets};
use crate::tls::Stream;
use rustls::{AlertDescription, Error};
use std::io::{self, ErrorKind};
use std::task::Poll;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn a_goodbye_ends_one_direction_alone() {
    for version in VERSIONS {
        for we in [We::Call, We::AreCalled] {
            let (mut ours, mut theirs) = Settings::new(&[version]).meet(we).await;
            ours.write_all(b"last").await.unwrap();
            ours.shutdown().await.unwrap();
            let mut heard = Vec::new();
            theirs.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"last");
            assert_eq!(ours.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
            assert_eq!(ours.seal(b"more").unwrap_err().kind(), ErrorKind::BrokenPipe);

            theirs.write_all(b"still here").await.unwrap();
            theirs.shutdown().await.unwrap();
            assert_eq!(read(&mut ours).await.unwrap(), b"still here");
            assert_eq!(read(&mut ours).await.unwrap(), b"");
            assert_eq!(ours.read(&mut [0]).await.unwrap(), 0);
            ours.shutdown().await.unwrap();
        }
    }
}

#[tokio::test]
async fn the_peers_goodbye_leaves_us_free_to_send() {
    for we in [We::Call, We::AreCalled] {
        let (mut ours, mut theirs) = Settings::new(&VERSIONS).meet(we).await;
        theirs.shutdown().await.unwrap();
        assert_eq!(read(&mut ours).await.unwrap(), b"");
        send(&mut ours, b"an answer").await.unwrap();
        ours.shutdown().await.unwrap();
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"an answer");
    }
}

#[tokio::test]
async fn a_cut_is_told_from_a_goodbye_by_both_sides() {
    for we in [We::Call, We::AreCalled] {
        let (mut ours, mut theirs) = Settings::new(&VERSIONS).meet_by_hand(we).await;
        let records = theirs.seal(b"last");
        theirs.send(&records).await;
        theirs.socket.shutdown().await.unwrap();
        assert_eq!(read(&mut ours).await.unwrap(), b"last");
        for _ in 0..2 {
            assert_eq!(read(&mut ours).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        }
        assert_eq!(ours.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
    let (ours, mut theirs) = Settings::new(&VERSIONS).meet(We::AreCalled).await;
    drop(ours);
    assert_eq!(theirs.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_cut_in_the_middle_of_a_record_gives_nothing_of_it() {
    let (mut ours, mut theirs) = Settings::new(&VERSIONS).meet_by_hand(We::AreCalled).await;
    let records = theirs.seal(&pattern(1_000));
    theirs.send(&records[..records.len() - 1]).await;
    theirs.socket.shutdown().await.unwrap();
    assert_eq!(read(&mut ours).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(ours.kept_bytes(), 0);
}

#[tokio::test]
async fn what_came_with_the_goodbye_is_given_before_it() {
    let (mut ours, mut theirs) = Settings::new(&VERSIONS).meet_by_hand(We::AreCalled).await;
    let mut records = theirs.seal(b"last");
    theirs.connection.send_close_notify();
    records.extend(theirs.seal(b""));
    theirs.send(&records).await;
    let mut heard = Vec::new();
    assert!(matches!(look(&mut ours, &mut heard).await, Poll::Ready(Ok(4))));
    assert_eq!(heard, b"last");
    assert_eq!(read(&mut ours).await.unwrap(), b"");
}

/// What the error is that rustls found.
fn cause(error: &io::Error) -> Error {
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    error.get_ref().and_then(|cause| cause.downcast_ref::<Error>()).unwrap().clone()
}

/// Sends these bytes after a good record: the record is given, then the error; the peer hears the alert, and what we do
/// after that fails and does not panic.
async fn breaks(ours: &mut Stream, theirs: &mut ByHand, bytes: &[u8]) -> (Error, AlertDescription) {
    let mut records = theirs.seal(b"good");
    records.extend(bytes);
    theirs.send(&records).await;
    assert_eq!(read(ours).await.unwrap(), b"good");
    let error = cause(&read(ours).await.unwrap_err());
    assert_eq!(cause(&read(ours).await.unwrap_err()), error);
    assert_eq!(cause(&ours.seal(b"more").unwrap_err()), error);
    assert_eq!(cause(&ours.write(b"more").await.unwrap_err()), error);
    let alert = match theirs.read().await {
        Err(Error::AlertReceived(alert)) => alert,
        other => panic!("no alert: {other:?}"),
    };
    ours.shutdown().await.unwrap();
    assert_eq!(theirs.socket.read(&mut [0]).await.unwrap(), 0);
    (error, alert)
}

#[tokio::test]
async fn a_damaged_record_ends_the_connection_and_the_peer_hears_of_it() {
    for version in VERSIONS {
        for we in [We::Call, We::AreCalled] {
            let (mut ours, mut theirs) = Settings::new(&[version]).meet_by_hand(we).await;
            let good = theirs.seal(b"good");
            theirs.send(&good).await;
            assert_eq!(read(&mut ours).await.unwrap(), b"good");
            let mut damaged = theirs.seal(b"better");
            // The records come in another order than they were sealed in, or changed on their way.
            *damaged.last_mut().unwrap() ^= 1;
            theirs.send(&damaged).await;
            let error = cause(&read(&mut ours).await.unwrap_err());
            assert_eq!(error, Error::DecryptError);
            assert_eq!(theirs.read().await, Err(Error::AlertReceived(AlertDescription::BadRecordMac)));
        }
    }
}

#[tokio::test]
async fn what_is_no_record_ends_the_connection_and_the_peer_hears_of_it() {
    let (mut ours, mut theirs) = Settings::new(&VERSIONS).meet_by_hand(We::AreCalled).await;
    let (error, alert) = breaks(&mut ours, &mut theirs, b"GET / HTTP/1.1\r\n\r\n").await;
    assert!(matches!(error, Error::InvalidMessage(_)), "{error:?}");
    assert_eq!(alert, AlertDescription::DecodeError);
}

#[tokio::test]
async fn a_record_that_says_it_is_too_long_ends_the_connection_at_its_header() {
    let (mut ours, mut theirs) = Settings::new(&VERSIONS).meet_by_hand(We::Call).await;
    let (error, _) = breaks(&mut ours, &mut theirs, &[0x17, 3, 3, 0xff, 0xff]).await;
    assert!(matches!(error, Error::InvalidMessage(_) | Error::PeerSentOversizedRecord), "{error:?}");
}

#[tokio::test]
async fn an_alert_of_the_peer_is_the_error() {
    let (mut ours, mut theirs) = Settings::new(&VERSIONS).meet_by_hand(We::AreCalled).await;
    // What it is told breaks the protocol, so it says why it ends.
    ours.seal(b"x").unwrap();
    let mut garbage = ours.sealed().to_vec();
    *garbage.last_mut().unwrap() ^= 1;
    theirs.connection.read_tls(&mut garbage.as_slice()).unwrap();
    theirs.connection.process_new_packets().unwrap_err();
    let mut alert = Vec::new();
    theirs.connection.write_tls(&mut alert).unwrap();
    theirs.send(&alert).await;
    let error = cause(&read(&mut ours).await.unwrap_err());
    assert_eq!(error, Error::AlertReceived(AlertDescription::BadRecordMac));
}

#[tokio::test]
async fn a_handshake_that_is_none_fails_and_is_not_waited_for() {
    let acceptor = Settings::new(&VERSIONS).acceptor();
    for bytes in [&b"\x16\x03\x01\xff\xff"[..], b"hello, is this TLS?", &[0; 64]] {
        let (mut calling, called) = sockets().await;
        calling.write_all(bytes).await.unwrap();
        let error = acceptor.accept(called).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{bytes:?}");
        let mut answer = Vec::new();
        let _may_be_reset = calling.read_to_end(&mut answer).await;
        assert_eq!(answer.first(), Some(&0x15), "no alert to {bytes:?}");
    }
    // A header of a handshake record, and in it the header of a message of 16 MiB.
    let (mut calling, called) = sockets().await;
    calling.write_all(&[0x16, 3, 1, 0, 5, 1, 0xff, 0xff, 0xff, 0]).await.unwrap();
    assert_eq!(acceptor.accept(called).await.unwrap_err().kind(), ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_peer_that_leaves_during_the_handshake_fails_it() {
    let settings = Settings::new(&VERSIONS);
    let (calling, called) = sockets().await;
    drop(calling);
    assert_eq!(settings.acceptor().accept(called).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);

    let (calling, mut called) = sockets().await;
    let leave = async {
        let mut hello = [0; 8];
        called.read_exact(&mut hello).await.unwrap();
        assert_eq!(hello[0], 0x16);
        drop(called);
    };
    let connector = settings.connector();
    let (opened, ()) = tokio::join!(connector.connect(super::other_end::localhost(), calling), leave);
    assert_eq!(opened.unwrap_err(), crate::tls::HandshakeFailed::Broken);
}

#[tokio::test]
async fn a_hello_that_never_ends_is_cut_off() {
    let acceptor = Settings::new(&VERSIONS).acceptor();
    let (mut calling, called) = sockets().await;
    // A message of 65,535 bytes, one byte in each record: seven times as much as it would be at the end.
    let say = async move {
        calling.write_all(&[0x16, 3, 1, 0, 4, 1, 0, 0xff, 0xff]).await?;
        let bytes = [0x16, 3, 1, 0, 1, 0].repeat(0xffff);
        calling.write_all(&bytes).await
    };
    let (accepted, _may_be_reset) = tokio::join!(acceptor.accept(called), say);
    assert_eq!(accepted.unwrap_err().kind(), ErrorKind::InvalidData);
}
