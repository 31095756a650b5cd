//! One login from beginning to end, and how it can fail (contract sections 4.1 to 4.6).

use std::{fmt, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::{
    skew::Skew,
    steps::Steps,
    store::{Failure, Stored},
    token,
    totp::{self, Step, Totp},
};
use crate::{
    clock::Clock,
    config::{
        UserType,
        secret::{self, Secret},
    },
    upstream::Upstream,
    upstream::auth::{self, Answer, LoginAnswer, RequestToken},
};

/// How long a login may talk to the API. Waiting for a TOTP step is not counted.
const DEADLINE: Duration = Duration::from_secs(30);
/// A request token lives for a minute: one that had to wait so long is not used any more.
const STALE: Duration = Duration::from_secs(20);

/// What a login proves itself with, as it is now.
pub(super) struct Secrets {
    pub(super) username: String,
    pub(super) password: SecretString,
    pub(super) user_type: UserType,
    pub(super) totp: Option<SecretString>,
}

/// Tells whether credentials have changed, without keeping them.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) struct Fingerprint(pub(super) blake3::Hash);

/// What a login needs besides the credentials.
pub(super) struct Means<'a> {
    pub(super) upstream: &'a Upstream,
    pub(super) clock: &'a Clock,
    pub(super) skew: &'a Skew,
}

/// Why a login failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call failed.
    #[error(transparent)]
    Call(#[from] auth::Error),
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
    /// We made a mistake.
    #[error("the login broke off by a fault of the gateway's own")]
    Panicked,
}

/// Logs in; says so when a second factor is asked for.
///
/// # Errors
///
/// After one more try where contract section 4.6 allows one.
pub(super) async fn login(
    means: &Means<'_>,
    secrets: &Secrets,
    steps: &Steps,
    challenged: impl Fn(),
) -> Result<Stored, Error> {
    // A secret that makes no codes is noticed before a password is sent.
    let totp = secrets.totp.as_ref().map(Totp::parse).transpose()?;
    let mut attempt = Attempt::new(means);
    let outcome = match attempt.login(secrets, totp.as_ref(), steps, &challenged).await {
        // From the beginning, as the session may be what was refused; with the next step's code.
        Err(Error::Call(auth::Error::Totp(_))) => {
            attempt.login(secrets, totp.as_ref(), steps, &challenged).await
        }
        outcome => outcome,
    };
    let (jwt, second_factor) = outcome?;
    let expires = token::expiry(&jwt).map(|expires| means.skew.ours(expires));
    let (id, issued) = (Uuid::now_v7(), means.clock.now());
    Ok(Stored { id, jwt, issued, expires, second_factor, secrets: secrets.fingerprint() })
}

/// Logs out.
///
/// # Errors
///
/// After one more try if the request token was not accepted.
pub(super) async fn logout(means: &Means<'_>, jwt: &SecretString) -> Result<(), Error> {
    let attempt = Attempt::new(means);
    let outcome = attempt.call(None, |token| auth::logout(means.upstream, token, jwt)).await;
    match outcome {
        // It had ended before.
        Err(Error::Call(auth::Error::Refused(_))) => Ok(()),
        outcome => outcome,
    }
}

struct Attempt<'a> {
    means: &'a Means<'a>,
    deadline: Instant,
}

impl<'a> Attempt<'a> {
    fn new(means: &'a Means<'a>) -> Self {
        Self { means, deadline: Instant::now() + DEADLINE }
    }

