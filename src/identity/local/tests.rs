//! Keys that are issued and shown again: by whom, where, when, how often.

use super::placeholder::{Claims, Seal};
use super::*;
use crate::credential::{SecretFormat, Signer};
use crate::identity::{Proof, TrustedKeys, authenticate};
use crate::scope::{Right, Scope};
use crate::venue::{self, SignatureScheme};
use proptest::prelude::*;

/// 2026-09-21T13:46:40Z.
const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MASTER: &str = "canary: a master key of the tests, long enough";

fn client(name: &str) -> ClientName {
    ClientName::parse(name).expect("a name")
}

fn account(name: &str) -> AccountName {
    AccountName::parse(name).expect("a name")
}

fn venue(name: &str) -> &'static dyn Venue {
    venue::by_name(name).expect("in the table")
}

fn key_for(who: &str, what: &str, at: &str) -> LocalKeyFor {
    LocalKeyFor { client: client(who), account: account(what), venue: venue(at) }
}

/// Two bots with a key each at Kraken; one of them has one at Bitfinex too.
fn grants() -> LocalGrants {
    let keys = vec![
        key_for("bot-a", "kraken_main", "kraken"),
        key_for("bot-a", "bitfinex_main", "bitfinex"),
        key_for("bot-b", "kraken_main", "kraken"),
    ];
    LocalGrants { keys, generations: BTreeMap::new() }
}

fn with_generation(who: &str, generation: u32) -> LocalGrants {
    LocalGrants { generations: BTreeMap::from([(client(who), generation)]), ..grants() }
}

fn master() -> Secret {
    Secret::from(MASTER.to_owned())
}

fn local() -> LocalKeys {
    LocalKeys::new(&master(), grants(), DAY, NOW).expect("long enough")
}

fn trusted(local: LocalKeys) -> TrustedKeys {
    TrustedKeys::new(None, Some(local))
}

/// A login as a bot makes it with a key pair.
fn signed(pair: &LocalKey, format: SecretFormat, nonce: u64) -> SignedLogin {
    let signer = Signer::new(&Secret::from(pair.api_key.clone()), &pair.secret, format).expect("a key pair");
    let message = format!("AUTH{nonce}").into_bytes();
    let signature = signer.hmac_sha512(&[&message]).to_vec();
    SignedLogin { api_key: pair.api_key.clone(), nonce, scheme: SignatureScheme::HmacSha512, message, signature }
}

fn login(local: &LocalKeys, whose: &LocalKeyFor, nonce: u64) -> SignedLogin {
    let pair = local.issue(whose).expect("the venue has keys");
    signed(&pair, whose.venue.secret_format().expect("the venue has keys"), nonce)
}

fn show(trusted: &TrustedKeys, venue: &'static str, login: SignedLogin) -> Result<Principal, NotAuthenticated> {
    authenticate(&Proof::LocalKey { venue, login }, NOW, trusted)
}

fn redeem(local: &LocalKeys, venue: &str, token: &Secret) -> Result<Principal, NotAuthenticated> {
    local.redeem(venue, token, NOW)
}

fn jwt_principal(ends_at: u64, scope: Option<Scope>) -> Principal {
    Principal {
        name: client("bot-a"),
        method: Method::Jwt,
        ends_at: Some(UnixMillis(ends_at)),
        scope,
        account: None,
        generation: None,
    }
}

fn bought(local: &LocalKeys, who: &Principal) -> Placeholder {
    local.issue_placeholder(who, &account("kraken_main"), venue("kraken"), [7; 16], NOW).expect("is issued")
}

// ---- keys -----------------------------------------------------------------------------------------------------------

#[test]
fn a_bot_that_signs_with_its_local_key_is_that_bot_for_that_account() {
    let trusted = trusted(local());
    for (what, at) in [("kraken_main", "kraken"), ("bitfinex_main", "bitfinex")] {
        let whose = key_for("bot-a", what, at);
        let login = login(trusted.local().expect("is there"), &whose, NOW.0);
        let who = show(&trusted, at, login).expect("its own key");
        assert_eq!((who.name().as_str(), who.method()), ("bot-a", Method::LocalKey));
        assert_eq!(who.account(), Some(&account(what)));
        assert_eq!((who.ends_at(), who.scope(), who.generation()), (None, None, Some(1)));
    }
}

