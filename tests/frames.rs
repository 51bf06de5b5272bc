//! WebSocket frames of either side that are broken, hostile, too long, too many or never read: end to end, over real
//! TLS. Cases W1 to W20 of the fault catalogue.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by where it panics")]

mod house;

use bytes::Bytes;
use countersign::simulator::{Direction, Flood, Kind, Record, SocketAction};
use house::{House, PATIENCE, Socket};
use serde_json::json;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio_tungstenite::tungstenite::Message;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
/// The bit that ends a message.
const FIN: u8 = 0x80;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client's frame as RFC 6455, 5.2, writes it: `first` is its first byte, whatever that says.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, payload.len() as u64);
    bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ MASK[at % 4]));
    bytes
}

/// What stands before the payload of a frame that claims this length.
fn header(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => bytes.push(0x80 | short),
        (_, Ok(middle)) => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&middle.to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes
}

fn close_frame(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes()[..], reason].concat())
}

fn ping(id: usize) -> String {
    format!(r#"{{"method":"ping","req_id":{id}}}"#)
}

fn order(id: usize) -> String {
    json!({"method": "add_order", "req_id": id, "params": {
        "order_type": "limit", "side": "buy", "symbol": "BTC/USD", "order_qty": 1.0, "limit_price": 100.1,
    }})
    .to_string()
}

/// How the house closes on a logged-in client that sends these bytes.
async fn answer_to(house: &House, bytes: &[u8]) -> (u16, String) {
    let mut socket = house.logged_in("/kraken/v2", "bot-a").await;
    socket.raw(bytes).await;
    socket.closed().await
}

async fn assert_protocol_error(house: &House, what: &str, bytes: &[u8]) {
    assert_eq!(answer_to(house, bytes).await, (1002, "protocol_error".to_owned()), "{what}");
}

/// Waits until something holds that nobody announces.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn closes_received(record: &Record) -> Vec<u16> {
    let entries = record.snapshot();
    let received = entries.iter().filter(|entry| entry.direction == Direction::Received);
    received.filter_map(|entry| if let Kind::Close { code } = entry.kind { Some(code) } else { None }).collect()
}

/// A session beside the one that is mistreated: it pings every 10 ms, and every ping has to be answered.
struct Canary {
    stop: Arc<AtomicBool>,
    pinging: tokio::task::JoinHandle<usize>,
}

impl Canary {
    async fn beside(house: &House) -> Self {
        let mut socket = house.logged_in("/kraken/v2", "viewer").await;
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let pinging = tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(10));
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                pace.tick().await;
                count += 1;
                socket.say(ping(count)).await;
                socket.json_where(|it| it["method"] == "pong" && it["req_id"] == count).await;
            }
            count
        });
        Self { stop, pinging }
    }

    async fn assert_unaffected(self) {
        self.stop.store(true, Ordering::Relaxed);
        assert!(self.pinging.await.unwrap() > 0, "it pinged at all");
    }
}

