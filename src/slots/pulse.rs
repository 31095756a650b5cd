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

/// Nobody knows.
const UNKNOWN: u64 = u64::MAX;

/// How long whoever is ready on this thread waits for all others that are. A request that takes long
/// because the worker is busy says nothing about the API.
#[derive(Debug)]
pub(super) struct Pulse {
    nanoseconds: AtomicU64,
    is_felt: AtomicBool,
}

impl Pulse {
    /// One that nobody feels yet.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { nanoseconds: AtomicU64::new(UNKNOWN), is_felt: AtomicBool::new(false) })
    }

    /// How long it is at the moment, if that is known. It is felt for a while from now on.
    pub(super) fn lag(self: &Arc<Self>) -> Option<Duration> {
        if !self.is_felt.load(Relaxed) && !self.is_felt.swap(true, Relaxed) {
            tokio::spawn(Feeling(Arc::clone(self)).feel());
        }
        let nanoseconds = self.nanoseconds.load(Relaxed);
        (nanoseconds != UNKNOWN).then(|| Duration::from_nanos(nanoseconds))
    }
}

/// Whoever feels it. A worker that begins anew takes nobody along from its former life.
struct Feeling(Arc<Pulse>);

impl Feeling {
    async fn feel(self) {
        let mut lag = Duration::ZERO;
        for _ in 0..BEATS {
            let before = Instant::now();
            yield_now().await;
            // What was long a moment ago may be so again.
            lag = before.elapsed().max(lag * 3 / 4);
            let nanoseconds = u64::try_from(lag.as_nanos()).unwrap_or(UNKNOWN);
            self.0.nanoseconds.store(nanoseconds, Relaxed);
            sleep(BEAT).await;
        }
    }
}

impl Drop for Feeling {
    fn drop(&mut self) {
        self.0.nanoseconds.store(UNKNOWN, Relaxed);
        self.0.is_felt.store(false, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn it_is_felt_again_when_its_worker_has_begun_anew() {
        let pulse = Pulse::new();
        for _ in 0..2 {
            let life = Builder::new_current_thread().enable_all().build().unwrap();
            assert!(!pulse.is_felt.load(Relaxed));

            life.block_on(async {
                pulse.lag();
            });

            assert!(pulse.is_felt.load(Relaxed));
        }
    }
}
