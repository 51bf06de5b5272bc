//! The life of an account's token against a seller on loopback: time is set, never waited for.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod token_stage;

use countersign::fresh::TokenId;
use countersign::supply::account::Unavailable;
use countersign::supply::breaker::FAILURES_MAX;
use countersign::supply::clock::Clock;
use countersign::supply::token::{RefusedToken, TokenState};
use countersign::venue::{LoginOutcome, NotMinted};
use futures_util::future::join_all;
use token_stage::{BEARER, Desk, HUB, LIFE, Mood, NUMBERED, PATIENCE, START, Seller, minutes, seconds, text};

const FAILURES: usize = FAILURES_MAX as usize;

// ---- valid before it is used ----------------------------------------------------------------------------------------

/// Who logs in.
fn bot() -> countersign::names::ClientName {
    countersign::names::ClientName::parse("bot").unwrap()
}

#[tokio::test]
async fn an_expired_token_is_never_used_at_connect() {
    let seller = Seller::open().await;
    let desk = Desk::at(&seller, &BEARER);
    let clock = Clock::Set(desk.hand.clone());
    let mut handed = 0;
    for turn in 0..300_u64 {
        seller.is(if turn % 7 < 4 { Mood::Sells } else { Mood::Down });
        if let Ok(token) = desk.token().await {
            handed += 1;
            let age = clock.passed() - seller.sold_at(&text(&token));
            assert!(age < LIFE - seconds(10), "turn {turn}: {age:?} old");
        }
        desk.hand.advance(seconds(turn * 37 % 240));
        // Somebody sets the wall clock, to and fro: the token is no younger for that.
        let wall = desk.hand.now();
        desk.hand.step(if turn % 3 == 0 { wall.minus(minutes(40)) } else { wall.plus(minutes(20)) });
    }
    assert!(handed > 100, "only {handed} tokens were handed out");
}

#[tokio::test]
async fn a_token_that_took_longer_to_buy_than_it_lives_is_not_handed_out() {
    let seller = Seller::open().await;
    let desk = Desk::at(&seller, &BEARER);
    seller.is(Mood::Ponders);
    let slow = async {
        seller.has_been_asked(1).await;
        desk.hand.advance(LIFE);
        seller.is(Mood::Sells);
    };
    let (refused, ()) = tokio::join!(desk.token(), slow);
    assert_eq!(refused.unwrap_err(), Unavailable::Token(NotMinted::Unavailable));
    desk.hand.advance(seconds(2));
    assert_eq!(desk.handed_out().await, "token-2");
}

#[tokio::test]
async fn a_factory_that_captured_the_old_value_gets_a_fresh_token() {
    let seller = Seller::open().await;
    let desk = Desk::at(&seller, &BEARER);
    // As a client library does that asks for the token at each connect.
    let account = desk.account.clone();
    let factory = || {
        let account = account.clone();
        async move { account.token(None, PATIENCE).await.expect("a token") }
    };
    let old = factory().await;
    assert_eq!((text(&old), text(&factory().await)), ("token-1".to_owned(), "token-1".to_owned()));
    desk.after(seconds(780)).await;
    desk.becomes("valid").await;
    assert_eq!(text(&factory().await), "token-2", "renewed ahead of its end");
    desk.hand.advance(minutes(1));
    desk.account.note_token_refused(RefusedToken { id: factory().await.id, purpose: HUB });
    assert_eq!(text(&factory().await), "token-3", "renewed because the exchange refused it");
}

#[tokio::test]
async fn a_token_is_renewed_ahead_and_nobody_waits_for_it() {
    let seller = Seller::open().await;
    let desk = Desk::at(&seller, &BEARER);
    assert_eq!(desk.handed_out().await, "token-1");
    desk.after(seconds(779)).await;
    assert_eq!(seller.requests().len(), 1);
    seller.is(Mood::Ponders);
    desk.after(seconds(1)).await;
    seller.has_been_asked(2).await;
    assert_eq!(desk.state().await, TokenState::Buying { usable_until: Some(START.plus(seconds(890))) });
    assert_eq!(desk.handed_out().await, "token-1", "the old one serves meanwhile");
    seller.is(Mood::Sells);
    desk.becomes("valid").await;
    assert_eq!(desk.handed_out().await, "token-2");
}