#[tokio::test]
async fn an_unmasked_frame_is_a_protocol_error() {
    let house = House::open().await;
    let canary = Canary::beside(&house).await;
    let unmasked = [&[FIN | TEXT, 27][..], br#"{"method":"ping","req_id":1}"#].concat();
    assert_protocol_error(&house, "unmasked", &unmasked).await;
    assert!(
        house.kraken().frames_received().iter().all(|frame| !frame.contains(r#""req_id":1}"#) || frame == &ping(1))
    );
    canary.assert_unaffected().await;
}

#[tokio::test]
async fn reserved_bits_and_opcodes_are_protocol_errors() {
    let house = House::open().await;
    for bit in [0x40, 0x20, 0x10] {
        assert_protocol_error(&house, "a reserved bit", &frame(FIN | TEXT | bit, b"{}")).await;
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        assert_protocol_error(&house, "a reserved opcode", &frame(FIN | opcode, b"{}")).await;
    }
    assert_eq!(house.kraken().frames_received(), Vec::<String>::new());
}

#[tokio::test]
async fn a_control_frame_in_parts_or_over_125_bytes_is_a_protocol_error() {
    let house = House::open().await;
    for opcode in [CLOSE, PING, 0xa] {
        assert_protocol_error(&house, "in parts", &frame(opcode, b"ab")).await;
        assert_protocol_error(&house, "too long", &frame(FIN | opcode, &[0; 126])).await;
    }
}

#[tokio::test]
async fn fragments_out_of_order_are_protocol_errors() {
    let house = House::open().await;
    assert_protocol_error(&house, "a continuation of nothing", &frame(FIN | CONTINUATION, b"{}")).await;
    for second in [TEXT, BINARY] {
        let two = [frame(TEXT, b"{\"met"), frame(FIN | second, b"{}")].concat();
        assert_protocol_error(&house, "a message inside another", &two).await;
    }
    assert_eq!(house.kraken().frames_received(), Vec::<String>::new());
}

#[tokio::test]
async fn text_that_is_not_utf8_is_refused_and_never_forwarded() {
    let house = House::open().await;
    let cases: [(&str, &[u8]); 5] = [
        ("a stray continuation byte", b"\"canary \x80\""),
        ("an overlong slash", b"\"canary \xc0\xaf\""),
        ("half of a surrogate pair", b"\"canary \xed\xa0\x80\""),
        ("above U+10FFFF", b"\"canary \xf4\x90\x80\x80\""),
        ("cut off in a character", b"\"canary \xe2\x82"),
    ];
    for (what, text) in cases {
        let wanted = (1007, "invalid_utf8".to_owned());
        assert_eq!(answer_to(&house, &frame(FIN | TEXT, text)).await, wanted, "{what}");
        let (before, after) = text.split_at(text.len() - 2);
        let fragments = [frame(TEXT, before), frame(FIN | CONTINUATION, after)].concat();
        assert_eq!(answer_to(&house, &fragments).await, wanted, "{what}, in two fragments");
    }
    assert_eq!(house.kraken().frames_received(), Vec::<String>::new());
}

#[tokio::test]
async fn a_character_that_is_split_between_fragments_is_whole() {
    let house = House::open().await;
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    let text = "{\"method\":\"ping\",\"req_id\":7,\"€\":1}".as_bytes();
    let cut = text.iter().position(|byte| *byte == 0xe2).unwrap() + 1;
    bot.raw(&[frame(TEXT, &text[..cut]), frame(FIN | PING, b"between"), frame(FIN, &text[cut..])].concat()).await;
    bot.json_where(|it| it["req_id"] == 7).await;
    assert!(house.kraken().frames_received().iter().any(|frame| frame.as_bytes() == text));
}

#[tokio::test]
async fn a_frame_that_claims_too_much_is_refused_before_its_payload() {
    let house = House::with("[limits]\nclient_message_bytes_max = 4096").await;
    for length in [4097, 65_536, 4 << 30, 1 << 62, 1 << 63, u64::MAX] {
        let closed = answer_to(&house, &header(FIN | TEXT, length)).await;
        assert_eq!(closed, (1009, "message_too_big".to_owned()), "{length}");
    }
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    let longest = format!("{:4096}", ping(1));
    bot.raw(&frame(FIN | TEXT, longest.as_bytes())).await;
    bot.json_where(|it| it["req_id"] == 1).await;
}

#[tokio::test]
async fn a_client_that_goes_on_sending_too_much_still_hears_why() {
    let house = House::with("[limits]\nclient_message_bytes_max = 4096").await;
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    // Without somebody who takes the rest off the connection, its end would be a reset, which outruns the close.
    bot.raw(&frame(FIN | TEXT, &vec![b' '; 8 << 20])).await;
    assert_eq!(bot.closed().await, (1009, "message_too_big".to_owned()));
}

#[tokio::test]
async fn a_message_of_small_fragments_is_refused_at_the_one_that_crosses_the_limit() {
    let house = House::with("[limits]\nclient_message_bytes_max = 4096").await;
    let mut bytes = frame(TEXT, &[b' '; 64]);
    for _ in 0..64 {
        bytes.extend_from_slice(&frame(CONTINUATION, &[b' '; 64]));
    }
    assert_eq!(answer_to(&house, &bytes).await, (1009, "message_too_big".to_owned()));
    assert_eq!(house.kraken().frames_received(), Vec::<String>::new());
}

#[tokio::test]
async fn a_message_that_never_ends_is_ended() {
    let house = House::with("[limits]\nmessage_idle = \"300ms\"").await;
    let canary = Canary::beside(&house).await;
    let mut bytes = frame(TEXT, b"{");
    let empty = frame(CONTINUATION, b"");
    for _ in 0..100_000 {
        bytes.extend_from_slice(&empty);
    }
    assert_eq!(answer_to(&house, &bytes).await, (1008, "idle_timeout".to_owned()));
    canary.assert_unaffected().await;
}

#[tokio::test]
async fn answers_to_pings_do_not_keep_a_message_alive_that_never_ends() {
    let house = House::with("[limits]\nmessage_idle = \"300ms\"\nping_interval = \"50ms\"").await;
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    bot.raw(&frame(TEXT, b"{")).await;
    // Reading answers every ping.
    assert_eq!(bot.closed().await, (1008, "idle_timeout".to_owned()));
}

#[tokio::test]
async fn a_client_that_is_silent_for_longer_than_a_message_may_take_is_left_alone() {
    let house = House::with("[limits]\nmessage_idle = \"50ms\"\nping_interval = \"20ms\"").await;
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    let mut pings = 0;
    while pings < 20 {
        match bot.next().await {
            Some(Ok(Message::Ping(_))) => pings += 1,
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    let text = ping(1);
    let (head, tail) = text.as_bytes().split_at(5);
    bot.raw(&frame(TEXT, head)).await;
    bot.raw(&frame(FIN | CONTINUATION, tail)).await;
    bot.json_where(|it| it["req_id"] == 1).await;
}

#[tokio::test]
async fn a_ping_flood_ends_the_session_and_no_other() {
    let house = House::with("[limits]\npings_per_second_max = 5").await;
    let canary = Canary::beside(&house).await;
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    bot.raw(&frame(FIN | PING, b"flood").repeat(5_000)).await;
    let mut pongs = 0;
    let closed = loop {
        match bot.next().await {
            Some(Ok(Message::Pong(_))) => pongs += 1,
            Some(Ok(Message::Close(Some(close)))) => break (close.code.into(), close.reason.to_string()),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(closed, (1008_u16, "ping_flood".to_owned()));
    assert!(pongs <= 150, "{pongs} pongs");
    canary.assert_unaffected().await;
}

#[tokio::test]
async fn a_close_that_is_none_is_a_protocol_error() {
    let house = House::open().await;
    for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65_535] {
        assert_eq!(answer_to(&house, &close_frame(code, b"")).await.0, 1002, "{code}");
    }
    assert_eq!(answer_to(&house, &frame(FIN | CLOSE, &[3])).await.0, 1002, "half a code");
    assert_eq!(answer_to(&house, &close_frame(1000, b"\xff\xfe")).await.0, 1007, "a reason that is not UTF-8");
}

#[tokio::test]
async fn a_good_close_is_answered_with_its_own_code() {
    let house = House::open().await;
    for code in [1000, 1001, 3000, 4999] {
        assert_eq!(answer_to(&house, &close_frame(code, b"bye")).await.0, code);
    }
    assert!(matches!(answer_to(&house, &frame(FIN | CLOSE, b"")).await.0, 1000 | 1005));
}

#[tokio::test]
async fn a_client_that_closes_with_orders_unanswered_leaves_a_record_of_them() {
    let log = Log::start();
    let house = House::open().await;
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    house.kraken_exchange().faults().set(|switches| switches.stall = true);
    for id in 1..=3 {
        bot.say(order(id)).await;
    }
    bot.raw(&close_frame(1000, b"")).await;
    assert_eq!(bot.closed().await.0, 1000);
    drop(bot);
    log.wait_for(&["session closed", "client_closed", "\"unanswered\":3"]).await;
    house.kraken_exchange().faults().clear();
    eventually("the exchange's socket closes", || house.kraken().sockets_live() == 0).await;
    let orders = house.kraken().frames_received();
    assert_eq!(orders.len(), 3, "what was sent before the close left, and nothing more: {orders:?}");
    assert_eq!(closes_received(house.kraken()), [1000]);
}

#[tokio::test]
async fn a_last_cancel_is_not_overtaken_by_the_close_behind_it() {
    let house = House::open().await;
    let last = [frame(FIN | TEXT, br#"{"method":"cancel_all","req_id":1}"#), close_frame(1000, b"")].concat();
    // A token is still to be had, or the whole login.
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    bot.raw(&last).await;
    drop(bot);
    let mut bot = house.socket("/kraken/v2").await;
    let login = format!(r#"{{"type":"auth","token":"{}"}}"#, house.token("bot-a"));
    bot.raw(&[frame(FIN | TEXT, login.as_bytes()), last].concat()).await;
    drop(bot);
    eventually("both cancels arrive", || house.kraken().frames_received().len() == 2).await;
    eventually("the exchange's sockets close", || house.kraken().sockets_live() == 0).await;
    assert_eq!(closes_received(house.kraken()), [1000, 1000]);
}

#[tokio::test]
async fn data_after_a_close_is_not_forwarded() {
    let house = House::open().await;
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    let bytes = [
        frame(FIN | TEXT, ping(1).as_bytes()),
        close_frame(1000, b""),
        frame(FIN | TEXT, order(2).as_bytes()),
        frame(FIN | TEXT, ping(3).as_bytes()),
    ];
    bot.raw(&bytes.concat()).await;
    assert_eq!(bot.closed().await.0, 1000);
    drop(bot);
    eventually("the exchange's socket closes", || house.kraken().sockets_live() == 0).await;
    assert_eq!(house.kraken().frames_received(), [ping(1)], "what came before the close still leaves");
}

#[tokio::test]
async fn a_client_that_dies_takes_its_exchange_socket_with_it_at_once() {
    let log = Log::start();
    // Were anybody's goodbye waited for, it would show.
    let house = House::with("[limits]\nclose_timeout = \"1m\"").await;
    let canary = Canary::beside(&house).await;
    for is_reset in [true, false] {
        let bot = house.logged_in("/kraken/v2", "bot-a").await;
        assert_eq!(house.kraken().sockets_live(), 2);
        die(bot, is_reset);
        eventually("the exchange's socket closes", || house.kraken().sockets_live() == 1).await;
        log.wait_for(&["session closed", "client_reset", "bot-a"]).await;
        log.clear();
    }
    canary.assert_unaffected().await;
}

#[tokio::test]
async fn a_client_that_dies_while_it_waits_for_its_login_is_not_waited_for() {
    let hour = ["login_timeout", "supply_timeout", "answer_timeout", "ping_interval", "pong_timeout"];
    let house = House::with(&format!("[limits]\n{} = \"1h\"", hour.join(" = \"1h\"\n"))).await;
    house.kraken_exchange().faults().set(|switches| switches.mint_delay = Duration::from_secs(3600));
    for pipelined in 0..3 {
        let mut bot = house.socket("/kraken/v2").await;
        bot.log_in(&house.token("bot-a")).await;
        for id in 0..pipelined {
            bot.say(ping(id)).await;
        }
        eventually("the exchange's socket opens", || house.kraken().sockets_live() == 1).await;
        die(bot, true);
        eventually("the exchange's socket closes", || house.kraken().sockets_live() == 0).await;
    }
    assert_eq!(house.kraken().frames_received(), Vec::<String>::new());
}

/// Ends a client without a close frame: by a reset, or by a plain end of TCP.
fn die(bot: Socket, is_reset: bool) {
    if is_reset {
        let tcp = bot.0.get_ref().get_ref().0;
        socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO)).unwrap();
    }
    drop(bot);
}

#[tokio::test]
async fn a_session_ends_with_the_end_of_tls() {
    let house = House::open().await;
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    bot.raw(&close_frame(1000, b"")).await;
    // An end without TLS's own cannot be told from one that somebody in between has made.
    let ended = tokio::time::timeout(PATIENCE, bot.0.get_mut().read_to_end(&mut Vec::new())).await.expect("an end");
    assert!(ended.is_ok(), "{ended:?}");
}

#[tokio::test]
async fn a_client_that_does_not_answer_our_close_is_dropped_after_the_limit() {
    let house = House::with("[limits]\nclose_timeout = \"300ms\"").await;
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    bot.raw(&frame(FIN | BINARY, b"x")).await;
    let sent_at = Instant::now();
    let mut bytes = Vec::new();
    // Read past the library, which would answer.
    let _ = tokio::time::timeout(PATIENCE, bot.0.get_mut().read_to_end(&mut bytes)).await.expect("a dropped client");
    assert!(bytes.windows(2).any(|pair| pair == 1003_u16.to_be_bytes()), "no close came: {bytes:?}");
    assert!(sent_at.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_client_that_does_not_read_can_still_cancel_and_is_then_dropped() {
    let log = Log::start();
    // It reads its farewell only after a megabyte of the flood, and a busy machine takes its time for that.
    let limits = "[limits]\noutbox_bytes_max = 65536\noutbox_stall = \"3s\"\nclose_timeout = \"20s\"";
    let house = House::with(limits).await;
    let canary = Canary::beside(&house).await;
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    // A small window: the kernel's buffers would else take seconds to fill.
    socket2::SockRef::from(bot.0.get_ref().get_ref().0).set_recv_buffer_size(16 * 1024).unwrap();
    bot.say(order(1)).await;
    let placed = bot.json_where(|it| it["req_id"] == 1).await;
    let id = placed["result"]["order_id"].as_str().unwrap().to_owned();
    bot.say(r#"{"method":"subscribe","params":{"channel":"executions"},"req_id":2}"#).await;
    bot.json_where(|it| it["req_id"] == 2).await;

    let flood = Flood { per_second: 4_000, bytes: 8 * 1024 };
    house.kraken_exchange().faults().set(|switches| switches.flood = Some(flood));
    until_nothing_moves(house.kraken()).await;
    bot.say(format!(r#"{{"method":"cancel_order","params":{{"order_id":["{id}"]}},"req_id":3}}"#)).await;
    // Behind the flood it would never come: the session ends first.
    let arrived = house.kraken().wait_for(|entry| entry.received("cancel_order"), PATIENCE).await;
    assert!(arrived.is_some(), "the cancel waited behind the flood");

    eventually("the slow client's session ends", || house.kraken().sockets_live() == 1).await;
    // It wakes up and reads what is left: whole messages, and why it was dropped.
    socket2::SockRef::from(bot.0.get_ref().get_ref().0).set_recv_buffer_size(4 << 20).unwrap();
    // The answer to its cancel was behind the flood: it has to find out for itself.
    assert_eq!(bot.closed().await, (1008, "slow_consumer; maybe-sent: 1".to_owned()));
    // The house waits for the client's end of TCP as long as it may.
    drop(bot);
    log.wait_for(&["session closed", "slow_consumer"]).await;
    house.kraken_exchange().faults().clear();
    canary.assert_unaffected().await;
}

#[tokio::test]
async fn a_close_behind_a_backlog_comes_last() {
    const COUNT: usize = 600;
    let house =
        House::with("[limits]\noutbox_bytes_max = 65536\nclose_timeout = \"20s\"\noutbox_stall = \"60s\"").await;
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    let mut sent = Vec::new();
    for number in 0..COUNT {
        let text = format!(r#"{{"channel":"book","number":{number},"data":"{}"}}"#, "x".repeat(16 * 1024));
        sent.extend([FIN | TEXT, 126]);
        sent.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
        sent.extend(text.as_bytes());
    }
    sent.extend([FIN | CLOSE, 2, 0x0F, 0xA8]);
    house.kraken_exchange().faults().act(SocketAction::Raw(Bytes::from(sent)));
    // Everything that lies between the two is full by then.
    let mut taken = 0;
    while std::mem::replace(&mut taken, house.kraken().bytes_sent()) != taken {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for number in 0..COUNT {
        bot.json_where(|it| it["number"] == number).await;
    }
    assert_eq!(bot.closed().await, (4008, "upstream_closed".to_owned()));
}

/// Waits until a flood that has begun comes to a halt, because nobody takes it.
async fn until_nothing_moves(record: &Record) {
    const HARDLY_ANYTHING: u64 = 32 * 1024;
    let started = Instant::now();
    let mut before = record.bytes_sent();
    let begun_at = before;
    loop {
        assert!(started.elapsed() < PATIENCE, "the flood goes on");
        tokio::time::sleep(Duration::from_millis(60)).await;
        let now = record.bytes_sent();
        if now - before < HARDLY_ANYTHING && now - begun_at > 1 << 20 {
            return;
        }
        before = now;
    }
}

#[tokio::test]
async fn a_binary_message_to_a_venue_that_speaks_text_is_refused() {
    let house = House::open().await;
    for path in ["/kraken/v2", "/bitfinex/v2"] {
        let mut bot = house.logged_in(path, "bot-a").await;
        bot.raw(&frame(FIN | BINARY, b"{}")).await;
        assert_eq!(bot.closed().await, (1003, "binary_not_supported".to_owned()), "{path}");
    }
    assert_eq!(house.kraken().frames_received(), Vec::<String>::new());
}

#[tokio::test]
async fn frames_in_pieces_of_any_size_arrive_whole_and_in_order() {
    let house = House::open().await;
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    let mut wanted = Vec::new();
    for piece in [1, 64] {
        let from = wanted.len();
        wanted.extend((from..from + 5).map(ping));
        let bytes: Vec<u8> = wanted[from..].iter().flat_map(|text| frame(FIN | TEXT, text.as_bytes())).collect();
        for piece in bytes.chunks(piece) {
            bot.raw(piece).await;
        }
        for id in from..from + 5 {
            assert_eq!(bot.json_where(|it| it["method"] == "pong").await["req_id"], id);
        }
    }
    assert_eq!(house.kraken().frames_received(), wanted);
}

#[tokio::test]
async fn a_burst_of_messages_passes_without_waiting_for_any_timer() {
    let house = House::with("[limits]\nping_interval = \"1h\"\npong_timeout = \"1h\"\nmessage_idle = \"1h\"").await;
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    let burst: Vec<String> = (0..1_000).map(ping).collect();
    let bytes: Vec<u8> = burst.iter().flat_map(|text| frame(FIN | TEXT, text.as_bytes())).collect();
    bot.raw(&bytes).await;
    for id in 0..burst.len() {
        assert_eq!(bot.json_where(|it| it["method"] == "pong").await["req_id"], id);
    }
    assert_eq!(house.kraken().frames_received(), burst);
}

#[tokio::test]
async fn a_venue_s_own_close_code_reaches_the_client_and_a_registered_one_does_not() {
    let log = Log::start();
    let house = House::open().await;
    // A code that may not be sent counts as 1002.
    for (sent, told, logged) in
        [(1014, 1012, 1014), (1016, 1012, 1002), (1012, 1012, 1012), (3001, 3001, 3001), (4008, 4008, 4008)]
    {
        let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
        house.kraken_exchange().faults().close_all(sent, "told by the exchange");
        assert_eq!(bot.closed().await, (told, "upstream_closed".to_owned()), "{sent}");
        drop(bot);
        log.wait_for(&["session closed", "upstream_closed", &format!("\"peer_code\":{logged}")]).await;
        log.clear();
    }
}

#[tokio::test]
async fn a_message_of_the_exchange_over_the_limit_ends_the_session() {
    let house = House::with("[limits]\nupstream_message_bytes_max = 65536").await;
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    assert_eq!(bot.json().await["channel"], "status");
    house.kraken_exchange().faults().act(SocketAction::Oversize(65_536));
    assert_eq!(bot.text().await.len(), 65_536, "the limit itself passes");
    house.kraken_exchange().faults().act(SocketAction::Oversize(65_537));
    assert_eq!(bot.closed().await, (1011, "upstream_message_too_big".to_owned()));
    let closed = house.kraken().wait_for(|entry| entry.kind == Kind::Close { code: 1009 }, PATIENCE).await;
    assert!(closed.is_some(), "the exchange was not told");
}

#[tokio::test]
async fn an_exchange_that_breaks_the_protocol_is_left_and_the_house_stays() {
    let house = House::open().await;
    let broken_twice = [&[FIN | PING, 126, 0, 126][..], &[0; 126]].concat();
    let cases = [
        (SocketAction::InvalidUtf8, 1007),
        (SocketAction::Masked, 1002),
        (SocketAction::ReservedBit, 1002),
        (SocketAction::Raw(Bytes::from_static(&[FIN, 2, b'{', b'}'])), 1002),
        (SocketAction::Raw(Bytes::from(broken_twice)), 1002),
    ];
    for (action, code) in cases {
        let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
        let seen = closes_received(house.kraken()).len();
        house.kraken_exchange().faults().act(action.clone());
        assert_eq!(bot.closed().await, (1011, "upstream_protocol_error".to_owned()), "{action:?}");
        eventually("the exchange is told", || closes_received(house.kraken()).len() > seen).await;
        assert_eq!(closes_received(house.kraken()).last(), Some(&code), "{action:?}");
    }
    let mut bot = house.logged_in("/kraken/v2", "bot-a").await;
    bot.say(ping(1)).await;
    bot.json_where(|it| it["req_id"] == 1).await;
}

/// The log of the house, as JSON lines. A test's own: it has one thread, and so has its runtime.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

thread_local! {
    static LOG: Log = Log::default();
}

impl Log {
    fn start() -> Self {
        // One subscriber for all threads: one for each would miss what another thread was the first to log.
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let format = tracing_subscriber::fmt().json().flatten_event(true);
            let subscriber = format.with_writer(|| LOG.with(Log::clone)).finish();
            tracing::subscriber::set_global_default(subscriber).unwrap();
        });
        LOG.with(Log::clone)
    }

    /// Waits for a line that has all of these.
    async fn wait_for(&self, parts: &[&str]) {
        let has_all = |line: &str| parts.iter().all(|part| line.contains(part));
        let started = Instant::now();
        while !self.text().lines().any(has_all) {
            assert!(started.elapsed() < PATIENCE, "no line with {parts:?} in\n{}", self.text());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    fn clear(&self) {
        self.0.lock().unwrap().clear();
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
