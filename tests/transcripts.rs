//! Plays every file under `tests/transcripts` through a session, and compares what it does.
//!
//! A venue is tested by adding a file; no code is needed. A transcript is text: a line at the left margin lets
//! something happen, and the indented lines under it are everything that has to come of it, in order.
//!
//! ```text
//! route kraken private native      how the client came in: venue, endpoint, `native` or `path`
//! scope read,trade                 what its grant says
//! account none                     (optional) the grant names no account
//! upgraded                         the client was permitted with the upgrade, and the exchange's socket is open
//! anonymous                        (optional) public data is open to everybody
//! first message                    the client has still to say who it is
//! arrived                          its socket is open
//! client <text> / upstream <text>  a text message
//! binary client                    a binary message of the client
//! proved <name> / not proved       the answer to `authenticate`
//! dialled                          the exchange's socket is open
//! token <text> / nonce <number>    what `need token` or `need nonce` asked for
//! not fresh                        it is not to be had
//! grants none / grants same        the policy is another one: without any grant, or the same
//! wait <seconds>                   time passes; the session is woken if it asked for that
//! ```
//!
//! The byte that ends a record of SignalR (0x1E) is written `␞`.

use countersign::credential::{SecretFormat, Signer};
use countersign::fault;
use countersign::fresh::{Fresh, Nonce, Token, TokenId, UnixMillis};
use countersign::identity::jwt::{self, JwtAlgorithm, JwtKey, JwtKeys, JwtSettings, Mint};
use countersign::identity::{self, NotAuthenticated, Principal, Proof, TrustedKeys};
use countersign::message::{Kind, Message};
use countersign::names::{AccountName, ClientName, SessionId};
use countersign::policy::{ClientPattern, Grant, Policy};
use countersign::scope::{Right, Scope};
use countersign::secret::Secret;
use countersign::session::{Action, Event, Limits, Rules, Session};
use countersign::venue::rest::Subjects;
use countersign::venue::{self, Manner, Route};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// 2023-11-14T22:13:20Z.
const START: UnixMillis = UnixMillis(1_700_000_000_000);

#[test]
fn every_transcript_holds() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/transcripts");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        // `rest` holds transcripts of another kind, with a test of their own.
        if path.is_dir() {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a text file");
        let played = play(&text);
        let wanted = without_comments(&text);
        assert_eq!(played, wanted, "\n{} does not hold:\n{}", path.display(), difference(&wanted, &played));
        count += 1;
    }
    assert!(count >= 4, "only {count} transcripts were found");
}

#[test]
fn a_transcript_that_says_something_else_does_not_hold() {
    let text = "route kraken private native\nscope read,trade\n\nupgraded\n    to client {}\n";
    assert_ne!(play(text), without_comments(text));
}

fn without_comments(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with('#')).map(str::trim_end);
    lines.filter(|line| !line.is_empty()).fold(String::new(), |text, line| text + line + "\n")
}

fn difference(wanted: &str, played: &str) -> String {
    let (mut wanted, mut played) = (wanted.lines(), played.lines());
    loop {
        match (wanted.next(), played.next()) {
            (None, None) => return String::new(),
            (wanted, played) if wanted == played => {}
            (wanted, played) => return format!("wanted: {}\nplayed: {}", wanted.unwrap_or("-"), played.unwrap_or("-")),
        }
    }
}

/// What the transcript would say if all its indented lines were right.
fn play(text: &str) -> String {
    let mut stage = Stage::default();
    let mut played = String::new();
    for line in without_comments(text).lines().filter(|line| !line.starts_with(' ')) {
        played.push_str(line);
        played.push('\n');
        for done in stage.direct(line) {
            writeln!(played, "    {done}").expect("a string takes all");
        }
    }
    played
}

#[derive(Default)]
struct Stage {
    route: Option<Route>,
    scope: Scope,
    has_no_account: bool,
    is_open_to_anybody: bool,
    session: Option<Session>,
    policy: Option<Arc<Policy>>,
    tokens: u64,
    waited: Duration,
}

impl Stage {
    fn now(&self) -> UnixMillis {
        START.plus(self.waited)
    }

