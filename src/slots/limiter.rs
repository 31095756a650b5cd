//! How many requests a host bears at once: found out by how long it takes to answer them.
//!
//! Routes differ widely, so a request is only compared with what its own route usually takes, and
//! what is looked at is the mean of these ratios (of their logarithms, so that neither a long report
//! nor a lucky hit outweighs the rest). As long as there are slots enough, whatever requests take is
//! what they usually take. Where they are all in use:
//!
//! - Nobody knows better: twice as many, after each time that two requests take.
//! - Requests take longer than usual: for a moment far fewer are let in. Do they take less time now,
//!   it was their number; else the host is slower by itself, and that is what they usually take.
//! - It was their number: as many as make requests take half as long again as usual. Then the host
//!   always has something to do, and next to nothing waits there.
//!
//! What is usual is found out anew by such a moment every few seconds: it cannot creep up.

use std::time::Duration;

use tokio::time::Instant;

/// So many are always allowed while the host is well.
pub(super) const CALM: f32 = 16.0;
/// Fewer cannot find anything out.
const FLOOR: f32 = 1.0;
/// What requests may take where all slots are in use, against what they usually take: half as long
/// again. In powers of two, as all that is compared here.
const GOAL: f32 = 0.585;
/// Next to nothing.
const SLIGHT: f32 = 0.3;
/// What takes so much longer has taken as long.
const SLACK: Duration = Duration::from_millis(3);
/// The most that one request can say.
const MOST: f32 = 3.0;
/// After so much evidence that there are far too many, nobody waits for more.
const ALARM: f32 = 3.0;
/// The first requests of a route say what it usually takes, and nothing else.
const FIRST: u16 = 8;
/// How many requests it takes to change what is usual.
const MEMORY: u16 = 64;
/// How often it is found out anew what is usual, while all slots are in use.
const AGAIN: Duration = Duration::from_secs(5);
/// How long such a moment lasts at most.
const LONGEST: Duration = Duration::from_secs(2);
/// How long nothing is found out after that at least.
const REST: Duration = Duration::from_secs(1);

/// How many requests may be under way. Knows no clock: it is told what time it is.
#[derive(Debug)]
pub(super) struct Limiter {
    limit: f32,
    usual: Box<[Usual]>,
    /// What requests usually take, of whatever route.
    typical: Option<f32>,
    /// How long the last ones took, and how much longer than usual that was.
    latest: Duration,
    lately: f32,
    /// When that was seen.
    heard: Instant,
    /// How far requests are from what is usual, of whatever route.
    spread: f32,
    window: Window,
    /// What began before says how it was under another limit.
    changed: Instant,
    /// When somebody began to wait, or the limit grew.
    pressed: Instant,
    moment: Option<Moment>,
    last_moment: Option<Instant>,
    /// Whether it told something new: then it is soon found out whether that is so.
    is_sure: bool,
    is_congested: bool,
}

/// What a route usually takes.
#[derive(Clone, Copy, Debug, Default)]
struct Usual {
    level: f32,
    /// How far from that they are.
    spread: f32,
    seen: u16,
}

/// What has been seen since it was last thought over.
#[derive(Clone, Copy, Debug)]
struct Window {
    excess: f32,
    /// That of the quickest one.
    least: f32,
    answered: u16,
    refused: u16,
    /// How many of them began when all slots were in use.
    bound: u16,
    most: u32,
}

/// A moment with far fewer requests.
#[derive(Clone, Copy, Debug)]
struct Moment {
    /// The limit before, and how much longer than usual requests took under it.
    limit: f32,
    excess: f32,
    until: Instant,
}

/// What became of one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Its route.
    pub(super) route: usize,
    /// How many were under way when it began, itself included.
    pub(super) under_way: u32,
    /// Whether that was as many as might be.
    pub(super) is_bound: bool,
    /// After how long there was an answer; `None`: the host refused it for want of capacity, or was
    /// silent for too long.
    pub(super) took: Option<Duration>,
    /// Whether that may as well have been the worker's fault.
    pub(super) is_blurred: bool,
    /// When it began.
    pub(super) began: Instant,
}

impl Limiter {
    /// One that knows nothing yet of so many routes.
    pub(super) fn new(routes: usize, now: Instant) -> Self {
        Self {
            limit: CALM,
            usual: vec![Usual::default(); routes].into(),
            typical: None,
            latest: Duration::ZERO,
            lately: 0.0,
            heard: now,
            spread: 0.0,
            window: Window::default(),
            changed: now,
            pressed: now,
            moment: None,
            last_moment: None,
            is_sure: true,
            is_congested: false,
        }
    }

