//! Quotas that a fleet shares in a Redis or Valkey.
//!
//! The truth is a leaky bucket in Redis (`take.lua`). No request asks it: a gateway holds a
//! [`Lease`] of a few requests, about as many as it lets pass in 50 ms, fetches the next ones before
//! those are used up, and gives back what it has not used for 100 to 200 ms. Only who finds nothing
//! held waits for the answer, at most for [`PATIENCE`]; that a quota is used up is remembered.
//!
//! # How exact that is
//!
//! With `members` gateways, each holds at most `lease = max(1, burst / (2 × members))` of a quota,
//! and at most what it used in one of the last two windows of 50 ms. How many members there are, a
//! gateway hears each second.
//!
//! - Too much: what passes in a time `t` was granted in it, or was held when it began. That is at
//!   most `burst + rate × t + members × lease`, so half a burst more than in one process (or one
//!   request for each member, if that is more), and no more than `rate × 0.2 s` more in any case.
//! - Too little: what others hold, `(members - 1) × lease`, for 200 ms at most. What a gateway holds
//!   that crashes counts as used.
//! - While Redis is away and each gives out its share: shares are rounded down, but to one request
//!   at least, and begin as full as the quota was known to be. A Redis that comes back empty has
//!   forgotten what was used: one burst.

mod gcra;
mod lease;
#[cfg(test)]
mod model;
mod quotas;
mod store;
#[cfg(test)]
mod tests;
mod usage;

use std::{
    collections::VecDeque,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, time::timeout_at};

use self::lease::{Demand, Lease, Order, Taken};
pub use self::store::{OpenError, Status};
pub(super) use self::{
    quotas::{Quotas, keep},
    store::Store,
};
use super::decision::{Decision, Terms};
use crate::config::QuotaStoreError;

/// How long the store may take to answer, and a request may wait for it. Then it counts as away.
pub(super) const PATIENCE: Duration = Duration::from_millis(250);
/// Requests that may wait for the store to answer about one quota.
const MOST: usize = 10_000;
/// When to come again where nobody knows.
const LATER: Duration = Duration::from_secs(1);

/// One quota, as one gateway sees it.
#[derive(Debug)]
pub(super) struct SharedQuota {
    terms: Terms,
    key: String,
    store: Arc<Store>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    lease: Lease,
    /// Those who found nothing held, in the order in which they came.
    waiting: VecDeque<Waiter>,
    /// What somebody wants who comes again instead of waiting.
    wanted: u32,
    /// The store is being asked.
    is_asking: bool,
}

#[derive(Debug)]
struct Waiter {
    weight: NonZeroU32,
    answer: oneshot::Sender<Decision>,
}

/// Whoever asks the store.
struct Asking<'a> {
    quota: &'a SharedQuota,
    goes_on: bool,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if self.goes_on {
            // It has died: whoever wants something next has the store asked again.
            self.quota.lock().is_asking = false;
        }
    }
}

impl SharedQuota {
    /// The quota that all who name it so and give it the same size share in `store`.
    pub(super) fn new(store: &Arc<Store>, name: &str, terms: Terms) -> Arc<Self> {
        let (scope, interval) = (terms.scope.name(), terms.interval.as_nanos());
        Arc::new(Self {
            key: format!("amove-gateway:limit:{scope}:{interval}:{}:{name}", terms.burst),
            terms,
            store: Arc::clone(store),
            state: Mutex::new(State {
                lease: Lease::new(terms, Instant::now()),
                waiting: VecDeque::new(),
                wanted: 0,
                is_asking: false,
            }),
        })
    }

    /// Takes a request of that weight; `None`: the store is being asked. Does not wait.
    pub(super) fn take(self: &Arc<Self>, weight: NonZeroU32) -> Option<Decision> {
        let (now, weight) = (Instant::now(), self.terms.share(weight));
        let mut state = self.lock();
        let decision = self.decide(&mut state, now, weight);
        if decision.is_none() {
            state.wanted = state.wanted.max(weight.get());
        }
        let is_low = || state.lease.order(now, self.store.members(), Demand::default()).is_some();
        if decision.is_none() || (!state.is_asking && self.store.is_up() && is_low()) {
            self.ask(&mut state);
        }
        decision
    }

