//! How much may be called: quotas of routes, callers, identities and of all together.
//!
//! A request takes from the quotas in this order, the narrowest first, and stops at the first that
//! is used up. What it has taken from narrower ones until then is not given back: it is one
//! request's worth, and whoever is over a wide quota is slowed down in its narrow one as well.

mod queue;
mod refusals;

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{
            AtomicU32,
            Ordering::{AcqRel, Acquire},
        },
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, MonotonicClock},
    middleware::{StateInformationMiddleware, StateSnapshot},
    state::{InMemoryState, NotKeyed},
};

pub use self::{queue::Queue, refusals::Refusals};
use crate::{
    amove::catalogue::{Catalogue, Route},
    config::{Config, LimitMode, Rate},
};

/// All quotas. They are in this process only; a restart fills them up.
#[derive(Debug)]
pub struct Limiter<C: Clock + Clone = MonotonicClock> {
    callers: Vec<Option<Bucket<C>>>,
    identities: Vec<Option<Bucket<C>>>,
    global: Option<Bucket<C>>,
    patterns: Vec<Option<Bucket<C>>>,
    /// By the position of the route in the catalogue.
    routes: Vec<Share>,
    /// Of each caller, how many requests are under way, and how many may be.
    concurrent: Vec<Option<(Arc<AtomicU32>, u32)>>,
    queue: Arc<Queue>,
    refusals: Refusals,
    mode: LimitMode,
}

/// What a request wants from the quotas, and how far it has got: what it has been given once is not
/// asked for again.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    caller: usize,
    identity: usize,
    /// The position of the route in the catalogue.
    route: Option<usize>,
    /// How many of its quotas have been passed.
    passed: usize,
    /// What the caller is told: how the first quota of its own stood.
    told: Option<Standing>,
}

/// What a call of one route takes.
#[derive(Clone, Debug)]
struct Share {
    weight: NonZeroU32,
    /// From which patterns' quotas besides.
    patterns: Box<[usize]>,
}

/// A request that is under way; dropped when it has ended.
#[derive(Debug)]
pub struct Permit(Arc<AtomicU32>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, AcqRel);
    }
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
    /// Some routes'.
    Route,
    /// One caller's.
    Caller,
    /// All callers' that share an identity.
    Identity,
    /// All callers' together.
    Global,
}