    /// How many may be under way now, one at least.
    pub(super) fn limit(&self) -> f32 {
        self.limit
    }

    /// Whether the host has more to do than it can.
    pub(super) fn is_congested(&self) -> bool {
        self.is_congested
    }

    /// Whether each request is worth looking at.
    pub(super) fn is_curious(&self) -> bool {
        self.is_congested || self.moment.is_some()
    }

    /// What requests usually take, as far as that is known.
    pub(super) fn typical(&self) -> Option<Duration> {
        let took = |level: f32| Duration::from_nanos(level.exp2() as u64).saturating_sub(SLACK);
        self.typical.map(took)
    }

    /// Somebody begins to wait where nobody did.
    pub(super) fn presses(&mut self, now: Instant) {
        self.pressed = now;
    }

    /// Somebody still waits.
    pub(super) fn waits(&mut self, now: Instant, ceiling: f32) {
        if let Some(moment) = self.moment {
            if now >= moment.until {
                // Where too little has been seen, it is taken for what it looked like.
                let seen = (self.window.answered >= 4).then(|| self.honest());
                self.end_moment(moment, seen, now, ceiling);
            }
            return;
        }
        if now.duration_since(self.heard) > self.step() * 2 {
            // Nothing is answered at the moment, so this says less and less.
            (self.heard, self.lately) = (now, self.lately / 2.0);
        }
        let is_well = !self.is_congested && self.lately < SLIGHT + self.spread;
        if is_well && now.duration_since(self.pressed) >= self.step() {
            self.pressed = now;
            self.limit = (self.limit * 2.0).min(ceiling);
        }
    }

    /// How long it takes to see what came of a larger limit.
    pub(super) fn step(&self) -> Duration {
        let step = self.typical().map_or(Duration::from_millis(50), |typical| typical * 2);
        step.clamp(Duration::from_millis(5), Duration::from_millis(200))
    }

    /// Takes note of a request, and draws its conclusions.
    pub(super) fn see(&mut self, seen: Seen, somebody_waits: bool, now: Instant, ceiling: f32) {
        let is_old = seen.began < self.changed;
        match seen.took {
            Some(_) if seen.is_blurred => {
                // It tells nothing, but a moment must not last because of that.
                if is_old || self.moment.is_none() {
                    return;
                }
                self.window.answered += 1;
            }
            Some(took) => {
                let Some(excess) = self.compare(&seen, took) else { return };
                self.lately += (excess - self.lately) / 4.0;
                (self.latest, self.heard) = (took, now);
                if is_old {
                    return;
                }
                self.window.answered += 1;
                self.window.least = self.window.least.min(excess);
                self.window.excess += excess;
            }
            None if is_old => return,
            None => self.window.refused += 1,
        }
        self.window.bound += u16::from(seen.is_bound);
        self.window.most = self.window.most.max(seen.under_way);
        if self.window.total() >= self.enough() || self.is_alarming() {
            self.conclude(somebody_waits, now, ceiling);
        }
    }

    /// How much longer than usual it took; `None` as long as nobody knows.
    fn compare(&mut self, seen: &Seen, took: Duration) -> Option<f32> {
        let level = ((took + SLACK).as_nanos() as f32).log2();
        let has_room = seen.under_way as f32 <= self.limit * 0.6;
        let learns = has_room && !self.is_congested && self.moment.is_none();
        let usual = self.usual.get_mut(seen.route)?;
        let is_known = usual.seen >= FIRST;
        let mut excess = level - usual.level;
        if is_known {
            excess = excess.clamp(-MOST, MOST * 2.0);
        }
        if learns || !is_known {
            usual.seen = (usual.seen + 1).min(MEMORY);
            if usual.seen == 1 {
                usual.level = level;
                excess = 0.0;
            }
            usual.level += excess / f32::from(usual.seen);
            usual.spread += (excess.abs() - usual.spread) / f32::from(usual.seen);
        }
        let typical = self.typical.get_or_insert(usual.level);
        *typical += (usual.level - *typical) / f32::from(MEMORY / 2);
        self.spread += (usual.spread - self.spread) / f32::from(MEMORY / 2);
        is_known.then_some(excess)
    }

