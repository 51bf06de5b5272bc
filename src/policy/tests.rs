use super::*;
use crate::scope::Act;
use crate::venue::{self, Manner};

fn route(venue: &str) -> Route {
    let venue = venue::by_name(venue).expect("in the table");
    let endpoint = venue.endpoints().iter().find(|endpoint| endpoint.name == "private").expect("an endpoint");
    Route { venue, endpoint, manner: Manner::Path }
}

fn account(name: &str) -> AccountName {
    AccountName::parse(name).expect("a name")
}

fn grant(client: &str, reach: Option<&str>, scope: &[Right]) -> Grant {
    Grant {
        client: ClientPattern::parse(client).expect("a pattern"),
        account: reach.map(account),
        venues: if reach.is_none() { vec!["kraken"] } else { Vec::new() },
        scope: scope.iter().copied().collect(),
        max_sessions: 2,
        sub_accounts: None,
    }
}

fn policy(grants: Vec<Grant>) -> Policy {
    let accounts = [("kraken_a", "kraken"), ("kraken_b", "kraken"), ("bitfinex_a", "bitfinex")];
    Policy::new(grants, accounts.into_iter().map(|(name, venue)| (account(name), venue)).collect())
}

fn who(name: &str) -> Principal {
    Principal::danger_unproved_for_development(ClientName::parse(name).expect("a name"))
}

#[test]
fn an_empty_policy_permits_nobody() {
    let policy = policy(Vec::new());
    for who in [who("bot-a"), Principal::anonymous()] {
        assert_eq!(policy.authorize(&who, &route("kraken"), None).expect_err("closed"), Denied::NoGrant);
    }
}

#[test]
fn a_grant_opens_one_account_to_one_client_and_nothing_else() {
    let policy = policy(vec![grant("bot-a", Some("kraken_a"), &[Right::Read])]);
    let permit = policy.authorize(&who("bot-a"), &route("kraken"), None).expect("granted");
    assert_eq!(permit.account(), Some(&account("kraken_a")));
    assert_eq!(permit.lacks(Acts::one(Act::Read)), None);
    assert_eq!(permit.lacks(Acts::one(Act::Public)), None);
    assert_eq!(permit.lacks(Acts::one(Act::Cancel)), Some(Right::Trade));
    assert!(policy.authorize(&who("bot-b"), &route("kraken"), None).is_err());
    assert!(policy.authorize(&who("bot-a"), &route("bitfinex"), None).is_err());
    let other = policy.authorize(&who("bot-a"), &route("kraken"), Some(&account("kraken_b")));
    assert_eq!(other.expect_err("not granted"), Denied::NotThatAccount);
}

#[test]
fn moving_money_and_managing_keys_are_granted_by_name_alone() {
    let policy = policy(vec![grant("bot-a", Some("kraken_a"), &[Right::Read, Right::Trade])]);
    let permit = policy.authorize(&who("bot-a"), &route("kraken"), None).expect("granted");
    assert_eq!(permit.lacks(Acts::one(Act::Transfer)), Some(Right::Transfer));
    assert_eq!(permit.lacks(Acts::one(Act::Admin)), Some(Right::Admin));
}

#[test]
fn two_accounts_at_one_venue_have_to_be_told_apart() {
    let policy = policy(vec![
        grant("bot-a", Some("kraken_a"), &[Right::Read]),
        grant("bot-a", Some("kraken_b"), &[Right::Trade]),
    ]);
    let denied = policy.authorize(&who("bot-a"), &route("kraken"), None).expect_err("which one?");
    assert_eq!(denied, Denied::WhichAccount(vec![account("kraken_a"), account("kraken_b")]));
    let permit = policy.authorize(&who("bot-a"), &route("kraken"), Some(&account("kraken_b"))).expect("granted");
    assert_eq!(permit.scope().to_string(), "public,trade", "the other account's rights are not this one's");
}

