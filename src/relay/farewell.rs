//! The end of a session: both peers are told, and what was held is given back.

use super::Relay;
use crate::fault;
use crate::session::End;
use crate::venue::{Comeback, Manner};
use std::sync::PoisonError;
use tracing::debug;

impl Relay {
    /// Says goodbye on both legs at once, within the limit. What the client sent before its end still leaves; what
    /// a client would not read is dropped.
    pub(super) async fn farewell(&mut self, end: End) {
        self.count_failure(end);
        self.give_back_unproved();
        self.lease = None;
        let unanswered = self.session.unanswered();
        let drop_waiting = matches!(end, End::SlowConsumer);
        let route = self.session.route();
        let comeback = match route.manner {
            Manner::Native => route.venue.comeback(),
            Manner::Path => Comeback::default(),
        };
        let said = fault::to_native_client(end, unanswered, comeback);
        let code = said.as_ref().map(|farewell| farewell.code);
        if let Some(farewell) = said {
            self.client.close(farewell.code, &farewell.reason, drop_waiting);
        }
        let client = &mut self.client;
        let upstream = &mut self.upstream;
        let is_upstream_gone = matches!(end, End::UpstreamLost | End::UpstreamStalled);
        if let Some(upstream) = upstream {
            let farewell = fault::to_upstream(end);
            upstream.close(farewell.code, &farewell.reason, is_upstream_gone);
        }
        let to_client = async {
            if code.is_some() {
                client.finish(true).await;
            }
        };
        let to_upstream = async {
            if let Some(mut leg) = upstream.take() {
                leg.finish(false).await;
            }
        };
        let both = async { tokio::join!(to_client, to_upstream) };
        if tokio::time::timeout(self.house.limits.close_timeout, both).await.is_err() {
            debug!(session = %self.session.id(), "a peer did not answer the close");
        }
        self.journal.closed(&self.session, end, code);
    }

    /// A client that never tried to log in counts like one that failed. A bad token was counted when it was judged.
    fn count_failure(&self, end: End) {
        let is_failure = matches!(end, End::AuthenticationTimeout | End::AuthenticationRequired | End::TokenMissing);
        if is_failure && self.unproved.is_some() {
            let mut budget = self.house.budget.lock().unwrap_or_else(PoisonError::into_inner);
            // The socket is closed as it is: there is no answer to hold back.
            let _ = budget.failed(self.source, self.house.clock.now());
        }
    }

    /// A client that is proved no longer counts among those who are not.
    pub(super) fn give_back_unproved(&mut self) {
        if let Some(unproved) = self.unproved.take() {
            self.house.budget.lock().unwrap_or_else(PoisonError::into_inner).closed_unproved(unproved);
        }
    }
}
