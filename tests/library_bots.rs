//! Trading libraries as their users have them, unmodified: each trades over REST and sockets with a key of its own.
//!
//! The bots are in `tests/clients`. First straight at a simulated exchange, which shows what a library does by itself;
//! then through the proxy, with a local key, where the exchange must find nothing to complain of.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod bot;
mod door;
mod house;
mod libraries;
mod program;

use bot::Ended;
use door::{Door, Target, Venue, Way};
use libraries::Library;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ffi::OsStr;

/// One script on one library.
struct Bot {
    library: Library,
    venue: Venue,
    way: Way,
    /// What the exchange complains of when it is asked straight: the library's own habits, which the proxy mends.
    habits: &'static [&'static str],
    check: fn(&Seen),
}

/// The lines that a bot printed.
struct Seen(Vec<Value>);

impl Seen {
    fn steps(&self) -> Vec<&str> {
        self.0.iter().filter_map(|line| line["step"].as_str()).collect()
    }

    /// Everything that was said at a step, in order.
    fn all(&self, step: &str) -> Vec<&Value> {
        self.0.iter().filter(|line| line["step"] == step).map(|line| &line["got"]).collect()
    }

    fn one(&self, step: &str) -> &Value {
        self.all(step).first().unwrap_or_else(|| panic!("no {step}: {:?}", self.0))
    }
}

async fn trade(target: Target, bot: Bot) {
    let door = Door::open(target, bot.venue).await;
    let arguments = [bot.library.program.as_os_str(), bot.library.script.as_os_str(), OsStr::new(bot.venue.name())];
    let scene = || format!("{target:?}, the exchange saw:\n{}", door.story());
    let Ended { is_well, said, complaints } = bot::finish(door::command(&arguments, &door, bot.way), scene).await;
    assert!(is_well, "{said}{complaints}\nthe exchange: {:?}", door.record().verdicts());
    let seen = Seen(said.lines().map(|line| serde_json::from_str(line).unwrap()).collect());
    assert_eq!(seen.steps().last(), Some(&"done"), "{said}");
    (bot.check)(&seen);

    let record = door.record();
    let verdicts: BTreeSet<String> = record.verdicts().into_iter().collect();
    let habits = if target == Target::Directly { bot.habits } else { &[] };
    assert_eq!(verdicts, habits.iter().map(|habit| (*habit).to_owned()).collect::<BTreeSet<_>>());
    assert_eq!((record.nonce_errors(), record.signature_errors()), (0, 0));
    if target == Target::ThroughTheProxy {
        assert_eq!(record.leaks(), 0);
    }
}

/// The first order was not there, was there, and was gone.
fn an_order_came_and_went(seen: &Seen) {
    let placed = seen.one("placed");
    let open = seen.all("open");
    assert_eq!(open[..3], [&json!([]), &json!([placed]), &json!([])], "{:?}", seen.0);
}

/// As it was for the first order, and in the end all orders were canceled at once.
fn orders_came_and_went(seen: &Seen) {
    an_order_came_and_went(seen);
    let last = *seen.all("open").last().unwrap();
    assert!(*last == json!([]) || *last == json!(0), "{:?}", seen.0);
    assert!(seen.all("open").len() > 3, "{:?}", seen.0);
}

/// What the socket told was the order that was placed.
fn the_socket_told(seen: &Seen) {
    assert_eq!(seen.steps(), ["book", "balance", "placed", "order open", "order canceled", "done"]);
    assert_eq!(seen.one("order open"), seen.one("placed"));
    assert_eq!(seen.one("order canceled"), seen.one("placed"));
}

fn kraken_sdk_saw_it_all(seen: &Seen) {
    let steps =
        ["ticker", "balances", "executions", "add_order", "new", "cancel_order", "canceled", "cancel_all", "done"];
    assert_eq!(seen.steps(), steps);
    for step in ["add_order", "cancel_order", "cancel_all"] {
        assert_eq!(seen.one(step)["success"], true, "{:?}", seen.0);
    }
}

/// Whatever came first, for the library tells of several sockets.
fn bitfinex_saw_it_all(seen: &Seen) {
    let steps: BTreeSet<&str> = seen.steps().into_iter().collect();
    let wanted = ["auth", "wallets", "orders", "ticker", "on-req", "new", "oc-req", "canceled", "done"];
    assert_eq!(steps, wanted.into_iter().collect());
    assert_eq!((seen.one("auth"), seen.one("on-req")), (&json!("OK"), &json!("SUCCESS")));
    assert_eq!(seen.one("canceled"), seen.one("new"));
}

