//! The simulated Bitfinex' public REST endpoints. What the markets are is in `market`.

use super::market;
use crate::fresh::UnixMillis;
use http::Method;
use serde_json::{Value, json};

/// The answer of a public endpoint; none if there is no such endpoint. The error is the venue's text of a 10020.
pub(super) fn execute(
    method: &Method,
    endpoint: &str,
    query: &str,
    body: &[u8],
    now: UnixMillis,
) -> Option<Result<Value, &'static str>> {
    let parts: Vec<&str> = endpoint.split('/').collect();
    if *method == Method::POST {
        return match parts[..] {
            ["calc", "fx"] => Some(Ok(json!([1]))),
            ["calc", "trade", "avg"] => Some(average(query, body)),
            _ => None,
        };
    }
    if *method != Method::GET && *method != Method::HEAD {
        return None;
    }
    let unknown = "symbol: invalid";
    let told = match parts[..] {
        ["platform", "status"] => json!([1]),
        ["conf", keys] => market::conf(keys),
        ["tickers"] => {
            let symbols = query.split('&').find_map(|pair| pair.strip_prefix("symbols=")).unwrap_or("ALL");
            market::tickers(&symbols.replace("%2C", ",").replace("%3A", ":"))
        }
        ["ticker", symbol] => return Some(market::pair(symbol).map(market::ticker).ok_or(unknown)),
        ["book", symbol, precision] => return Some(market::book(symbol, precision).ok_or(unknown)),
        ["trades", symbol, "hist"] => return Some(market::snapshot("trades", symbol, "", now).ok_or(unknown)),
        ["candles", key, section] => {
            let candles = market::snapshot("candles", key, "", now).ok_or("key: invalid");
            return match section {
                "hist" => Some(candles),
                // One candle, not a list of one.
                "last" => Some(candles.map(|all| all[0].clone())),
                _ => None,
            };
        }
        ["tickers" | "liquidations", "hist"] | ["status", "deriv", ..] | ["funding", "stats", _, "hist"] => json!([]),
        ["stats1", _, "hist"] | ["rankings", _, "hist"] => json!([]),
        _ => return None,
    };
    Some(Ok(told))
}

/// `[price average, amount]`: a market that never moves has one price.
fn average(query: &str, body: &[u8]) -> Result<Value, &'static str> {
    let fields: Value = serde_json::from_slice(body).unwrap_or_default();
    let asked = |name: &str| {
        let in_query = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        in_query.or(fields[name].as_str()).map(str::to_owned)
    };
    let pair = asked("symbol").and_then(|symbol| market::pair(&symbol)).ok_or("symbol: invalid")?;
    let amount: f64 = asked("amount").and_then(|amount| amount.parse().ok()).ok_or("amount: invalid")?;
    Ok(json!([pair.price, amount]))
}
