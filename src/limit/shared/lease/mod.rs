//! What one gateway holds of a shared quota: requests that it may let pass without asking. Decides
//! alone; whoever talks to the store stands outside.

#[cfg(test)]
mod tests;

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use super::{super::decision::Terms, gcra::Gcra, usage::Usage};

/// What is not used for so long is given back.
const HELD: Duration = Duration::from_millis(100);
/// That a quota is used up is believed for so long: somebody may give something back.
const BELIEVED: Duration = Duration::from_millis(250);
/// A quota that is used up is left alone for so long, or for an eighth of the time in which it fills
/// up: what comes back meanwhile is not lost.
const REST: Duration = Duration::from_millis(5);

/// The lease on one quota.
#[derive(Debug)]
pub(super) struct Lease {
    terms: Terms,
    /// Requests that may pass.
    held: u32,
    /// What was granted last; and, where some of it is older, when by Redis' clock it was granted.
    last: Option<Granted>,
    older_since: u64,
    /// What the store said last.
    told: Option<Told>,
    used: Usage,
    /// What is given out while the store cannot be asked.
    alone: Option<Gcra>,
}

#[derive(Clone, Copy, Debug)]
struct Granted {
    count: u32,
    /// By Redis' clock.
    since: u64,
    at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    at: Instant,
    /// The quota then. Others have taken since, so it is never better than this, unless they have
    /// given back.
    quota: Gcra,
    remaining: u32,
    rests_until: Instant,
}

/// What became of one request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Taken {
    /// It may pass; so many remain.
    Granted(u32),
    /// It may not, and the next one may after so long.
    Refused(Duration),
    /// Only the store knows.
    Unknown,
}

/// What those who wait for the store want.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Demand {
    /// All of them together.
    pub(super) all: u32,
    /// Whoever wants least.
    pub(super) least: u32,
}

/// What is to be asked of the store.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Order {
    /// Less than that is of no use.
    pub(super) needed: u32,
    pub(super) wanted: u32,
    /// So much is given back, which was granted at a time by Redis' clock, or later.
    pub(super) returned: u32,
    pub(super) since: u64,
}

/// What the store answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Answer {
    pub(super) taken: u32,
    /// How far the quota is ahead of its rate now.
    pub(super) ahead: Duration,
    /// What time it is by Redis' clock, in µs.
    pub(super) now: u64,
}

impl Lease {
    pub(super) fn new(terms: Terms, now: Instant) -> Self {
        let (held, last, older_since, told, alone) = (0, None, 0, None, None);
        Self { terms, held, last, older_since, told, used: Usage::new(now), alone }
    }

    /// Lets a request of that weight pass if it is held, without asking.
    pub(super) fn take(&mut self, now: Instant, weight: u32) -> Taken {
        if let Some(held) = self.held.checked_sub(weight) {
            self.held = held;
            self.used.add(now, weight);
            let remaining = self.told.map_or(0, |told| told.remaining);
            return Taken::Granted(remaining.saturating_add(held));
        }
        self.refusal(now, weight).map_or(Taken::Unknown, Taken::Refused)
    }

    /// How long a request of that weight has to wait, if the store need not be asked for that.
    pub(super) fn refusal(&self, now: Instant, weight: u32) -> Option<Duration> {
        let told = self.told.filter(|told| now < told.at + BELIEVED)?;
        // Whoever asks may have looked at the clock before the answer came.
        let now = now.max(told.at);
        let wait = told.quota.wait(now, weight.saturating_sub(self.held));
        let wait = wait.max(told.rests_until.saturating_duration_since(now));
        (!wait.is_zero()).then_some(wait)
    }

