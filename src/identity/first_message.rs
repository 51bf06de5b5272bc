//! The first message of a plain WebSocket client: the login that comes after the upgrade.
//!
//! Not a check of the token, and not the answer: this only says what the message is.

use super::json;
use crate::message::{Kind, Message};
use crate::names::AccountName;
use crate::secret::Secret;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Longest first message in bytes. A longer one closes the socket unread.
pub const FIRST_MESSAGE_BYTES_MAX: usize = 8 * 1024;

/// What a client's first message is. Each kind has its own answer, so each is told apart here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstMessage {
    /// `{"type":"auth","token":"…"}`, or `"authenticate"`.
    Login {
        /// The token as it came, unverified.
        token: Secret,
        /// The account that the client asks for.
        account: Option<AccountName>,
    },
    /// `{"type":"ping"}`: to be answered, and no login.
    Ping,
    /// A login whose `token` is missing, empty or not a text.
    TokenMissing,
    /// Anything else: binary, not one JSON object, a member named twice, another type, an account that cannot exist.
    NotALogin,
    /// More than [`FIRST_MESSAGE_BYTES_MAX`].
    TooLong,
}

/// Members of other names are ignored: client libraries add their own.
#[derive(serde::Deserialize)]
struct Login {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    token: Token,
    #[serde(default)]
    account: Option<String>,
}

/// A token that is a text and not empty; or nothing.
#[derive(Default)]
struct Token(Option<Secret>);

