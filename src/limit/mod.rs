//! How much may be called: a quota for each caller, and one for all together.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, MonotonicClock},
    middleware::{StateInformationMiddleware, StateSnapshot},
    state::{InMemoryState, NotKeyed},
};

use crate::config::{Config, Rate};

/// All quotas. They are in this process only; a restart fills them up.
#[derive(Debug)]
pub struct Limiter<C: Clock + Clone = MonotonicClock> {
    callers: Vec<Option<Bucket<C>>>,
    global: Option<Bucket<C>>,
}

/// What became of one request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    /// Nothing limits it.
    Unlimited,
    /// It was within the quota.
    Granted(Standing),
    /// It was not.
    Refused {
        /// How the quota stands.
        standing: Standing,
        /// When the next request may come.
        retry_after: Duration,
    },
}

/// How a quota stands after a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Standing {
    /// Whose quota it is.
    pub scope: Scope,
    /// Requests that may come at once.
    pub burst: u32,
    /// In which time an empty quota fills up.
    pub window: Duration,
    /// Requests that may come now.
    pub remaining: u32,
    /// When there is room for one more than now.
    pub next: Duration,
}

/// Whose quota it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// One caller's.
    Caller,
    /// All callers' together.
    Global,
}

impl Scope {
    /// Its name in header fields.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Global => "global",
        }
    }
}

impl Limiter {
    /// The quotas that `config` gives.
    pub fn new(config: &Config) -> Self {
        Self::with_clock(config, &MonotonicClock)
    }
}

impl<C: Clock + Clone> Limiter<C> {
    fn with_clock(config: &Config, clock: &C) -> Self {
        let bucket = |scope, rate: Option<Rate>, burst: Option<NonZeroU32>| {
            rate.map(|rate| Bucket::new(scope, rate, burst, clock.clone()))
        };
        Self {
            callers: (config.callers.iter())
                .map(|caller| bucket(Scope::Caller, caller.rate, caller.burst))
                .collect(),
            global: bucket(Scope::Global, config.rate_limit.global, None),
        }
    }

    /// Takes one request from the quotas of the caller at that position.
    pub fn take(&self, caller: usize) -> Decision {
        // The caller's own quota first: who is over it takes nothing from the others.
        let own = self.callers.get(caller).and_then(Option::as_ref).map(Bucket::take);
        if let Some(refused @ Decision::Refused { .. }) = own {
            return refused;
        }
        match (own, self.global.as_ref().map(Bucket::take)) {
            (_, Some(refused @ Decision::Refused { .. })) => refused,
            (Some(own), _) => own,
            (None, Some(global)) => global,
            (None, None) => Decision::Unlimited,
        }
    }
}

/// One quota: a leaky bucket (GCRA).
#[derive(Debug)]
struct Bucket<C: Clock> {
    limiter: RateLimiter<NotKeyed, InMemoryState, C, StateInformationMiddleware>,
    clock: C,
    scope: Scope,
    burst: u32,
    /// The time in which one request is given back.
    interval: Duration,
}

impl<C: Clock + Clone> Bucket<C> {
    fn new(scope: Scope, rate: Rate, burst: Option<NonZeroU32>, clock: C) -> Self {
        let interval = (rate.per / rate.count.get()).max(Duration::from_nanos(1));
        let a_second_of_it = Duration::from_secs(1).as_nanos() / interval.as_nanos();
        let burst = burst
            .or_else(|| NonZeroU32::new(u32::try_from(a_second_of_it).unwrap_or(u32::MAX)))
            .unwrap_or(NonZeroU32::MIN);
        // `with_period` refuses an interval of zero only.
        let quota = Quota::with_period(interval).unwrap_or(Quota::per_second(rate.count));
        let quota = quota.allow_burst(burst);
        let limiter = RateLimiter::direct_with_clock(quota, clock.clone()).with_middleware();
        Self { limiter, clock, scope, burst: burst.get(), interval }
    }

    fn take(&self) -> Decision {
        match self.limiter.check() {
            Ok(state) => Decision::Granted(self.standing(&state)),
            Err(early) => {
                let retry_after = early.wait_time_from(self.clock.now());
                let standing = Standing { next: retry_after, ..self.at(0) };
                Decision::Refused { standing, retry_after }
            }
        }
    }

    fn standing(&self, state: &StateSnapshot) -> Standing {
        self.at(state.remaining_burst_capacity())
    }

    fn at(&self, remaining: u32) -> Standing {
        let window = self.interval.saturating_mul(self.burst);
        Standing { scope: self.scope, burst: self.burst, window, remaining, next: self.interval }
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;
    use crate::config::load::load_str;

    const TWO_CALLERS: &str = "[identities.main]\napi_token = \"t\"\n\
        [callers.a]\nrate = \"60/m\"\nburst = 2\n\
        [callers.b]\napi_key_hash = \"blake3:1111111111111111111111111111111111111111111111111111111111111111\"\n\
        [rate_limit]\nglobal = \"3/s\"\n";

    fn limiter(clock: &FakeRelativeClock) -> Limiter<FakeRelativeClock> {
        Limiter::with_clock(&load_str(TWO_CALLERS, &[]).unwrap().config, clock)
    }

    #[test]
    fn a_quota_is_used_up_and_comes_back_one_by_one() {
        let clock = FakeRelativeClock::default();
        let limiter = limiter(&clock);
        let remaining = || match limiter.take(0) {
            Decision::Granted(standing) => Ok(standing.remaining),
            Decision::Refused { retry_after, standing } => Err((standing.scope, retry_after)),
            Decision::Unlimited => panic!("there is a quota"),
        };

        assert_eq!([remaining(), remaining()], [Ok(1), Ok(0)]);
        assert_eq!(remaining(), Err((Scope::Caller, Duration::from_secs(1))));
        clock.advance(Duration::from_secs(1));
        assert_eq!(remaining(), Ok(0));
        assert!(remaining().is_err());
    }

    #[test]
    fn the_quota_of_all_limits_those_who_have_none_of_their_own() {
        let limiter = limiter(&FakeRelativeClock::default());

        let granted = (0..10).filter(|_| matches!(limiter.take(1), Decision::Granted(_))).count();

        assert_eq!(granted, 3);
        let refused = limiter.take(1);
        assert!(
            matches!(refused, Decision::Refused { standing, .. } if standing.scope == Scope::Global)
        );
    }

    #[test]
    fn who_is_over_its_own_quota_takes_nothing_from_the_others() {
        let limiter = limiter(&FakeRelativeClock::default());
        let hasty = (0..10).filter(|_| matches!(limiter.take(0), Decision::Granted(_))).count();

        let other = limiter.take(1);

        assert_eq!(hasty, 2);
        assert!(matches!(other, Decision::Granted(standing) if standing.remaining == 0));
    }
}