    /// The same, and waits until the store has answered, or the deadline has come.
    pub(super) async fn wait(
        self: &Arc<Self>,
        weight: NonZeroU32,
        deadline: tokio::time::Instant,
    ) -> Decision {
        let weight = self.terms.share(weight);
        let answered = {
            let mut state = self.lock();
            if let Some(decision) = self.decide(&mut state, Instant::now(), weight) {
                return decision;
            }
            if state.waiting.len() >= MOST {
                self.store.counts.turned_away.fetch_add(1, Relaxed);
                return self.terms.refused(LATER);
            }
            let (answer, answered) = oneshot::channel();
            state.waiting.push_back(Waiter { weight, answer });
            self.ask(&mut state);
            answered
        };
        match timeout_at(deadline, answered).await {
            Ok(Ok(decision)) => decision,
            // Too late, or the process ends.
            Err(_) | Ok(Err(_)) => self.decide_alone(&mut self.lock(), Instant::now(), weight),
        }
    }

    /// Decides without the store, unless it is to be asked.
    fn decide(&self, state: &mut State, now: Instant, weight: NonZeroU32) -> Option<Decision> {
        let taken = if state.waiting.is_empty() {
            state.lease.take(now, weight.get())
        } else {
            // Nobody goes before those who wait.
            state.lease.refusal(now, weight.get()).map_or(Taken::Unknown, Taken::Refused)
        };
        match taken {
            Taken::Granted(remaining) => Some(self.terms.granted(remaining)),
            Taken::Refused(wait) => Some(self.terms.refused(wait)),
            Taken::Unknown if self.store.is_up() => None,
            Taken::Unknown => Some(self.decide_alone(state, now, weight)),
        }
    }

    /// Decides where the store cannot be asked.
    fn decide_alone(&self, state: &mut State, now: Instant, weight: NonZeroU32) -> Decision {
        match self.store.on_error() {
            QuotaStoreError::Allow => Decision::Unlimited,
            QuotaStoreError::Deny => Decision::Unreachable { retry_after: LATER },
            QuotaStoreError::Local => {
                match state.lease.take_alone(now, self.store.members(), weight) {
                    Taken::Granted(remaining) => self.terms.granted(remaining),
                    Taken::Refused(wait) => self.terms.refused(wait),
                    Taken::Unknown => self.terms.refused(LATER),
                }
            }
        }
    }

    /// Sees to it that the store is asked.
    fn ask(self: &Arc<Self>, state: &mut State) {
        if !std::mem::replace(&mut state.is_asking, true) {
            self.store.runtime.spawn(Arc::clone(self).asks());
        }
    }

    /// Asks the store until nobody wants anything more of it.
    async fn asks(self: Arc<Self>) {
        let mut asking = Asking { quota: &self, goes_on: true };
        while let Some((order, asked_for)) = self.next_order() {
            let answer = self.store.take(&self.key, &self.terms, &order).await;
            let now = Instant::now();
            let mut state = self.lock();
            if let Some(answer) = answer {
                state.lease.answered(now, order, answer);
                self.serve(&mut state, now, asked_for);
            }
        }
        asking.goes_on = false;
    }

    /// What to ask next, and for how many of those who wait.
    fn next_order(&self) -> Option<(Order, usize)> {
        let mut state = self.lock();
        let now = Instant::now();
        state.waiting.retain(|waiter| !waiter.answer.is_closed());
        self.serve(&mut state, now, 0);
        let weights = state.waiting.iter().map(|waiter| waiter.weight.get());
        let all = weights.clone().fold(0, u32::saturating_add);
        let least = weights.min().unwrap_or(state.wanted);
        let demand = Demand { all: all.max(state.wanted), least };
        state.wanted = 0;
        let members = self.store.members();
        let order = state.lease.order(now, members, demand);
        // Whoever still waits is not forgotten if it has just gone away.
        let order = order.filter(|_| self.store.is_up() || !state.waiting.is_empty());
        state.is_asking = order.is_some();
        Some((order?, state.waiting.len()))
    }

    /// Tells those who wait what has become of them; the first of them were `asked_for`.
    fn serve(&self, state: &mut State, now: Instant, asked_for: usize) {
        let mut asked_for = asked_for;
        while let Some(weight) = state.waiting.front().map(|waiter| waiter.weight) {
            let decision = match state.lease.take(now, weight.get()) {
                Taken::Granted(remaining) => self.terms.granted(remaining),
                Taken::Refused(wait) => self.terms.refused(wait),
                Taken::Unknown if !self.store.is_up() => self.decide_alone(state, now, weight),
                Taken::Unknown if asked_for > 0 => self.terms.refused(self.terms.interval),
                Taken::Unknown => return,
            };
            asked_for = asked_for.saturating_sub(1);
            if let Some(waiter) = state.waiting.pop_front() {
                // What somebody got who has left is used up.
                let _ = waiter.answer.send(decision);
            }
        }
    }

    /// Gives back what is not used.
    async fn give_back(&self, order: Order) {
        if !self.store.is_up() {
            return;
        }
        if let Some(answer) = self.store.take(&self.key, &self.terms, &order).await {
            self.lock().lease.answered(Instant::now(), order, answer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
