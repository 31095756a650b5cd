//! When the API wants to be left alone: which of our requests it does not want, and until when.
//!
//! With 429 it means one identity at one host, with 503 everybody at that host. It is believed for
//! at most a minute: a mistake of theirs must not keep us away for a day. Whoever comes first after
//! that finds out whether it was meant, while the others stay away a little longer.

mod counts;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
    },
    time::Duration,
};

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use self::counts::Counters;
pub use self::counts::Counts;
use crate::{
    amove::{host::Host, retry_after},
    clock::Clock,
};

/// The longest pause that is believed.
const CAP: Duration = Duration::from_secs(60);
/// How long whoever finds out has, before the next one may.
const TRIAL: Duration = Duration::from_secs(5);
/// Requests that may wait for the end of a pause: they hold memory and connections.
const ROOM: usize = 1_000;

/// Why the API wants a pause.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// 429: too many requests of one identity.
    Quota,
    /// 503: the host cannot serve anybody.
    Unavailable,
}

impl Reason {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Quota, Self::Unavailable];

    /// Its name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quota => "quota",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What an answer asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Wish {
    /// Why.
    pub reason: Reason,
    /// For how long; never zero.
    pub pause: Duration,
}

impl Wish {
    /// What an answer with this status and these header fields asks for, if anything.
    pub fn of(status: StatusCode, headers: &HeaderMap, clock: &Clock) -> Option<Self> {
        // Most answers end here.
        Reason::of(status)?;
        Self::new(status, retry_after::read(headers, clock.now())?)
    }

    /// What a status with this `Retry-After` asks for, if anything.
    pub fn new(status: StatusCode, pause: Duration) -> Option<Self> {
        let reason = Reason::of(status)?;
        (!pause.is_zero()).then_some(Self { reason, pause })
    }
}

impl Reason {
    fn of(status: StatusCode) -> Option<Self> {
        match status {
            StatusCode::TOO_MANY_REQUESTS => Some(Self::Quota),
            StatusCode::SERVICE_UNAVAILABLE => Some(Self::Unavailable),
            _ => None,
        }
    }
}

/// All pauses. Hosts and identities are few, so there are never many.
#[derive(Debug, Default)]
pub struct Pauses {
    state: Arc<State>,
    /// Of each identity, the number that it has as long as it stays, whatever its position; those
    /// beyond have their position.
    numbers: Vec<usize>,
}

/// What outlives a configuration.
#[derive(Debug, Default)]
struct State {
    /// Whether there is any: all that a request asks while there is none.
    any: AtomicBool,
    /// Numbers below this one have been given to identities.
    next_number: AtomicUsize,
    book: Mutex<Book>,
    waiting: AtomicUsize,
    counters: Counters,
}

/// Whom a pause is for: a host, and one identity (by its number) or everybody.
type Whom = (Host, Option<usize>);

#[derive(Debug, Default)]
struct Book {
    pauses: HashMap<Whom, Pause>,
    /// How many have been written down.
    written: u64,
}

#[derive(Clone, Copy, Debug)]
struct Pause {
    reason: Reason,
    /// Its end, as far as we believe it.
    until: Instant,
    /// How it ends.
    end: End,
    /// Its place among all that were written down.
    number: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    /// As the API has said.
    Told,
    /// Earlier than that: somebody has to find out.
    Doubted,
    /// Somebody is finding out.
    Tried,
}

/// A request that must not be sent yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Held {
    /// Why.
    pub reason: Reason,
    /// How long it must not.
    pub left: Duration,
}

/// One pause, for those who look on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InForce {
    /// Which host wants it.
    pub host: Host,
    /// The position of the identity that it is for; `None`: for everybody.
    pub identity: Option<usize>,
    /// Why.
    pub reason: Reason,
    /// How long it still lasts.
    pub left: Duration,
}

/// A request that finds out whether a pause is over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Trial {
    identity: usize,
    host: Host,
    /// Of the last pause that was written down before.
    number: u64,
}

/// A place among those who wait; given back when it is dropped.
#[derive(Debug)]
pub struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, AcqRel);
    }
}

impl Pauses {
    /// The same pauses for other identities: of each, the position that it had, if it was there.
    #[must_use]
    pub fn under(&self, identities: &[Option<usize>]) -> Self {
        let known =
            self.numbers.len().max(identities.iter().flatten().map(|at| at + 1).max().unwrap_or(0));
        let highest = (0..known).map(|at| self.number(at) + 1).max().unwrap_or(0);
        self.state.next_number.fetch_max(highest, AcqRel);
        let number = |before: &Option<usize>| match before {
            Some(before) => self.number(*before),
            None => self.state.next_number.fetch_add(1, AcqRel),
        };
        let numbers = identities.iter().map(number).collect();
        Self { state: Arc::clone(&self.state), numbers }
    }

    fn number(&self, identity: usize) -> usize {
        self.numbers.get(identity).copied().unwrap_or(identity)
    }

    /// Whether there is any pause, whomever it is for.
    pub fn any(&self) -> bool {
        self.state.any.load(Relaxed)
    }

