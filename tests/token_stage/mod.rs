//! A seller of tokens on loopback, venues that buy there, and accounts whose time is set.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared by test programs that use a part each; one that cannot go on should stop"
)]

use countersign::certs::{self, Wanted};
use countersign::credential::{SecretFormat, Signer};
use countersign::fresh::{Nonce, NonceUnit, Token, TokenId, UnixMillis};
use countersign::names::AccountName;
use countersign::policy::Policy;
use countersign::secret::Secret;
use countersign::store::{MemoryStore, Store};
use countersign::supply::account::{Account, AccountStatus, Limits, Ordering, Settings, Unavailable};
use countersign::supply::clock::{Clock, SetClock};
use countersign::supply::token::{Purpose, RefusedToken, TokenState};
use countersign::tls::{Acceptor, Certificates, ClientRoots, Connector, ServerSettings, Stream};
use countersign::upstream::{DialLimits, Resolver, Upstream, Way};
use countersign::venue::{
    Dialect, Endpoint, EndpointKind, Minted, Minting, NonceRules, NotMinted, SignedRequest, Venue,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering as Memory};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// How long anything may take before a test is said to hang. No test waits for it to pass.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// When tests begin.
pub const START: UnixMillis = UnixMillis(1_790_000_000_000);

/// How long the seller's tokens live.
pub const LIFE: Duration = Duration::from_secs(900);

/// Where tokens are refused.
pub const HUB: Purpose = Purpose { endpoint: "hub", operation: "" };

pub fn minutes(number: u64) -> Duration {
    Duration::from_secs(60 * number)
}

pub fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

// ---- venues ---------------------------------------------------------------------------------------------------------

/// A venue that exists for tests alone.
pub struct Market {
    name: &'static str,
    has_nonces: bool,
    pays_with_nonce: bool,
}

/// Its requests carry nonces, and so does the one for a token.
pub static NUMBERED: Market = Market { name: "numbered", has_nonces: true, pays_with_nonce: true };
/// Its requests carry nonces, but the one for a token does not.
pub static MIXED: Market = Market { name: "mixed", has_nonces: true, pays_with_nonce: false };
/// It knows no nonces at all: a key buys a token, and the token does everything.
pub static BEARER: Market = Market { name: "bearer", has_nonces: false, pays_with_nonce: false };

static ENDPOINTS: &[Endpoint] =
    &[Endpoint { name: "rest", kind: EndpointKind::Rest, host: "tokens.example", path: "/", local_path: None }];

impl Venue for Market {
    fn name(&self) -> &'static str {
        self.name
    }

    fn endpoints(&self) -> &'static [Endpoint] {
        ENDPOINTS
    }

    fn secret_format(&self) -> Option<SecretFormat> {
        Some(SecretFormat::Text)
    }

    fn nonces(&self) -> Option<NonceRules> {
        self.has_nonces.then_some(NonceRules { unit: NonceUnit::Microseconds, max: u64::MAX })
    }

    fn minting(&self) -> Option<&dyn Minting> {
        Some(self)
    }

    fn dialect(&self, _endpoint: &Endpoint) -> Box<dyn Dialect> {
        unreachable!("it has no sockets")
    }
}

impl Minting for Market {
    fn needs_nonce(&self) -> bool {
        self.pays_with_nonce
    }

    fn request(&self, signer: &Signer, nonce: Option<Nonce>) -> SignedRequest {
        let nonce = nonce.map_or("-".to_owned(), |nonce| nonce.to_string());
        SignedRequest {
            endpoint: "rest",
            method: "POST",
            path: "/token".to_owned(),
            headers: Vec::new(),
            body: format!("{} {nonce}", signer.expose_api_key()).into_bytes(),
        }
    }

    fn read(&self, status: u16, body: &[u8], _now: UnixMillis) -> Result<Minted, NotMinted> {
        match status {
            200 if body.starts_with(b"token-") => Ok(Minted { secret: Secret::new(body.to_vec()), lives: LIFE }),
            200 => Err(NotMinted::Unreadable),
            401 => Err(NotMinted::Credential),
            409 => Err(NotMinted::NonceTooSmall),
            _ => Err(NotMinted::Unavailable),
        }
    }
}

// ---- the seller -----------------------------------------------------------------------------------------------------

