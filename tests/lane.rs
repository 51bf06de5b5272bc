//! The lane of an account: clients' calls, socket logins and token requests of one key, in one order.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod lane_stage;

use countersign::fresh::UnixMillis;
use countersign::names::ClientName;
use countersign::supply::account::{Answered, Call, Limits, NotAnswered, NotSent, Ordering};
use countersign::supply::clock::Clock;
use countersign::supply::lane::LaneStopped;
use countersign::upstream::{AnswerLimits, Fate, Silence, read_whole};
use countersign::venue::LoginOutcome;
use countersign::venue::rest::Subjects;
use lane_stage::{Asked, CLIENTS, Desk, Exchange, PATIENCE, Setup, client, outcome, settle, unqueued};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering as Memory};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// Each of 64 clients makes this many calls: more than a thousand in all.
const CALLS_EACH: usize = 16;

/// A network that brings requests and answers in any order within 10 ms.
fn shuffle(exchange: &Exchange) {
    exchange.faults().set(|switches| switches.arrival_delay_max = Duration::from_millis(10));
}

/// What one client asks for, again and again: read, order, cancel of that order, order.
fn asked(number: usize, round: usize) -> Asked {
    let id = |round: usize| format!("{number}-{round}");
    match round % 4 {
        0 => Asked::balance(&id(round)),
        2 => Asked::cancel(&id(round - 1), &id(round)),
        _ => Asked::order(&id(round)),
    }
}

type Told = tokio::task::JoinHandle<Result<String, NotAnswered>>;

/// A call in a task of its own.
fn start(desk: &Arc<Desk>, name: &'static str, asked: Asked) -> Told {
    let desk = Arc::clone(desk);
    tokio::spawn(async move { desk.call(name, &asked).await })
}

/// A call, tagged `first`, that has come to the exchange and holds the lane until it is answered: what is started next
/// waits.
async fn hold(exchange: &Exchange, desk: &Arc<Desk>, answer_delay: Duration) -> Told {
    exchange.faults().set(|switches| switches.answer_delay = answer_delay);
    let first = start(desk, "bot-0", Asked::balance("first"));
    while exchange.tags().is_empty() {
        tokio::task::yield_now().await;
    }
    first
}