#[test]
fn a_client_has_as_many_seats_as_its_grant_and_gets_them_back() {
    let policy = policy(vec![grant("bot-a", Some("kraken_a"), &[Right::Read])]);
    let sit = || policy.authorize(&who("bot-a"), &route("kraken"), None);
    let (first, _second) = (sit().expect("one"), sit().expect("two"));
    assert_eq!(sit().expect_err("three"), Denied::TooManySessions);
    drop(first);
    assert!(sit().is_ok());
}

#[test]
fn a_request_takes_no_seat_and_needs_the_same_grant_as_a_session() {
    let policy = policy(vec![grant("bot-a", Some("kraken_a"), &[Right::Read])]);
    let sit = || policy.authorize(&who("bot-a"), &route("kraken"), None);
    let _seated = (sit().expect("one"), sit().expect("two"));
    let permit = policy.permit_request(&who("bot-a"), &route("kraken"), None).expect("needs no seat");
    assert_eq!(permit.account(), Some(&account("kraken_a")));
    assert_eq!(permit.lacks(Acts::one(Act::Cancel)), Some(Right::Trade));
    let denied = |who: &Principal, wish: Option<&AccountName>| policy.permit_request(who, &route("kraken"), wish);
    assert_eq!(denied(&who("bot-b"), None).expect_err("not granted"), Denied::NoGrant);
    assert_eq!(denied(&Principal::anonymous(), None).expect_err("not granted"), Denied::NoGrant);
    assert_eq!(denied(&who("bot-a"), Some(&account("kraken_b"))).expect_err("other"), Denied::NotThatAccount);
    drop(permit);
    assert_eq!(sit().expect_err("both seats are still taken"), Denied::TooManySessions);
}

#[test]
fn a_star_stands_for_one_segment_and_never_for_anonymous() {
    let pattern = |text| ClientPattern::parse(text).expect("a pattern");
    let fits = |text, name| pattern(text).matches(&ClientName::parse(name).expect("a name"), Method::Certificate);
    assert!(fits("spiffe://desk/bot/*", "spiffe://desk/bot/a"));
    assert!(!fits("spiffe://desk/bot/*", "spiffe://desk/bot/a/b"));
    assert!(!fits("spiffe://desk/bot/*", "spiffe://desk/bot/"));
    assert!(!fits("spiffe://desk/*", "spiffe://desk/bot/a"));
    assert!(fits("cert:bot-a", "bot-a") && !fits("jwt:bot-a", "bot-a"));
    assert!(!pattern("*").matches(Principal::anonymous().name(), Method::Anonymous));
    for bad in ["", "bot-*", "oidc:bot-a", "jwt:", "a b"] {
        assert!(ClientPattern::parse(bad).is_err(), "{bad} was taken");
    }
}

#[test]
fn a_pattern_for_local_keys_names_one_client() {
    let bad = |text| ClientPattern::parse(text).expect_err("is no pattern");
    assert_eq!(bad("key:bot/*"), BadPattern::KeyStar);
    assert_eq!(bad("key:*"), BadPattern::KeyStar);
    for text in ["key:", "key:anonymous", "key:a\"b", &format!("key:{}", "x".repeat(257))] {
        assert_eq!(bad(text), BadPattern::Name, "{text}");
    }
    let client = |text| ClientPattern::parse(text).expect("a pattern").local_key_client();
    assert_eq!(client("key:bot-a"), ClientName::parse("bot-a").ok());
    assert_eq!(client("bot-a"), ClientName::parse("bot-a").ok());
    for other in ["jwt:bot-a", "cert:bot-a", "spiffe://desk/*", "anonymous"] {
        assert_eq!(client(other), None, "{other}");
    }
}

#[test]
fn anonymous_gets_public_data_where_it_is_named_and_nothing_else() {
    let policy = policy(vec![grant("anonymous", None, &[Right::Public, Right::Trade])]);
    assert!(policy.admits_anonymous(&route("kraken")) && !policy.admits_anonymous(&route("bitfinex")));
    let permit = policy.authorize(&Principal::anonymous(), &route("kraken"), None).expect("granted");
    assert_eq!((permit.account(), permit.scope()), (None, Scope::PUBLIC));
    assert!(policy.authorize(&who("bot-a"), &route("kraken"), None).is_err());
}

