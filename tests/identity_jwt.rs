//! Which tokens prove a client, and which do not. Rows A5 to A8: every refusal beside the token that is taken.
//!
//! Tokens are put together here by hand, with another HMAC than the one under test; those of public keys were signed
//! by openssl, one HS256 token by Python's `hmac`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use countersign::fresh::UnixMillis;
use countersign::identity::jwt::{
    BadJwtKey, BadJwtSettings, JwtAlgorithm, JwtKey, JwtKeys, JwtSettings, KEYS_MAX, LEEWAY_MAX, Mint, NotMinted,
    TOKEN_BYTES_MAX, install_crypto, self_test,
};
use countersign::identity::{Method, NotAuthenticated, Principal, Proof, TrustedKeys, authenticate};
use countersign::names::ClientName;
use countersign::scope::{Right, Scope};
use countersign::secret::Secret;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::time::Duration;

const IAT: u64 = 1_700_000_000;
const EXP: u64 = IAT + 3600;
/// One minute after the tokens were issued.
const NOW: UnixMillis = UnixMillis((IAT + 60) * 1000);

const SECRET: &[u8] = b"a test secret of thirty-two bytes";
const OTHER_SECRET: &[u8] = b"another secret of thirty-two bytes";
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
const CLAIMS: &str = r#"{"iss":"https://issuer.test","sub":"bot-a","aud":"countersign","iat":1700000000,"exp":1700003600,"scope":"read trade"}"#;

const RS256_PEM: &str = include_str!("fixtures/keys/rs256.public.pem");
const ES256_PEM: &str = include_str!("fixtures/keys/es256.public.pem");
const EDDSA_PEM: &str = include_str!("fixtures/keys/eddsa.public.pem");
const RSA1024_PEM: &str = include_str!("fixtures/keys/rsa1024.public.pem");
const P384_PEM: &str = include_str!("fixtures/keys/p384.public.pem");

/// [`CLAIMS`] in base64url.
const CLAIMS_ENCODED: &str = "eyJpc3MiOiJodHRwczovL2lzc3Vlci50ZXN0Iiwic3ViIjoiYm90LWEiLCJhdWQiOiJjb3VudGVyc2lnbiIsImlhdCI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAzNjAwLCJzY29wZSI6InJlYWQgdHJhZGUifQ";
const HS256_BY_PYTHON: &str = "ywFwp8ngohl8CLcGbwP_x_4G2msAps1iSW7Dw1Kuugk";
const RS256_BY_OPENSSL: &str = "I-ROFcuPwbM5FApfXlHUA6dlnHydME76tQDqcVqCx45m0lsChI5dfPizm4IkLHNPuuYCa_JJDHHmuc7LQv0iNl70P68nw315Ko9xuyzg7YJGDGjMwTC8UdIQwotGctf77hPYIZPSC7fEwuWgu82sx1A7el9DF6VON8IbaqBbYOhpqSM6V9Xe_3Mq4n_wYADVCwQlm_fCZYUaT2HvU_RFUiKLdyMdApiPjYkwmNrmXYSPx-epFDWxg9hFab0qALPp65UHvVbds9FDwsvnZusnpQAU52O0BvhLzMFnY4LWaG5OrgZXIrzbbn5T7KzmCMzcKKbbQj4pFOY0zPvWLlztsw";
const ES256_BY_OPENSSL: &str = "4lpt0c_ZvXhHyqWYOwcKg3oMn9plWJMKyISolDOlb6HAtQLq015MMfAkGaFFZ7nXR5lCWC3IGbYtu2xAK4LBXw";
const EDDSA_BY_OPENSSL: &str = "onVJq01ufXQm-_IV7jU78YKxPmp7oioSS0JWYflYa9izKeeGJN-8sbBYeyPQ2ZuKOc2PoFbw_9KCpcV6e1nFDQ";

fn secret(bytes: &[u8]) -> Secret {
    Secret::new(bytes.to_vec())
}

fn key(kid: Option<&str>, algorithm: JwtAlgorithm, material: &[u8]) -> JwtKey {
    JwtKey::new(kid.map(str::to_owned), algorithm, &secret(material)).expect("is a key")
}

