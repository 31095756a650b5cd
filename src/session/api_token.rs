//! An identity with a configured token: it never logs in, and a denied token is final.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    select,
    sync::{Notify, watch},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    Error, Token,
    counts::Counters,
    error::sentence,
    keeper::{Given, Shared},
    login::Fingerprint,
    slot::Slot,
    status::{CredentialsKind, State, Status},
};
use crate::{
    config::{Credentials, secret::Secret},
    supervise::supervise,
    upstream::userinfo::{self, userinfo},
};

/// A file is looked at so often; a changed one has to look the same twice before it counts.
const LOOK: Duration = Duration::from_secs(1);
/// Whether a denied token is dead is asked at most this often.
const PROBE_PAUSE: Duration = Duration::from_secs(15);
/// The API is not waited for any longer when it is asked about a token.
const PROBE: Duration = Duration::from_secs(10);
/// The first look at the token takes no longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Nobody but an operator can renew it, and operators have holidays: days ahead of expiry.
const WARNINGS: [i64; 3] = [14, 7, 1];

/// Keeps the configured token of one identity.
pub(super) struct ApiToken {
    name: Arc<str>,
    given: ArcSwap<Given>,
    shared: Arc<Shared>,
    /// Cancelled when the identity, or the gateway, has come to its end.
    stop: CancellationToken,
    slot: Slot,
    counters: Counters,
    wake: Notify,
    /// Counts the looks, for those who wait for the next one.
    looks: watch::Sender<u64>,
    standing: Mutex<Standing>,
}

/// How the token stands.
struct Standing {
    /// Why there is none, if there is none.
    failure: Option<Failure>,
    /// What a file was changed to, at the last look.
    candidate: Option<Fingerprint>,
    /// The token that the API has denied, or that is no use.
    refused: Option<Fingerprint>,
    /// A request with the token in force was denied.
    denied: bool,
    probed: Option<Instant>,
    /// The warning that was given last, in days.
    warned: Option<i64>,
    seen: Timestamp,
}

#[derive(Clone)]
enum Failure {
    Unreadable(Arc<str>),
    NoUse(Arc<str>),
}

impl ApiToken {
    pub(super) fn new(given: Given, shared: Arc<Shared>) -> Self {
        let seen = shared.clock.now();
        let standing = Standing {
            failure: None,
            candidate: None,
            refused: None,
            denied: false,
            probed: None,
            warned: None,
            seen,
        };
        Self {
            name: Arc::clone(&given.identity.name),
            given: ArcSwap::from_pointee(given),
            stop: shared.stop.child_token(),
            shared,
            slot: Slot::default(),
            counters: Counters::default(),
            wake: Notify::new(),
            looks: watch::Sender::new(0),
            standing: Mutex::new(standing),
        }
    }

    /// Whose token it is.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Goes on with what is configured now. Another token is proved before it comes into force.
    pub(super) fn follow(&self, given: Given) {
        self.given.store(Arc::new(given));
        self.wake.notify_one();
    }

    /// Ends it. The session of an API token is nobody's here to end.
    pub(super) fn end(&self) {
        self.stop.cancel();
    }

    /// Where the configured token is.
    fn secret(&self) -> Option<Secret> {
        match &self.given.load().identity.credentials {
            Credentials::ApiToken(secret) => Some(secret.clone()),
            Credentials::Password { .. } => None,
        }
    }

    /// Begins to look at the token, in the background.
    pub(super) fn start(self: &Arc<Self>) {
        let Shared { runtime, tasks, .. } = &*self.shared;
        let (keeper, died) = (Arc::clone(self), Arc::clone(self));
        let keep = move || Arc::clone(&keeper).keep();
        let died = move || died.died();
        tasks.spawn_on(supervise(runtime.clone(), self.stop.clone(), keep, died), runtime);
    }

    fn died(&self) {
        error!(identity = %self.name, "the task that keeps an identity signed in has died; starting it again");
        self.counters.keeper_restarts.add();
    }

    /// The token in force, if it may be sent. Takes no lock.
    pub(super) fn current(&self) -> Option<Arc<Token>> {
        let now = self.shared.clock.now();
        self.slot.token().filter(|token| token.serves(now))
    }

