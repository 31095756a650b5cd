//! How long to wait before PostgreSQL is tried again.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// The first pause is at most this long; each further one, twice as long.
const BASE: Duration = Duration::from_millis(500);
/// No pause is longer: what comes back is to be noticed soon.
const CAP: Duration = Duration::from_secs(30);

/// After so many failures in a row. At least half the ceiling; the rest is random, so that the
/// gateways of a fleet do not come back at once.
pub(super) fn pause(failures: u32) -> Duration {
    jittered(failures, RandomState::new().hash_one(()) as f64 / u64::MAX as f64)
}

fn jittered(failures: u32, chance: f64) -> Duration {
    let ceiling = BASE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(CAP);
    ceiling.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_random() {
        for (failures, chance, expected) in [
            (1, 0.0, BASE / 2),
            (1, 1.0, BASE),
            (3, 0.5, BASE * 3),
            (20, 0.0, CAP / 2),
            (u32::MAX, 1.0, CAP),
        ] {
            assert_eq!(jittered(failures, chance), expected, "{failures} failures, {chance}");
        }
    }
}
