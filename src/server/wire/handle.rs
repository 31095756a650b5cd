//! What the guard and the rest of the server know together about one connection.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU8, AtomicU32,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::Waker,
};

use futures_util::task::AtomicWaker;

use super::refusal::Refusal;
use crate::message::Tunnel;

/// A coarse clock: whoever owns it moves it, and reading it costs one load.
#[derive(Debug, Default)]
pub struct Ticks(AtomicU32);

impl Ticks {
    /// Ticks so far. They start again at zero after 2^32.
    pub fn now(&self) -> u32 {
        self.0.load(Relaxed)
    }

    /// Moves the clock by one tick.
    pub fn advance(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// How many ticks a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// To complete the head of a request, counted from its first byte; the first request's, from
    /// when the connection was opened. Also to read the answer to a refused request.
    pub header: u32,
    /// Between requests, to take any of an answer, and between the bytes of another protocol, of
    /// whichever side.
    pub idle: u32,
}

/// What a client has taken too long for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Overdue {
    /// The head of a request.
    Header,
    /// The next request, to take the answers to the present ones, or anything in another protocol.
    Idle,
}

/// Where a connection is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Phase {
    /// Nothing has arrived yet.
    Fresh,
    /// Between two requests: the latest was handed over, and perhaps answered.
    Between,
    /// A head has begun and is not complete.
    Head,
    /// A body has begun and is not complete.
    Body,
    /// The protocol is HTTP/2, which the guard does not inspect.
    Http2,
    /// The protocol was switched.
    Upgraded,
    /// A message was refused, and the connection is about to end.
    Closing,
}

impl Phase {
    const ALL: [Self; 7] = [
        Self::Fresh,
        Self::Between,
        Self::Head,
        Self::Body,
        Self::Http2,
        Self::Upgraded,
        Self::Closing,
    ];
}

/// One connection, as seen from the sweep, the exchanges and the guard. Clones are the same
/// connection.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    ticks: Arc<Ticks>,
    phase: AtomicU8,
    since: AtomicU32,
    /// Heads handed over, and exchanges begun and ended; all counted for ever.
    handed: AtomicU32,
    opened: AtomicU32,
    closed: AtomicU32,
    /// Exchanges whose answers wait for the client.
    offered: AtomicU32,
    /// The client does not take what is written.
    stuck: AtomicBool,
    expired: AtomicBool,
    upgraded: AtomicBool,
    /// Where the connection leads from now on, until whoever serves it takes over.
    tunnel: Mutex<Option<Tunnel>>,
    verdict: Mutex<Option<Refusal>>,
    guard: AtomicWaker,
    /// The guard waits for the end of an exchange. Otherwise that is no news to it, and would only
    /// have the connection polled once more for each request.
    awaited: AtomicBool,
}

impl Handle {
    /// A connection that was opened just now.
    pub fn new(ticks: Arc<Ticks>) -> Self {
        let since = AtomicU32::new(ticks.now());
        Self(Arc::new(Shared {
            ticks,
            phase: AtomicU8::new(Phase::Fresh as u8),
            since,
            handed: AtomicU32::new(0),
            opened: AtomicU32::new(0),
            closed: AtomicU32::new(0),
            offered: AtomicU32::new(0),
            stuck: AtomicBool::new(false),
            expired: AtomicBool::new(false),
            upgraded: AtomicBool::new(false),
            tunnel: Mutex::new(None),
            verdict: Mutex::new(None),
            guard: AtomicWaker::new(),
            awaited: AtomicBool::new(false),
        }))
    }

    /// Why the guard refused the message; once.
    pub fn take_verdict(&self) -> Option<Refusal> {
        self.0.verdict.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// An exchange has begun. While one is open, the client owes us nothing but to take what it is
    /// offered. To be called once for each request, but not for one that announces a refusal. Tells
    /// how many there have been.
    pub fn opened(&self) -> u32 {
        self.0.opened.fetch_add(1, Relaxed).wrapping_add(1)
    }

    /// The head of the request of that number was handed over.
    pub(super) fn hand_over(&self, number: u32) {
        self.0.handed.store(number, Relaxed);
    }

    /// Whether the request of the exchange with that number has not arrived to its end: what is still
    /// arriving may be another one, that follows it.
    pub fn is_arriving(&self, number: u32) -> bool {
        self.phase() == Phase::Body && self.0.handed.load(Relaxed) == number
    }

    /// An exchange has ended: answered to the last byte, or given up. To be called as often as
    /// [`Self::opened`]: after a request for another protocol, the guard waits for it.
    pub fn closed(&self) {
        self.0.since.store(self.0.ticks.now(), Relaxed);
        self.0.closed.fetch_add(1, SeqCst);
        if self.0.awaited.swap(false, SeqCst) {
            self.0.guard.wake();
        }
    }

    /// An exchange has something for the client, or has to wait for more itself.
    pub fn offer(&self, offers: bool) {
        if offers {
            self.0.offered.fetch_add(1, Relaxed);
        } else {
            self.0.offered.fetch_sub(1, Relaxed);
        }
    }

    /// The exchange is answered with 101: whatever follows belongs to another protocol. To be
    /// called before [`Self::closed`].
    pub fn upgraded(&self) {
        self.0.upgraded.store(true, Relaxed);
        self.0.guard.wake();
    }

    /// The same, and what follows goes through `tunnel`.
    pub fn switch(&self, tunnel: Tunnel) {
        *self.0.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel);
        self.upgraded();
    }

