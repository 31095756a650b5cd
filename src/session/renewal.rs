//! Renews tokens ahead of their expiry, in the background, whatever happens.

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Handle, select, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::{gate::FLOOR, keeper::Keeper};

/// So often we look whether it is time: clocks jump, machines sleep, secrets change.
const LOOK: Duration = Duration::from_secs(10);

/// Keeps one identity signed in until it is told to stop.
pub(super) async fn keep(keeper: Arc<Keeper>, stop: CancellationToken) {
    loop {
        keeper.look_at_configuration();
        // Failures have been logged where they happened.
        let rest = keeper.renew_in_time().await;
        let rest = rest.unwrap_or_else(|error| error.retry_after().unwrap_or_default());
        select! {
            () = stop.cancelled() => return,
            () = keeper.woken() => {}
            () = sleep(rest.clamp(FLOOR, LOOK)) => {}
        }
    }
}

/// Runs `work` until it ends by itself; if it dies, it is started again.
pub(super) async fn supervise<F>(
    runtime: Handle,
    name: Arc<str>,
    stop: CancellationToken,
    work: impl Fn() -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    while runtime.spawn(work()).await.is_err() {
        error!(identity = %name, "the renewal of tokens has died; starting it again");
        select! {
            () = stop.cancelled() => return,
            () = sleep(FLOOR) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_dies_is_started_again() {
        let starts = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&starts);
        let work = move || {
            let start = counted.fetch_add(1, SeqCst);
            async move { assert!(start >= 2, "the first two die") }
        };

        supervise(Handle::current(), "main".into(), CancellationToken::new(), work).await;

        assert_eq!(starts.load(SeqCst), 3);
    }
}
