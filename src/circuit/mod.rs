//! Whether a host of the API is well enough to be asked: one circuit for each.
//!
//! ```text
//!            so many failures in a row                     cool-down over
//!   closed ────────────────────────────▶ open ─────────────────────────────▶ half-open
//!     ▲                                   ▲   a longer one, if its probe fails   │ │
//!     │                                   └──────────────────────────────────────┘ │
//!     └──────────────────────── its probe succeeds ◀──────────────────────────────┘
//! ```
//!
//! What is found out by a request that was sent before the circuit last opened or closed counts for
//! nothing: it tells how the host was, not how it is.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    amove::host::Host,
    config::{self, BaseUrl},
};

#[cfg(test)]
mod tests;

/// No cool-down grows beyond this by failing probes.
const LONGEST: Duration = Duration::from_secs(60);
/// How long a probe has, before another one may go: it may be a large body that is still sent.
const PROBE: Duration = Duration::from_secs(10);

/// One circuit for each host.
#[derive(Debug)]
pub struct Circuits([Circuit; Host::ALL.len()]);

/// Whether one host may be asked. All workers share what it knows, and so do configurations.
#[derive(Debug)]
pub struct Circuit {
    base: BaseUrl,
    /// Failures in a row that open it; 0: nothing does.
    failures: usize,
    cooldown: Duration,
    state: Arc<State>,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct State {
    /// The mood, and above it the generation: all that a request asks while the host is well.
    word: AtomicU64,
    book: Mutex<Book>,
}

/// No failure is known.
const WELL: u64 = 0;
/// The last requests failed, but too few of them.
const DOUBTED: u64 = 1;
/// Open or half-open.
const OPEN: u64 = 2;
/// The bits of the mood.
const MOOD: u32 = 2;

/// What has to be known once the host is not well.
#[derive(Debug, Default)]
struct Book {
    /// How often it has opened and closed.
    generation: u64,
    /// In a row, while it is closed.
    failures: usize,
    /// How often it has opened since it was last closed.
    openings: u32,
    phase: Phase,
    probes: u64,
}

#[derive(Clone, Copy, Debug, Default)]
enum Phase {
    #[default]
    Closed,
    Open {
        until: Instant,
    },
    Probing {
        number: u64,
        /// When another probe may go.
        until: Instant,
        /// When the cool-down was over.
        since: Instant,
    },
}

#[derive(Debug, Default)]
struct Counters {
    opened: AtomicU64,
    refused: AtomicU64,
}

/// A request that may be sent. If it is dropped, nothing was found out.
#[derive(Debug)]
#[must_use]
pub struct Pass<'a> {
    circuit: &'a Circuit,
    generation: u64,
    probe: Option<u64>,
}

/// A request that must not be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Refused {
    /// When there is a point in trying again; not zero.
    pub left: Duration,
}

/// Whether requests are sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Position {
    /// All of them.
    Closed,
    /// None.
    Open,
    /// One at a time, to find out.
    HalfOpen,
}

impl Position {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// Its name in reports and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// How a circuit stands, for those who look on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Standing {
    /// To which host.
    pub host: Host,
    /// Whether requests are sent.
    pub position: Position,
    /// Failures in a row while it is closed.
    pub failures: usize,
    /// How long it stays open.
    pub left: Option<Duration>,
    /// How often it has opened.
    pub opened: u64,
    /// Requests that it has refused.
    pub refused: u64,
}

impl Circuits {
    /// Closed ones for the hosts of `config`.
    pub fn new(config: &config::Upstream) -> Self {
        Self(Host::ALL.map(|host| Circuit::new(base(config, host), config)))
    }

    /// The same under another configuration. Of a host that is another one nothing is known.
    #[must_use]
    pub fn under(&self, config: &config::Upstream) -> Self {
        Self(Host::ALL.map(|host| self.to(host).under(base(config, host), config)))
    }

    /// The one to `host`.
    pub const fn to(&self, host: Host) -> &Circuit {
        &self.0[host as usize]
    }

    /// How they stand.
    pub fn standings(&self, now: Instant) -> [Standing; Host::ALL.len()] {
        Host::ALL.map(|host| self.to(host).standing(host, now))
    }
}

const fn base(config: &config::Upstream, host: Host) -> &BaseUrl {
    match host {
        Host::Api => &config.api_url,
        Host::Auth => &config.auth_url,
    }
}

impl Circuit {
    fn new(base: &BaseUrl, config: &config::Upstream) -> Self {
        Self {
            base: base.clone(),
            failures: config.breaker_failures,
            cooldown: config.breaker_cooldown,
            state: Arc::default(),
            counters: Arc::default(),
        }
    }

    fn under(&self, base: &BaseUrl, config: &config::Upstream) -> Self {
        let mut circuit = Self::new(base, config);
        circuit.counters = Arc::clone(&self.counters);
        if *base == self.base {
            circuit.state = Arc::clone(&self.state);
        }
        circuit
    }

