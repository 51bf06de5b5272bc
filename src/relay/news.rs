//! What changes outside a session: the policy, and that the house is closing.

use crate::policy::Policy;
use futures_util::Stream;
use futures_util::stream::unfold;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::sync::watch;
use tokio::task::coop;

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

    /// The next change. To be asked until there is none, or the one after it wakes nobody.
    ///
    /// To wait for a change takes a lock that all sessions share. That is done once, and until there is one two counters
    /// are compared.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Change> {
        let is_waiting = self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        // An error is that nobody is left to change it.
        let is_old = |seen: Result<bool, _>| seen.is_ok_and(|is_new| !is_new);
        if is_waiting && is_old(self.policy.has_changed()) && is_old(self.draining.has_changed()) {
            return Poll::Pending;
        }
        let next = self.changes.as_mut().poll_next(cx);
        self.policy.mark_unchanged();
        // Where the task has used its turn up, tokio has not looked, and will not wake it for what it did not see.
        let is_waiting = next.is_pending() && coop::has_budget_remaining();
        self.waker = is_waiting.then(|| cx.waker().clone());
        next.map(|change| change.unwrap_or(Change::Draining))
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
