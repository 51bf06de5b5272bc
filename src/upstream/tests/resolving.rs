//! Names: who is asked for them, and which answers are called.

use super::super::dial::{Reach, is_to_ourselves, reach};
use super::*;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::{TcpStream, UdpSocket};

/// A DNS server that gives these addresses for every name, and counts the questions.
async fn dns(answers: &[&str]) -> (Resolver, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let resolver = Resolver::with_servers(vec![socket.local_addr().unwrap()]);
    let answers: Vec<IpAddr> = answers.iter().map(|answer| answer.parse().unwrap()).collect();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut question = [0; 512];
        loop {
            let (length, peer) = socket.recv_from(&mut question).await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            socket.send_to(&answer(&question[..length], &answers), peer).await.unwrap();
        }
    });
    (resolver, asked)
}

/// RFC 1035, section 4: the question's header and question, then a record for each address of the asked kind.
fn answer(question: &[u8], addresses: &[IpAddr]) -> Vec<u8> {
    let name_end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap();
    let kind = question[name_end + 2];
    let records: Vec<Vec<u8>> = addresses
        .iter()
        .filter_map(|address| match (address, kind) {
            (IpAddr::V4(v4), 1) => Some(v4.octets().to_vec()),
            (IpAddr::V6(v6), 28) => Some(v6.octets().to_vec()),
            _ => None,
        })
        .collect();
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::try_from(records.len()).unwrap(), 0, 0, 0, 0]);
    answer.extend(&question[12..name_end + 5]);
    for record in records {
        answer.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 1, 0, 0, u8::try_from(record.len()).unwrap()]);
        answer.extend(record);
    }
    answer
}

async fn refused(exchange: &Exchange, resolver: &Resolver) -> NotOpened {
    let mut target = exchange.target.clone();
    target.addresses.clear();
    connect_http(&target, &short(), resolver).await.unwrap_err()
}

#[tokio::test]
async fn a_name_that_leads_back_to_this_machine_is_not_called() {
    let exchange = Exchange::new().await;
    for address in ["127.0.0.1", "127.8.8.8", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1"] {
        let (resolver, _) = dns(&[address]).await;
        let refused = refused(&exchange, &resolver).await;
        assert_eq!(refused, NotOpened::SelfDial, "{address}");
        assert!(refused.to_string().contains("configure `addresses`"));
    }
    let nobody_came = tokio::time::timeout(Duration::from_millis(50), exchange.listener.accept()).await;
    assert!(nobody_came.is_err());
}

#[tokio::test]
async fn a_name_that_leads_into_a_private_network_is_not_called() {
    let exchange = Exchange::new().await;
    for address in ["10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "fc00::1", "fe80::1"] {
        let (resolver, _) = dns(&[address]).await;
        assert_eq!(refused(&exchange, &resolver).await, NotOpened::PrivateAddress, "{address}");
    }
    let (resolver, _) = dns(&["10.0.0.1", "127.0.0.1", "192.168.1.1"]).await;
    assert_eq!(refused(&exchange, &resolver).await, NotOpened::SelfDial);
}

#[test]
fn public_addresses_are_public() {
    for address in ["104.16.0.1", "100.128.0.1", "172.32.0.1", "2606:4700::1", "64:ff9b::6810:1"] {
        assert_eq!(reach(address.parse().unwrap()), Reach::Public, "{address}");
    }
}