    /// Whether a request may be sent. As long as it is closed this reads one number, and does not
    /// ask what time it is.
    ///
    /// # Errors
    ///
    /// [`Refused`]: it must not be sent.
    pub fn pass(&self, now: impl FnOnce() -> Instant) -> Result<Pass<'_>, Refused> {
        let word = self.state.word.load(Acquire);
        if word & ((1 << MOOD) - 1) != OPEN {
            return Ok(Pass { circuit: self, generation: word >> MOOD, probe: None });
        }
        self.ask(now()).inspect_err(|_| {
            self.counters.refused.fetch_add(1, Relaxed);
        })
    }

    fn ask(&self, now: Instant) -> Result<Pass<'_>, Refused> {
        let mut book = self.state.book();
        let since = match book.phase {
            Phase::Closed => {
                return Ok(Pass { circuit: self, generation: book.generation, probe: None });
            }
            // Nothing opens it any more: neither does anything keep it open.
            Phase::Open { .. } | Phase::Probing { .. } if self.failures == 0 => {
                self.state.close(&mut book);
                return Ok(Pass { circuit: self, generation: book.generation, probe: None });
            }
            Phase::Open { until } if until > now => return Err(Refused { left: until - now }),
            Phase::Open { until } => until,
            Phase::Probing { until, .. } if until > now => {
                return Err(Refused { left: (until - now).min(Duration::from_secs(1)) });
            }
            Phase::Probing { since, .. } => since,
        };
        book.probes += 1;
        let number = book.probes;
        book.phase = Phase::Probing { number, until: now + PROBE, since };
        Ok(Pass { circuit: self, generation: book.generation, probe: Some(number) })
    }

    /// Whether nothing may be sent at the moment, and nobody is to find out more.
    pub fn is_open(&self) -> bool {
        self.state.word.load(Relaxed) & ((1 << MOOD) - 1) == OPEN
    }

    fn standing(&self, host: Host, now: Instant) -> Standing {
        let book = self.state.book();
        let (position, left) = match book.phase {
            Phase::Closed => (Position::Closed, None),
            Phase::Open { until } if until > now => (Position::Open, Some(until - now)),
            Phase::Open { .. } | Phase::Probing { .. } => (Position::HalfOpen, None),
        };
        let (opened, refused) =
            (self.counters.opened.load(Relaxed), self.counters.refused.load(Relaxed));
        Standing { host, position, failures: book.failures, left, opened, refused }
    }
}

impl Pass<'_> {
    /// The host has answered, be it with a refusal. Whether that has closed the circuit.
    pub fn succeeded(self) -> bool {
        let state = &self.circuit.state;
        if state.word.load(Relaxed) & ((1 << MOOD) - 1) == WELL {
            return false;
        }
        let mut book = state.book();
        if book.generation != self.generation {
            return false;
        }
        let closes = !matches!(book.phase, Phase::Closed);
        if closes {
            state.close(&mut book);
        } else {
            book.failures = 0;
            state.show(&book, WELL);
        }
        closes
    }

    /// The host was silent, or failed. If that has opened the circuit: for how long.
    pub fn failed(self, now: Instant) -> Option<Duration> {
        let Circuit { failures, cooldown, state, counters, .. } = self.circuit;
        let mut book = state.book();
        if *failures == 0 || book.generation != self.generation {
            return None;
        }
        if matches!(book.phase, Phase::Closed) {
            book.failures += 1;
            if book.failures < *failures {
                state.show(&book, DOUBTED);
                return None;
            }
        }
        let pause = cooldown.saturating_mul(1 << book.openings.min(16));
        let pause = pause.min(LONGEST.max(*cooldown));
        book.openings = book.openings.saturating_add(1);
        book.generation += 1;
        book.phase = Phase::Open { until: now + pause };
        state.show(&book, OPEN);
        counters.opened.fetch_add(1, Relaxed);
        Some(pause)
    }
}

impl Drop for Pass<'_> {
    /// A probe whose caller has left makes room for the next one.
    fn drop(&mut self) {
        let Some(own) = self.probe else { return };
        let mut book = self.circuit.state.book();
        if let Phase::Probing { number, since, .. } = book.phase
            && (number, book.generation) == (own, self.generation)
        {
            book.phase = Phase::Open { until: since };
        }
    }
}

impl State {
    fn close(&self, book: &mut Book) {
        (book.failures, book.openings, book.phase) = (0, 0, Phase::Closed);
        book.generation += 1;
        self.show(book, WELL);
    }

    /// Lets requests know.
    fn show(&self, book: &Book, mood: u64) {
        self.word.store(book.generation << MOOD | mood, Release);
    }

    /// Nothing can panic while the lock is held.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
