//! What a person sees of the account, and what a person may tell it.

use super::Task;
use crate::fresh::UnixMillis;
use crate::supply::account::{AccountStatus, LaneStatus, QueueStatus, Unavailable};
use crate::supply::lane::LaneStopped;
use crate::supply::token::TokenState;
use std::time::Instant;
use tracing::{info, warn};

impl Task {
    /// How the account is, by the wall clock.
    pub(super) fn status(&mut self) -> AccountStatus {
        let (wall, onward) = (self.clock.now(), self.onward.now(&self.clock));
        let at_wall = |moment: UnixMillis| wall.plus(moment.since(onward)).minus(onward.since(moment));
        let sells_tokens = self.venue.minting().is_some();
        let [cancels, logins, orders, reads] = self.queue.lengths();
        let venue_now = self.venue_time.as_ref().map(|time| time.at(Instant::now()));
        let left_alone = self.left_alone_until.and_then(|until| until.checked_duration_since(Instant::now()));
        AccountStatus {
            account: self.name.clone(),
            venue: self.venue.name(),
            token: sells_tokens.then(|| self.token.state(onward).at(at_wall)),
            token_failures: self.token.failures(onward),
            lane: self.lane.as_ref().map(|lane| LaneStatus {
                unit: lane.unit(),
                is_frozen: lane.is_frozen(),
                reserved: lane.mark(),
            }),
            queue: QueueStatus { cancels, logins, orders, reads },
            in_flight: self.flights.len(),
            clock_offset_ms: venue_now.map(|venue_now| difference(venue_now, wall)),
            refused_in_a_row: self.refused_in_a_row,
            left_alone_until: left_alone.map(|left| wall.plus(left)),
        }
    }

    /// Lets the account ask for a token, and use its key, at once.
    pub(super) fn reset_breaker(&mut self) -> Result<(), Unavailable> {
        info!(account = %self.name, "breaker reset by a person");
        self.token.reset();
        self.left_alone_until = None;
        self.refused_in_a_row = 0;
        Ok(())
    }

    /// Takes a frozen lane back into use. One that is not frozen stays as it is.
    pub(super) fn unfreeze(&mut self) -> Result<(), Unavailable> {
        let lane = self.lane.as_mut().ok_or(LaneStopped::NoNonces)?;
        info!(account = %self.name, was_frozen = lane.is_frozen(), "nonces unfrozen by a person");
        lane.unfreeze();
        Ok(())
    }

    /// Says what became of the token, once for each change.
    pub(super) fn tell_of_token(&mut self) {
        let now = self.onward.now(&self.clock);
        let state = self.token.state(now);
        let has_changed = self.token_state.send_if_modified(|told| std::mem::replace(told, state) != state);
        if !has_changed {
            return;
        }
        let seconds_to = |moment: UnixMillis| moment.since(now).as_secs();
        let (account, token) = (&self.name, state.word());
        let usable_s = state.usable_until().map(seconds_to);
        match state {
            TokenState::Absent | TokenState::Expired { .. } => info!(%account, token, "token state"),
            TokenState::Buying { .. } | TokenState::Probing { .. } => info!(%account, token, usable_s, "token state"),
            TokenState::Valid { refresh_at, .. } => {
                info!(%account, token, usable_s, refresh_in_s = seconds_to(refresh_at), "token state");
            }
            TokenState::Waiting { until, failures, why, .. } | TokenState::Open { until, failures, why, .. } => {
                let retry_in_s = seconds_to(until);
                warn!(%account, token, usable_s, failures, retry_in_s, reason = %why, "token state");
            }
        }
    }
}

fn difference(one: UnixMillis, other: UnixMillis) -> i64 {
    let clamp = |millis: u64| i64::try_from(millis).unwrap_or(i64::MAX);
    if one >= other { clamp(one.0 - other.0) } else { -clamp(other.0 - one.0) }
}
