//! The callers' edge: listens, serves, drains.
//!
//! One thread for each worker, with a runtime, listeners and connections to the API of its own: a
//! request never changes threads.

use std::{
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{sync::oneshot, time::timeout};

use crate::{
    config::{self, Listen},
    middleware::receive::Gateway,
};

mod connection;
mod http1;
mod http2;
mod listener;
mod live;
mod room;
mod sending;
mod tls;
mod tunnel;
pub mod wire;
mod worker;

pub use listener::{BindError, Bound};
use live::Live;
pub use tls::{Configured, Renewal, Tls};
use worker::{Edge, Worker};

/// A worker that was told to end has nothing left to wait for.
const ENDING: Duration = Duration::from_secs(1);

/// The running workers.
#[derive(Debug)]
pub struct Server {
    edge: Arc<Edge>,
    lives: Arc<[Live]>,
    workers: Vec<Running>,
    bound: Bound,
}

#[derive(Debug)]
struct Running {
    thread: JoinHandle<()>,
    /// Answered when the worker has drained; dropped when it has ended otherwise.
    drained: oneshot::Receiver<()>,
    /// Dropped to end the worker, drained or not.
    stop: oneshot::Sender<()>,
}

impl Server {
    /// Starts to serve what comes in at `bound`, with `tls` where that is TCP; each worker answers
    /// with its own of `gateways`, of which there is one for each.
    ///
    /// # Errors
    ///
    /// The system's, when it has no thread or no event queue for a worker.
    pub fn start(
        config: &config::Server,
        mut bound: Bound,
        tls: Option<Arc<Tls>>,
        gateways: Vec<Gateway>,
    ) -> io::Result<Self> {
        let edge = Arc::new(Edge::new(config, tls));
        let lives: Arc<[Live]> = gateways.into_iter().map(Live::new).collect();
        let mut workers = Vec::with_capacity(lives.len());
        for (number, live) in lives.iter().enumerate() {
            let worker = Worker::new(Arc::clone(&edge), live.clone(), bound.take())?;
            let (drained, has_drained) = oneshot::channel();
            let (stop, stopped) = oneshot::channel();
            let thread = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || worker.run(drained, stopped))?;
            workers.push(Running { thread, drained: has_drained, stop });
        }
        Ok(Self { edge, lives, workers, bound })
    }

    /// Where it listens, with the ports that the system chose.
    pub fn addresses(&self) -> &[Listen] {
        self.bound.addresses()
    }

    /// What changes how it serves, without a break.
    pub fn switch(&self) -> Switch {
        Switch { edge: Arc::clone(&self.edge), lives: Arc::clone(&self.lives) }
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.edge.open.load(Ordering::Relaxed)
    }

    /// How many of them have switched protocols, now and later.
    pub fn tunnels(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.edge.tunnels)
    }

    /// Takes no new connection, lets what is under way finish, and ends. What has not finished
    /// within `server.drain_timeout` is cut, and tunnels are closed; returns how many connections
    /// were cut.
    pub async fn drain(self) -> usize {
        let within = self.edge.config().drain_timeout;
        self.edge.drain();
        let (mut has_drained, mut workers) = (Vec::new(), Vec::new());
        for Running { thread, drained, stop } in self.workers {
            has_drained.push(drained);
            workers.push((thread, stop));
        }
        // An error means that the worker has ended, which is what we wait for.
        let all = join_all(has_drained);
        let mut all = pin!(all);
        let mut finished = timeout(within, all.as_mut()).await.is_ok();
        if !finished && self.edge.tunnels.load(Ordering::Relaxed) > 0 {
            self.edge.closing.cancel();
            finished = timeout(ENDING, all).await.is_ok();
        }
        // Counted while the workers are still there: they cut what is open when they end.
        let cut = if finished { 0 } else { self.edge.open.load(Ordering::Relaxed) };
        for (thread, stop) in workers {
            drop(stop);
            let ended = tokio::task::spawn_blocking(move || thread.join().is_ok());
            if !matches!(timeout(ENDING, ended).await, Ok(Ok(true))) {
                tracing::error!("a worker did not end as it should");
            }
        }
        self.bound.clean_up();
        cut
    }
}

/// Changes how a running server serves: see [`Server::switch`].
#[derive(Clone, Debug)]
pub struct Switch {
    edge: Arc<Edge>,
    lives: Arc<[Live]>,
}

impl Switch {
    /// Serves as `config` says, with its own of `gateways` at each worker: from the next request
    /// on, also on connections that are open.
    pub fn put_in_force(&self, config: &config::Server, gateways: Vec<Gateway>) {
        self.edge.configure(config);
        for (live, gateway) in self.lives.iter().zip(gateways) {
            live.swap(gateway);
        }
    }

    /// What TCP connections are served with, if not in the clear.
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.edge.tls.as_ref()
    }
}
