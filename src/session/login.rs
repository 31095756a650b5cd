//! One login from beginning to end, and how it can fail (contract sections 4.1 to 4.6).

use std::{fmt, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    skew::Skew,
    totp::{self, Code, Steps, Totp},
};
use crate::{
    amove::auth::{self, Answer, LoginAnswer, RequestToken, Unavailable},
    clock::Clock,
    config::{
        UserType,
        secret::{self, Secret},
    },
    upstream::Upstream,
};

/// How long a login may talk to the API. Waiting for a TOTP step is not counted.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// What a login proves itself with, as it is now.
pub(super) struct Secrets {
    pub(super) username: String,
    pub(super) password: SecretString,
    pub(super) user_type: UserType,
    pub(super) totp: Option<SecretString>,
}

/// Tells whether credentials have changed, without keeping them.
#[derive(Clone, Eq, PartialEq)]
pub(super) struct Fingerprint(pub(super) blake3::Hash);

/// What a login brings.
pub(super) struct LoggedIn {
    pub(super) jwt: SecretString,
    pub(super) second_factor: bool,
}

/// Why a login failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call failed.
    #[error(transparent)]
    Call(#[from] auth::Error),
    /// The credentials cannot be read.
    #[error("the credentials cannot be read")]
    Secret(#[from] secret::Error),
    /// The TOTP secret makes no codes.
    #[error(transparent)]
    Totp(#[from] totp::Error),
    /// A code is wanted and there is no secret to make one.
    #[error("the API asks for a TOTP code and no TOTP secret is configured")]
    TotpMissing,
    /// It took too long.
    #[error("the login was not done within {} s", DEADLINE.as_secs())]
    Deadline,
    /// The token had expired when it came.
    #[error("the token has expired")]
    Expired,
    /// The token cannot stand in a header.
    #[error("the token has characters that no token has")]
    NotAToken,
    /// New tokens do not help.
    #[error("the API has refused too many fresh tokens in a row")]
    TooMany,
    /// We made a mistake.
    #[error("the login broke off by a fault of the gateway's own")]
    Panicked,
}

/// What a failure means for the next login.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Meaning {
    /// The same credentials will be refused again.
    Refused,
    /// The API did not accept its own request tokens.
    RequestToken,
    /// There are too many sessions now.
    SessionLimit,
    /// The credentials could not be read, so nothing was tried.
    Unread,
    /// Another time it may work.
    Transient,
}

/// Logs in.
///
/// # Errors
///
/// After one more try where contract section 4.6 allows one.
pub(super) async fn login(
    upstream: &Upstream,
    secrets: &Secrets,
    steps: &Steps,
    clock: &Clock,
    skew: &Skew,
) -> Result<LoggedIn, Error> {
    // A secret that makes no codes is noticed before a password is sent.
    let totp = secrets.totp.as_ref().map(Totp::parse).transpose()?;
    let mut attempt = Attempt::new(upstream, clock, skew);
    match attempt.login(secrets, totp.as_ref(), steps).await {
        // From the beginning, as the session may be what was refused; with the next step's code.
        Err(Error::Call(auth::Error::Totp(_))) => {
            attempt.login(secrets, totp.as_ref(), steps).await
        }
        outcome => outcome,
    }
}

/// Logs out.
///
/// # Errors
///
/// After one more try if the request token was not accepted.
pub(super) async fn logout(
    upstream: &Upstream,
    jwt: &SecretString,
    clock: &Clock,
    skew: &Skew,
) -> Result<(), Error> {
    let attempt = Attempt::new(upstream, clock, skew);
    attempt.call(|request_token| auth::logout(upstream, request_token, jwt)).await
}

struct Attempt<'a> {
    upstream: &'a Upstream,
    clock: &'a Clock,
    skew: &'a Skew,
    deadline: Instant,
}

impl<'a> Attempt<'a> {
    fn new(upstream: &'a Upstream, clock: &'a Clock, skew: &'a Skew) -> Self {
        Self { upstream, clock, skew, deadline: Instant::now() + DEADLINE }
    }

