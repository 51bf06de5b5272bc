//! Who may use which account, for what: grants, and the [`Permit`] that says that one applied.
//!
//! Closed by default: an empty policy permits nobody. Only [`Policy::authorize`] and [`Policy::permit_request`] make a
//! permit, and opening a socket to an exchange or sending a request there needs one.

use crate::fresh::UnixMillis;
use crate::identity::local::GENERATION_FIRST;
use crate::identity::{Method, Principal};
use crate::names::{AccountName, ClientName};
use crate::scope::{Act, Acts, Right, Scope};
use crate::venue::Route;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// Which clients a grant is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientPattern {
    /// How they must have proved who they are. `None`: any way that gives a name.
    method: Option<Method>,
    /// Their name; `*` stands for one whole segment between slashes.
    name: String,
}

/// Why a text is not a client pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// The prefix is not a way to prove a name.
    #[error("starts with a prefix other than `jwt:`, `cert:` or `key:`")]
    Prefix,
    /// The name is empty or holds spaces or control characters.
    #[error("is not a client name")]
    Name,
    /// A star that is only part of a segment.
    #[error("has a `*` beside other characters; `*` stands for one whole segment between slashes")]
    PartialStar,
    /// A star for local keys: each is made for one client, whose name has to be known to make it.
    #[error("has a `*` behind `key:`; a local key is made for one client, so name it")]
    KeyStar,
}

impl ClientPattern {
    /// Reads `bot-a`, `jwt:bot-a`, `cert:spiffe://desk/bot/*`, `key:bot-a` or `anonymous`.
    pub fn parse(text: &str) -> Result<Self, BadPattern> {
        if text == "anonymous" {
            return Ok(Self { method: Some(Method::Anonymous), name: text.to_owned() });
        }
        let (method, name) = match text.split_once(':') {
            Some(("jwt", name)) => (Some(Method::Jwt), name),
            Some(("cert", name)) => (Some(Method::Certificate), name),
            Some(("key", name)) => (Some(Method::LocalKey), name),
            Some((prefix, _)) if prefix != "spiffe" => return Err(BadPattern::Prefix),
            _ => (None, text),
        };
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BadPattern::Name);
        }
        if method == Some(Method::LocalKey) {
            if name.contains('*') {
                return Err(BadPattern::KeyStar);
            }
            // No proof earns the name of whoever shows none.
            if name == "anonymous" || ClientName::parse(name).is_err() {
                return Err(BadPattern::Name);
            }
        }
        if name.split('/').any(|segment| segment.contains('*') && segment != "*") {
            return Err(BadPattern::PartialStar);
        }
        Ok(Self { method, name: name.to_owned() })
    }

    /// The one client that the pattern lets in by a local key. `None`: it is for another kind of proof, or for more than
    /// one client, and no key can be made for a name that is not known.
    pub fn local_key_client(&self) -> Option<ClientName> {
        let by_key = matches!(self.method, None | Some(Method::LocalKey));
        if by_key && !self.name.contains('*') { ClientName::parse(&self.name).ok() } else { None }
    }

    /// True for the pattern `anonymous`.
    pub fn is_anonymous(&self) -> bool {
        self.method == Some(Method::Anonymous)
    }

    fn matches(&self, name: &ClientName, method: Method) -> bool {
        match (self.method, method) {
            (Some(Method::Anonymous), Method::Anonymous) => return true,
            (_, Method::Anonymous) | (Some(Method::Anonymous), _) => return false,
            // Whoever comes in unproved is judged by name alone: `unsafe_no_auth` means just that.
            (Some(_) | None, Method::NoAuth) | (None, _) => {}
            (Some(wanted), method) => {
                if wanted != method {
                    return false;
                }
            }
        }
        let mut wanted = self.name.split('/');
        let mut segments = name.as_str().split('/');
        loop {
            match (wanted.next(), segments.next()) {
                (None, None) => return true,
                (Some("*"), Some(segment)) if !segment.is_empty() => {}
                (Some(wanted), Some(segment)) if wanted == segment => {}
                _ => return false,
            }
        }
    }
}

