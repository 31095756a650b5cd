//! What `take.lua` has to do, in whole numbers.

use std::time::Duration;

use super::{
    super::decision::Terms,
    lease::{Answer, Order},
};

/// A quota in an imagined Redis; times in µs, lengths in ns.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Model {
    at: u64,
    ahead: u64,
    full: u64,
}

impl Model {
    pub(super) fn take(&mut self, now: u64, terms: &Terms, order: &Order) -> Answer {
        let interval = u64::try_from(terms.interval.as_nanos()).expect("no aeon");
        let all = interval * u64::from(terms.burst.get());
        let passed = now.saturating_sub(self.at) * 1000;
        if passed >= self.ahead {
            (self.ahead, self.full) = (0, now);
        } else {
            self.ahead -= passed;
        }
        self.at = now;
        if self.full <= order.since {
            self.ahead = self.ahead.saturating_sub(u64::from(order.returned) * interval);
        }
        let free = u32::try_from((all - self.ahead) / interval).expect("at most the burst");
        let taken = if free >= order.needed { free.min(order.wanted) } else { 0 };
        self.ahead += u64::from(taken) * interval;
        Answer { taken, ahead: Duration::from_nanos(self.ahead), now }
    }
}