    fn direct(&mut self, line: &str) -> Vec<String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (word, rest) {
            ("route", _) => {
                self.route = Some(route(rest));
                Vec::new()
            }
            ("scope", _) => {
                self.scope = rest.split(',').map(|word| Right::parse(word).expect("a right")).collect();
                Vec::new()
            }
            ("account", "none") => {
                self.has_no_account = true;
                Vec::new()
            }
            ("upgraded", _) => {
                let (route, policy) = (self.route.expect("a route comes first"), self.policy());
                let who = proved("bot-a", self.now());
                let permit = policy.authorize(&who, &route, None).expect("the grant fits");
                let id = SessionId::from_random(1);
                self.session = Some(Session::permitted(id, route, rules(policy), permit));
                self.happen(Event::Dialled)
            }
            ("first", "message") => {
                let (route, policy) = (self.route.expect("a route comes first"), self.policy());
                let id = SessionId::from_random(1);
                self.session = Some(Session::unproved(id, route, rules(policy), self.now()));
                Vec::new()
            }
            ("anonymous", _) => {
                self.is_open_to_anybody = true;
                Vec::new()
            }
            ("arrived", _) => self.happen(Event::Arrived),
            ("client", _) => self.happen(Event::FromClient(Message::text(rest.replace('␞', "\u{1e}")))),
            ("binary", "client") => {
                self.happen(Event::FromClient(Message::from_peer(Kind::Binary, b"\x00\x01"[..].into())))
            }
            ("upstream", _) => {
                let text = rest.replace('␞', "\u{1e}");
                if self.session().watches(text.as_bytes()) {
                    self.happen(Event::FromUpstream(Message::text(text)))
                } else {
                    vec!["passes unread".to_owned()]
                }
            }
            ("proved", name) => {
                let who = proved(name, self.now());
                self.happen(Event::Authenticated(Ok(who)))
            }
            ("not", "proved") => self.happen(Event::Authenticated(Err(NotAuthenticated::Signature))),
            ("not", "fresh") => self.happen(Event::NotFresh(countersign::session::End::TokenUnavailable)),
            ("dialled", _) => self.happen(Event::Dialled),
            ("token", text) => {
                self.tokens += 1;
                let secret = Secret::from(text.to_owned());
                let token =
                    Token { id: TokenId(self.tokens), secret, expires_at: self.now().plus(Duration::from_secs(900)) };
                self.fresh(Fresh { now: self.now(), nonce: None, token: Some(token) })
            }
            ("nonce", number) => {
                let nonce = Nonce(number.parse().expect("a number"));
                self.fresh(Fresh { now: self.now(), nonce: Some(nonce), token: None })
            }
            ("grants", "none") => {
                let policy = Arc::new(self.policy().with_grants(Vec::new()));
                self.happen(Event::PolicyChanged(policy))
            }
            ("grants", "same") => {
                let policy = self.policy();
                self.happen(Event::PolicyChanged(policy))
            }
            ("wait", seconds) => {
                self.waited += Duration::from_secs(seconds.parse().expect("a number"));
                let now = self.now();
                let is_due = self.session().wakes_at().is_some_and(|at| at <= now);
                if is_due { self.happen(Event::Wake) } else { Vec::new() }
            }
            _ => panic!("the transcript says `{line}`, which means nothing"),
        }
    }

    fn policy(&mut self) -> Arc<Policy> {
        let venue = self.route.expect("a route comes first").venue.name();
        let account = AccountName::parse("main").expect("a name");
        let grant = Grant {
            client: ClientPattern::parse("bot-a").expect("a pattern"),
            account: (!self.has_no_account).then(|| account.clone()),
            venues: vec![venue],
            scope: self.scope,
            max_sessions: 1,
            sub_accounts: None,
        };
        let anybody = Grant {
            client: ClientPattern::parse("anonymous").expect("a pattern"),
            account: None,
            venues: vec![venue],
            scope: Scope::PUBLIC,
            max_sessions: 1,
            sub_accounts: None,
        };
        let grants = if self.is_open_to_anybody { vec![grant, anybody] } else { vec![grant] };
        let accounts = BTreeMap::from([(account, venue)]);
        Arc::clone(self.policy.get_or_insert_with(|| Arc::new(Policy::new(grants, accounts))))
    }

    fn session(&mut self) -> &mut Session {
        self.session.as_mut().expect("`upgraded` or `first message` comes first")
    }

    fn fresh(&mut self, fresh: Fresh) -> Vec<String> {
        let venue = self.route.expect("a route comes first").venue;
        let secret = match venue.secret_format() {
            Some(SecretFormat::Base64) => "a1I5SFc4cDF1R09WamdiV0E3RnVuQW1HTzhsc1NV",
            _ => "dummysecret",
        };
        let text = |text: &str| Secret::from(text.to_owned());
        let format = venue.secret_format().unwrap_or(SecretFormat::Text);
        let signer = Signer::new(&text("REAL-API-KEY"), &text(secret), format).expect("a credential");
        self.happen(Event::Fresh(Arc::new(signer), fresh))
    }

    fn happen(&mut self, event: Event) -> Vec<String> {
        let now = self.now();
        let mut actions = Vec::new();
        self.session().on(event, now, &mut actions);
        actions.iter().map(shown).collect()
    }
}

