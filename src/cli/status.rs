//! `countersign status`: how the running proxy and its accounts are, as its admin listener tells.

use super::{ConfigArgs, Exit, assemble, proxy};
use crate::fresh::UnixMillis;
use crate::supply::clock::Clock;
use clap::Args;
use serde_json::Value;
use std::time::Duration;

/// Show how the running proxy and its accounts are: tokens, breakers, nonces, queues
///
/// One line for each account, and below them what a person should do. TOKEN is one of
///   valid      it is handed out; UNTIL says for how long
///   absent     there is none: the next client that needs one has it bought
///   expired    the last one has run out, and nobody has asked for another
///   buying     one is being bought
///   waiting    the last purchase failed; the next one follows soon
///   open       the breaker is open: nothing is bought for a while, and clients are told so at once
///   probing    the breaker is half open: one purchase tries whether it works again
/// For scripts: countersign status --json
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct StatusArgs {
    /// Print what the admin listener says under /status, as it is
    #[arg(long)]
    json: bool,
}

pub(super) fn run(config: &ConfigArgs, args: &StatusArgs) -> Result<(), Exit> {
    let config = assemble::load(config)?;
    let address = proxy::reachable(config.admin_address);
    let (code, body) = proxy::ask(address, "/status").map_err(|error| proxy::not_there(address, &error))?;
    let stranger = || {
        let advice = "another program, or an older countersign, answers there; look at admin.address";
        Exit::failed(format!("{address}: the answer is no status; {advice}"))
    };
    let told: Value = serde_json::from_str(&body).map_err(|_| stranger())?;
    let (Some(version), Some(accounts)) = (told["countersign"].as_str(), told["accounts"].as_array()) else {
        return Err(stranger());
    };
    if code != 200 {
        return Err(stranger());
    }
    if args.json {
        super::say(body.trim_end());
        return Ok(());
    }
    super::say(format_args!(
        "countersign {version}, process {}, up for {}, {} sessions, {} connections since the start{}\n",
        told["pid"],
        span(Duration::from_secs(told["uptime_s"].as_u64().unwrap_or_default())),
        told["sessions"],
        told["connections"],
        if told["draining"] == true { ", on its way out" } else { "" },
    ));
    print_accounts(accounts);
    Ok(())
}