/// One rule: these clients may use this account, or these venues' public data, with this scope.
#[derive(Debug, Clone)]
pub struct Grant {
    /// For whom.
    pub client: ClientPattern,
    /// The account. `None`: public data of `venues` alone.
    pub account: Option<AccountName>,
    /// Venues whose public data is open, where no account is named.
    pub venues: Vec<&'static str>,
    /// What they may do. `public` is part of every grant.
    pub scope: Scope,
    /// How many sessions one client name may have at a time.
    pub max_sessions: u32,
    /// The trading accounts behind the account's keys that they may touch, where the venue has such. `None`: all.
    pub sub_accounts: Option<Vec<u64>>,
}

/// All grants, and how many sessions each client has.
#[derive(Debug)]
pub struct Policy {
    grants: Vec<Grant>,
    accounts: BTreeMap<AccountName, &'static str>,
    generations: BTreeMap<ClientName, u32>,
    seats: Arc<Seats>,
}

/// Why the policy said no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No grant is for this client at this venue.
    #[error("no grant for this client at this venue")]
    NoGrant,
    /// The client named an account that no grant gives it.
    #[error("no grant for this client on the account that it named")]
    NotThatAccount,
    /// Several accounts fit and the client named none.
    #[error("several accounts fit; name one")]
    WhichAccount(Vec<AccountName>),
    /// The client has as many sessions as its grant allows.
    #[error("the client has as many sessions as its grant allows")]
    TooManySessions,
}

/// Evidence that the policy said yes to one client on one route. A session's holds one of the client's seats until
/// dropped; a request's holds none.
#[derive(Debug)]
pub struct Permit {
    client: ClientName,
    method: Method,
    account: Option<AccountName>,
    venue: &'static str,
    scope: Scope,
    sub_accounts: Option<Vec<u64>>,
    ends_at: Option<UnixMillis>,
    generation: Option<u32>,
    _seat: Option<Seat>,
}

/// Evidence that the house itself may act for an account with no client asking: to buy the account's token.
#[derive(Debug, Clone)]
pub struct Upkeep {
    account: AccountName,
}

impl Policy {
    /// A policy over these accounts, each with the name of its venue.
    pub fn new(grants: Vec<Grant>, accounts: BTreeMap<AccountName, &'static str>) -> Self {
        Self { grants, accounts, generations: BTreeMap::new(), seats: Arc::new(Seats::default()) }
    }

    /// Other grants over the same accounts. Seats that are taken stay taken.
    #[must_use]
    pub fn with_grants(&self, grants: Vec<Grant>) -> Self {
        Self {
            grants,
            accounts: self.accounts.clone(),
            generations: self.generations.clone(),
            seats: Arc::clone(&self.seats),
        }
    }

    /// The generation of clients whose local keys and placeholders were made worthless, so that sessions which came in
    /// by them end as well.
    #[must_use]
    pub fn with_generations(self, generations: BTreeMap<ClientName, u32>) -> Self {
        Self { generations, ..self }
    }

    /// Decides whether a client may use a route, and with which account; takes one of the client's seats.
    ///
    /// `wish` is the account that the client named. Without one, a single account must fit, or the client's proof has to
    /// be bound to one.
    pub fn authorize(&self, who: &Principal, route: &Route, wish: Option<&AccountName>) -> Result<Permit, Denied> {
        let terms = self.terms_of(who, route, wish)?;
        let seat = Seats::take(&self.seats, who.name(), terms.max_sessions).ok_or(Denied::TooManySessions)?;
        Ok(Permit::new(who, route, terms, Some(seat)))
    }

    /// Decides whether a client may send a single request, and with which account, as [`Policy::authorize`] does for a
    /// session. Takes no seat: a request is no session, and what bounds requests is their queue.
    pub fn permit_request(&self, who: &Principal, route: &Route, wish: Option<&AccountName>) -> Result<Permit, Denied> {
        let terms = self.terms_of(who, route, wish)?;
        Ok(Permit::new(who, route, terms, None))
    }

    fn terms_of(&self, who: &Principal, route: &Route, wish: Option<&AccountName>) -> Result<Terms, Denied> {
        self.check_generation(who.name(), who.generation())?;
        let wish = Wish::of(who, wish)?;
        self.terms(who.name(), who.method(), who.scope(), route, wish)
    }

