//! Connections of those who stream or poll: what they say comes in other requests than what they
//! are told.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::{
    super::users::random,
    talk::{Said, Talk},
};

/// Whoever negotiates and never comes back is forgotten some time.
const MOST_LINES: usize = 1000;
/// Whoever does not listen misses something.
const MOST_UNHEARD: usize = 100;

/// All connections that are not WebSockets.
#[derive(Debug, Default)]
pub(in crate::emulator) struct Lines(Mutex<HashMap<String, Shared>>);

/// One of them.
pub(super) type Shared = Arc<Line>;

#[derive(Debug, Default)]
pub(super) struct Line {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    talk: Talk,
    unheard: VecDeque<String>,
    polled: bool,
}

impl Lines {
    /// Opens one; its id.
    pub(super) fn open(&self) -> String {
        let id = random();
        let mut lines = lock(&self.0);
        if lines.len() >= MOST_LINES {
            lines.clear();
        }
        lines.insert(id.clone(), Shared::default());
        id
    }

    pub(super) fn find(&self, id: &str) -> Option<Shared> {
        lock(&self.0).get(id).cloned()
    }

    /// Whether there was one.
    pub(super) fn close(&self, id: &str) -> bool {
        lock(&self.0).remove(id).is_some()
    }
}

impl Line {
    /// The client says something.
    pub(super) fn hear(&self, text: &str) {
        let mut state = lock(&self.state);
        for said in state.talk.hear(text) {
            let (Said::This(message) | Said::Bye(message)) = said;
            if state.unheard.len() == MOST_UNHEARD {
                state.unheard.pop_front();
            }
            state.unheard.push_back(message);
        }
        self.news.notify_one();
    }

    /// Waits for the next message to the client.
    pub(super) async fn told(&self) -> String {
        loop {
            if let Some(message) = lock(&self.state).unheard.pop_front() {
                return message;
            }
            self.news.notified().await;
        }
    }

    /// Whether both have agreed on the protocol, and the client has been told so.
    pub(super) fn is_greeted(&self) -> bool {
        let state = lock(&self.state);
        state.talk.is_greeted() && state.unheard.is_empty()
    }

    /// Whether the client has polled before.
    pub(super) fn was_polled(&self) -> bool {
        std::mem::replace(&mut lock(&self.state).polled, true)
    }
}

/// Nothing can panic while one of these locks is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
