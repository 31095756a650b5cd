//! Hands records over to the writer: many at a time, so that a request does not pay for waking it.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::Record;

/// Records that may wait. When the writer falls further behind, they are lost, and counted.
const WAITING: usize = 16 * 1024;

/// How long the writer lets records gather.
const GATHER: Duration = Duration::from_millis(5);

/// Records on their way.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    records: Vec<Record>,
    /// The writer sleeps until there is a record.
    idle: bool,
    ended: bool,
}

impl Queue {
    /// Adds `record`; says whether there was room. Only the first one wakes the writer.
    pub(super) fn push(&self, record: Record) -> bool {
        let mut state = self.state();
        let has_room = state.records.len() < WAITING && !state.ended;
        if has_room {
            state.records.push(record);
        }
        let wake = std::mem::take(&mut state.idle);
        drop(state);
        if wake {
            self.news.notify_one();
        }
        has_room
    }

    /// No more records will come.
    pub(super) fn end(&self) {
        self.state().ended = true;
        self.news.notify_one();
    }

    /// Waits for records, lets a few more gather, and moves them into `records`, which is empty.
    /// Says whether there may be more.
    pub(super) fn take(&self, records: &mut Vec<Record>) -> bool {
        let mut state = self.state();
        while state.records.is_empty() && !state.ended {
            state.idle = true;
            state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let may_gather = |state: &mut State| !state.ended && state.records.len() < WAITING / 2;
        let (mut state, _) = (self.news.wait_timeout_while(state, GATHER, may_gather))
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut state.records, records);
        !records.is_empty()
    }

    /// Nothing can panic while this lock is held.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
