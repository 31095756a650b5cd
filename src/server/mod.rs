//! The callers' edge: listens, serves, drains.
//!
//! One thread for each worker, with a runtime, listeners and connections to the API of its own: a
//! request never changes threads.

use std::{
    future::pending,
    io,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use crate::{
    config::{self, Listen},
    middleware::receive::Gateway,
    supervise::Register,
};

mod connection;
mod http1;
mod http2;
mod listener;
mod live;
mod pulse;
mod room;
mod seat;
mod sending;
mod tls;
mod tunnel;
pub mod wire;
mod worker;

pub use listener::{BindError, Bound};
use live::Live;
pub use pulse::Pulse;
use seat::{Running, Seat};
pub use tls::{Configured, Renewal, Tls};
use worker::Edge;

/// A worker that was told to end has nothing left to wait for.
const ENDING: Duration = Duration::from_secs(1);

/// How long a connection that rests may be used once more after the drain has begun. Who sends a
/// request as it is closed would have to send it again.
const GRACE: Duration = Duration::from_secs(1);

/// What becomes of the files of unix sockets at the end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Files {
    /// Nobody listens there any more.
    Removed,
    /// Somebody else does.
    Left,
}

/// The running workers.
#[derive(Debug)]
pub struct Server {
    edge: Arc<Edge>,
    lives: Arc<[Live]>,
    workers: Vec<Running>,
    bound: Bound,
}

impl Server {
    /// Starts to serve what comes in at `bound`, with `tls` where that is TCP; each worker answers
    /// with its own of `gateways`, of which there is one for each. A worker that dies is noted in
    /// `tasks`, and begins anew: its connections are lost, those that wait for it are not.
    ///
    /// # Errors
    ///
    /// The system's, when it has no thread or no event queue for a worker.
    pub fn start(
        config: &config::Server,
        mut bound: Bound,
        tls: Option<Arc<Tls>>,
        gateways: Vec<Gateway>,
        tasks: &Register,
    ) -> io::Result<Self> {
        let edge = Arc::new(Edge::new(config, tls));
        let lives: Arc<[Live]> = gateways.into_iter().map(Live::new).collect();
        let mut workers = Vec::with_capacity(lives.len());
        // Whoever wants handles has them.
        drop(bound.handles());
        for (number, live) in lives.iter().enumerate() {
            let (ticks, sockets) = (Arc::default(), Arc::new(Mutex::new(bound.take())));
            let listeners = tasks.of("listener");
            let (edge, live, deaths) = (Arc::clone(&edge), live.clone(), tasks.of("worker"));
            workers.push(Seat { edge, live, ticks, sockets, deaths, listeners }.start(number)?);
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

    /// Whether the workers still turn.
    pub fn pulse(&self) -> Pulse {
        Pulse::of(self.workers.iter().map(|worker| Arc::clone(&worker.ticks)))
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
    ///
    /// What waits in the system's queue is still served, and whoever has a connection may ask once
    /// more: who does so at this very moment cannot know. Unix sockets keep their files if they are
    /// somebody else's now.
    pub async fn drain(self, files: Files) -> usize {
        let within = self.edge.config().drain_timeout;
        self.workers.iter().for_each(Running::let_go);
        self.edge.drain();
        let mut workers = self.workers;
        let finished = finish(&self.edge, &mut workers, within).await;
        // Counted while the workers are still there: they cut what is open when they end.
        let cut = if finished { 0 } else { self.edge.open.load(Ordering::Relaxed) };
        for Running { thread, stop, .. } in workers {
            stop.cancel();
            let ended = tokio::task::spawn_blocking(move || thread.join().is_ok());
            if !matches!(timeout(ENDING, ended).await, Ok(Ok(true))) {
                tracing::error!("a worker did not end as it should");
            }
        }
        if files == Files::Removed {
            self.bound.clean_up();
        }
        cut
    }
}

/// Waits until the workers have drained; whether they have, `within` the time there is.
async fn finish(edge: &Edge, workers: &mut [Running], within: Duration) -> bool {
    // An error means that the worker has ended, which is what we wait for.
    let all = join_all(workers.iter_mut().map(|worker| &mut worker.drained));
    let mut all = pin!(all);
    let close = async {
        sleep(GRACE.min(within / 2)).await;
        edge.close();
        pending::<()>().await;
    };
    let closing = async {
        tokio::select! {
            _ = all.as_mut() => {}
            () = close => {}
        }
    };
    if timeout(within, closing).await.is_ok() {
        return true;
    }
    // Their ends are told to both sides.
    edge.cutting.cancel();
    edge.tunnels.load(Ordering::Relaxed) > 0 && timeout(ENDING, all).await.is_ok()
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