// ---- single flight --------------------------------------------------------------------------------------------------

#[tokio::test]
async fn fifty_callers_at_once_cost_one_purchase() {
    let seller = Seller::open().await;
    for venue in [&BEARER, &NUMBERED] {
        let desk = Desk::at(&seller, venue);
        let before = seller.requests().len();
        let tokens = join_all((0..50).map(|_| desk.handed_out())).await;
        assert!(tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
        assert_eq!(seller.requests().len() - before, 1);
    }
}

#[tokio::test]
async fn a_purchase_outlives_the_caller_that_asked_for_it() {
    let seller = Seller::open().await;
    for venue in [&BEARER, &NUMBERED] {
        let desk = Desk::at(&seller, venue);
        seller.is(Mood::Ponders);
        let before = seller.requests().len();
        assert_eq!(desk.account.token(None, seconds(0)).await.unwrap_err(), Unavailable::Busy);
        seller.has_been_asked(before + 1).await;
        seller.is(Mood::Sells);
        desk.becomes("valid").await;
        desk.handed_out().await;
        assert_eq!(seller.requests().len(), before + 1);
    }
}

// ---- the issuer is down ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn an_issuer_that_is_down_at_minute_13_costs_nobody_anything() {
    let seller = Seller::open().await;
    let desk = Desk::at(&seller, &BEARER);
    desk.handed_out().await;
    seller.is(Mood::Down);
    desk.after(minutes(13)).await;
    let TokenState::Waiting { failures: 1, why: NotMinted::Unavailable, usable_until: Some(until), .. } =
        desk.becomes("waiting").await
    else {
        panic!("{:?}", desk.state().await)
    };
    assert_eq!(until, START.plus(seconds(890)));
    assert_eq!(desk.handed_out().await, "token-1");
    seller.is(Mood::Sells);
    desk.after(seconds(2)).await;
    desk.becomes("valid").await;
    assert_eq!(desk.handed_out().await, "token-2");
    assert_eq!(seller.requests().len(), 3);
}

#[tokio::test]
async fn an_issuer_that_is_down_at_minute_16_is_told_to_callers_at_once_and_not_hammered() {
    let seller = Seller::open().await;
    let desk = Desk::at(&seller, &BEARER);
    desk.handed_out().await;
    seller.is(Mood::Down);
    desk.hand.advance(minutes(16));
    assert_eq!(desk.token().await.unwrap_err(), Unavailable::Token(NotMinted::Unavailable), "never an expired one");
    let asked = seller.requests().len();
    for _ in 0..100 {
        assert!(desk.token().await.is_err());
    }
    assert_eq!(seller.requests().len(), asked, "a hundred callers, no request");
    seller.is(Mood::Sells);
    desk.hand.advance(seconds(2));
    assert_eq!(desk.handed_out().await, "token-2");
}

#[tokio::test]
async fn an_issuer_that_flaps_is_used_whenever_it_works() {
    let seller = Seller::open().await;
    let desk = Desk::at(&seller, &BEARER);
    for round in 1..=10 {
        seller.is(Mood::Down);
        for _ in 0..3 {
            desk.token().await.expect_err("it is down");
            desk.hand.advance(seconds(30));
        }
        assert_eq!(desk.status().await.token_failures, 3);
        seller.is(Mood::Sells);
        assert_eq!(desk.handed_out().await, format!("token-{round}"));
        assert_eq!(desk.status().await.token_failures, 0);
        desk.hand.advance(LIFE);
    }
}

// ---- the breaker ----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_breaker_opens_after_five_failures_and_closes_after_one_probe() {
    let seller = Seller::open().await;
    for (venue, mood, why) in [
        (&BEARER, Mood::Down, NotMinted::Unavailable),
        (&BEARER, Mood::Talks, NotMinted::Unreadable),
        (&NUMBERED, Mood::Down, NotMinted::Unavailable),
    ] {
        let desk = Desk::at(&seller, venue);
        seller.is(mood);
        assert_eq!(desk.break_down(&seller).await, FAILURES);
        let TokenState::Open { until, failures: 5, usable_until: None, why: told } = desk.state().await else {
            panic!("{:?}", desk.state().await)
        };
        assert_eq!(told, why);
        let asked = seller.requests().len();
        for _ in 0..20 {
            assert_eq!(desk.token().await.unwrap_err(), Unavailable::Token(why));
        }
        assert_eq!(seller.requests().len(), asked, "open: nothing is asked");

        seller.is(Mood::Ponders);
        desk.hand.advance(until.since(desk.hand.now()));
        let callers = join_all((0..20).map(|_| desk.token()));
        let probe = async {
            seller.has_been_asked(asked + 1).await;
            assert_eq!(desk.state().await, TokenState::Probing { usable_until: None });
            seller.is(Mood::Sells);
        };
        let (tokens, ()) = tokio::join!(callers, probe);
        assert!(tokens.iter().all(Result::is_ok), "those who came meanwhile wait for the probe");
        assert_eq!(seller.requests().len(), asked + 1, "half open: one probe");
        assert_eq!((desk.state().await.breaker(), desk.status().await.token_failures), ("closed", 0));
    }
}