fn rules(policy: Arc<Policy>) -> Rules {
    Rules { policy, trusted: Arc::default(), limits: Limits::default() }
}

/// Who shows a good token of 15 minutes.
fn proved(name: &str, now: UnixMillis) -> Principal {
    jwt::install_crypto();
    let secret = Secret::from("a secret of the tests, long enough to be one".to_owned());
    let key = JwtKey::new(None, JwtAlgorithm::HS256, &secret).expect("a key");
    let keys = JwtKeys::new(JwtSettings { keys: vec![key], ..JwtSettings::default() }).expect("settings");
    let subject = ClientName::parse(name).expect("a name");
    let wanted = Mint { subject: &subject, scope: None, lifetime: Duration::from_secs(900), random: [0; 16] };
    let token = keys.mint(&wanted, now).expect("a token");
    identity::authenticate(&Proof::Jwt(token), now, &TrustedKeys::new(Some(keys), None)).expect("a good token")
}

fn route(rest: &str) -> Route {
    let words: Vec<&str> = rest.split(' ').collect();
    let [venue, endpoint, manner] = words[..] else { panic!("`route {rest}` has not three words") };
    let venue = venue::by_name(venue).expect("a venue");
    let endpoint = venue.endpoints().iter().find(|known| known.name == endpoint).expect("an endpoint");
    let manner = if manner == "path" { Manner::Path } else { Manner::Native };
    Route { venue, endpoint, manner }
}

fn shown(action: &Action) -> String {
    let text = |message: &Message| match message.kind() {
        Kind::Text => {
            let text = String::from_utf8(message.payload().to_vec()).expect("text is UTF-8");
            text.replace('\u{1e}', "␞")
        }
        Kind::Binary => format!("{} binary bytes", message.len()),
    };
    match action {
        Action::ToClient(message) => format!("to client {}", text(message)),
        Action::ToUpstream(message) => format!("to upstream {}", text(message)),
        Action::Authenticate(_) => "authenticate".to_owned(),
        Action::Dial => "dial".to_owned(),
        Action::Risen => "risen".to_owned(),
        Action::TokenEnded => "token ended".to_owned(),
        Action::NeedNonce => "need nonce".to_owned(),
        Action::LoginSettled(outcome) => format!("login settled {outcome:?}"),
        Action::NeedToken(None) => "need token".to_owned(),
        Action::NeedToken(Some(refused)) => format!("need token, {} was refused", refused.0),
        Action::Withdraw(Subjects::Named(names)) => format!("withdraw {}", names.join(" ")),
        Action::Withdraw(_) => "withdraw all".to_owned(),
        Action::Opened => "opened".to_owned(),
        Action::Refused(refused) => format!("refused {} {}", refused.slug, refused.operation).trim_end().to_owned(),
        Action::Close(end) => format!("close {}", fault::slug(*end)),
    }
}
