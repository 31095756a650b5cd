//! A quota in this process: a leaky bucket (GCRA).

use std::num::NonZeroU32;

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::StateInformationMiddleware,
    state::{InMemoryState, NotKeyed},
};

use super::decision::{Decision, Terms};

/// One quota.
#[derive(Debug)]
pub(super) struct Bucket<C: Clock> {
    limiter: RateLimiter<NotKeyed, InMemoryState, C, StateInformationMiddleware>,
    clock: C,
    terms: Terms,
}

impl<C: Clock + Clone> Bucket<C> {
    pub(super) fn new(terms: Terms, clock: C) -> Self {
        // `with_period` refuses an interval of zero only, which is none of ours.
        let quota = Quota::with_period(terms.interval).unwrap_or(Quota::per_second(terms.burst));
        let quota = quota.allow_burst(terms.burst);
        let limiter = RateLimiter::direct_with_clock(quota, clock.clone()).with_middleware();
        Self { limiter, clock, terms }
    }

    #[inline]
    pub(super) fn take(&self, weight: NonZeroU32) -> Decision {
        match self.limiter.check_n(self.terms.share(weight)) {
            Ok(Ok(state)) => self.terms.granted(state.remaining_burst_capacity()),
            // It never weighs more than the whole quota.
            Err(_) => self.terms.granted(0),
            Ok(Err(early)) => self.terms.refused(early.wait_time_from(self.clock.now())),
        }
    }
}
