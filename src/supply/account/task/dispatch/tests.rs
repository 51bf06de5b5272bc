//! The lane between two turns: what is on its way, what lands, and what a cancel makes of it.

use super::*;
use crate::identity::Principal;
use crate::policy::{ClientPattern, Grant, Permit, Policy};
use crate::scope::Right;
use crate::store::{MemoryStore, Store};
use crate::supply::account::{NotAnswered, Settings, tests::settings};
use crate::supply::clock::Clock;
use crate::upstream::Door;
use crate::venue::{Manner, Route, SignedRequest, by_name};
use http::Request;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;

type Reply = oneshot::Receiver<Result<Answered, NotAnswered>>;

fn task() -> Task {
    crate::tls::install_crypto();
    let store = Arc::new(Store::Memory(MemoryStore::default()));
    let (mailbox, _orders) = mpsc::channel(8);
    Task::open(settings(), store, Clock::System, mailbox.downgrade()).expect("an empty store")
}

fn permit(client: &str) -> Permit {
    let Settings { name, venue, .. } = settings();
    let grant = Grant {
        client: ClientPattern::parse(client).expect("a pattern"),
        account: Some(name.clone()),
        venues: Vec::new(),
        scope: [Right::Trade].into_iter().collect(),
        max_sessions: 1,
        sub_accounts: None,
    };
    let policy = Policy::new(vec![grant], BTreeMap::from([(name, venue.name())]));
    let endpoint = venue.endpoints().iter().find(|endpoint| endpoint.name == "rest").expect("it has one");
    let who = Principal::danger_unproved_for_development(ClientName::parse(client).expect("a name"));
    policy.permit_request(&who, &Route { venue, endpoint, manner: Manner::Native }, None).expect("granted")
}

/// A client's call about the order with this id.
fn queued(task: &Task, client: &str, class: Class) -> (Box<Queued>, Reply) {
    let permit = permit(client);
    let door = Door { venue: by_name("bitfinex").expect("in the table"), endpoint: "rest" };
    let approach = task.upstream.approach_for(&permit, door).expect("a way");
    let (reply, answer) = oneshot::channel();
    let sign = Arc::new(|_: &_, _| SignedRequest {
        endpoint: "rest",
        method: "POST",
        path: "/".to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
    });
    let still_granted = Arc::new(|_: &_| true);
    (
        Box::new(Queued {
            permit,
            endpoint: "rest",
            class,
            approach,
            sign,
            shown: Vec::new(),
            still_granted,
            reply,
            is_again: false,
        }),
        answer,
    )
}

fn named(id: &str) -> Subjects {
    Subjects::Named(vec![id.into()])
}

/// An order of `bot-a` that is on its way with this nonce, and what becomes of it.
fn order_in_flight(task: &mut Task, id: &str, nonce: Nonce) -> (Waiting<Box<Queued>>, Reply) {
    let (queued, reply) = queued(task, "bot-a", Class::Order);
    let client = queued.permit.client().clone();
    task.depart(nonce, Some((client.clone(), named(id))));
    let (rank, since) = (Rank::Order, Instant::now());
    let waiting = Waiting {
        rank,
        client: Some(client),
        subjects: named(id),
        is_order: true,
        since,
        deadline: None,
        item: queued,
    };
    (waiting, reply)
}

fn unsent(nonce: Nonce, waiting: Waiting<Box<Queued>>) -> Landing {
    let fate = Fate::Unsent(Box::new(Request::new(Full::default())));
    Landing { nonce, cargo: Landed::Call(Box::new(waiting), fate) }
}

#[tokio::test]
async fn an_order_that_comes_back_unsent_after_its_clients_cancel_is_not_sent() {
    let mut task = task();
    let (meant, mut reply) = order_in_flight(&mut task, "1", Nonce(1));
    let (other, mut other_reply) = order_in_flight(&mut task, "2", Nonce(2));
    let (cancel, _answer) = queued(&task, "bot-a", Class::Cancel);
    task.take_call(cancel, named("1"));
    task.on_landed(unsent(Nonce(1), meant));
    task.on_landed(unsent(Nonce(2), other));
    let why = reply.try_recv().expect("it is answered").expect_err("nothing was sent");
    assert_eq!(why, NotAnswered::NotSent(NotSent::Withdrawn));
    assert!(other_reply.try_recv().is_err(), "the order that was not meant goes once more");
}

#[tokio::test]
async fn another_clients_cancel_takes_back_nothing() {
    let mut task = task();
    let (order, mut reply) = order_in_flight(&mut task, "1", Nonce(1));
    let (cancel, _answer) = queued(&task, "bot-b", Class::Cancel);
    task.take_call(cancel, Subjects::All);
    task.on_landed(unsent(Nonce(1), order));
    assert!(reply.try_recv().is_err(), "it goes once more");
}

#[tokio::test]
async fn a_nonce_that_did_not_leave_has_overtaken_nothing() {
    let mut task = task();
    let (first, _reply) = order_in_flight(&mut task, "1", Nonce(1));
    let (second, _reply) = order_in_flight(&mut task, "2", Nonce(2));
    task.on_landed(unsent(Nonce(2), second));
    let flight = task.flights.iter().find(|flight| flight.nonce == Nonce(1)).expect("it is on its way");
    assert!(flight.overtakers == 0, "what was overtaken by nothing was refused for another reason");
    drop(first);
}

#[tokio::test]
async fn a_nonce_that_left_has_overtaken_those_before_it() {
    let mut task = task();
    let (_first, _reply) = order_in_flight(&mut task, "1", Nonce(1));
    let (_second, _reply) = order_in_flight(&mut task, "2", Nonce(2));
    let is_overtaken = |number: u64| {
        let flight = task.flights.iter().find(|flight| flight.nonce == Nonce(number)).expect("it is on its way");
        flight.overtakers > 0
    };
    assert!(is_overtaken(1) && !is_overtaken(2));
}