    /// Whether a request of `identity` may be sent to `host`, and whether it has to find something
    /// out.
    ///
    /// # Errors
    ///
    /// [`Held`]: it must not be sent yet.
    pub fn check(&self, identity: usize, host: Host, now: Instant) -> Result<Option<Trial>, Held> {
        if !self.any() {
            return Ok(None);
        }
        let mut book = self.book();
        book.pauses.retain(|_, pause| !pause.is_past(now));
        self.state.any.store(!book.pauses.is_empty(), Relaxed);
        let whom = [(host, None), (host, Some(self.number(identity)))];
        let in_force = whom.iter().filter_map(|whom| book.pauses.get(whom));
        let in_force = in_force.filter(|pause| pause.until > now);
        if let Some(pause) = in_force.max_by_key(|pause| pause.until) {
            return Err(Held { reason: pause.reason, left: pause.until - now });
        }
        let number = book.written;
        let mut trial = None;
        for whom in whom {
            if let Some(pause) = book.pauses.get_mut(&whom) {
                (pause.until, pause.end) = (now + TRIAL, End::Tried);
                trial = Some(Trial { identity, host, number });
            }
        }
        Ok(trial)
    }

    /// The host has answered a request of `identity` with `wish`. Whether that is the beginning of
    /// a pause.
    pub fn ask(&self, identity: usize, host: Host, wish: Wish, now: Instant) -> bool {
        let whom = match wish.reason {
            Reason::Quota => (host, Some(self.number(identity))),
            Reason::Unavailable => (host, None),
        };
        let end = if wish.pause > CAP { End::Doubted } else { End::Told };
        let until = now + wish.pause.min(CAP);
        let mut book = self.book();
        book.written += 1;
        let number = book.written;
        let before = book.pauses.get(&whom).copied();
        // Answers overtake each other: the pause is as long as the longest says. What comes of a
        // trial counts whatever was said before.
        let before = before.filter(|pause| pause.until > now && pause.end != End::Tried);
        let pause = match before {
            Some(pause) if pause.until >= until => Pause { number, ..pause },
            _ => Pause { reason: wish.reason, until, end, number },
        };
        book.pauses.insert(whom, pause);
        self.state.any.store(true, Relaxed);
        drop(book);
        if before.is_none() {
            self.state.counters.begun.add(host, wish.reason);
        }
        before.is_none()
    }

    /// Whoever found out was answered, and not with a wish: the pause is over for all.
    pub fn lift(&self, trial: &Trial) {
        let mut book = self.book();
        let number = self.number(trial.identity);
        for whom in [(trial.host, None), (trial.host, Some(number))] {
            if book.pauses.get(&whom).is_some_and(|pause| pause.number <= trial.number) {
                book.pauses.remove(&whom);
            }
        }
        self.state.any.store(!book.pauses.is_empty(), Relaxed);
    }

    /// Those that are in force, longest first; not those of identities that are gone.
    pub fn in_force(&self, now: Instant) -> Vec<InForce> {
        let book = self.book();
        let in_force = book.pauses.iter().filter(|(_, pause)| pause.until > now);
        let mut in_force: Vec<_> = in_force
            .filter_map(|((host, number), pause)| {
                let identity = match number {
                    Some(number) => Some(self.position(*number)?),
                    None => None,
                };
                let (reason, left) = (pause.reason, pause.until - now);
                Some(InForce { host: *host, identity, reason, left })
            })
            .collect();
        in_force.sort_by_key(|pause| std::cmp::Reverse(pause.left));
        in_force
    }

    /// Where the identity with that number is now.
    fn position(&self, number: usize) -> Option<usize> {
        let position = self.numbers.iter().position(|known| *known == number);
        position.or_else(|| self.numbers.is_empty().then_some(number))
    }

    /// A place to wait for the end of a pause; `None` if there are too many who wait.
    pub fn place(&self) -> Option<Place<'_>> {
        let waiting = &self.state.waiting;
        let taken = waiting
            .fetch_update(AcqRel, Acquire, |waiting| (waiting < ROOM).then_some(waiting + 1));
        taken.ok().map(|_| Place(waiting))
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.state.waiting.load(Relaxed)
    }

    /// Counts a request that was refused.
    pub fn refused(&self, host: Host, reason: Reason) {
        self.state.counters.refused.add(host, reason);
    }

    /// Counts a request that has waited and may go on.
    pub fn waited(&self, host: Host, reason: Reason) {
        self.state.counters.waited.add(host, reason);
    }

    /// What was counted: one of each for every host and reason.
    pub fn counts(&self) -> impl Iterator<Item = Counts> {
        self.state.counters.read()
    }

    /// Nothing can panic while the lock is held.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.state.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pause {
    /// Whether it need not be known any more. If nobody has come to find out, there is nobody to be
    /// held back either.
    fn is_past(&self, now: Instant) -> bool {
        match self.end {
            End::Told => self.until <= now,
            End::Doubted | End::Tried => self.until + CAP <= now,
        }
    }
}

#[cfg(test)]
mod tests;
