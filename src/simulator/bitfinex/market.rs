//! The markets of the simulated Bitfinex, and what its public side says about them. Prices never move.

use crate::fresh::UnixMillis;
use serde_json::{Value, json};

/// One market.
#[derive(Debug)]
pub(super) struct Pair {
    /// As channels and orders call it.
    pub(super) symbol: &'static str,
    pub(super) base: &'static str,
    pub(super) quote: &'static str,
    pub(super) price: f64,
}

pub(super) static CURRENCIES: [&str; 6] = ["BTC", "ETH", "USD", "UST", "TESTBTC", "TESTUSD"];

pub(super) static PAIRS: [Pair; 4] = [
    Pair { symbol: "tBTCUSD", base: "BTC", quote: "USD", price: 60_000.0 },
    Pair { symbol: "tBTCUST", base: "BTC", quote: "UST", price: 60_000.0 },
    Pair { symbol: "tETHUSD", base: "ETH", quote: "USD", price: 3000.0 },
    Pair { symbol: "tTESTBTC:TESTUSD", base: "TESTBTC", quote: "TESTUSD", price: 60_000.0 },
];

pub(super) fn pair(symbol: &str) -> Option<&'static Pair> {
    PAIRS.iter().find(|pair| pair.symbol == symbol)
}

/// The ten places of a ticker.
pub(super) fn ticker(pair: &Pair) -> Value {
    let price = pair.price;
    json!([price - 1.0, 1, price + 1.0, 1, 0, 0, price, 100, price, price])
}

/// Levels on each side of a book.
const LEVELS: u32 = 5;

/// A book with one tick between its levels; none if there is no such market or precision. `P0` to `P4` tell price, count
/// and amount of a level, `R0` id, price and amount of an order (docs.bitfinex.com, "Books").
pub(super) fn book(symbol: &str, precision: &str) -> Option<Value> {
    let price = pair(symbol)?.price;
    let levels = (1..=LEVELS).flat_map(|step| [(step, 1.0), (step, -1.0)]);
    let rows = levels.map(|(step, side)| {
        let level = price - side * f64::from(step);
        match precision {
            "P0" | "P1" | "P2" | "P3" | "P4" => Some(json!([level, 1, side])),
            "R0" => Some(json!([if side > 0.0 { step } else { LEVELS + step }, level, side])),
            _ => None,
        }
    });
    rows.collect::<Option<Vec<_>>>().map(Value::Array)
}

/// What a channel sends first; none if there is no such channel, symbol or precision.
pub(super) fn snapshot(channel: &str, symbol: &str, precision: &str, now: UnixMillis) -> Option<Value> {
    // A candles key ends with its symbol, as in `trade:1m:tBTCUSD`.
    let name = symbol.find(":t").map_or(symbol, |at| &symbol[at + 1..]);
    let pair = pair(symbol).or_else(|| pair(name));
    let price = pair.map_or(0.0, |pair| pair.price);
    Some(match channel {
        "ticker" => ticker(pair?),
        "trades" => pair.map(|_| json!([[now.0, now.0, 0.1, price]]))?,
        "book" => book(symbol, precision)?,
        "candles" => pair.map(|_| json!([[now.0, price, price, price, price, 0.1]]))?,
        "status" => json!([]),
        _ => return None,
    })
}

/// `GET /v2/tickers`.
pub(super) fn tickers(symbols: &str) -> Value {
    let pairs = PAIRS.iter().filter(|pair| symbols == "ALL" || symbols.split(',').any(|symbol| symbol == pair.symbol));
    let rows = pairs.map(|pair| {
        let mut row = vec![json!(pair.symbol)];
        row.extend(ticker(pair).as_array().cloned().unwrap_or_default());
        Value::Array(row)
    });
    Value::Array(rows.collect())
}

/// `GET /v2/conf/<keys>`: one array for each key, empty where it says nothing here.
pub(super) fn conf(keys: &str) -> Value {
    let one = |key: &str| match key {
        "pub:list:pair:exchange" => json!(PAIRS.iter().map(|pair| &pair.symbol[1..]).collect::<Vec<_>>()),
        "pub:list:currency" => json!(CURRENCIES),
        "pub:info:pair" => {
            let pairs = PAIRS.iter().map(|pair| {
                json!([
                    pair.symbol[1..],
                    [null, null, null, "0.00004", "2000.0", null, null, null, 0.2, 0.1, null, null]
                ])
            });
            Value::Array(pairs.collect())
        }
        "pub:map:currency:label" => json!(CURRENCIES.map(|currency| [currency, currency])),
        _ => json!([]),
    };
    Value::Array(keys.split(',').map(one).collect())
}
