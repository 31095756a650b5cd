//! How far the clock of the auth host is ahead of ours.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use jiff::{SignedDuration, Timestamp};
use tracing::warn;

/// `Date` counts whole seconds: on average, the host is half a second further.
const ROUNDING: SignedDuration = SignedDuration::from_millis(500);
/// Less than this may be rounding and the way through the network.
const NOISE: i64 = 1_500;
/// More than this is worth a line in the log.
const WORTH_SAYING: i64 = 30_000;

/// The host's clock minus ours, measured from its answers.
#[derive(Debug, Default)]
pub(super) struct Skew {
    milliseconds: AtomicI64,
}

impl Skew {
    /// Learns from an answer of `date` that arrived `now`.
    pub(super) fn observe(&self, date: Timestamp, now: Timestamp) {
        let ahead = date.duration_since(now).saturating_add(ROUNDING).as_millis();
        let ahead = i64::try_from(ahead).unwrap_or_default();
        let ahead = if ahead.abs() <= NOISE { 0 } else { ahead };
        let before = self.milliseconds.swap(ahead, Relaxed);
        if ahead.abs() > WORTH_SAYING && before.abs_diff(ahead) > NOISE.unsigned_abs() {
            warn!(ahead_seconds = ahead / 1_000, "the clocks of the API and of this host differ");
        }
    }

    /// What the host's clock shows when ours shows `ours`.
    pub(super) fn theirs(&self, ours: Timestamp) -> Timestamp {
        ours.checked_add(self.get()).unwrap_or(ours)
    }

    /// What our clock shows when the host's shows `theirs`.
    pub(super) fn ours(&self, theirs: Timestamp) -> Timestamp {
        theirs.checked_sub(self.get()).unwrap_or(theirs)
    }

    fn get(&self) -> SignedDuration {
        SignedDuration::from_millis(self.milliseconds.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("a time")
    }

    #[test]
    fn a_second_more_or_less_is_noise() {
        let skew = Skew::default();

        skew.observe(at(1_000), at(1_001));

        assert_eq!(skew.theirs(at(5)), at(5));
    }

    #[test]
    fn what_is_learnt_holds_both_ways() {
        let skew = Skew::default();

        skew.observe(at(4_600), at(1_000));

        assert_eq!(skew.theirs(at(1_000)).as_second(), 4_600);
        assert_eq!(skew.ours(skew.theirs(at(7))), at(7));
    }
}
