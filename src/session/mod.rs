//! One client and one exchange: what happens next. The only place where a message's rights are checked.
//!
//! Pure: [`Event`]s and the time in, [`Action`]s out. The relay owns the sockets and does the actions. Not for REST
//! requests: each of those is judged by itself, in `http`.
//!
//! ```text
//!            unproved ──login──> judging ──permit──> dialling ──open──> logging in ──ready──> open
//!  proved at the upgrade ─────────────────────────────────^                 ^──token refused──┘
//! ```
//!
//! Until `open`, one message of the client is held, and no other is taken. A client that is nobody to us may be let in
//! for public data; once it proves who it is, it rises: the same socket goes on under its own permit.

mod arrival;
mod end;
mod notice;
mod scrub;

pub use end::{Blame, End, Refused};
pub use scrub::Scrub;

use crate::credential::Signer;
use crate::fresh::{Fresh, TokenId, UnixMillis};
use crate::identity::first_message::{FIRST_MESSAGE_BYTES_MAX, FirstMessage, read_first_message};
use crate::identity::{Method, NotAuthenticated, Principal, Proof, TrustedKeys};
use crate::message::Message;
use crate::names::{AccountName, SessionId};
use crate::policy::{Permit, Policy};
use crate::scope::Scope;
use crate::secret::Secret;
use crate::venue::rest::Subjects;
use crate::venue::{self, Dialect, Login, LoginOutcome, Manner, Refusal, Route, Step, Steps, Watch};
use arrival::Shown;
use std::sync::Arc;
use std::time::Duration;

/// The times that a session keeps.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a client that has to log in by its first message may take.
    pub auth_timeout: Duration,
    /// How long an unproved client may be silent where the venue asks for no login.
    pub unproved_idle: Duration,
    /// How long a login at the exchange may take, tokens and nonces included.
    pub login_timeout: Duration,
    /// How long before its end a session is told so.
    pub expiry_notice: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            auth_timeout: Duration::from_secs(30),
            unproved_idle: Duration::from_secs(60),
            login_timeout: Duration::from_secs(10),
            expiry_notice: Duration::from_secs(60),
        }
    }
}

/// What a session judges by.
#[derive(Clone)]
pub struct Rules {
    /// Who may do what; replaced by [`Event::PolicyChanged`].
    pub policy: Arc<Policy>,
    /// What proofs are checked against.
    pub trusted: Arc<TrustedKeys>,
    /// The times that it keeps.
    pub limits: Limits,
}

/// What happens to a session.
pub enum Event {
    /// The client's socket is open.
    Arrived,
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
    /// The socket that was opened for nobody is from now on that of [`Session::permit`].
    Risen,
    /// Lease the next nonce of the account.
    NeedNonce,
    /// The lease ends, because the exchange answered.
    LoginSettled(LoginOutcome),
    /// Obtain the account's token, and not the one that was refused.
    NeedToken(Option<TokenId>),
    /// The token with which the socket was opened has ended: have another one bought.
    TokenEnded,
    /// Take these orders of the client's back, where they wait for their turn in the account's queue: a cancel of them
    /// is about to go.
    Withdraw(Subjects),
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
    rules: Rules,
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
    /// Public requests of a client that has not proved itself yet.
    parked: Vec<Message>,
    /// True while the proof that is verified is the venue's own, in the message that is held.
    is_native_proof: bool,
    /// The venue's own token that this client showed last, and that was looked at.
    known_token: Option<Secret>,
    /// What the exchange said before a client that waits for `connected` was told it.
    early: Vec<Message>,
    deadline: Option<(UnixMillis, End)>,
    scrub: Scrub,
    steps: Steps,
}

impl Session {
    /// A session whose client has still to say who it is.
    pub fn unproved(id: SessionId, route: Route, rules: Rules, now: UnixMillis) -> Self {
        let mut session = Self::new(id, route, rules);
        session.speaks_to_us = route.manner == Manner::Path;
        let limit =
            if session.speaks_to_us { session.rules.limits.auth_timeout } else { session.rules.limits.unproved_idle };
        session.deadline = Some((now.plus(limit), End::AuthenticationTimeout));
        session
    }

