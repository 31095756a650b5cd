//! How long to wait after a login that failed.

use std::time::Duration;

/// No two logins after a failure are closer together than this.
pub(super) const FLOOR: Duration = Duration::from_secs(1);
/// No pause after a transient failure is longer than this.
pub(super) const CAP: Duration = Duration::from_secs(300);
/// The first pause is at most this long; each further one, twice as long.
const BASE: Duration = Duration::from_secs(4);

/// Sessions of others end when they end: there is no point in asking often.
const QUOTA_FLOOR: Duration = Duration::from_secs(30);
/// No pause at the session limit is longer than this.
pub(super) const QUOTA_CAP: Duration = Duration::from_secs(900);

/// After so many transient failures in a row. Full jitter: anything between nothing and twice the
/// last ceiling, but never below the floor. `chance` is a random share.
pub(super) fn transient(failures: u32, chance: f64) -> Duration {
    ceiling(BASE, failures, CAP).mul_f64(share(chance)).max(FLOOR)
}

/// After so many logins in a row that the session limit stood against: at least half the ceiling.
pub(super) fn quota(failures: u32, chance: f64) -> Duration {
    let ceiling = ceiling(QUOTA_FLOOR * 2, failures, QUOTA_CAP);
    ceiling.mul_f64(0.5 + share(chance) / 2.0).max(QUOTA_FLOOR)
}

fn ceiling(base: Duration, failures: u32, cap: Duration) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    base.saturating_mul(1 << doublings).min(cap)
}

fn share(chance: f64) -> f64 {
    chance.clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(failures: u32, chance: f64, expected: Duration) {
        assert_eq!(transient(failures, chance), expected, "{failures} failures, chance {chance}");
    }

    #[test]
    fn pauses_are_random_between_a_floor_and_a_growing_ceiling() {
        check(1, 0.0, FLOOR);
        check(1, 0.5, BASE / 2);
        check(1, 1.0, BASE);
        check(2, 1.0, BASE * 2);
        check(3, 1.0, BASE * 4);
        check(3, 0.25, BASE);
        check(9, 1.0, CAP);
        check(9, 0.0, FLOOR);
        check(u32::MAX, 1.0, CAP);
    }

    #[test]
    fn at_the_session_limit_pauses_are_long_from_the_start() {
        assert_eq!(quota(1, 0.0), QUOTA_FLOOR);
        assert_eq!(quota(1, 1.0), QUOTA_FLOOR * 2);
        assert_eq!(quota(3, 0.0), QUOTA_FLOOR * 4);
        assert_eq!(quota(u32::MAX, 1.0), QUOTA_CAP);
        assert_eq!(quota(u32::MAX, 0.0), QUOTA_CAP / 2);
    }
}
