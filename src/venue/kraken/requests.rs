//! Private requests under way on one Kraken socket, and the token that they carry. Shared by both versions.
//!
//! A socket keeps the token that it first used until the exchange refuses it. Then a new one is asked for, and a
//! subscription that was refused is sent again with it, once; an order is never sent again.

use crate::fresh::{Token, TokenId};
use crate::message::Message;
use crate::venue::wire::json::{Kind, Value};
use crate::venue::{Edit, Event, Login, Reading, Step, Steps};
use bytes::Bytes;
use std::collections::VecDeque;

/// Requests whose answers are awaited at most; beyond it the oldest is forgotten, and counts as answered.
const PENDING_MAX: usize = 1024;

/// What Kraken says of a token that it does not take, or no longer takes.
const TOKEN_ERRORS: &[&str] = &["ESession:Invalid session", "EAPI:Invalid token", "Token is expired"];

pub(super) struct Requests {
    /// False on a public socket: there is nothing to put a token into.
    is_private: bool,
    token: Option<Token>,
    /// True while the first token is awaited of a client that waits for `connected`.
    is_greeting: bool,
    is_renewing: bool,
    pending: VecDeque<Pending>,
}

/// A private request whose answer has not come.
struct Pending {
    operation: &'static str,
    id: Bytes,
    /// The token that it carried.
    token: TokenId,
    /// The request as the client sent it, if it may be sent again with another token: subscriptions alone.
    again: Option<(Message, Edit)>,
    is_subscription: bool,
    /// What the exchange said of its token, kept from the client while a new one is obtained.
    refusal: Option<Message>,
}

impl Requests {
    pub(super) fn new(is_private: bool) -> Self {
        Self { is_private, token: None, is_greeting: false, is_renewing: false, pending: VecDeque::new() }
    }

    pub(super) fn is_private(&self) -> bool {
        self.is_private
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Orders and cancels that the exchange has not answered.
    pub(super) fn unanswered(&self) -> usize {
        self.pending.iter().filter(|pending| !pending.is_subscription).count()
    }

    pub(super) fn on_event(&mut self, event: Event, out: &mut Steps) {
        match event {
            Event::Opened { login: Login::AtOnce, .. } if self.is_private => {
                self.is_greeting = true;
                out.push(Step::NeedToken { refused: None });
            }
            Event::Opened { .. } => out.push(Step::Ready),
            // The first private message asks for the token.
            Event::Risen { .. } | Event::Wake(_) => {}
            Event::Fresh { fresh, .. } => {
                if let Some(token) = fresh.token {
                    out.push(Step::Guard(token.secret.clone()));
                    // The first token only shows that one is to be had: it might be too old by the time of the first
                    // private message, and a socket keeps the token that it first uses.
                    self.token = Some(token).filter(|_| !self.is_greeting);
                }
                self.is_greeting = false;
                self.is_renewing = false;
                self.subscribe_again(out);
                out.push(Step::Ready);
            }
            Event::NotFresh => {
                self.is_renewing = false;
                // Without a new token the client sees what the exchange said of the old one.
                self.pending.retain_mut(|pending| match pending.refusal.take() {
                    Some(refusal) => {
                        out.push(Step::ToClient(refusal));
                        false
                    }
                    None => true,
                });
                if self.token.is_some() {
                    out.push(Step::Ready);
                }
            }
        }
    }

    /// Sends a message on, with the token where its reading says.
    pub(super) fn forward(&mut self, message: Message, reading: &Reading, is_subscription: bool, out: &mut Steps) {
        if !matches!(reading.edit, Edit::Token { .. }) {
            out.extend(reading.edit.apply(&message, None).map(Step::ToUpstream));
            return;
        }
        let Some(token) = &self.token else {
            out.push(Step::NeedToken { refused: None });
            out.push(Step::Hold(message));
            return;
        };
        out.extend(reading.edit.apply(&message, Some(&token.secret)).map(Step::ToUpstream));
        let id = reading.reply_to.clone().map_or_else(Bytes::new, |span| message.payload().slice(span));
        if self.pending.len() == PENDING_MAX {
            self.pending.pop_front();
        }
        self.pending.push_back(Pending {
            operation: reading.operation,
            id,
            token: token.id,
            again: is_subscription.then(|| (message, reading.edit.clone())),
            is_subscription,
            refusal: None,
        });
    }

    /// Takes an answer of the exchange to a request of this operation and id. True: the client does not see it, for
    /// now.
    pub(super) fn on_answer(
        &mut self,
        operations: &[&str],
        id: &[u8],
        error: Option<&str>,
        message: &Message,
        out: &mut Steps,
    ) -> bool {
        let fits = |pending: &Pending| operations.contains(&pending.operation) && pending.id == id;
        let Some(index) = self.pending.iter().position(fits) else { return false };
        let is_token_refused = error.is_some_and(|error| TOKEN_ERRORS.iter().any(|known| error.starts_with(known)));
        if !is_token_refused {
            self.pending.remove(index);
            return false;
        }

        let is_current = self.token.as_ref().is_some_and(|token| token.id == self.pending[index].token);
        if is_current && !self.is_renewing {
            self.is_renewing = true;
            out.push(Step::NeedToken { refused: Some(self.pending[index].token) });
        }
        if self.pending[index].again.is_none() {
            // An order is never sent twice: the client hears of the refusal and decides.
            self.pending.remove(index);
            return false;
        }
        self.pending[index].refusal = Some(message.clone());
        if !self.is_renewing {
            self.subscribe_again(out);
        }
        true
    }

    /// Sends each subscription whose token was refused once more, with the token of now.
    fn subscribe_again(&mut self, out: &mut Steps) {
        let Some(token) = &self.token else { return };
        for pending in &mut self.pending {
            if pending.refusal.take().is_none() {
                continue;
            }
            let Some((message, edit)) = pending.again.take() else { continue };
            if let Some(edited) = edit.apply(&message, Some(&token.secret)) {
                pending.token = token.id;
                out.push(Step::ToUpstream(edited));
            }
        }
    }
}

/// A request's own id, which its answer repeats: a number as documented, or a short text.
pub(super) fn is_id(id: Value<'_>) -> bool {
    matches!(id.kind(), Kind::Number | Kind::String) && id.raw().len() <= ID_BYTES_MAX
}

const ID_BYTES_MAX: usize = 64;