#[tokio::test]
async fn a_probe_that_fails_opens_the_breaker_again() {
    let seller = Seller::open().await;
    let desk = Desk::at(&seller, &BEARER);
    seller.is(Mood::Down);
    desk.break_down(&seller).await;
    let asked = seller.requests().len();
    for probes in 1..=3 {
        desk.hand.advance(seconds(30));
        assert!(desk.token().await.is_err());
        assert!(desk.token().await.is_err());
        assert_eq!(seller.requests().len(), asked + probes);
        assert_eq!(desk.state().await.breaker(), "open");
    }
}

#[tokio::test]
async fn an_open_breaker_takes_no_token_away() {
    let seller = Seller::open().await;
    let desk = Desk::at(&seller, &BEARER);
    desk.handed_out().await;
    seller.is(Mood::Down);
    desk.after(seconds(780)).await;
    while desk.state().await.breaker() == "closed" {
        let TokenState::Waiting { until, .. } = desk.becomes("waiting").await else { unreachable!("it is") };
        let asked = seller.requests().len();
        desk.after(until.since(desk.hand.now())).await;
        seller.has_been_asked(asked + 1).await;
        let mut states = desk.account.token_state();
        let is_over = |state: &TokenState| {
            state.word() == "open" || matches!(state, TokenState::Waiting { until: next, .. } if *next > until)
        };
        states.wait_for(is_over).await.unwrap();
    }
    let TokenState::Open { usable_until: Some(until), .. } = desk.state().await else { panic!("no token is left") };
    assert!(until > desk.hand.now());
    assert_eq!(desk.handed_out().await, "token-1");
}

#[tokio::test]
async fn a_reset_lets_the_next_caller_buy_at_once() {
    let seller = Seller::open().await;
    let desk = Desk::at(&seller, &BEARER);
    seller.is(Mood::RefusesKey);
    assert_eq!(desk.token().await.unwrap_err(), Unavailable::Token(NotMinted::Credential));
    seller.is(Mood::Sells);
    assert!(desk.token().await.is_err());
    desk.account.reset_breaker(PATIENCE).await.unwrap();
    assert_eq!(desk.state().await, TokenState::Absent);
    assert_eq!(desk.handed_out().await, "token-1");
}

#[tokio::test]
async fn a_refused_credential_is_left_alone_for_five_minutes() {
    let seller = Seller::open().await;
    let desk = Desk::at(&seller, &BEARER);
    seller.is(Mood::RefusesKey);
    for _ in 0..10 {
        assert_eq!(desk.token().await.unwrap_err(), Unavailable::Token(NotMinted::Credential));
        desk.hand.advance(seconds(29));
    }
    assert_eq!(seller.requests().len(), 1);
    desk.hand.advance(seconds(10));
    assert!(desk.token().await.is_err());
    assert_eq!(seller.requests().len(), 2);
}

// ---- the exchange refuses tokens ------------------------------------------------------------------------------------

