//! Sessions that are open, without a socket: what goes in are messages, what comes out is what is to be done.
#![allow(dead_code, reason = "shared by programs that use a part each")]

use countersign::credential::{SecretFormat, Signer};
use countersign::fresh::{Fresh, Nonce, Token, TokenId, UnixMillis};
use countersign::identity::jwt::{JwtAlgorithm, JwtKey, JwtKeys, JwtSettings, Mint};
use countersign::identity::local::{LocalGrants, LocalKeys};
use countersign::identity::{Principal, Proof, TrustedKeys, authenticate};
use countersign::message::Message;
use countersign::names::{AccountName, ClientName, SessionId};
use countersign::policy::{ClientPattern, Grant, Policy};
use countersign::scope::Right;
use countersign::secret::Secret;
use countersign::session::{Action, Event, Limits, Rules, Session};
use countersign::venue::{self, Manner, Route};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// 2023-11-14T22:13:20Z.
pub(crate) const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
/// As a token of Kraken's is. A bot that was moved here with its old one shows the like.
pub(crate) const TOKEN: &str = "1Dwc4lzSwNWOAwkMdqhssNNFhs1ed/6d1WcF3Xf+EMw";

/// A limit order as an unmodified bot writes it, with a dummy where the token goes.
pub(crate) const KRAKEN_ORDER: &str = r#"{"method":"add_order","params":{"order_type":"limit","side":"buy","symbol":"BTC/USD","order_qty":0.01250000,"limit_price":26500.4,"time_in_force":"gtc","post_only":true,"cl_ord_id":"6d1b345e-2821-40e2-ad83-4ecb18a06876","token":"any-dummy-text"},"req_id":123456789}"#;
pub(crate) const KRAKEN_ANSWER: &str = r#"{"method":"add_order","req_id":123456789,"result":{"order_id":"AA5JGQ-SBMRC-SCJ7J7"},"success":true,"time_in":"2023-09-21T14:15:07.197274Z","time_out":"2023-09-21T14:15:07.205301Z"}"#;
pub(crate) const KRAKEN_PING: &str = r#"{"method":"ping","req_id":101}"#;
pub(crate) const BITFINEX_ORDER: &str = r#"[0,"on",null,{"gid":1,"cid":12345,"type":"EXCHANGE LIMIT","symbol":"tBTCUSD","price":"26500.4","amount":"0.0125","flags":4096,"meta":{"aff_code":"abcdefgh"}}]"#;
pub(crate) const BITFINEX_ANSWER: &str =
    r#"[0,"n",[1700000000000,"on-req",null,null,[1187238,null,12345,"tBTCUSD"],null,"SUCCESS","Submitting"]]"#;
const BITFINEX_AUTH: &str = r#"{"event":"auth","apiKey":"local","authSig":"00","authNonce":1,"authPayload":"AUTH1"}"#;
const BITFINEX_AUTH_ANSWER: &str = r#"{"event":"auth","status":"OK","chanId":0,"userId":1}"#;
const PROJECTX_HANDSHAKE: &str = "{\"protocol\":\"json\",\"version\":1}\u{1e}";
const PROJECTX_SHAKEN: &str = "{}\u{1e}";
/// As the exchange's own JavaScript client subscribes.
pub(crate) const PROJECTX_SUBSCRIBE: &str =
    "{\"arguments\":[123456],\"invocationId\":\"1\",\"target\":\"SubscribeOrders\",\"type\":1}\u{1e}";
pub(crate) const PROJECTX_SUBSCRIBED: &str = "{\"type\":3,\"invocationId\":\"1\",\"result\":null}\u{1e}";

/// A Kraken socket that has its token, and has seen this order before.
pub(crate) fn kraken(desk: &Desk, order: &str) -> Stage {
    let mut stage = Stage::open(desk, "kraken", "private");
    stage.happen(Event::FromClient(Message::text(order)));
    if let [Action::Authenticate(proof)] = &stage.actions[..] {
        let outcome = authenticate(proof, NOW, &desk.trusted);
        stage.happen(Event::Authenticated(outcome));
    }
    let token = Token {
        id: TokenId(1),
        secret: Secret::from(TOKEN.to_owned()),
        expires_at: NOW.plus(Duration::from_secs(900)),
    };
    stage.fresh(Fresh { now: NOW, nonce: None, token: Some(token) });
    stage
}