#[test]
fn a_signature_of_another_secret_or_message_is_refused() {
    let trusted = trusted(local());
    let local = trusted.local().expect("is there");
    let whose = key_for("bot-a", "kraken_main", "kraken");
    let other = local.issue(&key_for("bot-b", "kraken_main", "kraken")).expect("a pair");
    let own = local.issue(&whose).expect("a pair");
    let mixed = LocalKey { api_key: own.api_key, secret: other.secret };
    let forged = signed(&mixed, SecretFormat::Base64, NOW.0);
    assert_eq!(show(&trusted, "kraken", forged), Err(NotAuthenticated::Signature));
    let good = login(local, &whose, NOW.0);
    for change in [
        SignedLogin { message: b"AUTH1".to_vec(), ..good.clone() },
        SignedLogin { signature: Vec::new(), ..good.clone() },
        SignedLogin { signature: good.signature[..63].to_vec(), ..good.clone() },
        SignedLogin { scheme: SignatureScheme::HmacSha384, ..good.clone() },
    ] {
        assert_eq!(show(&trusted, "kraken", change), Err(NotAuthenticated::Signature));
    }
    assert!(show(&trusted, "kraken", good).is_ok(), "what was refused left nothing behind");
}

#[test]
fn a_key_that_is_not_ours_is_an_alarm_that_does_not_show_it() {
    let trusted = trusted(local());
    let foreign =
        LocalKey { api_key: "canary-of-the-exchange".to_owned(), secret: Secret::from("c2VjcmV0".to_owned()) };
    let refused = show(&trusted, "kraken", signed(&foreign, SecretFormat::Base64, NOW.0)).expect_err("not ours");
    assert_eq!(refused, NotAuthenticated::ForeignKey(KeyHash::of("canary-of-the-exchange")));
    assert_eq!(refused.reason(), "foreign_key");
    assert!(!format!("{refused} {refused:?}").contains("canary"));
    // printf %s canary-of-the-exchange | sha256sum
    assert!(refused.to_string().contains("55efae57"), "{refused}");
}

#[test]
fn a_local_key_of_another_venue_is_an_alarm_and_no_login() {
    let trusted = trusted(local());
    let login = login(trusted.local().expect("is there"), &key_for("bot-a", "bitfinex_main", "bitfinex"), NOW.0);
    let refused = show(&trusted, "kraken", login).expect_err("elsewhere");
    assert!(matches!(refused, NotAuthenticated::KeyOfOtherVenue(_)) && refused.reason() == "foreign_key");
}

#[test]
fn without_local_keys_nobody_proves_anything_by_them() {
    let login = login(&local(), &key_for("bot-a", "kraken_main", "kraken"), NOW.0);
    let none = TrustedKeys::default();
    assert_eq!(show(&none, "kraken", login), Err(NotAuthenticated::NoKeys));
    let placeholder = Proof::Placeholder { venue: "kraken", token: Secret::from("x".to_owned()) };
    assert_eq!(authenticate(&placeholder, NOW, &none), Err(NotAuthenticated::NoKeys));
}

#[test]
fn a_signature_counts_once_and_still_after_a_reload() {
    let trusted = trusted(local());
    let local = trusted.local().expect("is there");
    let once = login(local, &key_for("bot-a", "kraken_main", "kraken"), NOW.0);
    assert!(show(&trusted, "kraken", once.clone()).is_ok());
    assert_eq!(show(&trusted, "kraken", once.clone()), Err(NotAuthenticated::Replayed));
    local.retable(grants(), NOW);
    assert_eq!(show(&trusted, "kraken", once), Err(NotAuthenticated::Replayed));
    assert_eq!(NotAuthenticated::Replayed.reason(), "replayed");
}

#[test]
fn what_was_signed_well_before_the_start_is_refused() {
    let trusted = trusted(local());
    let whose = key_for("bot-a", "kraken_main", "kraken");
    let old = login(trusted.local().expect("is there"), &whose, NOW.0 - 61_000);
    assert_eq!(show(&trusted, "kraken", old), Err(NotAuthenticated::NonceTooOld));
}

