//! How often a request that failed is sent once more, and when.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tower::retry::budget::{Budget as _, TpsBudget};

/// How often one request is repeated.
pub const REPEATS: u32 = 2;

/// The first pause is at most this long, the second twice as long.
const BASE: Duration = Duration::from_millis(100);

/// For how long a request that may be repeated adds to the budget.
const WINDOW: Duration = Duration::from_secs(10);
/// Repeats in a second that are granted in any case: where there are few requests, a share of them
/// is nothing.
const ALWAYS: u32 = 1;

/// How many repeats there may be: a share of the requests, so that a failing API is not buried.
/// Each worker has its own.
pub struct Budget(Option<TpsBudget>);

/// What came of a request that might have been sent once more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It was, and was answered.
    Answered,
    /// It was, and was not answered either.
    InVain,
    /// It was not: too many others were.
    OverBudget,
}

/// What is counted while the gateway runs.
#[derive(Debug, Default)]
pub struct Retries([AtomicU64; Outcome::ALL.len()]);

impl Budget {
    /// Grants about `share` repeats for each request, to one in a whole number; 0: none.
    pub fn new(share: f64) -> Self {
        // Smaller shares than one in a million are none.
        let is_any = (1e-6..=1.0).contains(&share);
        #[expect(clippy::cast_possible_truncation, reason = "0.1 need not be exact")]
        Self(is_any.then(|| TpsBudget::new(WINDOW, ALWAYS, share as f32)))
    }

    /// Notes a request that may be repeated. Whether it may indeed.
    pub fn deposit(&self) -> bool {
        self.0.as_ref().inspect(|budget| budget.deposit()).is_some()
    }

    /// Takes a repeat, if there is one left.
    pub fn withdraw(&self) -> bool {
        self.0.as_ref().is_some_and(|budget| budget.withdraw())
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Budget").field(&self.0.is_some()).finish()
    }
}

/// How long to wait ahead of a repeat, counted from 1. Full jitter: anything up to a ceiling that
/// doubles, so that those who failed together do not come back together. `chance` is a random share.
pub fn pause(repeat: u32, chance: f64) -> Duration {
    let ceiling = BASE.saturating_mul(1 << repeat.saturating_sub(1).min(4));
    ceiling.mul_f64(chance.clamp(0.0, 1.0))
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Answered, Self::InVain, Self::OverBudget];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::InVain => "in_vain",
            Self::OverBudget => "over_budget",
        }
    }
}

impl Retries {
    /// Counts `outcome`.
    pub fn add(&self, outcome: Outcome) {
        self.0[outcome as usize].fetch_add(1, Relaxed);
    }

    /// What was counted.
    pub fn read(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Outcome::ALL.into_iter().map(|outcome| (outcome, self.0[outcome as usize].load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_random_below_a_ceiling_that_doubles() {
        for (repeat, chance, expected) in [(1, 0.0, 0), (1, 0.5, 50), (1, 1.0, 100), (2, 1.0, 200)]
        {
            assert_eq!(pause(repeat, chance), Duration::from_millis(expected), "{repeat}");
        }
        assert_eq!(pause(u32::MAX, 9.0), BASE * 16);
    }

    #[tokio::test(start_paused = true)]
    async fn repeats_are_a_share_of_the_requests_and_a_few_in_any_case() {
        let budget = Budget::new(0.1);
        let few = std::iter::from_fn(|| budget.withdraw().then_some(())).count();
        assert_eq!(few, 10, "one a second");

        for _ in 0..100 {
            assert!(budget.deposit());
        }

        assert_eq!(std::iter::from_fn(|| budget.withdraw().then_some(())).count(), 10);
        tokio::time::advance(WINDOW * 2).await;
        assert!(budget.withdraw(), "after a while there are some again");
    }

    #[tokio::test]
    async fn no_share_is_no_repeat() {
        for share in [0.0, 1e-9, f64::NAN, 2.0] {
            let budget = Budget::new(share);
            assert!(!budget.deposit() && !budget.withdraw(), "{share}");
        }
    }
}
