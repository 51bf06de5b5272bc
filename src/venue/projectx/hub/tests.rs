use super::*;
use crate::venue::Login;
use proptest::prelude::*;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

/// A conversation in which both have shaken hands.
fn open(hub: Hub, allowed: Option<&[u64]>) -> Conversation {
    let mut conversation = Conversation::new(hub);
    let mut out = Steps::new();
    let sub_accounts = allowed.map(Arc::from);
    let opened = Event::Opened { login: Login::OnDemand, scope: Scope::PUBLIC, sub_accounts, now: NOW };
    conversation.on_event(opened, &mut out);
    conversation.on_upstream(Message::text(signalr::SHAKEN), &mut out);
    let handshake = Message::text(signalr::HANDSHAKE);
    let reading = conversation.read(&handshake);
    conversation.forward(handshake, &reading, Scope::PUBLIC, UnixMillis(0), &mut out);
    conversation
}

/// What comes of a message of the exchange.
fn told(conversation: &mut Conversation, text: &str) -> Vec<String> {
    let mut out = Steps::new();
    conversation.on_upstream(Message::text(text.replace('␞', "\u{1e}")), &mut out);
    out.iter().map(shown).collect()
}

fn shown(step: &Step) -> String {
    match step {
        Step::ToClient(message) | Step::ToUpstream(message) => {
            String::from_utf8_lossy(message.payload()).replace('\u{1e}', "␞")
        }
        other => format!("{other:?}"),
    }
}

const OURS: &str =
    r#"{"type":1,"target":"GatewayUserOrder","arguments":[{"action":1,"data":{"id":2,"accountId":1}}]}␞"#;
const THEIRS: &str =
    r#"{"type":1,"target":"GatewayUserOrder","arguments":[{"action":1,"data":{"id":1,"accountId":2}}]}␞"#;

#[test]
fn a_limited_client_sees_its_own_accounts_alone() {
    let mut conversation = open(Hub::User, Some(&[1, 3]));
    assert!(matches!(conversation.watch(), Watch::Everything));
    assert_eq!(told(&mut conversation, OURS), [OURS]);
    assert_eq!(told(&mut conversation, THEIRS), [""; 0]);
    assert_eq!(told(&mut conversation, &[THEIRS, OURS, THEIRS, OURS].concat()), [[OURS, OURS].concat()]);
    let result = r#"{"type":3,"invocationId":"1","result":[{"id":2}]}␞"#;
    let emptied = r#"{"type":3,"invocationId":"1","result":null}␞"#;
    assert_eq!(told(&mut conversation, &[OURS, result, OURS].concat()), [[OURS, emptied, OURS].concat()]);
}

#[test]
fn a_limited_client_is_told_of_the_end_of_its_token() {
    let mut conversation = open(Hub::User, Some(&[1]));
    let logout = r#"{"type":1,"target":"GatewayLogout","arguments":[]}␞"#;
    assert_eq!(told(&mut conversation, logout), ["TokenEnded", logout]);
}

#[test]
fn an_unreadable_record_ends_the_session_of_a_limited_client_and_passes_to_others() {
    let unreadable = r#"{"type":1,"type":1,"accountId":2}␞"#;
    assert_eq!(told(&mut open(Hub::User, Some(&[1])), unreadable), ["ProtocolBroken"]);
    assert_eq!(told(&mut open(Hub::User, None), unreadable), [unreadable]);
    assert_eq!(told(&mut open(Hub::Market, Some(&[1])), unreadable), [unreadable], "market data are nobody's");
}

#[test]
fn an_unlimited_client_sees_every_account_unread() {
    let mut conversation = open(Hub::User, None);
    assert!(!conversation.watch().wants(THEIRS.as_bytes()));
    assert_eq!(told(&mut conversation, THEIRS), [THEIRS]);
    assert!(!open(Hub::Market, Some(&[1])).watch().wants(THEIRS.as_bytes()));
}

#[test]
fn a_message_names_every_account_that_its_records_use() {
    let conversation = open(Hub::User, None);
    let call = |target: &str, arguments: &str| {
        format!("{{\"type\":1,\"target\":\"{target}\",\"arguments\":{arguments}}}\u{1e}")
    };
    let text = [
        call("SubscribeOrders", "[1]"),
        call("SubscribeAccounts", "[]"),
        call("UnsubscribeTrades", "[2]"),
        call("unsubscribeaccounts", "[3]"),
    ]
    .concat();
    let reading = conversation.read(&Message::text(text));
    assert_eq!((reading.acts, reading.sub_accounts), (Ok(Acts::one(Act::Read)), vec![1, 2, 3]));
}

#[test]
fn what_stands_as_a_contract_is_one() {
    let conversation = open(Hub::Market, None);
    let acts = |id: &str| {
        let text = format!("{{\"type\":1,\"target\":\"SubscribeContractQuotes\",\"arguments\":[{id}]}}\u{1e}");
        conversation.read(&Message::text(text)).acts
    };
    assert_eq!(acts("\"CON.F.US.EP.U25\""), Ok(Acts::one(Act::Read)));
    for bad in
        ["7", "\"\"", "null", "[\"CON.F.US.EP.U25\"]", "\"a b\"", "\"\\u0041\"", &format!("\"{}\"", "x".repeat(65))]
    {
        assert_eq!(acts(bad), Err(Refusal::Malformed), "{bad}");
    }
}

