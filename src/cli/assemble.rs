//! From a checked configuration to a running house: each module's settings are filled in here, and nowhere else.

use super::{ConfigArgs, Exit};
use crate::certs::{self, Wanted};
use crate::config::{self, Config, Keys, Known, Reach, Tls, VenueRow};
use crate::credential::{SecretFormat, Signer};
use crate::http::{self, Routes};
use crate::identity::TrustedKeys;
use crate::identity::budget::{self, FailureBudget};
use crate::identity::jwt::{JwtAlgorithm, JwtKey, JwtKeys, JwtSettings, self_test};
use crate::names::{AccountName, ClientName};
use crate::policy::{ClientPattern, Grant, Policy};
use crate::relay::{self, House};
use crate::secret::Secret;
use crate::server::{self, Threads};
use crate::store::{FileStore, Store, StoreError};
use crate::supply::account::{self, Account, NotOpen};
use crate::supply::clock::Clock;
use crate::tls::{Acceptor, Certificates, ClientRoots, Connector, PemPair, ServerSettings};
use crate::upstream::{AnswerLimits, Base, DialLimits, Resolver, Upstream, Way};
use crate::venue::{self, Venue};
use crate::{admin, session};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

mod listeners;
pub(super) mod local;
mod operator;
#[cfg(feature = "simulator")]
pub(super) mod simulators;
#[cfg(feature = "simulator")]
pub use simulators::Simulators;

/// The name of whoever comes in where `unsafe_no_auth` is set.
const UNPROVED_CLIENT: &str = "unproved";

/// Reads the configuration that the command line names.
pub(super) fn load(args: &ConfigArgs) -> Result<Config, Exit> {
    let mut overrides = args.set.clone();
    if let Some(format) = args.log_format {
        overrides.push(("log.format".to_owned(), format.word().to_owned()));
    }
    if let Some(level) = &args.log_level {
        overrides.push(("log.level".to_owned(), level.clone()));
    }
    read(args.config.as_deref(), &overrides).map_err(|errors| {
        // Whoever is in the wrong folder should hear of that first, not of the grants that are missing there.
        let is_lost = args.config.is_none() && !Path::new(config::FILE).exists();
        let lost =
            format!("there is no {} in this folder; go to the folder that has it, or use --config", config::FILE);
        Exit::configuration(if is_lost { format!("{lost}\n{errors}") } else { errors.to_string() })
    })
}

/// Reads and checks a configuration file, under the environment and the overrides.
pub fn read(path: Option<&Path>, overrides: &[(String, String)]) -> Result<Config, config::ConfigErrors> {
    let row = |venue: &dyn Venue| VenueRow {
        name: venue.name(),
        secret: venue.secret_format(),
        endpoints: venue.endpoints(),
        has_nonces: venue.nonces().is_some(),
        has_sub_accounts: venue.has_sub_accounts(),
    };
    let venues: Vec<VenueRow> = venue::VENUES.iter().map(|(venue, _)| row(*venue)).collect();
    let known = Known {
        venues: &venues,
        client: |text| ClientPattern::parse(text).map(drop).map_err(|bad| bad.to_string()),
        has_simulator: cfg!(feature = "simulator"),
    };
    config::load(path, overrides, std::env::vars_os(), &known)
}

/// The folder of certificates that are ours to make.
pub(super) fn certificate_directory(config: &Config) -> Option<PathBuf> {
    match &config.listen.tls {
        Tls::Directory(directory) => Some(directory.clone()),
        Tls::Pair { .. } => None,
    }
}

/// The routes that the configuration opens: to venues that somebody may use.
pub(super) fn routes(config: &Config) -> Routes {
    let by_account = config.accounts.iter().map(|account| account.venue);
    let by_grant = config.grants.iter().flat_map(|grant| match &grant.reach {
        Reach::Venues(venues) => venues.as_slice(),
        Reach::Account(_) => &[],
    });
    let names: BTreeSet<&str> = by_account.chain(by_grant.copied()).collect();
    Routes::new(names.into_iter().filter_map(venue::by_name).collect(), config.listen.hosts.iter().cloned())
}

