//! `countersign account`: has the running proxy do what only a person can decide.

use super::{ConfigArgs, Exit, assemble, proxy, status};
use crate::admin::{Action, path_of};
use crate::config::{Config, SecretError, SecretRef};
use crate::names::AccountName;
use crate::secret::Secret;
use crate::store::ADMIN_SECRET;
use clap::{Args, Subcommand};

/// Renew an account's token, close its breaker or unfreeze its nonces, in the proxy that runs
///
/// Run it where the proxy runs, as the same user: it proves itself with a secret that each start of the proxy writes
/// into its state folder. `countersign status` shows what there is to do, and every command prints the account as it is
/// afterwards.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct AccountArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Buy a new token now; the old one serves until it is there, and no connection is dropped
    Refresh(Whose),
    /// Close the breaker of the token, and use a key again that the exchange refused: after what was wrong is mended
    Reset(Whose),
    /// Take frozen nonces back into use: after every other program that used the key has ended
    Unfreeze(Whose),
}

#[derive(Args)]
struct Whose {
    /// The account, as the configuration names it
    #[arg(value_name = "NAME")]
    name: String,
}

pub(super) fn run(args: &ConfigArgs, account: &AccountArgs) -> Result<(), Exit> {
    let config = assemble::load(args)?;
    let (whose, action) = match &account.what {
        What::Refresh(whose) => (whose, Action::RenewToken),
        What::Reset(whose) => (whose, Action::ResetBreaker),
        What::Unfreeze(whose) => (whose, Action::Unfreeze),
    };
    let name = AccountName::parse(&whose.name).map_err(|bad| Exit::configuration(format!("NAME {bad}")))?;
    let secret = secret(&config)?;
    let address = proxy::reachable(config.admin_address);
    let (status, body) = proxy::order(address, &path_of(name.as_str(), action), &secret)
        .map_err(|error| proxy::not_there(address, &error))?;
    if status != 200 {
        return Err(Exit::failed(body.trim_end()));
    }
    let told = serde_json::from_str(&body).map_err(|_| Exit::failed(format!("{address}: the answer is no status")))?;
    status::print_accounts(&[told]);
    Ok(())
}

/// What the running proxy wrote into its state folder.
fn secret(config: &Config) -> Result<Secret, Exit> {
    let path = config.store_path.join(ADMIN_SECRET);
    SecretRef::File(path.clone()).resolve(&config.base).map_err(|error| match error {
        SecretError::NoFile { .. } => Exit::failed(format!(
            "{} is not there; is `countersign serve` running with this configuration? It makes the file at its start",
            path.display()
        )),
        error => Exit::failed(format!("{error}; run this as the user of the proxy")),
    })
}
