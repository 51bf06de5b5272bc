//! What an account's token is doing, as it is told to the log, the admin listener and tests.
//!
//! Not how it comes to that: [`TokenLife`](super::TokenLife) decides.

use crate::fresh::UnixMillis;
use crate::venue::NotMinted;

/// What an account's token is doing. One enum for the log, the admin listener and tests.
///
/// `usable_until` says until when a token is handed out meanwhile; `None`: there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenState {
    /// There is none, and nobody has asked for one.
    Absent,
    /// It is handed out.
    Valid {
        /// It is handed out until then.
        until: UnixMillis,
        /// The next one is bought then.
        refresh_at: UnixMillis,
    },
    /// The last one has run out, and nobody has asked for another.
    Expired {
        /// Since then.
        since: UnixMillis,
    },
    /// A token is being bought.
    Buying {
        /// See above.
        usable_until: Option<UnixMillis>,
    },
    /// The last purchase failed, or the exchange takes for nothing what it has sold ([`NotMinted::RefusedWhenUsed`]); the
    /// next has to wait.
    Waiting {
        /// Until then.
        until: UnixMillis,
        /// Failures in a row.
        failures: u32,
        /// Why.
        why: NotMinted,
        /// See above.
        usable_until: Option<UnixMillis>,
    },
    /// The same for longer: the breaker is open. When its time is over, the next purchase is the probe.
    Open {
        /// Until then.
        until: UnixMillis,
        /// Failures in a row.
        failures: u32,
        /// Why.
        why: NotMinted,
        /// See above.
        usable_until: Option<UnixMillis>,
    },
    /// The breaker is half open: its probe is being bought.
    Probing {
        /// See above.
        usable_until: Option<UnixMillis>,
    },
}

impl TokenState {
    /// The word for it in logs and on the admin listener.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Valid { .. } => "valid",
            Self::Expired { .. } => "expired",
            Self::Buying { .. } => "buying",
            Self::Waiting { .. } => "waiting",
            Self::Open { .. } => "open",
            Self::Probing { .. } => "probing",
        }
    }

    /// The word for where its breaker stands.
    pub fn breaker(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::Probing { .. } => "half_open",
            Self::Absent | Self::Valid { .. } | Self::Expired { .. } | Self::Buying { .. } | Self::Waiting { .. } => {
                "closed"
            }
        }
    }

    /// The same state with its times by another clock.
    #[must_use]
    pub fn at(self, by: impl Fn(UnixMillis) -> UnixMillis) -> Self {
        match self {
            Self::Absent => Self::Absent,
            Self::Valid { until, refresh_at } => Self::Valid { until: by(until), refresh_at: by(refresh_at) },
            Self::Expired { since } => Self::Expired { since: by(since) },
            Self::Buying { usable_until } => Self::Buying { usable_until: usable_until.map(by) },
            Self::Waiting { until, failures, why, usable_until } => {
                Self::Waiting { until: by(until), failures, why, usable_until: usable_until.map(by) }
            }
            Self::Open { until, failures, why, usable_until } => {
                Self::Open { until: by(until), failures, why, usable_until: usable_until.map(by) }
            }
            Self::Probing { usable_until } => Self::Probing { usable_until: usable_until.map(by) },
        }
    }

    /// Until when a token is handed out; `None`: there is none.
    pub fn usable_until(&self) -> Option<UnixMillis> {
        match *self {
            Self::Absent | Self::Expired { .. } => None,
            Self::Valid { until, .. } => Some(until),
            Self::Buying { usable_until }
            | Self::Waiting { usable_until, .. }
            | Self::Open { usable_until, .. }
            | Self::Probing { usable_until } => usable_until,
        }
    }
}