    /// The same, whose client has named an account with the upgrade already.
    #[must_use]
    pub fn wishing_for(self, wish: Option<AccountName>) -> Self {
        Self { wish, ..self }
    }

    /// A session whose client was permitted with the upgrade. The exchange's socket is open already: the driver
    /// starts it with [`Event::Dialled`].
    pub fn permitted(id: SessionId, route: Route, rules: Rules, permit: Permit) -> Self {
        let mut session = Self::new(id, route, rules);
        session.speaks_to_us = route.manner == Manner::Path;
        session.permit = Some(permit);
        session.phase = Phase::Dialling;
        session
    }

    fn new(id: SessionId, route: Route, rules: Rules) -> Self {
        Self {
            id,
            route,
            rules,
            dialect: route.venue.dialect(route.endpoint),
            phase: Phase::Unproved,
            permit: None,
            wish: None,
            speaks_to_us: false,
            greeted: false,
            expiry_announced: false,
            held: None,
            parked: Vec::new(),
            is_native_proof: false,
            known_token: None,
            early: Vec::new(),
            deadline: None,
            scrub: Scrub::default(),
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
        self.phase != Phase::Open || self.scrub.finds(payload) || self.dialect.watch().wants(payload)
    }

    /// True if that is so of every message, whatever its bytes.
    pub fn watches_everything(&self) -> bool {
        self.phase != Phase::Open || matches!(self.dialect.watch(), Watch::Everything)
    }

    /// When [`Event::Wake`] is due.
    pub fn wakes_at(&self) -> Option<UnixMillis> {
        let deadline = self.deadline.map(|(at, _)| at);
        let ends_at = self.permit.as_ref().and_then(Permit::ends_at);
        let notice = ends_at
            .filter(|_| self.speaks_to_us && self.greeted && !self.expiry_announced)
            .map(|end| end.minus(self.rules.limits.expiry_notice));
        [deadline, ends_at, notice, self.dialect.wakes_at()].into_iter().flatten().min()
    }

    /// Lets one thing happen, and appends what is to be done about it.
    pub fn on(&mut self, event: Event, now: UnixMillis, out: &mut Vec<Action>) {
        if self.phase == Phase::Ended {
            return;
        }
        match event {
            Event::Arrived => self.on_arrived(now, out),
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
            Phase::Unproved => self.on_unproved(message, now, out),
            Phase::Open => self.judge(message, now, out),
            Phase::Judging | Phase::Dialling | Phase::LoggingIn => self.held = Some(message),
            Phase::Ended => {}
        }
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
        self.deadline = Some((now.plus(self.rules.limits.login_timeout), End::UpstreamLoginTimeout));
        let sub_accounts = permit.sub_accounts().map(Into::into);
        let opened = venue::Event::Opened { login, scope, sub_accounts, now };
        self.turn(now, out, |dialect, steps| dialect.on_event(opened, steps));
    }

    /// Decides about one message of a client that may talk.
    fn judge(&mut self, message: Message, now: UnixMillis, out: &mut Vec<Action>) {
        // Before the dialect, which may send on whatever it is given: a token of ours is never the exchange's to see. A
        // login with anything else could be that of a server of one's own.
        if self.speaks_to_us && may_hold_token(&message) && self.is_reauthentication(&message, now, out) {
            return;
        }
        let mut reading = self.dialect.read(&message);
        if let Some(shown) = reading.shown.take() {
            match self.look_at(&shown, now) {
                Shown::Known => {}
                Shown::Unverified => return self.prove(message, shown, out),
                Shown::Foreign => return self.refuse(&message, &reading, Refusal::CredentialField, now, out),
            }
        }
        let permit = self.permit.as_ref().expect("a session opens only with a permit");
        let scope = permit.scope();
        let why = match reading.acts {
            Ok(acts) if acts.is_empty() => Refusal::Unknown,
            Ok(acts) => match permit.lacks_at(acts, &reading.sub_accounts) {
                None => {
                    let cancels = std::mem::replace(&mut reading.cancels, Subjects::None);
                    if cancels != Subjects::None && permit.account().is_some() {
                        out.push(Action::Withdraw(cancels));
                    }
                    return self.turn(now, out, |dialect, steps| dialect.forward(message, &reading, scope, now, steps));
                }
                Some(right) => Refusal::NotPermitted(right),
            },
            Err(why) => why,
        };
        if why == Refusal::Unknown && self.is_reauthentication(&message, now, out) {
            return;
        }
        self.refuse(&message, &reading, why, now, out);
    }

    /// A login in an open session proves the client anew.
    fn is_reauthentication(&mut self, message: &Message, now: UnixMillis, out: &mut Vec<Action>) -> bool {
        let FirstMessage::Login { token, account } = read_first_message(message) else { return false };
        if let Some(permit) = self.permit.as_ref().filter(|permit| permit.method() == Method::NoAuth) {
            out.push(Action::ToClient(notice::connected(self.id, permit, now)));
            return true;
        }
        self.judge_login(token, account, out);
        true
    }

    fn on_upstream(&mut self, mut message: Message, now: UnixMillis, out: &mut Vec<Action>) {
        message = self.scrub.clean(message);
        if self.phase == Phase::Open && !self.dialect.watch().wants(message.payload()) {
            return out.push(Action::ToClient(message));
        }
        self.turn(now, out, |dialect, steps| dialect.on_upstream(message, steps));
    }

    fn on_policy(&mut self, policy: Arc<Policy>, out: &mut Vec<Action>) {
        self.rules.policy = policy;
        let still_granted =
            self.permit.as_ref().is_none_or(|permit| self.rules.policy.still_grants(permit, &self.route));
        if !still_granted {
            self.close(End::GrantRemoved, out);
        }
    }

    fn on_wake(&mut self, now: UnixMillis, out: &mut Vec<Action>) {
        if self.dialect.wakes_at().is_some_and(|at| at <= now) {
            self.turn(now, out, |dialect, steps| dialect.on_event(venue::Event::Wake(now), steps));
        }
        if let Some((_, end)) = self.deadline.filter(|(at, _)| *at <= now) {
            return self.close(end, out);
        }
        let Some((permit, ends_at)) = self.permit.as_ref().and_then(|permit| Some((permit, permit.ends_at()?))) else {
            return;
        };
        if ends_at <= now {
            return self.close(End::TokenExpired, out);
        }
        let is_due = ends_at.since(now) <= self.rules.limits.expiry_notice;
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
                    self.announce(now, out);
                }
                Step::TokenEnded => out.push(Action::TokenEnded),
                Step::LoginRefused => self.close(End::UpstreamAuthRejected, out),
                Step::ClientIdle => self.close(End::ClientIdle, out),
                Step::ProtocolBroken => self.close(End::UpstreamProtocol, out),
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
        self.deadline = Some((now.plus(self.rules.limits.login_timeout), End::UpstreamLoginTimeout));
    }

    /// Says once that the session is open: to the log, and to a client that speaks to us.
    fn announce(&mut self, now: UnixMillis, out: &mut Vec<Action>) {
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

    /// Overwrites the secret wherever the exchange sends it from now on.
    pub fn guard(&mut self, secret: &Secret) {
        self.scrub.guard(secret);
    }

    fn close(&mut self, end: End, out: &mut Vec<Action>) {
        self.phase = Phase::Ended;
        self.held = None;
        out.push(Action::Close(end));
    }
}

/// Kraken says one frame before a login, Bitfinex one, or three while it restarts.
const EARLY_MAX: usize = 64;
/// How every JWT begins as a JSON text: `{"` in base64url.
const JWT_IN_JSON: &[u8] = b"\"eyJ";

/// True if the message could be a login with a JWT; cheap enough for every message.
fn may_hold_token(message: &Message) -> bool {
    message.len() <= FIRST_MESSAGE_BYTES_MAX
        && message.payload().first() == Some(&b'{')
        && memchr::memmem::find(message.payload(), JWT_IN_JSON).is_some()
}