/// What the seller does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Sells a token.
    Sells,
    /// Is down.
    Down,
    /// Answers with something else.
    Talks,
    /// Refuses the key.
    RefusesKey,
    /// Says that the nonce was too small.
    RefusesNonce,
    /// Takes the request and does not answer until its mood is another.
    Ponders,
}

/// A seller of tokens. The first is `token-1`, and so on.
pub struct Seller {
    address: SocketAddr,
    folder: Folder,
    mood: watch::Sender<Mood>,
    /// The bodies of the requests that came.
    requests: Arc<Mutex<Vec<String>>>,
    sales: Arc<Mutex<Sales>>,
}

/// What was sold, by time that nobody can set.
#[derive(Default)]
struct Sales {
    clock: Option<Clock>,
    at: Vec<Duration>,
}

impl Seller {
    pub async fn open() -> Self {
        countersign::tls::install_crypto();
        let folder = Folder::new();
        let names = vec![ENDPOINTS[0].host.to_owned()];
        let wanted = Wanted { directory: folder.0.clone(), names, clients: Vec::new(), is_forced: false };
        let now = Clock::System.now();
        certs::ensure(&wanted, now).unwrap();
        let certificates = Certificates::Directory(folder.0.clone());
        let settings = ServerSettings { certificates, client_authority: None, client_revocations: None };
        let acceptor = settings.load(now).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (mood, _) = watch::channel(Mood::Sells);
        let seller = Self {
            address: listener.local_addr().unwrap(),
            folder,
            mood: mood.clone(),
            requests: Arc::default(),
            sales: Arc::default(),
        };
        let counter = Counter { mood, requests: Arc::clone(&seller.requests), sales: Arc::clone(&seller.sales) };
        tokio::spawn(counter.open(listener, acceptor));
        seller
    }