    /// Judges a permit anew, for a client that proved itself again. It keeps its seat and its account.
    pub fn renew(&self, permit: &mut Permit, who: &Principal, route: &Route) -> Result<(), Denied> {
        self.check_generation(who.name(), who.generation())?;
        let wish = Wish::same_as(permit);
        if who.account().is_some_and(|bound| permit.account() != Some(bound)) {
            return Err(Denied::NotThatAccount);
        }
        let terms = self.terms(who.name(), who.method(), who.scope(), route, wish)?;
        if terms.sub_accounts != permit.sub_accounts {
            // What the session has been told to keep from its client would no longer be what it has to.
            return Err(Denied::NotThatAccount);
        }
        permit.method = who.method();
        permit.scope = terms.scope;
        permit.ends_at = who.ends_at();
        permit.generation = who.generation();
        Ok(())
    }

    fn terms(
        &self,
        name: &ClientName,
        method: Method,
        asked: Option<Scope>,
        route: &Route,
        wish: Wish<'_>,
    ) -> Result<Terms, Denied> {
        let venue = route.venue.name();
        let fitting = || self.grants.iter().filter(|grant| grant.client.matches(name, method));
        let at_venue = |account: &AccountName| self.accounts.get(account) == Some(&venue);

        let mut accounts: Vec<&AccountName> =
            fitting().filter_map(|grant| grant.account.as_ref()).filter(|account| at_venue(account)).collect();
        accounts.sort();
        accounts.dedup();
        let account = match wish {
            Wish::This(wish) => Some(*accounts.iter().find(|account| **account == wish).ok_or(Denied::NotThatAccount)?),
            Wish::Any if accounts.len() > 1 => {
                return Err(Denied::WhichAccount(accounts.into_iter().cloned().collect()));
            }
            Wish::Any => accounts.first().copied(),
            Wish::None => None,
        };

        let applying: Vec<&Grant> = fitting()
            .filter(|grant| match &grant.account {
                Some(granted) => Some(granted) == account,
                None => grant.venues.contains(&venue),
            })
            .collect();
        let max_sessions = applying.iter().map(|grant| grant.max_sessions).max().ok_or(Denied::NoGrant)?;
        let granted: Scope = applying.iter().flat_map(|grant| grant.scope.iter()).collect();
        let may = if account.is_some() { granted } else { granted.intersect(Scope::PUBLIC) };
        let asked = asked.unwrap_or_else(|| Right::ALL.into_iter().collect());
        let scope = may.intersect(asked).with(Right::Public);
        Ok(Terms { account: account.cloned(), scope, max_sessions, sub_accounts: shared_by(&applying) })
    }

    /// Refuses a local key or placeholder that was good when it was shown, and no longer is: its client's generation was
    /// raised in between.
    fn check_generation(&self, client: &ClientName, generation: Option<u32>) -> Result<(), Denied> {
        let present = self.generations.get(client).copied().unwrap_or(GENERATION_FIRST);
        if generation.is_some_and(|generation| generation != present) { Err(Denied::NoGrant) } else { Ok(()) }
    }

    /// True if a permit of an earlier policy would be given again. Scopes are not widened or narrowed under a live
    /// session: one whose grant changed ends, and the client comes back.
    pub fn still_grants(&self, permit: &Permit, route: &Route) -> bool {
        if self.check_generation(&permit.client, permit.generation).is_err() {
            return false;
        }
        self.terms(&permit.client, permit.method, None, route, Wish::same_as(permit))
            .is_ok_and(|terms| permit.scope.iter().all(|right| terms.scope.holds(right)) && terms.reach_all_of(permit))
    }

    /// True if a client that proves nothing may use the route for public data.
    pub fn admits_anonymous(&self, route: &Route) -> bool {
        let venue = route.venue.name();
        self.grants.iter().any(|grant| grant.client.is_anonymous() && grant.venues.contains(&venue))
    }

    /// Lets the house act for an account that the policy knows.
    pub fn upkeep(&self, account: &AccountName) -> Option<Upkeep> {
        self.accounts.contains_key(account).then(|| Upkeep { account: account.clone() })
    }
}

impl Permit {
    fn new(who: &Principal, route: &Route, terms: Terms, seat: Option<Seat>) -> Self {
        Self {
            client: who.name().clone(),
            method: who.method(),
            account: terms.account,
            venue: route.venue.name(),
            scope: terms.scope,
            sub_accounts: terms.sub_accounts,
            ends_at: who.ends_at(),
            generation: who.generation(),
            _seat: seat,
        }
    }