/// A Bitfinex socket that is logged in.
pub(crate) fn bitfinex(desk: &Desk) -> Stage {
    let mut stage = Stage::open(desk, "bitfinex", "private");
    stage.happen(Event::FromClient(Message::text(BITFINEX_AUTH)));
    stage.fresh(Fresh { now: NOW, nonce: Some(Nonce(1_616_492_376_594_000)), token: None });
    stage.happen(Event::FromUpstream(Message::text(BITFINEX_AUTH_ANSWER)));
    stage
}

/// A hub of ProjectX with which both sides have shaken hands.
pub(crate) fn projectx(desk: &Desk) -> Stage {
    let mut stage = Stage::open(desk, "projectx", "user");
    stage.happen(Event::FromUpstream(Message::text(PROJECTX_SHAKEN)));
    stage.happen(Event::FromClient(Message::text(PROJECTX_HANDSHAKE)));
    stage
}

/// Who is trusted, and a client that has proved itself by a token of its own.
pub(crate) struct Desk {
    trusted: Arc<TrustedKeys>,
    who: Principal,
    account: AccountName,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let key = JwtKey::new(None, JwtAlgorithm::HS256, &Secret::new(vec![7; 32])).expect("a key");
        let keys = JwtKeys::new(JwtSettings { keys: vec![key], ..JwtSettings::default() }).expect("settings");
        let subject = ClientName::parse("bot-a").expect("a name");
        let wanted = Mint { subject: &subject, scope: None, lifetime: Duration::from_secs(900), random: [7; 16] };
        let token = keys.mint(&wanted, NOW).expect("a token");
        let master = Secret::new(vec![8; 32]);
        let lifetime = Duration::from_secs(900);
        let local = LocalKeys::new(&master, LocalGrants::default(), lifetime, NOW).expect("a master key");
        let trusted = Arc::new(TrustedKeys::new(Some(keys), Some(local)));
        let who = authenticate(&Proof::Jwt(token), NOW, &trusted).expect("the token was minted just now");
        Self { trusted, who, account: AccountName::parse("main").expect("a name") }
    }

    pub(crate) fn placeholder(&self) -> String {
        let local = self.trusted.local().expect("they are configured");
        let venue = venue::by_name("kraken").expect("a venue");
        let placeholder = local.issue_placeholder(&self.who, &self.account, venue, [9; 16], NOW).expect("it is proved");
        String::from_utf8(placeholder.text.expose().to_vec()).expect("a placeholder is ASCII")
    }
}

/// A session that is open, and what it last wanted done.
pub(crate) struct Stage {
    session: Session,
    pub(crate) actions: Vec<Action>,
}

impl Stage {
    pub(crate) fn open(desk: &Desk, venue: &str, endpoint: &str) -> Self {
        let venue = venue::by_name(venue).expect("a venue");
        let endpoint = venue.endpoints().iter().find(|known| known.name == endpoint).expect("an endpoint");
        let route = Route { venue, endpoint, manner: Manner::Native };
        let grant = Grant {
            client: ClientPattern::parse("jwt:bot-a").expect("a pattern"),
            account: Some(desk.account.clone()),
            venues: Vec::new(),
            scope: [Right::Read, Right::Trade].into_iter().collect(),
            max_sessions: 1,
            sub_accounts: None,
        };
        let policy = Arc::new(Policy::new(vec![grant], BTreeMap::from([(desk.account.clone(), venue.name())])));
        let permit = policy.authorize(&desk.who, &route, None).expect("the grant fits");
        let rules = Rules { policy, trusted: Arc::clone(&desk.trusted), limits: Limits::default() };
        let session = Session::permitted(SessionId::from_random(1), route, rules, permit);
        let mut stage = Self { session, actions: Vec::with_capacity(8) };
        stage.happen(Event::Dialled);
        stage
    }

    fn fresh(&mut self, fresh: Fresh) {
        let text = |text: &str| Secret::from(text.to_owned());
        let signer = Signer::new(&text("REAL-API-KEY"), &text("dummysecret"), SecretFormat::Text).expect("a key");
        self.happen(Event::Fresh(Arc::new(signer), fresh));
    }

    pub(crate) fn happen(&mut self, event: Event) {
        self.actions.clear();
        self.session.on(event, NOW, &mut self.actions);
    }
}
