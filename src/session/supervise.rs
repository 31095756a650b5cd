//! A task that must not die is started again when it does.

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Handle, select, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::error;

/// Between two lives.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs `work` until it ends by itself; if it dies, `died` is told, and it is started again.
pub(super) async fn supervise<F>(
    runtime: Handle,
    name: Arc<str>,
    stop: CancellationToken,
    work: impl Fn() -> F,
    died: impl Fn(),
) where
    F: Future<Output = ()> + Send + 'static,
{
    while runtime.spawn(work()).await.is_err() {
        error!(identity = %name, "the task that keeps an identity signed in has died; starting it again");
        died();
        select! {
            () = stop.cancelled() => return,
            () = sleep(PAUSE) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_dies_is_started_again_and_counted() {
        let (starts, deaths) = (Arc::new(AtomicU32::new(0)), AtomicU32::new(0));
        let counted = Arc::clone(&starts);
        let work = move || {
            let start = counted.fetch_add(1, SeqCst);
            async move { assert!(start >= 2, "the first two die") }
        };
        let died = || {
            deaths.fetch_add(1, SeqCst);
        };

        supervise(Handle::current(), "main".into(), CancellationToken::new(), work, died).await;

        assert_eq!((starts.load(SeqCst), deaths.load(SeqCst)), (3, 2));
    }
}
