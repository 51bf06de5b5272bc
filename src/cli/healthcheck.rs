//! `countersign healthcheck`: asks the admin listener of a running proxy whether it is ready.

use super::{ConfigArgs, Exit, assemble, proxy};

pub(super) fn run(args: &ConfigArgs) -> Result<(), Exit> {
    let config = assemble::load(args)?;
    let address = proxy::reachable(config.admin_address);
    let (status, _) = proxy::ask(address, "/readyz").map_err(|error| proxy::not_there(address, &error))?;
    match status {
        200 => {
            super::say("ready");
            Ok(())
        }
        status => Err(Exit::failed(format!("not ready: {address} answered with status {status}"))),
    }
}
