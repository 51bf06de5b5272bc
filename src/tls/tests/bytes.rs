//! What is written arrives, in whatever pieces it goes.

use super::other_end::{Settings, VERSIONS, We, look, pattern, read, send, within};
use crate::tls::Stream;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::Poll;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Every small size, every one around the ends of records, and some between.
fn sizes() -> impl Iterator<Item = usize> {
    let around = (1..=4).flat_map(|records| records * 16_384 - 3..=records * 16_384 + 3);
    (0..=260).chain(around).chain((300..=70_000).step_by(4_999)).chain([70_000])
}

/// Sends back what comes, in pieces of odd sizes, until the peer closes.
async fn echo(mut ours: Stream) -> io::Result<()> {
    let mut piece = 1;
    loop {
        let plaintext = read(&mut ours).await?;
        if plaintext.is_empty() {
            return ours.shutdown().await;
        }
        for piece in plaintext.chunks(piece) {
            ours.seal(piece)?;
        }
        std::future::poll_fn(|cx| ours.poll_send(cx)).await?;
        piece = (piece + 1_237) % 40_000;
    }
}

async fn echoes(theirs: tokio_rustls::TlsStream<tokio::net::TcpStream>) {
    let (mut reader, mut writer) = tokio::io::split(theirs);
    for (round, size) in sizes().enumerate() {
        let told = pattern(size);
        let mut heard = vec![0; size];
        let write = async {
            for piece in told.chunks(1 + round * 613 % 20_000) {
                writer.write_all(piece).await.unwrap();
            }
            writer.flush().await.unwrap();
        };
        let (_, heard_all) = within(async { tokio::join!(write, reader.read_exact(&mut heard)) }).await;
        heard_all.unwrap();
        assert!(heard == told, "{size} bytes changed");
    }
    writer.shutdown().await.unwrap();
    assert_eq!(reader.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn every_size_comes_back_in_both_roles_and_versions() {
    for version in VERSIONS {
        for we in [We::Call, We::AreCalled] {
            let (ours, theirs) = Settings::new(&[version]).meet(we).await;
            let (echoed, ()) = tokio::join!(echo(ours), echoes(theirs));
            echoed.unwrap();
        }
    }
}

#[tokio::test]
async fn every_size_comes_back_through_the_traits_of_tokio() {
    for we in [We::Call, We::AreCalled] {
        let (ours, theirs) = Settings::new(&VERSIONS).meet(we).await;
        let copy = async {
            let (mut reader, mut writer) = tokio::io::split(ours);
            tokio::io::copy(&mut reader, &mut writer).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        tokio::join!(copy, echoes(theirs));
    }
}

#[tokio::test]
async fn what_does_not_fit_into_the_callers_buffer_waits_for_the_next() {
    let (mut ours, mut theirs) = Settings::new(&VERSIONS).meet(We::AreCalled).await;
    let told = pattern(50_000);
    theirs.write_all(&told).await.unwrap();
    let mut heard = Vec::new();
    for size in [1, 2, 3, 500, 7_000].into_iter().cycle() {
        let mut piece = vec![0; size];
        let count = ours.read(&mut piece).await.unwrap();
        heard.extend_from_slice(&piece[..count]);
        if heard.len() > 40_000 {
            break;
        }
    }
    // And for whoever asks in another way.
    while heard.len() < told.len() {
        heard.extend(read(&mut ours).await.unwrap());
    }
    assert!(heard == told);
    assert_eq!(ours.received_bytes() + ours.kept_bytes(), 0);
}

#[tokio::test]
async fn bytes_that_come_one_at_a_time_make_the_same_records() {
    for version in VERSIONS {
        for we in [We::Call, We::AreCalled] {
            let (mut ours, mut theirs) = Settings::new(&[version]).meet_by_hand(we).await;
            let told = [&b"a"[..], b"", b"the second", &pattern(300)].concat();
            let mut records = theirs.seal(b"a");
            records.extend(theirs.seal(b"the second"));
            records.extend(theirs.seal(&pattern(300)));
            let mut heard = Vec::new();
            for byte in &records {
                theirs.send(std::slice::from_ref(byte)).await;
                let _ = look(&mut ours, &mut heard).await;
            }
            assert_eq!(heard, told);
            assert_eq!(ours.kept_bytes(), 0);
        }
    }
}

#[tokio::test]
async fn a_record_may_be_cut_anywhere() {
    let (mut ours, mut theirs) = Settings::new(&VERSIONS).meet_by_hand(We::AreCalled).await;
    for cut in 1.. {
        let records = theirs.seal(b"0123456789");
        if cut == records.len() {
            return;
        }
        let mut heard = Vec::new();
        theirs.send(&records[..cut]).await;
        assert!(look(&mut ours, &mut heard).await.is_pending(), "{cut}");
        assert_eq!(ours.kept_bytes(), cut);
        theirs.send(&records[cut..]).await;
        assert!(matches!(look(&mut ours, &mut heard).await, Poll::Ready(Ok(10))), "{cut}");
        assert_eq!(heard, b"0123456789");
        assert_eq!(ours.kept_bytes(), 0);
    }
}

#[tokio::test]
async fn many_records_in_one_read_come_one_by_one_and_in_order() {
    let (mut ours, mut theirs) = Settings::new(&VERSIONS).meet_by_hand(We::Call).await;
    let told: Vec<Vec<u8>> = (1..=200).map(pattern).collect();
    let records: Vec<u8> = told.iter().flat_map(|message| theirs.seal(message)).collect();
    let mut heard = Vec::new();
    theirs.send(&records).await;
    ours.tcp().readable().await.unwrap();
    while heard.len() < told.len() {
        let take = &mut |plaintext: &[u8]| heard.push(plaintext.to_vec());
        std::future::poll_fn(|cx| ours.poll_records(cx, take)).await.unwrap();
    }
    assert!(heard == told);
}

#[tokio::test]
async fn several_seals_leave_in_one_write_and_in_order() {
    let (mut ours, mut theirs) = Settings::new(&VERSIONS).meet(We::AreCalled).await;
    ours.seal(b"one ").unwrap();
    ours.seal(b"").unwrap();
    let waiting = ours.sealed_bytes();
    ours.seal(b"two ").unwrap();
    assert_eq!(ours.sealed_bytes(), 2 * waiting);
    send(&mut ours, b"three").await.unwrap();
    assert_eq!(ours.sealed_bytes(), 0);
    let mut heard = [0; 13];
    theirs.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"one two three");
}

#[tokio::test]
async fn slices_leave_together_as_one_record() {
    let (mut ours, mut theirs) = Settings::new(&VERSIONS).meet_by_hand(We::Call).await;
    assert!(ours.is_write_vectored());
    let slices = [IoSlice::new(b"head "), IoSlice::new(b""), IoSlice::new(b"body")];
    let written = std::future::poll_fn(|cx| Pin::new(&mut ours).poll_write_vectored(cx, &slices)).await.unwrap();
    assert_eq!(written, 9);
    let mut record = vec![0; 100];
    let count = theirs.socket.read(&mut record).await.unwrap();
    assert_eq!(usize::from(u16::from_be_bytes([record[3], record[4]])), count - 5, "more than one record");
    theirs.connection.read_tls(&mut &record[..count]).unwrap();
    assert_eq!(theirs.connection.process_new_packets().unwrap().plaintext_bytes_to_read(), 9);
}

#[tokio::test]
async fn smaller_records_than_the_usual_are_written_too() {
    let mut settings = Settings::new(&VERSIONS);
    settings.server.max_fragment_size = Some(64);
    let (mut ours, mut theirs) = settings.meet(We::AreCalled).await;
    let told = pattern(9_000);
    send(&mut ours, &told).await.unwrap();
    let mut heard = vec![0; told.len()];
    theirs.read_exact(&mut heard).await.unwrap();
    assert!(heard == told);
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_the_writer_up() {
    let (mut ours, mut theirs) = Settings::new(&VERSIONS).meet(We::AreCalled).await;
    let mut told = 0;
    let piece = pattern(30_011);
    let mut written = 0;
    // Until the socket takes nothing and there is no room left.
    loop {
        let poll =
            std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut ours).poll_write(cx, &piece[told % piece.len()..])));
        match poll.await {
            Poll::Ready(count) => told += count.unwrap(),
            Poll::Pending => break,
        }
        written += 1;
        assert!(written < 10_000, "nothing holds it up");
    }
    assert!(ours.sealed_bytes() < 2 * 64 * 1024 + 1_000, "{}", ours.sealed_bytes());
    let flushed = std::future::poll_fn(|cx| Poll::Ready(ours.poll_send(cx))).await;
    assert!(flushed.is_pending());

    let mut heard = Vec::new();
    let read = async {
        while heard.len() < told {
            assert_ne!(theirs.read_buf(&mut heard).await.unwrap(), 0);
        }
    };
    let (flushed, ()) = tokio::join!(ours.flush(), read);
    flushed.unwrap();
    assert!(heard.iter().enumerate().all(|(at, byte)| *byte == piece[at % piece.len()]));
    assert_eq!(ours.sealed_bytes(), 0);
}

