//! The account's token: when it is bought, and who hears of it.

use super::dispatch::{MintAnswer, TOKEN_ANSWER_BYTES_MAX};
use super::{Item, Task};
use crate::fresh::{Token, TokenId, UnixMillis};
use crate::store::StoredToken;
use crate::supply::account::{Reply, Unavailable};
use crate::supply::clock::VenueTime;
use crate::supply::lane::LaneStopped;
use crate::supply::token::{Outlook, Purpose, RefusedToken};
use crate::upstream::{self, AnswerLimits, Approach, Door, Fate, read_whole};
use crate::venue::{Minted, NotMinted};
use bytes::Bytes;
use http_body_util::Full;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// The endpoint at which tokens are sold.
pub(super) const COUNTER: &str = "rest";

/// One that waits for the next token.
pub(super) struct Buyer {
    /// The token that is no use to it.
    not: Option<TokenId>,
    reply: Reply<Token>,
}

impl Task {
    /// A token is bought ahead of its need only while one is in use, or somebody waits for it.
    pub(super) fn is_mint_wanted(&mut self) -> bool {
        let now = self.onward.now(&self.clock);
        let is_needed = !self.buyers.is_empty() || self.token.usable(now).is_some();
        is_needed && self.token.is_due(now) && self.mint_obstacle().is_none()
    }

    /// When the state of the token changes by the passing of time.
    pub(super) fn token_changes_at(&mut self) -> Option<Instant> {
        let now = self.onward.now(&self.clock);
        let changes_at = match self.mint_obstacle() {
            // Nothing is bought: it can only run out.
            Some(_) => self.token.state(now).usable_until(),
            None => self.token.changes_at(now),
        };
        changes_at.map(|moment| Instant::now() + moment.since(now))
    }

    /// What keeps the account from asking for a token at all.
    fn mint_obstacle(&self) -> Option<Unavailable> {
        match (self.venue.minting(), &self.lane) {
            (None, _) => Some(Unavailable::NoTokens),
            (Some(minting), Some(lane)) if minting.needs_nonce() && lane.is_frozen() => {
                Some(LaneStopped::Frozen.into())
            }
            (Some(minting), None) if minting.needs_nonce() => Some(LaneStopped::NoNonces.into()),
            (Some(_), _) => None,
        }
    }

    /// Asks for a token: in its turn, where the request carries a nonce, else at once.
    pub(super) fn want_token(&mut self) {
        self.token.begins(self.onward.now(&self.clock));
        let minting = self.venue.minting().expect("`mint_obstacle` has been asked");
        let door = Door { venue: self.venue, endpoint: COUNTER };
        let approach = self.upstream.approach(&self.upkeep, door);
        let approach = match approach.and_then(|approach| approach.check().map(|()| approach)) {
            Ok(approach) => approach,
            Err(error) => {
                warn!(account = %self.name, %error, "no connection for a token");
                return self.on_mint_failed(NotMinted::Unavailable);
            }
        };
        if minting.needs_nonce() {
            return self.queue.push_own(Instant::now(), Item::Mint(approach));
        }
        match minting.request(&self.signer, None).to_http() {
            Ok(request) => {
                self.purchase = Some(Box::pin(buy(approach, request, self.limits.answer)));
            }
            Err(error) => self.on_unwritable(&error),
        }
    }

    pub(super) fn take_buyer(&mut self, refused: Option<RefusedToken>, reply: Reply<Token>) {
        let now = self.onward.now(&self.clock);
        let Some(refused) = refused else { return self.take_any(reply, now) };
        let RefusedToken { id, purpose: Purpose { endpoint, operation } } = refused;
        match self.token.refused(refused, now, chance()) {
            Outlook::Past => return self.take_any(reply, now),
            Outlook::Awaited => {}
            Outlook::Due { is_news: true } => {
                info!(account = %self.name, endpoint, operation, "token refused by the exchange");
                self.forget_stored_token();
            }
            Outlook::Due { is_news: false } => {
                warn!(account = %self.name, endpoint, operation, "token after token refused by the exchange");
            }
            Outlook::Kept => return drop(reply.send(Err(NotMinted::RefusedWhenUsed.into()))),
        }
        self.take_renewal_at(Buyer { not: Some(id), reply }, now);
    }

    /// Takes one to whom no token was refused.
    fn take_any(&mut self, reply: Reply<Token>, now: UnixMillis) {
        match self.token.usable(now) {
            Some(token) => drop(reply.send(Ok(token.clone()))),
            None => self.take_renewal_at(Buyer { not: None, reply }, now),
        }
    }

