//! What has happened, counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::status::Counts;

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The counters behind [`Counts`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) logins_ok: Counter,
    pub(super) logins_refused: Counter,
    pub(super) logins_quota: Counter,
    pub(super) logins_failed: Counter,
    pub(super) adoptions: Counter,
    pub(super) logouts_ok: Counter,
    pub(super) logouts_failed: Counter,
    pub(super) denials: Counter,
    pub(super) store_errors: Counter,
    pub(super) keeper_restarts: Counter,
}

impl Counters {
    /// As they stand.
    pub(super) fn read(&self) -> Counts {
        Counts {
            logins_ok: self.logins_ok.get(),
            logins_refused: self.logins_refused.get(),
            logins_quota: self.logins_quota.get(),
            logins_failed: self.logins_failed.get(),
            adoptions: self.adoptions.get(),
            logouts_ok: self.logouts_ok.get(),
            logouts_failed: self.logouts_failed.get(),
            denials: self.denials.get(),
            store_errors: self.store_errors.get(),
            keeper_restarts: self.keeper_restarts.get(),
        }
    }
}
