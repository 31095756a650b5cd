//! Deadlines that cost next to nothing as long as they are met.
//!
//! A timer of the runtime is put into a wheel and taken out again for each request, and each time
//! the clock is asked. Here a future that waits only leaves its name; one task for all of them looks
//! a few times a second who has waited too long.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use slab::Slab;
use tokio::time::{Instant, sleep};

/// How often it is looked. Nobody is told too early, and nobody later than this.
const TICK: Duration = Duration::from_millis(100);

/// Those who wait, and until when. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Deadlines(Arc<Shared>);

/// It took longer than it may.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("it took too long")]
pub struct Elapsed;

#[derive(Debug, Default)]
struct Shared(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: Slab<Waiting>,
    /// Somebody looks.
    is_watched: bool,
}

#[derive(Debug)]
struct Waiting {
    due: Instant,
    waker: Waker,
    is_over: bool,
}

/// See [`Deadlines::within`].
#[derive(Debug)]
pub struct Within<'a, F> {
    deadlines: &'a Deadlines,
    limit: Duration,
    future: F,
    place: Option<usize>,
}

impl Deadlines {
    /// Waits for `future`, but no longer than `limit`, counted from when it first has to wait.
    ///
    /// Has to be polled on a runtime of tokio.
    pub fn within<F: Future + Unpin>(&self, limit: Duration, future: F) -> Within<'_, F> {
        Within { deadlines: self, limit, future, place: None }
    }

    /// Watches over something for longer than one wait; nothing of it may last longer than `limit`.
    pub fn silence(&self, limit: Duration) -> Silence {
        Silence { deadlines: self.clone(), limit, place: None }
    }

    /// Whether the time of whoever waits at `place` is over.
    fn look_after(&self, place: usize, cx: &Context<'_>) -> Poll<()> {
        match self.0.lock().waiting.get_mut(place) {
            Some(waiting) if waiting.is_over => Poll::Ready(()),
            Some(waiting) => {
                waiting.waker.clone_from(cx.waker());
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }

    fn enter(&self, limit: Duration, waker: &Waker) -> usize {
        let due = Instant::now() + limit;
        let mut state = self.0.lock();
        if !std::mem::replace(&mut state.is_watched, true) {
            let deadlines = Arc::downgrade(&self.0);
            tokio::spawn(watch(Watch { deadlines, goes_on: true }));
        }
        state.waiting.insert(Waiting { due, waker: waker.clone(), is_over: false })
    }
}

impl<F: Future + Unpin> Future for Within<'_, F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = Pin::new(&mut self.future).poll(cx) {
            return Poll::Ready(Ok(output));
        }
        let Some(place) = self.place else {
            self.place = Some(self.deadlines.enter(self.limit, cx.waker()));
            return Poll::Pending;
        };
        self.deadlines.look_after(place, cx).map(|()| Err(Elapsed))
    }
}

impl<F> Drop for Within<'_, F> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.deadlines.0.lock().waiting.try_remove(place);
        }
    }
}

/// Watches over what is polled again and again: how long it says nothing. It costs nothing as long as
/// nobody has to wait.
#[derive(Debug)]
pub struct Silence {
    deadlines: Deadlines,
    limit: Duration,
    place: Option<usize>,
}

impl Silence {
    /// What is watched over has nothing to say at the moment: ready when that has lasted too long.
    pub fn poll_elapsed(&mut self, cx: &Context<'_>) -> Poll<Elapsed> {
        match self.place {
            Some(place) => self.deadlines.look_after(place, cx).map(|()| Elapsed),
            None => {
                self.place = Some(self.deadlines.enter(self.limit, cx.waker()));
                Poll::Pending
            }
        }
    }

