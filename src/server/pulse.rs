//! Whether the workers still turn.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::wire::Ticks;

/// The clocks of all workers: each moves its own, a few times a second.
#[derive(Clone, Debug)]
pub struct Pulse(Vec<Seen>);

#[derive(Clone, Debug)]
struct Seen {
    ticks: Arc<Ticks>,
    count: u32,
    /// When it was seen to have moved.
    moved: Instant,
}

impl Pulse {
    /// Of workers with these clocks.
    pub fn of(workers: impl Iterator<Item = Arc<Ticks>>) -> Self {
        let moved = Instant::now();
        Self(workers.map(|ticks| Seen { count: ticks.now(), ticks, moved }).collect())
    }

    /// The workers that have not turned for `patience`. To be asked oftener than that.
    pub fn hung(&mut self, patience: Duration) -> Vec<usize> {
        let now = Instant::now();
        let mut hung = Vec::new();
        for (worker, seen) in self.0.iter_mut().enumerate() {
            let count = seen.ticks.now();
            if count != seen.count {
                (seen.count, seen.moved) = (count, now);
            } else if now.duration_since(seen.moved) >= patience {
                hung.push(worker);
            }
        }
        hung
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_does_not_turn_is_found_until_it_does() {
        let workers: [Arc<Ticks>; 2] = Default::default();
        let mut pulse = Pulse::of(workers.iter().cloned());
        let patience = Duration::from_secs(3);

        for _ in 0..3 {
            assert!(pulse.hung(patience).is_empty());
            advance(Duration::from_secs(1)).await;
            workers[0].advance();
        }
        assert_eq!(pulse.hung(patience), [1]);
        workers[1].advance();
        assert!(pulse.hung(patience).is_empty());
    }
}
