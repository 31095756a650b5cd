//! One identity's session: the token in force, and the way to the next one.

use std::{
    collections::VecDeque,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use governor::{
    Quota, RateLimiter,
    clock::MonotonicClock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use http::HeaderValue;
use jiff::{SignedDuration, Timestamp};
use moka::future::Cache;
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use tokio::{runtime::Handle, sync::Notify};
use tracing::{info, warn};

use super::{
    Error, ErrorKind,
    gate::{Fingerprint, Gate},
    login::{self, Account, Memory, Opened},
};
use crate::{
    amove::auth::AuthHost,
    clock::Clock,
    config::{Credentials, Identity, RefreshAhead},
};

/// A token is not used in its very last moments: the request has to arrive, too.
const MARGIN: SignedDuration = SignedDuration::from_secs(2);

/// Tokens that were replaced and are not logged out yet.
const RETIRED: usize = 8;

/// What proves a session. `Debug` shows nothing of it.
pub struct Token {
    bearer: HeaderValue,
    secret: SecretString,
    /// Counts the tokens of an identity: a later one is greater.
    pub generation: u64,
    /// When we got it.
    pub issued: Timestamp,
    /// When it ceases to be valid, on our clock.
    pub expires: Option<Timestamp>,
    /// When it is to be replaced.
    pub renew_at: Timestamp,
    /// Whether a second factor was asked for.
    pub second_factor: bool,
}

impl Token {
    /// `Bearer …`, made once and marked as sensitive.
    pub fn bearer(&self) -> &HeaderValue {
        &self.bearer
    }

    fn is_usable(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// Why there is to be another token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Cause {
    /// There is none.
    Missing,
    /// The one in force grows old, but still serves.
    Due,
    /// The API has denied the one in force.
    Denied,
}

type Denials =
    RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<std::time::Instant>>;

/// See the module.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) identity: Identity,
    pub(super) clock: Clock,
    host: AuthHost,
    /// Where logins run: never on a caller's task.
    runtime: Handle,
    current: ArcSwapOption<Token>,
    /// The generation of the latest token, valid or not; 0 before the first.
    generation: AtomicU64,
    gate: Mutex<Gate>,
    memory: Memory,
    /// The token after each generation: whoever waits for the same one waits for one login.
    next: Cache<u64, Arc<Token>>,
    /// Logins that a denied token may cause: a route that always answers 401 must not make a login
    /// of every call.
    denials: Denials,
    retired: Mutex<VecDeque<Arc<Token>>>,
    /// Told when there is another token, or a login has failed.
    pub(super) changed: Notify,
    pub(super) logins: AtomicU64,
    pub(super) attempts: AtomicU64,
    pub(super) busy: AtomicBool,
}

impl Session {
    pub(super) fn new(identity: Identity, host: AuthHost, clock: Clock, runtime: Handle) -> Self {
        let six = NonZeroU32::MIN.saturating_add(5);
        let one_in_ten_seconds = Quota::per_minute(six).allow_burst(six);
        Self {
            identity,
            memory: Memory::new(clock.clone()),
            clock,
            host,
            runtime,
            current: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            gate: Mutex::default(),
            next: Cache::new(64),
            denials: RateLimiter::direct_with_clock(one_in_ten_seconds, MonotonicClock),
            retired: Mutex::default(),
            changed: Notify::new(),
            logins: AtomicU64::new(0),
            attempts: AtomicU64::new(0),
            busy: AtomicBool::new(false),
        }
    }

    /// The token in force, if there is one that is still valid.
    pub(super) fn current(&self) -> Option<Arc<Token>> {
        self.current.load_full().filter(|token| token.is_usable(self.clock.now()))
    }

    /// The token in force, or else the next one.
    pub(super) async fn token(self: &Arc<Self>) -> Result<Arc<Token>, Error> {
        match self.current() {
            Some(token) => Ok(token),
            None => self.succeed(self.generation(), Cause::Missing).await,
        }
    }

    /// The token that comes after `denied`. Only the one in force can be declared dead: a late
    /// denial of an older one finds the newer one there.
    pub(super) async fn renew(self: &Arc<Self>, denied: &Token) -> Result<Arc<Token>, Error> {
        match self.current() {
            Some(newer) if newer.generation > denied.generation => Ok(newer),
            _ => {
                let past = self.generation().max(denied.generation);
                self.succeed(past, Cause::Denied).await
            }
        }
    }

    /// The token after generation `past`. Everyone who asks for the same waits for one login; it
    /// runs on a task of its own, so it goes on when those who wait for it have left.
    pub(super) async fn succeed(
        self: &Arc<Self>,
        past: u64,
        cause: Cause,
    ) -> Result<Arc<Token>, Error> {
        let session = Arc::clone(self);
        let waiting = self.runtime.spawn(async move {
            session.next.try_get_with(past, session.log_in(past, cause)).await
        });
        match waiting.await {
            Ok(Ok(token)) => Ok(token),
            Ok(Err(error)) => Err(Error::clone(&error)),
            // The task was ended with its runtime, or it crashed.
            Err(_) => Err(self.why_not()),
        }
    }

    /// One login, if nothing stands in its way.
    async fn log_in(&self, past: u64, cause: Cause) -> Result<Arc<Token>, Error> {
        if !lock(&self.gate).is_open(self.clock.now(), || self.fingerprint()) {
            return Err(self.why_not());
        }
        let is_api_token = matches!(self.identity.credentials, Credentials::ApiToken(_));
        if cause == Cause::Denied && is_api_token {
            // There is no other: only a new one in its place helps.
            self.shut(Gate::latched("the API token is denied", self.fingerprint()), past);
            return Err(self.why_not());
        }
        if cause == Cause::Denied && self.denials.check().is_err() {
            return Err(self.error(ErrorKind::DeniedAgain));
        }
        self.attempts.fetch_add(1, Ordering::Relaxed);
        self.busy.store(true, Ordering::Relaxed);
        let tried = self.fingerprint();
        let opened = self.open().await;
        self.busy.store(false, Ordering::Relaxed);
        match opened.map(|opened| self.token_of(opened, past)) {
            Ok(Some(token)) => Ok(self.adopt(token, cause)),
            Ok(None) => {
                self.shut(Gate::latched("the token is no header value", tried), past);
                Err(self.why_not())
            }
            Err(failed) => {
                let gate = lock(&self.gate).after(&failed, self.clock.now(), tried, luck());
                // A token that grows old serves on while its successor is not to be had.
                let dead = if cause == Cause::Denied { past } else { 0 };
                self.shut(gate, dead);
                Err(self.why_not())
            }
        }
    }

    async fn open(&self) -> Result<Opened, login::Failed> {
        match &self.identity.credentials {
            Credentials::Password { username, password, user_type, totp } => {
                let (user_type, totp) = (*user_type, totp.as_ref());
                let account = Account { username, password, user_type, totp };
                account.log_in(&self.host, &self.memory).await
            }
            Credentials::ApiToken(token) => {
                Ok(Opened { token: token.read()?, second_factor: false })
            }
        }
    }

    fn token_of(&self, opened: Opened, past: u64) -> Option<Token> {
        let now = self.clock.now();
        let bearer = Zeroizing::new(format!("Bearer {}", opened.token.expose_secret()));
        let mut bearer = HeaderValue::try_from(bearer.as_str()).ok()?;
        bearer.set_sensitive(true);
        let expires = login::expiry(&opened.token, self.memory.skew())
            .map(|at| at.checked_sub(MARGIN).unwrap_or(at));
        Some(Token {
            bearer,
            secret: opened.token,
            generation: past.max(self.generation()) + 1,
            issued: now,
            expires,
            renew_at: renew_at(&self.identity, now, expires, luck()),
            second_factor: opened.second_factor,
        })
    }

    /// Puts `token` in force.
    fn adopt(&self, token: Token, cause: Cause) -> Arc<Token> {
        info!(
            identity = &*self.identity.name,
            generation = token.generation,
            second_factor = token.second_factor,
            expires = token.expires.map(tracing::field::display),
            "session opened"
        );
        let token = Arc::new(token);
        *lock(&self.gate) = Gate::Open;
        self.generation.store(token.generation, Ordering::Release);
        let old = self.current.swap(Some(Arc::clone(&token)));
        if let (Some(old), Cause::Due) = (old, cause) {
            self.retire(old);
        }
        self.logins.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_waiters();
        token
    }

    /// A login has failed: `gate` tells what is to happen, and generation `dead` serves no more.
    fn shut(&self, gate: Gate, dead: u64) {
        warn!(identity = &*self.identity.name, reason = gate.reason(), "login failed");
        *lock(&self.gate) = gate;
        self.current.rcu(|token| token.clone().filter(|token| token.generation != dead));
        self.changed.notify_waiters();
    }

    /// Keeps a token that was replaced until it is logged out; requests may still carry it.
    fn retire(&self, token: Arc<Token>) {
        let mut retired = lock(&self.retired);
        if retired.len() < RETIRED {
            retired.push_back(token);
        }
    }

    /// Tokens that were replaced before `moment`, and at shutdown the one in force.
    pub(super) fn take_retired(&self, moment: Timestamp) -> Vec<Arc<Token>> {
        let current = self.current.load();
        // A token was replaced when its successor was issued.
        let replaced_long_ago = current.as_ref().is_none_or(|token| token.issued <= moment);
        let mut retired = lock(&self.retired);
        if replaced_long_ago { retired.drain(..).collect() } else { Vec::new() }
    }

    /// Takes the token in force out of service.
    pub(super) fn take_current(&self) -> Option<Arc<Token>> {
        self.current.swap(None)
    }

    /// Ends the session of `token`, if it is one that we have opened and that still lives.
    pub(super) async fn log_out(&self, token: &Token) -> bool {
        let ours = matches!(self.identity.credentials, Credentials::Password { .. });
        if !ours || !token.is_usable(self.clock.now()) {
            return false;
        }
        match login::log_out(&self.host, &token.secret).await {
            Ok(()) => {
                info!(
                    identity = &*self.identity.name,
                    generation = token.generation,
                    "session closed"
                );
                true
            }
            Err(error) => {
                let error = error.to_string();
                warn!(identity = &*self.identity.name, error, "logout failed");
                false
            }
        }
    }

    /// What stands in the way of a login, looked at.
    pub(super) fn look_at_gate<T>(&self, look: impl FnOnce(&Gate) -> T) -> T {
        look(&lock(&self.gate))
    }

    /// Whether a login might succeed now.
    pub(super) fn may_log_in(&self) -> bool {
        lock(&self.gate).is_open(self.clock.now(), || self.fingerprint())
    }

    /// Lets a login be tried whatever happened before.
    pub(super) fn unlatch(&self) {
        *lock(&self.gate) = Gate::Open;
        self.changed.notify_waiters();
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Tells the present credentials from others; nothing when they cannot be read.
    fn fingerprint(&self) -> Option<Fingerprint> {
        let mut hasher = blake3::Hasher::new();
        let secrets = match &self.identity.credentials {
            Credentials::Password { password, totp, .. } => [Some(password), totp.as_ref()],
            Credentials::ApiToken(token) => [Some(token), None],
        };
        for secret in secrets.into_iter().flatten() {
            let secret = secret.read().ok()?;
            hasher.update(secret.expose_secret().as_bytes()).update(&[0]);
        }
        Some(*hasher.finalize().as_bytes())
    }

    /// The failure that whoever waits for a token is told.
    fn why_not(&self) -> Error {
        let gate = lock(&self.gate);
        self.error(match &*gate {
            Gate::Open => ErrorKind::Unavailable("the login was interrupted".into()),
            Gate::Latched { reason, .. } => ErrorKind::Refused(reason.clone()),
            Gate::Waiting { quota: true, .. } => ErrorKind::Quota,
            Gate::Waiting { reason, .. } => ErrorKind::Unavailable(reason.clone()),
        })
        .after(gate.remaining(self.clock.now()))
    }

    fn error(&self, kind: ErrorKind) -> Error {
        Error { identity: Arc::clone(&self.identity.name), kind, retry_after: None }
    }
}

/// When a token that is got `now` is to be replaced: so long before its end as the identity says,
/// but not before half of its life is over; a little earlier by `luck`, so that not all gateways
/// come at once.
fn renew_at(
    identity: &Identity,
    now: Timestamp,
    expires: Option<Timestamp>,
    luck: f64,
) -> Timestamp {
    let Some(expires) = expires else {
        let max_age = SignedDuration::try_from(identity.max_age).unwrap_or(SignedDuration::MAX);
        return now.checked_add(max_age).unwrap_or(Timestamp::MAX);
    };
    let life = expires.duration_since(now).max(SignedDuration::ZERO);
    let ahead = match identity.refresh_ahead {
        RefreshAhead::Share(share) => part(life, share),
        RefreshAhead::Before(ahead) => {
            SignedDuration::try_from(ahead).unwrap_or(SignedDuration::MAX)
        }
    };
    let ahead = ahead.min(life / 2);
    expires.checked_sub(ahead + part(ahead, luck / 10.0)).unwrap_or(now)
}

fn part(whole: SignedDuration, share: f64) -> SignedDuration {
    SignedDuration::try_from_secs_f64(whole.as_secs_f64() * share).unwrap_or(SignedDuration::ZERO)
}

/// Between 0 and 1, never the same for two gateways.
fn luck() -> f64 {
    let random = uuid::Uuid::new_v4().as_u128() >> 96;
    #[expect(clippy::cast_precision_loss, reason = "any number will do")]
    let random = random as f64;
    random / f64::from(u32::MAX)
}

/// Nothing can panic while one of these locks is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