fn patient() -> Limits {
    Limits { order_wait: PATIENCE, call_wait: PATIENCE, ..Limits::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wire_order_is_nonce_order_for_64_clients_with_logins_and_token_requests_in_between() {
    let exchange = Exchange::open(0).await;
    shuffle(&exchange);
    let desk = Arc::new(Desk::at(&exchange, Setup { limits: patient(), ..Setup::default() }));
    let clients = (0..CLIENTS).map(|number| {
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            for round in 0..CALLS_EACH {
                let text = desk.call(&client(number), &asked(number, round)).await.expect("an answer");
                assert_eq!(outcome(&text), LoginOutcome::Accepted, "{text}");
            }
        })
    });
    let buyer = {
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            for _ in 0..10 {
                desk.account.renew_token(PATIENCE).await.expect("a token");
                let lease = desk
                    .account
                    .lease(ClientName::parse(&client(0)).expect("a name"), PATIENCE)
                    .await
                    .expect("a nonce for a login");
                lease.settle(LoginOutcome::Accepted);
            }
        })
    };
    for task in clients.chain([buyer]).collect::<Vec<_>>() {
        task.await.expect("no client failed");
    }
    exchange.assert_in_order();
    assert_eq!(exchange.tags().len(), CLIENTS * CALLS_EACH, "each call came in once");
    assert_eq!(exchange.simulator.record().tokens_minted(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_lane_the_same_load_is_refused_for_its_nonces() {
    let exchange = Exchange::open(0).await;
    shuffle(&exchange);
    let desk = Arc::new(Desk::at(&exchange, Setup::default()));
    let next_nonce = Arc::new(AtomicU64::new(1));
    let clients = (0..CLIENTS).map(|number| {
        let (desk, next_nonce) = (Arc::clone(&desk), Arc::clone(&next_nonce));
        tokio::spawn(async move {
            let mut refused = 0;
            for round in 0..4 {
                let mut connection = desk
                    .upstream
                    .public_approach_for(&desk.permit(&client(number)), desk.door())
                    .expect("a way")
                    .connect(Some(Duration::MAX))
                    .await
                    .expect("a connection");
                connection.ready().await.expect("it is open");
                let request = unqueued(next_nonce.fetch_add(1, Memory::SeqCst), &asked(number, round));
                let fate = connection.send(request, &AnswerLimits::default()).await;
                let Fate::Answered(answer) = fate else { panic!("{fate:?}") };
                let body = read_whole(*answer, usize::MAX).await.expect("a whole answer").into_body();
                refused += usize::from(outcome(&String::from_utf8_lossy(&body)) == LoginOutcome::NonceTooSmall);
            }
            refused
        })
    });
    let mut refused = 0;
    for task in clients.collect::<Vec<_>>() {
        refused += task.await.expect("no client failed");
    }
    assert!(refused > 0, "the load test could not fail");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_lets_requests_overtake_each_other_as_far_as_the_exchange_allows() {
    // A second in nanoseconds: more than eight requests can be apart.
    let exchange = Exchange::open(1_000_000_000).await;
    shuffle(&exchange);
    let setup = Setup { ordering: Ordering::Window(8), limits: patient(), ..Setup::default() };
    let desk = Arc::new(Desk::at(&exchange, setup));
    let clients = (0..CLIENTS).map(|number| {
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            for round in 0..4 {
                let text = desk.call(&client(number), &asked(number, round)).await.expect("an answer");
                assert_eq!(outcome(&text), LoginOutcome::Accepted, "{text}");
                assert!(!text.contains("Unknown order"), "a cancel came before the order that it means");
            }
        })
    });
    for task in clients.collect::<Vec<_>>() {
        task.await.expect("no client failed");
    }
    let nonces = exchange.nonces();
    assert!(!nonces.is_sorted(), "nothing overtook anything: this was no window");
    assert_eq!(exchange.tags().len(), CLIENTS * 4, "each call came in once");
    assert_eq!(exchange.simulator.record().nonce_errors(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_connection_ends_before_the_answer_is_maybe_sent_and_never_sent_again() {
    let exchange = Exchange::open(0).await;
    exchange.faults().set(|switches| switches.hang_up = true);
    let desk = Desk::at(&exchange, Setup::default());
    let why = desk.call("bot-0", &Asked::order("a")).await.expect_err("no answer");
    assert_eq!((why, why.word()), (NotAnswered::MaybeSent(Silence::Lost), "maybe-sent"));
    exchange.faults().clear();
    desk.call("bot-0", &Asked::balance("b")).await.expect("the lane goes on");
    assert_eq!(exchange.tags(), ["a", "b"]);
    exchange.assert_in_order();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_takes_too_long_is_maybe_sent_and_a_late_one_is_nobodys() {
    let exchange = Exchange::open(0).await;
    exchange.faults().set(|switches| switches.answer_delay = Duration::from_millis(400));
    let answer = AnswerLimits { timeout: Duration::from_millis(100), ..AnswerLimits::default() };
    let desk = Desk::at(&exchange, Setup { limits: Limits { answer, ..Limits::default() }, ..Setup::default() });
    let why = desk.call("bot-0", &Asked::order("a")).await.expect_err("too late");
    assert_eq!((why, why.word()), (NotAnswered::MaybeSent(Silence::Late), "maybe-sent"));
    exchange.faults().clear();
    let text = desk.call("bot-0", &Asked::balance("b")).await.expect("the lane goes on");
    assert!(text.contains("ZUSD"), "the answer to another request: {text}");
    assert_eq!(exchange.tags(), ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_the_exchange_closed_while_idle_costs_no_request() {
    let exchange = Exchange::open(0).await;
    let desk = Desk::at(&exchange, Setup::default());
    for round in 0..20 {
        desk.call("bot-0", &Asked::order(&format!("{round}"))).await.expect("an answer");
        let live = exchange.simulator.record().tcp_live();
        assert!(live > 0, "nothing was kept open");
        exchange.faults().reset_all();
        while exchange.simulator.record().tcp_live() > 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(exchange.tags().len(), 20);
    exchange.assert_in_order();
}

/// A call whose connection is closed by the exchange while it is being signed, as often as `times`; and the nonces
/// that it was signed with.
fn interrupted(desk: &Desk, exchange: &Exchange, tag: &str, times: usize) -> (Call, Arc<Mutex<Vec<u64>>>) {
    let mut call = desk.prepare("bot-0", &Asked::order(tag));
    let (ask, asked) = mpsc::channel::<mpsc::Sender<()>>();
    let (faults, record) = (exchange.faults().clone(), exchange.simulator.record().clone());
    // On a thread of its own: the one that signs waits for it.
    std::thread::spawn(move || {
        for done in asked {
            faults.reset_all();
            while record.tcp_live() > 0 {
                std::thread::yield_now();
            }
            done.send(()).unwrap();
        }
    });
    let nonces = Arc::new(Mutex::new(Vec::new()));
    let (sign, ask, seen) = (Arc::clone(&call.sign), Mutex::new(ask), Arc::clone(&nonces));
    call.sign = Arc::new(move |signer, nonce| {
        let count = {
            let mut seen = seen.lock().unwrap();
            seen.push(nonce.0);
            seen.len()
        };
        if count <= times {
            let (done, is_done) = mpsc::channel();
            ask.lock().unwrap().send(done).unwrap();
            is_done.recv().unwrap();
            // For the end to arrive on loopback; a shorter wait could only make this test fail.
            std::thread::sleep(Duration::from_millis(100));
        }
        sign(signer, nonce)
    });
    (call, nonces)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_request_that_did_not_leave_goes_once_more_over_a_new_connection_with_a_new_nonce() {
    let exchange = Exchange::open(0).await;
    let desk = Desk::at(&exchange, Setup::default());
    let (call, signed) = interrupted(&desk, &exchange, "a", 1);
    let text = settle(desk.account.call(call).await.expect("an answer")).await;
    assert_eq!(outcome(&text), LoginOutcome::Accepted);
    let signed = signed.lock().unwrap().clone();
    assert!(signed.len() == 2 && signed[0] < signed[1], "{signed:?}");
    assert_eq!((exchange.nonces(), exchange.tags()), (vec![signed[1]], vec!["a".to_owned()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_request_that_did_not_leave_twice_is_not_sent() {
    let exchange = Exchange::open(0).await;
    let desk = Desk::at(&exchange, Setup::default());
    let (call, signed) = interrupted(&desk, &exchange, "a", usize::MAX);
    let why = desk.account.call(call).await.expect_err("no connection lives for long enough");
    assert_eq!((why, why.word()), (NotAnswered::NotSent(NotSent::ConnectionLost), "not-sent"));
    assert_eq!(signed.lock().unwrap().len(), 2);
    assert_eq!(exchange.tags(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_goes_over_no_connection_that_was_idle_for_too_long_and_a_read_does() {
    let exchange = Exchange::open(0).await;
    let limits = Limits { order_connection_idle: Duration::ZERO, ..Limits::default() };
    let desk = Desk::at(&exchange, Setup { limits, ..Setup::default() });
    let connections = || exchange.simulator.record().tcp_connections();
    desk.call("bot-0", &Asked::balance("a")).await.expect("an answer");
    let before = connections();
    desk.call("bot-0", &Asked::balance("b")).await.expect("an answer");
    assert_eq!(connections(), before, "a read needs no new connection");
    desk.call("bot-0", &Asked::order("c")).await.expect("an answer");
    assert!(connections() > before, "an order went over an idle connection");
    let before = connections();
    desk.call("bot-0", &Asked::cancel("c", "d")).await.expect("an answer");
    assert!(connections() > before, "a cancel went over an idle connection");
    exchange.assert_in_order();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_attempt_gets_a_connection_that_was_never_idle() {
    let exchange = Exchange::open(0).await;
    let desk = Desk::at(&exchange, Setup::default());
    let permit = desk.permit("bot-0");
    let approach = desk.upstream.public_approach_for(&permit, desk.door()).unwrap();
    let connect = |idle_max| approach.clone().connect(idle_max);
    let time = http::Request::get("/0/public/Time").body(http_body_util::Full::default()).unwrap();
    let Fate::Answered(answer) = connect(Some(Duration::MAX)).await.unwrap().send(time, &AnswerLimits::default()).await
    else {
        panic!("no answer");
    };
    read_whole(*answer, usize::MAX).await.expect("a whole answer");
    assert!(!connect(None).await.unwrap().has_served(), "it may be as dead as the first one");
    assert!(connect(Some(Duration::MAX)).await.unwrap().has_served(), "nothing was kept: this proves nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nonce_that_is_too_small_makes_the_lane_begin_anew_above_it() {
    let exchange = Exchange::open(0).await;
    let desk = Desk::at(&exchange, Setup::default());
    desk.call("bot-0", &Asked::balance("a")).await.expect("an answer");
    let used = exchange.nonces();
    // Another program used the key a moment ago, which is still in the past of the clock.
    let ahead = used[0] + 5_000;
    exchange.raise_nonce(ahead);
    let text = desk.call("bot-0", &Asked::balance("b")).await.expect("an answer");
    assert_eq!(outcome(&text), LoginOutcome::NonceTooSmall, "the client sees what the exchange said");
    let accepted = async {
        let mut round = 0;
        loop {
            round += 1;
            let text = desk.call("bot-0", &Asked::balance(&format!("c{round}"))).await.expect("an answer");
            if outcome(&text) == LoginOutcome::Accepted {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, accepted).await.expect("the lane did not begin anew");
    assert!(exchange.nonces().last().is_some_and(|nonce| *nonce > ahead));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_whose_nonces_are_refused_for_two_clients_is_frozen_and_nothing_is_sent() {
    let exchange = Exchange::open(0).await;
    exchange.raise_nonce(u64::MAX - 1);
    let desk = Desk::at(&exchange, Setup::default());
    let frozen = async {
        for round in 0.. {
            match desk.call(&client(round % 4), &Asked::balance("a")).await {
                Ok(text) => assert_eq!(outcome(&text), LoginOutcome::NonceTooSmall),
                Err(why) => return why,
            }
        }
        unreachable!("it is asked for ever")
    };
    let why = tokio::time::timeout(PATIENCE, frozen).await.expect("it is never frozen");
    assert_eq!(why, NotAnswered::NotSent(NotSent::Lane(LaneStopped::Frozen)));
    let sent = exchange.tags().len();
    desk.call("bot-5", &Asked::balance("b")).await.expect_err("frozen");
    assert_eq!(exchange.tags().len(), sent, "a frozen key was used");
}

// One thread: calls reach the lane in the order in which they are started.
#[tokio::test]
async fn a_client_whose_nonces_are_refused_pauses_but_for_cancels_and_holds_up_nobody_else() {
    let exchange = Exchange::open(0).await;
    let desk = Arc::new(Desk::at(&exchange, Setup { limits: patient(), ..Setup::default() }));
    let Answered { response, verdict, .. } =
        desk.account.call(desk.prepare("bot-0", &Asked::order("a"))).await.unwrap();
    read_whole(response, usize::MAX).await.expect("a whole answer");
    let refused_at = Instant::now();
    verdict.tell(LoginOutcome::NonceTooSmall);
    let paused = start(&desk, "bot-0", Asked::order("paused"));
    desk.call("bot-1", &Asked::order("another's")).await.expect("not paused");
    desk.call("bot-0", &Asked::cancel("x", "cancel")).await.expect("a cancel is never paused");
    assert_eq!(exchange.tags(), ["a", "another's", "cancel"]);
    paused.await.unwrap().expect("an answer");
    assert!(refused_at.elapsed() >= Duration::from_secs(1), "{:?}", refused_at.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_the_exchange_refuses_is_left_alone_but_for_cancels() {
    let exchange = Exchange::open(0).await;
    exchange.faults().set(|switches| switches.refuse_auth = true);
    let desk = Desk::at(&exchange, Setup::default());
    let left_alone = async {
        loop {
            if let Err(why) = desk.call("bot-0", &Asked::balance("a")).await {
                return why;
            }
        }
    };
    let why = tokio::time::timeout(PATIENCE, left_alone).await.expect("it is never left alone");
    assert_eq!((why, why.word()), (NotAnswered::NotSent(NotSent::LeftAlone), "not-sent"));
    assert!(exchange.tags().len() >= 3, "three refusals are needed");
    exchange.faults().clear();
    let why = desk.call("bot-1", &Asked::order("b")).await.expect_err("left alone");
    assert_eq!(why, NotAnswered::NotSent(NotSent::LeftAlone));
    desk.call("bot-1", &Asked::cancel("x", "cancel")).await.expect("a cancel goes even then");
}

// One thread: calls reach the lane in the order in which they are started.
#[tokio::test]
async fn a_cancel_takes_back_its_own_clients_orders_and_goes_before_those_of_others() {
    let exchange = Exchange::open(0).await;
    let desk = Arc::new(Desk::at(&exchange, Setup { limits: patient(), ..Setup::default() }));
    let first = hold(&exchange, &desk, Duration::from_millis(300)).await;
    let mine = start(&desk, "bot-1", Asked::order("mine"));
    let kept = start(&desk, "bot-1", Asked::order("kept"));
    let theirs = start(&desk, "bot-2", Asked::order("theirs"));
    let cancel = start(&desk, "bot-1", Asked::cancel("mine", "cancel"));

    let why = mine.await.unwrap().expect_err("taken back");
    assert_eq!((why, why.word()), (NotAnswered::NotSent(NotSent::Withdrawn), "not-sent"));
    for answered in [first, cancel, kept, theirs] {
        answered.await.unwrap().expect("an answer");
    }
    let tags = exchange.tags();
    assert_eq!(tags[..2], ["first", "cancel"]);
    assert!(!tags.contains(&"mine".to_owned()), "{tags:?}");
    assert_eq!(tags.len(), 4);
}

// One thread: calls reach the lane in the order in which they are started.
#[tokio::test]
async fn a_cancel_on_a_socket_takes_back_the_same_clients_orders_that_wait_in_the_lane() {
    let exchange = Exchange::open(0).await;
    let desk = Arc::new(Desk::at(&exchange, Setup { limits: patient(), ..Setup::default() }));
    let first = hold(&exchange, &desk, Duration::from_millis(200)).await;
    let meant = start(&desk, "bot-1", Asked::order("meant"));
    let kept = start(&desk, "bot-1", Asked::order("kept"));
    let theirs = start(&desk, "bot-2", Asked::order("theirs"));
    tokio::task::yield_now().await;
    let cancelled = ["meant", "theirs"].map(Box::from).to_vec();
    desk.account.note_cancel(ClientName::parse("bot-1").unwrap(), Subjects::Named(cancelled));
    let why = meant.await.unwrap().expect_err("taken back");
    assert_eq!((why, why.word()), (NotAnswered::NotSent(NotSent::Withdrawn), "not-sent"));
    for answered in [first, kept, theirs] {
        answered.await.unwrap().expect("an answer");
    }
    assert!(!exchange.tags().contains(&"meant".to_owned()));
}

// One thread: calls reach the lane in the order in which they are started.
#[tokio::test]
async fn a_cancel_of_all_orders_does_not_take_back_a_withdrawal() {
    let exchange = Exchange::open(0).await;
    let desk = Arc::new(Desk::at(&exchange, Setup { limits: patient(), ..Setup::default() }));
    let first = hold(&exchange, &desk, Duration::from_millis(300)).await;
    let order = start(&desk, "bot-1", Asked::order("order"));
    let withdrawal = start(&desk, "bot-1", Asked::withdrawal("withdrawal"));
    let cancel = start(&desk, "bot-1", Asked::cancel_all("cancel"));
    let why = order.await.unwrap().expect_err("taken back");
    assert_eq!(why, NotAnswered::NotSent(NotSent::Withdrawn));
    for answered in [first, cancel, withdrawal] {
        answered.await.unwrap().expect("an answer");
    }
    assert_eq!(exchange.tags(), ["first", "cancel", "withdrawal"]);
}

// One thread: calls reach the lane in the order in which they are started.
#[tokio::test]
async fn an_order_whose_grant_is_taken_away_while_it_waits_is_not_sent() {
    let exchange = Exchange::open(0).await;
    let desk = Arc::new(Desk::at(&exchange, Setup { limits: patient(), ..Setup::default() }));
    let first = hold(&exchange, &desk, Duration::from_millis(200)).await;
    let is_granted = Arc::new(AtomicBool::new(true));
    let order = {
        let (desk, is_granted) = (Arc::clone(&desk), Arc::clone(&is_granted));
        let mut call = desk.prepare("bot-1", &Asked::order("revoked"));
        call.still_granted = Arc::new(move |_| is_granted.load(Memory::SeqCst));
        tokio::spawn(async move { desk.account.call(call).await })
    };
    let kept = start(&desk, "bot-2", Asked::order("kept"));
    tokio::task::yield_now().await;
    is_granted.store(false, Memory::SeqCst);
    let why = order.await.unwrap().expect_err("not granted any more");
    assert_eq!((why, why.word()), (NotAnswered::NotSent(NotSent::NoLongerPermitted), "not-sent"));
    for answered in [first, kept] {
        answered.await.unwrap().expect("an answer");
    }
    assert_eq!(exchange.tags(), ["first", "kept"]);
}

// One thread: calls reach the lane in the order in which they are started.
#[tokio::test]
async fn an_order_whose_proof_ends_while_it_waits_is_not_sent() {
    let exchange = Exchange::open(0).await;
    let (clock, hand) = Clock::set(UnixMillis(1_900_000_000_000));
    let setup = Setup { limits: patient(), clock, ..Setup::default() };
    let desk = Arc::new(Desk::at(&exchange, setup));
    let first = hold(&exchange, &desk, Duration::from_millis(200)).await;
    let permit = desk.permit_until("bot-1", hand.now(), Duration::from_secs(60));
    let ends_at = permit.ends_at().expect("the proof ends");
    let order = {
        let mut call = desk.prepare("bot-1", &Asked::order("expired"));
        call.permit = permit;
        let desk = Arc::clone(&desk);
        tokio::spawn(async move { desk.account.call(call).await })
    };
    tokio::task::yield_now().await;
    hand.step(ends_at);
    let why = order.await.unwrap().expect_err("its proof has ended");
    assert_eq!(why, NotAnswered::NotSent(NotSent::NoLongerPermitted));
    first.await.unwrap().expect("an answer");
    assert_eq!(exchange.tags(), ["first"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_waited_for_too_long_is_not_sent() {
    let exchange = Exchange::open(0).await;
    let limits = Limits { order_wait: Duration::from_millis(50), ..patient() };
    let desk = Arc::new(Desk::at(&exchange, Setup { limits, ..Setup::default() }));
    let first = hold(&exchange, &desk, Duration::from_millis(300)).await;
    let why = desk.call("bot-1", &Asked::order("late")).await.expect_err("its time is over");
    assert_eq!((why, why.word()), (NotAnswered::NotSent(NotSent::WaitedTooLong), "not-sent"));
    first.await.unwrap().expect("an answer");
    assert_eq!(exchange.tags(), ["first"]);
}

// One thread: calls reach the lane in the order in which they are started.
#[tokio::test]
async fn a_call_whose_caller_is_gone_is_not_sent() {
    let exchange = Exchange::open(0).await;
    let desk = Arc::new(Desk::at(&exchange, Setup { limits: patient(), ..Setup::default() }));
    let first = hold(&exchange, &desk, Duration::from_millis(200)).await;
    let gone = start(&desk, "bot-0", Asked::order("gone"));
    let stays = start(&desk, "bot-0", Asked::order("stays"));
    gone.abort();
    first.await.unwrap().expect("an answer");
    stays.await.unwrap().expect("an answer");
    assert_eq!(exchange.tags(), ["first", "stays"]);
}

// One thread: calls reach the lane in the order in which they are started.
#[tokio::test]
async fn a_client_that_floods_is_refused_and_others_are_not() {
    let exchange = Exchange::open(0).await;
    exchange.faults().set(|switches| switches.answer_delay = Duration::from_millis(200));
    let limits = Limits { calls_waiting_per_client_max: 2, ..patient() };
    let desk = Arc::new(Desk::at(&exchange, Setup { limits, ..Setup::default() }));
    let start = |name: &'static str, tag: &'static str| {
        let desk = Arc::clone(&desk);
        tokio::spawn(async move { desk.call(name, &Asked::balance(tag)).await })
    };
    let first = start("bot-0", "first");
    while exchange.tags().is_empty() {
        tokio::task::yield_now().await;
    }
    let waiting = [start("bot-0", "second"), start("bot-0", "third")];
    let why = start("bot-0", "fourth").await.unwrap().expect_err("two wait");
    assert_eq!((why, why.word()), (NotAnswered::NotSent(NotSent::Busy), "not-sent"));
    start("bot-1", "other").await.unwrap().expect("an answer");
    for answered in waiting.into_iter().chain([first]) {
        answered.await.unwrap().expect("an answer");
    }
    assert!(!exchange.tags().contains(&"fourth".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_that_cannot_be_reached_is_told_and_nothing_is_sent() {
    let exchange = Exchange::open(0).await;
    let (address, folder) = (exchange.simulator.address(), exchange.folder);
    exchange.simulator.stop().await;
    let desk = Desk::open(address, folder.path(), Setup::default());
    let why = desk.call("bot-0", &Asked::order("a")).await.expect_err("nobody listens");
    assert!(matches!(why, NotAnswered::NotSent(NotSent::NotReached(_))), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permit_for_another_account_sends_nothing() {
    let exchange = Exchange::open(0).await;
    let desk = Desk::at(&exchange, Setup::default());
    let mut call = desk.prepare("bot-0", &Asked::balance("a"));
    call.permit = desk.permit_elsewhere();
    let why = desk.account.call(call).await.expect_err("not its account");
    assert_eq!(why, NotAnswered::NotSent(NotSent::NotPermitted));
    assert_eq!(exchange.simulator.record().tcp_connections(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_answer_holds_the_lane_no_longer_than_its_limit_and_what_it_overtakes_freezes_nothing() {
    let exchange = Exchange::open(0).await;
    // The token request arrives late and is executed late: what goes after it overtakes it.
    exchange.faults().set(|switches| switches.arrival_delay_max = Duration::from_millis(400));
    let limits = Limits { hold_max: Duration::from_millis(10), ..patient() };
    let desk = Arc::new(Desk::at(&exchange, Setup { limits, ..Setup::default() }));
    let calls = (0..CLIENTS).map(|number| {
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            let text = desk.call(&client(number), &Asked::balance(&number.to_string())).await.expect("an answer");
            outcome(&text)
        })
    });
    let mut overtaken = 0;
    for task in calls.collect::<Vec<_>>() {
        overtaken += usize::from(task.await.expect("no client failed") == LoginOutcome::NonceTooSmall);
    }
    assert!(overtaken > 3, "only {overtaken} were overtaken: this proves nothing");
    exchange.faults().clear();
    let text = desk.call("bot-0", &Asked::balance("after")).await.expect("the key is not frozen");
    assert_eq!(outcome(&text), LoginOutcome::Accepted);
}
