//! What must not die is started again when it does, and that is counted.
//!
//! A panic ends a task or a thread, and nothing else. Whoever serves many is supervised; whoever
//! serves one (a connection, an order, one call) ends with that, and gives back what it holds.

use std::{
    collections::BTreeMap,
    fmt::Display,
    future::pending,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    runtime::Handle,
    task::{JoinError, spawn_blocking},
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{error, warn};

/// Between the first two lives; the pause doubles with each.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// The same for a thread, which cannot be told to stop while it waits.
const SHORTEST_OF_THREAD: Duration = Duration::from_millis(100);
const LONGEST_OF_THREAD: Duration = Duration::from_secs(5);
/// Who has lived so long has recovered.
const WELL: Duration = Duration::from_secs(60);

/// How often something has died.
#[derive(Clone, Debug)]
pub struct Deaths {
    name: &'static str,
    count: Arc<AtomicU64>,
}

impl Deaths {
    /// Of what operators know by that name.
    pub fn of(name: &'static str) -> Self {
        Self { name, count: Arc::default() }
    }

    /// It has died, and will be started again.
    pub fn note(&self) {
        self.count.fetch_add(1, Relaxed);
        error!(task = self.name, "a task has died; it is started again");
    }

    /// How often it has died.
    pub fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }
}

/// Everything that is supervised.
#[derive(Debug, Default)]
pub struct Register(Mutex<Vec<Deaths>>);

impl Register {
    /// Takes note of one more; with a name that is known already, they are counted together.
    pub fn add(&self, deaths: Deaths) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(deaths);
    }

    /// Something by that name: the one that is known, or a new one.
    pub fn of(&self, name: &'static str) -> Deaths {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(deaths) = known.iter().find(|deaths| deaths.name == name) {
            return deaths.clone();
        }
        let deaths = Deaths::of(name);
        known.push(deaths.clone());
        deaths
    }

    /// How often each has died.
    pub fn read(&self) -> BTreeMap<&'static str, u64> {
        let mut all = BTreeMap::new();
        for deaths in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            *all.entry(deaths.name).or_default() += deaths.count();
        }
        all
    }
}

/// How long to wait before the next life.
#[derive(Debug)]
struct Pauses {
    next: Duration,
    shortest: Duration,
    longest: Duration,
}

impl Pauses {
    const fn new(shortest: Duration, longest: Duration) -> Self {
        Self { next: shortest, shortest, longest }
    }

    fn after(&mut self, life: Duration) -> Duration {
        if life >= WELL {
            self.next = self.shortest;
        }
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause
    }
}

/// Runs `work` on `runtime` until it ends by itself, or is stopped between two lives; if it dies, `died`
/// is told, and it is started again. Dropped, it ends that as well.
pub async fn supervise<F>(
    runtime: Handle,
    stop: CancellationToken,
    work: impl Fn() -> F,
    died: impl Fn(),
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut pauses = Pauses::new(SHORTEST, LONGEST);
    loop {
        let born = Instant::now();
        if AbortOnDropHandle::new(runtime.spawn(work())).await.is_ok() {
            return;
        }
        died();
        if stop.run_until_cancelled(sleep(pauses.after(born.elapsed()))).await.is_none() {
            return;
        }
    }
}

/// Runs `work` on this thread until it ends by itself; if it dies or fails, it is called again.
pub fn supervise_here<E: Display>(deaths: &Deaths, mut work: impl FnMut() -> Result<(), E>) {
    let mut pauses = Pauses::new(SHORTEST_OF_THREAD, LONGEST_OF_THREAD);
    loop {
        let born = std::time::Instant::now();
        // What is seen by the next life is behind locks and atomics, or is made anew.
        match catch_unwind(AssertUnwindSafe(&mut work)) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => warn!(task = deaths.name, error = %error, "a task has failed"),
            // It was told by the panic itself.
            Err(_) => {}
        }
        deaths.note();
        std::thread::sleep(pauses.after(born.elapsed()));
    }
}

/// Does `work` where it may block. If it dies, so does whoever waits for it: it is not to go on without.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await.map_err(JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => resume_unwind(panic),
        // The runtime ends, and takes us with it.
        Err(Err(_)) => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_dies_is_started_again_after_longer_and_longer_pauses() {
        let (starts, deaths) = (Arc::new(AtomicU64::new(0)), Deaths::of("x"));
        let counted = Arc::clone(&starts);
        let work = move || {
            let start = counted.fetch_add(1, Relaxed);
            async move { assert!(start >= 3, "the first three die") }
        };
        let begin = Instant::now();

        supervise(Handle::current(), CancellationToken::new(), work, || deaths.note()).await;

        assert_eq!((starts.load(Relaxed), deaths.count()), (4, 3));
        assert_eq!(begin.elapsed().as_secs(), 1 + 2 + 4);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_blocking_work_that_dies_is_started_again_too() {
        let (starts, deaths) = (Arc::new(AtomicU64::new(0)), Deaths::of("x"));
        let counted = Arc::clone(&starts);
        let work = move || {
            let counted = Arc::clone(&counted);
            async move {
                let first = blocking(move || counted.fetch_add(1, Relaxed) == 0).await;
                blocking(move || assert!(!first, "the first one dies")).await;
            }
        };

        supervise(Handle::current(), CancellationToken::new(), work, || deaths.note()).await;

        assert_eq!((starts.load(Relaxed), deaths.count()), (2, 1));
    }

    #[tokio::test]
    async fn who_is_dropped_takes_its_work_along() {
        let work = Arc::new(());
        let held = Arc::clone(&work);
        let work_for_ever = move || {
            let held = Arc::clone(&held);
            async move {
                let _held = held;
                pending().await
            }
        };
        let supervised =
            supervise(Handle::current(), CancellationToken::new(), work_for_ever, || ());
        let supervised = tokio::spawn(supervised);
        tokio::task::yield_now().await;

        supervised.abort();

        assert!(supervised.await.is_err());
        while Arc::strong_count(&work) > 1 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_stopped_is_not_started_again() {
        let (stop, deaths) = (CancellationToken::new(), Deaths::of("x"));
        stop.cancel();

        let work = || async { panic!("it dies") };
        supervise(Handle::current(), stop, work, || deaths.note()).await;

        assert_eq!(deaths.count(), 1);
    }

    #[test]
    fn a_thread_goes_on_as_well() {
        let (deaths, mut starts) = (Deaths::of("x"), 0);

        supervise_here(&deaths, || {
            starts += 1;
            assert!(starts >= 2, "the first one dies");
            if starts == 2 { Err("the second one fails") } else { Ok(()) }
        });

        assert_eq!((starts, deaths.count()), (3, 2));
    }

    #[test]
    fn pauses_grow_to_a_minute_and_begin_anew_with_who_has_recovered() {
        let mut pauses = Pauses::new(SHORTEST, LONGEST);

        let all: Vec<_> = (0..8).map(|_| pauses.after(Duration::ZERO).as_secs()).collect();

        assert_eq!(all, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pauses.after(WELL), SHORTEST);
    }

    #[test]
    fn those_of_one_name_are_counted_together() {
        let register = Register::default();
        let (one, other) = (register.of("x"), Deaths::of("x"));
        register.add(other.clone());
        one.note();
        other.note();
        register.of("x").note();
        register.of("y");

        assert_eq!(register.read(), BTreeMap::from([("x", 3), ("y", 0)]));
    }
}
