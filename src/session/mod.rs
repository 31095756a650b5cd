//! Our sessions with the API: one valid token for each identity.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use jiff::Timestamp;
use secrecy::SecretString;
use serde::Serialize;
use tokio::{runtime::Handle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{amove::auth::AuthHost, clock::Clock, config, upstream::Upstream};

mod gate;
mod identity;
pub mod login;
mod renewal;
pub mod totp;

use gate::Gate;
use identity::Session;
pub use identity::Token;

/// All sessions.
#[derive(Debug)]
pub struct Sessions {
    sessions: Vec<Arc<Session>>,
    host: AuthHost,
    runtime: Handle,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Sessions {
    /// A session for each of `identities`, in their order; logins run on `runtime`.
    pub fn new(
        identities: &[config::Identity],
        upstream: Upstream,
        clock: Clock,
        runtime: Handle,
    ) -> Arc<Self> {
        let host = AuthHost::new(upstream);
        let session = |identity: &config::Identity| {
            let (host, clock, runtime) = (host.clone(), clock.clone(), runtime.clone());
            Arc::new(Session::new(identity.clone(), host, clock, runtime))
        };
        Arc::new(Self {
            sessions: identities.iter().map(session).collect(),
            host,
            runtime,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// Logs every identity in and keeps it logged in, until the shutdown.
    pub fn start(&self) {
        for session in &self.sessions {
            let kept = renewal::keep(Arc::clone(session), self.stop.clone());
            self.tasks.spawn_on(kept, &self.runtime);
        }
    }

    /// The valid token of an identity, if it is there. For the hot path: waits for nothing.
    pub fn current(&self, identity: usize) -> Option<Arc<Token>> {
        self.sessions.get(identity)?.current()
    }

    /// The valid token of an identity; waits for the one login if there is none.
    ///
    /// # Errors
    ///
    /// See [`ErrorKind`].
    pub async fn token(&self, identity: usize) -> Result<Arc<Token>, Error> {
        self.session(identity)?.token().await
    }

    /// The token that comes after `denied`, by one new login for all who ask.
    ///
    /// # Errors
    ///
    /// See [`ErrorKind`].
    pub async fn renew(&self, identity: usize, denied: &Token) -> Result<Arc<Token>, Error> {
        self.session(identity)?.renew(denied).await
    }

    /// A fresh request token, for routes that want one in their body. It works once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`].
    pub async fn request_token(&self) -> Result<SecretString, Error> {
        self.host
            .request_token()
            .await
            .map(|token| token.value)
            .map_err(|error| Error::of("", ErrorKind::Unavailable(error.to_string())))
    }

    /// Whether one identity at least has a valid token.
    pub fn any_usable(&self) -> bool {
        self.sessions.iter().any(|session| session.current().is_some())
    }

    /// How each identity is doing.
    pub fn status(&self) -> Vec<Status> {
        self.sessions.iter().map(|session| Status::of(session)).collect()
    }

    /// Lets an identity log in again whose credentials were refused.
    pub fn unlatch(&self, identity: usize) {
        if let Some(session) = self.sessions.get(identity) {
            session.unlatch();
        }
    }

    /// Renews nothing any more, and logs out what is ours, `within` that time.
    pub async fn shutdown(&self, within: Duration) {
        self.stop.cancel();
        self.tasks.close();
        let ending = async {
            self.tasks.wait().await;
            for session in &self.sessions {
                let last = session.take_current();
                if session.identity.logout_on_shutdown {
                    for token in session.take_retired(Timestamp::MAX).iter().chain(&last) {
                        session.log_out(token).await;
                    }
                }
            }
        };
        if timeout(within, ending).await.is_err() {
            tracing::warn!("shutdown ran out of time: a session was not logged out");
        }
    }

    fn session(&self, identity: usize) -> Result<&Arc<Session>, Error> {
        let unknown = || Error::of("", ErrorKind::Unavailable("there is no such identity".into()));
        self.sessions.get(identity).ok_or_else(unknown)
    }
}

/// Why there is no token.
#[derive(Clone, Debug, thiserror::Error)]
#[error("identity `{identity}`: {kind}")]
pub struct Error {
    /// Whose token was wanted.
    pub identity: Arc<str>,
    /// What stands in the way.
    pub kind: ErrorKind,
    /// When it makes sense to ask again.
    pub retry_after: Option<Duration>,
}

/// What stands in the way of a token.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ErrorKind {
    /// The credentials were refused; no login is tried until they change.
    #[error("its credentials were refused: {0}")]
    Refused(String),
    /// The user has too many sessions elsewhere.
    #[error("the user has as many sessions as the API allows")]
    Quota,
    /// New tokens were denied one after the other: no more logins for a while.
    #[error("the API denies its tokens again and again")]
    DeniedAgain,
    /// Something that passes.
    #[error("no session at the moment: {0}")]
    Unavailable(String),
}

impl Error {
    fn of(identity: &str, kind: ErrorKind) -> Self {
        Self { identity: identity.into(), kind, retry_after: None }
    }

    fn after(mut self, pause: Option<Duration>) -> Self {
        self.retry_after = pause;
        self
    }
}

/// How an identity is doing.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Its name.
    pub name: Arc<str>,
    /// What its session is doing.
    pub state: State,
    /// Counts its tokens.
    pub generation: u64,
    /// When its token expires, if that can be read.
    pub expires: Option<Timestamp>,
    /// When its token is to be replaced.
    pub renew_at: Option<Timestamp>,
    /// Logins that have succeeded.
    pub logins: u64,
    /// Logins that were tried.
    pub attempts: u64,
    /// What stands in the way of the next login.
    pub failure: Option<String>,
}

/// What a session is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// There is no token, and no login under way.
    None,
    /// The first token is being fetched.
    LoggingIn,
    /// There is a valid token.
    Valid,
    /// There is a valid token, and the next one is being fetched.
    Renewing,
    /// The credentials were refused.
    Refused,
    /// The user has too many sessions.
    Quota,
    /// Waiting until the API is well.
    BackingOff,
}

impl Status {
    fn of(session: &Session) -> Self {
        let token = session.current();
        let busy = session.busy.load(Ordering::Relaxed);
        let (failed, failure) = session.look_at_gate(|gate| {
            let failed = match gate {
                Gate::Open => State::None,
                Gate::Latched { .. } => State::Refused,
                Gate::Waiting { quota: true, .. } => State::Quota,
                Gate::Waiting { .. } => State::BackingOff,
            };
            (failed, gate.reason().map(str::to_owned))
        });
        let state = match (&token, busy) {
            (Some(_), true) => State::Renewing,
            (Some(_), false) => State::Valid,
            (None, true) => State::LoggingIn,
            (None, false) => failed,
        };
        Self {
            name: Arc::clone(&session.identity.name),
            state,
            generation: session.generation(),
            expires: token.as_ref().and_then(|token| token.expires),
            renew_at: token.as_ref().map(|token| token.renew_at),
            logins: session.logins.load(Ordering::Relaxed),
            attempts: session.attempts.load(Ordering::Relaxed),
            failure,
        }
    }
}