#[test]
fn a_key_whose_grant_is_gone_is_no_key_and_comes_back_with_it() {
    let trusted = trusted(local());
    let local = trusted.local().expect("is there");
    let whose = key_for("bot-a", "kraken_main", "kraken");
    let pair = local.issue(&whose).expect("a pair");
    local.retable(LocalGrants::default(), NOW);
    let login = signed(&pair, SecretFormat::Base64, NOW.0);
    let refused = show(&trusted, "kraken", login.clone()).expect_err("no grant");
    assert_eq!(refused, NotAuthenticated::ForeignKey(KeyHash::of(&pair.api_key)));
    local.retable(grants(), NOW);
    assert!(show(&trusted, "kraken", login).is_ok());
}

#[test]
fn a_key_that_comes_back_after_a_while_takes_nothing_from_before() {
    let trusted = trusted(local());
    let local = trusted.local().expect("is there");
    let whose = key_for("bot-a", "kraken_main", "kraken");
    let seen = login(local, &whose, NOW.0);
    assert!(show(&trusted, "kraken", seen.clone()).is_ok());
    local.retable(LocalGrants::default(), NOW);
    local.retable(grants(), NOW.plus(DAY));
    assert_eq!(show(&trusted, "kraken", seen), Err(NotAuthenticated::NonceTooOld), "its memory is empty");
    assert!(show(&trusted, "kraken", login(local, &whose, NOW.plus(DAY).0)).is_ok());
}

#[test]
fn a_higher_generation_makes_the_keys_of_that_client_worthless_and_no_others() {
    let trusted = trusted(local());
    let local = trusted.local().expect("is there");
    let (of_a, of_b) = (key_for("bot-a", "kraken_main", "kraken"), key_for("bot-b", "kraken_main", "kraken"));
    let (old_a, old_b) = (login(local, &of_a, NOW.0), login(local, &of_b, NOW.0));
    local.retable(with_generation("bot-a", 2), NOW);
    assert_eq!(show(&trusted, "kraken", old_a), Err(NotAuthenticated::Generation), "and no alarm");
    assert!(show(&trusted, "kraken", old_b).is_ok());
    let new_a = show(&trusted, "kraken", login(local, &of_a, NOW.0 + 1)).expect("the new key");
    assert_eq!(new_a.generation(), Some(2));
}

#[test]
fn issued_keys_look_like_the_venue_s_and_are_the_same_in_the_next_process() {
    let is_alphanumeric = |text: &[u8]| text.iter().all(u8::is_ascii_alphanumeric);
    let pair = local().issue(&key_for("bot-a", "bitfinex_main", "bitfinex")).expect("a pair");
    assert!(pair.api_key.len() == 43 && is_alphanumeric(pair.api_key.as_bytes()));
    assert!(pair.secret.len() == 43 && is_alphanumeric(pair.secret.expose()));
    let whose = key_for("bot-a", "kraken_main", "kraken");
    let pair = local().issue(&whose).expect("a pair");
    assert_eq!((pair.api_key.len(), pair.secret.len()), (56, 88));
    assert!(pair.secret.expose().ends_with(b"=="));
    let next = LocalKeys::new(&master(), LocalGrants::default(), DAY, NOW.plus(DAY)).expect("long enough");
    let again = next.issue(&whose).expect("a pair");
    assert!(again.api_key == pair.api_key && again.secret == pair.secret);
    assert!(local().issue(&key_for("bot-a", "feed", "plain")).is_none(), "nobody signs there");
}

#[test]
fn every_venue_s_shape_is_one_that_its_format_reads() {
    for (venue, _) in venue::VENUES {
        let whose = LocalKeyFor { client: client("bot-a"), account: account("main"), venue: *venue };
        let Some(pair) = local().issue(&whose) else { continue };
        let format = venue.secret_format().expect("who has keys has a format");
        assert!(Signer::new(&Secret::from(pair.api_key), &pair.secret, format).is_ok(), "{}", venue.name());
    }
}

#[test]
fn a_short_master_key_is_refused() {
    let made = |bytes| LocalKeys::new(&Secret::new(vec![7; bytes]), grants(), DAY, NOW);
    assert!(made(32).is_ok());
    assert_eq!(made(31).expect_err("too short"), MasterTooShort);
}

// ---- placeholders ---------------------------------------------------------------------------------------------------

