//! How many requests are under way to each host of the API, who waits for a slot, and who is turned
//! away.
//!
//! ```text
//!           a slot is free                                answered              over
//!   enter ────────────────────────────────▶ under way ──────────────▶ open ──────────────▶
//!     │                                        ▲
//!     └───▶ waits ──── writes, then reads ─────┘
//!             └──────── too late, or no room ────▶ turned away
//! ```
//!
//! A request needs two things. Until it is answered it is *under way*: of these there are as many as
//! the host bears, which the limiter finds out. Until its last byte has come it is *open*, and holds
//! a connection: of these there are as many as `upstream.max_connections` says. So an answer that is
//! read slowly, a stream of events, or a WebSocket, costs a connection but keeps nobody from being
//! answered, and says nothing about how the host is. What waits by its nature (a long poll) is never
//! counted as under way.
//!
//! All workers share one number, because there is one API: as long as a slot is free, a request reads
//! and changes that number and nothing else. Only who has to wait takes a lock.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{
            AtomicBool, AtomicU32, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::{
    amove::{catalogue::Catalogue, host::Host},
    config::{self, BaseUrl},
};

mod limiter;
mod pulse;
mod room;
#[cfg(test)]
mod tests;

pub use room::Priority;

use limiter::{Limiter, Seen};
use pulse::Pulse;
use room::{Entry, Order, Room};

/// In the number that all share: one that is open, above all those under way.
const OPEN: u64 = 1 << 32;
const UNDER_WAY: u64 = 1;

/// While all is well, one request in so many says how long it took; a power of two.
const SAMPLE: u32 = 8;

/// Nobody is told to go before that.
const SHORTEST: Duration = Duration::from_millis(20);

/// How often somebody who waits looks how things stand.
const LOOK: Duration = Duration::from_millis(50);

/// When a request that was turned away may come again.
const AGAIN: Duration = Duration::from_secs(1);

/// The slots towards each host.
#[derive(Debug)]
pub struct Slots([Arc<Gate>; Host::ALL.len()]);

/// The slots towards one host.
pub struct Gate {
    base: BaseUrl,
    max_open: u32,
    is_adaptive: bool,
    max_wait: Duration,
    max_waiting: usize,
    state: Arc<State>,
    counters: Arc<Counters>,
    /// Of the worker that has this one.
    pulse: Arc<Pulse>,
}

#[derive(Debug)]
struct State {
    /// How many are open, and how many under way.
    taken: AtomicU64,
    /// How many may be under way.
    limit: AtomicU32,
    waiting: AtomicUsize,
    /// Each request is worth looking at.
    is_curious: AtomicBool,
    desk: Mutex<Desk>,
}

/// What has to be known once somebody waits.
#[derive(Debug)]
struct Desk {
    limiter: Limiter,
    room: Room<oneshot::Sender<Result<Grant, Cause>>>,
}

/// Requests that were turned away: by priority, then by cause.
#[derive(Debug, Default)]
struct Counters([[AtomicU64; Cause::ALL.len()]; Priority::ALL.len()]);

/// What a request wants.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Whose turn it is first.
    pub priority: Priority,
    /// The position of its route in the catalogue, if it is there.
    pub route: Option<usize>,
    /// It takes long by its nature: it is only open.
    pub lasts: bool,
}

/// Why a request was turned away.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// As many wait as may.
    NoRoom,
    /// It has waited for as long as it may.
    Late,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::NoRoom, Self::Late];

    /// Its name in reports and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoRoom => "no_room",
            Self::Late => "late",
        }
    }

    /// The setting that says so.
    pub const fn rule(self) -> &'static str {
        match self {
            Self::NoRoom => "upstream.max_waiting",
            Self::Late => "upstream.max_wait",
        }
    }
}

/// A request that was turned away. It was not sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TurnedAway {
    /// Why.
    pub cause: Cause,
    /// When there is a point in trying again.
    pub left: Duration,
}

/// How the slots towards a host stand, for those who look on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Standing {
    /// To which host.
    pub host: Host,
    /// How many requests may be under way.
    pub limit: usize,
    /// How many are.
    pub under_way: usize,
    /// How many of them, and of those that were answered, hold a connection.
    pub open: usize,
    /// Whether the host has more to do than it can.
    pub is_congested: bool,
    /// How many wait, by priority.
    pub waiting: [usize; Priority::ALL.len()],
    /// How many were turned away, by priority and cause.
    pub turned_away: [[u64; Cause::ALL.len()]; Priority::ALL.len()],
}

