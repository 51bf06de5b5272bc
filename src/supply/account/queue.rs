//! Who goes next: the calls of one account that wait for their turn.
//!
//! Pure: time is passed in. Four ranks, one after the other; within a rank the clients take turns, and each client's
//! own calls keep their order. No client's cancels and logins can keep the others waiting for good. Not what sends anything, and not what answers those that it gives back.

use crate::names::ClientName;
use crate::venue::rest::Subjects;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// How long a read may stand behind orders. A bot that never sees its balance cannot trade either.
pub(super) const READ_PATIENCE: Duration = Duration::from_secs(1);

/// Cancels and logins that may go in a row ahead of another client's call. One bot that cancels in a loop must not
/// keep the account from all others.
pub(super) const AHEAD_IN_A_ROW_MAX: usize = 3;

/// The order in which calls go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Cancel,
    /// Socket logins and token requests: what they open is what many orders wait for.
    Login,
    Order,
    Read,
}

const RANKS: usize = 4;

/// How many may wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) all_max: usize,
    pub(super) each_client_max: usize,
}

/// One that waits.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    pub(super) rank: Rank,
    /// Whose it is. None: the house's own.
    pub(super) client: Option<ClientName>,
    pub(super) subjects: Subjects,
    /// True if it places or changes orders: a cancel takes back those, and nothing else.
    pub(super) is_order: bool,
    pub(super) since: Instant,
    /// None: its caller keeps the time.
    pub(super) deadline: Option<Instant>,
    pub(super) item: T,
}

impl<T> Waiting<T> {
    /// What waits, and its place without it.
    pub(super) fn split(self) -> (T, Waiting<()>) {
        let Self { rank, client, subjects, is_order, since, deadline, item } = self;
        (item, Waiting { rank, client, subjects, is_order, since, deadline, item: () })
    }
}

impl Waiting<()> {
    /// The place with what waits there.
    pub(super) fn holding<T>(self, item: T) -> Waiting<T> {
        let Self { rank, client, subjects, is_order, since, deadline, item: () } = self;
        Waiting { rank, client, subjects, is_order, since, deadline, item }
    }
}

/// The queue is full, for this client or for all. Gives the item back.
#[derive(Debug)]
pub(super) struct Full<T>(pub(super) T);

/// The calls that wait.
#[derive(Debug)]
pub(super) struct Queue<T> {
    ranks: [Turns<T>; RANKS],
    sizes: Sizes,
    count: usize,
    each_client: HashMap<ClientName, usize>,
    /// True if the last one that went was a read that went before orders.
    has_yielded: bool,
    /// Cancels and logins that went last, one after the other, each ahead of another client's call.
    ahead: usize,
    /// Whose the last one was, and its rank.
    last: Option<(Rank, Option<ClientName>)>,
}

/// The clients of one rank, the one whose turn it is first, each with what it has waiting; never empty for one.
type Turns<T> = VecDeque<(Option<ClientName>, VecDeque<Waiting<T>>)>;

impl<T> Queue<T> {
    pub(super) fn new(sizes: Sizes) -> Self {
        let ranks = std::array::from_fn(|_| VecDeque::new());
        Self { ranks, sizes, count: 0, each_client: HashMap::new(), has_yielded: false, ahead: 0, last: None }
    }

