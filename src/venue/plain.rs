//! Any WebSocket server of your own: the account's configuration names it, and nothing is read or edited.
//!
//! One right, `trade`, stands for all messages, since there is no table to tell them apart. The account's
//! secret, where it has one, goes out as `Authorization: Bearer` with the upgrade.

use super::rest::Subjects;
use super::{Dialect, Edit, Endpoint, EndpointKind, Event, NonceRules, Reading, Refusal, Step, Steps, Venue, Watch};
use crate::credential::{SecretFormat, Signer};
use crate::fresh::{NonceUnit, UnixMillis};
use crate::message::Message;
use crate::scope::{Act, Acts, Scope};
use crate::secret::Secret;

/// A server that is no exchange.
pub struct Plain;

static ENDPOINTS: &[Endpoint] =
    &[Endpoint { name: "ws", kind: EndpointKind::Socket, host: "", path: "", local_path: Some("/plain") }];

impl Venue for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn endpoints(&self) -> &'static [Endpoint] {
        ENDPOINTS
    }

    fn secret_format(&self) -> Option<SecretFormat> {
        None
    }

    fn nonces(&self) -> NonceRules {
        NonceRules { unit: NonceUnit::Milliseconds, max: u64::MAX }
    }

    fn dial_headers(&self, signer: Option<&Signer>) -> Vec<(&'static str, Secret)> {
        signer
            .map(|signer| ("authorization", Secret::from(format!("Bearer {}", signer.expose_api_key()))))
            .into_iter()
            .collect()
    }

    fn dialect(&self, _endpoint: &Endpoint) -> Box<dyn Dialect> {
        Box::new(Conversation)
    }
}

struct Conversation;

impl Dialect for Conversation {
    fn on_event(&mut self, event: Event, out: &mut Steps) {
        match event {
            Event::Opened { .. } => out.push(Step::Ready),
            Event::Risen { .. } | Event::Fresh { .. } | Event::NotFresh => {}
        }
    }

    fn read(&self, _message: &Message) -> Reading {
        let (acts, edit, cancels) = (Ok(Acts::one(Act::Order)), Edit::None, Subjects::None);
        Reading { acts, edit, operation: "message", reply_to: None, shown: None, cancels }
    }

    fn forward(&mut self, message: Message, _reading: &Reading, _scope: Scope, _now: UnixMillis, out: &mut Steps) {
        out.push(Step::ToUpstream(message));
    }

    fn refuse(&self, _message: &Message, _reading: &Reading, why: Refusal, _now: UnixMillis, out: &mut Steps) {
        out.push(Step::ToClient(Message::text(format!(r#"{{"type":"refused","countersign":"{}"}}"#, why.slug()))));
    }

    fn on_upstream(&mut self, message: Message, out: &mut Steps) {
        out.push(Step::ToClient(message));
    }

    fn watch(&self) -> Watch<'_> {
        Watch::Nothing
    }
}
