//! What a person may have done to an account: `POST /accounts/NAME/…`, from this machine and with the secret of this run.

use super::{Listed, Status, json, pages, text};
use crate::secret::Secret;
use crate::supply::account::{Account, Unavailable};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use std::net::SocketAddr;
use std::time::Duration;
use tracing::warn;

/// The header that carries the secret, as it stands in the state folder.
pub const SECRET_HEADER: &str = "countersign-admin";

/// How long an action may take: a token request waits for its turn and for the exchange.
const ACTION_LIMIT: Duration = Duration::from_secs(20);

/// What can be done to an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Buy a new token now.
    RenewToken,
    /// Close the token's breaker, and end the pause of a refused key.
    ResetBreaker,
    /// Take frozen nonces back into use.
    Unfreeze,
}

impl Action {
    const ALL: [Self; 3] = [Self::RenewToken, Self::ResetBreaker, Self::Unfreeze];

    /// What stands behind the account in the path.
    fn tail(self) -> &'static str {
        match self {
            Self::RenewToken => "token/refresh",
            Self::ResetBreaker => "breaker/reset",
            Self::Unfreeze => "nonces/unfreeze",
        }
    }
}

/// The path of an action.
pub fn path_of(account: &str, action: Action) -> String {
    format!("/accounts/{account}/{}", action.tail())
}

/// The account and action that a path names.
pub(super) fn named(path: &str) -> Option<(&str, Action)> {
    let (account, tail) = path.strip_prefix("/accounts/")?.split_once('/')?;
    Some((account, Action::ALL.into_iter().find(|action| action.tail() == tail)?))
}

pub(super) async fn answer(
    status: &Status,
    peer: SocketAddr,
    request: &Request<Incoming>,
    account: &str,
    action: Action,
) -> Response<Full<Bytes>> {
    if let Err((code, why)) = check(status, peer, request) {
        warn!(%peer, ?action, why, "admin action refused");
        return text(code, format!("{why}\n"));
    }
    let Some(listed) = status.accounts.iter().find(|listed| listed.name == account) else {
        let known: Vec<&str> = status.accounts.iter().map(|listed| listed.name.as_str()).collect();
        return text(StatusCode::NOT_FOUND, format!("there is no such account; known are {}\n", known.join(", ")));
    };
    let Some(handle) = &listed.account else {
        return text(StatusCode::CONFLICT, "the account has no keys, and so neither a token nor nonces\n");
    };
    match act(handle, action).await {
        Ok(()) => json(StatusCode::OK, &pages::told(listed).await),
        Err(why) => failed(listed, why),
    }
}

/// Who may have something done.
fn check(status: &Status, peer: SocketAddr, request: &Request<Incoming>) -> Result<(), (StatusCode, &'static str)> {
    if !peer.ip().to_canonical().is_loopback() {
        return Err((StatusCode::FORBIDDEN, "only from this machine: run `countersign account` where the proxy runs"));
    }
    let shown = request.headers().get(SECRET_HEADER).map(|shown| Secret::new(shown.as_bytes().to_vec()));
    // Compared in constant time.
    if shown.as_ref() != Some(&status.secret) {
        let advice = "the header `countersign-admin` must hold what stands in `admin.secret` of the state folder, which \
                      each start writes anew; `countersign account` reads it, run as the user of the proxy";
        return Err((StatusCode::FORBIDDEN, advice));
    }
    if !request.body().is_end_stream() {
        return Err((StatusCode::BAD_REQUEST, "the body must be empty: the path says everything"));
    }
    Ok(())
}

async fn act(account: &Account, action: Action) -> Result<(), Unavailable> {
    match action {
        Action::RenewToken => account.renew_token(ACTION_LIMIT).await.map(drop),
        Action::ResetBreaker => account.reset_breaker(ACTION_LIMIT).await,
        Action::Unfreeze => account.unfreeze(ACTION_LIMIT).await,
    }
}

fn failed(listed: &Listed, why: Unavailable) -> Response<Full<Bytes>> {
    let name = &listed.name;
    match why {
        Unavailable::NoTokens => text(StatusCode::CONFLICT, format!("{name}: {why}: there is nothing to renew\n")),
        Unavailable::Lane(_) => text(StatusCode::CONFLICT, format!("{name}: {why}\n")),
        Unavailable::Token(_) => {
            let advice = "`countersign status` says when it is tried again";
            let reset = format!("`countersign account reset {name}` and a refresh try at once");
            text(StatusCode::SERVICE_UNAVAILABLE, format!("{name}: {why}; {advice}, {reset}\n"))
        }
        Unavailable::Busy | Unavailable::Closed => {
            text(StatusCode::SERVICE_UNAVAILABLE, format!("{name}: {why}; try again\n"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_account_and_action_and_nothing_else_does() {
        for action in Action::ALL {
            assert_eq!(named(&path_of("kraken_main", action)), Some(("kraken_main", action)));
        }
        for path in
            ["/accounts/a/token", "/accounts/token/refresh", "/accounts//", "/status", "/accounts/a/b/token/refresh"]
        {
            assert_eq!(named(path), None, "{path}");
        }
    }
}
