//! A house in front of an exchange of bearer tokens that no table of venues knows, put together by hand: real TLS, real
//! sockets, a clock that is set.
#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test that cannot go on should stop")]

pub mod exchange;
pub mod venue;

use crate::house::{Folder, Told};
use countersign::certs::{self, Wanted};
use countersign::credential::{SecretFormat, Signer};
use countersign::fresh::UnixMillis;
use countersign::http::{self, Entrance, Routes};
use countersign::identity::TrustedKeys;
use countersign::identity::budget::{self, FailureBudget};
use countersign::identity::jwt::{self, JwtAlgorithm, JwtKey, JwtKeys, JwtSettings, Mint};
use countersign::identity::local::{LocalGrants, LocalKeyFor, LocalKeys};
use countersign::names::{AccountName, ClientName};
use countersign::policy::{ClientPattern, Grant, Policy};
use countersign::relay::{self, House};
use countersign::scope::Right;
use countersign::secret::Secret;
use countersign::server::{self, Listener, Speaks};
use countersign::store::{MemoryStore, Store};
use countersign::supply::account::{self, Account};
use countersign::supply::clock::{Clock, SetClock};
use countersign::tls::{Certificates, ClientRoots, Connector, ServerSettings};
use countersign::upstream::{DialLimits, Resolver, Upstream, Way};
use exchange::Exchange;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_util::task::TaskTracker;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use venue::{API, DESK, HUBS};

/// How long anything may take before a test is said to hang. No test waits for it to pass.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Everything that was logged by this program at any level, most of the libraries below included.
static LOGGED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOGGED.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn log_everything() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // The clients of these tests speak through tungstenite in this same process, and it traces what they send. The
        // program itself lets no library trace.
        let filter = Targets::new().with_default(LevelFilter::TRACE);
        let filter = filter.with_target("tungstenite", LevelFilter::WARN);
        let filter = filter.with_target("tokio_tungstenite", LevelFilter::WARN);
        let log = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(|| Log);
        tracing_subscriber::registry().with(log.with_filter(filter)).init();
    });
}

pub fn logged() -> String {
    String::from_utf8_lossy(&LOGGED.lock().unwrap()).into_owned()
}

pub struct Stage {
    pub exchange: Exchange,
    pub clock: SetClock,
    address: SocketAddr,
    folder: Folder,
    local: LocalKeys,
    jwt: JwtKeys,
    policy: watch::Sender<Arc<Policy>>,
    _draining: watch::Sender<bool>,
}

const MASTER: &str = "a master key of the tests, long enough";

fn client(name: &str) -> ClientName {
    ClientName::parse(name).unwrap()
}

fn account() -> AccountName {
    AccountName::parse("desk_main").unwrap()
}

fn local(bots: &[&str], now: UnixMillis) -> LocalKeys {
    let key = |name: &&str| LocalKeyFor { client: client(name), account: account(), venue: &DESK };
    let grants = LocalGrants { keys: bots.iter().map(key).collect(), generations: BTreeMap::new() };
    let master = Secret::from(MASTER.to_owned());
    LocalKeys::new(&master, grants, Duration::from_secs(60), now).unwrap()
}

fn jwt_keys() -> JwtKeys {
    let key = JwtKey::new(None, JwtAlgorithm::HS256, &Secret::from("s".repeat(48))).unwrap();
    JwtKeys::new(JwtSettings { keys: vec![key], ..JwtSettings::default() }).unwrap()
}

fn grant(client: &str, scope: &[Right], sub_accounts: Option<Vec<u64>>) -> Grant {
    let client = ClientPattern::parse(client).unwrap();
    let scope = scope.iter().copied().collect();
    Grant { client, account: Some(account()), venues: Vec::new(), scope, max_sessions: 8, sub_accounts }
}

