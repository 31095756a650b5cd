//! The background tasks of the process: supervised, and ended together.

use std::sync::Arc;

use tokio::{runtime::Handle, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::supervise::{Register, supervise};

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Tasks {
    tracker: TaskTracker,
    /// Ends all of them.
    stop: CancellationToken,
    register: Arc<Register>,
}

impl Tasks {
    /// Does `work` until it ends by itself, which it has to when [`Self::stop`] is cancelled.
    pub(super) fn keep<F>(&self, name: &'static str, work: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.keep_until(self.stop.clone(), name, work);
    }

    /// The same for what has to end when `stop` is cancelled, before the rest.
    pub(super) fn keep_until<F>(
        &self,
        stop: CancellationToken,
        name: &'static str,
        work: impl Fn() -> F + Send + 'static,
    ) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let deaths = self.register.of(name);
        let supervised = supervise(Handle::current(), stop, work, move || deaths.note());
        self.tracker.spawn(supervised)
    }

    /// Everything that is supervised.
    pub(super) fn register(&self) -> &Arc<Register> {
        &self.register
    }

    /// Cancelled when all of them are to end.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Ends them.
    pub(super) async fn end(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}
