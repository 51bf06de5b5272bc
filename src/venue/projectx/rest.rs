//! ProjectX's REST API: what a client's request does, who sends it, how it is sent on with the account's token.
//!
//! Nothing is signed, so a body leaves byte for byte as it came. The path leaves as the table spells it: the venue's
//! server takes any case. Logins, renewals and the negotiation of a hub are answered here.
//!
//! Sources: gateway.docs.projectx.com, the API reference; `TransportProtocols.md` of ASP.NET Core for negotiations.

#[cfg(test)]
mod tests;

use super::acts::{self, LOGIN, Names, Row};
use super::{ProjectX, narrow, token};
use crate::credential::Signer;
use crate::fresh::Nonce;
use crate::scope::{Act, Acts, Right};
use crate::secret::Secret;
use crate::venue::rest::{
    Given, Handling, Local, MediaType, Piece, Rest, RestAnswer, RestReading, RestRequest, Subjects, Unanswered,
    content_type, user_agent,
};
use crate::venue::wire::form;
use crate::venue::wire::json::{self, Document, Object, Value};
use crate::venue::{Bearer as _, ClientLogin, LoginOutcome, Refusal, SignedRequest};
use http::{HeaderMap, Method};

/// The one operation that is no `POST`, and takes no token.
const PING: &str = "Status/ping";

/// Members that decide about a request. The venue's reader takes names in any case.
const READ_MEMBERS: &[&str] = &["accountId", "filter", "orderId"];

impl Rest for ProjectX {
    fn read(&self, request: &RestRequest) -> Result<RestReading, Refusal> {
        request.refuse_ambiguous()?;
        if acts::is_negotiate(&request.path) {
            return read_negotiate(request);
        }
        // The hubs' host has no other paths.
        let row = acts::rest_row(&request.path).filter(|_| request.endpoint.name == "rest").ok_or(Refusal::Unknown)?;
        let method = if row.name == PING { Method::GET } else { Method::POST };
        if request.method != method {
            return Err(Refusal::Unknown);
        }
        // None is documented, and it could name what the body names too.
        if request.query.is_some() {
            return Err(Refusal::Malformed);
        }
        match row.name {
            PING if request.body.is_empty() => {
                Ok(RestReading { shown: shown_in_header(request)?, ..unread(row, Handling::Public) })
            }
            PING => Err(Refusal::Malformed),
            LOGIN => {
                Ok(RestReading { shown: Some(read_login(request)?), ..unread(row, Handling::Local(Local::Token)) })
            }
            "Auth/validate" => {
                Ok(RestReading { shown: shown_in_header(request)?, ..unread(row, Handling::Local(Local::Token)) })
            }
            "Auth/logout" => {
                Ok(RestReading { shown: shown_in_header(request)?, ..unread(row, Handling::Local(Local::Logout)) })
            }
            // Carries a password, which is the person's and not the bot's.
            "Auth/loginApp" => Err(Refusal::Unknown),
            _ => read_borne(request, row),
        }
    }

    /// A login's proof is its body. What opens a socket is told to anybody.
    fn may_prove(&self, path: &str, _headers: &HeaderMap) -> bool {
        acts::is_negotiate(path) || acts::rest_row(path).is_some_and(|row| row.name == LOGIN)
    }

    /// There is no signature at this venue: nothing is read as [`Handling::Signed`], and what is sent so has no token.
    fn sign(&self, request: &RestRequest, _reading: &RestReading, _signer: &Signer, _nonce: Nonce) -> SignedRequest {
        self.pass(request)
    }

    fn pass(&self, request: &RestRequest) -> SignedRequest {
        SignedRequest {
            endpoint: request.endpoint.name,
            method: if request.method == Method::POST { "POST" } else { "GET" },
            path: acts::rest_row(&request.path).map_or_else(|| request.path.clone(), path_of),
            headers: vec![accept(request), user_agent()],
            body: Vec::new(),
        }
    }

