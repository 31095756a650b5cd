//! Whether a request may go to a host, waits for that, or is turned away.

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

use super::{
    Cause, Priority, Slot, Standing, Turn, TurnedAway, Wish,
    limiter::{Limiter, Seen},
    pulse::Pulse,
    room::{Entry, Order, Room},
    turn::Taken,
};
use crate::{
    amove::{catalogue::Catalogue, host::Host},
    config::{self, BaseUrl},
};

/// In the number that all share: one that is open, above all those under way.
pub(super) const OPEN: u64 = 1 << 32;
pub(super) const UNDER_WAY: u64 = 1;

/// How long it takes until a crowd has gone. If there are still too many, it is none.
const CROWD: Duration = Duration::from_secs(1);

/// Nobody is told to go before that.
const SHORTEST: Duration = Duration::from_millis(20);

/// How often somebody who waits looks how things stand.
const LOOK: Duration = Duration::from_millis(50);

/// When a request that was turned away may come again.
const AGAIN: Duration = Duration::from_secs(1);

/// The slots towards one host.
pub struct Gate {
    pub(super) base: BaseUrl,
    max_open: u32,
    pub(super) is_adaptive: bool,
    max_wait: Duration,
    max_waiting: usize,
    pub(super) state: Arc<State>,
    pub(super) counters: Arc<Counters>,
    /// Of the worker that has this one.
    pub(super) pulse: Arc<Pulse>,
}

#[derive(Debug)]
pub(super) struct State {
    /// How many are open, and how many under way.
    taken: AtomicU64,
    /// How many may be under way.
    limit: AtomicU32,
    waiting: AtomicUsize,
    /// Each request is worth looking at.
    pub(super) is_curious: AtomicBool,
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
pub(super) struct Counters([[AtomicU64; Cause::ALL.len()]; Priority::ALL.len()]);

impl Gate {
    pub(super) fn new(
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

    pub(super) fn clone(gate: &Self) -> Self {
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
    pub(super) fn give_back(self: &Arc<Self>, what: u64) {
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
        let busy_for = desk.room.busy_for(now);
        if busy_for <= (typical * 2).clamp(millis(10), millis(100)) {
            return Order::First;
        }
        // A crowd that comes at once is served to the last, where those who come might become fewer.
        let is_lasting = limiter.is_congested() && busy_for > CROWD;
        let shortest = SHORTEST + self.pulse.lag().unwrap_or_default() * 4;
        let patience = if is_lasting { typical.max(shortest) } else { self.max_wait };
        Order::Last(patience.min(self.max_wait))
    }

    /// Takes note of how long a request took.
    pub(super) fn see(&self, seen: Seen, now: Instant) {
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

    pub(super) fn standing(&self, host: Host) -> Standing {
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
    pub(super) fn new() -> Arc<Self> {
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
