//! What Countersign wants to reach, as parts of what others take or do.

use crate::ledger::{Figure, Party, Row};

/// With whom it is compared.
#[derive(Clone, Copy)]
enum Against {
    Haproxy,
    Nginx,
    /// Whoever of the three does best in that row.
    Best,
    /// The figure itself.
    Nobody,
}

use Against::{Best, Haproxy, Nginx, Nobody};

/// At most this for a cost, at least this for a speed; in the rows whose load begins so.
struct Goal(Figure, &'static str, Against, f64);

const GOALS: &[Goal] = &[
    Goal(Figure::P50, "128 B, 1 ", Haproxy, 0.66),
    Goal(Figure::P50, "128 B, 64 ", Haproxy, 0.55),
    Goal(Figure::P50, "16 KiB", Haproxy, 0.40),
    Goal(Figure::P99, "128 B, 16 ", Haproxy, 0.50),
    Goal(Figure::Cpu, "128 B, 64 ", Haproxy, 0.60),
    Goal(Figure::Cpu, "128 B, 64 ", Best, 0.65),
    Goal(Figure::Cpu, "16 KiB", Haproxy, 0.45),
    Goal(Figure::Cpu, "16 KiB", Best, 0.55),
    Goal(Figure::Feed, "", Haproxy, 4.0),
    Goal(Figure::Feed, "", Nginx, 1.4),
    Goal(Figure::Opened, "", Haproxy, 3.0),
    Goal(Figure::Memory, "", Nobody, 20.0),
    Goal(Figure::Memory, "", Haproxy, 0.5),
];

/// How far latency may miss: the relay that the goals were measured with had no policy to ask.
const LATENCY_SLACK: f64 = 1.1;

/// What the goals for this row come to, in words.
pub(crate) fn verdicts(row: &Row) -> Vec<String> {
    let goals = GOALS.iter().filter(|goal| goal.0 == row.figure && row.load.starts_with(goal.1));
    goals.map(|goal| verdict(row, goal)).collect()
}

fn verdict(row: &Row, Goal(figure, _, against, bound): &Goal) -> String {
    let (reached, of) = match against {
        Haproxy => (row.ratio(Party::Haproxy), " × HAProxy"),
        Nginx => (row.ratio(Party::Nginx), " × nginx"),
        Best => (row.best().and_then(|best| row.ratio(best)), " × best"),
        Nobody => (row.of(Party::Countersign).map(|median| median.middle), ""),
    };
    let goal = format!("{} {bound}{of}", if figure.is_cost() { "≤" } else { "≥" });
    let Some(reached) = reached else { return format!("{goal}: cannot be said") };
    let is_latency = matches!(figure, Figure::P50 | Figure::P99);
    let word = match figure.is_cost() {
        true if reached <= *bound => "met",
        true if is_latency && reached <= bound * LATENCY_SLACK => "met within 10 %",
        false if reached >= *bound => "met",
        _ => "missed",
    };
    format!("{goal}: {word}")
}
