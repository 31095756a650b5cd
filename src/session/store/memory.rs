//! Sessions that end with the process: nobody shares them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Claim, Entry, Lease, LeaseKind, Left, Look, Put, Revision};

/// One identity's place in memory.
#[derive(Debug, Default)]
pub(in crate::session) struct Memory(Mutex<(u64, Entry)>);

impl Memory {
    pub(super) fn look(&self, known: Option<Revision>) -> Look {
        let (revision, entry) = &*self.lock();
        let revision = Revision(*revision);
        let entry = (known != Some(revision)).then(|| entry.clone());
        Look { revision, entry, members: 1 }
    }

    /// Within the process, one login at a time is seen to already.
    pub(super) fn claim(&self) -> Claim {
        Claim::Mine(Lease(LeaseKind::Memory), self.lock().1.clone())
    }

    pub(super) fn put(&self, entry: &Entry) -> Put {
        let (revision, kept) = &mut *self.lock();
        *revision += 1;
        *kept = entry.clone();
        Put::Done(Revision(*revision))
    }

    pub(super) fn leave(&self) -> Left {
        Left::Nobody(std::mem::take(&mut self.lock().1))
    }

    fn lock(&self) -> MutexGuard<'_, (u64, Entry)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