/// Reads the first message. The message itself keeps its copy of the token: drop it at once.
pub fn read_first_message(message: &Message) -> FirstMessage {
    if message.len() > FIRST_MESSAGE_BYTES_MAX {
        return FirstMessage::TooLong;
    }
    if message.kind() != Kind::Text {
        return FirstMessage::NotALogin;
    }
    let Some(login) = json::object::<Login>(message.payload()) else {
        return FirstMessage::NotALogin;
    };
    match login.kind.as_str() {
        "auth" | "authenticate" => {}
        "ping" => return FirstMessage::Ping,
        _ => return FirstMessage::NotALogin,
    }
    let Some(token) = login.token.0 else {
        return FirstMessage::TokenMissing;
    };
    match login.account.as_deref().map(AccountName::parse).transpose() {
        Ok(account) => FirstMessage::Login { token, account },
        Err(_) => FirstMessage::NotALogin,
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(member: D) -> Result<Self, D::Error> {
        member.deserialize_any(TokenVisitor)
    }
}

/// Takes any JSON value. By hand, because serde's untagged enums copy the text into a buffer that nobody wipes.
struct TokenVisitor;

impl<'de> Visitor<'de> for TokenVisitor {
    type Value = Token;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Token, E> {
        Ok(Token((!text.is_empty()).then(|| Secret::new(text.as_bytes().to_vec()))))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Token, E> {
        Ok(Token(None))
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Token, E> {
        Ok(Token(None))
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Token, E> {
        Ok(Token(None))
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Token, E> {
        Ok(Token(None))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Token, E> {
        Ok(Token(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Token, A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Token(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Token, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Token(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn read(text: &str) -> FirstMessage {
        read_first_message(&Message::text(text))
    }

    fn login(token: &str, account: Option<&str>) -> FirstMessage {
        let account = account.map(|name| AccountName::parse(name).expect("is a name"));
        FirstMessage::Login { token: Secret::from(token.to_owned()), account }
    }

    #[test]
    fn both_words_log_in_with_or_without_an_account() {
        assert_eq!(read(r#"{"type":"auth","token":"a.b.c"}"#), login("a.b.c", None));
        assert_eq!(read(r#"{"type":"authenticate","token":"a.b.c"}"#), login("a.b.c", None));
        assert_eq!(read(r#"{"account":"main","token":"x","type":"auth"}"#), login("x", Some("main")));
        assert_eq!(read(r#"{"type":"auth","token":"x","account":null,"id":7}"#), login("x", None));
        assert_eq!(read("\n {\"type\":\"auth\",\"token\":\"a\\u002eb\"} \n"), login("a.b", None));
    }

    #[test]
    fn a_ping_is_a_ping_and_no_login() {
        assert_eq!(read(r#"{"type":"ping"}"#), FirstMessage::Ping);
        assert_eq!(read(r#"{"type":"ping","id":1}"#), FirstMessage::Ping);
    }

    #[test]
    fn a_login_without_a_usable_token_is_told_apart() {
        for token in ["", r#","token":"""#, r#","token":null"#, r#","token":7"#, r#","token":-7"#, r#","token":1.5"#] {
            assert_eq!(read(&format!(r#"{{"type":"auth"{token}}}"#)), FirstMessage::TokenMissing, "{token}");
        }
        for token in ["true", r#"["a"]"#, r#"{"a":"b"}"#, "[]", "{}"] {
            assert_eq!(read(&format!(r#"{{"type":"auth","token":{token}}}"#)), FirstMessage::TokenMissing, "{token}");
        }
    }

    #[test]
    fn everything_else_is_not_a_login() {
        for other in [
            "",
            "hello",
            "null",
            "[]",
            r#""auth""#,
            r#"["auth","a.b.c",null]"#,
            "{}",
            r#"{"token":"a.b.c"}"#,
            r#"{"type":"AUTH","token":"a.b.c"}"#,
            r#"{"Type":"auth","token":"a.b.c"}"#,
            r#"{"type":["auth"],"token":"a.b.c"}"#,
            r#"{"type":null,"token":"a.b.c"}"#,
            r#"{"type":"subscribe","token":"a.b.c"}"#,
            r#"{"event":"ping"}"#,
            r#"{"type":"auth","token":"a.b.c""#,
            r#"{'type':'auth','token':'a.b.c'}"#,
            "\u{feff}{\"type\":\"auth\",\"token\":\"a.b.c\"}",
        ] {
            assert_eq!(read(other), FirstMessage::NotALogin, "{other}");
        }
    }

    #[test]
    fn a_member_named_twice_is_refused_in_any_spelling_and_order() {
        for twice in [
            r#"{"type":"auth","token":"a","token":"b"}"#,
            r#"{"type":"auth","type":"auth","token":"a"}"#,
            r#"{"type":"ping","type":"auth","token":"a"}"#,
            r#"{"type":"auth","token":"a","t\u006fken":"b"}"#,
            r#"{"type":"auth","token":"a","account":"x","account":"y"}"#,
        ] {
            assert_eq!(read(twice), FirstMessage::NotALogin, "{twice}");
        }
    }

    #[test]
    fn bytes_behind_the_object_are_refused() {
        for trailing in ["x", "{}", ",", "\0", r#"{"type":"auth","token":"b"}"#] {
            let text = format!(r#"{{"type":"auth","token":"a"}}{trailing}"#);
            assert_eq!(read(&text), FirstMessage::NotALogin, "{trailing}");
        }
    }

    #[test]
    fn an_account_that_cannot_exist_is_not_a_login() {
        for account in [r#""""#, r#""Main""#, r#""a b""#, "7", "[]"] {
            let text = format!(r#"{{"type":"auth","token":"a","account":{account}}}"#);
            assert_eq!(read(&text), FirstMessage::NotALogin, "{account}");
        }
    }

    #[test]
    fn a_binary_login_is_not_a_login() {
        let payload = Bytes::from_static(br#"{"type":"auth","token":"a"}"#);
        let as_text = Message::from_peer(Kind::Text, payload.clone());
        assert_eq!(read_first_message(&as_text), login("a", None));
        let as_binary = Message::from_peer(Kind::Binary, payload);
        assert_eq!(read_first_message(&as_binary), FirstMessage::NotALogin);
    }

    #[test]
    fn a_message_of_the_longest_length_is_read_and_one_byte_more_is_not() {
        let frame = r#"{"type":"auth","token":""}"#.len();
        let token = "a".repeat(FIRST_MESSAGE_BYTES_MAX - frame);
        assert_eq!(read(&format!(r#"{{"type":"auth","token":"{token}"}}"#)), login(&token, None));
        assert_eq!(read(&format!(r#"{{"type":"auth","token":"{token}a"}}"#)), FirstMessage::TooLong);
    }

    #[test]
    fn what_was_read_prints_no_token() {
        assert!(!format!("{:?}", read(r#"{"type":"auth","token":"canary"}"#)).contains("canary"));
    }
}
