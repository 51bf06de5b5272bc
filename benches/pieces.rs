//! What the hot pieces cost, in instructions: a number that a busy machine does not change.
//!
//! `cargo bench --bench pieces`, `-- --quick` for a look whether it runs. Each piece is run twice under Valgrind, more
//! and fewer times; the difference is its own. Without Valgrind there is the time alone.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a table is what it is for")]

mod stage;

use bytes::Bytes;
use countersign::buffer::Buffer;
use countersign::credential::{SecretFormat, Signer};
use countersign::fresh::{Nonce, NonceUnit};
use countersign::identity::jwt;
use countersign::message::{Kind, Message};
use countersign::relay::frame::{self, Mask, Opcode};
use countersign::relay::inbox::{Inbox, Incoming, Peer};
use countersign::secret::Secret;
use countersign::session::{Action, Event};
use countersign::supply::lane::NonceLane;
use countersign::venue::rest::{Rest, RestRequest};
use countersign::venue::wire::json;
use countersign::venue::{self, Venue};
use http::{HeaderMap, HeaderValue, Method};
use stage::{
    BITFINEX_ANSWER, BITFINEX_ORDER, Desk, KRAKEN_ANSWER, KRAKEN_ORDER, KRAKEN_PING, NOW, PROJECTX_SUBSCRIBE,
    PROJECTX_SUBSCRIBED, Stage, TOKEN, bitfinex, kraken, projectx,
};
use std::hint::black_box;
use std::process::Command;
use std::time::Instant;

/// How often a piece is run under Valgrind: whole blocks of nonces, of which the lane reserves one at a time.
const FEW: u32 = 1000;
const MANY: u32 = 3000;
/// Between two looks at the clock.
const BATCH: u32 = 512;

const MASK: Mask = [0x37, 0xFA, 0x21, 0x3D];

/// As Kraken's REST API takes an order.
const KRAKEN_FORM: &str =
    "nonce=1616492376594&ordertype=limit&type=buy&pair=XBTUSD&volume=0.01250000&price=26500.4&oflags=post";
/// As Bitfinex' REST API takes one.
const BITFINEX_BODY: &str =
    r#"{"type":"EXCHANGE LIMIT","symbol":"tBTCUSD","amount":"0.0125","price":"26500.4","flags":4096}"#;

/// Something that is done for each message or call.
struct Piece {
    name: &'static str,
    run: Box<dyn FnMut()>,
}

fn main() {
    jwt::install_crypto();
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name, times] = &words[..]
        && flag == "--piece"
    {
        let times: u32 = times.parse().expect("this program wrote it");
        let mut piece = pieces().into_iter().find(|piece| piece.name == name).expect("this program wrote it");
        (0..times).for_each(|_| (piece.run)());
        return;
    }
    let is_quick = words.iter().any(|word| word == "--quick") || !words.iter().any(|word| word == "--bench");
    let batches = if is_quick { 5 } else { 300 };
    let counts = Command::new("valgrind").arg("--version").output().is_ok();
    if !counts {
        eprintln!("no instructions are counted: there is no Valgrind here (apt-get install valgrind)");
    }
    println!("{:<48}{:>14}{:>12}{:>22}", "", "instructions", "ns", "least - most");
    for mut piece in pieces() {
        let instructions = if counts { instructions(piece.name).to_string() } else { "-".to_owned() };
        let mut times: Vec<u128> = (0..batches).map(|_| time(&mut piece)).collect();
        times.sort_unstable();
        let spread = format!("{} - {}", times[0], times[times.len() - 1]);
        println!("{:<48}{instructions:>14}{:>12}{spread:>22}", piece.name, times[times.len() / 2]);
    }
}

/// Nanoseconds of one run.
fn time(piece: &mut Piece) -> u128 {
    let began = Instant::now();
    (0..BATCH).for_each(|_| (piece.run)());
    began.elapsed().as_nanos() / u128::from(BATCH)
}

