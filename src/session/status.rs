//! How an identity stands, for operators: what `/readyz?verbose`, `status`, `token status` and the
//! metrics show.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How an identity stands with the API.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Not signed in, and nothing is under way.
    None,
    /// Not signed in, and a login is under way: ours, or that of another gateway which we will share.
    LoggingIn,
    /// A login is under way and waits for its second factor.
    Challenged,
    /// Signed in.
    Valid,
    /// Signed in, and the next login is under way.
    Renewing,
    /// The credentials were refused: nothing is tried until they change.
    Latched,
    /// The last login failed: the next one has to wait.
    BackingOff,
    /// The user has as many sessions as the API allows: the next login has to wait.
    Quota,
    /// The gateway is shutting down.
    Ended,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 9] = [
        Self::None,
        Self::LoggingIn,
        Self::Challenged,
        Self::Valid,
        Self::Renewing,
        Self::Latched,
        Self::BackingOff,
        Self::Quota,
        Self::Ended,
    ];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::LoggingIn => "logging-in",
            Self::Challenged => "challenged",
            Self::Valid => "valid",
            Self::Renewing => "renewing",
            Self::Latched => "latched",
            Self::BackingOff => "backing-off",
            Self::Quota => "quota",
            Self::Ended => "ended",
        }
    }
}

/// What an identity proves itself with.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialsKind {
    /// A user name and a password: it logs in.
    Password,
    /// A configured API token: it never logs in.
    ApiToken,
}

/// One identity, as operators see it. Holds no secret.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Status {
    /// Its name in the configuration.
    pub name: String,
    /// What it proves itself with.
    pub credentials: CredentialsKind,
    /// How it stands.
    pub state: State,
    /// Whether it has a token that may be sent, however the next login fares.
    pub serving: bool,
    /// How many tokens there have been.
    pub generation: u64,
    /// When the token in force was issued.
    pub issued: Option<Timestamp>,
    /// When that token expires; `None` if there is none or it cannot be read.
    pub expires: Option<Timestamp>,
    /// When it will be replaced.
    pub renews: Option<Timestamp>,
    /// Whether its login asked for a TOTP code.
    pub second_factor: Option<bool>,
    /// What the last login failed with, if it failed.
    pub failure: Option<String>,
    /// When the next login may be tried, where it has to wait.
    pub retries: Option<Timestamp>,
    /// How many gateways share the session, this one included.
    pub members: usize,
    /// Why the session store cannot be used, if it cannot.
    pub store_error: Option<String>,
    /// What has happened since the start.
    pub counts: Counts,
    /// When the task that keeps the identity signed in was last at work.
    pub keeper_seen: Timestamp,
}

/// What has happened to the sessions of one identity since the gateway started.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Counts {
    /// Logins that ended with a token.
    pub logins_ok: u64,
    /// Logins whose credentials were refused.
    pub logins_refused: u64,
    /// Logins that the user's session limit stood against.
    pub logins_quota: u64,
    /// Logins that failed otherwise.
    pub logins_failed: u64,
    /// Sessions of other gateways, or of an earlier run, that were taken over.
    pub adoptions: u64,
    /// Sessions that were ended.
    pub logouts_ok: u64,
    /// Sessions that could not be ended.
    pub logouts_failed: u64,
    /// Requests whose token the API denied.
    pub denials: u64,
    /// Times that the session store could not be used.
    pub store_errors: u64,
    /// Times that the task which keeps the identity signed in had to be started again.
    pub keeper_restarts: u64,
}

impl Counts {
    /// How many logins were tried.
    pub fn logins(&self) -> u64 {
        self.logins_ok + self.logins_refused + self.logins_quota + self.logins_failed
    }
}
