//! How shipping fares, for operators.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// How the central store fares.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct State {
    /// Whether it can be reached.
    pub up: bool,
    /// Why not; nothing before the first try.
    pub failure: Option<String>,
    /// The number of the last record that has arrived.
    pub seq: u64,
    /// Records that have not arrived yet.
    pub behind: u64,
    /// How long ago the first of them was written, in seconds.
    pub behind_seconds: u64,
    /// Records that have arrived since the start.
    pub shipped: u64,
    /// Records that it does not take, or that cannot be read, since the start: they are only here.
    pub refused: u64,
    /// Records that were gone before they were shipped, since the start.
    pub missing: u64,
    /// Times that it could not be reached since the start.
    pub outages: u64,
}

/// The same, as it is kept.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) up: AtomicBool,
    failure: Mutex<Option<String>>,
    /// The number of the last record that has arrived.
    pub(super) cursor: watch::Sender<u64>,
    /// When the first record that has not was written, in microseconds since 1970.
    pub(super) waiting: AtomicI64,
    pub(super) shipped: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) missing: AtomicU64,
    pub(super) outages: AtomicU64,
}

impl Progress {
    pub(super) fn new(cursor: u64) -> Self {
        Self {
            up: AtomicBool::new(false),
            failure: Mutex::default(),
            cursor: watch::Sender::new(cursor),
            waiting: AtomicI64::new(i64::MAX),
            shipped: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            missing: AtomicU64::new(0),
            outages: AtomicU64::new(0),
        }
    }

    /// As operators see it; the embedded store has got to the record `last`.
    pub(super) fn state(&self, last: u64, now: Timestamp) -> State {
        let seq = *self.cursor.borrow();
        let behind = last.saturating_sub(seq);
        // Not known until it is read, which is done even when it cannot be shipped.
        let waiting =
            Some(self.waiting.load(Relaxed)).filter(|time| *time < i64::MAX && behind > 0);
        let since = waiting.map_or(0, |time| now.as_microsecond().saturating_sub(time));
        State {
            up: self.up.load(Relaxed),
            failure: self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            seq,
            behind,
            behind_seconds: u64::try_from(since / 1_000_000).unwrap_or(0),
            shipped: self.shipped.load(Relaxed),
            refused: self.refused.load(Relaxed),
            missing: self.missing.load(Relaxed),
            outages: self.outages.load(Relaxed),
        }
    }

    /// It can be reached; says whether that is news.
    pub(super) fn set_up(&self) -> bool {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = None;
        !self.up.swap(true, Relaxed)
    }

    /// It cannot; says whether that is news.
    pub(super) fn set_down(&self, reason: String) -> bool {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = failure.replace(reason).is_none();
        self.up.store(false, Relaxed);
        if is_news {
            self.outages.fetch_add(1, Relaxed);
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_news_once_and_so_is_its_end() {
        let progress = Progress::new(0);

        assert!(progress.set_down("gone".into()));
        assert!(!progress.set_down("still gone".into()));
        let state = progress.state(0, Timestamp::UNIX_EPOCH);
        assert_eq!((state.outages, state.failure.as_deref()), (1, Some("still gone")));
        assert!(progress.set_up());
        assert!(!progress.set_up());
        assert_eq!(progress.state(0, Timestamp::UNIX_EPOCH).failure, None);
    }

    #[test]
    fn the_lag_is_counted_in_records_and_in_seconds() {
        let progress = Progress::new(7);
        let now = Timestamp::from_second(100).expect("a time");
        let lag = |last| {
            let state = progress.state(last, now);
            (state.behind, state.behind_seconds)
        };

        assert_eq!(lag(10), (3, 0));
        progress.waiting.store(40_000_000, Relaxed);
        assert_eq!(lag(10), (3, 60));
        assert_eq!(lag(7), (0, 0));
    }
}
