//! The simulated ProjectX' REST API. Checks, in this order: path, method, bearer, rate, body.
//!
//! Paths in any case, as ASP.NET Core routes them. What an operation does is in `operations`.

use super::fields::Fields;
use super::operations::{self, Operation, Refusal};
use super::tokens::{self, BearerRefused};
use super::{Door, ProjectX, negotiation};
use crate::simulator::faults::MintFault;
use crate::simulator::server::{Answer, Received};
use http::{Method, StatusCode};
use serde_json::{Value, json};

pub(super) fn answer(projectx: &ProjectX, request: &Received) -> Answer {
    let path = request.path().to_ascii_lowercase();
    if let Some(hub) = path.strip_suffix("/negotiate").and_then(super::Hub::at) {
        return negotiation::negotiate(projectx, request, hub);
    }
    if super::Hub::at(&path).is_some() {
        return Answer::text(StatusCode::BAD_REQUEST, "text/plain", "Connection ID required");
    }
    if projectx.door(request) == Door::Hubs {
        return unknown(projectx, request);
    }
    if path == "/api/status/ping" {
        return match request.method {
            Method::GET => Answer::text(StatusCode::OK, "text/plain", "pong"),
            _ => Answer::empty(StatusCode::METHOD_NOT_ALLOWED),
        };
    }
    projectx.judge_head(request, None);
    let operation = Operation::at(&path);
    let is_auth =
        matches!(&*path, "/api/auth/loginkey" | "/api/auth/loginapp" | "/api/auth/validate" | "/api/auth/logout");
    if operation.is_none() && !is_auth {
        return unknown(projectx, request);
    }
    if request.method != Method::POST {
        return Answer::empty(StatusCode::METHOD_NOT_ALLOWED);
    }
    match (&*path, operation) {
        ("/api/auth/loginkey", _) => login(projectx, request),
        ("/api/auth/loginapp", _) => {
            projectx.record.verdict(request.connection, "loginApp: carries a password");
            failure(4, None, Some("token"))
        }
        (_, None) => session(projectx, request, path == "/api/auth/validate"),
        (_, Some(operation)) => operate(projectx, request, operation),
    }
}

fn unknown(projectx: &ProjectX, request: &Received) -> Answer {
    projectx.record.verdict(request.connection, "rest: no such operation");
    Answer::empty(StatusCode::NOT_FOUND)
}

fn login(projectx: &ProjectX, request: &Received) -> Answer {
    let fields = match body(projectx, request) {
        Ok(fields) => fields,
        Err(answer) => return answer,
    };
    let (user, api_key) = match (fields.text("userName"), fields.text("apiKey")) {
        (Ok(user), Ok(api_key)) => (user, api_key),
        (Err(super::fields::Invalid(name)), _) | (_, Err(super::fields::Invalid(name))) => return invalid(name),
    };
    let switches = projectx.faults.switches();
    let mut answer = match switches.mint {
        MintFault::Unavailable => Answer::html(StatusCode::SERVICE_UNAVAILABLE),
        MintFault::Html => Answer::html(StatusCode::OK),
        // UnknownError, unless the text is another of the codes.
        MintFault::Error(text) => match text.parse() {
            Ok(code) => failure(code, None, Some("token")),
            Err(_) => failure(8, Some(&text), Some("token")),
        },
        MintFault::EmptyToken => success(json!({"token": ""})),
        MintFault::None => match projectx.log_in(user, api_key) {
            Ok(token) => {
                projectx.record.token_minted();
                success(json!({"token": token}))
            }
            Err(code) => {
                projectx.record.signature_refused(request.connection, "login: refused");
                failure(code, None, Some("token"))
            }
        },
    };
    answer.delay = switches.mint_delay;
    answer
}

/// `validate` and `logout`, which speak of the bearer itself.
fn session(projectx: &ProjectX, request: &Received, is_validation: bool) -> Answer {
    let (user, token) = match bearer(projectx, request) {
        Ok(shown) => shown,
        Err(answer) => return answer,
    };
    if let Some(answer) = limited(projectx, &user, false) {
        return answer;
    }
    if !is_validation {
        projectx.state().tokens.revoke(&token);
        projectx.record.note(request.connection, "logout: a token was revoked");
        return success(json!({}));
    }
    let switches = projectx.faults.switches();
    let fresh = projectx.validate(&user, &token, switches.revoke_validated);
    projectx.record.token_minted();
    let mut answer = success(json!({"newToken": fresh}));
    answer.delay = switches.mint_delay;
    answer
}

