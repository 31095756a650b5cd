//! The background tasks of the process: supervised, and ended together.

use std::sync::Arc;

use tokio::{runtime::Handle, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::supervise::{Deaths, Register, supervise};

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
    pub(super) fn keep<F>(
        &self,
        name: &'static str,
        work: impl Fn() -> F + Send + 'static,
    ) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let deaths = self.deaths(name);
        let (runtime, stop) = (Handle::current(), self.stop.clone());
        self.tracker.spawn(supervise(runtime, stop, work, move || deaths.note()))
    }

    /// Who counts how often something by that name has died.
    pub(super) fn deaths(&self, name: &'static str) -> Deaths {
        self.register.of(name)
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
