//! How a client comes in on an open socket: by our first message, by the venue's own login, or not at all.
//!
//! Under a path of ours the first message has to be a login of ours. Under a venue's own name an unmodified bot has
//! never heard of that: it pings, it subscribes, it logs in when it likes or never. It is greeted and answered here
//! until it proves who it is, or until it asks for what the policy opens to everybody.

use super::{Action, Phase, Refused, Session, notice};
use crate::fresh::UnixMillis;
use crate::identity::first_message::{FirstMessage, read_first_message};
use crate::identity::{Method, NotAuthenticated, Principal, Proof};
use crate::message::{Kind, Message};
use crate::names::AccountName;
use crate::policy::{Denied, Permit};
use crate::scope::Act;
use crate::secret::Secret;
use crate::session::End;
use crate::venue::{self, ClientLogin, Manner, Reading, Refusal};

/// What a credential in a message turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// This client's own, or nobody's.
    Known,
    /// It may say more about this client than is known.
    Unverified,
    /// We issued it to another client, or for another account.
    Foreign,
}

/// Bytes of public requests that may wait for their client to prove who it is.
const PARKED_BYTES_MAX: usize = 16 * 1024;

impl Session {
    /// The client's socket is open, and it has proved nothing.
    pub(super) fn on_arrived(&mut self, now: UnixMillis, out: &mut Vec<Action>) {
        if self.phase == Phase::Unproved && self.route.manner == Manner::Native {
            self.turn(now, out, |dialect, steps| dialect.greet(now, steps));
        }
    }

    /// A message of a client that has proved nothing.
    pub(super) fn on_unproved(&mut self, message: Message, now: UnixMillis, out: &mut Vec<Action>) {
        match read_first_message(&message) {
            FirstMessage::Login { token, account } => {
                self.speaks_to_us = true;
                self.judge_login(token, account, out);
            }
            FirstMessage::Ping => out.push(Action::ToClient(notice::pong(now))),
            FirstMessage::TokenMissing => self.close(End::TokenMissing, out),
            FirstMessage::NotALogin | FirstMessage::TooLong if !self.speaks_to_us => self.on_native(message, now, out),
            FirstMessage::NotALogin => self.close(End::AuthenticationRequired, out),
            FirstMessage::TooLong => self.close(End::ClientMessageTooBig, out),
        }
    }

    /// The same, in the venue's own protocol.
    fn on_native(&mut self, message: Message, now: UnixMillis, out: &mut Vec<Action>) {
        self.deadline = Some((now.plus(self.rules.limits.unproved_idle), End::AuthenticationTimeout));
        let mut reading = self.dialect.read(&message);
        if let Some(shown) = reading.shown.take().filter(|_| self.dialect.takes_login()) {
            return self.prove(message, shown, out);
        }
        let acts = match reading.acts {
            Ok(acts) => acts,
            Err(why) => return self.refuse(&message, &reading, why, now, out),
        };
        if reading.operation == "ping" {
            return self.turn(now, out, |dialect, steps| dialect.pong(&message, &reading, now, steps));
        }
        if acts.iter().any(|act| act != Act::Public) {
            // Never kept for later: whoever sends an order means now.
            return self.refuse(&message, &reading, Refusal::NotAuthenticated, now, out);
        }
        if self.rules.policy.admits_anonymous(&self.route) {
            self.held = Some(message);
            return self.admit(&Principal::anonymous(), now, out);
        }
        let has_room = self.parked.iter().map(Message::len).sum::<usize>() + message.len() <= PARKED_BYTES_MAX;
        if self.dialect.takes_login() && has_room {
            return self.parked.push(message);
        }
        self.refuse(&message, &reading, Refusal::NotAuthenticated, now, out);
    }

    /// Looks at a credential of the venue's own kind in a message of a client that may talk. Where the client is proved it
    /// is not needed, and mostly a dummy; but what we issued to somebody else has no business here.
    pub(super) fn look_at(&mut self, shown: &ClientLogin, now: UnixMillis) -> Shown {
        let permit = self.permit.as_ref().expect("only a client with a permit is judged");
        match permit.method() {
            Method::Anonymous => return Shown::Unverified,
            Method::NoAuth => return Shown::Known,
            Method::Jwt | Method::Certificate | Method::LocalKey => {}
        }
        let token = if let ClientLogin::Token(token) = shown { Some(token) } else { None };
        if token.is_some() && self.known_token.as_ref() == token {
            return Shown::Known;
        }
        let venue = self.route.venue.name();
        let owner = self.rules.trusted.local().and_then(|local| local.owner(shown, venue, now));
        let Some(owner) = owner else { return Shown::Known };
        if !owner.is(permit.client(), permit.account()) {
            return Shown::Foreign;
        }
        self.known_token = token.cloned();
        // One that was bought with a newer proof prolongs the session.
        if token.is_some() && permit.ends_at().is_some() { Shown::Unverified } else { Shown::Known }
    }

    /// Has the venue's own proof verified that a message carries. The message is taken up again once that is done.
    pub(super) fn prove(&mut self, message: Message, shown: ClientLogin, out: &mut Vec<Action>) {
        self.phase = Phase::Judging;
        self.held = Some(message);
        self.is_native_proof = true;
        if let ClientLogin::Token(token) = &shown {
            self.known_token = Some(token.clone());
        }
        out.push(Action::Authenticate(Proof::shown_at(self.route.venue.name(), shown)));
    }

