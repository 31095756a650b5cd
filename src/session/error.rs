//! Why there is no token.

use std::{sync::Arc, time::Duration};

use super::login;
use crate::amove::auth;

/// Why there is no token. One failure is shared by all who waited for it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The credentials are wrong, as far as the API is concerned. Nothing is tried until they change.
    #[error("no login as `{identity}`: {reason}; not tried again until the credentials change")]
    Refused {
        /// Whose.
        identity: Arc<str>,
        /// What the login ended with.
        reason: Arc<str>,
    },
    /// The configured API token is no good, and only a new one helps.
    #[error("the API token of `{identity}` is no use: {reason}; configure a new one")]
    ApiToken {
        /// Whose.
        identity: Arc<str>,
        /// What is wrong with it.
        reason: Arc<str>,
    },
    /// Request tokens fresh from the API were not accepted by it.
    #[error("no login as `{identity}`: the API does not accept its own request tokens")]
    RequestToken {
        /// Whose.
        identity: Arc<str>,
        /// When there will be another login.
        retry_after: Duration,
    },
    /// The user has as many sessions as the API allows.
    #[error("no login as `{identity}`: its user holds as many sessions as the API allows")]
    SessionLimit {
        /// Whose.
        identity: Arc<str>,
        /// When there will be another login.
        retry_after: Duration,
    },
    /// The login could not be carried out.
    #[error("no login as `{identity}` for the time being")]
    Unavailable {
        /// Whose.
        identity: Arc<str>,
        /// When there will be another login.
        retry_after: Duration,
        /// What went wrong.
        source: Arc<login::Error>,
    },
    /// The API gives no request token.
    #[error("no request token for the time being")]
    NoRequestToken {
        /// When to ask again.
        retry_after: Duration,
        /// What went wrong.
        source: Arc<auth::Error>,
    },
    /// Nobody is configured at this place.
    #[error("there is no identity number {0}")]
    UnknownIdentity(usize),
    /// The login was given up because the gateway is shutting down, or it failed in a way of its own.
    #[error("the login as `{identity}` was broken off")]
    BrokenOff {
        /// Whose.
        identity: Arc<str>,
    },
}

impl Error {
    /// When it is worth asking again; `None` if time alone changes nothing.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RequestToken { retry_after, .. }
            | Self::SessionLimit { retry_after, .. }
            | Self::Unavailable { retry_after, .. }
            | Self::NoRequestToken { retry_after, .. } => Some(*retry_after),
            Self::Refused { .. }
            | Self::ApiToken { .. }
            | Self::UnknownIdentity(_)
            | Self::BrokenOff { .. } => None,
        }
    }

    /// The same failure, told later.
    #[must_use]
    pub(super) fn with_retry_after(mut self, remaining: Duration) -> Self {
        match &mut self {
            Self::RequestToken { retry_after, .. }
            | Self::SessionLimit { retry_after, .. }
            | Self::Unavailable { retry_after, .. }
            | Self::NoRequestToken { retry_after, .. } => *retry_after = remaining,
            Self::Refused { .. }
            | Self::ApiToken { .. }
            | Self::UnknownIdentity(_)
            | Self::BrokenOff { .. } => {}
        }
        self
    }
}

/// An error and its causes, in one sentence.
pub(super) fn sentence(error: &dyn std::error::Error) -> String {
    let mut sentence = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        sentence.push_str(": ");
        sentence.push_str(&error.to_string());
        cause = error.source();
    }
    sentence
}