/// Who signs client tokens, if anybody does.
pub(super) fn jwt_keys(config: &Config) -> Result<Option<JwtKeys>, Exit> {
    let Some(jwt) = &config.clients.jwt else { return Ok(None) };
    let at = |key: &str, what: &dyn std::fmt::Display| Exit::configuration(format!("clients.jwt.{key}: {what}"));
    let mut keys = Vec::new();
    if let Some(secret) = &jwt.secret {
        let material = secret.resolve(&config.base).map_err(|error| at("secret", &error))?;
        keys.push(JwtKey::new(None, JwtAlgorithm::HS256, &material).map_err(|error| at("secret", &error))?);
    }
    for key in &jwt.keys {
        let algorithm = match key.algorithm {
            config::JwtAlgorithm::Rs256 => JwtAlgorithm::RS256,
            config::JwtAlgorithm::Es256 => JwtAlgorithm::ES256,
            config::JwtAlgorithm::EdDsa => JwtAlgorithm::EdDSA,
        };
        let material = Secret::new(key.pem.resolve(&config.base).map_err(|error| at("keys", &error))?);
        keys.push(JwtKey::new(key.kid.clone(), algorithm, &material).map_err(|error| at("keys", &error))?);
    }
    let settings = JwtSettings {
        keys,
        issuer: jwt.issuer.clone(),
        audience: jwt.audience.clone(),
        lifetime_max: jwt.lifetime_max,
        leeway: jwt.leeway,
    };
    JwtKeys::new(settings).map(Some).map_err(|error| Exit::configuration(format!("clients.jwt: {error}")))
}

/// Everything that the configuration names, read and understood; nothing is bound or dialled yet.
pub(super) struct Prepared {
    trusted: TrustedKeys,
    acceptor: Option<Acceptor>,
    signers: BTreeMap<AccountName, Signer>,
    policy: Policy,
    summary: Vec<String>,
}

impl Prepared {
    /// What there is, a line each, for a person.
    pub(super) fn summary(&self) -> &[String] {
        &self.summary
    }
}

/// True as long as nobody has made the certificates that are ours to make.
pub(super) fn is_first_start(config: &Config) -> bool {
    certificate_directory(config).is_some_and(|directory| !directory.join("server.pem").exists())
}

/// Reads every secret and certificate that the configuration names.
pub(super) fn prepare(config: &Config) -> Result<Prepared, Exit> {
    self_test().map_err(Exit::failed)?;
    let mut summary = Vec::new();
    let (trusted, acceptor) = if is_first_start(config) {
        summary.push("certificates: none yet; the first start makes them".to_owned());
        (TrustedKeys::default(), None)
    } else {
        summary.push("certificates: good".to_owned());
        (TrustedKeys::new(jwt_keys(config)?, local::keys(config)?), Some(acceptor(config)?))
    };
    let mut signers = BTreeMap::new();
    for account in &config.accounts {
        if let Some(signer) = signer(config, account)? {
            signers.insert(account.name.clone(), signer);
        }
        let place = match &account.upstream {
            config::Upstream::Venue => "the venue's own hosts",
            config::Upstream::Simulator => "simulated, in this process",
            config::Upstream::Hosts(_) => "hosts of the configuration",
        };
        summary.push(format!("account {}: {}, {place}", account.name, account.venue));
    }
    let policy = Policy::new(grants(config)?, accounts(config)).with_generations(local::generations(config));
    for grant in &config.grants {
        let reach = match &grant.reach {
            Reach::Account(account) => format!("account {account}"),
            Reach::Venues(venues) => format!("public data of {}", venues.join(", ")),
        };
        summary.push(format!("grant: {} may use {reach} for {}", grant.client.as_str(), grant.scope));
    }
    Ok(Prepared { trusted, acceptor, signers, policy, summary })
}

