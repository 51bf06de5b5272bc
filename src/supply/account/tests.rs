//! An account against a store in memory: what it does when the disk is full and when its key is refused.

use super::*;
use crate::policy::Policy;
use crate::secret::Secret;
use crate::store::MemoryStore;
use crate::tls::{ClientRoots, Connector};
use crate::upstream::{DialLimits, Resolver, Way};
use crate::venue::by_name;
use std::collections::BTreeMap;

/// Longer than any wait of the account's own.
const PATIENCE: Duration = Duration::from_secs(10);

fn open(store: Arc<Store>) -> Account {
    let (account, _task) = Account::open(settings(), store, Clock::System).expect("an empty store");
    account
}

/// An account named `main` at Bitfinex, which is not reached.
pub(super) fn settings() -> Settings {
    let name = AccountName::parse("main").expect("a name");
    let venue = by_name("bitfinex").expect("in the table");
    let text = |text: &str| Secret::from(text.to_owned());
    let format = venue.secret_format().expect("it signs");
    let policy = Policy::new(Vec::new(), BTreeMap::from([(name.clone(), "bitfinex")]));
    let way = Way {
        rest: None,
        socket: None,
        addresses: vec![([127, 0, 0, 1], 9).into()],
        connector: Connector::with_roots(&ClientRoots::WebPki).expect("no file is read"),
        is_local_allowed: true,
    };
    let mut upstream = Upstream::new(DialLimits::default(), Resolver::with_servers(Vec::new()));
    upstream.add_account(&name, venue, &way).expect("the venue has hosts");
    Settings {
        upkeep: policy.upkeep(&name).expect("the policy knows it"),
        name,
        venue,
        signer: Signer::new(&text("key"), &text("secret"), format).expect("a credential"),
        nonce_unit: None,
        ordering: Ordering::Strict,
        upstream: Arc::new(upstream),
        limits: Limits::default(),
        writes: TaskTracker::new(),
    }
}

fn bot() -> ClientName {
    ClientName::parse("bot-a").expect("a name")
}

#[tokio::test]
async fn an_account_whose_disk_was_full_goes_on_when_it_no_longer_is() {
    let memory = MemoryStore::default();
    memory.set_full(true);
    let store = Arc::new(Store::Memory(memory));
    let account = open(Arc::clone(&store));
    let refused = account.lease(bot(), PATIENCE).await.expect_err("nothing can be made durable");
    assert_eq!(refused, Unavailable::Lane(LaneStopped::NotPersisted));

    let Store::Memory(memory) = &*store else { unreachable!("it was made so") };
    memory.set_full(false);
    let healed = async {
        while account.lease(bot(), PATIENCE).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, healed).await.expect("the account is stopped for good");
}

#[tokio::test]
async fn one_nonce_is_out_at_a_time_and_each_is_greater() {
    let account = open(Arc::new(Store::Memory(MemoryStore::default())));
    let mut last = Nonce(0);
    for _ in 0..2_500 {
        let lease = account.lease(bot(), PATIENCE).await.expect("a nonce");
        assert!(lease.nonce > last);
        last = lease.nonce;
        lease.settle(LoginOutcome::Accepted);
    }
    let held = account.lease(bot(), PATIENCE).await.expect("a nonce");
    let waiting = account.lease(bot(), Duration::from_millis(50)).await.expect_err("the first one is out");
    assert_eq!(waiting, Unavailable::Busy);
    drop(held);
    assert!(account.lease(bot(), PATIENCE).await.is_ok());
}

#[tokio::test]
async fn a_key_that_is_refused_again_and_again_is_left_alone() {
    let account = open(Arc::new(Store::Memory(MemoryStore::default())));
    for _ in 0..3 {
        account.lease(bot(), PATIENCE).await.expect("a nonce").settle(LoginOutcome::Refused);
    }
    // The third refusal may still be on its way to the account.
    let left_alone = async {
        loop {
            match account.lease(bot(), PATIENCE).await {
                Ok(lease) => lease.settle(LoginOutcome::Refused),
                Err(why) => return why,
            }
        }
    };
    let why = tokio::time::timeout(PATIENCE, left_alone).await.expect("it is never left alone");
    assert_eq!(why, Unavailable::Token(NotMinted::Credential));
}

#[tokio::test]
async fn logins_that_are_refused_for_their_nonces_freeze_the_key() {
    let account = open(Arc::new(Store::Memory(MemoryStore::default())));
    let frozen = async {
        loop {
            match account.lease(bot(), PATIENCE).await {
                Ok(lease) => lease.settle(LoginOutcome::NonceTooSmall),
                Err(why) => return why,
            }
        }
    };
    let why = tokio::time::timeout(PATIENCE, frozen).await.expect("it is never frozen");
    assert_eq!(why, Unavailable::Lane(LaneStopped::Frozen));
}
