//! Requests that wait for their quota: bounded, and taken round-robin, so that nobody who sends a
//! lot makes the others wait.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use super::{Claim, Decision, Limiter};

/// Requests of one caller that may wait, and of all together: they hold memory and connections.
const MOST_OF_ONE: usize = 1_000;
const MOST: usize = 10_000;
/// Quotas fill up in steps; there is no point in looking more often.
const SHORTEST: Duration = Duration::from_millis(1);

/// Those who wait.
#[derive(Debug, Default)]
pub struct Queue {
    lines: Mutex<Lines>,
    /// How many wait, to be read without the lock.
    waiting: AtomicUsize,
    counts: Arc<Counts>,
}

/// What has become of those who waited.
#[derive(Debug, Default)]
struct Counts {
    turned_away: AtomicU64,
    granted: AtomicU64,
    in_vain: AtomicU64,
}

#[derive(Debug, Default)]
struct Lines {
    /// Of each caller, in the order in which they came.
    of: HashMap<usize, VecDeque<Waiter>>,
    /// Whose turn it is, and whose comes next.
    turns: VecDeque<usize>,
    /// Somebody serves the queue.
    is_served: bool,
    /// What the last one who had to go on waiting would have been told.
    refused: Option<Decision>,
}

#[derive(Debug)]
struct Waiter {
    claim: Claim,
    answer: oneshot::Sender<Decision>,
}

impl Queue {
    /// Another one, which goes on counting.
    pub(super) fn another(&self) -> Self {
        Self { counts: Arc::clone(&self.counts), ..Self::default() }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// How many found no room.
    pub fn turned_away(&self) -> u64 {
        self.counts.turned_away.load(Relaxed)
    }

    /// How many waited and got what they waited for.
    pub fn granted(&self) -> u64 {
        self.counts.granted.load(Relaxed)
    }

    /// How many waited as long as they could, and got nothing.
    pub fn in_vain(&self) -> u64 {
        self.counts.in_vain.load(Relaxed)
    }

    /// Waits for the quotas of `claim`, at most as long as `patience`; `None` if in vain.
    pub(super) async fn wait(
        self: &Arc<Self>,
        limiter: &Arc<Limiter>,
        claim: Claim,
        patience: Duration,
    ) -> Option<Decision> {
        let Some(answer) = self.join(limiter, claim) else {
            self.counts.turned_away.fetch_add(1, Relaxed);
            return None;
        };
        let granted = timeout(patience, answer).await.ok().and_then(Result::ok);
        let count = match granted {
            Some(_) => &self.counts.granted,
            None => &self.counts.in_vain,
        };
        count.fetch_add(1, Relaxed);
        granted
    }

    /// What somebody who had to go on waiting was told last.
    pub(super) fn refusal(&self) -> Option<Decision> {
        self.lines().refused
    }

    fn join(
        self: &Arc<Self>,
        limiter: &Arc<Limiter>,
        claim: Claim,
    ) -> Option<oneshot::Receiver<Decision>> {
        let mut lines = self.lines();
        let caller = claim.caller;
        let line = lines.of.entry(caller).or_default();
        if line.len() >= MOST_OF_ONE || self.waiting.load(SeqCst) >= MOST {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        line.push_back(Waiter { claim, answer });
        if line.len() == 1 {
            lines.turns.push_back(caller);
        }
        self.waiting.fetch_add(1, SeqCst);
        let is_served = std::mem::replace(&mut lines.is_served, true);
        drop(lines);
        if !is_served {
            let serving = Serving { queue: Arc::clone(self), goes_on: true };
            tokio::spawn(serve(serving, Arc::clone(limiter)));
        }
        Some(answered)
    }

    /// Gives one request to each caller whose turn it is; says how long there is nothing to give.
    fn round(&self, limiter: &Limiter) -> Option<Duration> {
        let mut lines = self.lines();
        let (mut pause, mut last): (Option<Duration>, _) = (None, None);
        // Whoever has got something comes after those who have not.
        let mut served = Vec::new();
        for _ in 0..lines.turns.len() {
            let Some(caller) = lines.turns.pop_front() else { break };
            let line = lines.of.entry(caller).or_default();
            let before = line.len();
            // Whoever has left takes nothing.
            while line.front().is_some_and(|waiter| waiter.answer.is_closed()) {
                line.pop_front();
            }
            let mut is_served = false;
            if let Some(waiter) = line.front_mut() {
                match limiter.go_on(&mut waiter.claim) {
                    Ok(refused @ Decision::Refused { retry_after, .. }) => {
                        last = Some(refused);
                        pause = Some(pause.map_or(retry_after, |pause| pause.min(retry_after)));
                    }
                    // The store has been asked.
                    Err(_) => pause = Some(pause.map_or(SHORTEST, |pause| pause.min(SHORTEST))),
                    Ok(decided) => {
                        pause = Some(Duration::ZERO);
                        is_served = true;
                        let waiter = line.pop_front();
                        if let Some(waiter) = waiter {
                            // Whoever has just left has taken it along.
                            let _ = waiter.answer.send(decided);
                        }
                    }
                }
            }
            let (gone, left) = (before - line.len(), line.len());
            self.waiting.fetch_sub(gone, SeqCst);
            if left == 0 {
                lines.of.remove(&caller);
            } else if is_served {
                served.push(caller);
            } else {
                lines.turns.push_back(caller);
            }
        }
        lines.turns.extend(served);
        lines.refused = last.or(lines.refused);
        if lines.turns.is_empty() {
            lines.is_served = false;
            return None;
        }
        Some(pause.unwrap_or(SHORTEST))
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves those who wait until nobody does.
async fn serve(mut serving: Serving, limiter: Arc<Limiter>) {
    while let Some(pause) = serving.queue.round(&limiter) {
        if pause.is_zero() {
            tokio::task::yield_now().await;
        } else {
            sleep(pause.max(SHORTEST)).await;
        }
    }
    serving.goes_on = false;
}

/// Whoever serves the queue.
struct Serving {
    queue: Arc<Queue>,
    goes_on: bool,
}

impl Drop for Serving {
    fn drop(&mut self) {
        if self.goes_on {
            // It has died, or its runtime has: whoever comes next has the queue served again.
            self.queue.lines().is_served = false;
        }
    }
}
