//! Who goes next, by what waits and for how long.

use super::*;

const SIZES: Sizes = Sizes { all_max: 8, each_client_max: 4 };

/// A queue with a clock of its own; items are their own names.
struct Line {
    queue: Queue<&'static str>,
    now: Instant,
}

impl Line {
    fn new() -> Self {
        Self { queue: Queue::new(SIZES), now: Instant::now() }
    }

    fn push(&mut self, rank: Rank, client: &str, item: &'static str) -> bool {
        self.push_about(rank, client, item, Subjects::None)
    }

    fn push_about(&mut self, rank: Rank, client: &str, item: &'static str, subjects: Subjects) -> bool {
        let client = Some(name(client));
        let deadline = Some(self.now + Duration::from_secs(2));
        let is_order = rank == Rank::Order;
        self.queue.push(Waiting { rank, client, subjects, is_order, since: self.now, deadline, item }).is_ok()
    }

    fn next(&mut self) -> Option<&'static str> {
        self.queue.next(self.now, |_| Some(())).map(|(waiting, ())| waiting.item)
    }

    fn all(&mut self) -> Vec<&'static str> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

fn name(text: &str) -> ClientName {
    ClientName::parse(text).expect("a name")
}

fn named(id: &str) -> Subjects {
    Subjects::Named(vec![id.into()])
}

#[test]
fn cancels_go_before_logins_before_orders_before_reads() {
    let mut line = Line::new();
    line.push(Rank::Read, "a", "read");
    line.push(Rank::Order, "a", "order");
    line.queue.push_own(line.now, "login");
    line.push(Rank::Cancel, "a", "cancel");
    assert_eq!(line.all(), ["cancel", "login", "order", "read"]);
    assert!(line.queue.is_empty());
}

#[test]
fn clients_take_turns_and_each_ones_calls_keep_their_order() {
    let mut line = Line::new();
    for item in ["a1", "a2", "a3"] {
        line.push(Rank::Order, "a", item);
    }
    line.push(Rank::Order, "b", "b1");
    line.push(Rank::Order, "b", "b2");
    assert_eq!(line.next(), Some("a1"));
    line.push(Rank::Order, "c", "c1");
    assert_eq!(line.all(), ["b1", "a2", "c1", "b2", "a3"]);
}

#[test]
fn a_read_stands_behind_orders_for_a_second_and_no_two_overdue_ones_go_in_a_row() {
    let mut line = Line::new();
    line.push(Rank::Read, "a", "read 1");
    line.push(Rank::Read, "a", "read 2");
    for item in ["order 1", "order 2", "order 3"] {
        line.push(Rank::Order, "b", item);
    }
    line.now += READ_PATIENCE - Duration::from_millis(1);
    assert_eq!(line.next(), Some("order 1"));
    line.now += Duration::from_millis(1);
    assert_eq!(line.all(), ["read 1", "order 2", "read 2", "order 3"]);
}

#[test]
fn a_cancel_goes_before_an_overdue_read() {
    let mut line = Line::new();
    line.push(Rank::Read, "a", "read");
    line.now += READ_PATIENCE;
    line.push(Rank::Cancel, "a", "cancel");
    assert_eq!(line.all(), ["cancel", "read"]);
}

#[test]
fn a_client_that_cancels_in_a_loop_keeps_nobody_elses_calls_waiting() {
    let mut line = Line::new();
    line.push(Rank::Read, "b", "read");
    line.now += Duration::from_millis(1);
    line.push(Rank::Order, "b", "order");
    line.push(Rank::Order, "a", "its own order");
    let mut went = Vec::new();
    for _ in 0..10 {
        line.push(Rank::Cancel, "a", "cancel");
        went.extend(line.next());
    }
    let others = went.iter().position(|item| *item == "read").zip(went.iter().position(|item| *item == "order"));
    assert_eq!(others, Some((3, 7)), "{went:?}");
    assert!(!went.contains(&"its own order"), "its own calls it may hold up: {went:?}");
}

#[test]
fn a_client_whose_sockets_log_in_in_a_loop_keeps_nobody_elses_orders_or_logins_waiting() {
    let mut line = Line::new();
    line.push(Rank::Order, "b", "order");
    line.push(Rank::Login, "a", "a's login");
    line.push(Rank::Login, "a", "a's login");
    line.push(Rank::Login, "b", "b's login");
    let mut went = Vec::new();
    for _ in 0..6 {
        line.push(Rank::Login, "a", "a's login");
        went.extend(line.next());
    }
    assert_eq!(went[..2], ["a's login", "b's login"], "logins take turns");
    assert!(went[2..].contains(&"order"), "{went:?}");
}