impl Scope {
    /// Its name in header fields.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Caller => "caller",
            Self::Identity => "identity",
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
        let limits = &config.rate_limit;
        let share = |route: &Route| {
            let matching = limits.routes.iter().enumerate();
            let matching = matching.filter(|(_, limit)| limit.pattern.matches(route));
            let weights = matching.clone().map(|(_, limit)| limit.weight);
            let patterns = matching.filter(|(_, limit)| limit.rate.is_some());
            Share {
                weight: weights.max().unwrap_or(NonZeroU32::MIN),
                patterns: patterns.map(|(at, _)| at).collect(),
            }
        };
        Self {
            callers: (config.callers.iter())
                .map(|caller| bucket(Scope::Caller, caller.rate, caller.burst))
                .collect(),
            identities: (config.identities.iter())
                .map(|_| bucket(Scope::Identity, limits.per_identity, None))
                .collect(),
            global: bucket(Scope::Global, limits.global, None),
            patterns: (limits.routes.iter())
                .map(|limit| bucket(Scope::Route, limit.rate, limit.burst))
                .collect(),
            routes: Catalogue::get().routes().iter().map(share).collect(),
            concurrent: (config.callers.iter())
                .map(|caller| Some((Arc::default(), caller.max_concurrent?.get())))
                .collect(),
            queue: Arc::default(),
            refusals: Refusals::default(),
            mode: limits.mode,
        }
    }

    /// What was refused; counted by whoever refuses.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Counts one more request of the caller at that position as under way; `None` if it has as
    /// many as it may.
    pub fn enter(&self, caller: usize) -> Option<Option<Permit>> {
        let Some(Some((under_way, most))) = self.concurrent.get(caller) else { return Some(None) };
        let entered =
            under_way.fetch_update(AcqRel, Acquire, |now| (now < *most).then_some(now + 1));
        entered.ok().map(|_| Some(Permit(Arc::clone(under_way))))
    }

    /// Takes one request for `route` from the quotas of the caller and the identity at those
    /// positions. What is not in the catalogue counts once.
    pub fn take(&self, caller: usize, identity: usize, route: Option<&Route>) -> Decision {
        self.go_on(&mut Claim::new(caller, identity, route))
    }

    /// Takes what is left to take; stops at the first quota that is used up.
    fn go_on(&self, claim: &mut Claim) -> Decision {
        let share = claim.route.and_then(|route| self.routes.get(route));
        let weight = share.map_or(NonZeroU32::MIN, |share| share.weight);
        let patterns = share.into_iter().flat_map(|share| &share.patterns);
        let patterns = patterns.filter_map(|at| self.patterns.get(*at)?.as_ref());
        let patterns = patterns.map(|bucket| (bucket, NonZeroU32::MIN));
        let own = self.callers.get(claim.caller).and_then(Option::as_ref);
        let identity = self.identities.get(claim.identity).and_then(Option::as_ref);
        let others = [own, identity, self.global.as_ref()].into_iter().flatten();
        let all = patterns.chain(others.map(|bucket| (bucket, weight)));
        for (bucket, weight) in all.skip(claim.passed) {
            match bucket.take(weight) {
                refused @ Decision::Refused { .. } => return refused,
                Decision::Granted(standing) => claim.tell(standing),
                Decision::Unlimited => {}
            }
            claim.passed += 1;
        }
        claim.told.map_or(Decision::Unlimited, Decision::Granted)
    }
}

impl Limiter {
    /// What is told where nothing is known: somebody else waits already.
    const OVER: Decision = {
        let second = Duration::from_secs(1);
        let (scope, burst, remaining) = (Scope::Global, 1, 0);
        let standing = Standing { scope, burst, window: second, remaining, next: second };
        Decision::Refused { standing, retry_after: second }
    };

    /// As [`Limiter::take`]; where that is wanted, waits its turn rather than be refused.
    pub async fn pass(
        self: &Arc<Self>,
        caller: usize,
        identity: usize,
        route: Option<&Route>,
    ) -> Decision {
        let mut claim = Claim::new(caller, identity, route);
        let LimitMode::Wait(patience) = self.mode else { return self.go_on(&mut claim) };
        // Whoever comes while others wait does not go before them.
        let refused = if self.queue.waiting() == 0 {
            match self.go_on(&mut claim) {
                refused @ Decision::Refused { retry_after, .. } if retry_after <= patience => {
                    refused
                }
                decided => return decided,
            }
        } else {
            self.queue.refusal().unwrap_or(Self::OVER)
        };
        let waited = self.queue.wait(self, claim, patience).await;
        waited.or_else(|| self.queue.refusal()).unwrap_or(refused)
    }

    /// Who waits.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }
}

impl Claim {
    fn new(caller: usize, identity: usize, route: Option<&Route>) -> Self {
        Self { caller, identity, route: route.map(|route| route.index), passed: 0, told: None }
    }