    /// Who it is for.
    pub fn client(&self) -> &ClientName {
        &self.client
    }

    /// How the client proved who it is.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The account. `None`: public data alone.
    pub fn account(&self) -> Option<&AccountName> {
        self.account.as_ref()
    }

    /// The venue.
    pub fn venue(&self) -> &'static str {
        self.venue
    }

    /// What the client may do.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// The trading accounts behind the account's keys that the client may touch. `None`: all of them.
    pub fn sub_accounts(&self) -> Option<&[u64]> {
        self.sub_accounts.as_deref()
    }

    /// The first of these trading accounts that the client may not touch. `None`: it may touch all.
    pub fn lacks_sub_account(&self, named: &[u64]) -> Option<u64> {
        let allowed = self.sub_accounts.as_ref()?;
        named.iter().copied().find(|id| !allowed.contains(id))
    }

    /// The first right that these acts need and the permit lacks, at the trading accounts that they are about. `None`:
    /// all are allowed. Which trading account it was is nothing that a client has to learn.
    pub fn lacks_at(&self, acts: Acts, named: &[u64]) -> Option<Right> {
        self.lacks(acts)
            .or_else(|| self.lacks_sub_account(named).map(|_| acts.iter().next().map_or(Right::Read, Act::right)))
    }

    /// When the proof behind it ends.
    pub fn ends_at(&self) -> Option<UnixMillis> {
        self.ends_at
    }

    /// The first right that these acts need and the permit lacks. `None`: all are allowed.
    pub fn lacks(&self, acts: Acts) -> Option<Right> {
        acts.iter().map(crate::scope::Act::right).find(|right| !self.scope.holds(*right))
    }
}

impl Upkeep {
    /// The account.
    pub fn account(&self) -> &AccountName {
        &self.account
    }
}

/// Which account somebody wants to use.
#[derive(Clone, Copy)]
enum Wish<'a> {
    This(&'a AccountName),
    /// The one that fits.
    Any,
    /// None: public data.
    None,
}

impl<'a> Wish<'a> {
    /// What a client may wish: a proof that is bound to an account is for that one, whatever the client names.
    fn of(who: &'a Principal, named: Option<&'a AccountName>) -> Result<Self, Denied> {
        match (who.account(), named) {
            (Some(bound), Some(named)) if bound != named => Err(Denied::NotThatAccount),
            (Some(account), _) | (None, Some(account)) => Ok(Self::This(account)),
            (None, None) => Ok(Self::Any),
        }
    }

    fn same_as(permit: &'a Permit) -> Self {
        permit.account.as_ref().map_or(Wish::None, Wish::This)
    }
}

struct Terms {
    account: Option<AccountName>,
    scope: Scope,
    max_sessions: u32,
    sub_accounts: Option<Vec<u64>>,
}

impl Terms {
    /// True if every trading account of a permit is among these.
    fn reach_all_of(&self, permit: &Permit) -> bool {
        match (&self.sub_accounts, &permit.sub_accounts) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(allowed), Some(used)) => used.iter().all(|id| allowed.contains(id)),
        }
    }
}

/// The trading accounts that all of these grants leave open. What one grant limits, another one to the same client does
/// not open again: its scope may be meant for fewer of them.
fn shared_by(grants: &[&Grant]) -> Option<Vec<u64>> {
    let mut limits = grants.iter().filter_map(|grant| grant.sub_accounts.as_ref());
    let mut shared = limits.next()?.clone();
    for limit in limits {
        shared.retain(|id| limit.contains(id));
    }
    Some(shared)
}

/// How many sessions each client has, counted from permit to the end of the session.
#[derive(Debug, Default)]
struct Seats(Mutex<HashMap<ClientName, u32>>);

#[derive(Debug)]
struct Seat {
    seats: Arc<Seats>,
    client: ClientName,
}

impl Seats {
    fn take(seats: &Arc<Self>, client: &ClientName, max: u32) -> Option<Seat> {
        let mut taken = seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(client.clone()).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Seat { seats: Arc::clone(seats), client: client.clone() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests;
