//! A simulated Kraken, and an account with a lane to it: what tests and measurements of the lane share.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared by programs that use a part each; one that cannot go on should stop"
)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use countersign::certs::{self, Wanted};
use countersign::credential::{SecretFormat, Signer, sha256};
use countersign::fresh::{Nonce, UnixMillis};
use countersign::identity::jwt::{self, JwtAlgorithm, JwtKey, JwtKeys, JwtSettings, Mint};
use countersign::identity::{self, Principal, Proof, TrustedKeys};
use countersign::names::{AccountName, ClientName};
use countersign::policy::{ClientPattern, Grant, Permit, Policy};
use countersign::scope::Right;
use countersign::secret::Secret;
use countersign::simulator::{self, Direction, Faults, Kind, Options, SimKey, kraken::Kraken};
use countersign::store::{MemoryStore, Store};
use countersign::supply::account::{Account, Answered, Call, Class, Limits, NotAnswered, Ordering, Settings, Sign};
use countersign::supply::clock::Clock;
use countersign::tls::{Certificates, ClientRoots, Connector, ServerSettings};
use countersign::upstream::{DialLimits, Door, Resolver, Upstream, Way, read_whole};
use countersign::venue::rest::Subjects;
use countersign::venue::{self, LoginOutcome, Manner, Route, SignedRequest, Venue};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering as Memory};
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// How long anything may take before a test is said to hang. No test waits for it to pass.
pub const PATIENCE: Duration = Duration::from_secs(20);

const API_KEY: &str = "SIMLANE";

/// Clients that may use the account.
pub const CLIENTS: usize = 64;

/// The name of one of them.
pub fn client(number: usize) -> String {
    format!("bot-{number}")
}