    /// Where the connection leads now, if the protocol was switched; once.
    pub fn take_tunnel(&self) -> Option<Tunnel> {
        self.0.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What the client has taken too long for, if it has.
    pub fn overdue(&self, now: u32, patience: Patience) -> Option<Overdue> {
        let takes_nothing = self.is_offered_all();
        if self.open_exchanges() > 0 && !takes_nothing {
            return None;
        }
        let (kind, limit) = match self.phase() {
            _ if takes_nothing => (Overdue::Idle, patience.idle),
            Phase::Fresh | Phase::Head | Phase::Closing => (Overdue::Header, patience.header),
            // A body without an exchange is one that nobody wants any more.
            Phase::Between | Phase::Body | Phase::Http2 | Phase::Upgraded => {
                (Overdue::Idle, patience.idle)
            }
        };
        (self.waited(now) >= limit).then_some(kind)
    }

    /// Ends the connection: with a 408 if a head is incomplete, silently if nothing is under way.
    /// Only if hyper reads; a connection that stays overdue is stuck and should be dropped.
    pub fn expire(&self) {
        self.0.expired.store(true, Relaxed);
        self.0.guard.wake();
    }

    /// Where the connection is.
    pub fn phase(&self) -> Phase {
        let phase = usize::from(self.0.phase.load(Relaxed));
        Phase::ALL.get(phase).copied().unwrap_or(Phase::Closing)
    }

    /// How many exchanges are under way.
    pub fn open_exchanges(&self) -> u32 {
        let closed = self.0.closed.load(Relaxed);
        self.0.opened.load(Relaxed).wrapping_sub(closed)
    }

    /// Whether everything that was asked is answered to the last byte, and nothing more has come.
    pub fn is_quiet(&self) -> bool {
        self.phase() == Phase::Between && self.open_exchanges() == 0 && !self.0.stuck.load(Relaxed)
    }

    /// For how many ticks it has been quiet.
    pub fn quiet_for(&self, now: u32) -> u32 {
        if self.is_quiet() { self.waited(now) } else { 0 }
    }

    fn waited(&self, now: u32) -> u32 {
        let waited = now.wrapping_sub(self.0.since.load(Relaxed));
        // What was stamped after `now` was read would seem to be ages ago.
        if waited <= u32::MAX / 2 { waited } else { 0 }
    }

    /// Whether the client does not take what is written.
    pub(super) fn stuck(&self, stuck: bool) {
        self.0.stuck.store(stuck, Relaxed);
    }

    /// Whether it is only the client that any exchange waits for.
    pub(super) fn is_offered_all(&self) -> bool {
        let open = self.open_exchanges();
        open > 0 && open == self.0.offered.load(Relaxed)
    }

    pub(super) fn enter(&self, phase: Phase) {
        // The clock of a head runs from its first byte, not from its latest.
        if phase != Phase::Head || self.phase() != Phase::Head {
            self.0.since.store(self.0.ticks.now(), Relaxed);
        }
        self.0.phase.store(phase as u8, Relaxed);
    }

    /// Something was sent.
    pub(super) fn touch(&self) {
        if !matches!(self.phase(), Phase::Fresh | Phase::Head | Phase::Closing) {
            self.0.since.store(self.0.ticks.now(), Relaxed);
        }
    }

    pub(super) fn refuse(&self, refusal: Refusal) {
        *self.0.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
        self.enter(Phase::Closing);
    }

    /// How many exchanges have ended. The guard is woken when the next one does.
    pub(super) fn await_end(&self) -> u32 {
        // First the ear, then the look: an end in between is not missed.
        self.0.awaited.store(true, SeqCst);
        self.0.closed.load(SeqCst)
    }

    /// Whether the connection was told to end, see [`Self::expire`].
    pub fn is_expired(&self) -> bool {
        self.0.expired.load(Relaxed)
    }

    /// Forgets about [`Self::expire`], which came too late.
    pub(super) fn revive(&self) {
        self.0.expired.store(false, Relaxed);
    }

    pub(super) fn is_upgraded(&self) -> bool {
        self.0.upgraded.load(Relaxed)
    }

    /// Registers whom to wake when the handle has news for the guard.
    pub(super) fn register(&self, waker: &Waker) {
        self.0.guard.register(waker);
    }
}
