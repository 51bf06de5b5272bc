//! The account's token: when it is bought, and who hears of it.

use super::dispatch::MintAnswer;
use super::{Item, Task};
use crate::fresh::{Token, TokenId, UnixMillis};
use crate::store::StoredToken;
use crate::supply::account::Unavailable;
use crate::supply::clock::VenueTime;
use crate::supply::lane::LaneStopped;
use crate::upstream::{self, Door};
use crate::venue::{Minted, NotMinted};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;
use tracing::{info, warn};

/// The endpoint at which tokens are sold.
pub(super) const COUNTER: &str = "rest";

impl Task {
    /// A token is bought ahead of its need only while one is in use, or somebody waits for it.
    pub(super) fn is_mint_wanted(&self, now: UnixMillis) -> bool {
        let is_needed = !self.buyers.is_empty() || self.token.usable(now).is_some();
        !self.is_minting && is_needed && self.token.is_due(now)
    }

    /// Lets a token request wait for its turn.
    pub(super) fn want_token(&mut self, now: UnixMillis) {
        let door = Door { venue: self.venue, endpoint: COUNTER };
        let approach = self.upstream.approach(&self.upkeep, door);
        let approach = approach.and_then(|approach| approach.check().map(|()| approach));
        match approach {
            Ok(approach) => {
                self.is_minting = true;
                self.queue.push_own(Instant::now(), Item::Mint(approach));
            }
            Err(error) => {
                warn!(account = %self.name, %error, "no connection for a token");
                self.on_mint_failed(NotMinted::Unavailable, now);
            }
        }
    }

    pub(super) fn take_buyer(
        &mut self,
        refused: Option<TokenId>,
        reply: oneshot::Sender<Result<Token, Unavailable>>,
        now: UnixMillis,
    ) {
        if self.venue.minting().is_none() {
            let _ = reply.send(Err(Unavailable::NoTokens));
            return;
        }
        if refused.is_some_and(|id| self.token.refused(id)) {
            info!(account = %self.name, "token refused by the exchange");
            self.forget_stored_token();
        }
        match self.token.usable(now) {
            Some(token) => drop(reply.send(Ok(token.clone()))),
            None if self.token.may_try(now) => self.buyers.push(reply),
            None => drop(reply.send(Err(NotMinted::Unavailable.into()))),
        }
    }

    /// Takes what became of the token request; `is_overtaken` if later requests had gone out before its answer.
    pub(super) fn on_minted(&mut self, answer: MintAnswer, is_overtaken: bool) {
        let now = self.clock.now();
        self.is_minting = false;
        let minting = self.venue.minting().expect("only a venue that sells tokens was asked");
        // Buying a token moves nothing: whether the request left or not, it may be made again.
        let Some(answer) = answer else { return self.on_mint_failed(NotMinted::Unavailable, now) };
        if let Some(told) = upstream::date(answer.headers()) {
            self.venue_time = Some(VenueTime::new(told, Instant::now()));
        }
        match minting.read(answer.status().as_u16(), answer.body()) {
            Ok(minted) => self.on_bought(minted),
            Err(NotMinted::NonceTooSmall) => {
                if !is_overtaken {
                    self.resync();
                }
                if self.retried {
                    self.on_mint_failed(NotMinted::NonceTooSmall, now);
                } else {
                    self.retried = true;
                    self.want_token(now);
                }
            }
            Err(why) => self.on_mint_failed(why, now),
        }
    }

    /// No nonce is to be had.
    pub(super) fn on_mint_stopped(&mut self, stopped: LaneStopped, now: UnixMillis) {
        self.is_minting = false;
        self.token.failed(NotMinted::Unavailable, now, chance());
        for reply in self.buyers.drain(..) {
            let _ = reply.send(Err(stopped.into()));
        }
    }

    fn on_bought(&mut self, minted: Minted) {
        let now = self.clock.now();
        self.retried = false;
        let stored = StoredToken { secret: minted.secret.clone(), minted_at: now, expires_at: now.plus(minted.lives) };
        let token = self.token.renewed(minted.secret, now, stored.expires_at).clone();
        // Before anybody has it: from then on the exchange may repeat it.
        self.live_tokens.send_replace(self.token.live().cloned().collect());
        info!(account = %self.name, lives_s = minted.lives.as_secs(), "token bought");
        for reply in self.buyers.drain(..) {
            let _ = reply.send(Ok(token.clone()));
        }
        let (store, name, key) = (Arc::clone(&self.store), self.name.clone(), self.fingerprint);
        self.writes.spawn_blocking(move || {
            if let Err(error) = store.write_token(&name, &key, &stored) {
                warn!(account = %name, %error, "token not kept for the next start");
            }
        });
    }

    pub(super) fn on_mint_failed(&mut self, why: NotMinted, now: UnixMillis) {
        self.is_minting = false;
        self.retried = false;
        let wait = self.token.failed(why, now, chance());
        warn!(account = %self.name, reason = %why, failures = self.token.failures(), retry_in_s = wait.as_secs(),
            "no token");
        for reply in self.buyers.drain(..) {
            let _ = reply.send(Err(why.into()));
        }
    }

    fn forget_stored_token(&self) {
        let (store, name) = (Arc::clone(&self.store), self.name.clone());
        self.writes.spawn_blocking(move || {
            if let Err(error) = store.forget_token(&name) {
                warn!(account = %name, %error, "a refused token is still in the state folder");
            }
        });
    }
}

/// A random number below 1.
fn chance() -> f64 {
    let bits = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}
