//! What the admin listener is given for those who look after the process.

use super::{Exit, state};
use crate::admin::Listed;
use crate::config;
use crate::names::AccountName;
use crate::secret::Secret;
use crate::store::FileStore;
use crate::supply::account::Account;
use std::collections::BTreeMap;

/// A secret of this run for the admin listener's actions, which whoever may read the state folder finds there.
pub(super) fn secret(files: &FileStore) -> Result<Secret, Exit> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|_| Exit::failed("the system gave no random numbers"))?;
    let secret = Secret::from(hex::encode(random));
    files.write_admin_secret(&secret).map_err(|error| state(&error))?;
    Ok(secret)
}

/// An account of the configuration, with its handle if its keys were found.
pub(super) fn listed(account: &config::Account, opened: &BTreeMap<AccountName, Account>) -> Listed {
    let (name, venue) = (account.name.to_string(), account.venue);
    Listed { name, venue, account: opened.get(&account.name).cloned() }
}