    fn bear(&self, request: &RestRequest, reading: &RestReading, token: &Secret) -> SignedRequest {
        SignedRequest {
            method: "POST",
            headers: vec![
                ("authorization", Secret::new([b"Bearer ", token.expose()].concat())),
                content_type(MediaType::Json),
                accept(request),
                user_agent(),
            ],
            body: Piece::render(&reading.body, &request.body, Nonce(0)),
            ..self.pass(request)
        }
    }

    /// The venue says it by the status, and nothing else by that one.
    fn outcome(&self, status: u16, _body_start: &[u8]) -> LoginOutcome {
        if status == 401 { LoginOutcome::Refused } else { LoginOutcome::Accepted }
    }

    /// What the venue refuses has status 200 and a code of the operation's own. A client takes 401 for the loss of its
    /// token, so nothing that is denied is answered with that.
    fn refuse(&self, request: Option<&RestRequest>, why: Unanswered) -> RestAnswer {
        let is_negotiate = request.is_some_and(|request| acts::is_negotiate(&request.path));
        let row = request.and_then(|request| acts::rest_row(&request.path));
        let (denied, failed) = row.map_or((1, 1), |row| (row.denied, row.failed));
        let (status, code, text) = match why {
            Unanswered::Refused(Refusal::NotPermitted(_) | Refusal::CredentialField | Refusal::Replayed) => {
                (200, denied, "denied by local policy")
            }
            Unanswered::Refused(Refusal::NotAuthenticated) if row.is_some_and(|row| row.name == LOGIN) => {
                (200, denied, "the proxy does not know this user name and key")
            }
            Unanswered::Refused(Refusal::NotAuthenticated) => (401, denied, "the proxy does not know this token"),
            Unanswered::Refused(Refusal::Unknown) if row.is_some() => (200, denied, "not served by the proxy"),
            Unanswered::Refused(Refusal::Unknown) => (404, denied, "unknown to the proxy, and so not sent"),
            Unanswered::Refused(Refusal::Malformed) => (400, denied, "not a request that the proxy can judge"),
            Unanswered::Withdrawn => (200, denied, "withdrawn by a cancel, and so not sent"),
            Unanswered::Busy => (503, failed, "too many requests wait; nothing was sent"),
            Unanswered::Unavailable => (503, failed, "the exchange cannot be reached; nothing was sent"),
            Unanswered::MaybeSent => (504, failed, "no answer: find out whether the request arrived"),
        };
        let body = match row.map(|row| row.name) {
            _ if is_negotiate => format!(r#"{{"error":"{text}"}}"#),
            Some("Order/place") => format!(r#"{{"orderId":null,{}"#, envelope(code, text)),
            Some(LOGIN | "Auth/loginApp") => format!(r#"{{"token":null,{}"#, envelope(code, text)),
            Some(_) | None => format!("{{{}", envelope(code, text)),
        };
        RestAnswer { status, body }
    }

    fn answer(&self, request: &RestRequest, given: Given<'_>) -> RestAnswer {
        let body = match given {
            Given::Token { placeholder, ends_at, now } => {
                let wrapped = token::wrap(placeholder, ends_at, now);
                let token = String::from_utf8_lossy(wrapped.expose());
                // In the venue's order.
                if acts::rest_row(&request.path).is_some_and(|row| row.name == LOGIN) {
                    format!(r#"{{"token":"{token}",{SUCCESS}}}"#)
                } else {
                    format!(r#"{{{SUCCESS},"newToken":"{token}"}}"#)
                }
            }
            Given::LoggedOut => format!("{{{SUCCESS}}}"),
            Given::Negotiated(random) => negotiated(request, random),
        };
        RestAnswer { status: 200, body }
    }

    fn narrow(&self, request: &RestRequest, body: &[u8], allowed: &[u64]) -> Option<Vec<u8>> {
        let why = Unanswered::Refused(Refusal::NotPermitted(Right::Read));
        let refused = || self.refuse(Some(request), why).body.into_bytes();
        match acts::rest_row(&request.path)?.name {
            "Account/search" => narrow::accounts(body, allowed, refused),
            "Order/searchById" => narrow::order(body, allowed, refused),
            // The request named its account, and that was judged; or it is about contracts.
            _ => None,
        }
    }
}

const SUCCESS: &str = r#""success":true,"errorCode":0,"errorMessage":null"#;

/// The end of every refusal, with the closing brace.
fn envelope(code: u64, text: &str) -> String {
    format!(r#""success":false,"errorCode":{code},"errorMessage":"{text}"}}"#)
}

/// Half of the random number tells the connection, the other half opens the socket. Nothing is kept: a socket may have
/// any id, since libraries come back with an old one.
fn negotiated(request: &RestRequest, random: u128) -> String {
    const TRANSPORTS: &str = r#""availableTransports":[{"transport":"WebSockets","transferFormats":["Text"]}]"#;
    let digits = format!("{random:032x}");
    let (id, token) = digits.split_at(16);
    match Query::read(request) {
        Ok(Query { version: 1, .. }) => {
            format!(r#"{{"negotiateVersion":1,"connectionId":"{id}","connectionToken":"{token}",{TRANSPORTS}}}"#)
        }
        Ok(_) | Err(_) => format!(r#"{{"negotiateVersion":0,"connectionId":"{id}",{TRANSPORTS}}}"#),
    }
}

fn path_of(row: &Row) -> String {
    format!("/api/{}", row.name)
}

/// The format of the answer that the client asked for, of those two that the venue's documentation has.
fn accept(request: &RestRequest) -> (&'static str, Secret) {
    let is_text = request.header("accept").is_some_and(|accept| accept.eq_ignore_ascii_case("text/plain"));
    ("accept", Secret::from(if is_text { "text/plain" } else { "application/json" }.to_owned()))
}

/// A reading that says nothing but what the row does.
fn unread(row: &Row, handling: Handling) -> RestReading {
    RestReading {
        operation: row.name,
        acts: Acts::one(row.act),
        handling,
        shown: None,
        sub_accounts: Vec::new(),
        subjects: Subjects::None,
        body: Vec::new(),
        content_type: None,
    }
}

/// A request that the exchange gets, with the token of the account.
fn read_borne(request: &RestRequest, row: &'static Row) -> Result<RestReading, Refusal> {
    let document = read_body(request)?;
    let body = document.root().as_object().ok_or(Refusal::Malformed)?;
    if body.in_other_case(READ_MEMBERS) {
        return Err(Refusal::Malformed);
    }
    Ok(RestReading {
        shown: shown_in_header(request)?,
        sub_accounts: sub_accounts(row, body)?,
        subjects: subjects(row, body),
        body: vec![Piece::Kept(0..request.body.len())],
        content_type: Some(MediaType::Json),
        ..unread(row, Handling::Bearer)
    })
}

/// Every trading account that a body names. Where the operation is about one, it has to be there: what is not named
/// cannot be judged.
fn sub_accounts(row: &Row, body: Object<'_>) -> Result<Vec<u64>, Refusal> {
    let named = |object: Object<'_>| match object.get("accountId") {
        None => Ok(None),
        // The venue would take `"7"` and perhaps `7.0` as well. No library writes that.
        Some(id) => id.as_u64().map(Some).ok_or(Refusal::Malformed),
    };
    let top = named(body)?;
    let filter = match body.get("filter").and_then(Value::as_object) {
        Some(filter) if filter.in_other_case(READ_MEMBERS) => return Err(Refusal::Malformed),
        Some(filter) => named(filter)?,
        None => None,
    };
    let is_named = match row.names {
        Names::Nothing => true,
        Names::Account => top.is_some(),
        Names::Filter => filter.is_some(),
    };
    if is_named { Ok(top.into_iter().chain(filter).collect()) } else { Err(Refusal::Malformed) }
}

/// Which orders a request is about. A new one has no id yet, so no cancel can mean it.
fn subjects(row: &Row, body: Object<'_>) -> Subjects {
    if !matches!(row.name, "Order/cancel" | "Order/modify") {
        return Subjects::None;
    }
    match body.get("orderId").and_then(Value::as_u64) {
        Some(id) => Subjects::Named(vec![id.to_string().into()]),
        // It could mean any.
        None if row.act == Act::Cancel => Subjects::All,
        None => Subjects::None,
    }
}

/// The user name and the key of a client's own login. Neither leaves.
fn read_login(request: &RestRequest) -> Result<ClientLogin, Refusal> {
    let document = read_body(request)?;
    let body = document.root().as_object().ok_or(Refusal::Malformed)?;
    if body.in_other_case(&["userName", "apiKey"]) {
        return Err(Refusal::Malformed);
    }
    let text = |name| body.get(name).and_then(Value::text).filter(|text| !text.is_empty());
    match (text("userName"), text("apiKey")) {
        (Some(user), Some(key)) => {
            Ok(ClientLogin::Key { api_key: user.into_owned(), secret: Secret::from(key.into_owned()) })
        }
        _ => Err(Refusal::NotAuthenticated),
    }
}

/// The body, which is JSON whether a header says so or not.
fn read_body(request: &RestRequest) -> Result<Document<'_>, Refusal> {
    if request.media_type()? == Some(MediaType::Form) {
        return Err(Refusal::Malformed);
    }
    json::read(&request.body).map_err(|_| Refusal::Malformed)
}

/// The placeholder in `Authorization`. Anything else there is not the venue's to judge.
fn shown_in_header(request: &RestRequest) -> Result<Option<ClientLogin>, Refusal> {
    if request.has_unreadable(&["authorization"]) {
        return Err(Refusal::NotAuthenticated);
    }
    let bearer = request.header("authorization").and_then(|value| value.split_once(' '));
    let token = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
    Ok(token.and_then(|token| ProjectX.shown(token)))
}

/// What a negotiation's query says.
struct Query {
    version: u64,
    token: Option<ClientLogin>,
}

impl Query {
    fn read(request: &RestRequest) -> Result<Self, Refusal> {
        let query = form::read(request.query.as_deref().unwrap_or_default().as_bytes());
        let query = query.map_err(|_| Refusal::Malformed)?;
        if query.in_other_shape(&["negotiateVersion", ProjectX.parameter()]) {
            return Err(Refusal::Malformed);
        }
        let version = match query.get("negotiateVersion").map(|field| field.value().parse::<u64>()) {
            None => 0,
            // The server answers a newer one with the newest that it knows.
            Some(Ok(version)) => version.min(1),
            Some(Err(_)) => return Err(Refusal::Malformed),
        };
        let token = query.get(ProjectX.parameter()).and_then(|field| ProjectX.shown(field.value()));
        Ok(Self { version, token })
    }
}

/// A client asks how to open a hub's socket. It may show its token in the header, in the query, or in both.
fn read_negotiate(request: &RestRequest) -> Result<RestReading, Refusal> {
    if request.method != Method::POST {
        return Err(Refusal::Unknown);
    }
    let shown = match (shown_in_header(request)?, Query::read(request)?.token) {
        (Some(ClientLogin::Token(one)), Some(ClientLogin::Token(other))) if one != other => {
            return Err(Refusal::NotAuthenticated);
        }
        (header, query) => header.or(query),
    };
    Ok(RestReading {
        operation: "negotiate",
        acts: Acts::one(Act::Public),
        handling: Handling::Local(Local::Negotiate),
        shown,
        sub_accounts: Vec::new(),
        subjects: Subjects::None,
        body: Vec::new(),
        content_type: None,
    })
}
