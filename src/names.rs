//! Names that a person gave to things: clients, accounts, sessions.
//!
//! Not addresses and not secrets: every name here may appear in a log line.

use std::fmt;
use std::sync::Arc;

/// Longest client or account name in bytes. Long enough for a SPIFFE id (2,048 allowed there; real ones
/// stay under 200), short enough for a log line.
pub const NAME_BYTES_MAX: usize = 256;

/// Why a text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// The text has no characters.
    #[error("is empty")]
    Empty,
    /// The text is longer than [`NAME_BYTES_MAX`].
    #[error("is longer than 256 bytes")]
    TooLong,
    /// The text holds a character that the kind of name does not allow.
    #[error("holds a character that is not allowed")]
    Character,
}

/// The name of a client: a JWT subject, a certificate's name, the name of a local key.
///
/// Printable ASCII without spaces, at most [`NAME_BYTES_MAX`] bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientName(Arc<str>);

impl ClientName {
    /// Reads a client's name.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        check(text, |byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\' && byte != b'*')?;
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of an account: one set of keys at one venue.
///
/// Lower-case letters, digits and `_`, starting with a letter, so that it can be part of the name of an
/// environment variable.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountName(Arc<str>);

impl AccountName {
    /// Reads an account's name.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        check(text, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')?;
        if !text.as_bytes()[0].is_ascii_lowercase() {
            return Err(BadName::Character);
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a session is called in logs and in the `connected` message: 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(u64);

impl SessionId {
    /// Makes an id of 64 random bits.
    pub fn from_random(bits: u64) -> Self {
        Self(bits)
    }
}

fn check(text: &str, allowed: impl Fn(u8) -> bool) -> Result<(), BadName> {
    if text.is_empty() {
        return Err(BadName::Empty);
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(BadName::TooLong);
    }
    if !text.bytes().all(allowed) {
        return Err(BadName::Character);
    }
    Ok(())
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! shown_as_text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
shown_as_text!(ClientName, AccountName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_name_is_printable_ascii_without_wildcards() {
        assert!(ClientName::parse("spiffe://desk/bot/a").is_ok());
        for bad in ["", "a b", "a\nb", "b\u{f6}t", "*", "a\"b", &"x".repeat(257)] {
            assert!(ClientName::parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn an_account_name_fits_into_an_environment_variable() {
        assert!(AccountName::parse("kraken_main2").is_ok());
        for bad in ["", "kraken-main", "Kraken", "2kraken", "_x", "a.b"] {
            assert!(AccountName::parse(bad).is_err(), "{bad:?} was taken");
        }
    }
}
