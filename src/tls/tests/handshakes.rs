//! Handshakes with an implementation that is not ours, and what TLS itself says after them.

use super::other_end::{ByHand, Settings, VERSIONS, We, localhost, pattern, read, send, sockets, within};
use super::{Authority, CertificateDer, Scratch, ServerName, chain, now, settings};
use crate::tls::Stream;
use rustls::{Connection, HandshakeKind, ProtocolVersion, ServerConnection};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn both_versions_are_spoken_in_both_roles() {
    for (version, expected) in VERSIONS.into_iter().zip([ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3]) {
        for we in [We::Call, We::AreCalled] {
            let (ours, theirs) = Settings::new(&[version]).meet(we).await;
            assert_eq!(ours.facts().protocol_version(), Some(expected));
            assert_eq!(theirs.get_ref().1.protocol_version(), Some(expected));
        }
    }
}

#[tokio::test]
async fn keys_are_exchanged_so_that_a_quantum_computer_does_not_find_them() {
    let (ours, _theirs) = Settings::new(&VERSIONS).meet(We::AreCalled).await;
    let group = ours.facts().negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
}

/// A tokio-rustls client of an acceptor of ours.
async fn call(
    acceptor: &crate::tls::Acceptor,
    connector: &tokio_rustls::TlsConnector,
    name: &str,
) -> (Stream, tokio_rustls::client::TlsStream<TcpStream>) {
    let (calling, called) = sockets().await;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let (ours, theirs) = tokio::join!(acceptor.accept(called), connector.connect(name, calling));
    let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
    send(&mut ours, b"!").await.unwrap();
    theirs.read_exact(&mut [0]).await.unwrap();
    (ours, theirs)
}

#[tokio::test]
async fn the_name_asked_for_is_known_in_full_and_resumed_handshakes() {
    for version in VERSIONS {
        let settings = Settings::new(&[version]);
        let (acceptor, connector) =
            (settings.acceptor(), tokio_rustls::TlsConnector::from(Arc::new(settings.client.clone())));
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (ours, theirs) = call(&acceptor, &connector, "localhost").await;
            assert_eq!(ours.server_name(), Some("localhost"));
            assert_eq!(ours.handshake_kind(), Some(expected));
            assert_eq!(theirs.get_ref().1.handshake_kind(), Some(expected));
        }
    }
}

#[tokio::test]
async fn a_client_that_names_nobody_has_no_name_whoever_came_before_it() {
    let (scratch, authority) = (Scratch::new(), Authority::new());
    let acceptor = settings(&scratch, &[&authority.leaf(&["localhost", "127.0.0.1"])]).load(now()).unwrap();
    let connector = tokio_rustls::TlsConnector::from(authority.client_config());
    for (name, expected) in [("localhost", Some("localhost")), ("127.0.0.1", None), ("LOCALHOST", Some("localhost"))] {
        assert_eq!(call(&acceptor, &connector, name).await.0.server_name(), expected);
    }
}

#[tokio::test]
async fn the_certificate_of_a_client_is_seen() {
    let (scratch, authority, clients) = (Scratch::new(), Authority::new(), Authority::new());
    let mut settings = settings(&scratch, &[&authority.leaf(&["localhost"])]);
    settings.client_authority = Some(scratch.write("client-ca.pem", &clients.pem, 0o644));
    let acceptor = settings.load(now()).unwrap();
    let bot = clients.leaf(&["bot-a"]);
    let with = tokio_rustls::TlsConnector::from(authority.client_config_as(&bot));
    assert_eq!(call(&acceptor, &with, "localhost").await.0.peer_certificates(), chain(&bot));
    let without = tokio_rustls::TlsConnector::from(authority.client_config());
    assert_eq!(call(&acceptor, &without, "localhost").await.0.peer_certificates(), [] as [CertificateDer<'_>; 0]);
}

#[tokio::test]
async fn the_second_connection_to_a_server_resumes_the_first() {
    for version in VERSIONS {
        let settings = Settings::new(&[version]);
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(settings.server.clone()));
        let connector = settings.connector();
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (calling, called) = sockets().await;
            let (ours, theirs) = tokio::join!(connector.connect(localhost(), calling), acceptor.accept(called));
            let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
            // The tickets come before it.
            theirs.write_all(b"!").await.unwrap();
            assert_eq!(read(&mut ours).await.unwrap(), b"!");
            assert_eq!(ours.handshake_kind(), Some(expected));
            assert_eq!(theirs.get_ref().1.handshake_kind(), Some(expected));
        }
    }
}