/// Instructions of one run.
fn instructions(name: &str) -> u64 {
    (counted(name, MANY) - counted(name, FEW)) / u64::from(MANY - FEW)
}

/// Instructions of this program while it runs one piece so many times.
fn counted(name: &str, times: u32) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(std::env::current_exe().expect("this program has a path"))
        .args(["--piece", name, &times.to_string()])
        .output()
        .expect("Valgrind was there a moment ago");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} does not run under Valgrind:\n{said}");
    let line = said.lines().find(|line| line.contains("refs:")).expect("Cachegrind counts");
    let digits: String = line.rsplit("refs:").next().unwrap_or_default().chars().filter(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

fn pieces() -> Vec<Piece> {
    let desk = Desk::new();
    let order_with = |token: &str| KRAKEN_ORDER.replace("any-dummy-text", token);
    let (own, other) = (order_with(&desk.placeholder()), order_with(TOKEN));
    let none = KRAKEN_ORDER.replace(r#","token":"any-dummy-text""#, "");
    vec![
        judged("judge plain, passed unread", Stage::open(&desk, "plain", "ws"), KRAKEN_ORDER, None),
        judged("judge kraken ping", kraken(&desk, &none), KRAKEN_PING, None),
        judged("judge kraken order, splice a token in", kraken(&desk, &none), &none, Some(KRAKEN_ANSWER)),
        judged("judge kraken order with placeholder, splice", kraken(&desk, &own), &own, Some(KRAKEN_ANSWER)),
        judged("judge kraken order with Kraken's token, splice", kraken(&desk, &other), &other, Some(KRAKEN_ANSWER)),
        judged("judge bitfinex order", bitfinex(&desk), BITFINEX_ORDER, Some(BITFINEX_ANSWER)),
        judged("judge projectx subscription", projectx(&desk), PROJECTX_SUBSCRIBE, Some(PROJECTX_SUBSCRIBED)),
        read_json("read kraken order as JSON", KRAKEN_ORDER),
        read_json("read bitfinex order as JSON", BITFINEX_ORDER),
        masked("mask 16 KiB"),
        from_client("cut and unmask a client's frame of 128 B", 128),
        from_exchange("cut a row of 64 frames of 128 B", 64, 128),
        read_call("read kraken call", &KRAKEN_CALL),
        sign_call("sign kraken call (HMAC-SHA512)", &KRAKEN_CALL),
        read_call("read bitfinex call", &BITFINEX_CALL),
        sign_call("sign bitfinex call (HMAC-SHA384)", &BITFINEX_CALL),
        lane(),
    ]
}

/// A message from a client, judged and written for the exchange; and the exchange's answer, so that nothing is left to be
/// remembered.
fn judged(name: &'static str, mut stage: Stage, message: &str, answer: Option<&str>) -> Piece {
    let (message, answer) = (Message::text(message), answer.map(Message::text));
    stage.happen(Event::FromClient(message.clone()));
    assert!(matches!(stage.actions[..], [Action::ToUpstream(_)]), "{name}: it is not sent on");
    let run = move || {
        stage.happen(Event::FromClient(black_box(message.clone())));
        black_box(&stage.actions);
        if let Some(answer) = &answer {
            stage.happen(Event::FromUpstream(answer.clone()));
        }
    };
    Piece { name, run: Box::new(run) }
}

fn masked(name: &'static str) -> Piece {
    let mut payload = vec![b'x'; 16 * 1024];
    Piece { name, run: Box::new(move || frame::apply(black_box(MASK), black_box(&mut payload))) }
}

fn from_client(name: &'static str, length: usize) -> Piece {
    let mut inbox = Inbox::new(Peer::Client, 256 * 1024);
    let bytes = framed(1, length, Some(MASK));
    let run = move || {
        inbox.push(black_box(bytes.bytes()));
        assert!(matches!(inbox.take_next(), Some(Incoming::Message(..))));
    };
    Piece { name, run: Box::new(run) }
}

fn from_exchange(name: &'static str, count: usize, length: usize) -> Piece {
    let mut inbox = Inbox::new(Peer::Exchange, 256 * 1024);
    let bytes = framed(count, length, None);
    let run = move || {
        inbox.push(black_box(bytes.bytes()));
        let frames = inbox.frames(u64::MAX).expect("whole frames came");
        assert_eq!(frames.messages, count as u64);
        inbox.take(frames);
    };
    Piece { name, run: Box::new(run) }
}

/// So many frames of text.
fn framed(count: usize, length: usize, mask: Option<Mask>) -> Buffer {
    let mut bytes = Buffer::new();
    (0..count).for_each(|_| frame::put(&mut bytes, Opcode::Data(Kind::Text), &vec![b'x'; length], mask));
    bytes
}

fn read_json(name: &'static str, text: &'static str) -> Piece {
    let run = move || {
        black_box(json::read(black_box(text.as_bytes())).is_ok());
    };
    Piece { name, run: Box::new(run) }
}

/// A request to a venue's REST API.
struct Call {
    venue: &'static str,
    path: &'static str,
    media_type: &'static str,
    body: &'static str,
    secret: (&'static str, SecretFormat),
}

const KRAKEN_CALL: Call = Call {
    venue: "kraken",
    path: "/0/private/AddOrder",
    media_type: "application/x-www-form-urlencoded",
    body: KRAKEN_FORM,
    secret: ("c2VjcmV0IG9mIHRoZSBiZW5jaG1hcms=", SecretFormat::Base64),
};
const BITFINEX_CALL: Call = Call {
    venue: "bitfinex",
    path: "/v2/auth/w/order/submit",
    media_type: "application/json",
    body: BITFINEX_BODY,
    secret: ("dummysecret", SecretFormat::Text),
};

impl Call {
    fn rest(&self) -> (&'static dyn Venue, &'static dyn Rest) {
        let venue = venue::by_name(self.venue).expect("a venue");
        (venue, venue.rest().expect("it has a REST API"))
    }

    fn request(&self) -> RestRequest {
        let (venue, _) = self.rest();
        let endpoint = venue.endpoints().iter().find(|known| known.name == "rest").expect("an endpoint");
        RestRequest {
            endpoint,
            method: Method::POST,
            path: self.path.to_owned(),
            query: None,
            headers: HeaderMap::from_iter([(http::header::CONTENT_TYPE, HeaderValue::from_static(self.media_type))]),
            body: Bytes::from_static(self.body.as_bytes()),
        }
    }
}

fn read_call(name: &'static str, call: &Call) -> Piece {
    let ((_, rest), request) = (call.rest(), call.request());
    let run = move || {
        black_box(rest.read(black_box(&request)).is_ok());
    };
    Piece { name, run: Box::new(run) }
}

fn sign_call(name: &'static str, call: &Call) -> Piece {
    let ((_, rest), request) = (call.rest(), call.request());
    let reading = rest.read(&request).expect("it is an order");
    let text = |text: &str| Secret::from(text.to_owned());
    let (secret, format) = call.secret;
    let signer = Signer::new(&text("REAL-API-KEY"), &text(secret), format).expect("a key");
    let mut nonce = 1_616_492_376_594_000;
    let run = move || {
        nonce += 1;
        black_box(rest.sign(black_box(&request), &reading, &signer, Nonce(nonce)));
    };
    Piece { name, run: Box::new(run) }
}

/// The next number, and every so often a block of them, as if the disk took no time.
fn lane() -> Piece {
    let mut lane = NonceLane::new(NonceUnit::Nanoseconds, u64::MAX, None).expect("there is no other unit");
    let run = move || {
        while black_box(lane.next_nonce()).expect("the disk is never full").is_none() {
            let reservation = lane.wanted(NOW, None).expect("none is under way");
            lane.reserved(reservation);
        }
        if let Some(reservation) = lane.wanted(NOW, None) {
            lane.reserved(reservation);
        }
    };
    Piece { name: "lane: next nonce", run: Box::new(run) }
}
