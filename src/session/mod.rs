//! One client and one exchange: what happens next. The only place where a message's rights are checked.
//!
//! Pure: [`Event`]s and the time in, [`Action`]s out. The relay owns the sockets and does the actions.
//!
//! ```text
//!            unproved ──login──> judging ──permit──> dialling ──open──> logging in ──ready──> open
//!  proved at the upgrade ─────────────────────────────────^                 ^──token refused──┘
//! ```
//!
//! Until `open`, one message of the client is held, and no other is taken.

mod end;
mod notice;

pub use end::{Blame, End, Refused};

use crate::credential::Signer;
use crate::fresh::{Fresh, TokenId, UnixMillis};
use crate::identity::first_message::{FirstMessage, read_first_message};
use crate::identity::{Method, NotAuthenticated, Principal, Proof};
use crate::message::{Kind, Message};
use crate::names::{AccountName, SessionId};
use crate::policy::{Denied, Permit, Policy};
use crate::scope::Scope;
use crate::secret::Secret;
use crate::venue::{self, Dialect, Login, LoginOutcome, Manner, Refusal, Route, Step, Steps, Watch};
use memchr::memmem::Finder;
use std::sync::Arc;
use std::time::Duration;

/// The times that a session keeps.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long an unproved client may take to log in.
    pub auth_timeout: Duration,
    /// How long a login at the exchange may take, tokens and nonces included.
    pub login_timeout: Duration,
    /// How long before its end a session is told so.
    pub expiry_notice: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            auth_timeout: Duration::from_secs(30),
            login_timeout: Duration::from_secs(10),
            expiry_notice: Duration::from_secs(60),
        }
    }
}

/// What happens to a session.
pub enum Event {
    /// The client sent a whole message.
    FromClient(Message),
    /// The exchange sent a message that [`Session::watches`] wants read.
    FromUpstream(Message),
    /// The answer to [`Action::Authenticate`].
    Authenticated(Result<Principal, NotAuthenticated>),
    /// The exchange's socket is open: the answer to [`Action::Dial`].
    Dialled,
    /// What [`Action::NeedNonce`] or [`Action::NeedToken`] asked for.
    Fresh(Arc<Signer>, Fresh),
    /// What was asked for is not to be had, and how a session ends that cannot do without.
    NotFresh(End),
    /// The policy is another one now.
    PolicyChanged(Arc<Policy>),
    /// The moment of [`Session::wakes_at`] has come.
    Wake,
}

/// What a session wants done.
#[derive(Debug)]
pub enum Action {
    /// Send this to the client.
    ToClient(Message),
    /// Send this to the exchange.
    ToUpstream(Message),
    /// Find out who this is.
    Authenticate(Proof),
    /// Open the exchange's socket under [`Session::permit`].
    Dial,
    /// Lease the next nonce of the account.
    NeedNonce,
    /// The lease ends, because the exchange answered.
    LoginSettled(LoginOutcome),
    /// Obtain the account's token, and not the one that was refused.
    NeedToken(Option<TokenId>),
    /// Write the log line that the session is open.
    Opened,
    /// Write to the log that a message was refused.
    Refused(Refused),
    /// End the session.
    Close(End),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Unproved,
    Judging,
    Dialling,
    LoggingIn,
    Open,
    Ended,
}

/// The state of one session.
pub struct Session {
    id: SessionId,
    route: Route,
    limits: Limits,
    policy: Arc<Policy>,
    dialect: Box<dyn Dialect>,
    phase: Phase,
    permit: Option<Permit>,
    /// The account that the client named, with the upgrade or when it logged in.
    wish: Option<AccountName>,
    /// True if the client logged in by a message of ours, and so understands our notices.
    speaks_to_us: bool,
    greeted: bool,
    expiry_announced: bool,
    held: Option<Message>,
    /// What the exchange said before a client that waits for `connected` was told it.
    early: Vec<Message>,
    deadline: Option<(UnixMillis, End)>,
    guards: Vec<Finder<'static>>,
    steps: Steps,
}

