//! What is traded at the simulated ProjectX: a few contracts, at prices that never move.

use crate::fresh::UnixMillis;
use crate::simulator::clock::rfc3339;
use serde_json::{Value, json};
use std::time::UNIX_EPOCH;

/// The most bars that one request may ask for (gateway.docs.projectx.com, "Retrieve bars").
pub(super) const BARS_MAX: i64 = 20_000;

/// A contract.
#[derive(Debug)]
pub(super) struct Contract {
    pub(super) id: &'static str,
    name: &'static str,
    description: &'static str,
    pub(super) symbol: &'static str,
    pub(super) tick_size: f64,
    pub(super) tick_value: f64,
    pub(super) price: f64,
    pub(super) is_active: bool,
}

const CONTRACTS: [Contract; 5] = [
    contract("CON.F.US.EP.Z26", "ESZ6", "E-mini S&P 500: December 2026", "F.US.EP", [0.25, 12.5, 6500.25], true),
    contract(
        "CON.F.US.MES.Z26",
        "MESZ6",
        "Micro E-mini S&P 500: December 2026",
        "F.US.MES",
        [0.25, 1.25, 6500.25],
        true,
    ),
    contract("CON.F.US.ENQ.Z26", "NQZ6", "E-mini NASDAQ-100: December 2026", "F.US.ENQ", [0.25, 5.0, 23_500.5], true),
    contract(
        "CON.F.US.MNQ.Z26",
        "MNQZ6",
        "Micro E-mini Nasdaq-100: December 2026",
        "F.US.MNQ",
        [0.25, 0.5, 23_500.5],
        true,
    ),
    contract(
        "CON.F.US.MNQ.U26",
        "MNQU6",
        "Micro E-mini Nasdaq-100: September 2026",
        "F.US.MNQ",
        [0.25, 0.5, 23_400.0],
        false,
    ),
];

const fn contract(
    id: &'static str,
    name: &'static str,
    description: &'static str,
    symbol: &'static str,
    [tick_size, tick_value, price]: [f64; 3],
    is_active: bool,
) -> Contract {
    Contract { id, name, description, symbol, tick_size, tick_value, price, is_active }
}

/// The contract with this id.
pub(super) fn find(id: &str) -> Option<&'static Contract> {
    CONTRACTS.iter().find(|contract| contract.id == id)
}

/// Every contract that is active.
pub(super) fn available() -> Vec<Value> {
    CONTRACTS.iter().filter(|contract| contract.is_active).map(Contract::to_json).collect()
}

/// Every contract whose name, id or description holds `text`.
pub(super) fn search(text: &str) -> Vec<Value> {
    let text = text.to_ascii_lowercase();
    let fits =
        |it: &&Contract| [it.id, it.name, it.description].iter().any(|of| of.to_ascii_lowercase().contains(&text));
    CONTRACTS.iter().filter(fits).map(Contract::to_json).collect()
}

impl Contract {
    pub(super) fn to_json(&self) -> Value {
        json!({
            "id": self.id, "name": self.name, "description": self.description, "tickSize": self.tick_size,
            "tickValue": self.tick_value, "activeContract": self.is_active, "symbolId": self.symbol,
        })
    }

    /// A quote with every member, as a subscriber gets it first.
    pub(super) fn quote(&self, now: UnixMillis) -> Value {
        let mut quote = self.sparse_quote(now);
        let tick = self.tick_size;
        for (name, value) in [
            ("bestBid", self.price - tick),
            ("bestAsk", self.price + tick),
            ("change", 4.0 * tick),
            ("changePercent", 0.01),
            ("open", self.price - 4.0 * tick),
            ("high", self.price + 8.0 * tick),
            ("low", self.price - 8.0 * tick),
        ] {
            quote[name] = json!(value);
        }
        quote["symbolName"] = json!(self.description);
        quote["volume"] = json!(12_345);
        quote
    }

    /// A quote with what changes from one to the next.
    pub(super) fn sparse_quote(&self, now: UnixMillis) -> Value {
        let at = timestamp(now);
        json!({"symbol": self.symbol, "lastPrice": self.price, "lastUpdated": at, "timestamp": at})
    }

