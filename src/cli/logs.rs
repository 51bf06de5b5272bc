//! Logs: text on a terminal, JSON elsewhere or on request; no payload at any level.

use std::io::IsTerminal as _;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
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

/// Lines that may wait for whoever reads the log; more are dropped, because trading goes on without them.
const LINES_WAITING_MAX: usize = 8_192;

/// Keeps logging alive; dropped at the end of the program, it writes what still waits.
#[must_use = "without it nothing is logged"]
pub(super) struct Logging {
    _writer: WorkerGuard,
}

/// Begins to log to standard error. `level` is our own; the libraries below speak up only when something is wrong,
/// because what they say at lower levels holds bytes of peers.
pub(super) fn start(format: Format, level: LevelFilter) -> Logging {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_WAITING_MAX)
        .thread_name("log")
        .finish(std::io::stderr());
    let filter = Targets::new().with_default(LevelFilter::WARN.min(level)).with_target("countersign", level);
    let is_text = match format {
        Format::Text => true,
        Format::Json => false,
        Format::Auto => std::io::stderr().is_terminal(),
    };
    let registry = tracing_subscriber::registry();
    // A second start in one process (tests) keeps the first.
    let _ = if is_text {
        let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
        registry.with(layer.with_ansi(std::io::stderr().is_terminal()).with_filter(filter)).try_init()
    } else {
        let layer = tracing_subscriber::fmt::layer().with_writer(writer).json().flatten_event(true);
        registry.with(layer.with_filter(filter)).try_init()
    };
    Logging { _writer: guard }
}