/// The right to a connection: given back when it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Slot(Arc<Gate>);

/// A request that is under way until it is answered, or dropped.
#[derive(Debug)]
#[must_use]
pub struct Turn<'a> {
    gate: &'a Arc<Gate>,
    route: usize,
    taken: Taken,
    lasts: bool,
}

/// A slot that was free.
#[derive(Clone, Copy, Debug)]
struct Taken {
    /// How many requests are under way with it.
    under_way: u32,
    /// Whether it was the last one.
    is_last: bool,
}

impl Slots {
    /// Those that `config` describes.
    pub fn new(config: &config::Upstream) -> Self {
        let gate = |host| Gate::new(base(config, host), config, State::new(), Arc::default());
        Self(Host::ALL.map(|host| Arc::new(gate(host))))
    }

    /// The same under another configuration. Of a host that is another one nothing is known.
    #[must_use]
    pub fn under(&self, config: &config::Upstream) -> Self {
        let under = |host| {
            let (before, base) = (self.to(host), base(config, host));
            let state = if *base == before.base { Arc::clone(&before.state) } else { State::new() };
            Arc::new(Gate::new(base, config, state, Arc::clone(&before.counters)))
        };
        Self(Host::ALL.map(under))
    }

    /// The same: each worker counts its own references to them.
    #[must_use]
    pub fn sibling(&self) -> Self {
        Self(Host::ALL.map(|host| Arc::new(Gate::clone(self.to(host)))))
    }

    /// Those to `host`.
    pub const fn to(&self, host: Host) -> &Arc<Gate> {
        &self.0[host as usize]
    }

    /// How they stand.
    pub fn standings(&self) -> [Standing; Host::ALL.len()] {
        Host::ALL.map(|host| self.to(host).standing(host))
    }
}

const fn base(config: &config::Upstream, host: Host) -> &BaseUrl {
    match host {
        Host::Api => &config.api_url,
        Host::Auth => &config.auth_url,
    }
}

