//! What changes outside a session: the policy, and that the house is closing.

use crate::policy::Policy;
use futures_util::Stream;
use futures_util::stream::unfold;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::sync::watch;

/// A change from outside.
pub(super) enum Change {
    Policy(Arc<Policy>),
    Draining,
}

/// The changes, one after another.
pub(super) struct News {
    policy: watch::Receiver<Arc<Policy>>,
    draining: watch::Receiver<bool>,
    changes: Pin<Box<dyn Stream<Item = Change> + Send>>,
    /// Who is woken by the next change already.
    waker: Option<Waker>,
}

impl News {
    pub(super) fn new(policy: watch::Receiver<Arc<Policy>>, draining: watch::Receiver<bool>) -> Self {
        let changes = Box::pin(changes(policy.clone(), draining.clone()));
        Self { policy, draining, changes, waker: None }
    }

    /// Asked before every batch of frames. To wait for a change takes a lock that all sessions share, so that is done
    /// once, and until there is one two counters are compared.
    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Poll<Change> {
        let is_waiting = self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        let has_changed = |outcome: Result<bool, _>| outcome.unwrap_or(true);
        if is_waiting && !has_changed(self.policy.has_changed()) && !has_changed(self.draining.has_changed()) {
            return Poll::Pending;
        }
        let mut waiting = Context::from_waker(cx.waker());
        match self.changes.as_mut().poll_next(&mut waiting) {
            Poll::Ready(change) => {
                self.waker = None;
                self.policy.mark_unchanged();
                Poll::Ready(change.unwrap_or(Change::Draining))
            }
            Poll::Pending => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

fn changes(policy: watch::Receiver<Arc<Policy>>, draining: watch::Receiver<bool>) -> impl Stream<Item = Change> {
    unfold((policy, draining), |(mut policy, mut draining)| async move {
        let what = tokio::select! {
            true = async { draining.wait_for(|is_draining| *is_draining).await.is_ok() } => Change::Draining,
            true = async { policy.changed().await.is_ok() } => Change::Policy(Arc::clone(&policy.borrow_and_update())),
            // Both senders are gone only when the house is.
            else => Change::Draining,
        };
        Some((what, (policy, draining)))
    })
}