impl Session {
    /// A session whose client has still to say who it is.
    pub fn unproved(id: SessionId, route: Route, policy: Arc<Policy>, limits: Limits, now: UnixMillis) -> Self {
        let mut session = Self::new(id, route, policy, limits);
        session.speaks_to_us = true;
        session.deadline = Some((now.plus(session.limits.auth_timeout), End::AuthenticationTimeout));
        session
    }

    /// The same, whose client has named an account with the upgrade already.
    #[must_use]
    pub fn wishing_for(self, wish: Option<AccountName>) -> Self {
        Self { wish, ..self }
    }

    /// A session whose client was permitted with the upgrade. The exchange's socket is open already: the driver
    /// starts it with [`Event::Dialled`].
    pub fn permitted(id: SessionId, route: Route, policy: Arc<Policy>, limits: Limits, permit: Permit) -> Self {
        let mut session = Self::new(id, route, policy, limits);
        session.speaks_to_us = route.manner == Manner::Path;
        session.permit = Some(permit);
        session.phase = Phase::Dialling;
        session
    }

    fn new(id: SessionId, route: Route, policy: Arc<Policy>, limits: Limits) -> Self {
        Self {
            id,
            route,
            limits,
            policy,
            dialect: route.venue.dialect(route.endpoint),
            phase: Phase::Unproved,
            permit: None,
            wish: None,
            speaks_to_us: false,
            greeted: false,
            expiry_announced: false,
            held: None,
            early: Vec::new(),
            deadline: None,
            guards: Vec::new(),
            steps: Steps::new(),
        }
    }

    /// What the session is called.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Where the client came in.
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// The permit, once there is one.
    pub fn permit(&self) -> Option<&Permit> {
        self.permit.as_ref()
    }

    /// How many orders and cancels the exchange has not answered.
    pub fn unanswered(&self) -> usize {
        self.dialect.unanswered()
    }

    /// True if the client's next message may be given to [`Session::on`].
    pub fn reads_client(&self) -> bool {
        self.held.is_none() && self.phase != Phase::Ended
    }

    /// True if a message of the exchange with these bytes must be given to [`Session::on`]; all others go to the
    /// client as they are.
    pub fn watches(&self, payload: &[u8]) -> bool {
        self.phase != Phase::Open
            || self.guards.iter().any(|guard| guard.find(payload).is_some())
            || self.dialect.watch().wants(payload)
    }

    /// True if no message of the exchange has to be read at all.
    pub fn watches_nothing(&self) -> bool {
        self.phase == Phase::Open && self.guards.is_empty() && matches!(self.dialect.watch(), Watch::Nothing)
    }

    /// When [`Event::Wake`] is due.
    pub fn wakes_at(&self) -> Option<UnixMillis> {
        let deadline = self.deadline.map(|(at, _)| at);
        let ends_at = self.permit.as_ref().and_then(Permit::ends_at);
        let notice = ends_at
            .filter(|_| self.speaks_to_us && self.greeted && !self.expiry_announced)
            .map(|end| end.minus(self.limits.expiry_notice));
        [deadline, ends_at, notice].into_iter().flatten().min()
    }

    /// Lets one thing happen, and appends what is to be done about it.
    pub fn on(&mut self, event: Event, now: UnixMillis, out: &mut Vec<Action>) {
        if self.phase == Phase::Ended {
            return;
        }
        match event {
            Event::FromClient(message) => self.on_client(message, now, out),
            Event::FromUpstream(message) => self.on_upstream(message, now, out),
            Event::Authenticated(outcome) => self.on_authenticated(outcome, now, out),
            Event::Dialled => self.on_dialled(now, out),
            Event::Fresh(signer, fresh) => {
                self.turn(now, out, |dialect, steps| {
                    dialect.on_event(venue::Event::Fresh { signer, fresh }, steps);
                });
            }
            Event::NotFresh(end) => {
                self.turn(now, out, |dialect, steps| dialect.on_event(venue::Event::NotFresh, steps));
                if self.phase == Phase::LoggingIn {
                    self.close(end, out);
                }
            }
            Event::PolicyChanged(policy) => self.on_policy(policy, out),
            Event::Wake => self.on_wake(now, out),
        }
    }