impl Gate {
    fn new(
        base: &BaseUrl,
        config: &config::Upstream,
        state: Arc<State>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            base: base.clone(),
            max_open: u32::try_from(config.max_connections).unwrap_or(u32::MAX),
            is_adaptive: config.adaptive,
            max_wait: config.max_wait,
            max_waiting: config.max_waiting,
            state,
            counters,
            pulse: Pulse::new(),
        }
    }

    fn clone(gate: &Self) -> Self {
        let Self { base, max_open, is_adaptive, max_wait, max_waiting, state, counters, .. } = gate;
        let (state, counters) = (Arc::clone(state), Arc::clone(counters));
        Self {
            base: base.clone(),
            max_open: *max_open,
            is_adaptive: *is_adaptive,
            max_wait: *max_wait,
            max_waiting: *max_waiting,
            state,
            counters,
            pulse: Pulse::new(),
        }
    }

    /// Takes a slot, or waits for one.
    ///
    /// # Errors
    ///
    /// [`TurnedAway`]: it must not be sent.
    pub async fn enter(self: &Arc<Self>, wish: Wish) -> Result<(Turn<'_>, Slot), TurnedAway> {
        let free = if self.state.waiting.load(Relaxed) == 0 { self.take(wish.lasts) } else { None };
        let taken = match free {
            Some(taken) => taken,
            // Seldom done, so it takes no room in the future of every request.
            None => Box::pin(self.wait(wish)).await?,
        };
        let route = wish.route.unwrap_or(Catalogue::get().routes().len());
        let turn = Turn { gate: self, route, taken, lasts: wish.lasts };
        Ok((turn, Slot(Arc::clone(self))))
    }

    /// How many may be under way.
    fn limit(&self) -> u32 {
        if self.is_adaptive {
            self.state.limit.load(Relaxed).min(self.max_open)
        } else {
            self.max_open
        }
    }

    /// Takes a slot, if one is free.
    fn take(&self, lasts: bool) -> Option<Taken> {
        let limit = self.limit();
        let wanted = if lasts { OPEN } else { OPEN + UNDER_WAY };
        let taken = self.state.taken.fetch_update(SeqCst, SeqCst, |taken| {
            let is_free = open(taken) < self.max_open && (lasts || under_way(taken) < limit);
            is_free.then(|| taken + wanted)
        });
        let under_way = under_way(taken.ok()? + wanted);
        Some(Taken { under_way, is_last: under_way >= limit })
    }

    /// Gives back what was taken. Whoever begins to wait at the same moment sees that, or is seen.
    fn give_back(self: &Arc<Self>, what: u64) {
        self.state.taken.fetch_sub(what, SeqCst);
        if self.state.waiting.load(SeqCst) > 0 {
            self.let_in(&mut self.state.desk(), Instant::now());
        }
    }

    async fn wait(self: &Arc<Self>, wish: Wish) -> Result<Taken, TurnedAway> {
        let turned_away = |cause| {
            self.counters.add(wish.priority, cause);
            TurnedAway { cause, left: AGAIN }
        };
        let now = Instant::now();
        let (ticket, mut granted) = oneshot::channel();
        let number =
            self.join(wish.priority, ticket, now).ok_or_else(|| turned_away(Cause::NoRoom))?;
        let place = Place { gate: self, priority: wish.priority, number };
        let end = now + self.max_wait;
        let answer = loop {
            let next = Instant::now() + self.pause();
            match timeout_at(next.min(end), &mut granted).await {
                Ok(answer) => break answer.unwrap_or(Err(Cause::Late)),
                Err(_) if next < end => self.let_in(&mut self.state.desk(), Instant::now()),
                Err(_) => {
                    drop(place);
                    // Its turn may have come at the last moment.
                    break granted.try_recv().unwrap_or(Err(Cause::Late));
                }
            }
        };
        let grant = answer.map_err(turned_away)?;
        let taken = grant.accept();
        if wish.lasts {
            self.give_back(UNDER_WAY);
        }
        Ok(taken)
    }

    /// Whoever waits looks from time to time whether there may be more: nobody else might come. Where
    /// many wait, each does so less often.
    fn pause(&self) -> Duration {
        let waiting = self.state.waiting.load(Relaxed);
        (LOOK * u32::try_from(1 + waiting / 64).unwrap_or(u32::MAX)).min(LOOK * 10)
    }

    /// Enters the waiting room.
    fn join(
        self: &Arc<Self>,
        priority: Priority,
        ticket: oneshot::Sender<Result<Grant, Cause>>,
        now: Instant,
    ) -> Option<u64> {
        let mut desk = self.state.desk();
        if desk.room.len() == 0 {
            desk.limiter.presses(now);
        }
        self.state.is_curious.store(true, Relaxed);
        let order = self.order(&desk, now);
        let entry = desk.room.enter(priority, ticket, self.max_waiting, order, now);
        self.state.waiting.store(desk.room.len(), SeqCst);
        let number = match entry {
            Entry::Waits(number) => Some(number),
            Entry::Displaces(number, other) => {
                let _ = other.send(Err(Cause::NoRoom));
                Some(number)
            }
            Entry::Full(_) => None,
        };
        self.let_in(&mut desk, now);
        number
    }

    /// Lets in those for whom there are slots, and tells those who are late.
    fn let_in(self: &Arc<Self>, desk: &mut Desk, now: Instant) {
        if desk.room.len() > 0 {
            desk.limiter.waits(now, self.ceiling());
        }
        self.publish(&desk.limiter);
        let order = self.order(desk, now);
        while let Some(ticket) = desk.room.late(order, now) {
            let _ = ticket.send(Err(Cause::Late));
        }
        while desk.room.len() > 0 {
            let Some(taken) = self.take(false) else { break };
            let grant = Grant { gate: Some(Arc::clone(self)), taken };
            let refused = match desk.room.next(order) {
                Some(ticket) => ticket.send(Ok(grant)).err(),
                None => Some(Ok(grant)),
            };
            // Nobody is there any more; the next one is let in right away.
            if let Some(Ok(grant)) = refused {
                let _ = grant.accept();
                self.state.taken.fetch_sub(OPEN + UNDER_WAY, SeqCst);
            }
        }
        self.state.waiting.store(desk.room.len(), SeqCst);
    }

    fn publish(&self, limiter: &Limiter) {
        self.state.limit.store(limiter.limit() as u32, Relaxed);
    }

    fn ceiling(&self) -> f32 {
        self.max_open as f32
    }

    /// As long as it is soon over, first come, first served.
    fn order(&self, desk: &Desk, now: Instant) -> Order {
        let (limiter, millis) = (&desk.limiter, Duration::from_millis);
        let typical = limiter.typical().unwrap_or(self.max_wait);
        if desk.room.busy_for(now) <= (typical * 2).clamp(millis(10), millis(100)) {
            return Order::First;
        }
        // Where there might be more slots, or those who come might become fewer, nobody has to go.
        let shortest = SHORTEST + self.pulse.lag().unwrap_or_default() * 4;
        let patience = if limiter.is_congested() { typical.max(shortest) } else { self.max_wait };
        Order::Last(patience.min(self.max_wait))
    }

    /// Takes note of how long a request took.
    fn see(&self, seen: Seen, now: Instant) {
        // Whoever looks at the same moment sees as much.
        let mut desk = match self.state.desk.try_lock() {
            Ok(desk) => desk,
            Err(TryLockError::Poisoned(desk)) => desk.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let somebody_waits = desk.room.len() > 0;
        desk.limiter.see(seen, somebody_waits, now, self.ceiling());
        self.publish(&desk.limiter);
        let is_curious = desk.limiter.is_curious() || desk.room.len() > 0;
        self.state.is_curious.store(is_curious, Relaxed);
    }

    fn standing(&self, host: Host) -> Standing {
        let taken = self.state.taken.load(Relaxed);
        let desk = self.state.desk();
        Standing {
            host,
            limit: self.limit() as usize,
            under_way: under_way(taken) as usize,
            open: open(taken) as usize,
            is_congested: self.is_adaptive && desk.limiter.is_congested(),
            waiting: Priority::ALL.map(|priority| desk.room.waiting(priority)),
            turned_away: self.counters.read(),
        }
    }
}