#[test]
fn a_placeholder_is_its_buyer_until_the_buyer_s_proof_ends() {
    let local = local();
    let read: Scope = [Right::Read].into_iter().collect();
    let placeholder = bought(&local, &jwt_principal(NOW.0 + 900_000, Some(read)));
    assert_eq!(placeholder.ends_at, UnixMillis(NOW.0 + 900_000), "no longer than the token that bought it");
    let who = redeem(&local, "kraken", &placeholder.text).expect("is good");
    assert_eq!((who.name().as_str(), who.method()), ("bot-a", Method::Jwt));
    assert_eq!((who.scope(), who.ends_at()), (Some(read), Some(UnixMillis(NOW.0 + 900_000))));
    assert_eq!(who.account(), Some(&account("kraken_main")));
    let over = local.redeem("kraken", &placeholder.text, UnixMillis(NOW.0 + 900_000));
    assert_eq!(over, Err(NotAuthenticated::Expired));
}

#[test]
fn a_placeholder_of_a_proof_without_end_lives_as_configured_and_its_session_longer() {
    let local = local();
    let login = login(&local, &key_for("bot-a", "kraken_main", "kraken"), NOW.0);
    let buyer = local.verify("kraken", &login, NOW).expect("its own key");
    let placeholder = bought(&local, &buyer);
    assert_eq!(placeholder.ends_at, NOW.plus(DAY));
    let who = local.redeem("kraken", &placeholder.text, UnixMillis(NOW.plus(DAY).0 - 1)).expect("is good");
    assert_eq!((who.method(), who.ends_at()), (Method::LocalKey, None));
    assert_eq!(local.redeem("kraken", &placeholder.text, NOW.plus(DAY)), Err(NotAuthenticated::Expired));
}

#[test]
fn a_placeholder_survives_a_restart_and_no_change_of_master_or_generation() {
    let placeholder = bought(&local(), &jwt_principal(u64::MAX / 2, None)).text;
    let next = LocalKeys::new(&master(), LocalGrants::default(), DAY, NOW.plus(DAY)).expect("long enough");
    assert!(redeem(&next, "kraken", &placeholder).is_ok());
    next.retable(with_generation("bot-a", 2), NOW);
    assert_eq!(redeem(&next, "kraken", &placeholder), Err(NotAuthenticated::Generation));
    let other = Secret::from("another master key of the tests, long enough".to_owned());
    let other = LocalKeys::new(&other, grants(), DAY, NOW).expect("long enough");
    assert_eq!(redeem(&other, "kraken", &placeholder), Err(NotAuthenticated::Placeholder));
}

#[test]
fn a_placeholder_for_another_venue_is_refused() {
    let local = local();
    let placeholder = bought(&local, &jwt_principal(u64::MAX / 2, None)).text;
    assert_eq!(redeem(&local, "bitfinex", &placeholder), Err(NotAuthenticated::PlaceholderOfOtherVenue));
}

#[test]
fn who_came_in_unproved_is_believed_by_that_process_alone() {
    let unproved = Principal::danger_unproved_for_development(client("unproved"));
    let local = local();
    let placeholder = bought(&local, &unproved).text;
    assert_eq!(redeem(&local, "kraken", &placeholder).expect("is good").method(), Method::NoAuth);
    let next = LocalKeys::new(&master(), grants(), DAY, NOW.plus(DAY)).expect("long enough");
    assert_eq!(redeem(&next, "kraken", &placeholder), Err(NotAuthenticated::Generation));
}

#[test]
fn nobody_and_whoever_is_bound_elsewhere_get_no_placeholder() {
    let local = local();
    let issue = |who: &Principal, what: &str| {
        local.issue_placeholder(who, &account(what), venue("kraken"), [0; 16], NOW).map(drop)
    };
    assert_eq!(issue(&Principal::anonymous(), "kraken_main"), Err(NotIssued::Anonymous));
    let login = login(&local, &key_for("bot-a", "kraken_main", "kraken"), NOW.0);
    let bound = local.verify("kraken", &login, NOW).expect("its own key");
    assert_eq!(issue(&bound, "kraken_other"), Err(NotIssued::OtherAccount));
    assert_eq!(issue(&bound, "kraken_main"), Ok(()));
}