    /// It has said something, or nobody waits for it any more.
    pub fn end(&mut self) {
        if let Some(place) = self.place.take() {
            self.deadlines.0.lock().waiting.try_remove(place);
        }
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    /// Nothing can panic while this lock is held.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes those who have waited too long. Says whether to go on; if nobody waits, whoever comes
    /// next begins anew.
    fn look(&self) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        for (_, waiting) in &mut state.waiting {
            if waiting.due <= now {
                waiting.is_over = true;
                waiting.waker.wake_by_ref();
            }
        }
        state.is_watched = !state.waiting.is_empty();
        state.is_watched
    }
}

/// Looks as long as somebody waits.
async fn watch(mut watch: Watch) {
    while watch.goes_on {
        sleep(TICK).await;
        watch.goes_on = watch.deadlines.upgrade().is_some_and(|deadlines| deadlines.look());
    }
}

/// Whoever looks.
struct Watch {
    deadlines: Weak<Shared>,
    goes_on: bool,
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Its runtime has ended in the middle of it: somebody else has to look.
        if self.goes_on
            && let Some(deadlines) = self.deadlines.upgrade()
        {
            deadlines.lock().is_watched = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn, ready};

    use tokio::time::sleep;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_told_when_it_is_due_or_soon_after() {
        let deadlines = Deadlines::default();
        let begin = Instant::now();

        let told = deadlines.within(SECOND, pending::<()>()).await;

        assert_eq!(told, Err(Elapsed));
        let waited = begin.elapsed();
        assert!((SECOND..=SECOND + TICK * 2).contains(&waited), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_in_time_hears_nothing_of_it() {
        let deadlines = Deadlines::default();

        assert_eq!(deadlines.within(SECOND, ready(7)).await, Ok(7));
        let late = Box::pin(sleep(SECOND - Duration::from_millis(1)));
        assert_eq!(deadlines.within(SECOND, late).await, Ok(()));
        assert!(deadlines.0.lock().waiting.is_empty(), "nobody is left behind");
    }

    #[tokio::test(start_paused = true)]
    async fn who_looks_goes_home_when_nobody_waits_and_comes_back() {
        let deadlines = Deadlines::default();
        for _ in 0..3 {
            let short = Box::pin(sleep(TICK / 2));
            assert_eq!(deadlines.within(SECOND, short).await, Ok(()));
            assert!(deadlines.0.lock().is_watched);
            sleep(TICK * 2).await;
            assert!(!deadlines.0.lock().is_watched);
        }
        let (first, second) = tokio::join!(
            deadlines.within(SECOND, pending::<()>()),
            deadlines.within(SECOND * 2, pending::<()>()),
        );
        assert_eq!((first, second), (Err(Elapsed), Err(Elapsed)));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_counted_from_what_was_said_last() {
        let deadlines = Deadlines::default();
        let mut silence = deadlines.silence(SECOND);
        let begin = Instant::now();
        for _ in 0..5 {
            let pending = poll_fn(|cx| Poll::Ready(silence.poll_elapsed(cx).is_pending())).await;
            assert!(pending);
            sleep(SECOND - Duration::from_millis(1)).await;
            silence.end();
        }
        assert!(deadlines.0.lock().waiting.is_empty(), "nobody is left behind");

        poll_fn(|cx| silence.poll_elapsed(cx)).await;

        let waited = begin.elapsed();
        assert!((5 * SECOND..SECOND * 6 + TICK * 2).contains(&waited), "{waited:?}");
        drop(silence);
        assert!(deadlines.0.lock().waiting.is_empty());
    }

    #[test]
    fn another_runtime_looks_when_the_first_has_ended() {
        let deadlines = Deadlines::default();
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_time().start_paused(true).build().expect("a runtime")
        };
        runtime().block_on(async {
            let waiting = deadlines.within(SECOND, pending::<()>());
            assert!(tokio::time::timeout(TICK / 2, waiting).await.is_err());
        });

        let told = runtime().block_on(deadlines.within(SECOND, pending::<()>()));

        assert_eq!(told, Err(Elapsed));
    }
}