/// Prints accounts as `/status` tells of them: a table, and advice.
pub(super) fn print_accounts(accounts: &[Value]) {
    let now = Clock::System.now();
    let mut rows = vec![["ACCOUNT", "VENUE", "TOKEN", "UNTIL", "BREAKER", "LANE", "QUEUE"].map(str::to_owned)];
    rows.extend(accounts.iter().map(|account| row(account, now)));
    let widths: [usize; 7] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or_default());
    for row in &rows {
        let cells = std::iter::zip(row, widths).map(|(cell, width)| format!("{cell:width$}"));
        super::say(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    for line in accounts.iter().flat_map(|account| advice(account, now)) {
        super::say(format_args!("\n{line}"));
    }
}

fn row(account: &Value, now: UnixMillis) -> [String; 7] {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let (token, lane, queue) = (&account["token"], &account["lane"], &account["queue"]);
    let usable = match left(&token["usable_until"], now) {
        Some(left) => format!("in {}", span(left)),
        None => "-".to_owned(),
    };
    let lane = match (lane["unit"].as_str(), lane["frozen"] == true) {
        (Some(unit), false) => unit.to_owned(),
        (Some(unit), true) => format!("{unit} FROZEN"),
        (None, _) => "-".to_owned(),
    };
    let waiting: u64 = ["cancels", "logins", "orders", "reads"].iter().filter_map(|class| queue[class].as_u64()).sum();
    let queue = match account["in_flight"].as_u64() {
        Some(in_flight) => format!("{waiting} wait, {in_flight} on their way"),
        None => "-".to_owned(),
    };
    let token = match account["status"].as_str() {
        Some("ok") => word(&token["state"]),
        other => other.unwrap_or("-").replace('_', " "),
    };
    [word(&account["account"]), word(&account["venue"]), token, usable, word(&account["breaker"]), lane, queue]
}

/// What a person should know or do.
fn advice(account: &Value, now: UnixMillis) -> Vec<String> {
    let name = account["account"].as_str().unwrap_or_default();
    let token = &account["token"];
    let mut lines = Vec::new();
    if let Some(reason) = token["reason"].as_str() {
        let retry = left(&token["retry_at"], now)
            .map_or("with the next client".to_owned(), |left| format!("in {}", span(left)));
        lines.push(format!(
            "{name}: no new token, {} failures: {reason}.\n  The next try is {retry}; `countersign account reset {name}` \
             lets it be now.",
            token["failures"]
        ));
    }
    if account["lane"]["frozen"] == true {
        lines.push(format!(
            "{name}: frozen, because the exchange refused several nonces as too small.\n  End every other program that \
             uses this key and check the clock; then `countersign account unfreeze {name}`."
        ));
    }
    if let Some(left) = left(&account["left_alone_until"], now) {
        lines.push(format!(
            "{name}: the exchange refused the key again and again; it is left alone for {}.\n  Check the key and its \
             permissions; then `countersign account reset {name}`.",
            span(left)
        ));
    }
    if account["status"] == "busy" {
        lines.push(format!("{name}: it did not answer in time: too many calls wait. Try again."));
    }
    lines
}

/// How long it is to a moment. `None`: there is none, or it is over.
fn left(moment: &Value, now: UnixMillis) -> Option<Duration> {
    let left = UnixMillis(moment.as_u64()?).since(now);
    (!left.is_zero()).then_some(left)
}

/// A duration for people, in whole seconds.
fn span(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn account() -> Value {
        json!({
            "account": "kraken_main", "venue": "kraken", "status": "ok", "breaker": "closed",
            "token": {"state": "valid", "usable_until": NOW.0 + 725_000, "refresh_at": NOW.0 + 600_000,
                "retry_at": null, "failures": 0, "reason": null},
            "lane": {"unit": "ns", "frozen": false, "reserved": 7},
            "queue": {"cancels": 0, "logins": 1, "orders": 2, "reads": 0}, "in_flight": 1,
            "clock_offset_ms": 3, "refused_in_a_row": 0, "left_alone_until": null,
        })
    }

    #[test]
    fn an_account_in_order_is_a_line_and_no_advice() {
        let expected = ["kraken_main", "kraken", "valid", "in 12m 5s", "closed", "ns", "3 wait, 1 on their way"];
        assert_eq!(row(&account(), NOW), expected);
        assert_eq!(advice(&account(), NOW), [""; 0]);
    }

    #[test]
    fn trouble_comes_with_the_command_that_ends_it() {
        let mut account = account();
        account["token"] = json!({"state": "open", "usable_until": null, "refresh_at": null,
            "retry_at": NOW.0 + 9_000, "failures": 5, "reason": "the exchange could not answer just now"});
        account["breaker"] = "open".into();
        account["lane"]["frozen"] = true.into();
        account["left_alone_until"] = (NOW.0 + 300_000).into();
        let row = row(&account, NOW);
        assert_eq!((&*row[2], &*row[3], &*row[4], &*row[5]), ("open", "-", "open", "ns FROZEN"));
        let advice = advice(&account, NOW);
        let expected = ["is in 9s; `countersign account reset kraken_main`", "unfreeze kraken_main", "alone for 5m"];
        assert_eq!(advice.len(), expected.len());
        for (line, expected) in std::iter::zip(&advice, expected) {
            assert!(line.contains(expected), "{line}");
        }
    }

    #[test]
    fn an_account_without_keys_or_time_is_a_line_too() {
        for status in ["no_keys", "busy"] {
            let account = json!({"account": "feed", "venue": "plain", "status": status});
            let shown = status.replace('_', " ");
            assert_eq!(row(&account, NOW), ["feed", "plain", &shown, "-", "-", "-", "-"]);
        }
    }
}