#[test]
fn a_placeholder_looks_like_a_token_and_never_like_a_login_of_ours() {
    let local = local();
    let (one, other) = (bought(&local, &jwt_principal(u64::MAX / 2, None)), jwt_principal(u64::MAX / 2, None));
    let other = local.issue_placeholder(&other, &account("kraken_main"), venue("kraken"), [8; 16], NOW);
    assert_ne!(one.text, other.expect("is issued").text);
    let text = one.text.expose();
    assert!(text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(byte)));
    assert!(text.len() < 256, "{}", text.len());
    crate::identity::jwt::install_crypto();
    let secret = Secret::from(MASTER.to_owned());
    let key = crate::identity::jwt::JwtKey::new(None, crate::identity::jwt::JwtAlgorithm::HS256, &secret);
    let settings = crate::identity::jwt::JwtSettings { keys: vec![key.expect("a key")], ..Default::default() };
    let keys = crate::identity::jwt::JwtKeys::new(settings).expect("good settings");
    let as_jwt = authenticate(&Proof::Jwt(one.text), NOW, &TrustedKeys::new(Some(keys), Some(local)));
    assert_eq!(as_jwt, Err(NotAuthenticated::Malformed));
}

#[test]
fn the_longest_names_fit() {
    let longest = client(&"x".repeat(256));
    let who = Principal { name: longest.clone(), ..jwt_principal(u64::MAX / 2, None) };
    let local = local();
    let placeholder =
        local.issue_placeholder(&who, &account(&"y".repeat(256)), venue("bitfinex"), [0; 16], NOW).expect("is issued");
    assert!(placeholder.text.len() <= PLACEHOLDER_BYTES_MAX, "{}", placeholder.text.len());
    assert_eq!(redeem(&local, "bitfinex", &placeholder.text).expect("is good").name(), &longest);
}

#[test]
fn what_is_no_placeholder_is_refused_whatever_its_length() {
    let local = local();
    let good = bought(&local, &jwt_principal(u64::MAX / 2, None)).text;
    let text = String::from_utf8(good.expose().to_vec()).expect("is ASCII");
    let long = "A".repeat(1 << 20);
    for bad in ["", "A", "AAAA", &text[1..], &text[..text.len() - 1], &format!("{text}="), &format!(" {text}"), &long] {
        let refused = redeem(&local, "kraken", &Secret::from(bad.to_owned()));
        assert_eq!(refused, Err(NotAuthenticated::Placeholder), "{} bytes", bad.len());
    }
}

#[test]
fn no_placeholder_makes_anybody_anonymous() {
    let seal = Seal::new(&master());
    let claims = Claims {
        client: client("anonymous"),
        account: account("kraken_main"),
        venue: "kraken".to_owned(),
        method: Method::Jwt,
        scope: None,
        proof_ends_at: None,
        generation: 1,
        issued_at: NOW,
        ends_at: NOW.plus(DAY),
        id: [0; 16],
    };
    let sealed = seal.close(&claims);
    assert_eq!(seal.open(&sealed).expect("is sealed"), claims);
    assert_eq!(redeem(&local(), "kraken", &sealed), Err(NotAuthenticated::Placeholder), "nobody is anonymous by proof");
}

// ---- owners, runs, canaries -----------------------------------------------------------------------------------------

#[test]
fn the_owner_of_a_shown_credential_is_told_and_a_dummy_has_none() {
    let local = local();
    let owner = |shown: ClientLogin, venue: &str| local.owner(&shown, venue, NOW);
    let of_b = login(&local, &key_for("bot-b", "kraken_main", "kraken"), NOW.0);
    let expected = Owner { client: client("bot-b"), account: account("kraken_main") };
    assert_eq!(owner(ClientLogin::Signed(of_b.clone()), "kraken"), Some(expected.clone()));
    assert_eq!(owner(ClientLogin::Signed(of_b.clone()), "kraken"), Some(expected), "looking is no use");
    assert_eq!(owner(ClientLogin::Signed(of_b.clone()), "bitfinex"), None);
    let dummy = SignedLogin { api_key: "dummy".to_owned(), ..of_b };
    assert_eq!(owner(ClientLogin::Signed(dummy), "kraken"), None);

    let placeholder = bought(&local, &jwt_principal(NOW.0 + 1000, None)).text;
    let expected = Owner { client: client("bot-a"), account: account("kraken_main") };
    assert_eq!(owner(ClientLogin::Token(placeholder.clone()), "kraken"), Some(expected));
    assert_eq!(owner(ClientLogin::Token(placeholder.clone()), "bitfinex"), None);
    assert_eq!(owner(ClientLogin::Token(Secret::from("dummy".to_owned())), "kraken"), None);
    assert_eq!(local.owner(&ClientLogin::Token(placeholder), "kraken", NOW.plus(DAY)), None);
}

