//! The markets of the simulated Kraken, and what its public channels say about them. Prices never move.

use crate::fresh::UnixMillis;
use crate::simulator::clock::rfc3339;
use serde_json::{Value, json};

/// One asset.
#[derive(Debug)]
pub(super) struct Asset {
    /// As WebSocket v2 calls it.
    pub(super) name: &'static str,
    /// As REST calls it.
    pub(super) rest_name: &'static str,
    altname: &'static str,
    decimals: u8,
}

/// One market.
#[derive(Debug)]
pub(super) struct Pair {
    /// As WebSocket v2 calls it.
    pub(super) symbol: &'static str,
    /// As WebSocket v1 calls it.
    pub(super) v1_name: &'static str,
    /// As REST calls it.
    pub(super) rest_name: &'static str,
    pub(super) altname: &'static str,
    pub(super) base: &'static Asset,
    pub(super) quote: &'static Asset,
    pub(super) price: f64,
    pub(super) order_minimum: f64,
    price_decimals: usize,
}

const BTC: Asset = Asset { name: "BTC", rest_name: "XXBT", altname: "XBT", decimals: 10 };
const ETH: Asset = Asset { name: "ETH", rest_name: "XETH", altname: "ETH", decimals: 10 };
const SOL: Asset = Asset { name: "SOL", rest_name: "SOL", altname: "SOL", decimals: 10 };
const USD: Asset = Asset { name: "USD", rest_name: "ZUSD", altname: "USD", decimals: 4 };
const EUR: Asset = Asset { name: "EUR", rest_name: "ZEUR", altname: "EUR", decimals: 4 };

pub(super) static ASSETS: [Asset; 5] = [BTC, ETH, SOL, USD, EUR];

macro_rules! pair {
    ($symbol:literal $v1:literal $rest:literal $alt:literal, $base:ident / $quote:ident, $price:literal, $minimum:literal, $decimals:literal) => {
        Pair {
            symbol: $symbol,
            v1_name: $v1,
            rest_name: $rest,
            altname: $alt,
            base: &$base,
            quote: &$quote,
            price: $price,
            order_minimum: $minimum,
            price_decimals: $decimals,
        }
    };
}

pub(super) static PAIRS: [Pair; 6] = [
    pair!("BTC/USD" "XBT/USD" "XXBTZUSD" "XBTUSD", BTC / USD, 60_000.0, 0.00005, 1),
    pair!("BTC/EUR" "XBT/EUR" "XXBTZEUR" "XBTEUR", BTC / EUR, 55_000.0, 0.00005, 1),
    pair!("ETH/USD" "ETH/USD" "XETHZUSD" "ETHUSD", ETH / USD, 3000.0, 0.002, 2),
    pair!("ETH/EUR" "ETH/EUR" "XETHZEUR" "ETHEUR", ETH / EUR, 2750.0, 0.002, 2),
    pair!("ETH/BTC" "ETH/XBT" "XETHXXBT" "ETHXBT", ETH / BTC, 0.05, 0.002, 5),
    pair!("SOL/USD" "SOL/USD" "SOLUSD" "SOLUSD", SOL / USD, 150.0, 0.02, 2),
];

/// A market under any of its names.
pub(super) fn pair(name: &str) -> Option<&'static Pair> {
    PAIRS.iter().find(|pair| [pair.symbol, pair.v1_name, pair.rest_name, pair.altname].contains(&name))
}

/// REST's `Assets`.
pub(super) fn assets() -> Value {
    let members = ASSETS.iter().map(|asset| {
        let told = json!({
            "aclass": "currency", "altname": asset.altname, "decimals": asset.decimals, "display_decimals": 5,
            "collateral_value": 1.0, "status": "enabled",
        });
        (asset.rest_name.to_owned(), told)
    });
    Value::Object(members.collect())
}

/// REST's `AssetPairs`.
pub(super) fn asset_pairs() -> Value {
    let members = PAIRS.iter().map(|pair| {
        let told = json!({
            "altname": pair.altname, "wsname": pair.v1_name, "aclass_base": "currency", "base": pair.base.rest_name,
            "aclass_quote": "currency", "quote": pair.quote.rest_name, "lot": "unit", "cost_decimals": 5,
            "pair_decimals": pair.price_decimals, "lot_decimals": 8, "lot_multiplier": 1, "leverage_buy": [2, 3],
            "leverage_sell": [2, 3], "fees": [[0, 0.4]], "fees_maker": [[0, 0.25]], "fee_volume_currency": "ZUSD",
            "margin_call": 80, "margin_stop": 40, "ordermin": pair.order_minimum.to_string(), "costmin": "0.5",
            "tick_size": tick(pair).to_string(), "status": "online",
        });
        (pair.rest_name.to_owned(), told)
    });
    Value::Object(members.collect())
}