#[tokio::test]
async fn a_storm_of_401s_opens_the_breaker() {
    let seller = Seller::open().await;
    let desk = Desk::at(&seller, &BEARER);
    let mut told_at_once = 0;
    let mut token = desk.token().await.expect("a token");
    // Bots that come back as fast as they can, for an hour; each token is refused as soon as it is used.
    for _ in 0..3600 {
        match desk.instead_of(token.id).await {
            Ok(next) => token = next,
            Err(why) => {
                assert_eq!(why, Unavailable::Token(NotMinted::RefusedWhenUsed));
                told_at_once += 1;
            }
        }
        desk.hand.advance(seconds(1));
    }
    let bought = seller.requests().len();
    assert!(told_at_once > 3000 && bought <= FAILURES + 3600 / 170, "{bought} tokens in an hour");
    assert_eq!(desk.state().await.breaker(), "open");
    // The exchange is in order again: one probe is enough.
    desk.hand.advance(seconds(30));
    let good = desk.handed_out().await;
    desk.hand.advance(minutes(1));
    assert_eq!(desk.handed_out().await, good);
}

#[tokio::test]
async fn a_token_that_was_replaced_cannot_be_refused_again() {
    let seller = Seller::open().await;
    let desk = Desk::at(&seller, &BEARER);
    let first = desk.token().await.unwrap();
    desk.hand.advance(minutes(1));
    let refusals = join_all((0..50).map(|_| desk.instead_of(first.id))).await;
    assert!(refusals.iter().all(|token| text(token.as_ref().unwrap()) == "token-2"));
    assert_eq!(seller.requests().len(), 2);
    assert_eq!(text(&desk.instead_of(TokenId(99)).await.unwrap()), "token-2", "an id that never was");
}

// ---- clocks ---------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_clock_that_is_put_back_lengthens_no_life() {
    let seller = Seller::open().await;
    let desk = Desk::at(&seller, &BEARER);
    desk.handed_out().await;
    desk.hand.advance(minutes(10));
    desk.hand.step(START.minus(minutes(60 * 24 * 365)));
    assert_eq!(desk.handed_out().await, "token-1", "five minutes are left");
    // By the wall clock, in its status.
    let TokenState::Valid { until, .. } = desk.state().await else { panic!("{:?}", desk.state().await) };
    assert_eq!(until.since(desk.hand.now()), seconds(290));
    seller.is(Mood::Down);
    desk.hand.advance(seconds(291));
    assert!(desk.token().await.is_err(), "its life is over, whatever the clock on the wall says");
}

#[tokio::test]
async fn a_clock_that_is_put_ahead_costs_a_purchase_and_keeps_nobody_waiting() {
    let seller = Seller::open().await;
    let desk = Desk::at(&seller, &BEARER);
    desk.handed_out().await;
    desk.hand.step(START.plus(minutes(60 * 24 * 365)));
    assert_eq!(desk.handed_out().await, "token-2");
    desk.hand.step(START);
    assert_eq!(desk.handed_out().await, "token-2");
    seller.is(Mood::Down);
    desk.hand.advance(LIFE);
    desk.token().await.expect_err("it is down");
    desk.hand.step(START.minus(minutes(600)));
    seller.is(Mood::Sells);
    desk.hand.advance(seconds(2));
    assert_eq!(desk.handed_out().await, "token-3", "a wait does not grow by a clock that is put back");
}

#[tokio::test]
async fn a_machine_that_slept_past_the_end_of_a_token_does_not_use_it() {
    let seller = Seller::open().await;
    let desk = Desk::at(&seller, &BEARER);
    desk.handed_out().await;
    desk.hand.sleep(minutes(60));
    assert_eq!(desk.handed_out().await, "token-2");
}

// ---- restarts -------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_token_survives_a_restart_for_what_is_left_of_its_life() {
    let seller = Seller::open().await;
    let desk = Desk::at(&seller, &BEARER);
    desk.handed_out().await;
    desk.hand.advance(minutes(10));
    let desk = desk.reopened(&seller, &BEARER, "key").await;
    assert_eq!(desk.handed_out().await, "token-1");
    desk.hand.advance(minutes(5));
    let desk = desk.reopened(&seller, &BEARER, "key").await;
    assert_eq!(desk.handed_out().await, "token-2", "the old one is over");
}

#[tokio::test]
async fn a_restart_in_the_middle_of_a_refresh_loses_neither_the_old_token_nor_the_refresh() {
    let seller = Seller::open().await;
    for venue in [&BEARER, &NUMBERED] {
        seller.is(Mood::Sells);
        let desk = Desk::at(&seller, venue);
        let old = desk.handed_out().await;
        let asked = seller.requests().len();
        seller.is(Mood::Ponders);
        desk.after(minutes(13)).await;
        seller.has_been_asked(asked + 1).await;
        let desk = desk.reopened(&seller, venue, "key").await;
        assert_eq!(desk.handed_out().await, old);
        seller.has_been_asked(asked + 2).await;
        assert_eq!(desk.state().await.word(), "buying");
        seller.is(Mood::Sells);
        desk.becomes("valid").await;
        assert_ne!(desk.handed_out().await, old);
    }
}

