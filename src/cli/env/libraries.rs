//! What each client library needs beyond the variables: one table, from which help, answers and documents come.
//!
//! Read in the sources of: ccxt 4.5.90, krakenex 2.2.2, python-kraken-sdk 3.5.1, bitfinex-api-py 4.0.0,
//! bitfinex-api-node 7 and websockets 12 to 15.

use super::Trust;
use crate::cli::proxy::Listening;
use std::net::SocketAddr;

/// A library, and its lines. `{kraken}` and `{bitfinex}` stand for the host and port of their doors, `{kraken_public}`
/// for that of Kraken's public sockets, `{bundle}` and `{authority}` for the files of roots.
struct Library {
    name: &'static str,
    lines: &'static [&'static str],
}

const LIBRARIES: &[Library] = &[
    Library {
        name: "ccxt",
        lines: &[
            "ccxt (sync) reads no variable unless it is told to:",
            "exchange = ccxt.kraken({'apiKey': '…', 'secret': '…', 'requests_trust_env': True})",
        ],
    },
    Library {
        name: "ccxt-async",
        lines: &[
            "ccxt.async_support and ccxt.pro read no variable; they take options:",
            "exchange = ccxt.pro.kraken({'apiKey': '…', 'secret': '…', 'cafile': os.environ['SSL_CERT_FILE'],",
            "    'httpsProxy': os.environ['HTTPS_PROXY'], 'wssProxy': os.environ['WSS_PROXY']})",
        ],
    },
    Library {
        name: "krakenex",
        lines: &["krakenex needs nothing beyond the variables. Without `[connect]`:", "api.uri = 'https://{kraken}'"],
    },
    Library {
        name: "kraken-sdk",
        lines: &[
            "python-kraken-sdk's sync REST clients need nothing beyond the variables; its sockets read them from",
            "websockets 15 on. SpotAsyncClient reads no proxy:",
            "SpotAsyncClient(key=…, secret=…, url='https://{kraken}')",
            "User(key=…, secret=…, url='https://{kraken}')",
            "SpotWSClient(key=…, secret=…, rest_url='https://{kraken}', auth_ws_url='wss://{kraken}',",
            "    ws_url='wss://{kraken_public}')",
        ],
    },
    Library {
        name: "bitfinex-api-py",
        lines: &[
            "bitfinex-api-py's sockets are those of websockets 12, which reads no proxy:",
            "Client(api_key=…, api_secret=…, rest_host='https://{bitfinex}/v2', wss_host='wss://{bitfinex}/ws/2')",
        ],
    },
    Library {
        name: "bfx-api-node",
        lines: &[
            "Node's `ws` and `fetch` read no proxy; NODE_EXTRA_CA_CERTS is read at the start of node:",
            "new WSv2({ apiKey, apiSecret, url: 'wss://{bitfinex}/ws/2' })",
            "new RESTv2({ apiKey, apiSecret, url: 'https://{bitfinex}' })",
        ],
    },
    Library {
        name: "websockets",
        lines: &[
            "websockets reads the variables from version 15 on. Before it:",
            "connect('wss://{kraken}/v2')",
            "connect('wss://{bitfinex}/ws/2')",
        ],
    },
    Library {
        name: "curl",
        lines: &[
            "curl needs nothing beyond the variables. Without `[connect]`:",
            "curl https://{kraken}/0/public/Time",
            "curl https://{bitfinex}/v2/platform/status",
        ],
    },
];

/// The names of the libraries.
pub(in crate::cli) fn names() -> Vec<&'static str> {
    LIBRARIES.iter().map(|library| library.name).collect()
}

/// What a library needs, with the hosts and ports of this configuration.
pub(super) fn lines(name: &str, listening: &Listening, trust: &Trust) -> Vec<String> {
    let Some(library) = LIBRARIES.iter().find(|library| library.name == name) else { return Vec::new() };
    let fields = [
        ("{kraken}", door(listening, "kraken", None, "kraken.localhost")),
        ("{kraken_public}", door(listening, "kraken", Some("public"), "ws.kraken.localhost")),
        ("{bitfinex}", door(listening, "bitfinex", None, "bitfinex.localhost")),
        ("{bundle}", trust.bundle.display().to_string()),
        ("{authority}", trust.authority.display().to_string()),
    ];
    let mut lines: Vec<String> = library.lines.iter().map(|line| (*line).to_owned()).collect();
    for line in &mut lines {
        for (field, value) in &fields {
            *line = line.replace(field, value);
        }
    }
    if lines.iter().any(|line| line.contains(".localhost:")) {
        lines.push(
            "Not every system resolves names below `localhost`; a port of its own (`[[ports]]`) needs none.".to_owned(),
        );
    }
    lines
}

/// The port of a venue where there is one, else the main listener under a name that leads there.
fn door(listening: &Listening, venue: &str, endpoint: Option<&str>, name: &str) -> String {
    let port = listening.ports.iter().find(|port| port.venue == venue && port.endpoint.as_deref() == endpoint);
    match port {
        Some(port) => format!("{}:{}", host(port.address), port.address.port()),
        None => format!("{name}:{}", listening.main.port()),
    }
}

/// What a client on this machine calls the address.
fn host(address: SocketAddr) -> String {
    match address.ip() {
        ip if ip.is_loopback() || ip.is_unspecified() => "localhost".to_owned(),
        std::net::IpAddr::V4(ip) => ip.to_string(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::proxy::ListeningPort;

    fn trust() -> Trust {
        Trust { authority: "/c/ca.pem".into(), bundle: "/c/bundle.pem".into(), is_ours_alone: false }
    }

    fn listening(ports: &[(&str, Option<&str>, u16)]) -> Listening {
        let port = |(venue, endpoint, port): &(&str, Option<&str>, u16)| ListeningPort {
            address: SocketAddr::from(([127, 0, 0, 1], *port)),
            venue: (*venue).to_owned(),
            endpoint: endpoint.map(str::to_owned),
        };
        Listening {
            main: SocketAddr::from(([127, 0, 0, 1], 8443)),
            ports: ports.iter().map(port).collect(),
            connect: None,
        }
    }

    #[test]
    fn every_library_has_lines_and_no_field_is_left_open() {
        for name in names() {
            let lines = lines(name, &listening(&[]), &trust());
            assert!(lines.len() > 1, "{name}");
            assert!(lines.iter().all(|line| !line.contains("{kraken") && !line.contains("{bitfinex")), "{name}");
        }
        assert_eq!(lines("no-such-library", &listening(&[]), &trust()), [""; 0]);
    }

    #[test]
    fn a_port_of_the_venue_is_named_where_there_is_one() {
        let ports = [("kraken", None, 8601), ("kraken", Some("public"), 8602)];
        let with = lines("kraken-sdk", &listening(&ports), &trust()).join("\n");
        assert!(
            with.contains("url='https://localhost:8601'") && with.contains("ws_url='wss://localhost:8602'"),
            "{with}"
        );
        assert!(!with.contains(".localhost"), "{with}");
        let without = lines("kraken-sdk", &listening(&[]), &trust()).join("\n");
        assert!(without.contains("https://kraken.localhost:8443") && without.contains("[[ports]]"), "{without}");
        assert!(without.contains("wss://ws.kraken.localhost:8443"), "{without}");
    }
}
