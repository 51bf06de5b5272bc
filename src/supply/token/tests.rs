//! The life of a token, minute by minute.

use super::*;
use crate::supply::breaker::FAILURES_MAX;

const BOUGHT: UnixMillis = UnixMillis(1_000_000_000);
const LIFE: Duration = Duration::from_secs(900);

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

fn secret(text: &str) -> Secret {
    Secret::from(text.to_owned())
}

fn life() -> TokenLife {
    let mut life = TokenLife::new(LifePart::default());
    life.begins(BOUGHT);
    life.renewed(secret("token"), LIFE, BOUGHT);
    life
}

fn none_yet() -> TokenLife {
    TokenLife::new(LifePart::default())
}

const HUB: Purpose = Purpose { endpoint: "user", operation: "" };
const READ: Purpose = Purpose { endpoint: "rest", operation: "search" };

/// The exchange refuses the token that is held, for this purpose.
fn refuse(life: &mut TokenLife, purpose: Purpose, now: UnixMillis) -> Outlook {
    let id = life.held().expect("one is held");
    life.refused(RefusedToken { id, purpose }, now, 1.0)
}

/// Buys the next token, which has to be due.
fn buy(life: &mut TokenLife, lives: Duration, now: UnixMillis) -> TokenId {
    assert!(life.is_due(now), "{:?}", life.state(now));
    life.begins(now);
    life.renewed(secret("token"), lives, now).id
}

/// Fails as often as it takes to open the breaker.
fn open(life: &mut TokenLife, now: UnixMillis) {
    for _ in 0..FAILURES_MAX {
        life.begins(now);
        life.failed(NotMinted::Unavailable, now, 0.0);
    }
    assert_eq!(life.state(now).breaker(), "open");
}

#[test]
fn a_token_is_renewed_at_13_of_its_15_minutes() {
    let life = life();
    let due = BOUGHT.plus(seconds(780));
    assert!(!life.is_due(due.minus(seconds(1))));
    assert!(life.is_due(due));
    assert_eq!(life.changes_at(BOUGHT), Some(due));
    assert_eq!(life.state(BOUGHT), TokenState::Valid { until: BOUGHT.plus(seconds(890)), refresh_at: due });
}

#[test]
fn a_token_is_renewed_at_another_part_of_its_life_where_one_is_configured() {
    let mut life = TokenLife::new(LifePart::parse("1/2").expect("a part"));
    life.renewed(secret("token"), LIFE, BOUGHT);
    assert!(!life.is_due(BOUGHT.plus(seconds(449))) && life.is_due(BOUGHT.plus(seconds(450))));
}

#[test]
fn a_token_that_is_about_to_expire_is_not_handed_out() {
    let mut life = life();
    assert!(life.usable(BOUGHT.plus(seconds(889))).is_some());
    let over = BOUGHT.plus(seconds(890));
    assert!(life.usable(over).is_none());
    assert_eq!(life.state(over), TokenState::Expired { since: over });
    // The margin of a short life is a tenth of it.
    life.renewed(secret("token"), seconds(30), BOUGHT);
    assert!(life.usable(BOUGHT.plus(seconds(26))).is_some());
    assert!(life.usable(BOUGHT.plus(seconds(27))).is_none());
}

#[test]
fn a_refresh_later_than_the_margin_allows_happens_at_the_margin() {
    let mut life = TokenLife::new(LifePart::parse("999/1000").expect("a part"));
    life.renewed(secret("token"), LIFE, BOUGHT);
    assert!(life.is_due(BOUGHT.plus(seconds(890))));
    assert_eq!(life.changes_at(BOUGHT), Some(BOUGHT.plus(seconds(890))));
}

#[test]
fn an_issuer_that_is_down_is_asked_ever_less_often_and_the_old_token_serves_to_its_end() {
    let mut life = life();
    let mut now = BOUGHT.plus(seconds(780));
    for wait in [2, 4, 8, 16] {
        assert!(life.is_due(now));
        life.begins(now);
        assert_eq!(life.failed(NotMinted::Unavailable, now, 1.0), seconds(wait));
        assert!(!life.is_due(now) && life.usable(now).is_some());
        now = now.plus(seconds(wait));
    }
    // 810 s: a quarter of the 80 s that are left.
    life.begins(now);
    assert_eq!(life.failed(NotMinted::Unavailable, now, 1.0), seconds(20));
    assert_eq!(life.state(now).breaker(), "open");
    assert!(life.usable(now).is_some(), "an open breaker takes nothing away");
    let mut probes = 0;
    while life.usable(now).is_some() {
        now = life.changes_at(now).expect("it is usable");
        if life.is_due(now) {
            life.begins(now);
            assert_eq!(life.state(now).word(), "probing");
            life.failed(NotMinted::Unavailable, now, 0.0);
            probes += 1;
        }
    }
    assert_eq!((now, probes), (BOUGHT.plus(seconds(890)), 6), "at 830, 845, 856.25, 866.25, 876.25 and 886.25 s");
}

