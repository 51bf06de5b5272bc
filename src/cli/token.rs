//! `countersign token`: mints a token for a client, signed with the configured secret.

use super::{ConfigArgs, Exit, assemble};
use crate::config::Config;
use crate::identity::jwt::{Mint, NotMinted};
use crate::names::ClientName;
use crate::scope::{Right, Scope};
use crate::supply::clock::Clock;
use clap::Args;
use std::time::Duration;

/// Mint a client token, for the first message or `Authorization: Bearer`
///
/// The token is printed alone, so that it can be taken over by a script:
///   TOKEN=$(countersign token --subject bot-a --scope read,trade --ttl 15m)
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct TokenArgs {
    /// The client's name, as the grants have it
    #[arg(long, value_name = "NAME")]
    subject: String,

    /// What the token limits itself to: public, read, trade, transfer, admin [default: all that is granted]
    #[arg(long, value_name = "RIGHTS", value_delimiter = ',')]
    scope: Option<Vec<String>>,

    /// How long it is good for; sessions end with it
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = humantime::parse_duration)]
    ttl: Duration,
}

pub(super) fn run(config: &ConfigArgs, args: &TokenArgs) -> Result<(), Exit> {
    let config = assemble::load(config)?;
    let subject = ClientName::parse(&args.subject).map_err(|bad| Exit::configuration(format!("--subject {bad}")))?;
    let scope = args.scope.as_deref().map(scope).transpose()?;
    let keys = assemble::jwt_keys(&config).map_err(|exit| explained(exit, &config))?.ok_or_else(|| {
        Exit::configuration("no `[clients.jwt]` is configured; add `secret = { file = \"certs/client-jwt.key\" }`")
    })?;
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| Exit::failed("the system gave no random numbers"))?;
    let wanted = Mint { subject: &subject, scope, lifetime: args.ttl, random };
    let token = keys.mint(&wanted, Clock::System.now()).map_err(|why| not_minted(why, &config))?;
    super::say(String::from_utf8_lossy(token.expose()));
    Ok(())
}

/// Before the first start, the secret is missing because nobody has made it yet.
fn explained(exit: Exit, config: &Config) -> Exit {
    match exit {
        Exit::Configuration(text) if assemble::is_first_start(config) => {
            Exit::Configuration(format!("{text}; before the first `countersign serve`, `countersign certs` makes it"))
        }
        exit => exit,
    }
}

fn not_minted(why: NotMinted, config: &Config) -> Exit {
    let lifetime_max = config.clients.jwt.as_ref().map(|jwt| humantime::format_duration(jwt.lifetime_max).to_string());
    match why {
        NotMinted::Lifetime => Exit::configuration(format!(
            "--ttl: must be from 1 second to `clients.jwt.lifetime_max`, which is {}",
            lifetime_max.unwrap_or_default()
        )),
        NotMinted::Subject => Exit::configuration("--subject: this name is reserved; choose another"),
        NotMinted::NoSharedSecret => Exit::configuration(
            "clients.jwt: only public keys are configured, and they verify; ask their issuer for a token, or set `secret`",
        ),
        NotMinted::Signing => Exit::failed(why),
    }
}

fn scope(words: &[String]) -> Result<Scope, Exit> {
    let rights = words.iter().map(|word| {
        Right::parse(word.trim())
            .ok_or_else(|| Exit::configuration("--scope: the rights are public, read, trade, transfer and admin"))
    });
    rights.collect()
}
