//! Why there is no token.

use std::{sync::Arc, time::Duration};

use crate::upstream::auth;

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
    /// The credentials cannot be read.
    #[error("no login as `{identity}`: {reason}")]
    Credentials {
        /// Whose.
        identity: Arc<str>,
        /// Which of them, and why.
        reason: Arc<str>,
        /// When they will be read again.
        retry_after: Duration,
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
    #[error("no login as `{identity}` for the time being: {reason}")]
    Unavailable {
        /// Whose.
        identity: Arc<str>,
        /// What went wrong.
        reason: Arc<str>,
        /// When there will be another login.
        retry_after: Duration,
    },
    /// The API denies fresh tokens: another one would not help.
    #[error("no further login as `{identity}` for now: the API has denied too many fresh tokens")]
    Denied {
        /// Whose.
        identity: Arc<str>,
        /// When there may be another login.
        retry_after: Duration,
    },
    /// The session store cannot be used.
    #[error("nothing can be done about the session of `{identity}`: {reason}")]
    Store {
        /// Whose.
        identity: Arc<str>,
        /// What is wrong with it.
        reason: Arc<str>,
        /// When it will be tried again.
        retry_after: Duration,
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
    /// The gateway is shutting down, or nothing came of the login in all the time there is.
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
            Self::Credentials { retry_after, .. }
            | Self::RequestToken { retry_after, .. }
            | Self::SessionLimit { retry_after, .. }
            | Self::Unavailable { retry_after, .. }
            | Self::Denied { retry_after, .. }
            | Self::Store { retry_after, .. }
            | Self::NoRequestToken { retry_after, .. } => Some(*retry_after),
            Self::Refused { .. }
            | Self::ApiToken { .. }
            | Self::UnknownIdentity(_)
            | Self::BrokenOff { .. } => None,
        }
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
