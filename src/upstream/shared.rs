//! The connection that all requests of a worker share, where the host speaks HTTP/2.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::client::conn::http2::SendRequest;
use tokio::time::Instant;

use super::{counts::Ending, life::Life};
use crate::message::Body;

/// How long an aged connection goes on, until it is tried again to replace it.
const REPLACE_AGAIN: Duration = Duration::from_secs(10);

/// Where the connection is kept.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    shared: Option<Shared>,
    /// How many there have been.
    number: u64,
}

#[derive(Debug)]
struct Shared {
    sender: SendRequest<Body>,
    life: Arc<Life>,
    /// No replacement is opened before.
    replace_after: Option<Instant>,
}

/// A share of the connection.
pub(super) struct Share {
    pub(super) sender: SendRequest<Body>,
    /// Which connection it is.
    pub(super) number: u64,
    /// It is old, and whoever holds this is the one to replace it.
    pub(super) wants_replacement: bool,
}

impl Slot {
    /// A share of the connection, if there is one that takes requests.
    pub(super) fn share(&self, now: Instant) -> Option<Share> {
        let mut state = self.lock();
        let number = state.number;
        let shared = state.shared.as_mut()?;
        let ending = shared.sender.is_closed().then_some(Ending::Peer);
        let wants_replacement = match ending.or_else(|| shared.life.spent(now)) {
            None => false,
            // It goes on until another one is there.
            Some(Ending::Aged) => {
                let is_time = shared.replace_after.is_none_or(|after| after <= now);
                if is_time {
                    shared.replace_after = Some(now + REPLACE_AGAIN);
                }
                is_time
            }
            Some(ending) => {
                shared.life.end(ending);
                state.shared = None;
                return None;
            }
        };
        Some(Share { sender: shared.sender.clone(), number, wants_replacement })
    }

    /// Another connection: that before it ends with its last exchange.
    pub(super) fn put(&self, sender: SendRequest<Body>, life: Arc<Life>) -> Share {
        let mut state = self.lock();
        state.number += 1;
        let share =
            Share { sender: sender.clone(), number: state.number, wants_replacement: false };
        let before = state.shared.replace(Shared { sender, life, replace_after: None });
        if let Some(before) = before {
            before.life.end(before.life.spent(Instant::now()).unwrap_or(Ending::Unused));
        }
        share
    }

    /// No other request goes over the connection of that number: it ends with its last exchange.
    pub(super) fn retire(&self, number: u64, ending: Ending) {
        let mut state = self.lock();
        if state.number == number
            && let Some(shared) = state.shared.take()
        {
            shared.life.end(ending);
        }
    }

    /// The host has changed its mind about HTTP/2.
    pub(super) fn empty(&self) {
        if let Some(before) = self.lock().shared.take() {
            before.life.end(Ending::Unused);
        }
    }

    /// Nothing can panic while this lock is held.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