#[test]
fn an_issuer_that_was_down_at_the_end_of_a_token_is_probed_every_ten_to_thirty_seconds() {
    let mut life = life();
    let mut now = BOUGHT.plus(seconds(960));
    open(&mut life, now);
    for (chance, wait) in [(0.0, 10), (0.5, 15), (1.0, 30)] {
        let TokenState::Open { until, usable_until: None, .. } = life.state(now) else {
            panic!("{:?}", life.state(now))
        };
        assert_eq!(life.unavailable(until.minus(seconds(1))), Some(NotMinted::Unavailable));
        now = until;
        assert!(life.is_due(now) && life.unavailable(now).is_none());
        life.begins(now);
        assert!(life.failed(NotMinted::Unavailable, now, chance) >= seconds(wait));
    }
}

#[test]
fn an_issuer_that_flaps_never_opens_the_breaker() {
    let mut life = life();
    let mut now = BOUGHT;
    for _ in 0..50 {
        now = now.plus(seconds(780));
        for _ in 1..FAILURES_MAX {
            life.begins(now);
            now = now.plus(life.failed(NotMinted::Unavailable, now, 0.0));
        }
        assert_eq!(life.state(now).breaker(), "closed");
        life.begins(now);
        life.renewed(secret("next"), LIFE, now);
        assert_eq!(life.failures(now), 0);
    }
}

#[test]
fn a_breaker_goes_from_closed_to_open_to_half_open_to_closed() {
    let mut life = none_yet();
    open(&mut life, BOUGHT);
    let TokenState::Open { until, failures: 5, why: NotMinted::Unavailable, .. } = life.state(BOUGHT) else {
        panic!("{:?}", life.state(BOUGHT))
    };
    assert!(!life.is_due(until.minus(seconds(1))) && life.is_due(until));
    life.begins(until);
    assert_eq!(life.state(until), TokenState::Probing { usable_until: None });
    assert!(!life.is_due(until.plus(seconds(60))), "one probe");
    assert!(life.unavailable(until).is_none(), "who comes meanwhile waits for the probe");
    life.renewed(secret("token"), LIFE, until);
    assert_eq!((life.state(until).word(), life.failures(until)), ("valid", 0));
}

#[test]
fn a_probe_that_fails_opens_the_breaker_again() {
    let mut life = none_yet();
    open(&mut life, BOUGHT);
    let later = BOUGHT.plus(seconds(10));
    life.begins(later);
    life.failed(NotMinted::Unreadable, later, 0.0);
    let TokenState::Open { until, failures: 6, why: NotMinted::Unreadable, .. } = life.state(later) else {
        panic!("{:?}", life.state(later))
    };
    assert_eq!(until, later.plus(seconds(10)));
}

#[test]
fn a_reset_closes_the_breaker_at_once() {
    let mut life = none_yet();
    open(&mut life, BOUGHT);
    life.reset();
    assert!(life.is_due(BOUGHT));
    assert_eq!((life.state(BOUGHT), life.failures(BOUGHT)), (TokenState::Absent, 0));
}

#[test]
fn a_refused_key_is_left_alone_for_five_minutes() {
    let mut life = none_yet();
    life.begins(BOUGHT);
    life.failed(NotMinted::Credential, BOUGHT, 0.0);
    assert_eq!(life.unavailable(BOUGHT.plus(seconds(299))), Some(NotMinted::Credential));
    assert!(!life.is_due(BOUGHT.plus(seconds(299))));
    assert!(life.is_due(BOUGHT.plus(seconds(300))));
}

#[test]
fn fifty_sessions_that_saw_one_refusal_cost_one_new_token() {
    let mut life = life();
    let refused = RefusedToken { id: life.held().expect("fresh"), purpose: HUB };
    let now = BOUGHT.plus(seconds(60));
    assert_eq!(life.refused(refused, now, 0.0), Outlook::Due { is_news: true });
    assert_eq!(life.refused(refused, now, 0.0), Outlook::Awaited);
    buy(&mut life, LIFE, now);
    for _ in 0..49 {
        assert_eq!(life.refused(refused, now, 0.0), Outlook::Past, "the token that was refused is long gone");
    }
    assert!(life.usable(now).is_some() && !life.is_due(now));
}