    pub(super) fn trade(&self, now: UnixMillis) -> Value {
        json!({"symbolId": self.symbol, "price": self.price, "timestamp": timestamp(now), "type": 0, "volume": 2})
    }

    /// The best bid and the best ask.
    pub(super) fn depth(&self, now: UnixMillis) -> Value {
        let level = |kind: u8, price: f64| json!({"timestamp": timestamp(now), "type": kind, "price": price, "volume": 10, "currentVolume": 10});
        json!([level(4, self.price - self.tick_size), level(3, self.price + self.tick_size)])
    }

    /// Bars of `span` milliseconds, newest first.
    pub(super) fn bars(&self, start: UnixMillis, end: UnixMillis, span: u64, limit: usize) -> Vec<Value> {
        let newest = end.0 - end.0 % span;
        let starts = (0..).map_while(|back: u64| newest.checked_sub(back * span)).take_while(|at| *at >= start.0);
        let bar = |at: u64| {
            let (high, low) = (self.price + self.tick_size, self.price - self.tick_size);
            json!({"t": timestamp(UnixMillis(at)), "o": low, "h": high, "l": low, "c": self.price, "v": 100})
        };
        starts.take(limit).map(bar).collect()
    }
}

/// How many milliseconds one unit of bars has: second, minute, hour, day, week, month.
pub(super) fn unit_millis(unit: i64) -> Option<u64> {
    let seconds = match unit {
        1 => 1,
        2 => 60,
        3 => 3600,
        4 => 86_400,
        5 => 7 * 86_400,
        6 => 30 * 86_400,
        _ => return None,
    };
    Some(seconds * 1000)
}

/// A moment as the venue writes it.
pub(super) fn timestamp(at: UnixMillis) -> String {
    rfc3339(at).replace('Z', "+00:00")
}

/// A moment as clients write it: with `Z`, an offset or nothing, which is UTC.
pub(super) fn moment(text: &str) -> Option<UnixMillis> {
    let offset = text.len().checked_sub(6).and_then(|at| text.split_at_checked(at));
    let (local, offset) = match offset {
        Some((local, offset)) if offset.starts_with(['+', '-']) && offset.as_bytes()[3] == b':' => (local, offset),
        _ => (text, "+00:00"),
    };
    let minutes = offset[1..3].parse::<u64>().ok()? * 60 + offset[4..].parse::<u64>().ok()?;
    let local = humantime::parse_rfc3339_weak(local).ok()?.duration_since(UNIX_EPOCH).ok()?.as_millis();
    let local = u64::try_from(local).ok()?;
    let at = if offset.starts_with('-') { local + minutes * 60_000 } else { local.checked_sub(minutes * 60_000)? };
    Some(UnixMillis(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_as_clients_write_it() {
        // `date -u -d @1753218000 +%FT%TZ`
        let at = Some(UnixMillis(1_753_218_000_000));
        for text in [
            "2025-07-22T21:00:00Z",
            "2025-07-22T21:00:00",
            "2025-07-22T21:00:00.000000+00:00",
            "2025-07-22T16:00:00-05:00",
        ] {
            assert_eq!(moment(text), at, "{text}");
        }
        assert_eq!(timestamp(UnixMillis(1_753_218_000_000)), "2025-07-22T21:00:00.000000+00:00");
        for text in ["", "now", "2025-07-22", "2025-13-22T21:00:00Z", "€€€€€€"] {
            assert_eq!(moment(text), None, "{text}");
        }
    }

    #[test]
    fn bars_are_within_their_limits_and_newest_first() {
        let contract = find("CON.F.US.EP.Z26").expect("it is listed");
        let bars = contract.bars(UnixMillis(60_000), UnixMillis(200_000), 60_000, 10);
        let starts: Vec<_> = bars.iter().map(|bar| bar["t"].as_str()).collect();
        assert_eq!(starts.len(), 3);
        assert!(starts[0] > starts[1] && starts[1] > starts[2]);
        assert_eq!(contract.bars(UnixMillis(0), UnixMillis(200_000), 60_000, 2).len(), 2);
    }
}
