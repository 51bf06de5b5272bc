//! The simulated exchanges that run in this process, for accounts with `upstream = "simulator"`.
//!
//! Their keys are made at start and live in memory alone; their certificates are in the state folder, signed by an
//! authority that only this process trusts.

use super::Exit;
use crate::certs::{self, Wanted};
use crate::config::{Account, Config, Upstream};
use crate::credential::{SecretFormat, Signer};
use crate::names::AccountName;
use crate::secret::Secret;
use crate::simulator::{self, Options, SimKey};
use crate::supply::clock::Clock;
use crate::tls::{Acceptor, Certificates, ClientRoots, Connector, ServerSettings};
use crate::upstream::Way;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

/// The folder in the state folder that holds their certificates.
const FOLDER: &str = "simulators";

/// The simulated exchanges that the configuration asks for.
pub struct Simulators {
    /// Kraken, if an account asks for it.
    pub kraken: Option<simulator::Running<simulator::kraken::Kraken>>,
    /// Bitfinex, if an account asks for it.
    pub bitfinex: Option<simulator::Running<simulator::bitfinex::Bitfinex>>,
    /// ProjectX, if an account asks for it.
    pub projectx: Option<simulator::Running<simulator::projectx::ProjectX>>,
    keys: BTreeMap<AccountName, SimKey>,
    connector: Option<Connector>,
}

impl Simulators {
    pub(super) async fn start(config: &Config) -> Result<Self, Exit> {
        let simulated = |venue: &'static str| {
            config
                .accounts
                .iter()
                .filter(move |account| account.upstream == Upstream::Simulator && account.venue == venue)
        };
        let mut simulators =
            Self { kraken: None, bitfinex: None, projectx: None, keys: BTreeMap::new(), connector: None };
        if config.accounts.iter().all(|account| account.upstream != Upstream::Simulator) {
            return Ok(simulators);
        }
        let (acceptor, connector) = trust(&config.store_path.join(FOLDER))?;
        simulators.connector = Some(connector);

        let mut keys = Vec::new();
        for account in simulated("kraken") {
            keys.push(simulators.make_key(account)?);
        }
        if !keys.is_empty() {
            let options = Options::kraken(acceptor.clone(), keys);
            simulators.kraken = Some(simulator::kraken::start(options).await.map_err(Exit::failed)?);
        }
        let mut keys = Vec::new();
        for account in simulated("bitfinex") {
            keys.push(simulators.make_key(account)?);
        }
        if !keys.is_empty() {
            let options = Options::bitfinex(acceptor.clone(), keys);
            simulators.bitfinex = Some(simulator::bitfinex::start(options).await.map_err(Exit::failed)?);
        }
        let mut keys = Vec::new();
        for account in simulated("projectx") {
            keys.push(simulators.make_key(account)?);
        }
        if !keys.is_empty() {
            let options = Options { expects_a_proxy: true, ..Options::projectx(acceptor, keys) };
            simulators.projectx = Some(simulator::projectx::start(options).await.map_err(Exit::failed)?);
        }
        Ok(simulators)
    }

    /// Signs with the account's simulated key.
    pub(super) fn signer(&self, account: &Account) -> Result<Signer, Exit> {
        let key = self.keys.get(&account.name).ok_or_else(|| no_simulator(account.venue))?;
        let format = super::venue_of(account.venue).secret_format().unwrap_or(SecretFormat::Text);
        Signer::new(&Secret::from(key.api_key.clone()), &Secret::from(key.secret.clone()), format).map_err(Exit::failed)
    }

    /// The way to a venue's simulator: the venue's real names, at its address.
    pub(super) fn way(&self, venue: &'static str) -> Result<Way, Exit> {
        let address = self.address(venue).ok_or_else(|| no_simulator(venue))?;
        let connector = self.connector.clone().ok_or_else(|| no_simulator(venue))?;
        Ok(Way { rest: None, socket: None, addresses: vec![address], connector, is_local_allowed: true })
    }

    /// Where a venue's simulator listens.
    pub fn address(&self, venue: &str) -> Option<SocketAddr> {
        match venue {
            "kraken" => self.kraken.as_ref().map(simulator::Running::address),
            "bitfinex" => self.bitfinex.as_ref().map(simulator::Running::address),
            "projectx" => self.projectx.as_ref().map(simulator::Running::address),
            _ => None,
        }
    }

    fn make_key(&mut self, account: &Account) -> Result<SimKey, Exit> {
        let key = random_key(account.venue == "kraken")?;
        self.keys.insert(account.name.clone(), key.clone());
        Ok(key)
    }
}

/// A key that only a simulator knows, in the venue's own format.
pub(in crate::cli) fn random_key(is_base64: bool) -> Result<SimKey, Exit> {
    let mut random = [0; 84];
    getrandom::fill(&mut random).map_err(|_| Exit::failed("the system gave no random numbers"))?;
    let (key, secret) = random.split_at(20);
    let secret = if is_base64 { BASE64.encode(secret) } else { hex::encode(&secret[..22]) };
    Ok(SimKey::new(format!("SIM{}", hex::encode_upper(key)), secret))
}

/// Certificates for the exchanges' real names, and whoever trusts them. Used by nobody but this process.
pub(in crate::cli) fn trust(folder: &Path) -> Result<(Acceptor, Connector), Exit> {
    let names: Vec<String> = crate::venue::VENUES
        .iter()
        .flat_map(|(venue, _)| venue.endpoints())
        .filter(|endpoint| !endpoint.host.is_empty())
        .map(|endpoint| endpoint.host.to_owned())
        .collect();
    let now = Clock::System.now();
    let wanted = Wanted { directory: folder.to_owned(), names, clients: Vec::new(), is_forced: false };
    certs::ensure(&wanted, now).map_err(Exit::configuration)?;
    let certificates = Certificates::Directory(folder.to_owned());
    let settings = ServerSettings { certificates, client_authority: None, client_revocations: None };
    let acceptor = settings.load(now).map_err(Exit::failed)?;
    let roots = std::fs::read(folder.join("ca.pem")).map_err(Exit::failed)?;
    Ok((acceptor, Connector::with_roots(&ClientRoots::Pem(roots)).map_err(Exit::failed)?))
}

fn no_simulator(venue: &str) -> Exit {
    Exit::configuration(format!("there is no simulator for {venue}; name its hosts under `upstream`"))
}