#[tokio::test]
async fn a_simulator_is_found_by_dns_where_local_is_allowed() {
    let (mut target, played) = Exchange::new().await.play(async |_| ());
    target.addresses.clear();
    target.is_local_allowed = true;
    let (resolver, asked) = dns(&["127.0.0.1"]).await;
    connect_http(&target, &DialLimits::default(), &resolver).await.unwrap();
    played.await.unwrap();
    assert!(asked.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn answers_are_kept_for_their_time() {
    let (resolver, asked) = dns(&["192.0.2.1", "2001:db8::1"]).await;
    let first = resolver.addresses(HOST).await.unwrap();
    assert_eq!(first, ["192.0.2.1".parse::<IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()]);
    let questions = asked.load(Ordering::Relaxed);
    assert_eq!(resolver.addresses(HOST).await.unwrap(), first);
    assert_eq!(asked.load(Ordering::Relaxed), questions);
}

#[tokio::test]
async fn the_hosts_file_is_not_read() {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let listed = hosts.lines().filter(|line| !line.starts_with('#')).flat_map(|line| line.split_whitespace().skip(1));
    for name in listed.filter(|name| !name.ends_with("localhost")) {
        let (resolver, _) = dns(&["192.0.2.7"]).await;
        assert_eq!(resolver.addresses(name).await.unwrap(), ["192.0.2.7".parse::<IpAddr>().unwrap()], "{name}");
    }
}

#[tokio::test]
async fn a_name_without_addresses_is_unknown() {
    let (resolver, _) = dns(&[]).await;
    assert_eq!(resolver.addresses(HOST).await, Err(NotResolved::Unknown));
}

#[tokio::test]
async fn a_dns_server_that_is_silent_costs_no_more_than_the_connect_limit() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let resolver = Resolver::with_servers(vec![silent.local_addr().unwrap()]);
    let started = std::time::Instant::now();
    assert_eq!(refused(&Exchange::new().await, &resolver).await, NotOpened::Dns(NotResolved::NoAnswer));
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_machine_without_dns_servers_says_so_and_recovers() {
    let scratch = Scratch::new();
    let (resolv_conf, systemd) = (scratch.path().join("resolv.conf"), scratch.path().join("systemd.conf"));
    let resolver = Resolver::of_system(&resolv_conf, &systemd);
    assert_eq!(resolver.addresses(HOST).await, Err(NotResolved::NoServers));
    assert_eq!(resolver.addresses("kraken.localhost").await.unwrap()[0], Ipv4Addr::LOCALHOST);

    std::fs::write(&resolv_conf, "# made by hand\nsearch corp.example\nnameserver 192.0.2.53\n").unwrap();
    assert_eq!(resolver.servers(), ["192.0.2.53:53".parse::<SocketAddr>().unwrap()]);
}

#[test]
fn behind_systemd_resolved_its_own_servers_are_asked() {
    let scratch = Scratch::new();
    let (resolv_conf, systemd) = (scratch.path().join("resolv.conf"), scratch.path().join("systemd.conf"));
    let resolver = Resolver::of_system(&resolv_conf, &systemd);
    std::fs::write(&resolv_conf, "nameserver 127.0.0.53\noptions edns0 trust-ad\n").unwrap();
    assert_eq!(resolver.servers(), ["127.0.0.53:53".parse::<SocketAddr>().unwrap()]);
    std::fs::write(&systemd, "nameserver 192.0.2.1\nnameserver 2001:db8::53\n").unwrap();
    assert_eq!(resolver.servers(), ["192.0.2.1:53", "[2001:db8::53]:53"].map(|server| server.parse().unwrap()));
}

#[tokio::test]
async fn a_connection_to_this_machine_is_known_by_its_two_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    assert!(is_to_ourselves(&socket));
}

#[test]
fn a_host_is_a_name_and_nothing_more() {
    let connector = || Connector::with_roots(&ClientRoots::WebPki).unwrap();
    for bad in ["", "https://api.kraken.com", "api.kraken.com/0", "api.kraken.com:443", "user@host", "a b"] {
        assert_eq!(Target::new(bad, 443, connector()).err(), Some(BadHost), "{bad}");
    }
    let target = Target::new("API.Kraken.com", 443, connector()).unwrap();
    assert_eq!((target.host(), target.host_header.as_bytes()), ("api.kraken.com", b"api.kraken.com".as_slice()));
    assert_eq!(Target::new("::1", 8443, connector()).unwrap().host_header, "[::1]:8443");
}
