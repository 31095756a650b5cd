//! How much of a quota a gateway uses, so that it takes as much in advance and no more.

use std::time::{Duration, Instant};

/// What is used in such a time is what is taken in advance.
const WINDOW: Duration = Duration::from_millis(50);

/// What was used in the present window, and in the one before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    start: Instant,
    present: u32,
    before: u32,
}

impl Usage {
    pub(super) fn new(now: Instant) -> Self {
        Self { start: now, present: 0, before: 0 }
    }

    /// So much more has been used.
    pub(super) fn add(&mut self, now: Instant, count: u32) {
        *self = self.at(now);
        self.present = self.present.saturating_add(count);
    }

    /// How much will be used in the next window, as far as the last ones tell.
    pub(super) fn soon(&self, now: Instant) -> u32 {
        let Self { present, before, .. } = self.at(now);
        present.max(before)
    }

    fn at(&self, now: Instant) -> Self {
        let age = now.saturating_duration_since(self.start);
        if age < WINDOW {
            *self
        } else if age < WINDOW * 2 {
            Self { start: self.start + WINDOW, present: 0, before: self.present }
        } else {
            Self::new(now)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_a_moment_ago_will_be_used_again() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut usage = Usage::new(start);

        usage.add(at(10), 7);
        usage.add(at(49), 1);
        assert_eq!(usage.soon(at(49)), 8);
        usage.add(at(60), 2);
        assert_eq!((usage.soon(at(99)), usage.soon(at(100)), usage.soon(at(150))), (8, 2, 0));
    }
}
