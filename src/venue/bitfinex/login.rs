//! The `auth` event of Bitfinex: what a client may ask of it, how it is signed, and what its answer may tell.
//!
//! Built from a whitelist in both directions: nothing that a client wrote into its own `auth` is copied but
//! `filter`, `dms`, `calc` and `subId`, each in the form that the exchange documents.

use crate::credential::Signer;
use crate::fresh::Nonce;
use crate::message::Message;
use crate::scope::{Right, Scope};
use crate::secret::Secret;
use crate::venue::wire::json::{self, Kind, Object, Value};
use crate::venue::{ClientLogin, SignatureScheme, SignedLogin};

/// The client's own signature in its `auth` event. `None`: there is none that could be verified; a token of the
/// exchange's own is none either.
///
/// What is signed is `AUTH` and the nonce, which bfx-api-node-core and bitfinex-api-node write twice.
pub(super) fn shown(auth: Object<'_>) -> Option<ClientLogin> {
    let text = |name: &str| auth.get(name).and_then(Value::plain_str);
    let nonce = auth.get("authNonce")?;
    let digits = match nonce.kind() {
        Kind::Number => std::str::from_utf8(nonce.raw()).ok()?,
        Kind::String | Kind::Object | Kind::Array | Kind::True | Kind::False | Kind::Null => nonce.plain_str()?,
    };
    let nonce = digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let payload = text("authPayload")?;
    let signed = payload.strip_prefix("AUTH")?;
    let is_payload = signed == digits || signed.strip_prefix(digits) == Some(digits);
    let api_key = text("apiKey").filter(|api_key| !api_key.is_empty() && is_payload)?;
    Some(ClientLogin::Signed(SignedLogin {
        api_key: api_key.to_owned(),
        nonce,
        scheme: SignatureScheme::HmacSha384,
        message: payload.as_bytes().to_vec(),
        signature: hex::decode(text("authSig")?).ok()?,
    }))
}

/// What a client asked of its login.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wish {
    filter: Vec<String>,
    /// Cancels the orders when the socket closes.
    dms: bool,
    calc: bool,
    sub_id: Option<String>,
}

/// Filters in one login at most; the exchange documents nine kinds, some by symbol.
const FILTERS_MAX: usize = 64;

/// Data that somebody without the right `read` gets nevertheless: the answers to what they asked.
const ANSWERS_ALONE: &str = "notify";

impl Wish {
    /// Takes over what may be taken over of a client's `auth` event.
    pub(super) fn read(auth: Object<'_>) -> Self {
        let mut wish = Self {
            dms: auth.get("dms").and_then(Value::as_u64) == Some(4),
            calc: auth.get("calc").and_then(Value::as_u64) == Some(1),
            ..Self::default()
        };
        if let Some(filters) = auth.get("filter").and_then(Value::as_array) {
            wish.filter = filters
                .iter()
                .filter_map(Value::plain_str)
                .filter(|filter| is_filter(filter))
                .take(FILTERS_MAX)
                .map(str::to_owned)
                .collect();
        }
        wish.sub_id = auth
            .get("subId")
            .filter(|id| id.as_u64().is_some() || id.plain_str().is_some_and(|text| text.len() <= 64))
            .and_then(|id| std::str::from_utf8(id.raw()).ok())
            .map(str::to_owned);
        wish
    }

    /// What of the wish a client with this scope may have.
    pub(super) fn within(mut self, scope: Scope) -> Self {
        // Cancelling every order on a disconnect is an act of trading.
        self.dms &= scope.holds(Right::Trade);
        if !scope.holds(Right::Read) {
            self.filter = vec![ANSWERS_ALONE.to_owned()];
        }
        self
    }

    /// True if the login differs from one without wishes.
    pub(super) fn is_special(&self) -> bool {
        *self != Self::default()
    }

    /// The signed event, and the signature in it.
    pub(super) fn sign(&self, signer: &Signer, nonce: Nonce) -> (Message, Secret) {
        let payload = format!("AUTH{nonce}");
        let signature = hex::encode(signer.hmac_sha384(&[payload.as_bytes()]));
        let mut event = String::with_capacity(384);
        event.push_str("{\"event\":\"auth\",\"apiKey\":");
        json::string(&mut event, signer.expose_api_key());
        event.push_str(",\"authSig\":");
        json::string(&mut event, &signature);
        event.push_str(&format!(",\"authNonce\":{nonce},\"authPayload\":\"{payload}\""));
        if self.dms {
            event.push_str(",\"dms\":4");
        }
        if self.calc {
            event.push_str(",\"calc\":1");
        }
        if !self.filter.is_empty() {
            event.push_str(",\"filter\":[");
            for (index, filter) in self.filter.iter().enumerate() {
                if index > 0 {
                    event.push(',');
                }
                json::string(&mut event, filter);
            }
            event.push(']');
        }
        if let Some(sub_id) = &self.sub_id {
            event.push_str(",\"subId\":");
            event.push_str(sub_id);
        }
        event.push('}');
        (Message::text(event), Secret::from(signature))
    }

