//! The report: a table for each figure, with the goals beside.

use crate::goals;
use crate::ledger::{Figure, Ledger, Party, Row};
use crate::peers::Peer;
use crate::rig::figures::Median;

/// Shows a section: all that was measured with so many threads.
pub(crate) fn print(ledger: &Ledger, threads: usize, peers: &[Peer]) {
    let versions: Vec<&str> = peers.iter().map(|peer| &peer.version[..]).collect();
    let versions = if versions.is_empty() { "no peer".to_owned() } else { versions.join(", ") };
    println!("beside {versions}; medians of all rounds (least..most)");
    let mut title = None;
    for row in ledger.section(threads) {
        if title != Some(row.figure) {
            title = Some(row.figure);
            head(row.figure);
        }
        line(row);
    }
    println!();
}

fn head(figure: Figure) {
    print!("\n{}\n{:<24}", figure.title(), "");
    for party in Party::ALL {
        print!("{party:>24}");
    }
    println!("{:>12}{:>18}", "× HAProxy", "× best peer");
}

fn line(row: &Row) {
    print!("{:<24}", row.load);
    for party in Party::ALL {
        print!("{:>24}", row.of(party).map_or_else(|| "-".to_owned(), |median| cell(&median)));
    }
    if row.figure.is_compared() {
        let ratio = |party| Some(format!("{:.2}", row.ratio(party)?));
        let best = row.best().and_then(|best| Some(format!("{} ({best})", ratio(best)?)));
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        print!("{:>12}{:>18}", or_none(ratio(Party::Haproxy)), or_none(best));
    }
    println!("  {}", goals::verdicts(row).join("; "));
}

fn cell(median: &Median) -> String {
    let Median { least, middle, most } = median;
    // Hundreds need no tenths.
    let digits = usize::from(middle.abs() < 100.0);
    if least.total_cmp(most).is_eq() {
        return format!("{middle:.digits$}");
    }
    format!("{middle:.digits$} ({least:.digits$}..{most:.digits$})")
}