#[test]
fn a_grant_that_is_taken_away_or_narrowed_no_longer_covers_a_permit() {
    let before = policy(vec![grant("bot-a", Some("kraken_a"), &[Right::Read, Right::Trade])]);
    let permit = before.authorize(&who("bot-a"), &route("kraken"), None).expect("granted");
    assert!(before.still_grants(&permit, &route("kraken")));
    let narrowed = before.with_grants(vec![grant("bot-a", Some("kraken_a"), &[Right::Read])]);
    assert!(!narrowed.still_grants(&permit, &route("kraken")));
    assert!(!before.with_grants(Vec::new()).still_grants(&permit, &route("kraken")));
}

fn narrow(client: &str, scope: &[Right], sub_accounts: &[u64]) -> Grant {
    Grant { sub_accounts: Some(sub_accounts.to_vec()), ..grant(client, Some("kraken_a"), scope) }
}

#[test]
fn a_grant_that_names_trading_accounts_opens_those_and_no_others() {
    let permit = |grants| policy(grants).authorize(&who("bot-a"), &route("kraken"), None).expect("granted");
    let narrowed = permit(vec![narrow("bot-a", &[Right::Trade], &[1, 2])]);
    assert_eq!(narrowed.sub_accounts(), Some(&[1, 2][..]));
    assert_eq!((narrowed.lacks_sub_account(&[1, 2]), narrowed.lacks_sub_account(&[])), (None, None));
    assert_eq!(narrowed.lacks_sub_account(&[1, 3, 4]), Some(3));
    let open = permit(vec![grant("bot-a", Some("kraken_a"), &[Right::Trade])]);
    assert_eq!((open.sub_accounts(), open.lacks_sub_account(&[1, 3])), (None, None));
}

#[test]
fn what_one_grant_narrows_another_does_not_open_again() {
    let permit = |grants| policy(grants).authorize(&who("bot-a"), &route("kraken"), None).expect("granted");
    let trade = narrow("bot-a", &[Right::Trade], &[1, 2]);
    let with_all = permit(vec![trade.clone(), grant("*", Some("kraken_a"), &[Right::Read])]);
    assert_eq!(with_all.sub_accounts(), Some(&[1, 2][..]));
    let with_some = permit(vec![trade.clone(), narrow("*", &[Right::Read], &[2, 3])]);
    assert_eq!(with_some.sub_accounts(), Some(&[2][..]));
    let with_none = permit(vec![trade, narrow("*", &[Right::Read], &[3])]);
    assert_eq!(with_none.lacks_sub_account(&[1]), Some(1));
    assert_eq!(with_none.lacks_sub_account(&[3]), Some(3));
}

#[test]
fn a_permit_ends_when_a_trading_account_is_taken_from_its_grant() {
    let route = route("kraken");
    let before = policy(vec![narrow("bot-a", &[Right::Trade], &[1, 2])]);
    let permit = before.authorize(&who("bot-a"), &route, None).expect("granted");
    for (sub_accounts, still) in [(&[1, 2][..], true), (&[3, 2, 1], true), (&[1], false), (&[3], false)] {
        let after = before.with_grants(vec![narrow("bot-a", &[Right::Trade], sub_accounts)]);
        assert_eq!(after.still_grants(&permit, &route), still, "{sub_accounts:?}");
    }
    let all = policy(vec![grant("bot-a", Some("kraken_a"), &[Right::Trade])]);
    assert!(all.still_grants(&permit, &route));
    let mut unlimited = all.authorize(&who("bot-a"), &route, None).expect("granted");
    assert!(!before.still_grants(&unlimited, &route));
    assert!(before.renew(&mut unlimited, &who("bot-a"), &route).is_err(), "its session was told of no limit");
}
