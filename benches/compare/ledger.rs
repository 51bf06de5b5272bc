//! Every figure of every round, and what follows from them.

use crate::peers::Peer;
use crate::rig::figures::Median;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// Who is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Party {
    /// Clients and exchange with nothing between them: what physics costs.
    Direct,
    Countersign,
    Haproxy,
    Nginx,
    Envoy,
}

impl Party {
    pub(crate) const ALL: [Self; 5] = [Self::Direct, Self::Countersign, Self::Haproxy, Self::Nginx, Self::Envoy];
    /// Those that Countersign is compared with.
    pub(crate) const PEERS: [Self; 3] = [Self::Haproxy, Self::Nginx, Self::Envoy];

    /// What its program is called.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Countersign => "countersign",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Countersign => "Countersign",
            Self::Haproxy => "HAProxy",
            Self::Envoy => "Envoy",
            Self::Direct | Self::Nginx => self.program(),
        })
    }
}

/// What is counted. The order is that of the report.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    /// Microseconds of a round trip, half of them under it.
    P50,
    P99,
    /// Microseconds of the proxy's processors for a message (there and back where it comes back).
    Cpu,
    /// Messages a second.
    Feed,
    /// Megabytes a second, and as many back.
    BothWays,
    /// Sessions a second.
    Opened,
    /// Microseconds of the proxy's processors for a session.
    OpenedCpu,
    /// Handshakes with the exchange that took up an earlier session, in percent.
    Resumed,
    /// KiB that a session adds to the processes.
    Memory,
}

impl Figure {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::P50 => "added round trip p50, µs (direct: all of it)",
            Self::P99 => "added round trip p99, µs (direct: all of it)",
            Self::Cpu => "proxy CPU for a message, µs",
            Self::Feed => "feed as fast as it comes, messages/s",
            Self::BothWays => "both ways, MB/s",
            Self::Opened => "new sessions/s",
            Self::OpenedCpu => "proxy CPU for a new session, µs",
            Self::Resumed => "handshakes with the exchange that were resumed, %",
            Self::Memory => "memory of a session, KiB",
        }
    }

    /// True where a proxy is judged by what it adds to the direct connection of the same round.
    fn is_added(self) -> bool {
        matches!(self, Self::P50 | Self::P99)
    }

    /// True where less is better.
    pub(crate) fn is_cost(self) -> bool {
        !matches!(self, Self::Feed | Self::BothWays | Self::Opened)
    }

    /// True where parties are compared. Resumption explains, and is not a merit.
    pub(crate) fn is_compared(self) -> bool {
        self != Self::Resumed
    }
}

/// One line of the report.
pub(crate) struct Row {
    threads: usize,
    pub(crate) figure: Figure,
    pub(crate) load: String,
    values: BTreeMap<(Party, usize), f64>,
}

impl Row {
    /// A party's figure, over all rounds.
    pub(crate) fn of(&self, party: Party) -> Option<Median> {
        median(self.rounds(party).map(|(_, value)| value))
    }

    /// Countersign's figure by another's of the same round, in the middle of all rounds.
    ///
    /// None also where that is no number to go by: noise was greater than what one of the two adds.
    pub(crate) fn ratio(&self, other: Party) -> Option<f64> {
        let others: BTreeMap<usize, f64> = self.rounds(other).collect();
        let ratio = |(round, value): (usize, f64)| {
            let other = *others.get(&round)?;
            // Who was faster than no proxy at all cannot be beaten in that round.
            Some(if other > 0.0 { value / other } else { f64::INFINITY })
        };
        let middle = median(self.rounds(Party::Countersign).filter_map(ratio))?.middle;
        (middle > 0.0 && middle.is_finite()).then_some(middle)
    }

    /// The peer that does best here.
    pub(crate) fn best(&self) -> Option<Party> {
        let known = Party::PEERS.into_iter().filter_map(|party| Some((party, self.of(party)?.middle)));
        let by_value = |one: &(Party, f64), other: &(Party, f64)| one.1.total_cmp(&other.1);
        let best = if self.figure.is_cost() { known.min_by(by_value) } else { known.max_by(by_value) };
        best.map(|(party, _)| party)
    }

    fn rounds(&self, party: Party) -> impl Iterator<Item = (usize, f64)> {
        let mine = self.values.iter().filter(move |((of, _), _)| *of == party);
        mine.filter_map(move |((_, round), value)| {
            let is_added = self.figure.is_added() && party != Party::Direct;
            let direct = if is_added { *self.values.get(&(Party::Direct, *round))? } else { 0.0 };
            Some((*round, value - direct))
        })
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<Median> {
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| Median::of(values))
}

/// All that was measured.
#[derive(Default)]
pub(crate) struct Ledger {
    rows: Vec<Row>,
}

impl Ledger {
    pub(crate) fn note(&mut self, threads: usize, figure: Figure, load: &str, when: (Party, usize), value: f64) {
        let is_it = |row: &&mut Row| (row.threads, row.figure, &row.load[..]) == (threads, figure, load);
        if let Some(row) = self.rows.iter_mut().find(is_it) {
            row.values.insert(when, value);
        } else {
            self.rows.push(Row { threads, figure, load: load.to_owned(), values: BTreeMap::from([(when, value)]) });
        }
    }

    /// The rows of a section, those of one figure together.
    pub(crate) fn section(&self, threads: usize) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.rows.iter().filter(|row| row.threads == threads).collect();
        rows.sort_by_key(|row| row.figure);
        rows
    }

    /// What was measured, before anything was taken off it or divided by anything.
    pub(crate) fn json(&self, peers: &[Peer]) -> Value {
        let rows = self.rows.iter().map(|row| {
            let mut parties = serde_json::Map::new();
            for ((party, _), value) in &row.values {
                let rounds = parties.entry(party.program()).or_insert_with(|| json!([]));
                rounds.as_array_mut().expect("it was made one").push(json!(value));
            }
            json!({"threads": row.threads, "figure": row.figure.title(), "load": row.load, "rounds": parties})
        });
        let peers = peers.iter().map(|peer| json!(peer.version));
        json!({"peers": peers.collect::<Vec<_>>(), "rows": rows.collect::<Vec<_>>()})
    }
}
