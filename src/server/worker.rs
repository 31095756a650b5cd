//! One thread: accepts connections and looks after them.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::{FutureExt, task::AtomicWaker};
use tokio::{
    net::{TcpListener, UnixListener},
    runtime::{self, Builder, Runtime},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    connection,
    live::Live,
    room::{Permit, Room},
    tls::{self, Socket, Tls},
    wire::{Handle, Patience, Ticks},
};
use crate::{
    config,
    message::Peer,
    sockets as listening,
    supervise::{Deaths, supervise},
};

/// How fine time is where it guards connections: coarse enough to cost nothing.
const TICK: Duration = Duration::from_millis(250);

/// After how many ticks without a request a connection gives its buffers back.
const REST_AFTER: u32 = 2;

/// How long a worker rests after it could not accept: the reason is seldom gone at once.
const REST: Duration = Duration::from_millis(100);

/// How many connections are taken out of the system's queue at the end: others may go on to fill it.
const LAST: usize = 1024;

/// What all workers share.
#[derive(Debug)]
pub(super) struct Edge {
    /// How connections are served: read anew for each, and for each look at all of them.
    config: ArcSwap<config::Server>,
    /// What TCP connections are served with; `None`: in the clear.
    pub(super) tls: Option<Arc<Tls>>,
    /// Connections that are open.
    pub(super) open: AtomicUsize,
    /// Those of them that have switched protocols.
    pub(super) tunnels: Arc<AtomicUsize>,
    /// For connections that may still come; the rest wait in the system's queue.
    room: Room,
    /// The drain has begun: a request that comes now is the last on its connection.
    pub(super) ends: AtomicBool,
    /// Cancelled when the drain begins.
    pub(super) draining: CancellationToken,
    /// Cancelled a little later: what rests until then is closed.
    pub(super) closing: CancellationToken,
    /// Cancelled when the drain has run out of time: tunnels, which have no end of their own, end.
    pub(super) cutting: CancellationToken,
}

impl Edge {
    pub(super) fn new(config: &config::Server, tls: Option<Arc<Tls>>) -> Self {
        Self {
            config: ArcSwap::from_pointee(config.clone()),
            tls,
            open: AtomicUsize::new(0),
            tunnels: Arc::default(),
            room: Room::new(config.max_connections),
            ends: AtomicBool::new(false),
            draining: CancellationToken::new(),
            closing: CancellationToken::new(),
            cutting: CancellationToken::new(),
        }
    }

    /// How connections are served now.
    pub(super) fn config(&self) -> Arc<config::Server> {
        self.config.load_full()
    }

    /// Serves connections so from now on; those that are open stay as they are, but for their times.
    pub(super) fn configure(&self, config: &config::Server) {
        self.room.resize(config.max_connections);
        self.config.store(Arc::new(config.clone()));
    }

    /// From now on no connection is accepted, and each one ends with its present exchange, or with the
    /// one that is on its way.
    pub(super) fn drain(&self) {
        self.ends.store(true, Ordering::Relaxed);
        self.draining.cancel();
    }

    /// Who has not asked anything until now has no connection any more.
    pub(super) fn close(&self) {
        self.closing.cancel();
        // Whoever waits for room gets an error instead, which ends its loop.
        self.room.close();
    }
}

/// A thread's worth of gateway.
pub(super) struct Worker {
    runtime: Runtime,
    listening: Listening,
    care: Arc<Care>,
}

/// Where a worker accepts connections.
pub(super) struct Listening {
    pub(super) sockets: Vec<listening::Socket>,
    /// How often one who accepts has died.
    pub(super) deaths: Deaths,
}

/// What a worker knows of its connections.
pub(super) struct Care {
    pub(super) edge: Arc<Edge>,
    pub(super) live: Live,
    pub(super) ticks: Arc<Ticks>,
    connections: Mutex<HashMap<u64, Arc<Watched>>>,
}

/// A connection, as its worker sees it.
pub(super) struct Watched {
    pub(super) handle: Handle,
    /// Wakes the task that serves it.
    pub(super) waker: AtomicWaker,
    /// It is to end at once.
    pub(super) abandoned: AtomicBool,
    /// It has had nothing to do for a while, and is to give its buffers back.
    pub(super) rests: AtomicBool,
}

impl Watched {
    /// Whether it is to rest, and still has nothing to do.
    pub(super) fn may_rest(&self) -> bool {
        if !self.rests.load(Ordering::Relaxed) {
            return false;
        }
        let is_quiet = self.handle.is_quiet();
        self.rests.store(is_quiet, Ordering::Relaxed);
        is_quiet
    }
}

