//! Logs: text on a terminal, JSON elsewhere or on request; no payload at any level.

use std::io::IsTerminal as _;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How logs look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
    /// Text on a terminal, JSON elsewhere.
    Auto,
}

/// Begins to log to standard error. `level` is our own; the libraries below speak up only when something is wrong,
/// because what they say at lower levels holds bytes of peers.
pub(super) fn start(format: Format, level: LevelFilter) {
    let filter = Targets::new().with_default(LevelFilter::WARN.min(level)).with_target("countersign", level);
    let is_text = match format {
        Format::Text => true,
        Format::Json => false,
        Format::Auto => std::io::stderr().is_terminal(),
    };
    let registry = tracing_subscriber::registry();
    // A second start in one process (tests) keeps the first.
    let _ = if is_text {
        let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
        registry.with(layer.with_ansi(std::io::stderr().is_terminal()).with_filter(filter)).try_init()
    } else {
        let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).json().flatten_event(true);
        registry.with(layer.with_filter(filter)).try_init()
    };
}