/// A server whose tickets wait to be sent by hand, in records of 32 bytes.
async fn with_held_tickets(settings: &Settings) -> (Stream, ByHand, Vec<u8>) {
    let mut server = settings.server.clone();
    server.max_fragment_size = Some(32);
    let (calling, called) = sockets().await;
    let connection = ServerConnection::new(Arc::new(server)).unwrap();
    let mut theirs = ByHand { socket: called, connection: Connection::Server(connection) };
    let connector = settings.connector();
    let shake = async {
        let mut received = vec![0; 16 * 1024];
        while theirs.connection.is_handshaking() {
            let count = theirs.socket.read(&mut received).await.unwrap();
            theirs.connection.read_tls(&mut &received[..count]).unwrap();
            theirs.connection.process_new_packets().unwrap();
            if theirs.connection.is_handshaking() {
                let flight = theirs.seal(b"");
                theirs.send(&flight).await;
            }
        }
    };
    let (ours, ()) = within(async { tokio::join!(connector.connect(localhost(), calling), shake) }).await;
    let tickets = theirs.seal(b"");
    assert!(tickets.len() > 200, "tickets in one record");
    (ours.unwrap(), theirs, tickets)
}

#[tokio::test]
async fn we_may_write_while_half_a_ticket_has_come() {
    let settings = Settings::new(&[&rustls::version::TLS13]);
    for cut in [1, 5, 30, 60, 61, 120, 150] {
        let (mut ours, mut theirs, tickets) = with_held_tickets(&settings).await;
        theirs.send(&tickets[..cut]).await;
        assert!(super::other_end::look(&mut ours, &mut Vec::new()).await.is_pending());
        send(&mut ours, b"in between").await.unwrap();
        assert_eq!(theirs.read().await.unwrap(), b"in between");

        let mut rest = tickets[cut..].to_vec();
        rest.extend(theirs.seal(b"behind"));
        theirs.send(&rest).await;
        assert_eq!(read(&mut ours).await.unwrap(), b"behind");
        assert_eq!(ours.kept_bytes(), 0);
    }
    // The tickets were whole.
    assert_eq!(with_held_tickets(&settings).await.0.handshake_kind(), Some(HandshakeKind::Resumed));
}

#[tokio::test]
async fn tickets_alone_are_no_plaintext_and_no_end() {
    let settings = Settings::new(&[&rustls::version::TLS13]);
    let (mut ours, mut theirs, tickets) = with_held_tickets(&settings).await;
    for byte in tickets.chunks(7) {
        theirs.send(byte).await;
        assert!(super::other_end::look(&mut ours, &mut Vec::new()).await.is_pending());
    }
    assert_eq!(ours.kept_bytes(), 0);
    let behind = theirs.seal(b"behind");
    theirs.send(&behind).await;
    assert_eq!(read(&mut ours).await.unwrap(), b"behind");
}

#[tokio::test]
async fn new_keys_of_the_peer_are_followed_and_answered() {
    for we in [We::Call, We::AreCalled] {
        let (mut ours, mut theirs) = Settings::new(&[&rustls::version::TLS13]).meet_by_hand(we).await;
        for round in 0..20 {
            theirs.connection.refresh_traffic_keys().unwrap();
            let told = pattern(1 + round * 2_000);
            let records = theirs.seal(&told);
            theirs.send(&records).await;
            let mut heard = Vec::new();
            while heard.len() < told.len() {
                heard.extend(read(&mut ours).await.unwrap());
            }
            assert!(heard == told, "{round}");
            // The answer, which has keys of its own, goes before this.
            send(&mut ours, b"with new keys").await.unwrap();
            assert_eq!(theirs.read().await.unwrap(), b"with new keys");
        }
    }
}

#[tokio::test]
async fn what_came_with_the_last_words_of_a_handshake_is_not_lost() {
    let settings = Settings::new(&[&rustls::version::TLS13]);
    let (mut calling, called) = sockets().await;
    let mut theirs = rustls::ClientConnection::new(Arc::new(settings.client.clone()), localhost()).unwrap();
    let say = async {
        let mut hello = Vec::new();
        theirs.write_tls(&mut hello).unwrap();
        calling.write_all(&hello).await.unwrap();
        let mut received = vec![0; 16 * 1024];
        while theirs.is_handshaking() {
            let count = calling.read(&mut received).await.unwrap();
            theirs.read_tls(&mut &received[..count]).unwrap();
            theirs.process_new_packets().unwrap();
        }
        // Its Finished, its first request, and half of its second, in one write.
        std::io::Write::write_all(&mut theirs.writer(), b"first").unwrap();
        std::io::Write::write_all(&mut theirs.writer(), b"second").unwrap();
        let mut records = Vec::new();
        while theirs.wants_write() {
            theirs.write_tls(&mut records).unwrap();
        }
        let (now, later) = records.split_at(records.len() - 3);
        calling.write_all(now).await.unwrap();
        later.to_vec()
    };
    let acceptor = settings.acceptor();
    let (ours, later) = tokio::join!(acceptor.accept(called), say);
    let mut ours = ours.unwrap();
    let mut heard = [0; 5];
    ours.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"first");
    calling.write_all(&later).await.unwrap();
    assert_eq!(read(&mut ours).await.unwrap(), b"second");
}
