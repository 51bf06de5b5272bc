//! Every time, size and count that bounds the proxy: one table, which is type, default and documentation in one.

use super::check::Checker;
use super::mistakes::Key;
use crate::fresh::LifePart;
use std::time::Duration;

/// Longest time that a limit may be: past that it bounds nothing.
const TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Largest size in bytes, and largest count: what one process can hold.
const SIZE_MAX: u64 = 1 << 30;
const COUNT_MAX: u64 = 1_000_000;

/// hyper panics when told to read a head into less.
const HEAD_BYTES_MIN: usize = 8192;

/// A type of limits: how they are written, and how they are read.
trait Kind: Sized {
    type Raw;
    type Default;

    fn read(raw: Option<&Self::Raw>, default: Self::Default, key: &Key, checker: &mut Checker<'_>) -> Self;
}

macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ident = $default:literal;)+) => {
        #[derive(serde::Deserialize, Default)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct RawLimits {
            $($name: Option<<$kind as Kind>::Raw>,)+
        }

        /// The limits, each under its name in `proxy.toml`.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Limits {
            $($(#[doc = $doc])+ pub $name: $kind,)+
        }

        impl RawLimits {
            pub(super) fn check(&self, checker: &mut Checker<'_>) -> Limits {
                let limits = Key::top("limits");
                let checked = Limits {
                    $($name: <$kind>::read(
                        self.$name.as_ref(), $default, &limits.then(stringify!($name)), checker,
                    ),)+
                };
                if checked.head_bytes_max < HEAD_BYTES_MIN {
                    checker.wrong(&limits.then("head_bytes_max"), "must be at least 8192", "");
                }
                checked
            }
        }
    };
}

limits! {
    /// How long a TLS handshake may take.
    tls_handshake: Duration = "10s";
    /// How long the head of a request may take.
    request_head: Duration = "10s";
    /// Headers that a request may have.
    headers_max: usize = 64;
    /// Bytes that the head of a request may have.
    head_bytes_max: usize = 16384;
    /// Requests that one connection may carry.
    requests_per_connection_max: usize = 100;
    /// How long the body of a request may take.
    request_body: Duration = "30s";
    /// Bytes that the body of a request may have.
    request_body_bytes_max: usize = 1048576;
    /// How long a client may take to show who it is.
    auth_timeout: Duration = "30s";
    /// How long an unproved client under an exchange's own name may be silent.
    unproved_idle: Duration = "60s";
    /// How long the exchange may take to accept our login.
    login_timeout: Duration = "10s";
    /// How long a session may wait for a nonce or a token.
    supply_timeout: Duration = "8s";
    /// How long before its proof ends a client is told.
    expiry_notice: Duration = "60s";
    /// Bytes of one message from a client.
    client_message_bytes_max: usize = 262144;
    /// Bytes of one message from an exchange.
    upstream_message_bytes_max: usize = 4194304;
    /// Bytes that may wait to be written to one peer.
    outbox_bytes_max: usize = 262144;
    /// How long an outbox may stay full before its reader is given up.
    outbox_stall: Duration = "5s";
    /// How often each peer is pinged.
    ping_interval: Duration = "10s";
    /// How long a peer may take to answer a ping.
    pong_timeout: Duration = "20s";
    /// How long a peer may send bytes that complete no message.
    message_idle: Duration = "60s";
    /// Pings a second from a client, sustained.
    pings_per_second_max: u32 = 20;
    /// How long both sides may take to say goodbye.
    close_timeout: Duration = "2s";
    /// How long a TCP connection to an exchange may take.
    connect_timeout: Duration = "5s";
    /// How long TLS and the WebSocket upgrade at an exchange may take.
    upstream_handshake: Duration = "10s";
    /// How long one request may hold up those behind it in its lane.
    hold_max: Duration = "500ms";
    /// How long the exchange may take to answer a request.
    answer_timeout: Duration = "10s";
    /// Bytes that the body of its answer may have.
    answer_bytes_max: usize = 8388608;
    /// How long the body of an answer may stand still.
    answer_stall: Duration = "10s";
    /// How much of a token's life is over when the next one is bought.
    token_refresh: LifePart = "13/15";
    /// How long an order may wait for its turn in the lane.
    order_wait: Duration = "2s";
    /// How long any other call may wait for its turn.
    call_wait: Duration = "8s";
    /// Calls of one account that may wait.
    calls_waiting_max: usize = 1024;
    /// Calls of one account that may wait for one client.
    calls_waiting_per_client_max: usize = 256;
    /// How long a connection may have been idle to carry an order or cancel.
    order_connection_idle: Duration = "10s";
    /// How long a connection for calls is kept open while nobody uses it.
    connection_idle: Duration = "50s";
    /// Idle connections that are kept for each account and endpoint.
    connections_idle_max: usize = 16;
    /// How long sessions may take to end once the process is told to.
    drain_timeout: Duration = "20s";
    /// Unproved connections of one source that has failed too often.
    unproved_per_source_max: usize = 32;
    /// Bad proofs of one source that are answered at once.
    auth_failures_max: usize = 20;
    /// The time in which bad proofs are counted.
    auth_failures_within: Duration = "60s";
    /// How long the answer to a bad proof past those is held back.
    auth_failure_delay: Duration = "1s";
}

impl Kind for Duration {
    type Raw = String;
    type Default = &'static str;

    fn read(raw: Option<&String>, default: &'static str, key: &Key, checker: &mut Checker<'_>) -> Duration {
        checker.time(raw.map(String::as_str), default, key, Duration::from_millis(1), TIME_MAX)
    }
}

impl Kind for LifePart {
    type Raw = String;
    type Default = &'static str;

    fn read(raw: Option<&String>, default: &'static str, key: &Key, checker: &mut Checker<'_>) -> LifePart {
        LifePart::parse(raw.map_or(default, String::as_str)).unwrap_or_else(|bad| {
            checker.wrong(key, &bad.to_string(), "");
            LifePart::default()
        })
    }
}

impl Kind for usize {
    type Raw = u64;
    type Default = u64;

    fn read(raw: Option<&u64>, default: u64, key: &Key, checker: &mut Checker<'_>) -> usize {
        let size = checker.number(raw.copied(), default, key, SIZE_MAX);
        usize::try_from(size).expect("`number` keeps it within 2^30")
    }
}

impl Kind for u32 {
    type Raw = u64;
    type Default = u64;

    fn read(raw: Option<&u64>, default: u64, key: &Key, checker: &mut Checker<'_>) -> u32 {
        let count = checker.number(raw.copied(), default, key, COUNT_MAX);
        u32::try_from(count).expect("`number` keeps it within a million")
    }
}