#[test]
fn cancels_that_pass_nobody_else_go_one_after_the_other() {
    let mut line = Line::new();
    line.push(Rank::Order, "a", "order");
    for _ in 0..3 {
        line.push(Rank::Cancel, "a", "cancel");
        assert_eq!(line.next(), Some("cancel"));
    }
    line.push(Rank::Cancel, "a", "cancel");
    assert_eq!(line.all(), ["cancel", "order"]);
}

#[test]
fn a_cancel_takes_back_its_own_clients_orders_that_it_means_and_no_other() {
    let mut line = Line::new();
    line.push_about(Rank::Order, "a", "meant", named("1"));
    line.push_about(Rank::Order, "a", "other", named("2"));
    line.push_about(Rank::Order, "b", "another client's", named("1"));
    line.push_about(Rank::Read, "a", "a read of it", named("1"));
    assert_eq!(line.queue.withdraw(&name("a"), &named("1")), ["meant"]);
    assert_eq!(line.queue.withdraw(&name("a"), &Subjects::All), ["other"]);
    assert_eq!(line.all(), ["another client's", "a read of it"]);
}

#[test]
fn one_client_cannot_take_every_place() {
    let mut line = Line::new();
    for _ in 0..SIZES.each_client_max {
        assert!(line.push(Rank::Order, "a", "a"));
    }
    assert!(!line.push(Rank::Order, "a", "one more"));
    for _ in 0..SIZES.all_max - SIZES.each_client_max {
        assert!(line.push(Rank::Order, "b", "b"));
    }
    assert!(!line.push(Rank::Order, "c", "one more"));
    line.queue.push_own(line.now, "the house's own");
    assert_eq!(line.next(), Some("the house's own"));
    line.next();
    assert!(line.push(Rank::Order, "c", "now there is room"));
}

#[test]
fn a_cancel_has_room_where_orders_have_none_but_not_without_end() {
    let mut line = Line::new();
    while line.push(Rank::Order, "a", "order") {}
    assert!(line.push(Rank::Cancel, "a", "cancel"));
    assert!(!line.push(Rank::Cancel, "a", "one more"));
    assert_eq!(line.next(), Some("cancel"));
}

#[test]
fn what_waited_to_its_deadline_comes_out_and_nothing_else() {
    let mut line = Line::new();
    line.push(Rank::Order, "a", "early");
    line.queue.push_own(line.now, "its caller keeps the time");
    let start = line.now;
    line.now += Duration::from_secs(1);
    line.push(Rank::Order, "a", "late");
    assert_eq!(line.queue.next_deadline(), Some(start + Duration::from_secs(2)));
    assert!(line.queue.overdue(start + Duration::from_millis(1999)).is_empty());
    assert_eq!(line.queue.overdue(start + Duration::from_secs(2)), ["early"]);
    assert_eq!(line.all(), ["its caller keeps the time", "late"]);
    assert_eq!(line.queue.next_deadline(), None);
}

#[test]
fn who_cannot_go_lets_others_pass_and_keeps_its_place() {
    let mut line = Line::new();
    line.push(Rank::Cancel, "a", "waits");
    line.push(Rank::Order, "b", "goes");
    let gone = line.queue.next(line.now, |waiting| (waiting.item != "waits").then_some(()));
    assert_eq!(gone.map(|(waiting, ())| waiting.item), Some("goes"));
    assert_eq!(line.all(), ["waits"]);
}

#[test]
fn one_that_was_put_back_is_next_again_even_where_there_is_no_room() {
    let mut line = Line::new();
    line.push(Rank::Order, "a", "a1");
    line.push(Rank::Order, "b", "b1");
    line.push(Rank::Order, "a", "a2");
    let (waiting, ()) = line.queue.next(line.now, |_| Some(())).expect("there are three");
    while line.push(Rank::Order, "c", "c") {}
    while line.push(Rank::Order, "d", "d") {}
    line.queue.put_back(waiting);
    assert_eq!(line.next(), Some("a1"));
    assert_eq!(line.next(), Some("b1"));
}