    /// Has the token of a login verified. A client that names two accounts means one of them, and orders on the other
    /// would be real: it gets neither.
    pub(super) fn judge_login(&mut self, token: Secret, account: Option<AccountName>, out: &mut Vec<Action>) {
        let named = self.permit.as_ref().and_then(Permit::account).or(self.wish.as_ref());
        if account.is_some() && named.is_some() && account.as_ref() != named {
            return self.close(End::AuthenticationFailed, out);
        }
        self.wish = account.or(self.wish.take());
        self.phase = Phase::Judging;
        self.is_native_proof = false;
        out.push(Action::Authenticate(Proof::Jwt(token)));
    }

    pub(super) fn on_authenticated(
        &mut self,
        outcome: Result<Principal, NotAuthenticated>,
        now: UnixMillis,
        out: &mut Vec<Action>,
    ) {
        let who = match outcome {
            Ok(who) => who,
            Err(why) if self.is_native_proof => {
                let is_replay = matches!(why, NotAuthenticated::Replayed | NotAuthenticated::NonceTooOld);
                let why = if is_replay { Refusal::Replayed } else { Refusal::NotAuthenticated };
                return self.refuse_proof(why, now, out);
            }
            Err(NotAuthenticated::NoKeys) => return self.close(End::AuthenticationUnavailable, out),
            Err(_) => return self.close(End::InvalidToken, out),
        };
        match &self.permit {
            Some(permit) if permit.method() != Method::Anonymous => self.renew(&who, now, out),
            Some(_) | None => self.admit(&who, now, out),
        }
    }

    /// Asks the policy for a permit. Where the exchange's socket is open already, for a client that was nobody, it goes
    /// on with the new one.
    fn admit(&mut self, who: &Principal, now: UnixMillis, out: &mut Vec<Action>) {
        let permit = match self.rules.policy.authorize(who, &self.route, self.wish.as_ref()) {
            Ok(permit) => permit,
            Err(Denied::TooManySessions) => return self.close(End::MaxConnections, out),
            Err(_) if self.is_native_proof => return self.refuse_proof(Refusal::NotAuthenticated, now, out),
            Err(Denied::WhichAccount(accounts)) => {
                out.push(Action::ToClient(notice::which_account(&accounts)));
                return self.close(End::AuthenticationFailed, out);
            }
            Err(Denied::NoGrant | Denied::NotThatAccount) => return self.close(End::AuthenticationFailed, out),
        };
        let scope = permit.scope();
        let is_dialled = self.permit.replace(permit).is_some();
        self.deadline = None;
        if !is_dialled {
            self.phase = Phase::Dialling;
            out.push(Action::Dial);
            return;
        }
        self.phase = Phase::Open;
        out.push(Action::Risen);
        self.turn(now, out, |dialect, steps| dialect.on_event(venue::Event::Risen { scope }, steps));
        if self.speaks_to_us {
            let permit = self.permit.as_ref().expect("it was put there just now");
            out.push(Action::ToClient(notice::connected(self.id, permit, now)));
        }
        self.take_up_held(now, out);
    }

    /// The client proved itself again: the same client goes on for longer, another one is not let in.
    fn renew(&mut self, who: &Principal, now: UnixMillis, out: &mut Vec<Action>) {
        let permit = self.permit.as_mut().expect("`on_authenticated` renews only what it found");
        if permit.client() != who.name() {
            if self.is_native_proof {
                return self.refuse_proof(Refusal::CredentialField, now, out);
            }
            let by_certificate = permit.method() == Method::Certificate;
            let end = if by_certificate { End::IdentityMismatch } else { End::ReauthIdentityChanged };
            return self.close(end, out);
        }
        if self.rules.policy.renew(permit, who, &self.route).is_err() {
            if self.is_native_proof {
                return self.refuse_proof(Refusal::CredentialField, now, out);
            }
            return self.close(End::AuthenticationFailed, out);
        }
        self.expiry_announced = false;
        if self.speaks_to_us {
            out.push(Action::ToClient(notice::connected(self.id, permit, now)));
        }
        self.phase = Phase::Open;
        self.take_up_held(now, out);
    }

    /// The venue's own proof was not good: the client is told in the venue's words, and may try again.
    fn refuse_proof(&mut self, why: Refusal, now: UnixMillis, out: &mut Vec<Action>) {
        self.phase = if self.permit.is_some() { Phase::Open } else { Phase::Unproved };
        if let Some(message) = self.held.take() {
            let reading = self.dialect.read(&message);
            self.refuse(&message, &reading, why, now, out);
        }
    }

    /// Refuses a message, in the venue's shape and in the log.
    pub(super) fn refuse(
        &mut self,
        message: &Message,
        reading: &Reading,
        why: Refusal,
        now: UnixMillis,
        out: &mut Vec<Action>,
    ) {
        let lacking = if let Refusal::NotPermitted(right) = why { Some(right) } else { None };
        out.push(Action::Refused(Refused { slug: why.slug(), operation: reading.operation, lacking }));
        if message.kind() == Kind::Binary && why == Refusal::Malformed {
            return self.close(End::ClientBinary, out);
        }
        self.turn(now, out, |dialect, steps| dialect.refuse(message, reading, why, now, steps));
    }

    /// Judges what waited until the client may talk: public requests first, as they came first.
    pub(super) fn take_up_held(&mut self, now: UnixMillis, out: &mut Vec<Action>) {
        let held = self.held.take();
        for message in std::mem::take(&mut self.parked) {
            self.judge(message, now, out);
        }
        if let Some(message) = held {
            self.judge(message, now, out);
        }
    }
}