fn acceptor(config: &Config) -> Result<Acceptor, Exit> {
    let certificates = match &config.listen.tls {
        Tls::Directory(directory) => Certificates::Directory(directory.clone()),
        Tls::Pair { certificate, key } => {
            Certificates::Pairs(vec![PemPair { certificate: certificate.clone(), key: key.clone() }])
        }
    };
    let client_authority = config.clients.mtls.as_ref().map(|mtls| mtls.authority.clone());
    let settings = ServerSettings { certificates, client_authority, client_revocations: None };
    settings.load(Clock::System.now()).map_err(|error| Exit::configuration(format!("listen.tls: {error}")))
}

/// The account's keys as something that signs; those of the simulator are made when it starts.
fn signer(config: &Config, account: &config::Account) -> Result<Option<Signer>, Exit> {
    let resolve = |key: &str, reference: &config::SecretRef| {
        let at = format!("accounts.{}.{key}", account.name);
        reference.resolve(&config.base).map_err(|error| Exit::configuration(format!("{at}: {error}")))
    };
    let (key, secret) = match &account.keys {
        Keys::Signing { key, secret } => (resolve("key", key)?, resolve("secret", secret)?),
        // A venue without signatures sends its one secret as it is.
        Keys::None { token: Some(token) } => {
            let token = resolve("token", token)?;
            (token.clone(), token)
        }
        Keys::Simulated | Keys::None { token: None } => return Ok(None),
    };
    let format = venue_of(account.venue).secret_format().unwrap_or(SecretFormat::Text);
    let signer = Signer::new(&key, &secret, format);
    signer.map(Some).map_err(|error| Exit::configuration(format!("accounts.{}: {error}", account.name)))
}

/// The grants of the configuration, as the policy takes them.
pub(super) fn grants(config: &Config) -> Result<Vec<Grant>, Exit> {
    let grant = |grant: &config::Grant| {
        let client = ClientPattern::parse(grant.client.as_str())
            .map_err(|bad| Exit::configuration(format!("grants: client {bad}")))?;
        let (account, venues) = match &grant.reach {
            Reach::Account(account) => (Some(account.clone()), Vec::new()),
            Reach::Venues(venues) => (None, venues.clone()),
        };
        let (scope, max_sessions) = (grant.scope, grant.max_sessions);
        Ok(Grant { client, account, venues, scope, max_sessions, sub_accounts: grant.trading_accounts.clone() })
    };
    let mut grants = config.grants.iter().map(grant).collect::<Result<Vec<_>, _>>()?;
    if config.listen.unsafe_no_auth {
        let everything = config.accounts.iter().map(|account| Grant {
            client: ClientPattern::parse(UNPROVED_CLIENT).expect("a name is a pattern"),
            account: Some(account.name.clone()),
            venues: Vec::new(),
            scope: [crate::scope::Right::Read, crate::scope::Right::Trade].into_iter().collect(),
            max_sessions: u32::MAX,
            sub_accounts: None,
        });
        grants.extend(everything);
    }
    Ok(grants)
}

fn accounts(config: &Config) -> BTreeMap<AccountName, &'static str> {
    config.accounts.iter().map(|account| (account.name.clone(), account.venue)).collect()
}

fn venue_of(name: &str) -> &'static dyn Venue {
    venue::by_name(name).expect("the configuration was checked against the table of venues")
}

/// A house that is open.
pub struct Running {
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where the listeners of `[[ports]]` are, in the order of the configuration.
    pub ports: Vec<SocketAddr>,
    /// Where clients that read the proxy variables connect.
    pub connect_address: Option<SocketAddr>,
    /// Where probes ask.
    pub admin_address: SocketAddr,
    /// What was made because it was missing.
    pub certificates: Option<certs::Made>,
    /// The exchanges that run in this process.
    #[cfg(feature = "simulator")]
    pub simulators: Simulators,
    house: Arc<House>,
    policy: watch::Sender<Arc<Policy>>,
    draining: watch::Sender<bool>,
    server: JoinHandle<bool>,
    admin: JoinHandle<()>,
    accounts: Vec<JoinHandle<()>>,
    writes: TaskTracker,
}