impl Stage {
    /// `name` is in every token of this stage's exchange.
    pub async fn open(name: &str) -> Self {
        log_everything();
        countersign::tls::install_crypto();
        jwt::install_crypto();
        let folder = Folder::new();
        let (clock, hand) = Clock::set(crate::house::now());
        let names = [API, HUBS, "localhost"].map(str::to_owned).to_vec();
        let wanted = Wanted { directory: folder.path().to_owned(), names, clients: Vec::new(), is_forced: false };
        certs::ensure(&wanted, clock.now()).unwrap();
        let certificates = Certificates::Directory(folder.path().to_owned());
        let settings = ServerSettings { certificates, client_authority: None, client_revocations: None };
        let acceptor = settings.load(clock.now()).unwrap();
        let exchange = Exchange::start(acceptor.clone(), name).await;

        let rights = [Right::Read, Right::Trade];
        let grants = vec![
            grant("key:bot-a", &rights, None),
            grant("key:bot-b", &rights, None),
            grant("key:reader", &[Right::Read], None),
            grant("key:narrow", &rights, Some(vec![7])),
            grant("jwt:desk", &rights, None),
        ];
        let policy = Policy::new(grants, BTreeMap::from([(account(), "desk")]));
        let roots = ClientRoots::Pem(std::fs::read(folder.path().join("ca.pem")).unwrap());
        let connector = Connector::with_roots(&roots).unwrap();
        let addresses = vec![exchange.address];
        let way = Way { rest: None, socket: None, addresses, connector, is_local_allowed: true };
        let mut upstream = Upstream::new(DialLimits::default(), Resolver::with_servers(Vec::new()));
        upstream.add_account(&account(), &DESK, &way).unwrap();
        let upstream = Arc::new(upstream);
        let text = |text: &str| Secret::from(text.to_owned());
        let settings = account::Settings {
            name: account(),
            venue: &DESK,
            signer: Signer::new(&text(exchange::USER), &text(exchange::KEY), SecretFormat::Text).unwrap(),
            nonce_unit: None,
            ordering: account::Ordering::Strict,
            upkeep: policy.upkeep(&account()).unwrap(),
            upstream: Arc::clone(&upstream),
            limits: account::Limits::default(),
            writes: TaskTracker::new(),
        };
        let store = Arc::new(Store::Memory(MemoryStore::default()));
        let (desk, _task) = Account::open(settings, store, clock.clone()).unwrap();

        let (draining, is_draining) = watch::channel(false);
        let (policy, current) = watch::channel(Arc::new(policy));
        let bots = ["bot-a", "bot-b", "reader", "narrow"];
        let house = Arc::new(House {
            trusted: Arc::new(TrustedKeys::new(Some(jwt_keys()), Some(local(&bots, clock.now())))),
            policy: current,
            draining: is_draining.clone(),
            budget: Mutex::new(FailureBudget::new(budget::Limits::default())),
            accounts: BTreeMap::from([(account(), desk)]),
            upstream,
            clock: clock.clone(),
            limits: relay::Limits::default(),
        });
        let door = Arc::new(http::Door {
            house,
            routes: Routes::new(vec![&DESK], Vec::new()),
            origins: Vec::new(),
            unsafe_no_auth: None,
            sessions: TaskTracker::new(),
            refusals: http::Throttle::new(),
            limits: http::Limits::default(),
        });
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let listeners = vec![Listener { socket, speaks: Speaks::Tls(Entrance::Names) }];
        let arrivals = server::Arrivals::default();
        let (limits, threads) = (server::Limits::default(), server::Threads::here());
        tokio::spawn(server::serve(listeners, acceptor, door, arrivals, is_draining, limits, threads));
        let local = local(&bots, clock.now());
        Self { exchange, clock: hand, address, folder, local, jwt: jwt_keys(), policy, _draining: draining }
    }

    /// The local key of a bot: user name and key.
    pub fn local_key(&self, bot: &str) -> (String, String) {
        let pair = self.local.issue(&LocalKeyFor { client: client(bot), account: account(), venue: &DESK }).unwrap();
        (pair.api_key, String::from_utf8(pair.secret.expose().to_vec()).unwrap())
    }

    /// A token of ours.
    pub fn jwt(&self, subject: &str) -> String {
        let subject = client(subject);
        let wanted = Mint { subject: &subject, scope: None, lifetime: Duration::from_secs(900), random: [7; 16] };
        String::from_utf8(self.jwt.mint(&wanted, self.clock.now()).unwrap().expose().to_vec()).unwrap()
    }

    /// Takes every grant away.
    pub fn revoke_grants(&self) {
        self.policy.send_modify(|policy| *policy = Arc::new(policy.with_grants(Vec::new())));
    }

    async fn tls(&self, name: &str) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.folder.path().join("ca.pem")).unwrap()).unwrap();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let socket = TcpStream::connect(self.address).await.unwrap();
        connector.connect(ServerName::try_from(name.to_owned()).unwrap(), socket).await.unwrap()
    }

    /// One request, with this in `Authorization` if it is not empty.
    pub async fn post(&self, host: &str, path: &str, token: &str, body: &str) -> Told {
        let mut stream = self.tls(host).await;
        let shown = if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") };
        let head = format!("POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{shown}");
        let kind = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        stream.write_all(format!("{head}{kind}\r\n{body}").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the house hangs");
        Told::read(&answer)
    }

    pub async fn call(&self, path: &str, token: &str) -> Told {
        self.post(API, path, token, "{}").await
    }

    /// What a login with these answers.
    pub async fn log_in_with(&self, user: &str, key: &str) -> Told {
        self.post(API, "/api/login", "", &serde_json::json!({"user": user, "key": key}).to_string()).await
    }

    /// The token that a bot gets for its local key.
    pub async fn log_in(&self, bot: &str) -> String {
        let (user, key) = self.local_key(bot);
        let told = self.log_in_with(&user, &key).await;
        assert_eq!(told.status, 200, "{told:?}");
        told.json()["token"].as_str().unwrap().to_owned()
    }

    /// A socket by the exchange's own name, with a query and perhaps a token in the header.
    pub async fn socket(&self, query: &str, token: &str) -> Result<crate::house::Socket, (u16, String)> {
        let stream = self.tls(HUBS).await;
        let mut request = format!("wss://{HUBS}/hubs/user{query}").into_client_request().unwrap();
        if !token.is_empty() {
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        match tokio::time::timeout(PATIENCE, tokio_tungstenite::client_async(request, stream)).await.unwrap() {
            Ok((socket, _)) => Ok(crate::house::Socket(socket)),
            Err(Error::Http(answer)) => {
                let reason = answer.headers().get("countersign-reason").map(|reason| reason.to_str().unwrap());
                Err((answer.status().as_u16(), reason.unwrap_or_default().to_owned()))
            }
            Err(error) => panic!("{error}"),
        }
    }
}
