//! The steps of a login, and how each can fail.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{sleep, timeout};

use super::totp::{self, Authenticator};
use crate::{
    amove::auth::{self, AuthHost, Challenge, Dated},
    clock::Clock,
    config::{
        UserType,
        secret::{self, Secret},
    },
};

/// One call of the auth host takes no longer.
const CALL: Duration = Duration::from_secs(15);

/// A whole login takes no longer, the wait for the next TOTP step included.
const WHOLE: Duration = Duration::from_secs(100);

/// What an identity logs in with.
#[derive(Debug)]
pub struct Account<'a> {
    /// The user.
    pub username: &'a str,
    /// Its password; read at every login, so that a changed file counts.
    pub password: &'a Secret,
    /// Its role, which the login must name.
    pub user_type: UserType,
    /// What makes its TOTP codes.
    pub totp: Option<&'a Secret>,
}

/// A session that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The token that proves it.
    pub token: SecretString,
    /// Whether a second factor was asked for.
    pub second_factor: bool,
}

/// Why a login did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The auth host said no, or nothing.
    #[error(transparent)]
    Auth(#[from] auth::Error),
    /// A secret cannot be read.
    #[error(transparent)]
    Secret(#[from] secret::Error),
    /// The TOTP secret makes no codes.
    #[error(transparent)]
    Totp(#[from] totp::Error),
    /// It took too long.
    #[error("the login took too long")]
    TooSlow,
}

/// What is learnt at one login and needed at the next.
#[derive(Debug)]
pub struct Memory {
    clock: Clock,
    /// How far the auth host's clock is ahead of ours, in seconds.
    skew: AtomicI64,
    /// The last TOTP step that was used: none is used twice, whatever came of it.
    used_step: Mutex<u64>,
}

impl Memory {
    /// Nothing is known yet.
    pub fn new(clock: Clock) -> Self {
        Self { clock, skew: AtomicI64::new(0), used_step: Mutex::new(0) }
    }

    /// How far the auth host's clock is ahead of ours, in seconds.
    pub fn skew(&self) -> i64 {
        self.skew.load(Ordering::Relaxed)
    }

    /// The time on the auth host's clock, in seconds since 1970.
    fn time_there(&self) -> u64 {
        let there = self.clock.now().as_second().saturating_add(self.skew());
        u64::try_from(there).unwrap_or_default()
    }

    fn learn<T>(&self, answer: Dated<T>) -> T {
        if let Some(date) = answer.date {
            let skew = date.as_second() - self.clock.now().as_second();
            // The field has whole seconds only, and the answer was on its way: one is nothing.
            self.skew.store(if skew.abs() <= 1 { 0 } else { skew }, Ordering::Relaxed);
        }
        answer.value
    }

    /// A code of a step that was never used; waits for it.
    async fn code(&self, authenticator: &Authenticator) -> SecretString {
        loop {
            let next = {
                let mut used = self.used_step.lock().unwrap_or_else(PoisonError::into_inner);
                match authenticator.code(self.time_there(), *used) {
                    Ok(code) => {
                        *used = code.step;
                        return code.digits;
                    }
                    Err(wait) => wait,
                }
            };
            sleep(next).await;
        }
    }
}

impl Account<'_> {
    /// Logs in: request token, login, and the second factor if it is asked for. The auth host's
    /// word on a request token or a TOTP code is taken the second time; any other at once.
    ///
    /// # Errors
    ///
    /// See [`Failed`].
    pub async fn log_in(&self, host: &AuthHost, memory: &Memory) -> Result<Opened, Failed> {
        let whole = async {
            match self.once(host, memory).await {
                // The session of the challenge may be gone as well, so this begins anew.
                Err(Failed::Auth(auth::Error::Totp)) => self.once(host, memory).await,
                result => result,
            }
        };
        timeout(WHOLE, whole).await.unwrap_or(Err(Failed::TooSlow))
    }

    async fn once(&self, host: &AuthHost, memory: &Memory) -> Result<Opened, Failed> {
        let password = self.password.read()?;
        let totp = self.totp.map(Secret::read).transpose()?;
        let authenticator = totp.as_ref().map(Authenticator::new).transpose()?;

        let challenge = with_request_token(host, memory, |token| {
            host.login(token, self.username, &password, self.user_type)
        });
        let session = match challenge.await? {
            Challenge::Passed(token) => return Ok(Opened { token, second_factor: false }),
            Challenge::Totp(session) => session,
        };
        let authenticator = authenticator.ok_or(auth::Error::TotpNeeded)?;
        let code = memory.code(&authenticator).await;
        let token = with_request_token(host, memory, |token| {
            host.mfa_respond(token, code.expose_secret(), &session)
        });
        Ok(Opened { token: token.await?, second_factor: true })
    }
}

/// Ends the session of `token`.
///
/// # Errors
///
/// See [`Failed`].
pub async fn log_out(host: &AuthHost, token: &SecretString) -> Result<(), Failed> {
    let ending = async {
        let request_token = host.request_token().await?.value;
        host.logout(request_token, token).await
    };
    Ok(timeout(CALL, ending).await.map_err(|_| Failed::TooSlow)??)
}

/// Makes one call with a request token that is fresh, and once more if that was not fresh enough.
/// A request token is never used again, whatever came of it (contract section 4.1).
async fn with_request_token<T, F>(
    host: &AuthHost,
    memory: &Memory,
    call: impl Fn(SecretString) -> F,
) -> Result<T, Failed>
where
    F: Future<Output = Result<Dated<T>, auth::Error>>,
{
    let once = async || {
        let token = memory.learn(host.request_token().await?);
        call(token).await
    };
    let answer = match timeout(CALL, once()).await {
        Ok(Err(auth::Error::RequestToken)) => timeout(CALL, once()).await,
        result => result,
    };
    Ok(memory.learn(answer.map_err(|_| Failed::TooSlow)??))
}

/// When `token` expires on our clock: only a hint, for it may not be readable (contract section
/// 4.7).
pub fn expiry(token: &SecretString, skew: i64) -> Option<Timestamp> {
    #[derive(serde::Deserialize)]
    struct Claims {
        exp: Option<f64>,
    }
    let claims: Claims =
        jsonwebtoken::dangerous::insecure_decode_claims(token.expose_secret()).ok()?;
    let exp = claims.exp.filter(|exp| exp.is_finite() && *exp > 0.0)?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "`as` saturates, and the range is checked next"
    )]
    Timestamp::from_second((exp as i64).saturating_sub(skew)).ok()
}