    /// The event that tells a client of the success: the exchange's own, with what the client may know.
    pub(super) fn success(&self, answer: Object<'_>, scope: Scope) -> Message {
        let mut event = String::from("{\"event\":\"auth\",\"status\":\"OK\",\"chanId\":0");
        for name in ["userId", "auth_id"] {
            let known = answer.get(name).filter(|value| matches!(value.kind(), Kind::Number | Kind::String));
            if let Some(raw) = known.and_then(|value| std::str::from_utf8(value.raw()).ok()) {
                event.push_str(&format!(",\"{name}\":{raw}"));
            }
        }
        if let Some(sub_id) = &self.sub_id {
            event.push_str(",\"subId\":");
            event.push_str(sub_id);
        }
        if let Some(caps) = answer.get("caps").and_then(Value::as_object) {
            event.push_str(",\"caps\":{");
            for (index, (name, cap)) in caps.members().enumerate() {
                let holds = |what: &str, right: Right| -> u8 {
                    let is_given = cap.as_object().and_then(|cap| cap.get(what)).and_then(Value::as_u64);
                    u8::from(is_given == Some(1) && scope.holds(right))
                };
                if index > 0 {
                    event.push(',');
                }
                json::string(&mut event, name);
                let (read, write) = (holds("read", Right::Read), holds("write", write_right(name)));
                event.push_str(&format!(":{{\"read\":{read},\"write\":{write}}}"));
            }
            event.push('}');
        }
        event.push('}');
        Message::text(event)
    }
}

/// The right behind the write side of a capability.
fn write_right(capability: &str) -> Right {
    match capability {
        "orders" | "funding" | "positions" => Right::Trade,
        "wallets" | "withdraw" | "ui_withdraw" => Right::Transfer,
        _ => Right::Admin,
    }
}

/// `trading`, `trading-tBTCUSD`, `wallet-exchange-BTC` and their like.
fn is_filter(filter: &str) -> bool {
    let kind = filter.split('-').next().unwrap_or_default();
    matches!(kind, "trading" | "funding" | "wallet" | "algo" | "balance" | "notify")
        && filter.len() <= 64
        && filter.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-:_".contains(&byte))
}

