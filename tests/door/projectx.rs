//! The door to a simulated ProjectX, whose tokens and hubs a test may set up as it wants.

use super::{Behind, Door, KeyPair, Target, Venue, exchange_certificates, free_addresses, local_key};
use crate::house::{Folder, House};
use countersign::simulator::projectx::{self, ProjectX};
use countersign::simulator::{Options, Running, SimKey};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

const USER: &str = "simulated-user";
const KEY: &str = "c2ltdWxhdGVkL2FwaStrZXkgb2YgcHJvamVjdHg=";

impl Door {
    pub(crate) async fn to_projectx(target: Target, set_up: impl FnOnce(&mut Options)) -> Self {
        let folder = Folder::new();
        let mut options = Options::projectx(exchange_certificates(folder.path()), vec![SimKey::new(USER, KEY)]);
        options.expects_a_proxy = target == Target::ThroughTheProxy;
        set_up(&mut options);
        let running = projectx::start(options).await.unwrap();
        let ca = folder.path().join("ca.pem");
        if target == Target::Directly {
            let bot = KeyPair { key: USER.to_owned(), secret: KEY.to_owned() };
            let (venue, address) = (Venue::ProjectX, running.address());
            return Self { venue, address, public: address, ca, bot, behind: Behind::ProjectX(running, folder, None) };
        }
        let [address] = free_addresses();
        let [user_file, key_file] = [("user", USER), ("key", KEY)].map(|(name, text)| {
            let file = folder.path().join(name);
            // A key that others may read is refused.
            let written = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file);
            written.unwrap().write_all(text.as_bytes()).unwrap();
            file.display().to_string()
        });
        let house = House::from(&format!(
            r#"
[listen]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[[ports]]
address = "{address}"
venue = "projectx"
[clients.local_keys]
master = {{ file = "certs/local-keys.key" }}
[accounts.projectx_main]
venue = "projectx"
key = {{ file = "{user_file}" }}
secret = {{ file = "{key_file}" }}
upstream = {{ roots = "{roots}", addresses = ["{upstream}"], local = true }}
[[grants]]
client = "key:bot-a"
account = "projectx_main"
scope = ["read", "trade"]
"#,
            roots = ca.display(),
            upstream = running.address(),
        ))
        .await;
        let bot = local_key(house.folder.path(), "projectx_main", ["user name", "key"]);
        // What makes the proxy worth its name: nothing of the bot's reaches the venue.
        running.record().forbid(&bot.key);
        running.record().forbid(&bot.secret);
        let ca = house.certs().join("ca.pem");
        let behind = Behind::ProjectX(running, folder, Some(Box::new(house)));
        Self { venue: Venue::ProjectX, address, public: address, ca, bot, behind }
    }

    /// The venue behind a door that [`Door::to_projectx`] opened.
    pub(crate) fn projectx(&self) -> &Running<ProjectX> {
        match &self.behind {
            Behind::ProjectX(running, ..) => running,
            Behind::Kraken(..) | Behind::Bitfinex(..) | Behind::House(_) => panic!("another venue's door"),
        }
    }
}