impl Worker {
    pub(super) fn new(
        edge: Arc<Edge>,
        live: Live,
        ticks: Arc<Ticks>,
        listening: Listening,
    ) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let connections = Mutex::default();
        let care = Arc::new(Care { edge, live, ticks, connections });
        Ok(Self { runtime, listening, care })
    }

    /// Serves until it has drained, or is `stopped`.
    ///
    /// # Errors
    ///
    /// The system's, when it takes no more sockets.
    pub(super) fn run(self, stopped: &CancellationToken) -> io::Result<()> {
        let Self { runtime, listening: Listening { sockets, deaths }, care } = self;
        let served = runtime.block_on(async {
            let accepting = TaskTracker::new();
            for socket in sockets {
                let listener = match socket {
                    listening::Socket::Tcp(it) => Accepting::Tcp(TcpListener::from_std(it)?),
                    listening::Socket::Unix(it) => Accepting::Unix(UnixListener::from_std(it)?),
                };
                let (listener, caring, deaths) =
                    (Arc::new(listener), Arc::clone(&care), deaths.clone());
                let accept = move || accept(Arc::clone(&listener), Arc::clone(&caring));
                let (here, end) = (runtime::Handle::current(), care.edge.draining.clone());
                accepting.spawn(supervise(here, end, accept, move || deaths.note()));
            }
            stopped.run_until_cancelled(sweep(&care, &accepting)).await;
            Ok(())
        });
        // A name look-up that hangs must not keep the process.
        runtime.shutdown_background();
        served
    }
}

/// Accepts connections, one after the other, while there is room; when the drain begins, those that
/// the system has accepted for us already: their clients know no better.
async fn accept(listener: Arc<Accepting>, care: Arc<Care>) {
    let mut last = 0..LAST;
    loop {
        let accepted = tokio::select! {
            biased;
            () = care.edge.draining.cancelled() => {
                let accepted = last.next().and_then(|_| listener.accept().now_or_never());
                let Some(accepted) = accepted else { return };
                accepted
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                // A worker that waits for clients keeps no room from one that has them.
                let Some(permit) = care.edge.room.enter().await else { return };
                let (account, watched) = Account::open(Arc::clone(&care), permit);
                tokio::spawn(serve(account, watched, stream, peer));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(error = error.to_string(), "connection not accepted");
                sleep(REST).await;
            }
        }
    }
}

/// Serves one connection and keeps account of it.
async fn serve(account: Account, watched: Arc<Watched>, socket: Socket, peer: Peer) {
    let care = &*account.care;
    // What a connection is only for a while is boxed, so that it takes no room from then on.
    let secured = Box::pin(tls::secure(&care.edge, socket, peer, &watched)).await;
    let Some((stream, peer)) = secured else { return };
    if let Err(error) = connection::serve(care, stream, peer, &watched).await {
        tracing::debug!(error, "connection ended");
    }
}

/// Looks after the connections, a few times a second; returns when the last one has drained.
async fn sweep(care: &Care, accepting: &TaskTracker) {
    let ticks =
        |time: Duration| u32::try_from(time.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX);
    let mut interval = interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        care.ticks.advance();
        let config = care.edge.config();
        let patience = Patience {
            header: ticks(config.header_timeout).max(1),
            idle: ticks(config.idle_timeout).max(1),
        };
        let connections = care.connections();
        for connection in connections.values() {
            if connection.handle.overdue(care.ticks.now(), patience).is_some() {
                // Once it is told to end; the second time, its client does not listen.
                let was_told = connection.handle.is_expired();
                connection.abandoned.store(was_told, Ordering::Relaxed);
                connection.handle.expire();
                connection.waker.wake();
            } else if connection.handle.quiet_for(care.ticks.now()) >= REST_AFTER
                && !connection.rests.swap(true, Ordering::Relaxed)
            {
                connection.waker.wake();
            }
        }
        if care.edge.draining.is_cancelled() {
            if connections.is_empty() && accepting.is_empty() {
                return;
            }
            connections.values().for_each(|connection| connection.waker.wake());
        }
    }
}

impl Care {
    /// Nothing can panic while this lock is held.
    fn connections(&self) -> MutexGuard<'_, HashMap<u64, Arc<Watched>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place in the books from when it is accepted, given back however it ends.
struct Account {
    care: Arc<Care>,
    number: u64,
    _permit: Permit,
}

impl Account {
    fn open(care: Arc<Care>, permit: Permit) -> (Self, Arc<Watched>) {
        let handle = Handle::new(Arc::clone(&care.ticks));
        let (waker, abandoned, rests) = Default::default();
        let watched = Arc::new(Watched { handle, waker, abandoned, rests });
        care.edge.open.fetch_add(1, Ordering::Relaxed);
        // Unique while the connection lives: no other can have that address.
        let number = Arc::as_ptr(&watched).addr() as u64;
        care.connections().insert(number, Arc::clone(&watched));
        (Self { care, number, _permit: permit }, watched)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.care.connections().remove(&self.number);
        self.care.edge.open.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Accepting {
    async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Answers are written whole, so waiting for more to send only costs time.
                stream.set_nodelay(true)?;
                Ok((Socket::Left(stream), Peer::Tcp(address)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred().ok().map(|peer| peer.uid());
                Ok((Socket::Right(stream), Peer::Unix { uid }))
            }
        }
    }
}

/// The client has gone before it was accepted: no reason to rest.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::InvalidInput
    )
}
