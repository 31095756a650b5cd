//! Wakes whoever uses a connection, but not for what it does itself.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicU8,
            Ordering::{AcqRel, Acquire, Release},
        },
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// How often what has woken itself is polled again at once.
const ROUNDS: usize = 3;

/// The parts of a connection (who sends, who drives, who reads the body) wake each other, and all
/// of them are polled by one task. If their waker were the task's, each request would poll the
/// caller's connection twice for nothing. So they share this one: what is woken while it is polled
/// is polled again on the spot, and only what comes from outside wakes the task.
#[derive(Debug)]
pub(super) struct Quiet {
    waker: Waker,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    task: AtomicWaker,
    state: AtomicU8,
}

/// Nobody polls: a wake goes to the task.
const RESTING: u8 = 0;
/// Somebody polls.
const POLLED: u8 = 1;
/// It was woken while it was polled.
const WOKEN: u8 = 2;

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let note = |state| (state != RESTING).then_some(WOKEN);
        if self.state.fetch_update(AcqRel, Acquire, note).is_err() {
            self.task.wake();
        }
    }
}

impl Quiet {
    pub(super) fn new() -> Self {
        let shared = Arc::<Shared>::default();
        Self { waker: Arc::clone(&shared).into(), shared }
    }

    /// Does something that may wake what is polled next: nobody needs to be told.
    pub(super) fn hush<T>(&self, work: impl FnOnce() -> T) -> T {
        self.shared.state.store(POLLED, Release);
        let result = work();
        self.shared.state.store(RESTING, Release);
        result
    }

    /// Polls `step` on behalf of the task of `cx`.
    pub(super) fn poll<T>(
        &self,
        cx: &Context<'_>,
        mut step: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.shared.task.register(cx.waker());
        let mut inner = Context::from_waker(&self.waker);
        let mut rounds = ROUNDS;
        loop {
            self.shared.state.store(POLLED, Release);
            let polled = step(&mut inner);
            let was_woken = self.shared.state.swap(RESTING, AcqRel) == WOKEN;
            if polled.is_ready() || !was_woken {
                return polled;
            }
            rounds -= 1;
            if rounds == 0 {
                // It has had its share, and the task's other work its turn.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
        task::Poll::{Pending, Ready},
    };

    use super::*;

    /// Counts how often the task is woken.
    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// Polls a step that wakes itself in its first so many rounds: how often it was polled, and how
    /// often the task was woken.
    fn restless(rounds: usize) -> (usize, usize) {
        let (quiet, task, mut polls) = (Quiet::new(), Arc::<Task>::default(), 0);
        let waker = Arc::clone(&task).into();

        let polled = quiet.poll(&Context::from_waker(&waker), |cx| {
            polls += 1;
            if polls <= rounds {
                cx.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        });

        assert!(polled.is_pending());
        (polls, task.0.load(Relaxed))
    }

    #[test]
    fn what_wakes_itself_is_polled_again_and_the_task_is_left_alone() {
        assert_eq!(restless(0), (1, 0));
        assert_eq!(restless(2), (3, 0));
    }

    #[test]
    fn what_never_rests_waits_for_its_turn() {
        assert_eq!(restless(usize::MAX), (ROUNDS, 1));
    }

    #[test]
    fn what_comes_from_outside_wakes_the_task() {
        let (quiet, task) = (Quiet::new(), Arc::<Task>::default());
        let waker = Arc::clone(&task).into();
        let mut inner = None;
        let polled = quiet.poll(&Context::from_waker(&waker), |cx| {
            inner = Some(cx.waker().clone());
            Poll::<()>::Pending
        });

        quiet.hush(|| inner.iter().for_each(Waker::wake_by_ref));
        let hushed = task.0.load(Relaxed);
        inner.iter().for_each(Waker::wake_by_ref);

        assert_eq!((polled, hushed, task.0.load(Relaxed)), (Pending, 0, 1));
        assert_eq!(quiet.poll(&Context::from_waker(&waker), |_| Ready(7)), Ready(7));
    }
}
