//! The secret that `countersign run` writes into the proxy URL, and that the CONNECT listener asks for.
//!
//! Both processes derive it from the master key of `[clients.local_keys]`, which both can read, so nothing has to be
//! handed over. It opens tunnels to this house and proves nothing of a client.

use super::{Exit, assemble};
use crate::config::Config;
use crate::connect::SecretCheck;
use crate::identity::local::LocalKeys;
use std::sync::Arc;

/// A secret for one run.
pub(super) fn run_secret(config: &Config) -> Result<String, Exit> {
    let mut number = [0; 16];
    getrandom::fill(&mut number).map_err(|_| Exit::failed("the system gave no random numbers"))?;
    let secret = local_keys(config)?.run_secret(number);
    Ok(String::from_utf8_lossy(secret.expose()).into_owned())
}

/// What knows the secrets that [`run_secret`] makes.
pub(super) fn secret_check(config: &Config) -> Result<SecretCheck, Exit> {
    let local = local_keys(config)?;
    Ok(Arc::new(move |shown| local.is_run_secret(shown)))
}

/// Fails where the configuration names no key to make secrets of. The key itself may be made by the first start.
pub(super) fn ensure_possible(config: &Config) -> Result<(), Exit> {
    if config.clients.local_keys.is_some() { Ok(()) } else { Err(no_master()) }
}

fn local_keys(config: &Config) -> Result<LocalKeys, Exit> {
    assemble::local::keys(config)?.ok_or_else(no_master)
}

fn no_master() -> Exit {
    Exit::configuration(
        "the secrets of `countersign run` are made of the master key of local keys; add\n\
         [clients.local_keys]\n\
         master = { file = \"certs/local-keys.key\" }",
    )
}
