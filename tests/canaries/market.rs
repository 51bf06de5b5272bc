//! Both simulated exchanges with planted keys, a parrot in front of each, and the configuration of a proxy before them.

use super::parrot::{Manner, Parrot};
use super::{API_KEY, API_SECRET, KRAKEN_NAMES, certified, write_secret};
use crate::house::Folder;
use countersign::simulator::bitfinex::{self, Bitfinex};
use countersign::simulator::kraken::{self, Kraken};
use countersign::simulator::{Options, Running, SimKey};
use std::path::Path;

pub(crate) const BITFINEX_KEY: &str = "CANARYbfxKq7Rm2Zt9Wc4Yv1Ns6Hd3Gj8Lp5Ua0Xe";
pub(crate) const BITFINEX_SECRET: &str = "canaryBfxSecret5Tg8Hn2Jm6Kp9Qr3Sv7Wx1Za4B";
pub(crate) const BITFINEX_NAMES: &[&str] = &["api.bitfinex.com", "api-pub.bitfinex.com"];

/// Both exchanges, with a parrot in front of each.
pub(crate) struct Market {
    pub(crate) kraken: Running<Kraken>,
    pub(crate) bitfinex: Running<Bitfinex>,
    pub(crate) kraken_parrot: Parrot,
    bitfinex_parrot: Parrot,
    folders: [Folder; 2],
}

impl Market {
    pub(crate) async fn open() -> Self {
        let folders = [Folder::new(), Folder::new()];
        let keys = |key: &str, secret: &str| vec![SimKey::new(key, secret)];
        let acceptor = certified(folders[0].path(), KRAKEN_NAMES);
        let kraken = kraken::start(Options::kraken(acceptor, keys(API_KEY, API_SECRET))).await.unwrap();
        let acceptor = certified(folders[1].path(), BITFINEX_NAMES);
        let options = Options::bitfinex(acceptor, keys(BITFINEX_KEY, BITFINEX_SECRET));
        let bitfinex = bitfinex::start(options).await.unwrap();
        let kraken_parrot = Parrot::before(kraken.address(), &folders[0], KRAKEN_NAMES).await;
        let bitfinex_parrot = Parrot::before(bitfinex.address(), &folders[1], BITFINEX_NAMES).await;
        Self { kraken, bitfinex, kraken_parrot, bitfinex_parrot, folders }
    }

    pub(crate) fn config(&self, folder: &Path) -> String {
        let mut accounts = String::new();
        for (venue, key, secret, parrot, exchange) in [
            ("kraken", API_KEY, API_SECRET, &self.kraken_parrot, &self.folders[0]),
            ("bitfinex", BITFINEX_KEY, BITFINEX_SECRET, &self.bitfinex_parrot, &self.folders[1]),
        ] {
            write_secret(&folder.join(format!("{venue}.key")), key);
            write_secret(&folder.join(format!("{venue}.secret")), secret);
            let (roots, address) = (exchange.path().join("ca.pem"), parrot.address);
            accounts.push_str(&format!(
                r#"
[accounts.{venue}_main]
venue = "{venue}"
key = {{ file = "{venue}.key" }}
secret = {{ file = "{venue}.secret" }}
upstream = {{ roots = "{}", addresses = ["{address}"] }}
[[grants]]
client = "key:bot-a"
account = "{venue}_main"
scope = ["read", "trade"]
[[grants]]
client = "jwt:bot-a"
account = "{venue}_main"
scope = ["read", "trade"]
"#,
                roots.display()
            ));
        }
        format!(
            r#"{accounts}
[listen]
address = "127.0.0.1:0"
[[ports]]
address = "127.0.0.1:0"
venue = "kraken"
[connect]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[clients.jwt]
secret = {{ file = "certs/client-jwt.key" }}
[clients.local_keys]
master = {{ file = "certs/local-keys.key" }}
[[grants]]
client = "key:viewer"
account = "kraken_main"
scope = ["read"]
[[grants]]
client = "anonymous"
venues = ["kraken", "bitfinex"]
scope = ["public"]
[limits]
auth_failure_delay = "1ms"
answer_timeout = "1s"
"#
        )
    }

    pub(crate) fn be(&self, manner: Manner) {
        self.kraken_parrot.be(manner);
        self.bitfinex_parrot.be(manner);
    }

    /// How many requests came in at both.
    pub(crate) fn requests(&self) -> usize {
        self.kraken_parrot.requests() + self.bitfinex_parrot.requests()
    }

    /// What is the clients' own, which no exchange may get to see.
    pub(crate) fn forbid(&self, text: &str) {
        self.kraken.record().forbid(text);
        self.bitfinex.record().forbid(text);
    }
}
