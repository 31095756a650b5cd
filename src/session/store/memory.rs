//! Sessions that end with the process: nobody shares them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Entry, Look, Revision, Step, is_free};

/// One identity's place in memory.
#[derive(Debug, Default)]
pub(in crate::session) struct Memory(Mutex<Place>);

#[derive(Debug, Default)]
struct Place {
    revision: u64,
    entry: Entry,
    steps_used_until: u64,
}

impl Memory {
    pub(super) fn look(&self, known: Option<Revision>) -> Look {
        let place = self.lock();
        let revision = Revision(place.revision);
        let entry = (known != Some(revision)).then(|| place.entry.clone());
        Look { revision, entry, members: 1 }
    }

    pub(super) fn entry(&self) -> Entry {
        self.lock().entry.clone()
    }

    pub(super) fn put(&self, entry: &Entry) -> Revision {
        let mut place = self.lock();
        place.revision += 1;
        place.entry = entry.clone();
        Revision(place.revision)
    }

    pub(super) fn take_step(&self, end: u64, period: u64) -> Step {
        let mut place = self.lock();
        if !is_free(end, period, place.steps_used_until) {
            return Step::UsedUntil(place.steps_used_until);
        }
        place.steps_used_until = end;
        Step::Taken
    }

    pub(super) fn leave(&self) -> Entry {
        std::mem::take(&mut self.lock().entry)
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