impl Running {
    /// Replaces the grants, and the local keys that follow from them. Sessions whose grant or generation is gone end at
    /// once.
    pub fn regrant(&self, config: &Config) -> Result<(), Exit> {
        let (grants, local_grants) = (grants(config)?, local::grants(config)?);
        // Keys first: once the sessions of a stolen one have ended, it must not open another.
        if let Some(local) = self.house.trusted.local() {
            local.retable(local_grants, self.house.clock.now());
        }
        let generations = local::generations(config);
        self.policy.send_modify(|policy| *policy = Arc::new(policy.with_grants(grants).with_generations(generations)));
        Ok(())
    }

    /// Lets everybody out, within the limit. True: everything had ended by then.
    pub async fn stop(self) -> bool {
        self.draining.send_replace(true);
        let has_emptied = self.server.await.unwrap_or(false);
        self.admin.abort();
        for account in self.accounts {
            account.abort();
            // Ended by us, or by a fault that has been logged: either way it is over.
            let _ = account.await;
        }
        self.writes.close();
        self.writes.wait().await;
        has_emptied
    }
}

/// Opens the house, whose connections live on these threads.
pub async fn start(config: &Config, threads: Threads) -> Result<Running, Exit> {
    let clock = Clock::System;
    let routes = routes(config);
    let certificates = match certificate_directory(config) {
        Some(directory) => {
            let clients = vec![certs::DEFAULT_CLIENT.to_owned()];
            let wanted = Wanted { directory, names: routes.names(), clients, is_forced: false };
            Some(certs::ensure(&wanted, clock.now()).map_err(Exit::configuration)?)
        }
        None => None,
    };
    let prepared = prepare(config)?;
    let files = FileStore::open(&config.store_path).map_err(|error| state(&error))?;
    let admin_secret = operator::secret(&files)?;
    let store = Arc::new(Store::File(files));
    let listeners::Bound { listeners, address, ports, connect_address } = listeners::bind_all(config).await?;
    let admin_listener = listeners::bind("admin.address", config.admin_address).await?;

    #[cfg(feature = "simulator")]
    let simulators = Simulators::start(config).await?;
    let mut ways = Upstream::new(dial_limits(config), Resolver::default());
    let mut signers = prepared.signers;
    for account in &config.accounts {
        let way = match &account.upstream {
            config::Upstream::Venue => public_way()?,
            config::Upstream::Hosts(hosts) => way(&account.name, hosts)?,
            #[cfg(feature = "simulator")]
            config::Upstream::Simulator => {
                signers.insert(account.name.clone(), simulators.signer(account)?);
                // The key of the last start is gone, and so is all that was bought with it.
                store.forget_token(&account.name).map_err(|error| state(&error))?;
                simulators.way(account.venue)?
            }
            #[cfg(not(feature = "simulator"))]
            config::Upstream::Simulator => return Err(Exit::configuration("this build has no simulator")),
        };
        let added = ways.add_account(&account.name, venue_of(account.venue), &way);
        added.map_err(|error| Exit::configuration(format!("accounts.{}.upstream: {error}", account.name)))?;
    }
    for name in config.grants.iter().flat_map(|grant| match &grant.reach {
        Reach::Venues(venues) => venues.as_slice(),
        Reach::Account(_) => &[],
    }) {
        ways.add_venue(venue_of(name), &public_way()?).map_err(Exit::configuration)?;
    }
    let ways = Arc::new(ways);

    let (draining, is_draining) = watch::channel(false);
    let mut opened = BTreeMap::new();
    let mut account_tasks = Vec::new();
    let writes = TaskTracker::new();
    for account in &config.accounts {
        let Some(signer) = signers.remove(&account.name) else { continue };
        let venue = venue_of(account.venue);
        let settings = account::Settings {
            name: account.name.clone(),
            venue,
            signer,
            nonce_unit: account.nonce_unit,
            upkeep: prepared.policy.upkeep(&account.name).expect("the policy was made of these accounts"),
            upstream: Arc::clone(&ways),
            ordering: match account.ordering {
                config::Ordering::Strict => account::Ordering::Strict,
                config::Ordering::Window(requests) => account::Ordering::Window(requests),
            },
            limits: account_limits(config),
            writes: writes.clone(),
        };
        let (handle, task) = Account::open(settings, Arc::clone(&store), clock.clone()).map_err(not_open)?;
        opened.insert(account.name.clone(), handle);
        account_tasks.push(task);
    }

    let (policy, current_policy) = watch::channel(Arc::new(prepared.policy));
    let admin_address = admin_listener.local_addr().map_err(Exit::failed)?;
    let arrivals = server::Arrivals::default();
    let sessions = TaskTracker::new();
    let status = admin::Status {
        listening_on: address.to_string(),
        ports: listeners::told(config, &ports),
        connect: connect_address.map(|address| address.to_string()),
        arrivals: arrivals.clone(),
        sessions: sessions.clone(),
        accounts: config.accounts.iter().map(|account| operator::listed(account, &opened)).collect(),
        draining: is_draining.clone(),
        opened_at: Instant::now(),
        secret: admin_secret,
    };
    let house = Arc::new(House {
        trusted: Arc::new(prepared.trusted),
        policy: current_policy,
        draining: is_draining.clone(),
        budget: Mutex::new(FailureBudget::new(budget_limits(config))),
        accounts: opened,
        upstream: ways,
        clock,
        limits: relay_limits(config),
    });
    let unproved = || ClientName::parse(UNPROVED_CLIENT).expect("a word is a name");
    let door = Arc::new(http::Door {
        house: Arc::clone(&house),
        routes,
        origins: config.listen.origins.clone(),
        unsafe_no_auth: config.listen.unsafe_no_auth.then(unproved),
        sessions,
        limits: http_limits(config),
        refusals: http::Throttle::new(),
    });
    let acceptor = prepared.acceptor.expect("the certificates are there by now");
    let limits = server_limits(config);
    let server = tokio::spawn(server::serve(listeners, acceptor, door, arrivals, is_draining, limits, threads));
    let admin = tokio::spawn(admin::serve(admin_listener, status));
    Ok(Running {
        house,
        address,
        ports,
        connect_address,
        admin_address,
        certificates,
        #[cfg(feature = "simulator")]
        simulators,
        policy,
        draining,
        server,
        admin,
        accounts: account_tasks,
        writes,
    })
}