fn operate(projectx: &ProjectX, request: &Received, operation: Operation) -> Answer {
    let (user, token) = match bearer(projectx, request) {
        Ok(shown) => shown,
        Err(answer) => return answer,
    };
    if let Some(answer) = limited(projectx, &user, operation == Operation::RetrieveBars) {
        return answer;
    }
    if projectx.faults.switches().echo {
        let text = format!("{token} {}", String::from_utf8_lossy(&request.body));
        return failure(7, Some(&text), operation.result_name());
    }
    let fields = match body(projectx, request) {
        Ok(fields) => fields,
        Err(answer) => return answer,
    };
    let now = projectx.clock.now();
    let mut state = projectx.state();
    let Some(held) = state.users.get_mut(&user) else { return Answer::empty(StatusCode::UNAUTHORIZED) };
    let outcome = operations::execute(&mut held.accounts, operation, &fields, now);
    state.publish(&user, projectx.faults.switches().unwrapped_events);
    drop(state);
    match outcome {
        Ok(told) => success(told),
        Err(Refusal::Code(code, text)) => failure(code, text, operation.result_name()),
        Err(Refusal::Invalid(name)) => invalid(name),
    }
}

/// The user behind the bearer, and the bearer; or the venue's answer to one that it does not take.
fn bearer(projectx: &ProjectX, request: &Received) -> Result<(String, String), Answer> {
    let shown = tokens::shown(request, false).and_then(|token| Ok((projectx.holder(&token)?, token)));
    shown.map_err(|why| unauthorized(projectx, request, why))
}

/// What ASP.NET Core's bearer authentication answers.
pub(super) fn unauthorized(projectx: &ProjectX, request: &Received, why: BearerRefused) -> Answer {
    projectx.record.verdict(request.connection, format!("bearer: {why:?}").to_ascii_lowercase());
    let mut answer = Answer::empty(StatusCode::UNAUTHORIZED);
    let challenge = if why == BearerRefused::Missing { "Bearer" } else { "Bearer error=\"invalid_token\"" };
    answer.headers.push(("www-authenticate", challenge.to_owned()));
    answer
}

fn limited(projectx: &ProjectX, user: &str, is_bars: bool) -> Option<Answer> {
    let switches = projectx.faults.switches();
    let wait = if switches.rate_limited {
        1
    } else if switches.keeps_rates {
        projectx.state().users.get_mut(user)?.limits.take(is_bars, projectx.clock.now()).err()?
    } else {
        return None;
    };
    let mut answer = Answer::empty(StatusCode::TOO_MANY_REQUESTS);
    answer.headers.push(("retry-after", wait.to_string()));
    Some(answer)
}

/// The members of the body, and a verdict if one stands there twice.
fn body(projectx: &ProjectX, request: &Received) -> Result<Fields, Answer> {
    let kind = request.header("content-type").unwrap_or_default().to_ascii_lowercase();
    if !kind.starts_with("application/json") && !kind.starts_with("text/json") {
        return Err(Answer::empty(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    let (fields, is_duplicate) = Fields::read(&request.body).map_err(|super::fields::Invalid(name)| invalid(name))?;
    if is_duplicate {
        projectx.record.verdict(request.connection, "duplicate member");
    }
    Ok(fields)
}

fn success(mut told: Value) -> Answer {
    (told["success"], told["errorCode"], told["errorMessage"]) = (json!(true), json!(0), Value::Null);
    Answer::json(StatusCode::OK, told.to_string())
}

/// An error as the venue tells it: under HTTP 200.
fn failure(code: u32, text: Option<&str>, nothing: Option<&str>) -> Answer {
    let mut told = json!({"success": false, "errorCode": code, "errorMessage": text});
    if let Some(name) = nothing {
        told[name] = Value::Null;
    }
    Answer::json(StatusCode::OK, told.to_string())
}

/// ASP.NET Core's answer to a body that does not fit.
fn invalid(name: &str) -> Answer {
    let told = json!({
        "type": "https://tools.ietf.org/html/rfc9110#section-15.5.1",
        "title": "One or more validation errors occurred.",
        "status": 400,
        "errors": {name: [format!("The {name} field is required.")]},
    });
    Answer::text(StatusCode::BAD_REQUEST, "application/problem+json", told.to_string())
}
