//! Records that are written together, and those who wait for that.

use std::sync::atomic::{
    AtomicU8, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use tokio::sync::Notify;

/// A record could not be written, and nothing may happen without one.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the audit log cannot be written")]
pub struct Unwritten;

/// Records that are written together.
#[derive(Debug, Default)]
pub(super) struct Group {
    state: AtomicU8,
    /// Records in it that nobody waits for.
    unattended: AtomicUsize,
    /// How many lost records are told of in it.
    gap: AtomicU64,
    resolved: Notify,
}

impl Group {
    const OPEN: u8 = 0;
    const WRITTEN: u8 = 1;
    const FAILED: u8 = 2;
    /// Written, but not yet on the disk.
    const HANDED_OVER: u8 = 3;

    pub(super) fn resolve(&self, written: bool) {
        self.state.store(if written { Self::WRITTEN } else { Self::FAILED }, Release);
        self.resolved.notify_waiters();
    }

    /// Waits until it is known what came of it.
    pub(super) async fn outcome(&self) -> Result<(), Unwritten> {
        // Mostly it is known, and there is nothing to listen for.
        if let Some(outcome) = self.known() {
            return outcome;
        }
        loop {
            let resolved = self.resolved.notified();
            tokio::pin!(resolved);
            // First the ear, then the look: a call in between is not missed.
            resolved.as_mut().enable();
            match self.known() {
                Some(outcome) => return outcome,
                None => resolved.await,
            }
        }
    }

    /// What came of it, if that is known.
    fn known(&self) -> Option<Result<(), Unwritten>> {
        match self.state.load(Acquire) {
            Self::WRITTEN => Some(Ok(())),
            Self::FAILED => Some(Err(Unwritten)),
            _ => None,
        }
    }

    /// Whether it is known what came of it.
    pub(super) fn is_resolved(&self) -> bool {
        self.known().is_some()
    }

    /// Nobody has written it yet.
    pub(super) fn is_open(&self) -> bool {
        self.state.load(Acquire) == Self::OPEN
    }

    /// It is written; somebody else sees to it that it is on the disk.
    pub(super) fn hand_over(&self) {
        self.state.store(Self::HANDED_OVER, Release);
    }

    /// One more record in it that nobody waits for.
    pub(super) fn add_unattended(&self) {
        self.unattended.fetch_add(1, Relaxed);
    }

    /// So many records in it that nobody waits for.
    pub(super) fn set_unattended(&self, records: usize) {
        self.unattended.store(records, Relaxed);
    }

    /// That so many records were lost is told in it.
    pub(super) fn add_gap(&self, lost: u64) {
        self.gap.fetch_add(lost, Relaxed);
    }

    pub(super) fn gap(&self) -> u64 {
        self.gap.load(Relaxed)
    }

    pub(super) fn unattended(&self) -> usize {
        self.unattended.load(Relaxed)
    }
}