fn public_way() -> Result<Way, Exit> {
    let connector = Connector::with_roots(&ClientRoots::WebPki).map_err(Exit::failed)?;
    Ok(Way { rest: None, socket: None, addresses: Vec::new(), connector, is_local_allowed: false })
}

fn way(account: &AccountName, hosts: &config::UpstreamHosts) -> Result<Way, Exit> {
    let at = |what: &dyn std::fmt::Display| Exit::configuration(format!("accounts.{account}.upstream.roots: {what}"));
    let roots = match &hosts.roots {
        Some(path) => ClientRoots::Pem(std::fs::read(path).map_err(|error| at(&error))?),
        None => ClientRoots::WebPki,
    };
    let base = |url: &config::HostUrl| {
        let host = url.host.trim_matches(['[', ']']).to_owned();
        let path = if url.path == "/" { String::new() } else { url.path.clone() };
        Base { host, port: url.port, path }
    };
    Ok(Way {
        rest: hosts.rest.as_ref().map(base),
        socket: hosts.ws.as_ref().map(base),
        addresses: hosts.addresses.clone(),
        connector: Connector::with_roots(&roots).map_err(|error| at(&error))?,
        is_local_allowed: hosts.is_local,
    })
}

fn state(error: &StoreError) -> Exit {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    Exit::State(error.exit_code(), text)
}

fn not_open(error: NotOpen) -> Exit {
    match error {
        NotOpen::Store(_, error) => state(&error),
        NotOpen::Unit(account, changed) => Exit::configuration(format!("accounts.{account}.nonce_unit: {changed}")),
    }
}

fn relay_limits(config: &Config) -> relay::Limits {
    let limits = &config.limits;
    relay::Limits {
        client_message_bytes_max: limits.client_message_bytes_max,
        upstream_message_bytes_max: limits.upstream_message_bytes_max,
        outbox_bytes_max: limits.outbox_bytes_max,
        outbox_stall: limits.outbox_stall,
        ping_interval: limits.ping_interval,
        pong_timeout: limits.pong_timeout,
        message_idle: limits.message_idle,
        pings_per_second_max: limits.pings_per_second_max,
        close_timeout: limits.close_timeout,
        supply_timeout: limits.supply_timeout,
        session: session::Limits {
            auth_timeout: limits.auth_timeout,
            unproved_idle: limits.unproved_idle,
            login_timeout: limits.login_timeout,
            expiry_notice: limits.expiry_notice,
        },
    }
}