fn bitfinex_node_saw_it_all(seen: &Seen) {
    assert_eq!(seen.steps(), ["auth", "wallets", "ticker", "placed", "canceled", "done"]);
    assert_eq!((seen.one("auth"), seen.one("canceled")), (&json!(true), &json!("CANCELED")));
}

/// bitfinex-api-node sends its secret along with the signature that it made with it.
const SENDS_ITS_SECRET: &[&str] = &["login: member apiSecret is not of the protocol"];

/// Each bot twice: a test that goes straight, and one that goes through the proxy.
macro_rules! bots {
    ($($name:ident: $library:expr, $venue:ident, $way:ident, $habits:expr, $check:expr;)*) => {
        mod directly {
            use super::*;
            $(#[tokio::test]
            async fn $name() {
                if !libraries::is_skipped(stringify!($name)) {
                    let bot = Bot { library: $library, venue: Venue::$venue, way: Way::$way, habits: $habits, check: $check };
                    trade(Target::Directly, bot).await;
                }
            })*
        }
        mod through_the_proxy {
            use super::*;
            $(#[tokio::test]
            async fn $name() {
                if !libraries::is_skipped(stringify!($name)) {
                    let bot = Bot { library: $library, venue: Venue::$venue, way: Way::$way, habits: $habits, check: $check };
                    trade(Target::ThroughTheProxy, bot).await;
                }
            })*
        }
    };
}

bots! {
    ccxt_trades_at_kraken: libraries::ccxt("ccxt_bot.py"), Kraken, Port, &[], orders_came_and_went;
    ccxt_trades_at_bitfinex: libraries::ccxt("ccxt_bot.py"), Bitfinex, Port, &[], orders_came_and_went;
    ccxt_trades_at_kraken_by_its_name: libraries::ccxt("ccxt_bot.py"), Kraken, Name, &[], orders_came_and_went;
    ccxt_async_trades_at_kraken: libraries::ccxt("ccxt_async_bot.py"), Kraken, Port, &[], an_order_came_and_went;
    ccxt_async_trades_at_bitfinex: libraries::ccxt("ccxt_async_bot.py"), Bitfinex, Port, &[], an_order_came_and_went;
    ccxt_pro_trades_at_kraken: libraries::ccxt("ccxt_pro_bot.py"), Kraken, Port, &[], the_socket_told;
    ccxt_pro_trades_at_bitfinex: libraries::ccxt("ccxt_pro_bot.py"), Bitfinex, Port, &[], the_socket_told;
    krakenex_trades: libraries::krakenex("krakenex_bot.py"), Kraken, Port, &[], orders_came_and_went;
    krakenex_trades_by_kraken_s_name: libraries::krakenex("krakenex_bot.py"), Kraken, Name, &[], orders_came_and_went;
    kraken_sdk_trades: libraries::kraken_sdk("kraken_sdk_bot.py"), Kraken, Port, &[], orders_came_and_went;
    kraken_sdk_trades_by_kraken_s_name:
        libraries::kraken_sdk("kraken_sdk_bot.py"), Kraken, Name, &[], orders_came_and_went;
    bitfinex_api_py_trades_by_bitfinex_s_name:
        libraries::bitfinex_py("bitfinex_py_bot.py"), Bitfinex, Name, &[], orders_came_and_went;
    kraken_sdk_trades_on_its_socket: libraries::kraken_sdk("kraken_sdk_ws_bot.py"), Kraken, Port, &[], kraken_sdk_saw_it_all;
    bitfinex_api_py_trades: libraries::bitfinex_py("bitfinex_py_bot.py"), Bitfinex, Port, &[], orders_came_and_went;
    bitfinex_api_py_trades_on_its_socket: libraries::bitfinex_py("bitfinex_py_ws_bot.py"), Bitfinex, Port, &[], bitfinex_saw_it_all;
    bitfinex_api_node_trades: libraries::bitfinex_node("bitfinex_node_bot.mjs"), Bitfinex, Port, &[], an_order_came_and_went;
    bitfinex_api_node_trades_on_its_socket: libraries::bitfinex_node("bitfinex_node_ws_bot.mjs"), Bitfinex, Port, SENDS_ITS_SECRET, bitfinex_node_saw_it_all;
}