    /// The token in force.
    pub(super) async fn token(&self) -> Result<Arc<Token>, Error> {
        if let Some(token) = self.current() {
            return Ok(token);
        }
        // Only the very first look is worth waiting for.
        let mut looks = self.looks.subscribe();
        let deadline = Instant::now() + PATIENCE;
        let _ = timeout_at(deadline, looks.wait_for(|looks| *looks > 0)).await;
        self.current().ok_or_else(|| self.failure())
    }

    /// The configured token, if it is newer than `stale`: a denied one cannot be renewed.
    pub(super) async fn renew(&self, stale: &Token) -> Result<Arc<Token>, Error> {
        self.counters.denials.add();
        if let Some(token) = self.current().filter(|it| it.generation() > stale.generation()) {
            return Ok(token);
        }
        // Whether it is dead for all, or denied by one odd route, is found out behind the scenes.
        self.standing().denied = true;
        self.wake.notify_one();
        Err(self.no_use("the API denied it"))
    }

    /// Reads the token again now.
    pub(super) async fn refresh(&self) -> Result<Arc<Token>, Error> {
        self.standing().refused = None;
        let mut looks = self.looks.subscribe();
        // A changed file has to look the same twice.
        for _ in 0..2 {
            let before = *looks.borrow_and_update();
            self.wake.notify_one();
            let next = looks.wait_for(|looks| *looks > before);
            if timeout(PATIENCE, next).await.is_err() {
                break;
            }
        }
        self.current().ok_or_else(|| self.failure())
    }

    /// How things stand.
    pub(super) fn status(&self) -> Status {
        let token = self.current();
        let token = token.as_deref();
        let standing = self.standing();
        let failure = match &standing.failure {
            Some(Failure::Unreadable(reason) | Failure::NoUse(reason)) => Some(reason.to_string()),
            None => None,
        };
        let state = match (&standing.failure, token) {
            (_, Some(_)) => State::Valid,
            (Some(Failure::NoUse(_)), None) => State::Latched,
            (Some(Failure::Unreadable(_)), None) => State::BackingOff,
            (None, None) => State::None,
        };
        Status {
            name: self.name.to_string(),
            credentials: CredentialsKind::ApiToken,
            state,
            serving: token.is_some(),
            generation: self.slot.generation(),
            issued: None,
            expires: token.and_then(Token::expires),
            renews: None,
            second_factor: None,
            failure,
            retries: None,
            members: 1,
            store_error: None,
            counts: self.counters.read(),
            keeper_seen: standing.seen,
        }
    }

    /// The session of an API token is not ours to end.
    pub(super) fn not_ours(&self) -> Error {
        self.no_use("its session is not the gateway's to end: delete the token at Amove")
    }

    async fn keep(self: Arc<Self>) {
        loop {
            self.look().await;
            self.warn_of_expiry();
            self.standing().seen = self.shared.clock.now();
            self.looks.send_modify(|looks| *looks += 1);
            select! {
                () = self.stop.cancelled() => return,
                () = self.wake.notified() => {}
                () = sleep(LOOK) => {}
            }
        }
    }

    async fn look(&self) {
        self.bury_if_dead().await;
        if self.slot.token().is_some_and(|token| !token.serves(self.shared.clock.now())) {
            self.lay_down(Failure::NoUse("it has expired".into()));
        }
        let Some(secret) = self.secret() else { return };
        let jwt = match secret.read() {
            Ok(jwt) => jwt,
            Err(error) => {
                // An unreadable file takes nothing away from what was read before.
                if self.current().is_none() {
                    self.fail(Failure::Unreadable(error.to_string().into()));
                }
                return;
            }
        };
        let read = Fingerprint::of(&[jwt.expose_secret()]);
        let current = self.current();
        let same = |token: &Arc<Token>| token.jwt().expose_secret() == jwt.expose_secret();
        let first = *self.looks.borrow() == 0;
        {
            let mut standing = self.standing();
            if current.as_ref().is_some_and(same) || standing.refused == Some(read) {
                standing.candidate = None;
                return;
            }
            // One that is still being written is not taken for a new one.
            let is_file = matches!(secret, Secret::File(_));
            if is_file && !first && standing.candidate.replace(read) != Some(read) {
                return;
            }
        }
        self.adopt(jwt, read, current.is_some()).await;
    }

