//! How much a worker itself has to do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};

/// How often it is felt, and how many times until nobody might want to know any more.
const BEAT: Duration = Duration::from_millis(10);
const BEATS: u32 = 100;

/// How long whoever is ready on this thread waits for all others that are. A request that takes long
/// because the worker is busy says nothing about the API.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    nanoseconds: AtomicU64,
    is_felt: AtomicBool,
}

impl Pulse {
    /// How long it is at the moment, as far as it is known. It is felt for a while from now on.
    pub(super) fn lag(self: &Arc<Self>) -> Duration {
        if !self.is_felt.load(Relaxed) && !self.is_felt.swap(true, Relaxed) {
            tokio::spawn(Arc::clone(self).feel());
        }
        Duration::from_nanos(self.nanoseconds.load(Relaxed))
    }

    async fn feel(self: Arc<Self>) {
        let mut lag = Duration::ZERO;
        for _ in 0..BEATS {
            let before = Instant::now();
            yield_now().await;
            // What was long a moment ago may be so again.
            lag = before.elapsed().max(lag * 3 / 4);
            self.nanoseconds.store(u64::try_from(lag.as_nanos()).unwrap_or(u64::MAX), Relaxed);
            sleep(BEAT).await;
        }
        self.is_felt.store(false, Relaxed);
    }
}
