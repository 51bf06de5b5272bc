//! stub
use super::Exit;
use clap::Args;
#[derive(Args)]
pub(super) struct DemoArgs {
    /// Leave everything running at the end
    #[arg(long)]
    keep: bool,
}
pub(super) fn run(_args: &DemoArgs) -> Result<(), Exit> {
    Ok(())
}