    /// How many wait in each rank, in their order.
    pub(super) fn lengths(&self) -> [usize; RANKS] {
        std::array::from_fn(|rank| self.ranks[rank].iter().map(|(_, own)| own.len()).sum())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Lets one wait behind its client's others.
    pub(super) fn push(&mut self, waiting: Waiting<T>) -> Result<(), Full<T>> {
        match &waiting.client {
            Some(client) if self.is_full_for(waiting.rank, client) => Err(Full(waiting.item)),
            _ => {
                self.enter(waiting, VecDeque::push_back);
                Ok(())
            }
        }
    }

    /// Lets the house's own token request wait, whose caller keeps the time. It is not counted: there is one at a time.
    pub(super) fn push_own(&mut self, now: Instant, item: T) {
        let (rank, client, subjects) = (Rank::Login, None, Subjects::None);
        let waiting = Waiting { rank, client, subjects, is_order: false, since: now, deadline: None, item };
        self.enter(waiting, VecDeque::push_back);
    }

    /// True if one more of this client's has no room. For cancels and logins there is a quarter more: whoever floods with
    /// orders must still be able to take them back.
    pub(super) fn is_full_for(&self, rank: Rank, client: &ClientName) -> bool {
        let room = |max: usize| match rank {
            Rank::Cancel | Rank::Login => max + max.div_ceil(4),
            Rank::Order | Rank::Read => max,
        };
        let of_client = self.each_client.get(client).copied().unwrap_or_default();
        self.count >= room(self.sizes.all_max) || of_client >= room(self.sizes.each_client_max)
    }

    /// Puts one back that could not go: it is next again, whatever the size.
    pub(super) fn put_back(&mut self, waiting: Waiting<T>) {
        let (rank, client) = (waiting.rank, waiting.client.clone());
        self.enter(waiting, VecDeque::push_front);
        let turns = &mut self.ranks[rank as usize];
        if let Some(at) = turns.iter().position(|(of, _)| *of == client)
            && let Some(turn) = turns.remove(at)
        {
            turns.push_front(turn);
        }
    }

    fn enter(&mut self, waiting: Waiting<T>, place: fn(&mut VecDeque<Waiting<T>>, Waiting<T>)) {
        self.count += 1;
        if let Some(client) = &waiting.client {
            *self.each_client.entry(client.clone()).or_default() += 1;
        }
        let turns = &mut self.ranks[waiting.rank as usize];
        match turns.iter_mut().find(|(client, _)| *client == waiting.client) {
            Some((_, own)) => place(own, waiting),
            None => turns.push_back((waiting.client.clone(), VecDeque::from([waiting]))),
        }
    }

    /// The next one that can go: `means` finds what it needs for that, and its calls are asked in their order.
    pub(super) fn next<M>(
        &mut self,
        now: Instant,
        mut means: impl FnMut(&Waiting<T>) -> Option<M>,
    ) -> Option<(Waiting<T>, M)> {
        if self.ahead >= AHEAD_IN_A_ROW_MAX
            && let Some(found) = self.next_of_another(&mut means)
        {
            return Some(found);
        }
        let reads = &self.ranks[Rank::Read as usize];
        let is_overdue = |read: &Waiting<T>| now.saturating_duration_since(read.since) >= READ_PATIENCE;
        let has_overdue = reads.iter().filter_map(|(_, own)| own.front()).any(is_overdue);
        // Not twice in a row: reads that keep coming must not hold up orders for good either.
        let ranks = if has_overdue && !self.has_yielded {
            [Rank::Cancel, Rank::Login, Rank::Read, Rank::Order]
        } else {
            [Rank::Cancel, Rank::Login, Rank::Order, Rank::Read]
        };
        for rank in ranks {
            let turns = &mut self.ranks[rank as usize];
            let found = turns.iter().enumerate().find_map(|(at, (_, own))| Some((at, means(own.front()?)?)));
            let Some((at, means)) = found else { continue };
            return Some((self.take(rank, at), means));
        }
        None
    }

    /// The one that has waited longest, of other clients than the last one's and of lower ranks.
    fn next_of_another<M>(&mut self, means: &mut impl FnMut(&Waiting<T>) -> Option<M>) -> Option<(Waiting<T>, M)> {
        let mut others: Vec<_> = self.passed_over().map(|(at, waiting)| (waiting.since, waiting.rank, at)).collect();
        others.sort();
        let found = others.into_iter().find_map(|(_, rank, at)| {
            let (_, own) = self.ranks[rank as usize].get(at)?;
            Some((rank, at, means(own.front()?)?))
        });
        found.map(|(rank, at, means)| (self.take(rank, at), means))
    }

    /// The first ones of other clients than the last one's, of ranks below its, each with its place among the turns.
    fn passed_over(&self) -> impl Iterator<Item = (usize, &Waiting<T>)> {
        let firsts = self.ranks.iter().flat_map(|turns| turns.iter().enumerate());
        firsts.filter_map(|(at, (client, own))| {
            let waiting = own.front()?;
            let (rank, last) = self.last.as_ref()?;
            (waiting.rank > *rank && client != last).then_some((at, waiting))
        })
    }

    /// Takes out the first one of a client, whose turn comes again when all others of the rank had theirs.
    fn take(&mut self, rank: Rank, at: usize) -> Waiting<T> {
        let turns = &mut self.ranks[rank as usize];
        let (client, mut own) = turns.remove(at).expect("it was just found there");
        let waiting = own.pop_front().expect("its first one was just asked");
        if !own.is_empty() {
            turns.push_back((client, own));
        }
        match rank {
            Rank::Read => self.has_yielded = !self.ranks[Rank::Order as usize].is_empty(),
            Rank::Order => self.has_yielded = false,
            Rank::Cancel | Rank::Login => {}
        }
        self.left(&waiting);
        self.last = Some((rank, waiting.client.clone()));
        let is_ahead = matches!(rank, Rank::Cancel | Rank::Login) && self.ahead < AHEAD_IN_A_ROW_MAX;
        self.ahead = if is_ahead && self.passed_over().next().is_some() { self.ahead + 1 } else { 0 };
        waiting
    }

    /// Takes back a client's orders that its cancel could mean.
    pub(super) fn withdraw(&mut self, client: &ClientName, cancelled: &Subjects) -> Vec<T> {
        self.take_out(|waiting| {
            waiting.is_order && waiting.client.as_ref() == Some(client) && cancelled.meet(&waiting.subjects)
        })
    }

    /// Takes out those whose time is over.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<T> {
        if self.next_deadline().is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        self.take_out(|waiting| waiting.deadline.is_some_and(|deadline| deadline <= now))
    }

    /// Takes out all that are meant.
    pub(super) fn take_out(&mut self, mut is_meant: impl FnMut(&Waiting<T>) -> bool) -> Vec<T> {
        let mut out = Vec::new();
        for turns in &mut self.ranks {
            for (_, own) in turns.iter_mut() {
                for at in (0..own.len()).rev() {
                    if is_meant(&own[at]) {
                        out.extend(own.remove(at));
                    }
                }
            }
            turns.retain(|(_, own)| !own.is_empty());
        }
        out.iter().for_each(|waiting| self.left(waiting));
        out.into_iter().map(|waiting| waiting.item).collect()
    }

    /// When [`overdue`](Self::overdue) has something to give next. A client's calls of one rank have one patience,
    /// so its first is the one that is due first.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.firsts().filter_map(|waiting| waiting.deadline).min()
    }

    /// The first one of each client in each rank: those of which one goes next.
    pub(super) fn firsts(&self) -> impl Iterator<Item = &Waiting<T>> {
        self.ranks.iter().flatten().filter_map(|(_, own)| own.front())
    }

    fn left(&mut self, waiting: &Waiting<T>) {
        self.count -= 1;
        if let Some(client) = &waiting.client
            && let Some(count) = self.each_client.get_mut(client)
        {
            *count -= 1;
            if *count == 0 {
                self.each_client.remove(client);
            }
        }
    }
}

#[cfg(test)]
mod tests;
