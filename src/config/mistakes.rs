//! What is wrong with a configuration: every mistake, each with its key path and where it was written.
//!
//! Never a value and never a line of the file: what stands at the wrong place may be a secret.

use std::fmt;

/// Mistakes that one report lists. Past that, a person starts over anyway.
const MISTAKES_MAX: usize = 100;

/// Characters of one part of a key path that are shown: enough for every key that exists, too few for most secrets
/// that were written where a key belongs.
const KEY_CHARS_MAX: usize = 32;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Which key: `accounts.kraken_main.venue`, `grants[1].scope`. Empty: the file as a whole.
    pub key: String,
    /// Where it was written: the file's name, an environment variable's name, `command line` or `default`.
    pub source: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it. Empty where that is plain.
    pub help: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.source)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)?;
        if !self.help.is_empty() {
            write!(f, "; {}", self.help)?;
        }
        Ok(())
    }
}

/// All mistakes of a configuration. Prints one line for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<Mistake>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// The way to a key from the top of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Key(pub(super) Vec<String>);

impl Key {
    /// The key of a top-level table.
    pub(super) fn top(name: &str) -> Self {
        Self(vec![name.to_owned()])
    }

    /// The key below this one.
    pub(super) fn then(&self, name: &str) -> Self {
        let mut parts = self.0.clone();
        parts.push(name.to_owned());
        Self(parts)
    }

    /// An entry of the list under this key.
    pub(super) fn at(&self, index: usize) -> Self {
        self.then(&index.to_string())
    }

    /// True for the key itself and all above it.
    pub(super) fn is_within(&self, above: &Self) -> bool {
        self.0.starts_with(&above.0)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.iter().enumerate() {
            // No key of ours is a number: these are positions in lists.
            if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
                write!(f, "[{}]", shortened(part))?;
                continue;
            }
            if index > 0 {
                f.write_str(".")?;
            }
            let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
            if !part.is_empty() && part.bytes().all(is_bare) {
                f.write_str(&shortened(part))?;
            } else {
                write!(f, "\"{}\"", shortened(part).escape_debug())?;
            }
        }
        Ok(())
    }
}

fn shortened(part: &str) -> String {
    match part.char_indices().nth(KEY_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &part[..end]),
        None => part.to_owned(),
    }
}

/// The mistakes found so far.
#[derive(Default)]
pub(super) struct Mistakes {
    found: Vec<Mistake>,
    /// Keys whose value could not be used at all. What follows from its absence is no mistake of its own.
    spoiled: Vec<Key>,
}

impl Mistakes {
    /// Notes a value that cannot be used; more about it, or about what stands below it, will not be noted.
    pub(super) fn spoil(&mut self, key: &Key, mistake: Mistake) {
        self.add(key, mistake);
        self.spoiled.push(key.clone());
    }

    /// Notes a mistake, once.
    pub(super) fn add(&mut self, key: &Key, mistake: Mistake) {
        if !self.is_spoiled(key) && !self.found.contains(&mistake) {
            self.found.push(mistake);
        }
    }

    /// True if the value under the key, or one above it, could not be used.
    pub(super) fn is_spoiled(&self, key: &Key) -> bool {
        self.spoiled.iter().any(|spoiled| key.is_within(spoiled))
    }

    /// True if something was found in a top-level table, or could not be used there.
    pub(super) fn is_any_within(&self, table: &str) -> bool {
        self.found.iter().any(|mistake| mistake.key.split(['.', '[']).next() == Some(table))
    }

    /// True if there is no room for more.
    pub(super) fn is_full(&self) -> bool {
        self.found.len() >= MISTAKES_MAX
    }

    /// True if nothing was found.
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Everything that was found.
    pub(super) fn into_errors(mut self) -> ConfigErrors {
        self.found.truncate(MISTAKES_MAX);
        ConfigErrors(self.found)
    }
}