    pub fn is(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// When a token was sold, by its text: how much time had passed for the account.
    pub fn sold_at(&self, token: &str) -> Duration {
        let number: usize = token.strip_prefix("token-").unwrap().parse().unwrap();
        self.sales.lock().unwrap().at[number - 1]
    }

    /// Waits until so many requests have come.
    pub async fn has_been_asked(&self, times: usize) {
        let asked = async {
            while self.requests().len() < times {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("only {:?}", self.requests()));
    }
}

#[derive(Clone)]
struct Counter {
    mood: watch::Sender<Mood>,
    requests: Arc<Mutex<Vec<String>>>,
    sales: Arc<Mutex<Sales>>,
}

impl Counter {
    async fn open(self, listener: TcpListener, acceptor: Acceptor) {
        while let Ok((socket, _)) = listener.accept().await {
            let (counter, acceptor) = (self.clone(), acceptor.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(socket).await {
                    counter.serve(stream).await;
                }
            });
        }
    }

    fn sell(&self) -> String {
        let mut sales = self.sales.lock().unwrap();
        let passed = sales.clock.as_ref().map(Clock::passed).unwrap_or_default();
        sales.at.push(passed);
        format!("token-{}", sales.at.len())
    }

    async fn serve(self, mut stream: Stream) {
        let mut mood = self.mood.subscribe();
        while let Some(body) = read_request(&mut stream).await {
            self.requests.lock().unwrap().push(body);
            let decided = mood.wait_for(|mood| *mood != Mood::Ponders).await.map(|mood| *mood);
            let (status, body) = match decided {
                Ok(Mood::Sells) => (200, self.sell()),
                Ok(Mood::Talks) => (200, "<html>".to_owned()),
                Ok(Mood::RefusesKey) => (401, String::new()),
                Ok(Mood::RefusesNonce) => (409, String::new()),
                Ok(Mood::Down | Mood::Ponders) | Err(_) => (503, String::new()),
            };
            // Thirty seconds after the tests' beginning.
            let head = format!(
                "HTTP/1.1 {status} x\r\ndate: Mon, 21 Sep 2026 14:13:50 GMT\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            if stream.write_all(format!("{head}{body}").as_bytes()).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
    }
}

/// The body of the next request.
async fn read_request(stream: &mut Stream) -> Option<String> {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                return Some(body.to_owned());
            }
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
}

// ---- accounts -------------------------------------------------------------------------------------------------------

/// An account at the seller, and the hand of its clock. The account ends with it, as in a crash.
pub struct Desk {
    pub account: Account,
    pub hand: SetClock,
    pub store: Arc<Store>,
    pub writes: TaskTracker,
    task: JoinHandle<()>,
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Desk {
    pub fn at(seller: &Seller, venue: &'static Market) -> Self {
        let (_, hand) = Clock::set(START);
        Self::open(seller, venue, Arc::new(Store::Memory(MemoryStore::default())), hand, "key")
    }

    /// The next run of the program: on what the last one left, with this key.
    pub async fn reopened(self, seller: &Seller, venue: &'static Market, key: &str) -> Self {
        self.has_written().await;
        let (store, hand) = (Arc::clone(&self.store), self.hand.clone());
        drop(self);
        Self::open(seller, venue, store, hand, key)
    }

    fn open(seller: &Seller, venue: &'static Market, store: Arc<Store>, hand: SetClock, key: &str) -> Self {
        let name = AccountName::parse("main").unwrap();
        let policy = Policy::new(Vec::new(), BTreeMap::from([(name.clone(), venue.name)]));
        let roots = ClientRoots::Pem(std::fs::read(seller.folder.0.join("ca.pem")).unwrap());
        let way = Way {
            rest: None,
            socket: None,
            addresses: vec![seller.address],
            connector: Connector::with_roots(&roots).unwrap(),
            is_local_allowed: true,
        };
        let mut upstream = Upstream::new(DialLimits::default(), Resolver::with_servers(Vec::new()));
        upstream.add_account(&name, venue, &way).unwrap();
        let text = |text: &str| Secret::from(text.to_owned());
        let writes = TaskTracker::new();
        let settings = Settings {
            upkeep: policy.upkeep(&name).unwrap(),
            name,
            venue,
            signer: Signer::new(&text(key), &text("secret"), SecretFormat::Text).unwrap(),
            nonce_unit: None,
            ordering: Ordering::Strict,
            upstream: Arc::new(upstream),
            limits: Limits::default(),
            writes: writes.clone(),
        };
        let clock = Clock::Set(hand.clone());
        seller.sales.lock().unwrap().clock = Some(clock.clone());
        let (account, task) = Account::open(settings, Arc::clone(&store), clock).unwrap();
        Self { account, hand, store, writes, task }
    }

    pub async fn token(&self) -> Result<Token, Unavailable> {
        self.account.token(None, PATIENCE).await
    }

    /// A token in place of one that the exchange refused.
    pub async fn instead_of(&self, id: TokenId) -> Result<Token, Unavailable> {
        self.account.token(Some(RefusedToken { id, purpose: HUB }), PATIENCE).await
    }

    /// The text of the token that is handed out.
    pub async fn handed_out(&self) -> String {
        text(&self.token().await.expect("a token"))
    }

    pub async fn status(&self) -> AccountStatus {
        self.account.status(PATIENCE).await.unwrap()
    }

    /// What the token is doing now.
    pub async fn state(&self) -> TokenState {
        self.status().await.token.unwrap()
    }

    /// Lets time pass; the account looks at its clock.
    pub async fn after(&self, time: Duration) {
        self.hand.advance(time);
        // The first answer is given before it looks.
        self.status().await;
        self.status().await;
    }

    /// Waits until the token does this.
    pub async fn becomes(&self, word: &str) -> TokenState {
        let mut states = self.account.token_state();
        let state = tokio::time::timeout(PATIENCE, states.wait_for(|state| state.word() == word)).await;
        *state.unwrap_or_else(|_| panic!("it never is {word}, but {:?}", self.account.token_state().borrow())).unwrap()
    }

    /// Fails until the breaker opens: each wait is let pass. How many requests that took.
    pub async fn break_down(&self, seller: &Seller) -> usize {
        let before = seller.requests().len();
        for _ in 0..20 {
            self.token().await.expect_err("the seller sells nothing");
            match self.state().await {
                TokenState::Open { .. } => return seller.requests().len() - before,
                TokenState::Waiting { until, .. } => self.hand.advance(until.since(self.hand.now())),
                other => panic!("after a failure: {other:?}"),
            }
        }
        panic!("the breaker never opens");
    }

    async fn has_written(&self) {
        let written = async {
            while !self.writes.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, written).await.unwrap();
    }
}

pub fn text(token: &Token) -> String {
    String::from_utf8(token.secret.expose().to_vec()).unwrap()
}

/// A folder that goes when the test ends.
pub struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Memory::Relaxed);
        let path = std::env::temp_dir().join(format!("countersign-token-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