/// A message of a public v2 channel; none if there is no such channel.
pub(super) fn v2(channel: &str, pair: &Pair, kind: &str, now: UnixMillis) -> Option<String> {
    let (symbol, price, time) = (pair.symbol, pair.price, rfc3339(now));
    let data = match channel {
        "ticker" => json!({
            "symbol": symbol, "bid": price - tick(pair), "bid_qty": 1.0, "ask": price + tick(pair), "ask_qty": 1.0,
            "last": price, "volume": 100.0, "vwap": price, "low": price, "high": price, "change": 0.0,
            "change_pct": 0.0,
        }),
        "trade" => json!({
            "symbol": symbol, "side": "buy", "price": price, "qty": 0.1, "ord_type": "market", "trade_id": now.0,
            "timestamp": time,
        }),
        "ohlc" => json!({
            "symbol": symbol, "open": price, "high": price, "low": price, "close": price, "trades": 1, "volume": 0.1,
            "vwap": price, "interval_begin": time, "interval": 1, "timestamp": time,
        }),
        // Written by hand: the checksum is over the digits, and a library would drop trailing zeros.
        "book" => return Some(book(pair, kind, &time)),
        _ => return None,
    };
    Some(json!({"channel": channel, "type": kind, "data": [data]}).to_string())
}

/// The snapshot of v2's `instrument` channel.
pub(super) fn instruments() -> Value {
    let assets = ASSETS.iter().map(|asset| {
        json!({"id": asset.name, "status": "enabled", "precision": asset.decimals, "precision_display": 5,
            "borrowable": false, "collateral_value": 1.0, "margin_rate": 0.02})
    });
    let pairs = PAIRS.iter().map(|pair| {
        json!({"symbol": pair.symbol, "base": pair.base.name, "quote": pair.quote.name, "status": "online",
            "qty_precision": 8, "qty_increment": 1e-8, "price_precision": pair.price_decimals,
            "price_increment": tick(pair), "cost_precision": 5, "cost_min": 0.5, "marginable": false,
            "has_index": true, "qty_min": pair.order_minimum, "tick_size": tick(pair)})
    });
    let data = json!({"assets": assets.collect::<Vec<_>>(), "pairs": pairs.collect::<Vec<_>>()});
    json!({"channel": "instrument", "type": "snapshot", "data": data})
}

/// The payload of a public v1 channel; none if there is no such channel.
pub(super) fn v1(channel: &str, pair: &Pair, now: UnixMillis) -> Option<Value> {
    let price = pair.price.to_string();
    let time = format!("{}.{:03}000", now.seconds(), now.0 % 1000);
    Some(match channel {
        "ticker" => json!({
            "a": [price, 1, "1.000"], "b": [price, 1, "1.000"], "c": [price, "0.1"], "v": ["1", "1"],
            "p": [price, price], "t": [1, 1], "l": [price, price], "h": [price, price], "o": [price, price],
        }),
        "trade" => json!([[price, "0.1", time, "b", "m", ""]]),
        "spread" => json!([price, price, time, "1", "1"]),
        "ohlc" => json!([time, time, price, price, price, price, price, "0.1", 1]),
        "book" => json!({"as": [[price, "1.000", time]], "bs": [[price, "1.000", time]]}),
        _ => return None,
    })
}

/// Levels on each side of a book.
pub(super) const LEVELS: i32 = 10;

/// The price that stands so many ticks above the market's (below it where negative), in the market's digits.
pub(super) fn level(pair: &Pair, steps: i32) -> String {
    format!("{:.*}", pair.price_decimals, pair.price + f64::from(steps) * tick(pair))
}

fn tick(pair: &Pair) -> f64 {
    10_f64.powi(-i32::try_from(pair.price_decimals).unwrap_or(0))
}

/// A level of the book for each of ten ticks around the price, with the venue's checksum
/// (docs.kraken.com, "Spot WebSockets v2 book checksum").
fn book(pair: &Pair, kind: &str, time: &str) -> String {
    let side = |sign: i32| -> (String, String) {
        let (mut levels, mut digits) = (Vec::new(), String::new());
        for step in 1..=LEVELS {
            let price = level(pair, sign * step);
            let quantity = format!("{:.8}", f64::from(step) / 10.0);
            for number in [&price, &quantity] {
                digits.push_str(number.replace('.', "").trim_start_matches('0'));
            }
            levels.push(format!(r#"{{"price":{price},"qty":{quantity}}}"#));
        }
        (levels.join(","), digits)
    };
    let (asks, ask_digits) = side(1);
    let (bids, bid_digits) = side(-1);
    let checksum = crc32(format!("{ask_digits}{bid_digits}").as_bytes());
    let symbol = pair.symbol;
    format!(
        r#"{{"channel":"book","type":"{kind}","data":[{{"symbol":"{symbol}","bids":[{bids}],"asks":[{asks}],"checksum":{checksum},"timestamp":"{time}"}}]}}"#
    )
}

/// CRC-32 as in IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |mut crc, byte| {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
        crc
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_crc32_is_reached() {
        // The "check" value of CRC-32/ISO-HDLC in the catalogue of parametrised CRC algorithms.
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_market_is_found_under_each_of_its_names() {
        for name in ["BTC/USD", "XBT/USD", "XXBTZUSD", "XBTUSD"] {
            assert_eq!(pair(name).map(|pair| pair.symbol), Some("BTC/USD"));
        }
        assert!(pair("DOGE/USD").is_none());
    }
}
