//! Whether a login may be tried: not while one was just refused or has just failed.

use std::time::Duration;

use tokio::time::Instant;

use super::{error::Error, login::Fingerprint};

/// No two logins after a failure are closer together than this.
pub(super) const FLOOR: Duration = Duration::from_secs(1);
/// No pause is longer than this.
pub(super) const CAP: Duration = Duration::from_secs(300);
/// The first pause is at most this long; each further one, twice as long.
const BASE: Duration = Duration::from_secs(4);
/// Refused credentials are compared this often with what is configured now.
const LOOK: Duration = Duration::from_secs(1);

/// So many renewals may be asked for by 401s at once; after that, one in each [`RENEWAL_PERIOD`].
const RENEWALS: u32 = 5;
const RENEWAL_PERIOD: Duration = Duration::from_secs(15);

/// Decides whether a login may be tried.
pub(super) struct Gate {
    standing: Standing,
    failures: u32,
    /// When the renewals that 401s have asked for are paid off.
    renewals_paid: Option<Instant>,
}

enum Standing {
    Open,
    BackingOff { error: Error, until: Instant },
    Latched { error: Error, tried: Fingerprint, looked: Instant },
}

/// How the gate stands, for people.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Position {
    Open,
    BackingOff,
    /// Backing off because the user has too many sessions.
    SessionLimit,
    Latched,
}

impl Gate {
    /// An open gate.
    pub(super) fn new() -> Self {
        Self { standing: Standing::Open, failures: 0, renewals_paid: None }
    }

    /// The failure that stands in the way of a login, as far as that is known without a look at
    /// the credentials.
    pub(super) fn refusal(&self, now: Instant) -> Option<Error> {
        match &self.standing {
            Standing::BackingOff { error, until } if now < *until => {
                Some(error.clone().with_retry_after(*until - now))
            }
            Standing::Latched { error, looked, .. } if now < *looked + LOOK => Some(error.clone()),
            Standing::Open | Standing::BackingOff { .. } | Standing::Latched { .. } => None,
        }
    }

    /// Whether these credentials may be tried; `None`: they cannot be read.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        secrets: Option<&Fingerprint>,
    ) -> Result<(), Error> {
        if let Some(error) = self.refusal(now) {
            return Err(error);
        }
        if let Standing::Latched { error, tried, looked } = &mut self.standing {
            *looked = now;
            if secrets.is_none_or(|secrets| secrets == tried) {
                return Err(error.clone());
            }
            self.open();
        }
        Ok(())
    }

    /// Takes one of the renewals that 401s may ask for; else says when there is one again.
    ///
    /// A route that answers 401 to every token must not cause a login for each request.
    pub(super) fn take_renewal(&mut self, now: Instant) -> Result<(), Duration> {
        let paid = self.renewals_paid.map_or(now, |paid| paid.max(now)) + RENEWAL_PERIOD;
        let over = paid.duration_since(now).saturating_sub(RENEWAL_PERIOD * RENEWALS);
        if !over.is_zero() {
            return Err(over);
        }
        self.renewals_paid = Some(paid);
        Ok(())
    }

    /// All is well again.
    pub(super) fn open(&mut self) {
        self.standing = Standing::Open;
        self.failures = 0;
    }

    /// Closes until the credentials are others than those `tried`.
    pub(super) fn latch(&mut self, now: Instant, error: Error, tried: Fingerprint) {
        self.standing = Standing::Latched { error, tried, looked: now };
    }

    /// Closes for the pause that is due, and says how long that is. `chance` is a random share;
    /// `asked` is how long the host wants to be left alone.
    pub(super) fn back_off(
        &mut self,
        now: Instant,
        error: Error,
        asked: Option<Duration>,
        chance: f64,
    ) -> Error {
        self.failures = self.failures.saturating_add(1);
        let pause = pause(self.failures, chance).max(asked.unwrap_or_default().min(CAP));
        self.hold(now, error, pause)
    }

    /// Closes for this pause.
    pub(super) fn hold(&mut self, now: Instant, error: Error, pause: Duration) -> Error {
        let error = error.with_retry_after(pause);
        self.standing = Standing::BackingOff { error: error.clone(), until: now + pause };
        error
    }

    /// How it stands.
    pub(super) fn position(&self, now: Instant) -> Position {
        match &self.standing {
            Standing::BackingOff { error: Error::SessionLimit { .. }, until } if now < *until => {
                Position::SessionLimit
            }
            Standing::BackingOff { until, .. } if now < *until => Position::BackingOff,
            Standing::Open | Standing::BackingOff { .. } => Position::Open,
            Standing::Latched { .. } => Position::Latched,
        }
    }
}

/// Full jitter: anything between nothing and twice the last ceiling, but never below the floor.
fn pause(failures: u32, chance: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let ceiling = BASE.saturating_mul(1 << doublings).min(CAP);
    ceiling.mul_f64(chance.clamp(0.0, 1.0)).max(FLOOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(failures: u32, chance: f64, expected: Duration) {
        assert_eq!(pause(failures, chance), expected, "{failures} failures, chance {chance}");
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

    #[tokio::test(start_paused = true)]
    async fn renewals_that_401s_ask_for_come_back_one_by_one() {
        let mut gate = Gate::new();
        let now = Instant::now();

        let at_once = (0..50).filter(|_| gate.take_renewal(now).is_ok()).count();
        let wait = gate.take_renewal(now).expect_err("used up");
        let afterwards = (0..5).filter(|_| gate.take_renewal(now + wait).is_ok()).count();

        assert_eq!(at_once, 5);
        assert_eq!(wait, RENEWAL_PERIOD);
        assert_eq!(afterwards, 1);
    }
}