    /// Puts a new token in force; where there is one that serves, the new one is proved first.
    async fn adopt(&self, jwt: SecretString, read: Fingerprint, replaces: bool) {
        let generation = self.slot.generation() + 1;
        let token = Token::from_configuration(jwt, generation, self.shared.clock.now());
        let token = match token {
            Ok(token) => token,
            Err(error) => return self.refuse(read, &sentence(&error)),
        };
        if replaces {
            match self.probe(&token).await {
                Ok(()) => {}
                Err(Probe::Denied) => return self.refuse(read, "the API denies it"),
                // Nothing was decided: the old one goes on, and the new one is tried again.
                Err(Probe::Undecided(reason)) => {
                    warn!(identity = %self.name, reason, "API token cannot be proved yet");
                    return;
                }
            }
        }
        info!(
            identity = %self.name,
            generation,
            expires = token.expires().map(tracing::field::display),
            "API token in force",
        );
        self.slot.put(Arc::new(token));
        let mut standing = self.standing();
        standing.failure = None;
        standing.candidate = None;
        standing.denied = false;
        standing.warned = None;
    }

    /// Takes a token out of force that the API denies everywhere, not just on one odd route.
    async fn bury_if_dead(&self) {
        let Some(token) = self.current() else { return };
        {
            let mut standing = self.standing();
            let rests = standing.probed.is_some_and(|probed| probed.elapsed() < PROBE_PAUSE);
            if rests || !std::mem::take(&mut standing.denied) {
                return;
            }
            standing.probed = Some(Instant::now());
        }
        if let Err(Probe::Denied) = self.probe(&token).await {
            self.standing().refused = Some(Fingerprint::of(&[token.jwt().expose_secret()]));
            self.lay_down(Failure::NoUse("the API denies it".into()));
        }
    }

    async fn probe(&self, token: &Token) -> Result<(), Probe> {
        let upstream = self.given.load().upstream.clone();
        match timeout(PROBE, userinfo(&upstream, token.bearer())).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(userinfo::Error::Answered(StatusCode::UNAUTHORIZED))) => Err(Probe::Denied),
            Ok(Err(error)) => Err(Probe::Undecided(sentence(&error))),
            Err(_) => Err(Probe::Undecided("the API does not answer".to_owned())),
        }
    }

    /// A token that was read is no use; one that serves goes on serving.
    fn refuse(&self, read: Fingerprint, reason: &str) {
        error!(identity = %self.name, reason, "API token is no use");
        let mut standing = self.standing();
        standing.refused = Some(read);
        standing.candidate = None;
        drop(standing);
        if self.current().is_none() {
            self.fail(Failure::NoUse(reason.into()));
        }
    }

    fn lay_down(&self, failure: Failure) {
        drop(self.slot.take());
        if let Failure::NoUse(reason) = &failure {
            error!(identity = %self.name, %reason, "API token is out of force");
        }
        self.fail(failure);
    }

    fn fail(&self, failure: Failure) {
        self.standing().failure = Some(failure);
    }

    fn warn_of_expiry(&self) {
        let Some(expires) = self.current().and_then(|token| token.expires()) else { return };
        let rest = expires.duration_since(self.shared.clock.now());
        let due = |days: &&i64| rest <= SignedDuration::from_hours(24 * **days);
        let Some(days) = WARNINGS.iter().filter(due).min().copied() else { return };
        let mut standing = self.standing();
        if standing.warned.is_none_or(|warned| days < warned) {
            standing.warned = Some(days);
            let hours = rest.as_hours();
            warn!(identity = %self.name, %expires, hours, "API token expires soon");
        }
    }

    fn failure(&self) -> Error {
        let identity = Arc::clone(&self.name);
        match self.standing().failure.clone() {
            Some(Failure::NoUse(reason)) => Error::ApiToken { identity, reason },
            Some(Failure::Unreadable(reason)) => {
                Error::Credentials { identity, reason, retry_after: LOOK }
            }
            None => Error::BrokenOff { identity },
        }
    }

    fn no_use(&self, reason: &str) -> Error {
        Error::ApiToken { identity: Arc::clone(&self.name), reason: reason.into() }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of asking the API about a token.
enum Probe {
    Denied,
    Undecided(String),
}
