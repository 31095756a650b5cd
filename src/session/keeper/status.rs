//! How an identity stands, for operators.

use std::sync::{Arc, PoisonError, atomic::Ordering::SeqCst};

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

use super::Keeper;
use crate::session::gate::Position;

/// How an identity stands with the API.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Not signed in, and nothing is under way.
    None,
    /// Not signed in, and a login is under way.
    LoggingIn,
    /// Signed in.
    Valid,
    /// Signed in, and the next login is under way.
    Renewing,
    /// The credentials were refused: nothing is tried until they change.
    Refused,
    /// The last login failed: the next one has to wait.
    BackingOff,
    /// The user has as many sessions as the API allows: the next login has to wait.
    SessionLimit,
}

/// One identity, as operators see it.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Its name in the configuration.
    pub name: String,
    /// How it stands.
    pub state: State,
    /// Whether it has a token that may be sent, however the next login fares.
    pub serving: bool,
    /// When that token expires; `None` if there is none or it cannot be read.
    pub expires: Option<Timestamp>,
    /// How many tokens there have been.
    pub generation: u64,
    /// How many logins were tried.
    pub logins: u64,
    /// What the last login failed with, if it failed.
    pub failure: Option<String>,
}

impl Keeper {
    /// How things stand.
    pub(in crate::session) fn status(&self) -> Status {
        let current = self.current();
        Status {
            name: self.identity.name.to_string(),
            state: self.state(current.is_some()),
            serving: current.is_some(),
            expires: current.and_then(|token| token.expires()),
            generation: self.slot.generation(),
            logins: self.logins.load(SeqCst),
            failure: self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    fn state(&self, serving: bool) -> State {
        if self.logging_in.load(SeqCst) {
            return if serving { State::Renewing } else { State::LoggingIn };
        }
        match self.gate().position(Instant::now()) {
            Position::Latched => State::Refused,
            Position::BackingOff => State::BackingOff,
            Position::SessionLimit => State::SessionLimit,
            Position::Open if serving => State::Valid,
            Position::Open => State::None,
        }
    }

    /// Who is kept signed in.
    pub(in crate::session) fn name(&self) -> &Arc<str> {
        &self.identity.name
    }
}