    fn on_client(&mut self, message: Message, now: UnixMillis, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Unproved => self.on_first_message(&message, now, out),
            Phase::Open => self.judge(message, now, out),
            Phase::Judging | Phase::Dialling | Phase::LoggingIn => self.held = Some(message),
            Phase::Ended => {}
        }
    }

    fn on_first_message(&mut self, message: &Message, now: UnixMillis, out: &mut Vec<Action>) {
        match read_first_message(message) {
            FirstMessage::Login { token, account } => self.judge_login(token, account, out),
            FirstMessage::Ping => out.push(Action::ToClient(notice::pong(now))),
            FirstMessage::TokenMissing => self.close(End::TokenMissing, out),
            FirstMessage::NotALogin => self.close(End::AuthenticationRequired, out),
            FirstMessage::TooLong => self.close(End::ClientMessageTooBig, out),
        }
    }

    /// Has the token of a login verified. A client that names two accounts means one of them, and orders on the other
    /// would be real: it gets neither.
    fn judge_login(&mut self, token: Secret, account: Option<AccountName>, out: &mut Vec<Action>) {
        let named = self.permit.as_ref().and_then(Permit::account).or(self.wish.as_ref());
        if account.is_some() && named.is_some() && account.as_ref() != named {
            return self.close(End::AuthenticationFailed, out);
        }
        self.wish = account.or(self.wish.take());
        self.phase = Phase::Judging;
        out.push(Action::Authenticate(Proof::Jwt(token)));
    }

    fn on_authenticated(
        &mut self,
        outcome: Result<Principal, NotAuthenticated>,
        now: UnixMillis,
        out: &mut Vec<Action>,
    ) {
        let who = match outcome {
            Ok(who) => who,
            Err(NotAuthenticated::NoKeys) => return self.close(End::AuthenticationUnavailable, out),
            Err(_) => return self.close(End::InvalidToken, out),
        };
        if self.permit.is_some() {
            return self.renew(&who, now, out);
        }
        match self.policy.authorize(&who, &self.route, self.wish.as_ref()) {
            Ok(permit) => {
                self.permit = Some(permit);
                self.phase = Phase::Dialling;
                self.deadline = None;
                out.push(Action::Dial);
            }
            Err(Denied::TooManySessions) => self.close(End::MaxConnections, out),
            Err(Denied::WhichAccount(accounts)) => {
                out.push(Action::ToClient(notice::which_account(&accounts)));
                self.close(End::AuthenticationFailed, out);
            }
            Err(Denied::NoGrant | Denied::NotThatAccount) => self.close(End::AuthenticationFailed, out),
        }
    }

    /// The client proved itself again: the same client goes on for longer, another one is not let in.
    fn renew(&mut self, who: &Principal, now: UnixMillis, out: &mut Vec<Action>) {
        let permit = self.permit.as_mut().expect("`on_authenticated` renews only what it found");
        if permit.client() != who.name() {
            let by_certificate = permit.method() == Method::Certificate;
            let end = if by_certificate { End::IdentityMismatch } else { End::ReauthIdentityChanged };
            return self.close(end, out);
        }
        if self.policy.renew(permit, who, &self.route).is_err() {
            return self.close(End::AuthenticationFailed, out);
        }
        self.expiry_announced = false;
        out.push(Action::ToClient(notice::connected(self.id, permit, now)));
        self.phase = Phase::Open;
        self.take_up_held(now, out);
    }

    fn on_dialled(&mut self, now: UnixMillis, out: &mut Vec<Action>) {
        let permit = self.permit.as_ref().expect("nothing is dialled without a permit");
        let scope = permit.scope();
        let login = match permit.account() {
            Some(_) if scope == Scope::PUBLIC => Login::Never,
            Some(_) if self.speaks_to_us => Login::AtOnce,
            Some(_) => Login::OnDemand,
            None => Login::Never,
        };
        self.phase = Phase::LoggingIn;
        self.deadline = Some((now.plus(self.limits.login_timeout), End::UpstreamLoginTimeout));
        self.turn(now, out, |dialect, steps| dialect.on_event(venue::Event::Opened { login, scope }, steps));
    }

    /// Decides about one message of a client that may talk.
    fn judge(&mut self, message: Message, now: UnixMillis, out: &mut Vec<Action>) {
        let reading = self.dialect.read(&message);
        let permit = self.permit.as_ref().expect("a session opens only with a permit");
        let scope = permit.scope();
        let why = match reading.acts {
            Ok(acts) if acts.is_empty() => Refusal::Unknown,
            Ok(acts) => match permit.lacks(acts) {
                None => return self.turn(now, out, |dialect, steps| dialect.forward(message, &reading, scope, steps)),
                Some(right) => Refusal::NotPermitted(right),
            },
            Err(why) => why,
        };
        if why == Refusal::Unknown && self.is_reauthentication(&message, out) {
            return;
        }
        let lacking = if let Refusal::NotPermitted(right) = why { Some(right) } else { None };
        out.push(Action::Refused(Refused { slug: why.slug(), operation: reading.operation, lacking }));
        if message.kind() == Kind::Binary && why == Refusal::Malformed {
            return self.close(End::ClientBinary, out);
        }
        self.turn(now, out, |dialect, steps| dialect.refuse(&message, &reading, why, now, steps));
    }

    /// A login in an open session proves the client anew.
    fn is_reauthentication(&mut self, message: &Message, out: &mut Vec<Action>) -> bool {
        let FirstMessage::Login { token, account } = read_first_message(message) else { return false };
        self.judge_login(token, account, out);
        true
    }

    fn on_upstream(&mut self, mut message: Message, now: UnixMillis, out: &mut Vec<Action>) {
        for guard in &self.guards {
            if guard.find(message.payload()).is_some() {
                message = scrubbed(&message, guard);
            }
        }
        if self.phase == Phase::Open && !self.dialect.watch().wants(message.payload()) {
            return out.push(Action::ToClient(message));
        }
        self.turn(now, out, |dialect, steps| dialect.on_upstream(message, steps));
    }

    fn on_policy(&mut self, policy: Arc<Policy>, out: &mut Vec<Action>) {
        self.policy = policy;
        let still_granted = self.permit.as_ref().is_none_or(|permit| self.policy.still_grants(permit, &self.route));
        if !still_granted {
            self.close(End::GrantRemoved, out);
        }
    }

    fn on_wake(&mut self, now: UnixMillis, out: &mut Vec<Action>) {
        if let Some((_, end)) = self.deadline.filter(|(at, _)| *at <= now) {
            return self.close(end, out);
        }
        let Some((permit, ends_at)) = self.permit.as_ref().and_then(|permit| Some((permit, permit.ends_at()?))) else {
            return;
        };
        if ends_at <= now {
            return self.close(End::TokenExpired, out);
        }
        let is_due = ends_at.since(now) <= self.limits.expiry_notice;
        if is_due && self.speaks_to_us && self.greeted && !self.expiry_announced {
            self.expiry_announced = true;
            out.push(Action::ToClient(notice::expiring(permit, ends_at)));
        }
    }

    /// Lets the dialect take a turn, and turns its steps into actions.
    fn turn(&mut self, now: UnixMillis, out: &mut Vec<Action>, take: impl FnOnce(&mut dyn Dialect, &mut Steps)) {
        let mut steps = std::mem::take(&mut self.steps);
        take(&mut *self.dialect, &mut steps);
        let mut is_ready = false;
        for step in steps.drain(..) {
            match step {
                Step::ToUpstream(message) => out.push(Action::ToUpstream(message)),
                Step::ToClient(message) if self.speaks_to_us && !self.greeted => self.keep_early(message, out),
                Step::ToClient(message) => out.push(Action::ToClient(message)),
                Step::NeedNonce => {
                    self.await_login(now);
                    out.push(Action::NeedNonce);
                }
                Step::NeedToken { refused } => {
                    self.await_login(now);
                    out.push(Action::NeedToken(refused));
                }
                Step::LoginSettled(outcome) => out.push(Action::LoginSettled(outcome)),
                Step::Hold(message) => self.held = Some(message),
                Step::Guard(secret) => self.guard(&secret),
                Step::Ready => {
                    is_ready = true;
                    self.greet(now, out);
                }
                Step::LoginRefused => self.close(End::UpstreamAuthRejected, out),
            }
        }
        self.steps = steps;
        if is_ready && self.phase != Phase::Ended {
            self.phase = Phase::Open;
            self.deadline = None;
            self.take_up_held(now, out);
        }
    }

    fn await_login(&mut self, now: UnixMillis) {
        self.phase = Phase::LoggingIn;
        self.deadline = Some((now.plus(self.limits.login_timeout), End::UpstreamLoginTimeout));
    }

    /// Says once that the session is open: to the log, and to a client that speaks to us.
    fn greet(&mut self, now: UnixMillis, out: &mut Vec<Action>) {
        if std::mem::replace(&mut self.greeted, true) {
            return;
        }
        let permit = self.permit.as_ref().expect("no dialect is ready without a permit");
        out.push(Action::Opened);
        if self.speaks_to_us {
            out.push(Action::ToClient(notice::connected(self.id, permit, now)));
            out.extend(self.early.drain(..).map(Action::ToClient));
        }
    }

    /// Keeps what the exchange says during our login. A handful of frames; one that says more is not a venue.
    fn keep_early(&mut self, message: Message, out: &mut Vec<Action>) {
        self.early.push(message);
        if self.early.len() > EARLY_MAX {
            self.close(End::UpstreamProtocol, out);
        }
    }

    fn take_up_held(&mut self, now: UnixMillis, out: &mut Vec<Action>) {
        if let Some(message) = self.held.take() {
            self.judge(message, now, out);
        }
    }

    /// Overwrites the secret from now on, plain and with its slashes escaped as JSON may have them.
    fn guard(&mut self, secret: &Secret) {
        let plain = secret.expose();
        if plain.len() < GUARDED_BYTES_MIN {
            return;
        }
        self.guards.push(Finder::new(plain).into_owned());
        if plain.contains(&b'/') {
            let mut escaped = Vec::with_capacity(plain.len() + 4);
            for byte in plain {
                if *byte == b'/' {
                    escaped.push(b'\\');
                }
                escaped.push(*byte);
            }
            self.guards.push(Finder::new(&escaped).into_owned());
        }
        // Three tokens back nothing is in use any more; the list must not grow with a session's age.
        let surplus = self.guards.len().saturating_sub(GUARDS_MAX);
        self.guards.drain(..surplus);
    }

    fn close(&mut self, end: End, out: &mut Vec<Action>) {
        self.phase = Phase::Ended;
        self.held = None;
        out.push(Action::Close(end));
    }
}

/// Kraken says one frame before a login, Bitfinex one, or three while it restarts.
const EARLY_MAX: usize = 64;
/// Shorter than any key or token of a venue; overwriting something this short would hit ordinary data.
const GUARDED_BYTES_MIN: usize = 8;
/// An API key and three tokens, each in two spellings.
const GUARDS_MAX: usize = 8;

/// The message with every occurrence overwritten by as many `*`.
fn scrubbed(message: &Message, guard: &Finder<'_>) -> Message {
    let mut payload = message.payload().to_vec();
    let hits: Vec<usize> = guard.find_iter(message.payload()).collect();
    for hit in hits {
        payload[hit..hit + guard.needle().len()].fill(b'*');
    }
    Message::from_peer(message.kind(), payload.into())
}
