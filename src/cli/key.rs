//! `countersign key`: prints the local key of a client, for a bot that signs as it would for the exchange.

use super::{ConfigArgs, Exit, assemble};
use crate::config::{Config, SecretRef};
use crate::identity::local::{LocalKey, LocalKeyFor};
use crate::names::ClientName;
use crate::venue;
use clap::Args;
use std::io::Write as _;

/// Print the local key of a client, for a bot that nobody changes
///
/// A key pair in the exchange's own format; a user name and a key, where bots log in with those. Give it to the bot in
/// place of the exchange's and point the bot at this proxy: it signs or logs in as ever, the proxy verifies, and does the
/// same anew with the real key. It is worth nothing anywhere else, and needs a grant:
///   [[grants]]
///   client = "key:bot-a"
///   account = "kraken_main"
///   scope = ["read", "trade"]
///
/// The same client and account always get the same pair, so nothing is stored and it can be printed again. If it is
/// stolen, raise the client's number in [clients.local_keys] generations and send the proxy SIGHUP: the old pair is
/// worthless at once, and this prints the new one. For scripts:
///   countersign key --client bot-a --account kraken_main --json
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct KeyArgs {
    /// The client's name, as its grant has it behind `key:`
    #[arg(long, value_name = "NAME")]
    client: String,

    /// The account that the bot will use; the key is good for no other one
    #[arg(long, value_name = "ACCOUNT")]
    account: String,

    /// Print one JSON object: client, account, venue, generation, key, secret; where bots log in with a user name and a
    /// key, user_name and key in place of the two
    #[arg(long)]
    json: bool,
}

pub(super) fn run(config: &ConfigArgs, args: &KeyArgs) -> Result<(), Exit> {
    let config = assemble::load(config)?;
    let client = client(&args.client)?;
    let whose = whose(&config, client, &args.account)?;
    let local = assemble::local::keys(&config).map_err(|exit| explained(exit, &config))?.ok_or_else(|| {
        Exit::configuration(
            "no `[clients.local_keys]` is configured; add\n\
             [clients.local_keys]\n\
             master = { file = \"certs/local-keys.key\" }\n\
             and if the certificates are not made by `countersign certs`, make that file: openssl rand -base64 48",
        )
    })?;
    let pair = local.issue(&whose).ok_or_else(|| {
        let venue = whose.venue.name();
        Exit::configuration(format!("--account: {} is at {venue}, whose bots do not sign: use a token", whose.account))
    })?;
    if args.json {
        super::say(json(&whose, local.generation(&whose.client), &pair));
    } else {
        explain(&whose, &pair);
    }
    warn_without_grant(&config, &whose)
}

/// In our own folder, the master key is missing because nobody has made it yet.
fn explained(exit: Exit, config: &Config) -> Exit {
    let ours = assemble::certificate_directory(config).map(|directory| directory.join("local-keys.key"));
    let is_ours_to_make =
        ours.is_some_and(|ours| match config.clients.local_keys.as_ref().map(|local| &local.master) {
            Some(SecretRef::File(path)) => config.base.join(path) == ours && !ours.exists(),
            Some(SecretRef::Env(_)) | None => false,
        });
    match exit {
        Exit::Configuration(text) if is_ours_to_make => {
            Exit::Configuration(format!("{text}; `countersign certs` makes it, and so does `countersign serve`"))
        }
        exit => exit,
    }
}

fn client(name: &str) -> Result<ClientName, Exit> {
    // Read as a grant would be: what no grant can name is no client.
    crate::policy::ClientPattern::parse(&format!("key:{name}"))
        .map_err(|bad| Exit::configuration(format!("--client: `key:` with this name {bad}")))?;
    ClientName::parse(name).map_err(|bad| Exit::configuration(format!("--client {bad}")))
}

fn whose(config: &Config, client: ClientName, account: &str) -> Result<LocalKeyFor, Exit> {
    let Some(found) = config.accounts.iter().find(|known| known.name.as_str() == account) else {
        let known: Vec<&str> = config.accounts.iter().map(|account| account.name.as_str()).collect();
        let known =
            if known.is_empty() { "there are none".to_owned() } else { format!("known are {}", known.join(", ")) };
        return Err(Exit::configuration(format!("--account: unknown account; {known}")));
    };
    let venue = venue::by_name(found.venue).expect("the configuration was checked against the table of venues");
    Ok(LocalKeyFor { client, account: found.name.clone(), venue })
}

fn json(whose: &LocalKeyFor, generation: u32, pair: &LocalKey) -> String {
    let Words { public, secret, .. } = Words::of(whose.venue);
    let object = serde_json::json!({
        "client": whose.client.as_str(),
        "account": whose.account.as_str(),
        "venue": whose.venue.name(),
        "generation": generation,
        public.replace(' ', "_"): pair.api_key,
        secret: String::from_utf8_lossy(pair.secret.expose()),
    });
    object.to_string()
}

/// What the two halves of a key pair are called at a venue, and by its libraries.
struct Words {
    public: &'static str,
    secret: &'static str,
    /// What the bot has at present.
    own: &'static str,
    example: &'static str,
}

impl Words {
    /// Where everything hangs on a bearer token, bots buy one with a user name and a key.
    fn of(venue: &dyn venue::Venue) -> Self {
        match venue.bearer() {
            Some(_) => Self { public: "user name", secret: "key", own: "user name and key", example: "" },
            None => Self {
                public: "key",
                secret: "secret",
                own: "keys",
                example: ", as in ccxt's {'apiKey': key, 'secret': secret}",
            },
        }
    }
}

fn explain(whose: &LocalKeyFor, pair: &LocalKey) {
    let Words { public, secret, own, example } = Words::of(whose.venue);
    let width = public.len().max(secret.len());
    super::say(format_args!("{public:width$}  {}", pair.api_key));
    super::say(format_args!("{secret:width$}  {}", String::from_utf8_lossy(pair.secret.expose())));
    super::say(format_args!(
        "\nGive both to {} in place of its {own} for {}{example}, and point it\n\
         at this proxy. They are worth nothing anywhere else, and good for {} alone.",
        whose.client,
        whose.venue.name(),
        whose.account
    ));
}

/// A pair without a grant is refused when it is shown: say so now, and which lines are missing.
fn warn_without_grant(config: &Config, whose: &LocalKeyFor) -> Result<(), Exit> {
    let granted = |key: &LocalKeyFor| (&key.client, &key.account) == (&whose.client, &whose.account);
    if assemble::local::grants(config)?.keys.iter().any(granted) {
        return Ok(());
    }
    let LocalKeyFor { client, account, .. } = whose;
    let _ = writeln!(
        std::io::stderr().lock(),
        "countersign: no grant lets {client} use {account} with this key, so it will be refused; add\n\
         [[grants]]\n\
         client = \"key:{client}\"\n\
         account = \"{account}\"\n\
         scope = [\"read\", \"trade\"]"
    );
    Ok(())
}
