//! The simulated Kraken's public REST methods. What the markets are is in `market`.

use super::market::{self, Pair};
use super::{Kraken, classic, form};
use crate::fresh::UnixMillis;
use crate::simulator::clock::rfc3339;
use crate::simulator::server::Received;
use serde_json::{Map, Value, json};

/// Levels on each side of a book without `count` (docs.kraken.com, "Get order book").
const DEPTH_DEFAULT: usize = 100;

/// The result of a public method. The error is the venue's text.
pub(super) fn execute(kraken: &Kraken, method: &str, request: &Received) -> Result<Value, &'static str> {
    let now = kraken.clock.now();
    let query = form::read(request.uri.query().unwrap_or_default()).ok_or("EGeneral:Invalid arguments")?;
    let count = query.get("count").and_then(Value::as_str).and_then(|count| count.parse().ok());
    Ok(match method {
        "Time" => json!({"unixtime": now.seconds(), "rfc1123": rfc3339(now)}),
        "SystemStatus" => json!({"status": "online", "timestamp": rfc3339(now)}),
        "Assets" => market::assets(),
        "AssetPairs" => {
            let asked = pairs(&query)?;
            let Value::Object(mut all) = market::asset_pairs() else { return Err("EGeneral:Internal error") };
            all.retain(|name, _| asked.iter().any(|pair| pair.rest_name == name));
            Value::Object(all)
        }
        "Ticker" => {
            let told = pairs(&query)?.into_iter().filter_map(|pair| Some((pair, market::v1("ticker", pair, now)?)));
            Value::Object(told.map(|(pair, ticker)| (pair.rest_name.to_owned(), ticker)).collect())
        }
        "Depth" => {
            let pair = one_pair(&query)?;
            json!({pair.rest_name: depth(pair, count.unwrap_or(DEPTH_DEFAULT), now)})
        }
        "Trades" => {
            let pair = one_pair(&query)?;
            let price = pair.price.to_string();
            let last = format!("{}000000", now.0);
            json!({pair.rest_name: [[price, "0.10000000", classic::seconds(now), "b", "m", "", 1]], "last": last})
        }
        "Spread" => {
            let pair = one_pair(&query)?;
            let (bid, ask) = (market::level(pair, -1), market::level(pair, 1));
            json!({pair.rest_name: [[now.seconds(), bid, ask]], "last": now.seconds()})
        }
        "OHLC" => {
            let pair = one_pair(&query)?;
            let price = pair.price.to_string();
            let minute = now.seconds() / 60 * 60;
            let candles = [minute.saturating_sub(60), minute]
                .map(|begin| json!([begin, price, price, price, price, price, "0.10000000", 1]));
            json!({pair.rest_name: candles, "last": minute.saturating_sub(60)})
        }
        _ => return Err("EGeneral:Unknown method"),
    })
}

/// The markets that `pair` names, with commas between; all without it.
fn pairs(query: &Map<String, Value>) -> Result<Vec<&'static Pair>, &'static str> {
    match query.get("pair").and_then(Value::as_str) {
        None => Ok(market::PAIRS.iter().collect()),
        Some(names) => names.split(',').map(|name| market::pair(name).ok_or("EQuery:Unknown asset pair")).collect(),
    }
}

fn one_pair(query: &Map<String, Value>) -> Result<&'static Pair, &'static str> {
    match pairs(query)?.as_slice() {
        [pair] => Ok(pair),
        _ => Err("EGeneral:Invalid arguments:pair"),
    }
}

fn depth(pair: &Pair, count: usize, now: UnixMillis) -> Value {
    let side = |sign: i32| -> Vec<Value> {
        let levels = (1..=market::LEVELS).take(count);
        levels.map(|step| json!([market::level(pair, sign * step), "1.000", now.seconds()])).collect()
    };
    json!({"asks": side(1), "bids": side(-1)})
}
