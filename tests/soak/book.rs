//! What was asked, what was heard, and what should not have been.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// More than this need not be told.
const MOST: usize = 20;

/// In a row, after which all is well again.
const WELL: u64 = 100;

/// What became of a call.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Heard {
    /// A whole answer with this status.
    Answer(u16),
    /// The head of an answer with this status, and not all of its body.
    Cut(u16),
    /// The caller has left before.
    Left,
}

/// How often something was heard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(BTreeMap<Heard, u64>);

/// All of it, shared by whoever calls.
#[derive(Clone, Debug)]
pub(crate) struct Book(Arc<Pages>);

#[derive(Debug)]
struct Pages {
    begun: Instant,
    /// Whether calls may fail, if it is in an honest way.
    trouble: AtomicBool,
    numbers: AtomicU64,
    /// Good answers since the last that was none.
    well: AtomicU64,
    heard: Mutex<Vec<(u64, Heard)>>,
    tally: Mutex<Tally>,
    wrongs: Mutex<Vec<String>>,
}

impl Book {
    pub(crate) fn open() -> Self {
        Self(Arc::new(Pages {
            begun: Instant::now(),
            trouble: AtomicBool::new(false),
            numbers: AtomicU64::new(1),
            well: AtomicU64::new(0),
            heard: Mutex::default(),
            tally: Mutex::default(),
            wrongs: Mutex::default(),
        }))
    }

    pub(crate) fn age(&self) -> Duration {
        self.0.begun.elapsed()
    }

    /// Calls may fail from now on, or must not any more.
    pub(crate) fn expect_trouble(&self, trouble: bool) {
        self.0.trouble.store(trouble, Relaxed);
    }

    pub(crate) fn is_trouble_expected(&self) -> bool {
        self.0.trouble.load(Relaxed)
    }

    /// The number of the next call.
    pub(crate) fn number(&self) -> u64 {
        self.0.numbers.fetch_add(1, Relaxed)
    }

    /// Takes down what became of call `number`, and whether that is what it would be without trouble.
    pub(crate) fn heard(&self, number: u64, heard: Heard, is_well: bool) {
        match is_well {
            true => drop(self.0.well.fetch_add(1, Relaxed)),
            false => self.0.well.store(0, Relaxed),
        }
        self.note(number, heard);
    }

    /// Takes down that nobody waited for what becomes of call `number`.
    pub(crate) fn left(&self, number: u64) {
        self.note(number, Heard::Left);
    }

    fn note(&self, number: u64, heard: Heard) {
        lock(&self.0.heard).push((number, heard));
        *lock(&self.0.tally).0.entry(heard).or_default() += 1;
    }

    /// Something that must never be.
    pub(crate) fn wrong(&self, what: String) {
        println!("WRONG at {:.1} s: {what}", self.age().as_secs_f64());
        let mut wrongs = lock(&self.0.wrongs);
        if wrongs.len() < MOST {
            wrongs.push(what);
        }
    }

    /// Whether there is nothing that must never be, or not much.
    pub(crate) fn is_clean(&self) -> bool {
        lock(&self.0.wrongs).len() < MOST
    }

    pub(crate) fn wrongs(&self) -> Vec<String> {
        lock(&self.0.wrongs).clone()
    }

    pub(crate) fn tally(&self) -> Tally {
        lock(&self.0.tally).clone()
    }

    /// What became of each call.
    pub(crate) fn entries(&self) -> BTreeMap<u64, Heard> {
        lock(&self.0.heard).iter().copied().collect()
    }

    /// Waits until one good answer follows another; whether they do.
    pub(crate) async fn recovers(&self, within: Duration) -> bool {
        let begun = Instant::now();
        self.0.well.store(0, Relaxed);
        while begun.elapsed() < within {
            if self.0.well.load(Relaxed) >= WELL {
                println!("{:>6.1} s  recovered", self.age().as_secs_f64());
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.wrong(format!("not all is well {within:?} after the last fault: {}", self.tally()));
        false
    }
}

impl Tally {
    /// What has come to it.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let more = self.0.iter().map(|(heard, count)| {
            (*heard, count - before.0.get(heard).copied().unwrap_or_default())
        });
        Self(more.filter(|(_, count)| *count > 0).collect())
    }

    /// Of all answers, those that did what was asked.
    pub(crate) fn share_of_good(&self) -> f64 {
        let count = |is: fn(u16) -> bool| {
            let all = self.0.iter().filter(|(heard, _)| match heard {
                Heard::Answer(status) => is(*status),
                Heard::Cut(_) | Heard::Left => false,
            });
            all.map(|(_, count)| *count).sum::<u64>() as f64
        };
        count(|status| status < 500) / count(|_| true).max(1.0)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (heard, count)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            match heard {
                Heard::Answer(status) => write!(f, "{comma}{count} × {status}")?,
                Heard::Cut(status) => write!(f, "{comma}{count} × {status} cut")?,
                Heard::Left => write!(f, "{comma}{count} left")?,
            }
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