    /// How many requests it takes to judge.
    fn enough(&self) -> u16 {
        if self.moment.is_some() {
            return (self.limit * 2.0).clamp(4.0, 16.0) as u16;
        }
        (self.limit * 1.5).clamp(4.0, 32.0) as u16
    }

    /// Whether it is clear already that there are far too many.
    fn is_alarming(&self) -> bool {
        let Window { excess, answered, .. } = self.window;
        let answered = f32::from(answered);
        let chance = 2.0 * self.spread * answered.sqrt();
        let tolerated = answered * (GOAL + SLIGHT) + chance;
        self.moment.is_none() && answered >= 3.0 && excess - tolerated >= ALARM
    }

    fn conclude(&mut self, somebody_waits: bool, now: Instant, ceiling: f32) {
        let window = self.window;
        // What may be chance is no evidence.
        let chance = self.spread / f32::from(window.answered.max(1)).sqrt();
        let excess = window.mean();
        let excess = excess - chance.min(excess.max(0.0));
        if let Some(moment) = self.moment {
            let seen = (window.answered > window.refused).then(|| self.honest());
            return self.end_moment(moment, seen, now, ceiling);
        }
        if window.refused * 8 > window.total() {
            self.is_congested = true;
            return self.change(self.limit * 0.7, now, ceiling);
        }
        let is_bound = window.bound * 2 >= window.total() || somebody_waits && excess > GOAL;
        if !is_bound {
            // There are slots enough; but not too many, so that what comes does not come all at once.
            self.window = Window::default();
            self.is_congested &= somebody_waits || excess >= SLIGHT;
            let enough = (window.most as f32 * 2.0).max(CALM);
            if self.limit > enough {
                self.limit = (self.limit * 0.9).max(enough);
            }
            return;
        }
        let since = self.last_moment.map(|last| now.duration_since(last));
        let wants_to_know = match since {
            None => self.is_congested || excess > GOAL + SLIGHT,
            Some(since) if self.is_congested && self.is_sure => {
                since >= AGAIN.max(self.latest * 10)
            }
            Some(since) if self.is_congested => since >= REST.max(self.latest * 10),
            Some(since) => since >= REST && excess > GOAL + SLIGHT,
        };
        if wants_to_know {
            return self.begin_moment(excess, now, ceiling);
        }
        self.is_congested |= excess > SLIGHT;
        self.change(self.limit * (GOAL - excess).clamp(-1.0, GOAL).exp2(), now, ceiling);
    }

    /// Far fewer for a moment: fewer than the host could serve, as it looks.
    fn begin_moment(&mut self, excess: f32, now: Instant, ceiling: f32) {
        let patience = self.step() * 4 + self.latest * 2;
        let longest = self.typical().map_or(LONGEST, |typical| LONGEST.max(typical * 6));
        self.moment =
            Some(Moment { limit: self.limit, excess, until: now + patience.min(longest) });
        self.last_moment = Some(now);
        self.change(self.limit * (-1.0 - excess.max(0.0)).exp2(), now, ceiling);
    }

    /// How much longer than usual requests take in a moment: as the mean says, unless the quickest
    /// ones tell that something else held the others up.
    fn honest(&self) -> f32 {
        self.window.mean().min(self.window.least + 2.0 * self.spread)
    }

    /// What requests took meanwhile is what they take if they are few.
    fn end_moment(&mut self, moment: Moment, seen: Option<f32>, now: Instant, ceiling: f32) {
        self.is_sure = seen.is_some_and(|seen| seen.abs() < SLIGHT);
        let seen = seen.unwrap_or(0.0);
        for usual in &mut self.usual {
            usual.level += seen;
        }
        let eased = moment.excess - seen;
        self.is_congested = eased * 3.0 > moment.excess;
        self.moment = None;
        self.change(moment.limit * (GOAL - eased).min(GOAL).exp2(), now, ceiling);
    }

    fn change(&mut self, limit: f32, now: Instant, ceiling: f32) {
        self.limit = limit.clamp(FLOOR, ceiling.max(FLOOR));
        self.window = Window::default();
        (self.changed, self.pressed) = (now, now);
    }
}

impl Default for Window {
    fn default() -> Self {
        let least = f32::INFINITY;
        Self { excess: 0.0, least, answered: 0, refused: 0, bound: 0, most: 0 }
    }
}

impl Window {
    fn total(&self) -> u16 {
        self.answered + self.refused
    }

    /// How much longer than usual they took.
    fn mean(&self) -> f32 {
        self.excess / f32::from(self.answered.max(1))
    }
}
