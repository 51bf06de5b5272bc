//! What the demo prints: titles, and who sent what, with everything that could be a secret shortened.

use super::super::{say, simulate};
use crate::simulator::{Direction, Entry, Kind};
use std::io::IsTerminal as _;

/// Enough for every message that a bot or the proxy sends here.
const SENT_CHARS_MAX: usize = 200;
/// What an exchange tells is longer than anybody reads.
const TOLD_CHARS_MAX: usize = 130;

/// Whose doing a line is.
#[derive(Clone, Copy)]
pub(super) enum Who {
    /// The bot said it.
    Bot,
    /// The exchange received it.
    Exchange,
    /// The bot was told it.
    Told,
}

pub(super) struct Screen {
    is_colourful: bool,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self { is_colourful: std::io::stdout().is_terminal() }
    }

    pub(super) fn title(&self, text: &str) {
        let (on, off) = if self.is_colourful { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        say(format_args!("\n{on}{text}{off}\n"));
    }

    /// A line, with tokens, keys and signatures shortened.
    pub(super) fn line(&self, who: Who, text: &str) {
        let (what, on, chars_max) = match who {
            Who::Bot => ("bot sent", "\x1b[36m", SENT_CHARS_MAX),
            Who::Exchange => ("exchange got", "\x1b[32m", SENT_CHARS_MAX),
            Who::Told => ("bot was told", "\x1b[36m", TOLD_CHARS_MAX),
        };
        let (on, off) = if self.is_colourful { (on, "\x1b[0m") } else { ("", "") };
        let text = simulate::shortened(text);
        let shown = text.char_indices().nth(chars_max).map_or(text.as_str(), |(cut, _)| &text[..cut]);
        let rest = if shown.len() < text.len() { " …" } else { "" };
        say(format_args!("  {on}{what:<13}{off} {shown}{rest}"));
    }

    /// An entry of an exchange's record, if it is a message or a signed request that came in.
    pub(super) fn received(&self, entry: &Entry) {
        if entry.direction != Direction::Received {
            return;
        }
        match &entry.kind {
            Kind::Frame => self.line(Who::Exchange, &entry.text()),
            Kind::Request { method, path } if method == "POST" => self.request(Who::Exchange, path, &entry.text()),
            _ => {}
        }
    }

    /// A signed request as it is written: what proves who sent it, and the body.
    pub(super) fn request(&self, who: Who, path: &str, text: &str) {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let header = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
        };
        let (key, signature) = (simulate::cut(header("api-key")), simulate::cut(header("api-sign")));
        self.line(who, &format!("POST {path}  API-Key {key}  API-Sign {signature}  {body}"));
    }
}