#[test]
fn a_secret_of_one_run_is_known_again_and_nothing_else_is() {
    let local = local();
    let secret = local.run_secret([9; 16]);
    assert!(secret.expose().iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte)));
    assert!(local.is_run_secret(secret.expose()));
    assert_ne!(secret, local.run_secret([8; 16]));
    let mut changed = secret.expose().to_vec();
    changed[0] ^= 1;
    let placeholder = bought(&local, &jwt_principal(u64::MAX / 2, None)).text;
    for bad in [&b""[..], b"AAAA", &changed, &secret.expose()[1..], placeholder.expose()] {
        assert!(!local.is_run_secret(bad));
    }
    let other = Secret::from("another master key of the tests, long enough".to_owned());
    let other = LocalKeys::new(&other, grants(), DAY, NOW).expect("long enough");
    assert!(!other.is_run_secret(secret.expose()));
}

fn show_bare(
    local: LocalKeys,
    venue: &'static str,
    api_key: &str,
    secret: &Secret,
) -> Result<Principal, NotAuthenticated> {
    let shown = ClientLogin::Key { api_key: api_key.to_owned(), secret: secret.clone() };
    authenticate(&Proof::shown_at(venue, shown), NOW, &trusted(local))
}

#[test]
fn a_key_that_is_shown_as_it_is_proves_its_bot_as_often_as_it_is_shown() {
    let whose = key_for("bot-a", "bitfinex_main", "bitfinex");
    let pair = local().issue(&whose).expect("a pair");
    let trusted = trusted(local());
    for _ in 0..3 {
        let shown = ClientLogin::Key { api_key: pair.api_key.clone(), secret: pair.secret.clone() };
        let who = authenticate(&Proof::shown_at("bitfinex", shown), NOW, &trusted).expect("its own key");
        assert_eq!((who.name(), who.method()), (&client("bot-a"), Method::LocalKey));
        assert_eq!((who.account(), who.generation()), (Some(&account("bitfinex_main")), Some(1)));
    }
}

#[test]
fn a_key_that_is_shown_with_anything_else_proves_nothing() {
    let pair = local().issue(&key_for("bot-a", "bitfinex_main", "bitfinex")).expect("a pair");
    let secret = |text: &str| Secret::from(text.to_owned());
    for bad in [secret(""), secret("x"), Secret::new(pair.secret.expose()[1..].to_vec())] {
        let refused = show_bare(local(), "bitfinex", &pair.api_key, &bad).expect_err("another secret");
        assert_eq!(refused, NotAuthenticated::Signature);
    }
    let foreign = show_bare(local(), "bitfinex", "a key of the exchange", &pair.secret).expect_err("not ours");
    assert_eq!(
        (foreign, foreign.reason()),
        (NotAuthenticated::ForeignKey(KeyHash::of("a key of the exchange")), "foreign_key")
    );
    let elsewhere = show_bare(local(), "kraken", &pair.api_key, &pair.secret).expect_err("not there");
    assert_eq!(elsewhere, NotAuthenticated::KeyOfOtherVenue(KeyHash::of(&pair.api_key)));
    let raised = local();
    raised.retable(with_generation("bot-a", 2), NOW);
    let stolen = show_bare(raised, "bitfinex", &pair.api_key, &pair.secret).expect_err("made worthless");
    assert_eq!(stolen, NotAuthenticated::Generation);
    let none = show_bare(local(), "bitfinex", "", &secret("")).expect_err("nothing");
    assert_eq!(none.reason(), "foreign_key");
}

#[test]
fn whose_a_bare_key_is_is_told_by_its_public_half() {
    let local = local();
    let pair = local.issue(&key_for("bot-a", "bitfinex_main", "bitfinex")).expect("a pair");
    let shown = ClientLogin::Key { api_key: pair.api_key, secret: Secret::from("a dummy".to_owned()) };
    let owner = Owner { client: client("bot-a"), account: account("bitfinex_main") };
    assert_eq!(local.owner(&shown, "bitfinex", NOW), Some(owner));
    assert_eq!(local.owner(&shown, "kraken", NOW), None);
}

