//! Pauses and what they held back, counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Reason;
use crate::amove::host::Host;

/// One number for each host and reason.
type Table = [[AtomicU64; Reason::ALL.len()]; Host::ALL.len()];

/// What is counted while the gateway runs.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) begun: Counter,
    pub(super) refused: Counter,
    pub(super) waited: Counter,
}

/// What only grows, by host and reason.
#[derive(Debug, Default)]
pub(super) struct Counter(Table);

impl Counter {
    pub(super) fn add(&self, host: Host, reason: Reason) {
        self.0[host as usize][reason as usize].fetch_add(1, Relaxed);
    }

    fn get(&self, host: Host, reason: Reason) -> u64 {
        self.0[host as usize][reason as usize].load(Relaxed)
    }
}

/// What one host has asked for, for one reason, and what came of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Counts {
    /// Which host.
    pub host: Host,
    /// Why.
    pub reason: Reason,
    /// Pauses that began.
    pub begun: u64,
    /// Requests that were refused during one.
    pub refused: u64,
    /// Requests that waited for its end, and could go on.
    pub waited: u64,
}

impl Counters {
    /// As they stand: one of each for every host and reason.
    pub(super) fn read(&self) -> impl Iterator<Item = Counts> {
        let pairs = Host::ALL.into_iter().flat_map(|host| Reason::ALL.map(|reason| (host, reason)));
        pairs.map(|(host, reason)| Counts {
            host,
            reason,
            begun: self.begun.get(host, reason),
            refused: self.refused.get(host, reason),
            waited: self.waited.get(host, reason),
        })
    }
}