#[tokio::test]
async fn a_kept_token_of_another_key_is_not_used() {
    let seller = Seller::open().await;
    let desk = Desk::at(&seller, &BEARER);
    assert_eq!(desk.handed_out().await, "token-1");
    let desk = desk.reopened(&seller, &BEARER, "another").await;
    assert_eq!(desk.state().await, TokenState::Absent);
    assert_eq!(desk.handed_out().await, "token-2");
    assert_eq!(seller.requests(), ["key -", "another -"]);
}

#[tokio::test]
async fn a_token_that_was_refused_is_not_kept() {
    let seller = Seller::open().await;
    let desk = Desk::at(&seller, &BEARER);
    let token = desk.token().await.unwrap();
    seller.is(Mood::Down);
    desk.instead_of(token.id).await.expect_err("it is down");
    let desk = desk.reopened(&seller, &BEARER, "key").await;
    assert_eq!(desk.state().await, TokenState::Absent);
}

// ---- what is seen ---------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_status_says_how_the_account_is() {
    let seller = Seller::open().await;
    let desk = Desk::at(&seller, &NUMBERED);
    let status = desk.status().await;
    assert_eq!((status.account.as_str(), status.venue, status.token), ("main", "numbered", Some(TokenState::Absent)));
    assert_eq!((status.clock_offset_ms, status.refused_in_a_row, status.left_alone_until), (None, 0, None));
    desk.handed_out().await;
    let told = desk.status().await.clock_offset_ms.expect("its answers carry a date");
    assert!((30_000..40_000).contains(&told), "{told} ms");

    let held = desk.account.lease(bot(), PATIENCE).await.unwrap();
    let waiting = desk.account.lease(bot(), PATIENCE);
    let looked = async {
        loop {
            let status = desk.status().await;
            if status.queue.logins == 1 {
                return status;
            }
        }
    };
    let (lease, status) = tokio::join!(waiting, async {
        let status = looked.await;
        held.settle(LoginOutcome::Refused);
        status
    });
    assert_eq!((status.in_flight, status.queue.orders), (1, 0));
    lease.unwrap().settle(LoginOutcome::Refused);
    desk.account.lease(bot(), PATIENCE).await.unwrap().settle(LoginOutcome::Refused);
    while desk.status().await.left_alone_until.is_none() {}
    let status = desk.status().await;
    assert_eq!(status.refused_in_a_row, 3);
    assert!(status.left_alone_until.unwrap().since(desk.hand.now()) > minutes(4));
    desk.account.reset_breaker(PATIENCE).await.unwrap();
    assert_eq!(desk.status().await.left_alone_until, None);
    assert!(desk.account.lease(bot(), PATIENCE).await.is_ok(), "a reset lets the key be used again");
}

#[tokio::test]
async fn a_renewal_on_a_person_s_word_replaces_the_token_or_says_why_not() {
    let seller = Seller::open().await;
    let desk = Desk::at(&seller, &BEARER);
    assert_eq!(desk.handed_out().await, "token-1");
    assert_eq!(text(&desk.account.renew_token(PATIENCE).await.unwrap()), "token-2");
    assert_eq!(desk.handed_out().await, "token-2");
    seller.is(Mood::RefusesKey);
    for _ in 0..2 {
        let refused = desk.account.renew_token(PATIENCE).await.unwrap_err();
        assert_eq!(refused, Unavailable::Token(NotMinted::Credential));
    }
    assert_eq!(seller.requests().len(), 3, "the second one was told at once");
    assert_eq!(desk.handed_out().await, "token-2", "the old one still serves");
}

#[tokio::test]
async fn nothing_of_a_token_is_in_a_status() {
    let seller = Seller::open().await;
    let desk = Desk::at(&seller, &BEARER);
    let token = desk.handed_out().await;
    let shown = format!("{:?} {:?}", desk.status().await, desk.account.token_state().borrow());
    assert!(shown.contains("Valid") && !shown.contains(&token), "{shown}");
}