#[test]
fn a_message_over_the_hub_s_limit_is_refused_without_an_answer() {
    let conversation = open(Hub::User, None);
    let call = "{\"type\":1,\"target\":\"SubscribeAccounts\",\"arguments\":[],\"invocationId\":\"1\"}\u{1e}";
    let count = CLIENT_BYTES_MAX / call.len();
    let fits = Message::text(call.repeat(count));
    assert_eq!(conversation.read(&fits).acts, Ok(Acts::one(Act::Read)));
    let too_long = Message::text(call.repeat(count + 1));
    let reading = conversation.read(&too_long);
    assert_eq!(reading.acts, Err(Refusal::Malformed));
    let mut out = Steps::new();
    conversation.refuse(&too_long, &reading, Refusal::Malformed, NOW, &mut out);
    assert!(out.is_empty());
}

#[test]
fn an_exchange_that_never_ends_a_record_or_says_too_much_too_early_is_given_up() {
    let mut conversation = open(Hub::User, None);
    let part = "x".repeat(PART_BYTES_MAX);
    assert_eq!(told(&mut conversation, &part), [""; 0]);
    assert!(matches!(conversation.watch(), Watch::Everything), "the rest has to be joined to it");
    assert_eq!(told(&mut conversation, "x"), ["ProtocolBroken"]);

    let mut conversation = Conversation::new(Hub::User);
    assert_eq!(told(&mut conversation, "{}␞"), ["Ready"]);
    for _ in 0..EARLY_MAX {
        assert_eq!(told(&mut conversation, OURS), [""; 0]);
    }
    assert_eq!(told(&mut conversation, OURS), ["ProtocolBroken"]);
}

#[test]
fn binary_data_of_the_exchange_ends_the_session() {
    let mut out = Steps::new();
    open(Hub::User, None).on_upstream(Message::from_peer(Kind::Binary, b"\x00"[..].into()), &mut out);
    assert!(matches!(out[..], [Step::ProtocolBroken]));
}

#[test]
fn a_client_is_not_hurried_while_the_exchange_has_not_answered_our_handshake() {
    let mut conversation = Conversation::new(Hub::User);
    let mut out = Steps::new();
    let opened = Event::Opened { login: Login::OnDemand, scope: Scope::PUBLIC, sub_accounts: None, now: NOW };
    conversation.on_event(opened, &mut out);
    let mut wake = |conversation: &mut Conversation| {
        out.clear();
        let at = conversation.wakes_at().expect("it pings");
        conversation.on_event(Event::Wake(at), &mut out);
        out.iter().map(shown).collect::<Vec<_>>()
    };
    for _ in 0..4 {
        assert_eq!(wake(&mut conversation), [""; 0]);
    }
    told(&mut conversation, "{}␞");
    let told: Vec<String> = (0..4).flat_map(|_| wake(&mut conversation)).collect();
    assert!(
        told.ends_with(&["{\"error\":\"Handshake was canceled.\"}␞".to_owned(), "ClientIdle".to_owned()]),
        "{told:?}"
    );
}

/// Every record that reaches the client, in order.
fn records_told(conversation: &mut Conversation, messages: &[String]) -> Vec<String> {
    let told = messages.iter().flat_map(|message| told(conversation, message));
    let told: Vec<String> = told.collect();
    for message in &told {
        assert!(message.ends_with('␞'), "a record was split: {message}");
    }
    told.concat().split_inclusive('␞').map(str::to_owned).collect()
}

proptest! {
    #[test]
    fn however_the_exchange_cuts_its_records_a_limited_client_gets_the_same(
        accounts in prop::collection::vec(prop_oneof![Just(None), (1_u64..4).prop_map(Some)], 1..12),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let record = |account: &Option<u64>| match account {
            None => "{\"type\":6}\u{1e}".to_owned(),
            Some(id) => format!("{{\"type\":1,\"target\":\"GatewayUserTrade\",\"arguments\":[{{\"accountId\":{id}}}]}}\u{1e}"),
        };
        let whole: String = accounts.iter().map(record).collect();
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len())).collect();
        places.extend([0, whole.len()]);
        places.sort_unstable();
        let pieces: Vec<String> = places.windows(2).map(|ends| whole[ends[0]..ends[1]].to_owned()).collect();

        let wanted: Vec<String> = accounts
            .iter()
            .filter(|account| matches!(account, Some(1 | 3)))
            .map(|account| record(account).replace('\u{1e}', "␞"))
            .collect();
        prop_assert_eq!(records_told(&mut open(Hub::User, Some(&[1, 3])), &pieces), wanted);
    }

    #[test]
    fn records_that_come_together_are_rebuilt_as_those_that_come_alone(
        calls in prop::collection::vec((0_usize..4, 1_u64..1_000_000, prop::option::of("[a-z0-9]{1,8}")), 1..8),
    ) {
        let conversation = open(Hub::User, None);
        let record = |(method, account, id): &(usize, u64, Option<String>)| {
            let target = ["SubscribeOrders", "subscribeTrades", "UNSUBSCRIBEORDERS", "SubscribePositions"][*method];
            let id = id.as_ref().map(|id| format!("\"invocationId\":\"{id}\",")).unwrap_or_default();
            format!("{{\"headers\":{{\"a\":\"b\"}},{id}\"type\":1,\"arguments\":[ {account}],\"target\":\"{target}\"}}\u{1e}")
        };
        let rebuilt = |text: String| match conversation.read(&Message::text(text)).edit {
            Edit::Rebuilt(message) => message.into_payload().to_vec(),
            _ => Vec::new(),
        };
        let alone: Vec<u8> = calls.iter().flat_map(|call| rebuilt(record(call))).collect();
        prop_assert!(!alone.is_empty() && memchr::memmem::find(&alone, b"headers").is_none());
        prop_assert_eq!(rebuilt(calls.iter().map(record).collect()), alone);
    }
}