    async fn login(
        &mut self,
        secrets: &Secrets,
        totp: Option<&Totp>,
        steps: &Steps,
    ) -> Result<LoggedIn, Error> {
        if let Some(totp) = totp {
            // Here rather than between the calls, where the session would grow old.
            self.wait(steps.wait(totp, self.their_time())).await;
        }
        let Secrets { username, password, user_type, .. } = secrets;
        let upstream = self.upstream;
        let answer = self.call(|request_token| {
            auth::login(upstream, request_token, username, password, *user_type)
        });
        let session = match answer.await? {
            LoginAnswer::Token(jwt) => return Ok(LoggedIn { jwt, second_factor: false }),
            LoginAnswer::SecondFactor(session) => session,
        };
        let code = self.code(totp.ok_or(Error::TotpMissing)?, steps).await;
        let answer =
            self.call(|request_token| auth::mfa_respond(upstream, request_token, &code, &session));
        Ok(LoggedIn { jwt: answer.await?, second_factor: true })
    }

    async fn code(&mut self, totp: &Totp, steps: &Steps) -> SecretString {
        loop {
            match steps.take(totp, self.their_time()) {
                Code::Ready(code) => return code,
                Code::After(wait) => self.wait(wait).await,
            }
        }
    }

    async fn wait(&mut self, wait: Duration) {
        self.deadline += wait;
        sleep(wait).await;
    }

    /// Makes a call with a request token of its own; once more if that one is not accepted.
    async fn call<T, F>(&self, call: impl Fn(RequestToken) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Answer<T>, auth::Error>>,
    {
        match self.call_once(&call).await {
            Err(Error::Call(auth::Error::RequestToken(_))) => self.call_once(&call).await,
            outcome => outcome,
        }
    }

    async fn call_once<T, F>(&self, call: &impl Fn(RequestToken) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Answer<T>, auth::Error>>,
    {
        let request_token = self.within(auth::request_token(self.upstream)).await?;
        self.within(call(request_token)).await
    }

    async fn within<T>(
        &self,
        call: impl Future<Output = Result<Answer<T>, auth::Error>>,
    ) -> Result<T, Error> {
        let answer = timeout_at(self.deadline, call).await.map_err(|_| Error::Deadline)??;
        if let Some(date) = answer.date {
            self.skew.observe(date, self.clock.now());
        }
        Ok(answer.value)
    }

    fn their_time(&self) -> jiff::Timestamp {
        self.skew.theirs(self.clock.now())
    }
}

impl Secrets {
    /// Reads what is configured; a file is read anew, so that a rotated one is picked up.
    pub(super) fn read(
        username: &str,
        password: &Secret,
        user_type: UserType,
        totp: Option<&Secret>,
    ) -> Result<Self, Error> {
        Ok(Self {
            username: username.to_owned(),
            password: password.read()?,
            user_type,
            totp: totp.map(Secret::read).transpose()?,
        })
    }

    /// Changes when any of the secrets does.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        let totp = self.totp.as_ref().map_or("", |totp| totp.expose_secret());
        Fingerprint::of(&[self.password.expose_secret(), totp])
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint")
    }
}

impl Fingerprint {
    /// Of some secrets, in their order.
    pub(super) fn of(secrets: &[&str]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for secret in secrets {
            hasher.update(&(secret.len() as u64).to_le_bytes()).update(secret.as_bytes());
        }
        Self(hasher.finalize())
    }
}

impl Error {
    /// What it means for the next login.
    pub(super) fn meaning(&self) -> Meaning {
        match self {
            Self::Totp(_)
            | Self::TotpMissing
            | Self::Call(
                auth::Error::Refused(_)
                | auth::Error::Totp(_)
                | auth::Error::ChallengeUnsupported(_),
            ) => Meaning::Refused,
            Self::Call(auth::Error::RequestToken(_)) => Meaning::RequestToken,
            Self::Call(auth::Error::SessionLimit(_)) => Meaning::SessionLimit,
            Self::Secret(_) => Meaning::Unread,
            Self::Call(auth::Error::Unavailable(_))
            | Self::Deadline
            | Self::Expired
            | Self::NotAToken
            | Self::TooMany
            | Self::Panicked => Meaning::Transient,
        }
    }

    /// How long the API asks us to stay away.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        if let Self::Call(error) = self { error.retry_after() } else { None }
    }

    /// Whether no answer came in time.
    pub fn is_timeout(&self) -> bool {
        if let Self::Call(auth::Error::Unavailable(Unavailable::Upstream(error))) = self {
            return error.is_timeout();
        }
        matches!(self, Self::Deadline)
    }
}
