//! What a client may do: acts, the rights they need, and sets of rights.
//!
//! Not who may do it: that is `policy`.

use std::fmt;

/// One kind of thing that a message asks an exchange to do, as the venue's table classifies it.
///
/// Finer than a [`Right`]: a lane lets a cancel pass before an order, although both need `trade`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Act {
    /// Market data, pings: needs no account.
    Public,
    /// Reads private data: balances, orders, fills.
    Read,
    /// Places or changes an order, or disarms a dead-man timer.
    Order,
    /// Cancels orders, or arms a dead-man timer.
    Cancel,
    /// Moves money, or can redirect it.
    Transfer,
    /// Manages keys, users, sub-accounts.
    Admin,
}

impl Act {
    const ALL: [Act; 6] = [Act::Public, Act::Read, Act::Order, Act::Cancel, Act::Transfer, Act::Admin];

    /// The right that the act needs.
    pub const fn right(self) -> Right {
        match self {
            Act::Public => Right::Public,
            Act::Read => Right::Read,
            Act::Order | Act::Cancel => Right::Trade,
            Act::Transfer => Right::Transfer,
            Act::Admin => Right::Admin,
        }
    }
}

/// The set of acts in one message: a batch is all of its acts.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Acts(u8);

impl Acts {
    /// The set with one act.
    pub const fn one(act: Act) -> Self {
        Self(1 << act as u8)
    }

    /// Adds an act.
    pub const fn add(&mut self, act: Act) {
        self.0 |= 1 << act as u8;
    }

    /// True if there is no act in the set. Such a message is refused: it would be judged by nobody.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The acts, in the order of [`Act`].
    pub fn iter(self) -> impl Iterator<Item = Act> {
        Act::ALL.into_iter().filter(move |act| self.0 & (1 << *act as u8) != 0)
    }
}

impl fmt::Debug for Acts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// One kind of permission. None implies another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Right {
    /// Market data.
    Public,
    /// Private data.
    Read,
    /// Orders and cancels.
    Trade,
    /// Moving money. Has to be granted by name.
    Transfer,
    /// Keys and users. Has to be granted by name.
    Admin,
}

impl Right {
    /// All rights, weakest first.
    pub const ALL: [Right; 5] = [Right::Public, Right::Read, Right::Trade, Right::Transfer, Right::Admin];

    /// The word in `proxy.toml`, in tokens and in logs.
    pub const fn word(self) -> &'static str {
        match self {
            Right::Public => "public",
            Right::Read => "read",
            Right::Trade => "trade",
            Right::Transfer => "transfer",
            Right::Admin => "admin",
        }
    }

    /// Reads one word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|right| right.word() == word)
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A set of rights.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Scope(u8);

impl Scope {
    /// No right at all.
    pub const NONE: Self = Self(0);
    /// Market data alone.
    pub const PUBLIC: Self = Self(1 << Right::Public as u8);

    /// The set with one more right.
    #[must_use]
    pub const fn with(self, right: Right) -> Self {
        Self(self.0 | 1 << right as u8)
    }

    /// What both sets hold.
    #[must_use]
    pub const fn intersect(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// True if the right is in the set.
    pub const fn holds(self, right: Right) -> bool {
        self.0 & (1 << right as u8) != 0
    }

    /// The rights, weakest first.
    pub fn iter(self) -> impl Iterator<Item = Right> {
        Right::ALL.into_iter().filter(move |right| self.holds(*right))
    }
}

impl FromIterator<Right> for Scope {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Self {
        rights.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, right) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            f.write_str(right.word())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_right_implies_another() {
        for right in Right::ALL {
            let scope = Scope::NONE.with(right);
            for other in Right::ALL {
                assert_eq!(scope.holds(other), right == other);
            }
        }
    }

    #[test]
    fn a_batch_is_all_of_its_acts() {
        let mut acts = Acts::one(Act::Cancel);
        acts.add(Act::Transfer);
        assert_eq!(acts.iter().collect::<Vec<_>>(), [Act::Cancel, Act::Transfer]);
        assert!(Acts::default().is_empty());
    }

    #[test]
    fn words_survive_a_round_trip() {
        for right in Right::ALL {
            assert_eq!(Right::parse(right.word()), Some(right));
        }
        assert_eq!(Right::parse("Trade"), None);
    }
}
