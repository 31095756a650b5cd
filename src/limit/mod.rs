//! How much may be called: quotas of routes, callers, identities and of all together.
//!
//! A request takes from the quotas in this order, the narrowest first, and stops at the first that
//! is used up. What it has taken from narrower ones until then is not given back: it is one
//! request's worth, and whoever is over a wide quota is slowed down in its narrow one as well.
//!
//! Quotas are in this process, or shared by a fleet (`shared`). How many requests are under way is
//! each gateway's own affair.
//!
//! Another configuration makes another [`Limiter`]. It takes over what stays: a quota of the same
//! name and size, as full as it is, and who is under way.

mod decision;
mod local;
mod queue;
mod refusals;
mod shared;

use std::{
    collections::HashMap,
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

use governor::clock::{Clock, MonotonicClock};
use tokio::{runtime::Handle, time::Instant};
use tokio_util::sync::CancellationToken;

use self::{
    decision::Terms,
    local::Bucket,
    shared::{Quotas, SharedQuota, Store},
};
pub use self::{
    decision::{Decision, Scope, Standing},
    queue::Queue,
    refusals::Refusals,
    shared::{OpenError, Status},
};
use crate::{
    amove::catalogue::{Catalogue, Route},
    config::{self, Config, LimitMode, QuotaStore, QuotaStoreError, Rate},
};

/// All quotas.
#[derive(Debug)]
pub struct Limiter<C: Clock + Clone = MonotonicClock> {
    callers: Vec<Option<Arc<Quota<C>>>>,
    identities: Vec<Option<Arc<Quota<C>>>>,
    global: Option<Arc<Quota<C>>>,
    patterns: Vec<Option<Arc<Quota<C>>>>,
    /// By the position of the route in the catalogue.
    routes: Vec<Share>,
    /// Of each caller, by name, how many requests are under way, and how many may be.
    concurrent: Vec<Option<UnderWay>>,
    queue: Arc<Queue>,
    refusals: Arc<Refusals>,
    mode: LimitMode,
    /// Where the quotas are, if a fleet shares them.
    shared: Option<Shared>,
}

/// What all limiters of a gateway have in common that share their quotas with a fleet.
#[derive(Clone, Debug)]
struct Shared {
    store: Arc<Store>,
    on_error: QuotaStoreError,
    quotas: Quotas,
}

/// The requests of one caller that are under way.
#[derive(Debug)]
struct UnderWay {
    caller: Arc<str>,
    number: Arc<AtomicU32>,
    most: u32,
}

/// One quota.
#[derive(Debug)]
struct Quota<C: Clock> {
    /// Whose it is, within its scope.
    name: Box<str>,
    terms: Terms,
    kept: Kept<C>,
}

/// Where a quota is kept.
#[derive(Debug)]
enum Kept<C: Clock> {
    /// In this process only; a restart fills it up.
    Local(Bucket<C>),
    /// In a store that a fleet shares.
    Shared(Arc<SharedQuota>),
}

/// A quota of which only the store knows whether it is used up, and what is to be taken from it.
#[derive(Debug)]
struct Unknown<'a> {
    quota: &'a Arc<SharedQuota>,
    weight: NonZeroU32,
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

impl Limiter {
    /// The quotas that `config` gives. What is shared is asked for on `runtime`; nobody is asked
    /// yet.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]. A store that is down is none.
    pub fn new(config: &Config, runtime: Handle) -> Result<Self, OpenError> {
        let shared = match &config.rate_limit.store {
            QuotaStore::Memory => None,
            QuotaStore::Redis { url, ca_file, on_error } => {
                let store = Store::open(url, ca_file.as_deref(), *on_error, runtime)?;
                let (store, quotas) = (Arc::new(store), Quotas::default());
                Some(Shared { store, on_error: *on_error, quotas })
            }
        };
        Ok(Self::build(config, &MonotonicClock, shared, None))
    }

    /// The quotas that `config` gives from now on. What stays is taken over: used up as it is, with
    /// its waiting fleet, and with all that was counted. Who waits, waits on where it does.
    #[must_use]
    pub fn under(&self, config: &Config) -> Self {
        let mut shared = self.shared.clone();
        if let (Some(shared), QuotaStore::Redis { on_error, .. }) =
            (&mut shared, &config.rate_limit.store)
        {
            shared.on_error = *on_error;
        }
        Self::build(config, &MonotonicClock, shared, Some(self))
    }

    /// These quotas are in force.
    pub fn take_over(&self) {
        if let Some(shared) = &self.shared {
            shared.store.set_on_error(shared.on_error);
        }
    }
}

impl<C: Clock + Clone> Limiter<C> {
    fn build(config: &Config, clock: &C, shared: Option<Shared>, before: Option<&Self>) -> Self {
        let known: HashMap<_, _> = before
            .into_iter()
            .flat_map(Self::quotas)
            .map(|quota| ((quota.terms.scope, &*quota.name), quota))
            .collect();
        let quota = |scope, name: &str, rate: Option<Rate>, burst: Option<NonZeroU32>| {
            let terms = Terms::new(scope, rate?, burst);
            // One of another size begins as a new one does.
            let known = known.get(&(scope, name)).filter(|known| known.terms == terms);
            Some(known.map_or_else(
                || {
                    let kept = match &shared {
                        None => Kept::Local(Bucket::new(terms, clock.clone())),
                        Some(Shared { store, quotas, .. }) => {
                            Kept::Shared(quotas.keep(SharedQuota::new(store, name, terms)))
                        }
                    };
                    Arc::new(Quota { name: name.into(), terms, kept })
                },
                |known| Arc::clone(known),
            ))
        };
        let under_way = |caller: &config::Caller| {
            let before = before.into_iter().flat_map(|before| before.concurrent.iter().flatten());
            let mut before = before.filter(|known| known.caller == caller.name);
            let number = before.next().map(|known| Arc::clone(&known.number)).unwrap_or_default();
            let most = caller.max_concurrent?.get();
            Some(UnderWay { caller: Arc::clone(&caller.name), number, most })
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
                .map(|caller| quota(Scope::Caller, &caller.name, caller.rate, caller.burst))
                .collect(),
            identities: (config.identities.iter())
                .map(|identity| quota(Scope::Identity, &identity.name, limits.per_identity, None))
                .collect(),
            global: quota(Scope::Global, "", limits.global, None),
            patterns: (limits.routes.iter())
                .map(|limit| {
                    quota(Scope::Route, &limit.pattern.to_string(), limit.rate, limit.burst)
                })
                .collect(),
            routes: Catalogue::get().routes().iter().map(share).collect(),
            concurrent: config.callers.iter().map(under_way).collect(),
            queue: Arc::new(before.map_or_else(Queue::default, |before| before.queue.another())),
            refusals: before.map(|before| Arc::clone(&before.refusals)).unwrap_or_default(),
            mode: limits.mode,
            shared,
        }
    }

    fn quotas(&self) -> impl Iterator<Item = &Arc<Quota<C>>> {
        let all = self.callers.iter().chain(&self.identities).chain(&self.patterns);
        all.flatten().chain(&self.global)
    }

    /// What was refused; counted by whoever refuses.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Counts one more request of the caller at that position as under way; `None` if it has as
    /// many as it may.
    pub fn enter(&self, caller: usize) -> Option<Option<Permit>> {
        let Some(Some(UnderWay { number, most, .. })) = self.concurrent.get(caller) else {
            return Some(None);
        };
        let entered = number.fetch_update(AcqRel, Acquire, |now| (now < *most).then_some(now + 1));
        entered.ok().map(|_| Some(Permit(Arc::clone(number))))
    }

    /// Takes what is left to take; stops at the first quota that is used up, or of which only the
    /// store knows.
    fn go_on(&self, claim: &mut Claim) -> Result<Decision, Unknown<'_>> {
        let share = claim.route.and_then(|route| self.routes.get(route));
        let weight = share.map_or(NonZeroU32::MIN, |share| share.weight);
        let patterns = share.into_iter().flat_map(|share| &share.patterns);
        let patterns = patterns.filter_map(|at| self.patterns.get(*at)?.as_ref());
        let patterns = patterns.map(|quota| (quota, NonZeroU32::MIN));
        let own = self.callers.get(claim.caller).and_then(Option::as_ref);
        let identity = self.identities.get(claim.identity).and_then(Option::as_ref);
        let others = [own, identity, self.global.as_ref()].into_iter().flatten();
        let all = patterns.chain(others.map(|quota| (quota, weight)));
        for (quota, weight) in all.skip(claim.passed) {
            let decision = match &quota.kept {
                Kept::Local(bucket) => bucket.take(weight),
                Kept::Shared(quota) => match quota.take(weight) {
                    Some(decision) => decision,
                    None => return Err(Unknown { quota, weight }),
                },
            };
            if !claim.passes(decision) {
                return Ok(decision);
            }
        }
        Ok(claim.told.map_or(Decision::Unlimited, Decision::Granted))
    }

    /// Waits for what only the store knows, and takes what is left to take. All waiting for the
    /// store together is bounded.
    async fn ask(&self, claim: Claim, unknown: Unknown<'_>) -> (Claim, Decision) {
        let deadline = Instant::now() + shared::PATIENCE;
        let (mut claim, mut unknown) = (claim, unknown);
        loop {
            let decision = unknown.quota.wait(unknown.weight, deadline).await;
            if !claim.passes(decision) {
                return (claim, decision);
            }
            match self.go_on(&mut claim) {
                Ok(decision) => return (claim, decision),
                Err(other) => unknown = other,
            }
        }
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

    /// Takes one request for `route` from the quotas of the caller and the identity at those
    /// positions; where that is wanted, waits its turn rather than be refused. What is not in the
    /// catalogue counts once.
    pub async fn pass(
        self: &Arc<Self>,
        caller: usize,
        identity: usize,
        route: Option<&Route>,
    ) -> Decision {
        let mut claim = Claim::new(caller, identity, route);
        let LimitMode::Wait(patience) = self.mode else {
            return match self.go_on(&mut claim) {
                Ok(decision) => decision,
                // Boxed, so that a request which need not wait has no room for it.
                Err(unknown) => Box::pin(self.ask(claim, unknown)).await.1,
            };
        };
        // Whoever comes while others wait does not go before them.
        let refused = if self.queue.waiting() == 0 {
            let decision = match self.go_on(&mut claim) {
                Ok(decision) => decision,
                Err(unknown) => {
                    let decision;
                    (claim, decision) = Box::pin(self.ask(claim, unknown)).await;
                    decision
                }
            };
            match decision {
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

    /// How the store fares, if a fleet shares the quotas.
    pub fn store(&self) -> Option<Status> {
        self.shared.as_ref().map(|shared| shared.store.status())
    }

    /// Keeps what is shared in order until `stop` is cancelled, and gives back what is left then;
    /// also for all limiters that take over from this one.
    pub fn keep(&self, stop: CancellationToken) -> impl Future<Output = ()> + Send + use<> {
        let shared = self.shared.clone();
        async move {
            if let Some(Shared { store, quotas, .. }) = shared {
                shared::keep(&store, &quotas, stop).await;
            }
        }
    }
}

impl Claim {
    fn new(caller: usize, identity: usize, route: Option<&Route>) -> Self {
        Self { caller, identity, route: route.map(|route| route.index), passed: 0, told: None }
    }

    /// Counts a quota as passed if it is, by that decision.
    #[inline]
    fn passes(&mut self, decision: Decision) -> bool {
        match decision {
            Decision::Granted(standing) => self.tell(standing),
            Decision::Unlimited => {}
            Decision::Refused { .. } | Decision::Unreachable { .. } => return false,
        }
        self.passed += 1;
        true
    }

    /// A caller is told of its own quota rather than of those that it shares.
    #[inline]
    fn tell(&mut self, standing: Standing) {
        let is_own = standing.scope == Scope::Caller;
        if is_own || self.told.is_none_or(|told| told.scope == Scope::Route) {
            self.told = Some(standing);
        }
    }
}

#[cfg(test)]
mod tests;