    /// What to ask of the store, of which there are so many users: what is wanted, and what will
    /// soon be.
    pub(super) fn order(&self, now: Instant, members: u32, demand: Demand) -> Option<Order> {
        let ahead = self.ahead(now, members);
        let short = demand.all.saturating_sub(self.held);
        if short > 0 {
            let needed = demand.least.saturating_sub(self.held).max(1);
            let wanted = short.saturating_add(ahead);
            return Some(Order { needed, wanted, ..Order::default() });
        }
        let is_low = ahead > 0
            && self.held <= ahead / 2
            && self.refusal(now, self.held.saturating_add(1)).is_none();
        let wanted = ahead.saturating_sub(self.held);
        is_low.then_some(Order { needed: 1, wanted, ..Order::default() })
    }

    /// Takes what the store has answered to `order` into account.
    pub(super) fn answered(&mut self, now: Instant, order: Order, answer: Answer) {
        let Terms { interval, burst, .. } = self.terms;
        let quota = Gcra::new(interval, burst, answer.ahead, now);
        let is_used_up = answer.taken < order.wanted;
        let rest = if is_used_up { REST.min(self.terms.window() / 8) } else { Duration::ZERO };
        let remaining = quota.free(now);
        self.told = Some(Told { at: now, quota, remaining, rests_until: now + rest });
        self.alone = None;
        if answer.taken > 0 {
            self.older_since = self.oldest_since().unwrap_or(answer.now);
            self.last = Some(Granted { count: answer.taken, since: answer.now, at: now });
            self.held = self.held.saturating_add(answer.taken);
        }
    }

    /// Lets go of what has not been used for a while; it is to be given back.
    pub(super) fn spare(&mut self, now: Instant) -> Option<Order> {
        let is_due = self.last.is_some_and(|last| now >= last.at + HELD);
        let keep = if is_due { self.used.soon(now) } else { self.held };
        self.let_go(keep)
    }

    /// Lets go of everything but so many.
    pub(super) fn let_go(&mut self, keep: u32) -> Option<Order> {
        let since = self.oldest_since()?;
        let returned = self.held.checked_sub(keep).filter(|spare| *spare > 0)?;
        self.held -= returned;
        Some(Order { returned, since, ..Order::default() })
    }

    /// As [`Lease::take`], while there is no store: from this gateway's share of the quota.
    pub(super) fn take_alone(&mut self, now: Instant, members: u32, weight: NonZeroU32) -> Taken {
        let alone = self.alone.get_or_insert_with(|| share(self.terms, self.told, now, members));
        let weight = weight.min(share_of(self.terms.burst, members));
        if alone.take(now, weight.get()) {
            Taken::Granted(alone.free(now))
        } else {
            Taken::Refused(alone.wait(now, weight.get()))
        }
    }

    /// How much is to be held in advance: what is used meanwhile, unless that is nearly nothing; and
    /// never so much that all gateways together hold more than half a burst.
    fn ahead(&self, now: Instant, members: u32) -> u32 {
        let soon = self.used.soon(now);
        let most = self.terms.burst.get() / members.max(1).saturating_mul(2);
        if soon < 2 { 0 } else { soon.min(most.max(1)) }
    }

    /// When the oldest of what is held was granted: it is used first.
    fn oldest_since(&self) -> Option<u64> {
        let last = self.last.filter(|_| self.held > 0)?;
        Some(if self.held <= last.count { last.since } else { self.older_since })
    }
}

/// The share of one of so many, as full as the whole was when it was last heard of.
fn share(terms: Terms, told: Option<Told>, now: Instant, members: u32) -> Gcra {
    let members = members.max(1);
    let burst = share_of(terms.burst, members);
    let free = told.map_or(terms.burst.get(), |told| told.quota.free(now)).div_ceil(members);
    let interval = terms.interval.saturating_mul(members);
    let ahead = interval.saturating_mul(burst.get().saturating_sub(free));
    Gcra::new(interval, burst, ahead, now)
}

/// At least one.
fn share_of(burst: NonZeroU32, members: u32) -> NonZeroU32 {
    NonZeroU32::new(burst.get() / members.max(1)).unwrap_or(NonZeroU32::MIN)
}
