//! What the task tells those who wait for a token, and operators.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use super::Keeper;
use crate::session::{
    Error, State,
    machine::{Machine, Refusal, Tickets},
    store::Failure,
};

/// A refusal is never told with a shorter pause.
const SHORTEST: Duration = Duration::from_secs(1);
/// When nobody knows better.
const PAUSE: Duration = Duration::from_secs(5);

/// What the task tells those who wait.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct View {
    /// How many sessions have been put in force.
    generation: u64,
    /// Whether a token may come of what is going on.
    pub(super) pending: bool,
    /// Why no login is tried.
    pub(super) refusal: Option<Refusal>,
    /// Denials up to this generation have been looked at.
    pub(super) denials_seen: u64,
    /// No login comes of a denial before this time.
    denials_held: Option<Timestamp>,
    pub(super) tickets: Tickets,
    store_error: Option<Arc<str>>,
    /// There will be no other token.
    pub(super) ended: bool,
}

/// What the task tells operators.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) state: State,
    pub(super) failure: Option<String>,
    pub(super) retries: Option<Timestamp>,
    pub(super) members: usize,
    pub(super) store_error: Option<String>,
    pub(super) seen: Timestamp,
}

impl Snapshot {
    /// Before anything has happened.
    pub(super) fn at(now: Timestamp) -> Self {
        Self {
            state: State::None,
            failure: None,
            retries: None,
            members: 1,
            store_error: None,
            seen: now,
        }
    }

    pub(super) fn of(machine: &Machine, now: Timestamp) -> Self {
        let refusal = machine.refusal(now);
        let (failure, retries) = match &refusal {
            Some(Refusal::Failed { failure: Failure::Refused, reason, .. }) => (Some(reason), None),
            Some(Refusal::Failed { reason, until, .. } | Refusal::Store { reason, until }) => {
                (Some(reason), Some(*until))
            }
            Some(Refusal::Unreadable(reason)) => (Some(reason), None),
            None => (machine.last_failure(), None),
        };
        Self {
            state: machine.state(now),
            failure: failure.map(|reason| reason.to_string()),
            retries,
            members: machine.members(),
            store_error: machine.store_error().map(|reason| reason.to_string()),
            seen: now,
        }
    }
}

impl View {
    pub(super) fn of(machine: &Machine, now: Timestamp) -> Self {
        let (denials_seen, denials_held) = machine.denials();
        Self {
            generation: machine.generation(),
            pending: machine.is_pending(),
            refusal: machine.refusal(now),
            denials_seen,
            denials_held,
            tickets: machine.tickets(),
            store_error: machine.store_error().cloned(),
            ended: machine.has_ended(),
        }
    }
}

impl Keeper {
    /// Why there is nothing to wait for, if there is not.
    pub(super) fn failure(&self, view: &View) -> Option<Error> {
        if view.ended {
            return Some(self.broken_off());
        }
        let refusal = view.refusal.as_ref().filter(|_| !view.pending)?;
        Some(self.refused(refusal))
    }

    /// Why no login comes of a denial.
    pub(super) fn denials_held(&self, view: &View) -> Option<Error> {
        let identity = Arc::clone(&self.name);
        let held = view.denials_held.filter(|until| *until > self.shared.clock.now())?;
        Some(Error::Denied { identity, retry_after: self.pause(held) })
    }

    /// Why an operator's wish was not fulfilled.
    pub(super) fn why_not(&self, view: &View) -> Error {
        let store = || {
            let reason = Arc::clone(view.store_error.as_ref()?);
            let identity = Arc::clone(&self.name);
            Some(Error::Store { identity, reason, retry_after: PAUSE })
        };
        let refusal = view.refusal.as_ref().map(|refusal| self.refused(refusal));
        refusal.or_else(store).unwrap_or_else(|| self.broken_off())
    }

    pub(super) fn broken_off(&self) -> Error {
        Error::BrokenOff { identity: Arc::clone(&self.name) }
    }

    fn refused(&self, refusal: &Refusal) -> Error {
        let identity = Arc::clone(&self.name);
        match refusal {
            Refusal::Unreadable(reason) => {
                Error::Credentials { identity, reason: Arc::clone(reason), retry_after: PAUSE }
            }
            Refusal::Store { reason, until } => {
                let retry_after = self.pause(*until);
                Error::Store { identity, reason: Arc::clone(reason), retry_after }
            }
            Refusal::Failed { failure, reason, until } => {
                let (reason, retry_after) = (Arc::clone(reason), self.pause(*until));
                match failure {
                    Failure::Refused => Error::Refused { identity, reason },
                    Failure::Quota => Error::SessionLimit { identity, retry_after },
                    Failure::RequestToken => Error::RequestToken { identity, retry_after },
                    Failure::Transient => Error::Unavailable { identity, reason, retry_after },
                }
            }
        }
    }

    fn pause(&self, until: Timestamp) -> Duration {
        let rest = until.duration_since(self.shared.clock.now());
        if rest.is_positive() { rest.unsigned_abs().max(SHORTEST) } else { SHORTEST }
    }
}
