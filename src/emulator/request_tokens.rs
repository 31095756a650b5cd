//! Request tokens: good for one minute, and once.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use super::{answer::Refusal, clock::elapsed, options::Spent, users::random, world::World};

const TTL: Duration = Duration::from_secs(60);
/// Bounds what callers can make the emulator remember.
const MOST: usize = 65_536;

/// The request tokens of the last minutes.
#[derive(Default)]
pub(super) struct RequestTokens(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// When each was minted, and whether it is spent.
    known: HashMap<String, (SystemTime, bool)>,
    /// The same by age, so that old ones can go.
    by_age: VecDeque<(String, SystemTime)>,
}

impl RequestTokens {
    /// Mints one.
    pub(super) fn mint(&self, world: &World) -> String {
        let (now, token) = (world.age(), random());
        let mut inner = self.lock();
        // An expired token is known for a while, so that its reuse is counted.
        let old = |inner: &Inner| {
            let oldest = inner.by_age.front();
            oldest.is_some_and(|(_, at)| elapsed(*at, now) > TTL * 2)
        };
        while inner.by_age.len() >= MOST || old(&inner) {
            let Some((oldest, _)) = inner.by_age.pop_front() else { break };
            inner.known.remove(&oldest);
        }
        inner.by_age.push_back((token.clone(), now));
        inner.known.insert(token.clone(), (now, false));
        world.stats.minted.add(1);
        token
    }

    /// Takes one for an attempt.
    pub(super) fn redeem(&self, world: &World, token: &str) -> Result<(), Refusal> {
        match self.lock().known.get_mut(token) {
            None => Err(Refusal::code("TOKEN", "The request token is not known.")),
            Some((_, true)) => {
                world.stats.reused.add(1);
                Err(Refusal::code("TOKEN", "The request token was used before."))
            }
            Some((at, _)) if elapsed(*at, world.age()) > TTL => {
                Err(Refusal::code("TOKEN", "The request token expired."))
            }
            Some((_, spent)) => {
                *spent = world.options.request_token_spent == Spent::ByUse;
                Ok(())
            }
        }
    }

    /// Notes that a call has succeeded with one.
    pub(super) fn spend(&self, token: &str) {
        if let Some((_, spent)) = self.lock().known.get_mut(token) {
            *spent = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
