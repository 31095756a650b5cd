//! Keeps one identity signed in: its token, and the one login that replaces it.

mod api_token;
mod log_out;

use std::{
    hash::{BuildHasher, RandomState},
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::FutureExt;
use moka::future::Cache;
use tokio::{runtime::Handle, sync::Notify, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use super::{
    Error, Token,
    error::sentence,
    gate::{Gate, Position},
    login::{self, Fingerprint, LoggedIn, Meaning, Secrets},
    skew::Skew,
    slot::Slot,
    status::{Counts, CredentialsKind, State, Status},
    token::Origin,
    totp::Steps,
};
use crate::{
    clock::Clock,
    config::{Credentials, Identity},
    upstream::Upstream,
};

/// Credentials that cannot be read are looked at again after this time.
const REREAD: Duration = Duration::from_secs(5);

/// Identity and the generation that is to be replaced: one login for each.
pub(super) type Logins = Cache<(usize, u64), Arc<Token>>;

/// What the keepers of all identities share.
pub(super) struct Shared {
    pub(super) upstream: Upstream,
    pub(super) clock: Clock,
    pub(super) skew: Skew,
    pub(super) logins: Logins,
    pub(super) runtime: Handle,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// Keeps one identity signed in.
pub(super) struct Keeper {
    index: usize,
    identity: Identity,
    shared: Arc<Shared>,
    slot: Slot,
    steps: Steps,
    gate: Mutex<Gate>,
    failure: Mutex<Option<String>>,
    logging_in: AtomicBool,
    logins: AtomicU64,
    wake: Notify,
}

impl Keeper {
    pub(super) fn new(index: usize, identity: Identity, shared: Arc<Shared>) -> Self {
        Self {
            index,
            identity,
            shared,
            slot: Slot::default(),
            steps: Steps::default(),
            gate: Mutex::new(Gate::new()),
            failure: Mutex::default(),
            logging_in: AtomicBool::new(false),
            logins: AtomicU64::new(0),
            wake: Notify::new(),
        }
    }

    /// The token in force, if it still serves.
    pub(super) fn current(&self) -> Option<Arc<Token>> {
        let now = self.shared.clock.now();
        self.slot.token().filter(|token| token.serves(now))
    }

    /// The token in force, or that of the one login.
    pub(super) async fn token(self: &Arc<Self>) -> Result<Arc<Token>, Error> {
        // Asked first: a token that comes in between is then found to be newer.
        let generation = self.slot.generation();
        match self.current() {
            Some(token) => Ok(token),
            None => self.successor(generation).await,
        }
    }

    /// A token newer than `stale`, which the API has refused.
    pub(super) async fn renew(self: &Arc<Self>, stale: &Token) -> Result<Arc<Token>, Error> {
        if self.slot.generation() > stale.generation() {
            return self.token().await;
        }
        if let Credentials::ApiToken(secret) = &self.identity.credentials {
            return self.adopt_newer(secret, stale);
        }
        self.successor(stale.generation()).await
    }

    /// The token after generation `stale`, by a login in a task of its own: who waits for it may
    /// leave, and it goes on.
    async fn successor(self: &Arc<Self>, stale: u64) -> Result<Arc<Token>, Error> {
        if let Credentials::ApiToken(secret) = &self.identity.credentials {
            return self.adopt(secret);
        }
        if self.shared.stop.is_cancelled() {
            return Err(self.broken_off());
        }
        if let Some(refusal) = self.gate().refusal(Instant::now()) {
            return Err(refusal);
        }
        let keeper = Arc::clone(self);
        let login = async move {
            let logins = &keeper.shared.logins;
            logins.try_get_with((keeper.index, stale), keeper.log_in(stale)).await
        };
        match self.shared.tasks.spawn_on(login, &self.shared.runtime).await {
            Ok(outcome) => outcome.map_err(|error| (*error).clone()),
            Err(_) => Err(self.broken_off()),
        }
    }

    async fn log_in(self: &Arc<Self>, stale: u64) -> Result<Arc<Token>, Error> {
        let old = self.current();
        if let Some(newer) = old.as_ref().filter(|token| token.generation() > stale) {
            return Ok(Arc::clone(newer));
        }
        let secrets = self.admitted()?;
        let due = self.rest().is_zero();
        if !due {
            self.allow_before_time()?;
        }
        match self.try_secrets(&secrets).await {
            Ok(token) => {
                let token = self.put_in_force(token);
                self.gate().open();
                // Also one that a route has refused: its session may well be open.
                if let Some(old) = old {
                    self.retire(old);
                }
                Ok(token)
            }
            Err(error) => Err(self.failed(error, Some(secrets.fingerprint()))),
        }
    }

    async fn try_secrets(&self, secrets: &Secrets) -> Result<Token, login::Error> {
        let _logging_in = Raised::raise(&self.logging_in);
        self.logins.fetch_add(1, SeqCst);
        info!(identity = %self.identity.name, "logging in");
        let Shared { upstream, clock, skew, .. } = &*self.shared;
        let login = login::login(upstream, secrets, &self.steps, clock, skew);
        // A panic must close the gate like any other failure, or each waiter would try in turn.
        let outcome = AssertUnwindSafe(login).catch_unwind().await;
        let LoggedIn { jwt, second_factor } = outcome.unwrap_or(Err(login::Error::Panicked))?;
        Token::from_login(jwt, self.origin(second_factor), &self.identity, skew, chance())
    }

    /// A token that is replaced before its time was refused by some route: that has its limits.
    fn allow_before_time(&self) -> Result<(), Error> {
        self.gate().take_renewal(Instant::now()).map_err(|retry_after| Error::Unavailable {
            identity: Arc::clone(&self.identity.name),
            retry_after,
            source: Arc::new(login::Error::TooMany),
        })
    }

    /// The credentials, if they may be tried.
    fn admitted(&self) -> Result<Secrets, Error> {
        let Credentials::Password { username, password, user_type, totp } =
            &self.identity.credentials
        else {
            return Err(self.broken_off());
        };
        let secrets = Secrets::read(username, password, *user_type, totp.as_ref());
        let fingerprint = secrets.as_ref().ok().map(Secrets::fingerprint);
        self.gate().admit(Instant::now(), fingerprint.as_ref())?;
        secrets.map_err(|error| self.failed(error, None))
    }

    fn origin(&self, second_factor: bool) -> Origin {
        let generation = self.slot.generation() + 1;
        Origin { generation, issued: self.shared.clock.now(), second_factor }
    }

    fn put_in_force(&self, token: Token) -> Arc<Token> {
        info!(
            identity = %self.identity.name,
            generation = token.generation(),
            expires = token.expires().map(tracing::field::display),
            "signed in",
        );
        let token = Arc::new(token);
        self.slot.put(Arc::clone(&token));
        self.set_failure(None);
        token
    }

    /// Draws the consequence of a failed login, so that the next one finds it.
    fn failed(&self, error: login::Error, tried: Option<Fingerprint>) -> Error {
        let now = Instant::now();
        let (identity, retry_after) = (Arc::clone(&self.identity.name), Duration::ZERO);
        let (meaning, asked) = (error.meaning(), error.retry_after());
        let told = sentence(&error);
        self.set_failure(Some(told.clone()));
        let error = match (meaning, tried) {
            (Meaning::Refused, Some(tried)) => {
                error!(%identity, reason = told, "login refused; waiting for other credentials");
                let error = Error::Refused { identity, reason: told.into() };
                self.gate().latch(now, error.clone(), tried);
                return error;
            }
            (Meaning::RequestToken, _) => Error::RequestToken { identity, retry_after },
            (Meaning::SessionLimit, _) => Error::SessionLimit { identity, retry_after },
            (Meaning::Refused | Meaning::Unread | Meaning::Transient, _) => {
                Error::Unavailable { identity, retry_after, source: Arc::new(error) }
            }
        };
        let error = match meaning {
            Meaning::Unread => self.gate().hold(now, error, REREAD),
            Meaning::Refused
            | Meaning::RequestToken
            | Meaning::SessionLimit
            | Meaning::Transient => self.gate().back_off(now, error, asked, chance()),
        };
        let pause = error.retry_after();
        warn!(identity = %self.identity.name, reason = told, ?pause, "login failed; trying again");
        error
    }

    /// How long nothing needs to be done; nothing at all: a login is due.
    fn rest(&self) -> Duration {
        let now = self.shared.clock.now();
        let due = self.current().map(|token| token.renew_at().duration_since(now));
        due.filter(|rest| rest.is_positive()).map_or(Duration::ZERO, |rest| rest.unsigned_abs())
    }

    /// A login if it is time for one; gives the time until the next.
    pub(super) async fn renew_in_time(self: &Arc<Self>) -> Result<Duration, Error> {
        let generation = self.slot.generation();
        if self.rest().is_zero() {
            self.successor(generation).await?;
        }
        Ok(self.rest())
    }

    /// When somebody has asked for a login at once.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Forgets that the credentials were refused.
    pub(super) fn unlatch(&self) {
        self.gate().open();
        self.wake.notify_one();
    }

    /// How things stand.
    pub(super) fn status(&self) -> Status {
        let current = self.current();
        let token = current.as_deref();
        Status {
            name: self.identity.name.to_string(),
            credentials: match self.identity.credentials {
                Credentials::Password { .. } => CredentialsKind::Password,
                Credentials::ApiToken(_) => CredentialsKind::ApiToken,
            },
            state: self.state(token.is_some()),
            serving: token.is_some(),
            generation: self.slot.generation(),
            issued: token.map(Token::issued),
            expires: token.and_then(Token::expires),
            renews: token.map(Token::renew_at),
            second_factor: token.map(Token::second_factor),
            failure: self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            retries: None,
            members: 1,
            store_error: None,
            counts: Counts { logins_ok: self.logins.load(SeqCst), ..Counts::default() },
            keeper_seen: self.shared.clock.now(),
        }
    }

    fn state(&self, serving: bool) -> State {
        if self.logging_in.load(SeqCst) {
            return if serving { State::Renewing } else { State::LoggingIn };
        }
        match self.gate().position(Instant::now()) {
            Position::Latched => State::Latched,
            Position::BackingOff => State::BackingOff,
            Position::SessionLimit => State::Quota,
            Position::Open if serving => State::Valid,
            Position::Open => State::None,
        }
    }

    /// Who is kept signed in.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.identity.name
    }

    fn broken_off(&self) -> Error {
        Error::BrokenOff { identity: Arc::clone(&self.identity.name) }
    }

    fn set_failure(&self, failure: Option<String>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A flag that is up for as long as this lives.
struct Raised<'a>(&'a AtomicBool);

impl<'a> Raised<'a> {
    fn raise(flag: &'a AtomicBool) -> Self {
        flag.store(true, SeqCst);
        Self(flag)
    }
}

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(false, SeqCst);
    }
}

/// A random share. It spreads logins and keeps no secret, so the hasher's own seed is good enough.
fn chance() -> f64 {
    RandomState::new().hash_one(()) as f64 / u64::MAX as f64
}