/// A folder that goes when the test ends.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Memory::Relaxed);
        let path = std::env::temp_dir().join(format!("countersign-lane-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The exchange's side.
pub struct Exchange {
    pub simulator: simulator::Running<Kraken>,
    pub folder: Folder,
}

impl Exchange {
    /// An exchange whose one key has this nonce window.
    pub async fn open(nonce_window: u64) -> Self {
        countersign::tls::install_crypto();
        let folder = Folder::new();
        let directory = folder.path().join("certs");
        let names = vec!["api.kraken.com".to_owned()];
        let wanted = Wanted { directory: directory.clone(), names, clients: Vec::new(), is_forced: false };
        let now = Clock::System.now();
        certs::ensure(&wanted, now).unwrap();
        let certificates = Certificates::Directory(directory);
        let settings = ServerSettings { certificates, client_authority: None, client_revocations: None };
        let key = SimKey { nonce_window, ..SimKey::new(API_KEY, BASE64.encode([7; 64])) };
        let options = Options::kraken(settings.load(now).unwrap(), vec![key]);
        Self { simulator: simulator::kraken::start(options).await.unwrap(), folder }
    }

    pub fn faults(&self) -> &Faults {
        self.simulator.faults()
    }

    /// The nonces that were accepted, in the order in which they came.
    pub fn nonces(&self) -> Vec<u64> {
        self.simulator.exchange().accepted_nonces(API_KEY)
    }

    pub fn raise_nonce(&self, to: u64) {
        self.simulator.exchange().raise_nonce(API_KEY, to);
    }

    pub fn open_orders(&self) -> usize {
        self.simulator.exchange().open_orders(API_KEY).len()
    }

    /// The paths of the requests that came in, in their order.
    pub fn paths(&self) -> Vec<String> {
        let entries = self.simulator.record().snapshot();
        let paths = entries.iter().filter_map(|entry| match &entry.kind {
            Kind::Request { path, .. } if entry.direction == Direction::Received => Some(path.clone()),
            _ => None,
        });
        paths.collect()
    }

    /// The tags of the requests that came in, in their order.
    pub fn tags(&self) -> Vec<String> {
        let entries = self.simulator.record().snapshot();
        let requests = entries.iter().filter(|entry| matches!(entry.kind, Kind::Request { .. }));
        requests.filter_map(|entry| entry.text().split_once("tag=").map(|(_, tag)| tag.to_owned())).collect()
    }

    /// Asserts that every request came in once, signed well, with a nonce that was taken.
    pub fn assert_in_order(&self) {
        let record = self.simulator.record();
        let said = || record.verdicts().into_iter().take(5).collect::<Vec<_>>();
        assert_eq!(record.nonce_errors(), 0, "{:?}", said());
        assert_eq!(record.signature_errors(), 0, "{:?}", said());
        let tags = self.tags();
        let distinct: BTreeSet<&String> = tags.iter().collect();
        assert_eq!(distinct.len(), tags.len(), "a request came twice");
        let nonces = self.nonces();
        assert!(nonces.is_sorted_by(|before, after| before < after), "nonces came in another order");
    }
}

/// The account's side: what a house would hold.
pub struct Desk {
    pub account: Account,
    pub upstream: Arc<Upstream>,
    pub policy: Policy,
    pub writes: TaskTracker,
}

/// How a desk is set up.
pub struct Setup {
    pub ordering: Ordering,
    pub limits: Limits,
    pub store: Store,
    pub clock: Clock,
}

impl Default for Setup {
    fn default() -> Self {
        let store = Store::Memory(MemoryStore::default());
        Self { ordering: Ordering::Strict, limits: Limits::default(), store, clock: Clock::System }
    }
}

impl Desk {
    /// A desk at an exchange of this process.
    pub fn at(exchange: &Exchange, setup: Setup) -> Self {
        Self::open(exchange.simulator.address(), exchange.folder.path(), setup)
    }

    /// A desk at an exchange, which certified itself in this folder.
    pub fn open(address: SocketAddr, folder: &Path, setup: Setup) -> Self {
        countersign::tls::install_crypto();
        let venue = kraken();
        let name = AccountName::parse("main").unwrap();
        let clients = (0..CLIENTS).map(client);
        let grant = |client: String| Grant {
            client: ClientPattern::parse(&client).unwrap(),
            account: Some(name.clone()),
            venues: Vec::new(),
            scope: [Right::Read, Right::Trade].into_iter().collect(),
            max_sessions: 1,
            sub_accounts: None,
        };
        let policy = Policy::new(clients.map(grant).collect(), BTreeMap::from([(name.clone(), "kraken")]));
        let roots = ClientRoots::Pem(std::fs::read(folder.join("certs/ca.pem")).unwrap());
        let way = Way {
            rest: None,
            socket: None,
            addresses: vec![address],
            connector: Connector::with_roots(&roots).unwrap(),
            is_local_allowed: true,
        };
        let mut upstream = Upstream::new(DialLimits::default(), Resolver::with_servers(Vec::new()));
        upstream.add_account(&name, venue, &way).unwrap();
        let upstream = Arc::new(upstream);
        let writes = TaskTracker::new();
        let settings = Settings {
            upkeep: policy.upkeep(&name).unwrap(),
            name,
            venue,
            signer: signer(),
            nonce_unit: None,
            ordering: setup.ordering,
            upstream: Arc::clone(&upstream),
            limits: setup.limits,
            writes: writes.clone(),
        };
        let (account, _task) = Account::open(settings, Arc::new(setup.store), setup.clock).unwrap();
        Self { account, upstream, policy, writes }
    }

    pub fn permit(&self, client: &str) -> Permit {
        permit(&self.policy, client)
    }

    /// A permit by a proof that ends.
    pub fn permit_until(&self, client: &str, now: UnixMillis, lifetime: Duration) -> Permit {
        jwt::install_crypto();
        let secret = Secret::from("a secret of the tests, long enough to be one".to_owned());
        let key = JwtKey::new(None, JwtAlgorithm::HS256, &secret).unwrap();
        let keys = JwtKeys::new(JwtSettings { keys: vec![key], ..JwtSettings::default() }).unwrap();
        let subject = ClientName::parse(client).unwrap();
        let token = keys.mint(&Mint { subject: &subject, scope: None, lifetime, random: [0; 16] }, now).unwrap();
        let who = identity::authenticate(&Proof::Jwt(token), now, &TrustedKeys::new(Some(keys), None)).unwrap();
        self.policy.permit_request(&who, &route(), None).unwrap()
    }

    /// A permit for an account that is not this one.
    pub fn permit_elsewhere(&self) -> Permit {
        let other = AccountName::parse("other").unwrap();
        let grant = Grant {
            client: ClientPattern::parse("bot-0").unwrap(),
            account: Some(other.clone()),
            venues: Vec::new(),
            scope: [Right::Read].into_iter().collect(),
            max_sessions: 1,
            sub_accounts: None,
        };
        permit(&Policy::new(vec![grant], BTreeMap::from([(other, "kraken")])), "bot-0")
    }

    /// Makes a call, reads its answer and tells the account what it says.
    pub async fn call(&self, client: &str, what: &Asked) -> Result<String, NotAnswered> {
        let call = self.prepare(client, what);
        let answered = tokio::time::timeout(PATIENCE, self.account.call(call)).await.expect("a bounded wait")?;
        Ok(settle(answered).await)
    }

    pub fn prepare(&self, client: &str, what: &Asked) -> Call {
        Call {
            permit: self.permit(client),
            endpoint: "rest",
            class: what.class,
            subjects: what.subjects.clone(),
            sign: what.sign(),
            still_granted: Arc::new(|_| true),
        }
    }

    /// The door of the requests.
    pub fn door(&self) -> Door {
        Door { venue: kraken(), endpoint: "rest" }
    }
}

fn permit(policy: &Policy, client: &str) -> Permit {
    let who = Principal::danger_unproved_for_development(ClientName::parse(client).unwrap());
    policy.permit_request(&who, &route(), None).unwrap()
}

fn route() -> Route {
    let venue = kraken();
    let endpoint = venue.endpoints().iter().find(|endpoint| endpoint.name == "rest").unwrap();
    Route { venue, endpoint, manner: Manner::Native }
}

/// Reads an answer to its end, and tells the lane what it says.
pub async fn settle(answered: Answered) -> String {
    let body = read_whole(answered.response, usize::MAX).await.unwrap().into_body();
    let text = String::from_utf8(body.to_vec()).unwrap();
    answered.verdict.tell(outcome(&text));
    text
}

/// What Kraken says of key and nonce, read by the test itself.
pub fn outcome(body: &str) -> LoginOutcome {
    match body {
        body if body.contains("EAPI:Invalid nonce") => LoginOutcome::NonceTooSmall,
        body if body.contains("EAPI:Invalid key") => LoginOutcome::Refused,
        _ => LoginOutcome::Accepted,
    }
}

/// What a test asks the exchange for.
#[derive(Clone)]
pub struct Asked {
    pub class: Class,
    pub subjects: Subjects,
    method: &'static str,
    fields: String,
}

impl Asked {
    /// The balance. The tag says which request it is.
    pub fn balance(tag: &str) -> Self {
        Self { class: Class::Read, subjects: Subjects::None, method: "Balance", fields: format!("tag={tag}") }
    }

    /// An order with this id of the client's own.
    pub fn order(id: &str) -> Self {
        let order = "pair=XBTUSD&type=buy&ordertype=limit&price=1&volume=1";
        let fields = format!("{order}&cl_ord_id={id}&tag={id}");
        Self { class: Class::Order, subjects: named(id), method: "AddOrder", fields }
    }

    /// The cancel of the order with this id. The tag says which request it is.
    pub fn cancel(id: &str, tag: &str) -> Self {
        let fields = format!("cl_ord_id={id}&tag={tag}");
        Self { class: Class::Cancel, subjects: named(id), method: "CancelOrder", fields }
    }

    /// A withdrawal. The simulated exchange refuses it; that it came is what counts.
    pub fn withdrawal(tag: &str) -> Self {
        let fields = format!("asset=XBT&key=mine&amount=1&tag={tag}");
        Self { class: Class::Other, subjects: Subjects::None, method: "Withdraw", fields }
    }

    /// The cancel of all orders.
    pub fn cancel_all(tag: &str) -> Self {
        Self { class: Class::Cancel, subjects: Subjects::All, method: "CancelAll", fields: format!("tag={tag}") }
    }

    /// Writes the request as Kraken documents it ("Spot REST authentication").
    pub fn sign(&self) -> Sign {
        let (method, fields) = (self.method, self.fields.clone());
        Arc::new(move |signer, nonce| request(signer, nonce, method, &fields))
    }
}

fn named(id: &str) -> Subjects {
    Subjects::Named(vec![id.into()])
}

pub fn request(signer: &Signer, nonce: Nonce, method: &str, fields: &str) -> SignedRequest {
    let path = format!("/0/private/{method}");
    let body = format!("nonce={nonce}&{fields}");
    let digest = sha256(&[nonce.to_string().as_bytes(), body.as_bytes()]);
    let signature = BASE64.encode(signer.hmac_sha512(&[path.as_bytes(), &digest]));
    let headers = vec![
        ("api-key", Secret::from(API_KEY.to_owned())),
        ("api-sign", Secret::from(signature)),
        ("content-type", Secret::from("application/x-www-form-urlencoded".to_owned())),
    ];
    SignedRequest { endpoint: "rest", method: "POST", path, headers, body: body.into_bytes() }
}

/// The same request for hyper, as whoever goes round the lane would write it.
pub fn unqueued(nonce: u64, what: &Asked) -> http::Request<http_body_util::Full<Bytes>> {
    let signed = request(&signer(), Nonce(nonce), what.method, &what.fields);
    let mut builder = http::Request::builder().method(signed.method).uri(signed.path);
    for (name, value) in &signed.headers {
        builder = builder.header(*name, value.expose());
    }
    builder.body(signed.body.into()).unwrap()
}

pub fn signer() -> Signer {
    let secret = Secret::from(BASE64.encode([7; 64]));
    Signer::new(&Secret::from(API_KEY.to_owned()), &secret, SecretFormat::Base64).unwrap()
}

fn kraken() -> &'static dyn Venue {
    venue::by_name("kraken").unwrap()
}
