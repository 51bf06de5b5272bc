//! Connections that were agreed on before their socket (ASP.NET Core SignalR, "Transport Protocols").
//!
//! Only WebSockets with text are offered. A proxy has no need of any of this: it dials at once.

use super::rest::unauthorized;
use super::{Door, Hub, ProjectX, random_name, tokens};
use crate::simulator::server::{Answer, Received};
use http::{Method, StatusCode};
use serde_json::json;
use std::collections::VecDeque;

/// Agreed connections that are remembered.
const NEGOTIATED_MAX: usize = 1000;

/// Connections that were agreed on and are not over.
#[derive(Debug, Default)]
pub(super) struct Negotiated(VecDeque<Agreed>);

#[derive(Debug)]
struct Agreed {
    /// What the socket's `id` must say: the secret token in version 1, the public id in version 0.
    id: String,
    user: String,
    hub: Hub,
    claimed_by: Option<u64>,
}

impl Negotiated {
    /// Gives the connection with this id to a socket. The error is the status that the venue answers.
    pub(super) fn claim(&mut self, id: &str, user: &str, hub: Hub, connection: u64) -> Result<(), StatusCode> {
        let agreed = self.0.iter_mut().find(|agreed| agreed.id == id && agreed.hub == hub);
        let agreed = agreed.ok_or(StatusCode::NOT_FOUND)?;
        if agreed.user != user {
            return Err(StatusCode::FORBIDDEN);
        }
        if agreed.claimed_by.is_some() {
            return Err(StatusCode::CONFLICT);
        }
        agreed.claimed_by = Some(connection);
        Ok(())
    }

    /// Forgets the connection that a socket had: its id is stale from now on.
    pub(super) fn release(&mut self, connection: u64) {
        self.0.retain(|agreed| agreed.claimed_by != Some(connection));
    }

    fn agree(&mut self, id: String, user: String, hub: Hub) {
        if self.0.len() == NEGOTIATED_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Agreed { id, user, hub, claimed_by: None });
    }
}

/// Answers `POST <hub>/negotiate`.
pub(super) fn negotiate(projectx: &ProjectX, request: &Received, hub: Hub) -> Answer {
    if projectx.door(request) == Door::Rest {
        return Answer::empty(StatusCode::NOT_FOUND);
    }
    projectx.judge_head(request, Some(hub));
    if projectx.expects_a_proxy {
        projectx.record.verdict(request.connection, "negotiate: a proxy dials at once");
    }
    if request.method != Method::POST {
        return Answer::empty(StatusCode::METHOD_NOT_ALLOWED);
    }
    let shown = tokens::shown(request, true).and_then(|token| projectx.holder(&token));
    let user = match shown {
        Ok(user) => user,
        Err(why) => return unauthorized(projectx, request, why),
    };
    let version = tokens::query(request).into_iter().find(|(name, _)| name.eq_ignore_ascii_case("negotiateVersion"));
    let is_first = version.is_some_and(|(_, version)| version.parse::<u32>().is_ok_and(|version| version >= 1));
    let public = random_name();
    let transports = json!([{"transport": "WebSockets", "transferFormats": ["Text"]}]);
    let mut told = json!({"negotiateVersion": 0, "connectionId": public, "availableTransports": transports});
    let mut id = public;
    if is_first {
        id = random_name();
        told["negotiateVersion"] = json!(1);
        told["connectionToken"] = json!(id);
    }
    projectx.state().negotiated.agree(id, user, hub);
    Answer::json(StatusCode::OK, told.to_string())
}