#[test]
fn a_placeholder_that_was_given_up_is_refused_and_no_other_one_is() {
    let local = local();
    let who = jwt_principal(u64::MAX / 2, None);
    let buy =
        |id| local.issue_placeholder(&who, &account("kraken_main"), venue("kraken"), [id; 16], NOW).expect("sold").text;
    let (one, other) = (buy(1), buy(2));
    assert!(local.log_out("bitfinex", &one, NOW).is_err(), "not its venue");
    assert!(redeem(&local, "kraken", &one).is_ok());
    let owner = local.log_out("kraken", &one, NOW).expect("is good");
    assert_eq!(owner.account, account("kraken_main"));
    assert_eq!(redeem(&local, "kraken", &one), Err(NotAuthenticated::LoggedOut));
    assert_eq!(local.owner(&ClientLogin::Token(one.clone()), "kraken", NOW), None);
    assert_eq!(local.log_out("kraken", &one, NOW), Err(NotAuthenticated::LoggedOut));
    assert!(redeem(&local, "kraken", &other).is_ok());
    local.retable(grants(), NOW);
    assert_eq!(redeem(&local, "kraken", &one), Err(NotAuthenticated::LoggedOut), "a reload forgets none");
}

#[test]
fn nothing_that_is_printed_shows_a_secret() {
    let local = local();
    let pair = local.issue(&key_for("bot-a", "kraken_main", "kraken")).expect("a pair");
    let placeholder = bought(&local, &jwt_principal(u64::MAX / 2, None));
    let login = login(&local, &key_for("bot-a", "kraken_main", "kraken"), NOW.0);
    let proof = Proof::shown_at("kraken", ClientLogin::Signed(login.clone()));
    let printed = format!("{local:?} {pair:?} {placeholder:?} {login:?} {proof:?} {:?}", local.run_secret([0; 16]));
    let text = |secret: &Secret| String::from_utf8(secret.expose().to_vec()).expect("is ASCII");
    for secret in ["canary".to_owned(), text(&pair.secret), text(&placeholder.text), text(&local.run_secret([0; 16]))] {
        assert!(!printed.contains(&secret), "{printed}");
    }
    let trusted = format!("{:?}", trusted(local));
    assert!(trusted.contains("LocalKeys(3 keys)") && !trusted.contains("canary"), "{trusted}");
}

proptest! {
    #[test]
    fn whoever_gets_a_key_proves_itself_by_it(name in "[!#-)+-\\[\\]-~]{1,256}", what in "[a-z][a-z0-9_]{0,40}") {
        prop_assume!(name != "anonymous");
        for at in ["kraken", "bitfinex"] {
            let whose = key_for(&name, &what, at);
            let grants = LocalGrants { keys: vec![whose.clone()], generations: BTreeMap::new() };
            let local = LocalKeys::new(&master(), grants, DAY, NOW).expect("long enough");
            let who = local.verify(at, &login(&local, &whose, 1), NOW).expect("its own key");
            prop_assert_eq!(who.name(), &whose.client);
            prop_assert_eq!(who.account(), Some(&whose.account));
        }
    }

    #[test]
    fn two_pairs_are_never_alike(one in "[a-c]{1,2}", other in "[a-c]{1,2}", what in "[a-c]{1,2}", where_else in "[a-c]{1,2}") {
        prop_assume!((&one, &what) != (&other, &where_else));
        let pair = |who: &str, what: &str| local().issue(&key_for(who, what, "kraken")).expect("a pair");
        let (one, other) = (pair(&one, &what), pair(&other, &where_else));
        prop_assert!(one.api_key != other.api_key && one.secret != other.secret);
    }

    #[test]
    fn a_placeholder_with_any_bit_flipped_is_refused(at in 0_usize..100_000, bit in 0_u32..8, id in any::<[u8; 16]>()) {
        let local = local();
        let who = jwt_principal(u64::MAX / 2, None);
        let placeholder = local.issue_placeholder(&who, &account("kraken_main"), venue("kraken"), id, NOW);
        let mut text = placeholder.expect("is issued").text.expose().to_vec();
        let at = at % text.len();
        text[at] ^= 1 << bit;
        prop_assert!(local.redeem("kraken", &Secret::new(text), NOW).is_err());
    }
}