#[test]
fn an_exchange_that_refuses_every_fresh_token_opens_the_breaker() {
    let mut life = none_yet();
    let (mut now, mut replaced) = (BOUGHT, 0);
    buy(&mut life, LIFE, now);
    while life.state(now).breaker() != "open" {
        match refuse(&mut life, HUB, now) {
            Outlook::Due { is_news } => {
                assert_eq!(is_news, replaced == 0);
                buy(&mut life, LIFE, now);
                replaced += 1;
            }
            Outlook::Kept => {
                let TokenState::Waiting { until, why: NotMinted::RefusedWhenUsed, .. } = life.state(now) else {
                    panic!("{:?}", life.state(now))
                };
                assert!(replaced >= 2, "the first two cost no time");
                assert!(life.usable(now).is_some() && !life.is_due(now), "others may still use it");
                now = until;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((replaced, life.failures(now)), (FAILURES_MAX, FAILURES_MAX));
    assert_eq!(refuse(&mut life, HUB, now), Outlook::Kept);
    // When its time is over one more is bought, which is refused as well.
    let TokenState::Open { until, .. } = life.state(now) else { unreachable!("the loop ended") };
    assert_eq!(refuse(&mut life, HUB, until), Outlook::Due { is_news: false });
    buy(&mut life, LIFE, until);
    assert_eq!((refuse(&mut life, HUB, until), life.state(until).breaker()), (Outlook::Kept, "open"));
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A hub that refuses every token, tried so often, beside a read that takes them, for ten hours. How many were bought
/// for the hub.
fn refused_by_the_hub(every: Duration) -> u32 {
    let mut life = none_yet();
    let (mut now, mut replaced) = (BOUGHT, 0);
    buy(&mut life, DAY, now);
    while now < BOUGHT.plus(seconds(36_000)) {
        let read = life.usable(now).expect("the read is never without one").id;
        life.taken(read);
        assert_eq!(life.state(now).word(), "valid");
        let outlook = refuse(&mut life, HUB, now);
        if let Outlook::Due { is_news } = outlook {
            assert_eq!(
                life.usable(now).is_none(),
                is_news,
                "it is taken from all where that may be news, and only there"
            );
            buy(&mut life, DAY, now);
            replaced += 1;
        } else {
            assert_eq!(outlook, Outlook::Kept);
        }
        now = now.plus(every);
    }
    replaced
}

#[test]
fn a_hub_that_refuses_every_token_takes_none_from_a_read_and_costs_twelve_an_hour() {
    for (every, at_most) in [(1, 125), (9, 125), (10, 125), (60, 125), (301, 120), (600, 60), (1200, 30)] {
        let replaced = refused_by_the_hub(seconds(every));
        assert!((1..=at_most).contains(&replaced), "every {every} s: {replaced}");
    }
}

#[test]
fn a_token_that_ends_early_is_replaced_at_once_beside_a_hub_that_takes_none() {
    let mut life = none_yet();
    buy(&mut life, DAY, BOUGHT);
    life.taken(life.held().expect("bought"));
    while let Outlook::Due { .. } = refuse(&mut life, HUB, BOUGHT) {
        let id = buy(&mut life, DAY, BOUGHT);
        life.taken(id);
    }
    assert_eq!(refuse(&mut life, READ, BOUGHT), Outlook::Due { is_news: true });
    assert!(life.usable(BOUGHT).is_none(), "all wait for the next one");
    buy(&mut life, DAY, BOUGHT);
    assert!(life.usable(BOUGHT).is_some());
}

#[test]
fn many_purposes_of_an_exchange_that_takes_no_token_at_all_cost_no_more_than_one() {
    let operations = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut life = none_yet();
    let (mut now, mut replaced) = (BOUGHT, 0);
    buy(&mut life, DAY, now);
    for second in 0..3600 {
        let purpose = Purpose { endpoint: "rest", operation: operations[second % operations.len()] };
        if let Outlook::Due { .. } = refuse(&mut life, purpose, now) {
            buy(&mut life, DAY, now);
            replaced += 1;
        }
        now = now.plus(seconds(1));
    }
    assert!(replaced <= FAILURES_MAX + 12, "{replaced}");
    // The first that it takes says that what it sells is in order.
    assert_eq!(life.state(now).breaker(), "open");
    life.taken(life.held().expect("bought"));
    assert_eq!((life.state(now).word(), life.failures(now)), ("valid", 0));
}

#[test]
fn a_token_that_was_refused_is_handed_out_again_while_no_other_is_to_be_had() {
    let mut life = life();
    assert_eq!(refuse(&mut life, HUB, BOUGHT), Outlook::Due { is_news: true });
    life.begins(BOUGHT);
    assert_eq!(life.state(BOUGHT), TokenState::Buying { usable_until: None });
    let wait = life.failed(NotMinted::Unavailable, BOUGHT, 1.0);
    assert!(life.usable(BOUGHT).is_some());
    // The next one is bought as soon as may be, and a refusal until then costs nothing more.
    assert_eq!(refuse(&mut life, HUB, BOUGHT), Outlook::Awaited);
    assert_eq!(life.changes_at(BOUGHT), Some(BOUGHT.plus(wait)));
    buy(&mut life, LIFE, BOUGHT.plus(wait));

    // Where the seller is left alone, nobody waits for it.
    open(&mut life, BOUGHT);
    assert_eq!(refuse(&mut life, READ, BOUGHT), Outlook::Due { is_news: true });
    assert!(life.usable(BOUGHT).is_some() && !life.is_due(BOUGHT));
}

#[test]
fn a_person_s_reset_lets_a_purpose_have_its_token_replaced_at_once() {
    let mut life = life();
    while let Outlook::Due { .. } = refuse(&mut life, HUB, BOUGHT) {
        buy(&mut life, LIFE, BOUGHT);
    }
    life.reset();
    assert_eq!((life.failures(BOUGHT), refuse(&mut life, HUB, BOUGHT)), (0, Outlook::Due { is_news: true }));
}

#[test]
fn a_kept_token_serves_for_what_is_left_of_its_life() {
    let mut life = none_yet();
    assert!(life.kept(secret("kept"), BOUGHT, BOUGHT.plus(LIFE), BOUGHT.plus(seconds(600))));
    assert!(life.usable(BOUGHT.plus(seconds(889))).is_some());
    assert!(life.is_due(BOUGHT.plus(seconds(780))));
}

#[test]
fn a_kept_token_whose_times_cannot_be_true_is_not_used() {
    for (bought_at, ends_at, now) in [
        // It is over.
        (BOUGHT, BOUGHT.plus(LIFE), BOUGHT.plus(LIFE)),
        (BOUGHT, BOUGHT.plus(LIFE), BOUGHT.plus(seconds(86_400))),
        // The clock was put back: nobody knows its age.
        (BOUGHT, BOUGHT.plus(LIFE), BOUGHT.minus(seconds(1))),
        // It lives longer than any, or ends before it begins.
        (BOUGHT, BOUGHT.plus(seconds(8 * 86_400)), BOUGHT),
        (BOUGHT, UnixMillis(u64::MAX), BOUGHT),
        (BOUGHT, BOUGHT.minus(LIFE), BOUGHT),
    ] {
        let mut life = none_yet();
        assert!(!life.kept(secret("kept"), bought_at, ends_at, now), "{bought_at:?} {ends_at:?} {now:?}");
        assert_eq!(life.state(now), TokenState::Absent);
    }
}

#[test]
fn a_life_is_counted_from_the_beginning_of_the_purchase() {
    let mut life = none_yet();
    life.begins(BOUGHT);
    let later = BOUGHT.plus(seconds(60));
    assert!(!life.is_late(LIFE, later));
    life.renewed(secret("slow"), LIFE, later);
    assert!(life.is_due(BOUGHT.plus(seconds(780))));
    assert!(life.usable(BOUGHT.plus(seconds(889))).is_some() && life.usable(BOUGHT.plus(seconds(890))).is_none());
    life.begins(BOUGHT);
    assert!(life.is_late(LIFE, BOUGHT.plus(seconds(890))), "it is over before it is there");
}

#[test]
fn a_person_can_have_a_token_renewed_and_the_old_one_serves_meanwhile() {
    let mut life = life();
    life.renew_now(BOUGHT);
    assert!(life.is_due(BOUGHT) && life.usable(BOUGHT).is_some());
    life.begins(BOUGHT);
    assert_eq!(life.state(BOUGHT), TokenState::Buying { usable_until: Some(BOUGHT.plus(seconds(890))) });
    assert!(!life.is_due(BOUGHT));
}

#[test]
fn a_token_that_was_renewed_or_refused_counts_as_live_until_the_next_one_is() {
    let live = |life: &TokenLife| life.live().map(|secret| secret.expose().to_vec()).collect::<Vec<_>>();
    assert!(live(&none_yet()).is_empty());
    let mut life = life();
    life.renewed(secret("second"), LIFE, BOUGHT);
    assert_eq!(live(&life), [b"second".to_vec(), b"token".to_vec()]);
    refuse(&mut life, HUB, BOUGHT);
    assert_eq!(live(&life), [b"second".to_vec(), b"token".to_vec()]);
    life.renewed(secret("third"), LIFE, BOUGHT);
    assert_eq!(live(&life), [b"third".to_vec(), b"second".to_vec()]);
}
