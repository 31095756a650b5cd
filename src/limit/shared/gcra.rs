//! A leaky bucket (GCRA) as arithmetic: what `take.lua` does, in this process.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

/// How a quota stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gcra {
    interval: Duration,
    burst: NonZeroU32,
    /// How far it is ahead of its rate: nothing when it is full.
    ahead: Duration,
    /// When that was so.
    at: Instant,
}

impl Gcra {
    pub(super) fn new(interval: Duration, burst: NonZeroU32, ahead: Duration, at: Instant) -> Self {
        Self { interval, burst, ahead, at }
    }

    /// How many may come now.
    pub(super) fn free(&self, now: Instant) -> u32 {
        let room = self.all().saturating_sub(self.ahead(now));
        u32::try_from(room.as_nanos() / self.interval.as_nanos().max(1)).unwrap_or(u32::MAX)
    }

    /// How long it takes until so many may come.
    pub(super) fn wait(&self, now: Instant, count: u32) -> Duration {
        let then = self.ahead(now).saturating_add(self.interval.saturating_mul(count));
        then.saturating_sub(self.all())
    }

    /// Takes so many, if there are so many.
    pub(super) fn take(&mut self, now: Instant, count: u32) -> bool {
        let is_free = self.wait(now, count).is_zero();
        if is_free {
            self.ahead = self.ahead(now).saturating_add(self.interval.saturating_mul(count));
            self.at = self.at.max(now);
        }
        is_free
    }

    fn all(&self) -> Duration {
        self.interval.saturating_mul(self.burst.get())
    }

    fn ahead(&self, now: Instant) -> Duration {
        self.ahead.saturating_sub(now.saturating_duration_since(self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_is_used_up_and_comes_back_one_by_one() {
        let start = Instant::now();
        let mut bucket = Gcra::new(SECOND, NonZeroU32::new(3).unwrap(), Duration::ZERO, start);

        assert!(bucket.take(start, 1) && bucket.take(start, 2));
        assert_eq!((bucket.free(start), bucket.wait(start, 1)), (0, SECOND));
        assert!(!bucket.take(start, 1));
        let later = start + SECOND * 3 / 2;
        assert_eq!((bucket.free(later), bucket.wait(later, 2)), (1, SECOND / 2));
        assert_eq!(bucket.free(start + SECOND * 100), 3);
    }
}
