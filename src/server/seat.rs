//! A worker's place: its thread, on which the worker begins anew if it dies.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    live::Live,
    wire::Ticks,
    worker::{Edge, Worker},
};
use crate::{
    sockets::Socket,
    supervise::{Deaths, supervise_here},
};

/// What a worker is made of, as often as that has to be.
pub(super) struct Seat {
    pub(super) edge: Arc<Edge>,
    pub(super) live: Live,
    pub(super) ticks: Arc<Ticks>,
    /// Handles of its sockets: as long as they are here, connections come in.
    pub(super) sockets: Arc<Mutex<Vec<Socket>>>,
    pub(super) deaths: Deaths,
}

/// A worker that was started.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) thread: JoinHandle<()>,
    pub(super) ticks: Arc<Ticks>,
    /// Answered when the worker has drained; dropped when it has ended otherwise.
    pub(super) drained: oneshot::Receiver<()>,
    /// Ends the worker, drained or not.
    pub(super) stop: CancellationToken,
    sockets: Arc<Mutex<Vec<Socket>>>,
}

impl Running {
    /// From now on only the worker itself has its sockets: it closes them.
    pub(super) fn let_go(&self) {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Seat {
    /// Starts the worker with this number.
    pub(super) fn start(self, number: usize) -> io::Result<Running> {
        // What the system refuses is told at once.
        let mut first = Some(self.worker()?);
        let (drained, has_drained) = oneshot::channel();
        let stop = CancellationToken::new();
        let (ticks, sockets) = (Arc::clone(&self.ticks), Arc::clone(&self.sockets));
        let (deaths, stopping) = (self.deaths.clone(), stop.clone());
        let work = move || {
            if stopping.is_cancelled() {
                return Ok(());
            }
            first.take().map_or_else(|| self.worker(), Ok)?.run(&stopping)
        };
        let thread = std::thread::Builder::new().name(format!("worker-{number}"));
        let thread = thread.spawn(move || {
            supervise_here::<io::Error>(&deaths, work);
            // Nobody waits any more if the drain ran out of time.
            let _ = drained.send(());
        })?;
        Ok(Running { thread, ticks, drained: has_drained, stop, sockets })
    }

    fn worker(&self) -> io::Result<Worker> {
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let sockets = sockets.iter().map(Socket::try_clone).collect::<io::Result<Vec<_>>>()?;
        Worker::new(Arc::clone(&self.edge), self.live.clone(), Arc::clone(&self.ticks), sockets)
    }
}
