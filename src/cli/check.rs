//! `countersign check`: everything that can be wrong before a port is bound, in one report.

use super::{ConfigArgs, Exit, assemble};

pub(super) fn run(args: &ConfigArgs) -> Result<(), Exit> {
    let config = assemble::load(args)?;
    let checked = assemble::prepare(&config)?;
    super::say("the configuration is good");
    for line in checked.summary() {
        super::say(format_args!("  {line}"));
    }
    Ok(())
}