const fn open(taken: u64) -> u32 {
    (taken >> 32) as u32
}

const fn under_way(taken: u64) -> u32 {
    taken as u32
}

impl Turn<'_> {
    /// There is an answer, after this long.
    pub fn answered(self, took: Duration) {
        self.see(took, true);
    }

    /// The host says after this long that it has too much to do, or still says nothing.
    pub fn failed(self, took: Duration) {
        self.see(took, false);
    }

    fn see(&self, took: Duration, is_answered: bool) {
        let Self { gate, route, taken, lasts } = *self;
        if lasts || !gate.is_adaptive {
            return;
        }
        let is_chosen = !is_answered || took.subsec_nanos().is_multiple_of(SAMPLE);
        if is_chosen || gate.state.is_curious.load(Relaxed) {
            let now = Instant::now();
            let began = now.checked_sub(took).unwrap_or(now);
            let Taken { under_way, is_last } = taken;
            let lag = gate.pulse.lag();
            let is_blurred = lag.is_none_or(|lag| lag * 4 > took);
            // Sent a little late, and heard of a little late: that was the worker.
            let took = took.saturating_sub(lag.unwrap_or_default() * 2);
            let took = is_answered.then_some(took);
            gate.see(Seen { route, under_way, is_bound: is_last, took, is_blurred, began }, now);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.lasts {
            self.gate.give_back(UNDER_WAY);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.give_back(OPEN);
    }
}

/// A slot on its way to somebody who waits for it.
#[derive(Debug)]
struct Grant {
    gate: Option<Arc<Gate>>,
    taken: Taken,
}

impl Grant {
    /// It has arrived.
    fn accept(mut self) -> Taken {
        self.gate = None;
        self.taken
    }
}

impl Drop for Grant {
    /// It has not.
    fn drop(&mut self) {
        if let Some(gate) = self.gate.take() {
            gate.give_back(OPEN + UNDER_WAY);
        }
    }
}

/// A place in the waiting room: left when it is dropped.
struct Place<'a> {
    gate: &'a Gate,
    priority: Priority,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut desk = self.gate.state.desk();
        let ticket = desk.room.leave(self.priority, self.number);
        self.gate.state.waiting.store(desk.room.len(), SeqCst);
        drop((desk, ticket));
    }
}

impl State {
    fn new() -> Arc<Self> {
        // One more for all that are not in the catalogue.
        let routes = Catalogue::get().routes().len() + 1;
        let desk = Desk { limiter: Limiter::new(routes, Instant::now()), room: Room::new() };
        Arc::new(Self {
            taken: AtomicU64::new(0),
            limit: AtomicU32::new(desk.limiter.limit() as u32),
            waiting: AtomicUsize::new(0),
            is_curious: AtomicBool::new(false),
            desk: Mutex::new(desk),
        })
    }

    /// Nothing can panic while the lock is held.
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counters {
    fn add(&self, priority: Priority, cause: Cause) {
        self.0[priority as usize][cause as usize].fetch_add(1, Relaxed);
    }

    fn read(&self) -> [[u64; Cause::ALL.len()]; Priority::ALL.len()] {
        self.0.each_ref().map(|causes| causes.each_ref().map(|count| count.load(Relaxed)))
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("base", &self.base).finish_non_exhaustive()
    }
}
