//! Whether a login may be tried now: refused credentials latch, everything else waits its turn.
//!
//! Pure: takes what happened and the time, and gives an answer.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::login::Failed;
use crate::amove::auth;

/// How long to wait after the first failure of a kind, and at most.
const TRANSIENT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
const QUOTA: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(300));
const CODE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));

/// What stands in the way of a login.
#[derive(Debug, Default)]
pub(super) enum Gate {
    /// Nothing.
    #[default]
    Open,
    /// The credentials were refused: only other credentials, or an operator, open it again.
    Latched {
        /// What the API said.
        reason: String,
        /// What identifies the credentials that were tried.
        tried: Option<Fingerprint>,
    },
    /// The API was ill, or we had to wait for another reason.
    Waiting {
        /// Until when.
        until: Timestamp,
        /// How many times in a row.
        failures: u32,
        /// What happened last.
        reason: String,
        /// Whether it is the number of sessions that stands in the way.
        quota: bool,
    },
}

/// Tells one set of credentials from another without keeping either.
pub(super) type Fingerprint = [u8; 32];

impl Gate {
    /// Whether it is open at `now`, given the fingerprint of the credentials there are now.
    pub(super) fn is_open(
        &self,
        now: Timestamp,
        credentials: impl FnOnce() -> Option<Fingerprint>,
    ) -> bool {
        match self {
            Self::Open => true,
            Self::Waiting { until, .. } => now >= *until,
            Self::Latched { tried, .. } => {
                let present = credentials();
                present.is_some() && present != *tried
            }
        }
    }

    /// What it becomes after `failure`; `luck` is between 0 and 1.
    pub(super) fn after(
        &self,
        failure: &Failed,
        now: Timestamp,
        tried: Option<Fingerprint>,
        luck: f64,
    ) -> Self {
        let (bounds, quota) = match failure {
            Failed::Auth(
                auth::Error::Refused(_) | auth::Error::Unsupported(_) | auth::Error::TotpNeeded,
            )
            | Failed::Totp(_) => {
                return Self::Latched { reason: text(failure), tried };
            }
            Failed::Auth(auth::Error::SessionLimit) => (QUOTA, true),
            Failed::Auth(auth::Error::Totp) => (CODE, false),
            Failed::Auth(_) | Failed::Secret(_) | Failed::TooSlow => (TRANSIENT, false),
        };
        let failures = match self {
            Self::Waiting { failures, .. } => failures.saturating_add(1),
            Self::Open | Self::Latched { .. } => 1,
        };
        let pause = pause(bounds, failures, luck);
        let until = now
            .checked_add(SignedDuration::try_from(pause).unwrap_or(SignedDuration::ZERO))
            .unwrap_or(now);
        Self::Waiting { until, failures, reason: text(failure), quota }
    }

    /// Refused for `reason` with the credentials of `tried`.
    pub(super) fn latched(reason: &str, tried: Option<Fingerprint>) -> Self {
        Self::Latched { reason: reason.to_owned(), tried }
    }

    /// What happened last.
    pub(super) fn reason(&self) -> Option<&str> {
        match self {
            Self::Open => None,
            Self::Latched { reason, .. } | Self::Waiting { reason, .. } => Some(reason),
        }
    }

    /// How long until it may open by itself.
    pub(super) fn remaining(&self, now: Timestamp) -> Option<Duration> {
        let Self::Waiting { until, .. } = self else { return None };
        Some(Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO))
    }
}

/// Full jitter between the floor and a ceiling that doubles, up to the cap.
fn pause((floor, cap): (Duration, Duration), failures: u32, luck: f64) -> Duration {
    let doubled = floor.saturating_mul(2_u32.saturating_pow(failures.min(16)));
    let ceiling = doubled.min(cap).max(floor);
    floor + (ceiling - floor).mul_f64(luck.clamp(0.0, 1.0))
}

/// A failure with its causes, for operators. No failure carries a secret.
fn text(failure: &Failed) -> String {
    let mut text = failure.to_string();
    let mut cause = std::error::Error::source(failure);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn refused_credentials_latch_until_they_change() {
        let refused = Failed::Auth(auth::Error::Refused("401".into()));

        let gate = Gate::Open.after(&refused, at(0), Some([1; 32]), 0.5);

        assert!(!gate.is_open(at(1_000_000), || Some([1; 32])));
        assert!(!gate.is_open(at(1_000_000), || None), "a file that is gone proves nothing");
        assert!(gate.is_open(at(1), || Some([2; 32])));
    }

    #[test]
    fn failures_wait_longer_each_time_within_their_bounds() {
        let mut gate = Gate::Open;
        let mut pauses = Vec::new();
        for _ in 0..10 {
            gate = gate.after(&Failed::TooSlow, at(0), None, 1.0);
            pauses.push(gate.remaining(at(0)).unwrap().as_secs());
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60, 60, 60]);

        let soon = gate.after(&Failed::TooSlow, at(0), None, 0.0);
        assert!(!soon.is_open(at(0), || None));
        assert!(soon.is_open(at(1), || None));
    }

    #[test]
    fn a_full_quota_waits_long() {
        let full = Failed::Auth(auth::Error::SessionLimit);

        let gate = Gate::Open.after(&full, at(0), None, 0.0);

        assert_eq!(gate.remaining(at(0)), Some(Duration::from_secs(30)));
        assert!(matches!(gate, Gate::Waiting { quota: true, .. }));
    }
}
