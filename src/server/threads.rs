//! The threads that connections live on.
//!
//! A connection never leaves the thread that it was given to, nor does its session: the two sockets wake no other thread,
//! and share no lock. Which thread that is, the acceptor decides, by who has the fewest. The alternative,
//! a listener for each thread (`SO_REUSEPORT`), leaves it to a hash of the addresses, and two bots on two threads end on
//! the same one as often as not.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The threads, the one that accepts among them. Those that it started end when this is dropped, with whatever still
/// runs on them.
pub struct Threads {
    seats: Arc<Seats>,
    ends: Vec<oneshot::Sender<()>>,
}

/// Where connections may live. Holding this keeps no thread alive.
pub(super) struct Seats(Vec<Place>);

struct Place {
    runtime: Handle,
    /// How many connections live there.
    load: Arc<AtomicUsize>,
}

impl Threads {
    /// The runtime that this is called in, and no other.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn here() -> Self {
        Self { seats: Arc::new(Seats(vec![Place::on(Handle::current())])), ends: Vec::new() }
    }

    /// The runtime that this is called in, and as many threads beside it as make `count`.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(count: usize) -> io::Result<Self> {
        let (mut places, mut ends) = (vec![Place::on(Handle::current())], Vec::new());
        for number in 1..count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let (end, ended) = oneshot::channel::<()>();
            places.push(Place::on(runtime.handle().clone()));
            ends.push(end);
            std::thread::Builder::new().name(format!("sessions-{number}")).spawn(move || {
                // An error is that nobody can end it any more: an end as well.
                let _ = runtime.block_on(ended);
                runtime.shutdown_background();
            })?;
        }
        Ok(Self { seats: Arc::new(Seats(places)), ends })
    }

    /// Where their connections may live.
    pub(super) fn seats(&self) -> Arc<Seats> {
        Arc::clone(&self.seats)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        for end in self.ends.drain(..) {
            // A thread that is gone needs no word.
            let _ = end.send(());
        }
    }
}

impl Place {
    fn on(runtime: Handle) -> Self {
        Self { runtime, load: Arc::default() }
    }
}

impl Seats {
    /// A place for one more connection, on the thread that has the fewest. With a single bot that is the thread of the
    /// accounts too, whose orders then wake no other.
    pub(super) fn take(&self) -> Seat {
        let (number, place) = self
            .0
            .iter()
            .enumerate()
            .min_by_key(|(_, place)| place.load.load(Ordering::Relaxed))
            .expect("there is always the thread that accepts");
        place.load.fetch_add(1, Ordering::Relaxed);
        Seat { runtime: place.runtime.clone(), is_here: number == 0, load: Arc::clone(&place.load) }
    }
}

/// A connection's place on a thread, for as long as it lives.
pub(super) struct Seat {
    runtime: Handle,
    is_here: bool,
    load: Arc<AtomicUsize>,
}

impl Seat {
    /// Where to spawn what serves the connection.
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Takes a socket out of the acceptor's reactor, if it has to live in another.
    pub(super) fn carry(&self, socket: TcpStream) -> io::Result<Carried> {
        Ok(if self.is_here { Carried::Stays(socket) } else { Carried::Moves(socket.into_std()?) })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A socket on its way to its thread.
pub(super) enum Carried {
    Stays(TcpStream),
    Moves(std::net::TcpStream),
}

impl Carried {
    /// The socket, in the reactor of the runtime that this is called in.
    pub(super) fn arrive(self) -> io::Result<TcpStream> {
        match self {
            Self::Stays(socket) => Ok(socket),
            Self::Moves(socket) => TcpStream::from_std(socket),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_go_to_the_thread_that_has_the_fewest() {
        let threads = Threads::start(3).unwrap();
        let seats = threads.seats();
        let loads = || seats.0.iter().map(|place| place.load.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let mut taken: Vec<Seat> = (0..7).map(|_| seats.take()).collect();
        assert_eq!(loads(), [3, 2, 2]);
        assert!(taken[0].is_here && !taken[1].is_here);
        taken.remove(4);
        taken.remove(1);
        assert_eq!(loads(), [3, 0, 2]);
        let seat = seats.take();
        assert_eq!(loads(), [3, 1, 2]);
        drop((taken, seat));
        assert_eq!(loads(), [0, 0, 0]);
    }

    #[tokio::test]
    async fn a_socket_lives_on_the_thread_of_its_seat() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let threads = Threads::start(2).unwrap();
        let here = threads.seats().take();
        let there = threads.seats().take();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        for (seat, is_ours) in [(here, true), (there, false)] {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let carried = seat.carry(listener.accept().await.unwrap().0).unwrap();
            let ours = std::thread::current().id();
            let serving = seat.runtime().spawn(async move {
                let mut socket = carried.arrive().unwrap();
                socket.write_all(b"hello").await.unwrap();
                std::thread::current().id()
            });
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"hello");
            assert_eq!(serving.await.unwrap() == ours, is_ours);
        }
    }

    #[tokio::test]
    async fn the_threads_end_with_their_owner() {
        let threads = Threads::start(2).unwrap();
        let (_here, there) = (threads.seats().take(), threads.seats().take());
        let endless = there.runtime().spawn(std::future::pending::<()>());
        drop(threads);
        assert!(endless.await.unwrap_err().is_cancelled());
    }
}
