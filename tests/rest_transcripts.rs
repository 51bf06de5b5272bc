//! Plays every file under `tests/transcripts/rest` through a venue's REST API, and compares what it does.
//!
//! A transcript is text. What stands at the left margin happens, and the indented lines under it are everything that
//! has to come of it, in order. Key and nonce are the same in every file, so that each signature can be computed anew.
//!
//! ```text
//! venue kraken rest                venue and endpoint, from here on
//! POST /0/private/Balance          a client's request: method, path and query,
//! content-type: application/json   its headers,
//! body {"nonce":1}                 and its body
//! told 200 {"error":[]}            the exchange's answer to a signed request
//! unanswered busy                  there is none: `busy`, `withdrawn`, `unavailable`, `maybe-sent`, `replayed`, `denied`,
//!                                  `unauthenticated`
//! token <placeholder> <seconds>    the placeholder that answers a request for a token
//! logged-out                       the placeholder that it gave up is no longer taken
//! negotiated <number>              the random number that answers how to open a socket
//! narrowed 1,2 {"accounts":[]}     the exchange's answer, for a client that may use these trading accounts
//! ```

use bytes::Bytes;
use countersign::credential::{SecretFormat, Signer};
use countersign::fresh::{Nonce, UnixMillis};
use countersign::scope::Right;
use countersign::secret::Secret;
use countersign::venue::rest::{Given, Handling, Rest, RestAnswer, RestRequest, Subjects, Unanswered};
use countersign::venue::{self, ClientLogin, Endpoint, Refusal, SignedRequest, Venue};
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Method};
use std::fmt::Write as _;
use std::time::Duration;

#[test]
fn every_rest_transcript_holds() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/transcripts/rest");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a text file");
        let (played, wanted) = (play(&text), without_comments(&text));
        assert_eq!(played, wanted, "\n{} does not hold", path.display());
        count += 1;
    }
    assert!(count >= 2, "only {count} transcripts were found");
}

#[test]
fn a_transcript_that_says_something_else_does_not_hold() {
    let text = "venue kraken rest\nGET /0/public/Time\n    sent signed\n";
    assert_ne!(play(text), without_comments(text));
}

fn without_comments(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with('#')).map(str::trim_end);
    lines.filter(|line| !line.is_empty()).fold(String::new(), |text, line| text + line + "\n")
}

/// The transcript as the program would have written it.
fn play(text: &str) -> String {
    let text = without_comments(text);
    let mut lines = text.lines().filter(|line| !line.starts_with(' ')).peekable();
    let mut played = String::new();
    let mut player: Option<Player> = None;
    while let Some(line) = lines.next() {
        writeln!(played, "{line}").expect("a String takes every write");
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if word == "venue" {
            player = Some(Player::new(rest));
            continue;
        }
        let player = player.as_mut().expect("`venue` comes first");
        let comes_of_it = match word {
            "told" => {
                let (status, body) = rest.split_once(' ').unwrap_or((rest, ""));
                let status = status.parse().expect("a status");
                format!("    {:?}\n", player.rest.outcome(status, body.as_bytes()))
            }
            "unanswered" => told(&player.rest.refuse(player.last.as_ref(), unanswered(rest))),
            "token" => {
                let (placeholder, seconds) = rest.split_once(' ').expect("a placeholder and its life");
                let lives = Duration::from_secs(seconds.parse().expect("seconds"));
                let (now, placeholder) = (UnixMillis(0), Secret::from(placeholder.to_owned()));
                let given = Given::Token { placeholder: &placeholder, ends_at: now.plus(lives), now };
                player.answered(given)
            }
            "logged-out" => player.answered(Given::LoggedOut),
            "negotiated" => player.answered(Given::Negotiated(rest.parse().expect("a number"))),
            "narrowed" => {
                let (allowed, body) = rest.split_once(' ').expect("accounts and a body");
                let allowed: Vec<u64> = allowed.split(',').map(|id| id.parse().expect("an id")).collect();
                let request = player.last.as_ref().expect("a request comes first");
                match player.rest.narrow(request, body.as_bytes(), &allowed) {
                    Some(narrowed) => format!("    {}\n", String::from_utf8_lossy(&narrowed)),
                    None => "    as it is\n".to_owned(),
                }
            }
            method => {
                let mut headers = HeaderMap::new();
                let mut body = "";
                while let Some(line) = lines.next_if(|line| line.starts_with("body ") || is_header(line)) {
                    writeln!(played, "{line}").expect("a String takes every write");
                    if let Some(text) = line.strip_prefix("body ") {
                        body = text;
                    } else if let Some((name, value)) = line.split_once(": ") {
                        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header's name");
                        headers.append(name, HeaderValue::from_str(value).expect("a header's value"));
                    }
                }
                player.request(method, rest, headers, body)
            }
        };
        played.push_str(&comes_of_it);
    }
    played
}

fn is_header(line: &str) -> bool {
    line.split_once(": ").is_some_and(|(name, _)| !name.contains(' '))
}

