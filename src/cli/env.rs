//! `countersign env`: what points a bot at the proxy: variables for its shell, and options for its library.

mod libraries;

use super::proxy::{self, Listening};
use super::{ConfigArgs, Exit, assemble, run_secret};
use crate::certs::bundle::{self, Roots};
use crate::config::{Config, Tls};
use crate::connect;
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::json;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub(super) use libraries::names as library_names;

/// Print what points a bot at the proxy, to be taken over by a shell
///
///   eval "$(countersign env)"
///
/// HTTPS_PROXY and its kin are part of it where `[connect]` is configured, with a secret in them: keep the output out of
/// logs. Not every library reads them; `--for` says what one needs beyond.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct EnvArgs {
    /// Say what this library needs beyond the variables
    #[arg(long = "for", value_name = "LIBRARY", value_parser = PossibleValuesParser::new(library_names()))]
    library: Option<String>,

    /// Print JSON: {"env": {...}, "library": ..., "lines": [...]}
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ConfigArgs, wanted: &EnvArgs) -> Result<(), Exit> {
    let config = assemble::load(args)?;
    let listening = proxy::find(&config)?.map_or_else(|| Listening::configured(&config), |found| found.listening);
    let trust = trust(&config)?;
    let connect = listening.connect.filter(|address| address.port() != 0);
    let secret = connect.map(|_| run_secret::run_secret(&config)).transpose()?;
    let tunnels = connect.zip(secret.as_deref());
    let variables = variables(&trust, tunnels);
    let lines = wanted.library.as_deref().map(|name| libraries::lines(name, &listening, &trust));
    if wanted.json {
        let env: serde_json::Map<_, _> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        super::say(json!({"env": env, "library": wanted.library, "lines": lines.unwrap_or_default()}));
        return Ok(());
    }
    for (name, value) in &variables {
        super::say(format_args!("export {name}={}", quoted(value)));
    }
    if tunnels.is_none() {
        super::say("# HTTPS_PROXY is not set: there is no `[connect]` in the configuration, or its port is 0.");
    }
    for line in lines.unwrap_or_default() {
        // A comment to a shell, so that the whole output can be evaluated.
        super::say(format_args!("# {line}").to_string().trim_end());
    }
    Ok(())
}

/// The files of roots that bots trust us by.
pub(super) struct Trust {
    /// Our own authority, for what adds it to its own roots.
    pub(super) authority: PathBuf,
    /// The system's roots and ours, for what takes it in place of its own.
    pub(super) bundle: PathBuf,
    /// True if no roots of the system were found.
    pub(super) is_ours_alone: bool,
}

/// Finds our authority and puts the bundle in its place.
pub(super) fn trust(config: &Config) -> Result<Trust, Exit> {
    let (authority, bundle) = match &config.listen.tls {
        Tls::Directory(directory) => (directory.join("ca.pem"), directory.join("bundle.pem")),
        // Whoever signed it stands behind it in the same file.
        Tls::Pair { certificate, .. } => (certificate.clone(), config.store_path.join("bundle.pem")),
    };
    let (authority, bundle) = (absolute(&authority)?, absolute(&bundle)?);
    let made = bundle::ensure(&bundle, &authority, &Roots::from_environment()).map_err(|error| {
        let is_first = assemble::is_first_start(config);
        let hint = if is_first { "; before the first `countersign serve`, `countersign certs` makes it" } else { "" };
        Exit::configuration(format!("{error}{hint}"))
    })?;
    Ok(Trust { authority, bundle, is_ours_alone: made.system_roots == 0 })
}

/// A bot may work in another folder.
fn absolute(path: &Path) -> Result<PathBuf, Exit> {
    std::path::absolute(path).map_err(Exit::failed)
}

/// The variables, each with its value. `tunnels` are the CONNECT listener and a secret for it.
pub(super) fn variables(trust: &Trust, tunnels: Option<(SocketAddr, &str)>) -> Vec<(&'static str, String)> {
    let mut variables = Vec::new();
    if let Some((address, secret)) = tunnels {
        let url = format!("http://{}:{secret}@{address}", connect::USER);
        for name in ["HTTPS_PROXY", "https_proxy", "WSS_PROXY", "wss_proxy", "WS_PROXY", "ws_proxy"] {
            variables.push((name, url.clone()));
        }
    }
    let bundle = trust.bundle.display().to_string();
    for name in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"] {
        variables.push((name, bundle.clone()));
    }
    // Node adds these to the roots that it was built with.
    for name in ["NODE_EXTRA_CA_CERTS", "COUNTERSIGN_CA"] {
        variables.push((name, trust.authority.display().to_string()));
    }
    variables
}

/// A value as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust() -> Trust {
        Trust { authority: "/c/ca.pem".into(), bundle: "/c/bundle.pem".into(), is_ours_alone: false }
    }

    #[test]
    fn proxy_variables_are_set_only_where_there_is_something_to_reach() {
        let names = |tunnels| variables(&trust(), tunnels).iter().map(|(name, _)| *name).collect::<Vec<_>>();
        let address = "127.0.0.1:8444".parse().expect("an address");
        assert!(names(Some((address, "s"))).contains(&"HTTPS_PROXY"));
        assert!(names(None).iter().all(|name| !name.to_ascii_lowercase().contains("proxy")));
        let all = variables(&trust(), Some((address, "s")));
        assert!(all.contains(&("https_proxy", "http://run:s@127.0.0.1:8444".to_owned())));
        assert!(all.contains(&("NODE_EXTRA_CA_CERTS", "/c/ca.pem".to_owned())));
        assert!(all.contains(&("SSL_CERT_FILE", "/c/bundle.pem".to_owned())));
        assert!(!all.iter().any(|(name, _)| *name == "NO_PROXY" || *name == "HTTP_PROXY"), "those stay as they are");
    }

    #[test]
    fn a_value_is_one_word_of_a_shell() {
        assert_eq!(quoted("/my desk/it's"), r"'/my desk/it'\''s'");
    }
}