/// The event that tells a client, in the exchange's words, why its login failed.
pub(super) fn failure(answer: Object<'_>) -> Message {
    let mut event = String::from("{\"event\":\"auth\",\"status\":\"FAILED\",\"chanId\":0");
    for (name, kind) in [("code", Kind::Number), ("msg", Kind::String)] {
        let known = answer.get(name).filter(|value| value.kind() == kind);
        if let Some(raw) = known.and_then(|value| std::str::from_utf8(value.raw()).ok()) {
            event.push_str(&format!(",\"{name}\":{raw}"));
        }
    }
    event.push('}');
    Message::text(event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::SecretFormat;

    fn signer() -> Signer {
        let text = |text: &str| Secret::from(text.to_owned());
        Signer::new(&text("dummykey"), &text("dummysecret"), SecretFormat::Text).expect("a text secret")
    }

    fn wish(text: &str) -> Wish {
        let document = json::read(text.as_bytes()).expect("JSON");
        Wish::read(document.root().as_object().expect("an object"))
    }

    fn sent(wish: &Wish) -> String {
        let (event, _) = wish.sign(&signer(), Nonce(1_616_492_376_594_000));
        String::from_utf8(event.into_payload().to_vec()).expect("text")
    }

    // Computed with an independent program: HMAC-SHA384 of "AUTH1616492376594000" with "dummysecret".
    #[test]
    fn the_signature_is_that_of_an_independent_program() {
        assert_eq!(
            sent(&Wish::default()),
            concat!(
                r#"{"event":"auth","apiKey":"dummykey","authSig":"9c6589eb8dfa0a9a7eaba3ac7bca280639ac2bc384ed48fcbca706e"#,
                r#"1971bdc1d1d6a8c798a7466ff0941d59c9b36c701","authNonce":1616492376594000,"#,
                r#""authPayload":"AUTH1616492376594000"}"#
            )
        );
    }

    fn shown_in(text: &str) -> Option<SignedLogin> {
        let document = json::read(text.as_bytes()).expect("JSON");
        match shown(document.root().as_object().expect("an object")) {
            Some(ClientLogin::Signed(login)) => Some(login),
            Some(ClientLogin::Token(_) | ClientLogin::Key { .. }) => panic!("no token is a proof here"),
            None => None,
        }
    }

    // Computed with an independent program, for one nonce and for the nonce twice.
    const ONCE: &str =
        "9c6589eb8dfa0a9a7eaba3ac7bca280639ac2bc384ed48fcbca706e1971bdc1d1d6a8c798a7466ff0941d59c9b36c701";
    const TWICE: &str =
        "06357b903a0c3ee99403a305100657503792645ee9b67a3eb7aa99e414b39a9cd54b020bc3c89ff719d8318af2789861";

    #[test]
    fn a_client_s_own_login_is_shown_as_it_signed_it() {
        for (nonce, payload, signature) in [
            ("1616492376594000", "AUTH1616492376594000", ONCE),
            ("\"1616492376594000\"", "AUTH1616492376594000", ONCE),
            ("\"1616492376594000\"", "AUTH16164923765940001616492376594000", TWICE),
        ] {
            let login = shown_in(&format!(
                r#"{{"event":"auth","apiKey":"dummykey","authSig":"{signature}","authNonce":{nonce},"authPayload":"{payload}"}}"#
            ))
            .expect("a login");
            assert!(login.is_by(&signer()), "{payload}");
            assert_eq!((login.api_key.as_str(), login.nonce), ("dummykey", 1_616_492_376_594_000));
        }
    }

    #[test]
    fn half_a_login_or_one_over_another_nonce_is_none() {
        let good = format!(r#"{{"apiKey":"k","authSig":"{ONCE}","authNonce":16,"authPayload":"AUTH16"}}"#);
        assert!(shown_in(&good).is_some_and(|login| !login.is_by(&signer())), "signed something else");
        for (from, to) in [
            ("AUTH16", "AUTH17"),
            ("AUTH16", "AUTH161616"),
            ("AUTH16", "auth16"),
            ("AUTH16", "AUTH"),
            (":16", ":-16"),
            (":16", ":16.0"),
            (":16", ":\"+16\""),
            (":16", ":null"),
            (":16", ":18446744073709551616"),
            ("\"k\"", "\"\""),
            ("\"k\"", "7"),
            ("apiKey", "apikey"),
            (ONCE, "no hex"),
            ("authSig", "sig"),
        ] {
            let bad = good.replace(from, to);
            assert!(bad != good && shown_in(&bad).is_none(), "{bad} was taken");
        }
        assert!(shown_in(r#"{"event":"auth","token":"t"}"#).is_none());
    }

    #[test]
    fn nothing_of_the_client_s_own_login_is_copied_but_its_wishes() {
        let wish = wish(
            r#"{"event":"auth","apiKey":"local","apiSecret":"canary","authSig":"x","authNonce":1,"token":"t",
                "dms":4,"calc":1,"filter":["trading-tBTCUSD","wallet","evil\u0022"],"subId":7,"extra":true}"#,
        );
        let sent = sent(&wish.within(Scope::NONE.with(Right::Read).with(Right::Trade)));
        assert!(sent.ends_with(r#","dms":4,"calc":1,"filter":["trading-tBTCUSD","wallet"],"subId":7}"#), "{sent}");
        for leak in ["canary", "local", "extra", "\"token\"", "evil"] {
            assert!(!sent.contains(leak), "{leak} in {sent}");
        }
    }

    #[test]
    fn a_client_that_may_not_trade_arms_no_dead_man_switch() {
        let wish = wish(r#"{"event":"auth","dms":4}"#);
        assert!(sent(&wish.clone().within(Scope::NONE.with(Right::Trade).with(Right::Read))).contains("dms"));
        assert!(!sent(&wish.within(Scope::NONE.with(Right::Read))).contains("dms"));
    }

    #[test]
    fn a_client_that_may_not_read_is_sent_answers_alone() {
        let wish = wish(r#"{"event":"auth","filter":["wallet"]}"#).within(Scope::NONE.with(Right::Trade));
        assert!(sent(&wish).contains(r#""filter":["notify"]"#));
    }

    #[test]
    fn capabilities_are_narrowed_to_the_client_s_scope() {
        let answer = json::read(
            br#"{"event":"auth","status":"OK","userId":9,"auth_id":"a-b","secret":"s",
                "caps":{"orders":{"read":1,"write":1},"withdraw":{"read":1,"write":1},"account":{"read":1,"write":0}}}"#,
        )
        .expect("JSON");
        let scope = Scope::NONE.with(Right::Read);
        let told = Wish::default().success(answer.root().as_object().expect("an object"), scope);
        assert_eq!(
            &told.payload()[..],
            &br#"{"event":"auth","status":"OK","chanId":0,"userId":9,"auth_id":"a-b","caps":{"orders":{"read":1,"write":0},"withdraw":{"read":1,"write":0},"account":{"read":1,"write":0}}}"#[..]
        );
    }
}