fn unanswered(word: &str) -> Unanswered {
    match word {
        "busy" => Unanswered::Busy,
        "withdrawn" => Unanswered::Withdrawn,
        "unavailable" => Unanswered::Unavailable,
        "maybe-sent" => Unanswered::MaybeSent,
        "replayed" => Unanswered::Refused(Refusal::Replayed),
        "denied" => Unanswered::Refused(Refusal::NotPermitted(Right::Trade)),
        "unauthenticated" => Unanswered::Refused(Refusal::NotAuthenticated),
        _ => panic!("unanswered for what reason: {word}"),
    }
}

fn told(answer: &RestAnswer) -> String {
    format!("    to client {} {}\n", answer.status, answer.body)
}

struct Player {
    rest: &'static dyn Rest,
    endpoint: &'static Endpoint,
    signer: Signer,
    nonce: Nonce,
    /// The request that was asked last.
    last: Option<RestRequest>,
}

impl Player {
    fn new(named: &str) -> Self {
        let (venue, endpoint) = named.split_once(' ').expect("a venue and an endpoint");
        let venue: &'static dyn Venue = venue::by_name(venue).expect("a venue");
        let endpoint = venue.endpoints().iter().find(|known| known.name == endpoint).expect("an endpoint");
        let format = venue.secret_format().expect("a venue with keys");
        // The published secret of Kraken; as good a text for others.
        let (secret, nonce) = match format {
            SecretFormat::Base64 => (
                "kQH5HW/8p1uGOVjbgWA7FunAmGO8lsSUXNsu3eow76sz84Q18fWxnyRzBHCd3pd5nE9qa99HAZtuZuj6F1huXg==",
                Nonce(1_616_492_376_594),
            ),
            SecretFormat::Text => ("dummysecret", Nonce(1_616_492_376_594_000)),
        };
        let text = |text: &str| Secret::from(text.to_owned());
        let signer = Signer::new(&text("REAL-KEY"), &text(secret), format).expect("a credential");
        Self { rest: venue.rest().expect("a venue with a REST API"), endpoint, signer, nonce, last: None }
    }

    fn asked(&self, method: &str, target: &str, headers: HeaderMap, body: &str) -> RestRequest {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        RestRequest {
            endpoint: self.endpoint,
            method: Method::from_bytes(method.as_bytes()).expect("a method"),
            path: path.to_owned(),
            query: query.map(str::to_owned),
            headers,
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    fn answered(&self, given: Given<'_>) -> String {
        told(&self.rest.answer(self.last.as_ref().expect("a request comes first"), given))
    }

    fn request(&mut self, method: &str, target: &str, headers: HeaderMap, body: &str) -> String {
        let request = self.asked(method, target, headers, body);
        let request = &*self.last.insert(request);
        let reading = match self.rest.read(request) {
            Ok(reading) => reading,
            Err(why) => {
                let answer = told(&self.rest.refuse(Some(request), Unanswered::Refused(why)));
                return format!("    refused {}\n{answer}", why.slug());
            }
        };
        let mut told = String::new();
        let acts: Vec<_> = reading.acts.iter().map(|act| format!("{act:?}").to_lowercase()).collect();
        line(&mut told, &format!("does {} {}", reading.operation, acts.join(",")));
        if !reading.sub_accounts.is_empty() {
            line(&mut told, &format!("uses accounts {:?}", reading.sub_accounts));
        }
        match &reading.subjects {
            Subjects::None => {}
            Subjects::All => line(&mut told, "about all"),
            Subjects::Named(names) => line(&mut told, &format!("about {}", names.join(" "))),
        }
        match &reading.shown {
            None => {}
            Some(ClientLogin::Token(_)) => line(&mut told, "shows a token"),
            Some(ClientLogin::Key { api_key, .. }) => line(&mut told, &format!("shows the key of {api_key}")),
            // Whoever signs here with the account's own secret signs rightly: what is signed is under test.
            Some(ClientLogin::Signed(login)) => {
                let verdict = if login.is_by(&self.signer) { "good" } else { "other" };
                line(&mut told, &format!("shows {} {} {verdict}", login.api_key, login.nonce));
            }
        }
        let token = Secret::from("REAL-TOKEN".to_owned());
        match reading.handling {
            Handling::Local(_) => line(&mut told, "answered here"),
            Handling::Bearer => {
                sent(&mut told, &self.rest.bear(request, &reading, &token));
            }
            Handling::Public => sent(&mut told, &self.rest.pass(request)),
            Handling::Signed => sent(&mut told, &self.rest.sign(request, &reading, &self.signer, self.nonce)),
        }
        told
    }
}

fn sent(told: &mut String, request: &SignedRequest) {
    line(told, &format!("sent {} {} {}", request.endpoint, request.method, request.path));
    for (name, value) in &request.headers {
        // The version would change every file with every release.
        if *name != "user-agent" {
            line(told, &format!("{name}: {}", String::from_utf8_lossy(value.expose())));
        }
    }
    if !request.body.is_empty() {
        line(told, &format!("body {}", String::from_utf8_lossy(&request.body)));
    }
}

fn line(told: &mut String, text: &str) {
    writeln!(told, "    {text}").expect("a String takes every write");
}
