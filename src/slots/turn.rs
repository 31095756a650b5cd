//! What a request holds that may go: a slot, and its turn to be answered.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    gate::{Gate, OPEN, UNDER_WAY},
    limiter::Seen,
};

/// While all is well, one request in so many says how long it took; a power of two.
const SAMPLE: u32 = 8;

/// The right to a connection: given back when it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Slot(pub(super) Arc<Gate>);

/// A request that is under way until it is answered, or dropped.
#[derive(Debug)]
#[must_use]
pub struct Turn<'a> {
    pub(super) gate: &'a Arc<Gate>,
    pub(super) route: usize,
    pub(super) taken: Taken,
    pub(super) lasts: bool,
}

/// A slot that was free.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    /// How many requests are under way with it.
    pub(super) under_way: u32,
    /// Whether it was the last one.
    pub(super) is_last: bool,
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