#[tokio::test]
async fn what_is_sealed_without_being_sent_waits_whole() {
    let (mut ours, mut theirs) = Settings::new(&VERSIONS).meet(We::Call).await;
    let told = pattern(1_000_000);
    ours.seal(&told).unwrap();
    assert!(ours.sealed_bytes() > told.len());
    let mut heard = vec![0; told.len()];
    let sent = std::future::poll_fn(|cx| ours.poll_send(cx));
    let (sent, heard_all) = tokio::join!(sent, theirs.read_exact(&mut heard));
    sent.unwrap();
    heard_all.unwrap();
    assert!(heard == told);
}

#[tokio::test]
async fn a_connection_at_rest_or_gone_holds_no_lent_buffer() {
    let (mut ours, mut theirs) = Settings::new(&VERSIONS).meet_by_hand(We::AreCalled).await;
    let at_rest = crate::buffer::kept_count();
    assert!(at_rest > 0);
    ours.seal(b"not sent").unwrap();
    let records = theirs.seal(&pattern(3_000));
    theirs.send(&records).await;
    ours.read_exact(&mut [0; 10]).await.unwrap();
    assert!(ours.received_bytes() > 0 && ours.sealed_bytes() > 0);
    assert!(crate::buffer::kept_count() < at_rest);
    drop(ours);
    assert!(crate::buffer::kept_count() >= at_rest);
}
