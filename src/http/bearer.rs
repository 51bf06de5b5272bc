//! What a client shows to a venue of bearer tokens: a placeholder where the venue's protocol has its token, which is
//! `Authorization` or the query of an upgrade, or a token for us, which belongs into `Authorization` alone.
//!
//! A query ends up in histories and in the logs of others, so nothing but a placeholder counts there, and none of it is
//! ever logged here: what is wrong with one is told by fixed texts.

use super::head::{self, BadHead};
use crate::venue::{Bearer, ClientLogin};
use http::HeaderMap;
use http::StatusCode;

/// Most parameters of one query. Client libraries write four.
const PARAMETERS_MAX: usize = 16;

const TOKEN_IN_URL: BadHead = BadHead {
    status: StatusCode::UNAUTHORIZED,
    slug: "token_in_url",
    advice: "in a URL stands what the login of this venue answered here, or nothing; a token for Countersign never \
             belongs into a URL: send it as `Authorization: Bearer <JWT>`",
};

const BAD_QUERY: BadHead = BadHead {
    status: StatusCode::BAD_REQUEST,
    slug: "bad_query",
    advice: "the query holds a parameter twice, one that is not known here, or a broken escape",
};

/// What stands in `Authorization`.
#[derive(Default)]
pub(super) struct Authorization {
    /// A token for us.
    pub(super) jwt: Option<Vec<u8>>,
    /// A placeholder.
    pub(super) placeholder: Option<ClientLogin>,
}

/// Which parameters a query may hold beside the token's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// Those that client libraries are known to write.
    Known,
    /// Any: somebody else judges them.
    Any,
}

/// Reads `Authorization`. Without a venue of bearer tokens, what stands there is for us.
pub(super) fn in_header(headers: &HeaderMap, bearer: Option<&dyn Bearer>) -> Result<Authorization, BadHead> {
    let Some(token) = head::bearer(headers)? else { return Ok(Authorization::default()) };
    let placeholder = bearer.zip(std::str::from_utf8(token).ok()).and_then(|(bearer, text)| bearer.shown(text));
    let jwt = if placeholder.is_none() { Some(token.to_vec()) } else { None };
    Ok(Authorization { jwt, placeholder })
}

/// Reads the placeholder in a query. Nothing of the query goes further.
pub(super) fn in_query(
    query: Option<&str>,
    bearer: &dyn Bearer,
    others: Others,
) -> Result<Option<ClientLogin>, BadHead> {
    let mut token = None;
    let parameters = query.unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty());
    for (count, parameter) in parameters.enumerate() {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let (name, value) = (decoded(name).ok_or(BAD_QUERY)?, decoded(value).ok_or(BAD_QUERY)?);
        let is_known = name == bearer.parameter() || bearer.ignored_parameters().contains(&name.as_str());
        if count >= PARAMETERS_MAX || (!is_known && others == Others::Known) {
            return Err(BAD_QUERY);
        }
        // Of those that are dropped one may come twice: a library that reconnects adds the new `id` to the old one.
        if name == bearer.parameter() && token.replace(value).is_some() {
            return Err(BAD_QUERY);
        }
    }
    match token.filter(|token| !token.is_empty()) {
        Some(token) => bearer.shown(&token).map(Some).ok_or(TOKEN_IN_URL),
        None => Ok(None),
    }
}

/// Refuses a token in the query of a request that is sent on.
pub(super) fn none_in_query(shown: Option<&ClientLogin>) -> Result<(), BadHead> {
    if shown.is_none() { Ok(()) } else { Err(TOKEN_IN_URL) }
}

/// A text without its percent escapes. `None`: one is broken, or the text holds what no token and no name does.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                digit()? << 4 | digit()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    /// A venue whose tokens begin with `ours.`.
    struct Dotted;

    impl Bearer for Dotted {
        fn parameter(&self) -> &'static str {
            "access_token"
        }

        fn ignored_parameters(&self) -> &'static [&'static str] {
            &["id"]
        }

        fn shown(&self, text: &str) -> Option<ClientLogin> {
            text.strip_prefix("ours.").map(|text| ClientLogin::Token(Secret::from(text.to_owned())))
        }
    }

    fn asked(query: &str) -> Result<Option<Vec<u8>>, (u16, &'static str)> {
        match in_query(Some(query), &Dotted, Others::Known) {
            Ok(Some(ClientLogin::Token(token))) => Ok(Some(token.expose().to_vec())),
            Ok(_) => Ok(None),
            Err(bad) => Err((bad.status.as_u16(), bad.slug)),
        }
    }

    #[test]
    fn a_query_shows_one_placeholder_and_what_libraries_add_is_passed_over() {
        assert_eq!(asked("access_token=ours.abc"), Ok(Some(b"abc".to_vec())));
        assert_eq!(asked("id=1&access%5Ftoken=ours%2eabc&id=2&id"), Ok(Some(b"abc".to_vec())));
        for none in ["", "&", "id=7", "access_token", "access_token="] {
            assert_eq!(asked(none), Ok(None), "{none}");
        }
    }

    #[test]
    fn a_token_for_us_in_a_query_is_refused_and_so_is_any_other_text() {
        for text in ["eyJhbGciOiJIUzI1NiJ9.e30.x", "OURS.abc", "+ours.abc", "x"] {
            assert_eq!(asked(&format!("access_token={text}")), Err((401, "token_in_url")), "{text}");
        }
    }

    #[test]
    fn a_query_with_two_readings_is_refused() {
        for query in [
            "access_token=ours.abc&access_token=ours.abc",
            "access_token=ours.abc&access%5ftoken=x",
            "access_token=&access_token=ours.abc",
            "ACCESS_TOKEN=ours.abc",
            "token=ours.abc",
            "id=%",
            "id=%4",
            "id=%4g",
            "id=%ff",
            "id=%00",
            "id=%0d%0a",
            &"id=1&".repeat(17),
        ] {
            assert_eq!(asked(query), Err((400, "bad_query")), "{query}");
        }
        assert!(matches!(in_query(Some("limit=5"), &Dotted, Others::Any), Ok(None)));
    }

    #[test]
    fn a_header_shows_a_placeholder_or_a_token_for_us() {
        let shown = |value: &'static str, bearer: Option<&dyn Bearer>| {
            let headers = [("authorization", value)]
                .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)));
            let shown = in_header(&headers.into_iter().collect(), bearer).map_err(|bad| bad.slug)?;
            Ok::<_, &str>((shown.jwt.is_some(), shown.placeholder.is_some()))
        };
        assert_eq!(shown("Bearer ours.abc", Some(&Dotted)), Ok((false, true)));
        assert_eq!(shown("Bearer eyJ.e30.x", Some(&Dotted)), Ok((true, false)));
        assert_eq!(shown("Bearer ours.abc", None), Ok((true, false)), "another venue's are no placeholders here");
        assert_eq!(shown("Basic ours.abc", Some(&Dotted)), Err("bad_authorization"));
    }
}