fn hs256() -> JwtKey {
    key(None, JwtAlgorithm::HS256, SECRET)
}

fn settings(keys: Vec<JwtKey>) -> JwtSettings {
    JwtSettings { keys, issuer: Some("https://issuer.test".to_owned()), ..JwtSettings::default() }
}

fn trusted(keys: Vec<JwtKey>) -> TrustedKeys {
    TrustedKeys::new(Some(JwtKeys::new(settings(keys)).expect("are good settings")), None)
}

/// Signs with RustCrypto's HMAC: not the code under test.
fn token_with(secret: &[u8], header: &str, claims: &str) -> String {
    let message = format!("{}.{}", BASE64URL.encode(header), BASE64URL.encode(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes any key");
    mac.update(message.as_bytes());
    format!("{message}.{}", BASE64URL.encode(mac.finalize().into_bytes()))
}

fn check(token: &str, now: UnixMillis, trusted: &TrustedKeys) -> Result<Principal, NotAuthenticated> {
    install_crypto();
    authenticate(&Proof::Jwt(secret(token.as_bytes())), now, trusted)
}

fn claims(text: &str) -> Result<Principal, NotAuthenticated> {
    check(&token_with(SECRET, HEADER, text), NOW, &trusted(vec![hs256()]))
}

fn header(text: &str) -> Result<Principal, NotAuthenticated> {
    check(&token_with(SECRET, text, CLAIMS), NOW, &trusted(vec![hs256()]))
}

/// The good claims with one piece of text replaced.
fn claims_with(old: &str, new: &str) -> Result<Principal, NotAuthenticated> {
    assert!(CLAIMS.contains(old), "{old} is not in the claims");
    claims(&CLAIMS.replace(old, new))
}

fn times(iat: u64, exp: u64, now: UnixMillis) -> Result<Principal, NotAuthenticated> {
    let claims = CLAIMS.replace("1700000000", &iat.to_string()).replace("1700003600", &exp.to_string());
    check(&token_with(SECRET, HEADER, &claims), now, &trusted(vec![hs256()]))
}

#[test]
fn a_token_of_pythons_hmac_names_its_subject_its_scope_and_its_end() {
    let token = format!("{}.{CLAIMS_ENCODED}.{HS256_BY_PYTHON}", BASE64URL.encode(HEADER));
    assert_eq!(token, token_with(SECRET, HEADER, CLAIMS), "two independent signers agree");
    let principal = check(&token, NOW, &trusted(vec![hs256()])).expect("the token is good");
    assert_eq!(principal.name().as_str(), "bot-a");
    assert_eq!(principal.method(), Method::Jwt);
    assert_eq!(principal.scope(), Some(Scope::NONE.with(Right::Read).with(Right::Trade)));
    assert_eq!(principal.ends_at(), Some(UnixMillis((EXP + 5) * 1000)), "exp and five seconds of leeway");
}

#[test]
fn tokens_that_openssl_signed_are_accepted_and_refused_when_changed() {
    for (algorithm, pem, signature) in [
        (JwtAlgorithm::RS256, RS256_PEM, RS256_BY_OPENSSL),
        (JwtAlgorithm::ES256, ES256_PEM, ES256_BY_OPENSSL),
        (JwtAlgorithm::EdDSA, EDDSA_PEM, EDDSA_BY_OPENSSL),
    ] {
        let head = BASE64URL.encode(format!(r#"{{"alg":"{}","typ":"JWT"}}"#, algorithm.word()));
        let keys = trusted(vec![key(None, algorithm, pem.as_bytes())]);
        let principal = check(&format!("{head}.{CLAIMS_ENCODED}.{signature}"), NOW, &keys).expect("the token is good");
        assert_eq!(principal.name().as_str(), "bot-a");

        let forged = BASE64URL.encode(CLAIMS.replace("bot-a", "bot-b"));
        let refused = Err(NotAuthenticated::Signature);
        assert_eq!(check(&format!("{head}.{forged}.{signature}"), NOW, &keys), refused);
        assert_eq!(check(&format!("{head}.{CLAIMS_ENCODED}.{}", &signature[4..]), NOW, &keys), refused);
        assert_eq!(check(&format!("{head}.{CLAIMS_ENCODED}."), NOW, &keys), refused);
        let zeros = BASE64URL.encode([0; 64]);
        assert_eq!(check(&format!("{head}.{CLAIMS_ENCODED}.{zeros}"), NOW, &keys), refused);
    }
}

#[test]
fn a_token_signed_with_the_public_rsa_key_as_hmac_secret_is_refused() {
    let pem = RS256_PEM.as_bytes();
    let der = x509_parser::pem::parse_x509_pem(pem).expect("is PEM").1.contents;
    for guess in [pem, &der, pem.trim_ascii_end()] {
        let forged = token_with(guess, HEADER, CLAIMS);
        let rsa = || key(None, JwtAlgorithm::RS256, pem);
        assert_eq!(check(&forged, NOW, &trusted(vec![rsa()])), Err(NotAuthenticated::Algorithm));
        assert_eq!(check(&forged, NOW, &trusted(vec![rsa(), hs256()])), Err(NotAuthenticated::Signature));
        let named = token_with(guess, r#"{"alg":"HS256","kid":"rsa"}"#, CLAIMS);
        let keys = vec![key(Some("rsa"), JwtAlgorithm::RS256, pem), key(Some("hmac"), JwtAlgorithm::HS256, SECRET)];
        assert_eq!(check(&named, NOW, &trusted(keys)), Err(NotAuthenticated::Algorithm));
    }
}

#[test]
fn an_unsigned_token_is_refused_however_none_is_spelled() {
    for none in ["none", "None", "NONE", "nOnE", ""] {
        let head = BASE64URL.encode(format!(r#"{{"alg":"{none}"}}"#));
        for signature in ["", HS256_BY_PYTHON] {
            let token = format!("{head}.{CLAIMS_ENCODED}.{signature}");
            assert_eq!(check(&token, NOW, &trusted(vec![hs256()])), Err(NotAuthenticated::Algorithm), "{none}");
        }
    }
}

#[test]
fn an_unknown_algorithm_or_two_of_them_are_refused() {
    assert!(header(r#"{"alg":"HS256"}"#).is_ok());
    for unknown in ["hs256", "HS384", "HS512", "PS256", "ES384", "XX", "HS256 "] {
        assert_eq!(header(&format!(r#"{{"alg":"{unknown}"}}"#)), Err(NotAuthenticated::Algorithm), "{unknown}");
    }
    for malformed in [
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","\u0061lg":"none"}"#,
        r#"{"alg":["HS256","none"]}"#,
        r#"{"alg":null}"#,
        r#"{"typ":"JWT"}"#,
        r#"["HS256"]"#,
        r#"{"alg":"HS256"}{}"#,
        "",
    ] {
        assert_eq!(header(malformed), Err(NotAuthenticated::Malformed), "{malformed}");
    }
}

#[test]
fn another_kind_of_token_is_refused() {
    for good in [r#"{"alg":"HS256"}"#, r#"{"alg":"HS256","typ":"JWT"}"#, r#"{"alg":"HS256","typ":"jwt"}"#] {
        assert!(header(good).is_ok(), "{good}");
    }
    for other in ["at+jwt", "logout+jwt", "dpop+jwt", "JWS", "countersign-placeholder", ""] {
        let head = format!(r#"{{"alg":"HS256","typ":"{other}"}}"#);
        assert_eq!(header(&head), Err(NotAuthenticated::Type), "{other}");
    }
    assert_eq!(header(r#"{"alg":"HS256","typ":null}"#), Err(NotAuthenticated::Malformed));
}

#[test]
fn a_header_that_brings_its_own_key_or_a_critical_extension_is_refused() {
    assert!(header(r#"{"alg":"HS256","x5t":"abc","custom":1}"#).is_ok(), "what is not critical is ignored");
    for member in [
        r#""crit":["exp"]"#,
        r#""crit":[]"#,
        r#""crit":null"#,
        r#""jku":"https://attacker.test/keys""#,
        r#""x5u":"https://attacker.test/chain""#,
        r#""jwk":{"kty":"oct","k":"AAAA"}"#,
        r#""jwk":null"#,
        r#""x5c":["AAAA"]"#,
    ] {
        let head = format!(r#"{{"alg":"HS256",{member}}}"#);
        assert_eq!(header(&head), Err(NotAuthenticated::HeaderMember), "{member}");
    }
}

#[test]
fn a_kid_only_chooses_among_configured_keys() {
    let named = |secret: &[u8], kid: &str| token_with(secret, &format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#), CLAIMS);
    let keys = trusted(vec![
        key(Some("old"), JwtAlgorithm::HS256, SECRET),
        key(Some("new"), JwtAlgorithm::HS256, OTHER_SECRET),
        key(Some("rsa"), JwtAlgorithm::RS256, RS256_PEM.as_bytes()),
    ]);
    assert!(check(&named(SECRET, "old"), NOW, &keys).is_ok());
    assert!(check(&named(OTHER_SECRET, "new"), NOW, &keys).is_ok());
    assert_eq!(check(&named(OTHER_SECRET, "old"), NOW, &keys), Err(NotAuthenticated::Signature));
    for unknown in ["older", "", "../../../dev/null", "' OR 1=1"] {
        assert_eq!(check(&named(SECRET, unknown), NOW, &keys), Err(NotAuthenticated::UnknownKey), "{unknown}");
    }
    for secret in [SECRET, OTHER_SECRET] {
        assert!(check(&token_with(secret, HEADER, CLAIMS), NOW, &keys).is_ok(), "without kid every key is tried");
    }
    let unnamed = token_with(b"no configured secret has these bytes", HEADER, CLAIMS);
    assert_eq!(check(&unnamed, NOW, &keys), Err(NotAuthenticated::Signature));
    assert!(check(&named(SECRET, "any"), NOW, &trusted(vec![hs256()])).is_ok(), "no key has a kid to compare");
    assert_eq!(header(r#"{"alg":"HS256","kid":7}"#), Err(NotAuthenticated::Malformed));
}

#[test]
fn a_token_ends_at_exp_and_leeway_to_the_millisecond() {
    let end = (EXP + 5) * 1000;
    assert!(times(IAT, EXP, UnixMillis(end - 1)).is_ok());
    assert_eq!(times(IAT, EXP, UnixMillis(end)), Err(NotAuthenticated::Expired));
    assert_eq!(times(IAT, EXP, UnixMillis(u64::MAX)), Err(NotAuthenticated::Expired));
}

#[test]
fn a_token_from_the_future_is_refused_beyond_the_leeway() {
    let now = UnixMillis(IAT * 1000);
    assert!(times(IAT + 5, EXP, now).is_ok());
    assert_eq!(times(IAT + 6, EXP, now), Err(NotAuthenticated::NotYetValid));
    let not_before = |nbf: &str| claims_with("\"scope\"", &format!("\"nbf\":{nbf},\"scope\""));
    assert!(not_before(&(IAT + 65).to_string()).is_ok());
    assert_eq!(not_before(&(IAT + 66).to_string()), Err(NotAuthenticated::NotYetValid));
    for malformed in ["null", "\"1700000000\"", "1.5", "-1", "9007199254740993"] {
        assert_eq!(not_before(malformed), Err(NotAuthenticated::Malformed), "{malformed}");
    }
}

#[test]
fn a_token_that_lives_too_long_or_ends_before_it_was_issued_is_refused() {
    const DAY: u64 = 24 * 60 * 60;
    assert!(times(IAT, IAT + DAY, NOW).is_ok());
    assert_eq!(times(IAT, IAT + DAY + 1, NOW), Err(NotAuthenticated::Lifetime));
    assert_eq!(times(0, EXP, NOW), Err(NotAuthenticated::Lifetime));
    assert!(times(IAT, IAT + 1, UnixMillis(IAT * 1000)).is_ok());
    for exp in [IAT, IAT - 1] {
        assert_eq!(times(IAT, exp, UnixMillis(IAT * 1000)), Err(NotAuthenticated::Lifetime), "{exp}");
    }
}

#[test]
fn a_time_that_is_not_a_whole_number_of_seconds_is_refused() {
    for (name, good) in [("exp", "1700003600"), ("iat", "1700000000")] {
        for bad in ["\"1700003600\"", "1700003600.0", "1.7e9", "1e18", "-1", "null", "true", "[]", "9007199254740993"] {
            let refusal = claims_with(&format!("\"{name}\":{good}"), &format!("\"{name}\":{bad}"));
            assert_eq!(refusal, Err(NotAuthenticated::Malformed), "{name} {bad}");
        }
        let refusal = claims_with(&format!("\"{name}\":{good},"), "");
        assert_eq!(refusal, Err(NotAuthenticated::Malformed), "no {name}");
    }
    assert_eq!(times(IAT, (1 << 53) - 1, NOW), Err(NotAuthenticated::Lifetime), "read, and judged");
    assert_eq!(times(IAT, 1 << 53, NOW), Err(NotAuthenticated::Malformed));
}

#[test]
fn a_token_for_another_audience_or_for_none_is_refused() {
    let audience = |value: &str| claims_with(r#""aud":"countersign""#, &format!(r#""aud":{value}"#));
    assert!(audience(r#"["other","countersign"]"#).is_ok());
    for other in [r#""other""#, r#""Countersign""#, r#""countersign ""#, r#""""#, "[]", r#"["other"]"#] {
        assert_eq!(audience(other), Err(NotAuthenticated::Audience), "{other}");
    }
    for malformed in ["7", "null", "{}", "[7]", r#"["countersign",7]"#] {
        assert_eq!(audience(malformed), Err(NotAuthenticated::Malformed), "{malformed}");
    }
    assert_eq!(claims_with(r#""aud":"countersign","#, ""), Err(NotAuthenticated::Audience));
}

#[test]
fn a_token_of_another_issuer_is_refused_where_one_is_configured() {
    for other in ["https://issuer.test/", "https://attacker.test", ""] {
        assert_eq!(claims_with("https://issuer.test", other), Err(NotAuthenticated::Issuer), "{other}");
    }
    assert_eq!(claims_with(r#""iss":"https://issuer.test","#, ""), Err(NotAuthenticated::Issuer));
    assert_eq!(claims_with(r#""https://issuer.test""#, "7"), Err(NotAuthenticated::Malformed));

    let any_issuer = JwtSettings { issuer: None, ..settings(vec![hs256()]) };
    let keys = TrustedKeys::new(Some(JwtKeys::new(any_issuer).expect("are good settings")), None);
    let without = CLAIMS.replace(r#""iss":"https://issuer.test","#, "");
    assert!(check(&token_with(SECRET, HEADER, &without), NOW, &keys).is_ok());
}

#[test]
fn a_subject_that_is_no_client_name_is_refused() {
    let longest = "x".repeat(256);
    for good in ["spiffe://desk.test/bot/a", "bot@desk", longest.as_str()] {
        assert_eq!(claims_with("bot-a", good).map(|who| who.name().as_str().to_owned()).as_deref(), Ok(good));
    }
    let too_long = "x".repeat(257);
    for bad in ["", " ", "bot a", "bot\\u0000a", "bot\\na", "b\u{f6}t", "*", "anonymous", too_long.as_str()] {
        assert_eq!(claims_with("bot-a", bad), Err(NotAuthenticated::Subject), "{bad}");
    }
    assert_eq!(claims_with(r#""sub":"bot-a","#, ""), Err(NotAuthenticated::Subject));
    for malformed in ["7", "null", r#"["bot-a"]"#] {
        assert_eq!(claims_with(r#""bot-a""#, malformed), Err(NotAuthenticated::Malformed), "{malformed}");
    }
}

#[test]
fn a_claim_named_twice_or_claims_that_are_no_object_are_refused() {
    for twice in [r#""sub":"bot-b""#, r#""exp":1700003601"#, r#""aud":"x""#, r#""scope":"admin""#, r#""s\u0075b":"b""#]
    {
        let text = CLAIMS.replacen('{', &format!("{{{twice},"), 1);
        assert_eq!(claims(&text), Err(NotAuthenticated::Malformed), "{twice}");
    }
    let array = r#"[1700003600,1700000000,1,"https://issuer.test","countersign","bot-a","read"]"#;
    for other in [array, "null", "", &format!("{CLAIMS}{{}}"), &format!("[{CLAIMS}]")] {
        assert_eq!(claims(other), Err(NotAuthenticated::Malformed), "{other}");
    }
}

#[test]
fn a_scope_is_words_in_a_string_or_in_an_array_and_never_an_unknown_word() {
    let scope = |value: &str| claims_with(r#""read trade""#, value).map(|who| who.scope());
    let read_trade = Some(Scope::NONE.with(Right::Read).with(Right::Trade));
    for good in [r#""trade read""#, r#""read,trade""#, r#""read, trade""#, r#"["read","trade"]"#] {
        assert_eq!(scope(good), Ok(read_trade), "{good}");
    }
    for nothing in [r#""""#, "[]"] {
        assert_eq!(scope(nothing), Ok(Some(Scope::NONE)), "{nothing}");
    }
    let unlimited = claims_with(r#","scope":"read trade""#, "").expect("a scope is not required");
    assert_eq!(unlimited.scope(), None);
    for unknown in [r#""read withdraw""#, r#""Read""#, r#""*""#, r#""read\ttrade""#, r#"["read trade"]"#, r#"[""]"#] {
        assert_eq!(scope(unknown), Err(NotAuthenticated::Scope), "{unknown}");
    }
    for malformed in ["7", "null", "{}", "[7]"] {
        assert_eq!(scope(malformed), Err(NotAuthenticated::Malformed), "{malformed}");
    }
}

#[test]
fn text_that_is_not_three_parts_of_base64url_is_refused() {
    let good = token_with(SECRET, HEADER, CLAIMS);
    let keys = trusted(vec![hs256()]);
    assert!(check(&good, NOW, &keys).is_ok());
    let (signed, signature) = good.rsplit_once('.').expect("has three parts");
    let padded = format!("{}=.{signature}", signed);
    for (bad, why) in [
        (String::new(), NotAuthenticated::Malformed),
        ("a.b".to_owned(), NotAuthenticated::Malformed),
        (format!(" {good}"), NotAuthenticated::Malformed),
        (format!("{good}="), NotAuthenticated::Signature),
        (format!("{good}\n"), NotAuthenticated::Signature),
        (format!("{good}.{signature}"), NotAuthenticated::Signature),
        (padded, NotAuthenticated::Signature),
        (format!("{{\"payload\":\"{good}\"}}"), NotAuthenticated::Malformed),
    ] {
        assert_eq!(check(&bad, NOW, &keys), Err(why), "{bad}");
    }
    let not_utf8 = Proof::Jwt(secret(b"\xff.\xff.\xff"));
    assert_eq!(authenticate(&not_utf8, NOW, &keys), Err(NotAuthenticated::Malformed));
    let four_parts = format!("{}.x", BASE64URL.encode(HEADER));
    let message = format!("{four_parts}.{CLAIMS_ENCODED}");
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET).expect("HMAC takes any key");
    mac.update(message.as_bytes());
    let signed = format!("{message}.{}", BASE64URL.encode(mac.finalize().into_bytes()));
    assert_eq!(check(&signed, NOW, &keys), Err(NotAuthenticated::Malformed), "signed, but of four parts");
}

#[test]
fn a_token_over_eight_kibibytes_is_refused_unread() {
    let with_filler = |length: usize| {
        let filler = format!(r#"{{"filler":"{}","#, "x".repeat(length));
        token_with(SECRET, HEADER, &CLAIMS.replacen('{', &filler, 1))
    };
    let keys = trusted(vec![hs256()]);
    let longest = (5900..6100).rev().map(with_filler).find(|token| token.len() <= TOKEN_BYTES_MAX);
    let longest = longest.expect("some filler fits");
    assert!(longest.len() > TOKEN_BYTES_MAX - 4 && check(&longest, NOW, &keys).is_ok());
    assert_eq!(check(&with_filler(6100), NOW, &keys), Err(NotAuthenticated::TooLong));
}

#[test]
fn refusals_and_proofs_print_nothing_of_the_token() {
    let token = token_with(OTHER_SECRET, HEADER, &CLAIMS.replace("bot-a", "canary"));
    let refusal = check(&token, NOW, &trusted(vec![hs256()])).expect_err("another key signed it");
    let printed = format!("{refusal} {refusal:?} {:?} {:?}", Proof::Jwt(secret(token.as_bytes())), hs256());
    let signature = token.rsplit_once('.').expect("has three parts").1;
    for canary in ["canary", signature, "a test secret", "97, 32, 116"] {
        assert!(!printed.contains(canary), "{printed}");
    }
}

#[test]
fn weak_and_wrong_keys_are_refused_beside_good_ones() {
    let read = |algorithm, material: &[u8]| JwtKey::new(None, algorithm, &secret(material)).map(|_| ());
    assert_eq!(read(JwtAlgorithm::HS256, &[7; 32]), Ok(()));
    assert_eq!(read(JwtAlgorithm::HS256, &[7; 31]), Err(BadJwtKey::TooShort));
    assert_eq!(read(JwtAlgorithm::HS256, b""), Err(BadJwtKey::TooShort));
    assert_eq!(read(JwtAlgorithm::HS256, RS256_PEM.as_bytes()), Err(BadJwtKey::PemAsSecret));
    assert_eq!(read(JwtAlgorithm::RS256, RSA1024_PEM.as_bytes()), Err(BadJwtKey::Weak));
    assert_eq!(read(JwtAlgorithm::ES256, P384_PEM.as_bytes()), Err(BadJwtKey::OtherAlgorithm));

    let pems = [(JwtAlgorithm::RS256, RS256_PEM), (JwtAlgorithm::ES256, ES256_PEM), (JwtAlgorithm::EdDSA, EDDSA_PEM)];
    for (algorithm, _) in pems {
        for (of, pem) in pems {
            let expected = if algorithm == of { Ok(()) } else { Err(BadJwtKey::OtherAlgorithm) };
            assert_eq!(read(algorithm, pem.as_bytes()), expected, "{algorithm:?} with a key for {of:?}");
        }
        assert_eq!(read(algorithm, SECRET), Err(BadJwtKey::NotPem));
        assert_eq!(read(algorithm, b""), Err(BadJwtKey::NotPem));
        let two = format!("{RS256_PEM}{ES256_PEM}");
        assert_eq!(read(algorithm, two.as_bytes()), Err(BadJwtKey::NotPem));
    }
    let private = rcgen::KeyPair::generate().expect("a key pair can be made");
    assert_eq!(read(JwtAlgorithm::ES256, private.serialize_pem().as_bytes()), Err(BadJwtKey::Private));
    assert_eq!(read(JwtAlgorithm::ES256, private.public_key_pem().as_bytes()), Ok(()));
}

#[test]
fn settings_that_would_take_too_much_are_refused() {
    let refusal = |change: fn(&mut JwtSettings)| {
        let mut changed = settings(vec![hs256()]);
        change(&mut changed);
        JwtKeys::new(changed).map(|_| ())
    };
    assert_eq!(refusal(|_| {}), Ok(()));
    assert_eq!(refusal(|settings| settings.keys.clear()), Err(BadJwtSettings::NoKeys));
    assert_eq!(refusal(|settings| settings.keys.extend((1..KEYS_MAX).map(|_| hs256()))), Ok(()));
    let too_many = refusal(|settings| settings.keys.extend((0..KEYS_MAX).map(|_| hs256())));
    assert_eq!(too_many, Err(BadJwtSettings::TooManyKeys));
    let twice = refusal(|settings| {
        settings.keys = [SECRET, OTHER_SECRET].map(|secret| key(Some("a"), JwtAlgorithm::HS256, secret)).into();
    });
    assert_eq!(twice, Err(BadJwtSettings::KidTwice));
    assert_eq!(refusal(|settings| settings.audience.clear()), Err(BadJwtSettings::Empty));
    assert_eq!(refusal(|settings| settings.issuer = Some(String::new())), Err(BadJwtSettings::Empty));
    assert_eq!(refusal(|settings| settings.lifetime_max = Duration::ZERO), Err(BadJwtSettings::Lifetime));
    assert_eq!(refusal(|settings| settings.leeway = LEEWAY_MAX), Ok(()));
    assert_eq!(refusal(|settings| settings.leeway = LEEWAY_MAX * 2), Err(BadJwtSettings::Leeway));
}

#[test]
fn a_minted_token_says_what_was_asked_and_is_accepted() {
    let keys = JwtKeys::new(settings(vec![
        key(Some("rsa"), JwtAlgorithm::RS256, RS256_PEM.as_bytes()),
        key(Some("ours"), JwtAlgorithm::HS256, SECRET),
    ]))
    .expect("are good settings");
    let subject = ClientName::parse("bot-a").expect("is a name");
    let scope = Scope::NONE.with(Right::Trade).with(Right::Read);
    let wanted = Mint { subject: &subject, scope: Some(scope), lifetime: Duration::from_secs(900), random: [0xab; 16] };
    let token = keys.mint(&wanted, NOW).expect("there is an HS256 key");

    let expected = format!(
        r#"{{"iss":"https://issuer.test","sub":"bot-a","aud":"countersign","iat":{},"exp":{},"jti":"{}","scope":"read trade"}}"#,
        IAT + 60,
        IAT + 960,
        "ab".repeat(16)
    );
    let by_hand = token_with(SECRET, r#"{"alg":"HS256","typ":"JWT","kid":"ours"}"#, &expected);
    assert_eq!(token.expose(), by_hand.as_bytes());

    let unlimited = keys.mint(&Mint { scope: None, ..wanted }, NOW).expect("there is an HS256 key");
    let trusted = TrustedKeys::new(Some(keys), None);
    let principal = authenticate(&Proof::Jwt(token), NOW, &trusted).expect("we accept our own");
    assert_eq!((principal.name(), principal.scope()), (&subject, Some(scope)));
    let principal = authenticate(&Proof::Jwt(unlimited), NOW, &trusted).expect("we accept our own");
    assert_eq!(principal.scope(), None);
}

#[test]
fn a_token_that_would_be_refused_is_not_minted() {
    let bot = ClientName::parse("bot-a").expect("is a name");
    let anonymous = ClientName::parse("anonymous").expect("is a name");
    let lasting = |lifetime| Mint { subject: &bot, scope: None, lifetime, random: [0; 16] };
    let hour = Duration::from_secs(3600);
    let keys = JwtKeys::new(settings(vec![hs256()])).expect("are good settings");
    assert!(keys.mint(&lasting(24 * hour), NOW).is_ok());
    for lifetime in [Duration::ZERO, Duration::from_millis(999), 25 * hour] {
        assert_eq!(keys.mint(&lasting(lifetime), NOW), Err(NotMinted::Lifetime), "{lifetime:?}");
    }
    assert_eq!(keys.mint(&Mint { subject: &anonymous, ..lasting(hour) }, NOW), Err(NotMinted::Subject));
    let public_only = JwtKeys::new(settings(vec![key(None, JwtAlgorithm::EdDSA, EDDSA_PEM.as_bytes())]));
    let public_only = public_only.expect("are good settings");
    assert_eq!(public_only.mint(&lasting(hour), NOW), Err(NotMinted::NoSharedSecret));
}

#[test]
fn the_self_test_passes_before_and_after_the_crypto_is_installed_again() {
    install_crypto();
    assert_eq!(self_test(), Ok(()));
    install_crypto();
    assert_eq!(self_test(), Ok(()));
}