    /// A caller is told of its own quota rather than of those that it shares.
    fn tell(&mut self, standing: Standing) {
        let is_own = standing.scope == Scope::Caller;
        if is_own || self.told.is_none_or(|told| told.scope == Scope::Route) {
            self.told = Some(standing);
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

    fn take(&self, weight: NonZeroU32) -> Decision {
        // What weighs more than the whole quota takes all of it.
        let weight = weight.min(NonZeroU32::new(self.burst).unwrap_or(NonZeroU32::MIN));
        match self.limiter.check_n(weight) {
            Ok(Ok(state)) => Decision::Granted(self.standing(&state)),
            // It never weighs more than that.
            Err(_) => Decision::Granted(self.at(0)),
            Ok(Err(early)) => {
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
        let remaining = || match limiter.take(0, 0, None) {
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

        let granted =
            (0..10).filter(|_| matches!(limiter.take(1, 0, None), Decision::Granted(_))).count();

        assert_eq!(granted, 3);
        let refused = limiter.take(1, 0, None);
        assert!(
            matches!(refused, Decision::Refused { standing, .. } if standing.scope == Scope::Global)
        );
    }

    #[test]
    fn who_is_over_its_own_quota_takes_nothing_from_the_others() {
        let limiter = limiter(&FakeRelativeClock::default());
        let hasty =
            (0..10).filter(|_| matches!(limiter.take(0, 0, None), Decision::Granted(_))).count();

        let other = limiter.take(1, 0, None);

        assert_eq!(hasty, 2);
        assert!(matches!(other, Decision::Granted(standing) if standing.remaining == 0));
    }

    fn route(key: &str) -> &'static Route {
        let is_it = |route: &&Route| route.template == format!("/api/v1/{key}");
        Catalogue::get().routes().iter().find(is_it).expect("a route")
    }

    fn granted(limiter: &Limiter<FakeRelativeClock>, route: &Route) -> (usize, Option<Scope>) {
        let mut refused = None;
        let granted = (0..100)
            .take_while(|_| match limiter.take(0, 0, Some(route)) {
                Decision::Refused { standing, .. } => {
                    refused = Some(standing.scope);
                    false
                }
                _ => true,
            })
            .count();
        (granted, refused)
    }

    #[test]
    fn routes_and_identities_have_quotas_of_their_own_and_some_calls_weigh_more() {
        let text = "[identities.main]\napi_token = \"t\"\n\
            [callers.a]\nrate = \"60/m\"\nburst = 20\n\
            [rate_limit]\nper_identity = \"30/s\"\n\
            [rate_limit.routes.\"POST transfer/*\"]\nrate = \"3/m\"\nburst = 3\n\
            [rate_limit.routes.\"@destructive\"]\nweight = 5\n";
        let config = load_str(text, &[]).unwrap().config;
        let limiter = || Limiter::with_clock(&config, &FakeRelativeClock::default());

        assert_eq!(granted(&limiter(), route("transfer/transfer")), (3, Some(Scope::Route)));
        assert_eq!(granted(&limiter(), route("project/get_all")), (20, Some(Scope::Caller)));
        assert_eq!(granted(&limiter(), route("project/delete")), (4, Some(Scope::Caller)));
    }

    #[test]
    fn a_caller_has_so_many_requests_under_way_and_no_more() {
        let text = "[identities.main]\napi_token = \"t\"\n[callers.a]\nmax_concurrent = 2\n";
        let limiter = Limiter::with_clock(
            &load_str(text, &[]).unwrap().config,
            &FakeRelativeClock::default(),
        );

        let (first, second) = (limiter.enter(0).unwrap(), limiter.enter(0).unwrap());
        assert!(limiter.enter(0).is_none());
        drop(first);
        assert!(limiter.enter(0).is_some());
        drop(second);
        assert!(limiter.enter(7).is_some_and(|permit| permit.is_none()));
    }

    #[test]
    fn over_a_minute_a_quota_is_exact() {
        let text =
            "[identities.main]\napi_token = \"t\"\n[callers.a]\nrate = \"50/s\"\nburst = 10\n";
        let clock = FakeRelativeClock::default();
        let limiter = Limiter::with_clock(&load_str(text, &[]).unwrap().config, &clock);
        let mut granted = 0;
        for _ in 0..60_000 {
            clock.advance(Duration::from_millis(1));
            granted += usize::from(matches!(limiter.take(0, 0, None), Decision::Granted(_)));
        }

        // 50 in each second, and what may come at once at the beginning.
        assert!((2970..=3040).contains(&granted), "{granted}");
    }
}