    /// Gives the JWT, and whether a code was asked for.
    async fn login(
        &mut self,
        secrets: &Secrets,
        totp: Option<&Totp>,
        steps: &Steps,
        challenged: &impl Fn(),
    ) -> Result<(SecretString, bool), Error> {
        let upstream = self.means.upstream;
        // Its answer tells the time as well, which the code depends on.
        let mut request_token = Some(self.within(auth::request_token(upstream)).await?);
        let mut code = None;
        if let Some(totp) = totp.filter(|_| steps.are_asked_for()) {
            // Here rather than between the calls, where the session would grow old.
            let since = Instant::now();
            code = Some(self.take_code(totp, steps).await);
            request_token = request_token.filter(|_| since.elapsed() < STALE);
        }
        let Secrets { username, password, user_type, .. } = secrets;
        let answer = self.call(request_token, |request_token| {
            auth::login(upstream, request_token, username, password, *user_type)
        });
        let session = match answer.await? {
            LoginAnswer::Token(jwt) => {
                steps.expect(false);
                return Ok((jwt, false));
            }
            LoginAnswer::SecondFactor(session) => session,
        };
        challenged();
        let totp = totp.ok_or(Error::TotpMissing)?;
        steps.expect(true);
        let code = match code {
            Some((step, code)) if !step.is_over(self.their_time()) => code,
            _ => self.take_code(totp, steps).await.1,
        };
        let answer = self.call(None, |request_token| {
            auth::mfa_respond(upstream, request_token, &code, &session)
        });
        Ok((answer.await?, true))
    }

    /// The code of a step that nobody has used, and that nobody else will use.
    async fn take_code(&mut self, totp: &Totp, steps: &Steps) -> (Step, SecretString) {
        loop {
            let step = totp.step(self.their_time());
            match steps.take(step).await {
                Ok(()) => return (step, totp.code(step)),
                Err(used_until) => {
                    let wait = totp::until(used_until, self.their_time());
                    self.deadline += wait;
                    // A clock that is put right meanwhile may leave nothing to wait for.
                    sleep(wait.max(Duration::from_millis(50))).await;
                }
            }
        }
    }

    /// Makes a call with a request token of its own; once more if that one is not accepted.
    async fn call<T, F>(
        &self,
        request_token: Option<RequestToken>,
        call: impl Fn(RequestToken) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Answer<T>, auth::Error>>,
    {
        match self.call_once(request_token, &call).await {
            Err(Error::Call(auth::Error::RequestToken(_))) => self.call_once(None, &call).await,
            outcome => outcome,
        }
    }

    async fn call_once<T, F>(
        &self,
        request_token: Option<RequestToken>,
        call: &impl Fn(RequestToken) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Answer<T>, auth::Error>>,
    {
        let request_token = match request_token {
            Some(request_token) => request_token,
            None => self.within(auth::request_token(self.means.upstream)).await?,
        };
        self.within(call(request_token)).await
    }

    async fn within<T>(
        &self,
        call: impl Future<Output = Result<Answer<T>, auth::Error>>,
    ) -> Result<T, Error> {
        let answer = timeout_at(self.deadline, call).await.map_err(|_| Error::Deadline)??;
        if let Some(date) = answer.date {
            self.means.skew.observe(date, self.means.clock.now());
        }
        Ok(answer.value)
    }

    fn their_time(&self) -> jiff::Timestamp {
        self.means.skew.theirs(self.means.clock.now())
    }
}

impl Secrets {
    /// Reads what is configured; a file is read anew, so that a rotated one is picked up.
    pub(super) fn read(
        username: &str,
        password: &Secret,
        user_type: UserType,
        totp: Option<&Secret>,
    ) -> Result<Self, secret::Error> {
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
    pub(super) fn failure(&self) -> Failure {
        match self {
            Self::Totp(_)
            | Self::TotpMissing
            | Self::Call(
                auth::Error::Refused(_)
                | auth::Error::Totp(_)
                | auth::Error::ChallengeUnsupported(_),
            ) => Failure::Refused,
            Self::Call(auth::Error::RequestToken(_)) => Failure::RequestToken,
            Self::Call(auth::Error::SessionLimit(_)) => Failure::Quota,
            Self::Call(auth::Error::Unavailable(_))
            | Self::Deadline
            | Self::Expired
            | Self::NotAToken
            | Self::Panicked => Failure::Transient,
        }
    }

    /// How long the API asks us to stay away.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        if let Self::Call(error) = self { error.retry_after() } else { None }
    }
}