    /// Takes one that wants a new token, whatever there is.
    pub(super) fn take_renewal(&mut self, reply: Reply<Token>) {
        let now = self.onward.now(&self.clock);
        let not = self.token.held();
        self.token.renew_now(now);
        self.take_renewal_at(Buyer { not, reply }, now);
    }

    fn take_renewal_at(&mut self, buyer: Buyer, now: UnixMillis) {
        let obstacle = self.mint_obstacle().or_else(|| self.token.unavailable(now).map(Unavailable::Token));
        match obstacle {
            Some(why) => {
                self.token.trust();
                self.disappoint(buyer, why, now);
            }
            None => self.buyers.push(buyer),
        }
    }

    /// Tells one that wants the next token that there is none. What is held serves it, unless that is what it cannot use.
    fn disappoint(&self, buyer: Buyer, why: Unavailable, now: UnixMillis) {
        let held = self.token.usable(now).filter(|token| buyer.not != Some(token.id));
        let _ = buyer.reply.send(held.cloned().ok_or(why));
    }

    /// Takes what became of the token request; `is_overtaken` if later requests had gone out before its answer.
    pub(super) fn on_minted(&mut self, answer: MintAnswer, is_overtaken: bool) {
        let minting = self.venue.minting().expect("only a venue that sells tokens was asked");
        // Buying a token moves nothing: whether the request left or not, it may be made again.
        let Some(answer) = answer else { return self.on_mint_failed(NotMinted::Unavailable) };
        if let Some(told) = upstream::date(answer.headers()) {
            self.venue_time = Some(VenueTime::new(told, Instant::now()));
        }
        match minting.read(answer.status().as_u16(), answer.body(), self.clock.now()) {
            Ok(minted) => self.on_bought(minted),
            Err(NotMinted::NonceTooSmall) => {
                if !is_overtaken {
                    self.resync();
                }
                if self.retried {
                    self.on_mint_failed(NotMinted::NonceTooSmall);
                } else {
                    self.retried = true;
                    self.want_token();
                }
            }
            Err(why) => self.on_mint_failed(why),
        }
    }

    /// No nonce is to be had.
    pub(super) fn on_mint_stopped(&mut self, stopped: LaneStopped) {
        let now = self.onward.now(&self.clock);
        self.token.failed(NotMinted::Unavailable, now, chance());
        for buyer in std::mem::take(&mut self.buyers) {
            self.disappoint(buyer, stopped.into(), now);
        }
    }

    /// The request for a token cannot be written as HTTP: nothing but another key can change that.
    pub(super) fn on_unwritable(&mut self, error: &http::Error) {
        error!(account = %self.name, %error, "the token request cannot be written; check the key's file");
        self.on_mint_failed(NotMinted::Credential);
    }

    fn on_bought(&mut self, Minted { secret, lives }: Minted) {
        let (wall, now) = (self.clock.now(), self.onward.now(&self.clock));
        if self.token.is_late(lives, now) {
            return self.on_mint_failed(NotMinted::Unavailable);
        }
        self.retried = false;
        let token = self.token.renewed(secret, lives, now).clone();
        // Before anybody has it: from then on the exchange may repeat it.
        self.live_tokens.send_replace(self.token.live().cloned().collect());
        let expires_at = wall.plus(token.expires_at.since(now));
        let stored = StoredToken { secret: token.secret.clone(), minted_at: expires_at.minus(lives), expires_at };
        for buyer in self.buyers.drain(..) {
            let _ = buyer.reply.send(Ok(token.clone()));
        }
        let (store, name, key) = (Arc::clone(&self.store), self.name.clone(), self.fingerprint);
        self.writes.spawn_blocking(move || {
            if let Err(error) = store.write_token(&name, &key, &stored) {
                warn!(account = %name, %error, "token not kept for the next start");
            }
        });
    }

    pub(super) fn on_mint_failed(&mut self, why: NotMinted) {
        self.retried = false;
        let now = self.onward.now(&self.clock);
        self.token.failed(why, now, chance());
        for buyer in std::mem::take(&mut self.buyers) {
            self.disappoint(buyer, why.into(), now);
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

/// Sends a token request that carries no nonce. A kept connection may turn out to be dead before anything is written; a
/// new one is tried then, once.
async fn buy(approach: Approach, request: http::Request<Bytes>, limits: AnswerLimits) -> MintAnswer {
    for idle_max in [Some(Duration::MAX), None] {
        let connection = approach.clone().connect(idle_max).await.ok()?;
        match connection.send(request.clone().map(Full::new), &limits).await {
            Fate::Answered(answer) => return read_whole(*answer, TOKEN_ANSWER_BYTES_MAX).await.ok(),
            Fate::Unsent(_) => {}
            Fate::Unknown(_) => return None,
        }
    }
    None
}

/// A random number below 1.
fn chance() -> f64 {
    let bits = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}
