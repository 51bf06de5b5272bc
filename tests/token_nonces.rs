//! Tokens that cost a nonce and tokens that cost none, against a seller on loopback.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod token_stage;

use countersign::fresh::Nonce;
use countersign::supply::account::Unavailable;
use countersign::supply::lane::LaneStopped;
use countersign::supply::token::TokenState;
use countersign::venue::{LoginOutcome, NotMinted, Venue as _};
use std::sync::Arc;
use token_stage::{BEARER, Desk, MIXED, Mood, NUMBERED, PATIENCE, START, Seller, seconds};

/// Who logs in.
fn bot() -> countersign::names::ClientName {
    countersign::names::ClientName::parse("bot").unwrap()
}

#[tokio::test]
async fn a_venue_without_nonces_buys_tokens_and_has_no_lane() {
    let seller = Seller::open().await;
    let desk = Desk::at(&seller, &BEARER);
    assert_eq!(desk.handed_out().await, "token-1");
    assert_eq!(seller.requests(), ["key -"], "no number was taken");
    let status = desk.status().await;
    assert_eq!((status.lane, status.in_flight), (None, 0));
    assert_eq!(desk.account.lease(bot(), PATIENCE).await.unwrap_err(), Unavailable::Lane(LaneStopped::NoNonces));
    assert_eq!(desk.account.unfreeze(PATIENCE).await, Err(Unavailable::Lane(LaneStopped::NoNonces)));
    assert_eq!(desk.store.read_mark(desk.account.name()).unwrap(), None, "nothing was reserved");
}

#[tokio::test]
async fn a_token_that_costs_a_nonce_has_a_lane() {
    let seller = Seller::open().await;
    let desk = Desk::at(&seller, &NUMBERED);
    desk.handed_out().await;
    let lane = desk.status().await.lane.expect("it has nonces");
    assert!(!lane.is_frozen && lane.reserved.is_some());
    assert_eq!(desk.store.read_mark(desk.account.name()).unwrap().map(|mark| mark.reserved), lane.reserved);
}

#[tokio::test]
async fn a_token_request_and_an_order_never_share_a_nonce() {
    let seller = Seller::open().await;
    let desk = Arc::new(Desk::at(&seller, &NUMBERED));
    // Orders and logins take their numbers one by one, as fast as they can, while tokens are bought anew.
    let numbers = tokio::spawn({
        let desk = Arc::clone(&desk);
        async move {
            let mut numbers = Vec::new();
            for _ in 0..300 {
                let lease = desk.account.lease(bot(), PATIENCE).await.expect("a nonce");
                numbers.push(lease.nonce);
                tokio::task::yield_now().await;
                lease.settle(LoginOutcome::Accepted);
            }
            numbers
        }
    });
    for _ in 0..20 {
        desk.token().await.expect("a token");
        desk.account.renew_token(PATIENCE).await.expect("another");
    }
    let mut numbers = numbers.await.unwrap();
    let paid: Vec<Nonce> =
        seller.requests().iter().map(|body| Nonce(body.split_once(' ').unwrap().1.parse().unwrap())).collect();
    assert!(paid.len() >= 20, "{}", paid.len());
    assert!(paid.is_sorted_by(|before, after| before < after));
    numbers.extend(paid);
    let count = numbers.len();
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), count, "a number was used twice");
}

#[tokio::test]
async fn a_frozen_lane_stops_only_tokens_that_cost_a_nonce() {
    let seller = Seller::open().await;
    for venue in [&NUMBERED, &MIXED] {
        let desk = Desk::at(&seller, venue);
        freeze(&desk).await;
        let before = seller.requests().len();
        if venue.name() == "mixed" {
            desk.handed_out().await;
            assert_eq!(seller.requests().len(), before + 1);
            continue;
        }
        assert_eq!(desk.token().await.unwrap_err(), Unavailable::Lane(LaneStopped::Frozen));
        assert_eq!(seller.requests().len(), before);
        assert_eq!(desk.status().await.token_failures, 0, "nobody has failed to sell");
        desk.account.unfreeze(PATIENCE).await.unwrap();
        assert!(!desk.status().await.lane.unwrap().is_frozen);
        desk.handed_out().await;
    }
}

#[tokio::test]
async fn a_token_runs_out_behind_a_frozen_lane_and_is_told_so() {
    let seller = Seller::open().await;
    let desk = Desk::at(&seller, &NUMBERED);
    desk.handed_out().await;
    freeze(&desk).await;
    desk.after(seconds(800)).await;
    assert_eq!((desk.handed_out().await.as_str(), desk.state().await.word()), ("token-1", "valid"));
    desk.after(seconds(90)).await;
    assert_eq!(desk.state().await, TokenState::Expired { since: START.plus(seconds(890)) });
    assert_eq!(desk.token().await.unwrap_err(), Unavailable::Lane(LaneStopped::Frozen));
    assert_eq!(seller.requests().len(), 1);
}

#[tokio::test]
async fn a_nonce_that_is_refused_again_and_again_is_a_failure_and_then_freezes_the_lane() {
    let seller = Seller::open().await;
    let desk = Desk::at(&seller, &NUMBERED);
    seller.is(Mood::RefusesNonce);
    assert_eq!(desk.token().await.unwrap_err(), Unavailable::Token(NotMinted::NonceTooSmall));
    assert_eq!(seller.requests().len(), 2, "it is tried once more with a greater one");
    desk.hand.advance(seconds(2));
    desk.token().await.expect_err("the lane freezes at the third");
    assert_eq!(seller.requests().len(), 3);
    assert!(desk.status().await.lane.unwrap().is_frozen);
}

/// Lets the exchange refuse three nonces.
async fn freeze(desk: &Desk) {
    for _ in 0..3 {
        if let Ok(lease) = desk.account.lease(bot(), PATIENCE).await {
            lease.settle(LoginOutcome::NonceTooSmall);
        }
    }
    let frozen = async {
        while !desk.status().await.lane.unwrap().is_frozen {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, frozen).await.expect("three refusals freeze");
}
