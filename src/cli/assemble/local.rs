//! Local keys, as the configuration has them: from which master key, for whom, of which generation.

use super::{accounts, venue_of};
use crate::cli::Exit;
use crate::config::{Config, Reach};
use crate::identity::local::{LocalGrants, LocalKeyFor, LocalKeys};
use crate::names::ClientName;
use crate::policy::ClientPattern;
use crate::supply::clock::Clock;
use std::collections::BTreeMap;
use std::fmt::Display;

/// What makes local keys and placeholders, if they are configured.
pub(in crate::cli) fn keys(config: &Config) -> Result<Option<LocalKeys>, Exit> {
    let Some(local) = &config.clients.local_keys else { return Ok(None) };
    let at = |what: &dyn Display| Exit::configuration(format!("clients.local_keys.master: {what}"));
    let master = local.master.resolve(&config.base).map_err(|error| at(&error))?;
    let keys = LocalKeys::new(&master, grants(config)?, local.placeholder_lifetime, Clock::System.now());
    keys.map(|keys| Some(keys.with_bearer_lifetime(local.bearer_lifetime))).map_err(|error| at(&error))
}

/// Every client and account that a grant names for local keys, and the generations of clients.
pub(in crate::cli) fn grants(config: &Config) -> Result<LocalGrants, Exit> {
    let venues = accounts(config);
    let mut keys = Vec::new();
    for grant in &config.grants {
        let pattern = ClientPattern::parse(grant.client.as_str())
            .map_err(|bad| Exit::configuration(format!("grants: client {bad}")))?;
        let (Some(client), Reach::Account(account)) = (pattern.local_key_client(), &grant.reach) else { continue };
        let Some(venue) = venues.get(account) else { continue };
        keys.push(LocalKeyFor { client, account: account.clone(), venue: venue_of(venue) });
    }
    Ok(LocalGrants { keys, generations: generations(config) })
}

/// The generation of every client for which it is not the first.
pub(in crate::cli) fn generations(config: &Config) -> BTreeMap<ClientName, u32> {
    config.clients.local_keys.as_ref().map(|local| local.generations.clone()).unwrap_or_default()
}
