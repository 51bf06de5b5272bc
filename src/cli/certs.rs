//! `countersign certs`: the development authority, and what it vouches for.

use super::{ConfigArgs, Exit, assemble};
use crate::certs::{self, DEFAULT_CLIENT, Wanted};
use crate::names::ClientName;
use crate::supply::clock::Clock;
use clap::Args;
use std::path::PathBuf;

/// Make the development certificates that are missing
///
/// An authority of your own, a server certificate for localhost and the venues' names, client certificates, the
/// secret that signs client tokens, and the master key of local keys. What is there and good is kept. Give every
/// client `ca.pem` to trust:
///   SSL_CERT_FILE=certs/ca.pem   NODE_EXTRA_CA_CERTS=certs/ca.pem   REQUESTS_CA_BUNDLE=certs/ca.pem
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct CertsArgs {
    /// Where [default: the directory of `listen.tls`]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,

    /// A client to make a certificate for; may be given several times
    #[arg(long = "client", value_name = "NAME", default_value = DEFAULT_CLIENT)]
    clients: Vec<String>,

    /// Make all of them anew: every client has to trust the new authority
    #[arg(long)]
    force: bool,
}

pub(super) fn run(config: &ConfigArgs, args: &CertsArgs) -> Result<(), Exit> {
    let config = assemble::load(config)?;
    for client in &args.clients {
        ClientName::parse(client).map_err(|bad| Exit::configuration(format!("--client {bad}")))?;
    }
    let directory = match &args.directory {
        Some(directory) => directory.clone(),
        None => assemble::certificate_directory(&config).ok_or_else(|| {
            Exit::configuration("`listen.tls` names a certificate of its own; say where with --directory")
        })?,
    };
    let names = assemble::routes(&config).names();
    let wanted = Wanted { directory, names, clients: args.clients.clone(), is_forced: args.force };
    let made = certs::ensure(&wanted, Clock::System.now()).map_err(Exit::configuration)?;
    super::say(made.to_string().trim_end());
    Ok(())
}