fn http_limits(config: &Config) -> http::Limits {
    let limits = &config.limits;
    http::Limits {
        request_head: limits.request_head,
        headers_max: limits.headers_max,
        head_bytes_max: limits.head_bytes_max,
        requests_per_connection_max: limits.requests_per_connection_max,
        request_body: limits.request_body,
        request_body_bytes_max: limits.request_body_bytes_max,
        answer: answer_limits(config),
        order_wait: limits.order_wait,
        order_connection_idle: limits.order_connection_idle,
    }
}

fn server_limits(config: &Config) -> server::Limits {
    server::Limits {
        connections_max: config.listen.connections_max,
        tls_handshake: config.limits.tls_handshake,
        drain_timeout: config.limits.drain_timeout,
    }
}

fn dial_limits(config: &Config) -> DialLimits {
    DialLimits {
        connect: config.limits.connect_timeout,
        handshake: config.limits.upstream_handshake,
        idle: config.limits.connection_idle,
        idle_connections_max: config.limits.connections_idle_max,
        ..DialLimits::default()
    }
}

/// How long and how large an exchange's answer to a request may be.
fn answer_limits(config: &Config) -> AnswerLimits {
    let limits = &config.limits;
    AnswerLimits { timeout: limits.answer_timeout, bytes_max: limits.answer_bytes_max, stall: limits.answer_stall }
}

fn account_limits(config: &Config) -> account::Limits {
    let limits = &config.limits;
    account::Limits {
        hold_max: limits.hold_max,
        answer: answer_limits(config),
        order_wait: limits.order_wait,
        call_wait: limits.call_wait,
        calls_waiting_max: limits.calls_waiting_max,
        calls_waiting_per_client_max: limits.calls_waiting_per_client_max,
        order_connection_idle: limits.order_connection_idle,
        token_refresh: limits.token_refresh,
    }
}

fn budget_limits(config: &Config) -> budget::Limits {
    let limits = &config.limits;
    budget::Limits {
        failures_max: limits.auth_failures_max,
        within: limits.auth_failures_within,
        slowed_by: limits.auth_failure_delay,
        unproved_max: limits.unproved_per_source_max,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each module has its values for those who use it as a library, and `proxy.toml` has them for everybody else.
    #[test]
    fn the_limits_of_the_configuration_are_those_of_the_modules() {
        let overrides = [
            ("clients.jwt.secret", "{ file = 'x' }"),
            ("grants", "[{ client = 'jwt:a', account = 'k', scope = ['read'] }]"),
            ("accounts.k", "{ venue = 'plain', upstream = { ws = 'wss://localhost:1/' } }"),
        ];
        let overrides = overrides.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let file = std::env::temp_dir().join(format!("countersign-limits-{}.toml", std::process::id()));
        std::fs::write(&file, "").expect("a temporary file");
        let config = read(Some(&file), &overrides).unwrap_or_else(|errors| panic!("{errors}"));
        std::fs::remove_file(&file).expect("it was just written");
        let pairs = [
            (format!("{:?}", relay_limits(&config)), format!("{:?}", relay::Limits::default())),
            (format!("{:?}", http_limits(&config)), format!("{:?}", http::Limits::default())),
            (format!("{:?}", server_limits(&config)), format!("{:?}", server::Limits::default())),
            (format!("{:?}", dial_limits(&config)), format!("{:?}", DialLimits::default())),
            (format!("{:?}", account_limits(&config)), format!("{:?}", account::Limits::default())),
            (format!("{:?}", budget_limits(&config)), format!("{:?}", budget::Limits::default())),
        ];
        for (configured, own) in pairs {
            assert_eq!(configured, own);
        }
    }
}
