//! The threads that connections live on.
//!
//! A connection, and the session that it becomes, never leaves the thread that it was given to: its two sockets wake no
//! other thread, and share no lock. Which thread that is, the acceptor decides, by who has the fewest. The alternative,
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
    places: Vec<Place>,
    _ends: Vec<oneshot::Sender<()>>,
}

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
        Self { places: vec![Place { runtime: Handle::current(), load: Arc::default() }], _ends: Vec::new() }
    }

    /// The runtime that this is called in, and as many threads beside it as make `count`.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(count: usize) -> io::Result<Self> {
        let mut threads = Self::here();
        for number in 1..count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let (end, ended) = oneshot::channel::<()>();
            threads.places.push(Place { runtime: runtime.handle().clone(), load: Arc::default() });
            threads._ends.push(end);
            std::thread::Builder::new().name(format!("sessions-{number}")).spawn(move || {
                // An error is the sender's end, which is what is waited for.
                let _ = runtime.block_on(ended);
                runtime.shutdown_background();
            })?;
        }
        Ok(threads)
    }

    /// A place for one more connection, on the thread that has the fewest. With a single bot that is the thread of the
    /// accounts too, whose orders then wake no other.
    pub(super) fn take_seat(&self) -> Seat {
        let (number, place) = self
            .places
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
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_go_to_the_thread_that_has_the_fewest() {
        let threads = Threads::start(3).unwrap();
        let loads = || threads.places.iter().map(|place| place.load.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let mut seats: Vec<Seat> = (0..7).map(|_| threads.take_seat()).collect();
        assert_eq!(loads(), [3, 2, 2]);
        assert!(seats[0].is_here && !seats[1].is_here);
        seats.remove(4);
        seats.remove(1);
        assert_eq!(loads(), [3, 0, 2]);
        let seat = threads.take_seat();
        assert_eq!(loads(), [3, 1, 2]);
        drop((seats, seat));
        assert_eq!(loads(), [0, 0, 0]);
    }

    #[tokio::test]
    async fn a_socket_lives_on_the_thread_of_its_seat() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let threads = Threads::start(2).unwrap();
        let here = threads.take_seat();
        let there = threads.take_seat();
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
        let (_here, there) = (threads.take_seat(), threads.take_seat());
        let endless = there.runtime().spawn(std::future::pending::<()>());
        drop(threads);
        assert!(endless.await.unwrap_err().is_cancelled());
    }
}
