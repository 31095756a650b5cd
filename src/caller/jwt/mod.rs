//! Tokens of an issuer (OpenID Connect, or Kubernetes' projected ones): whose they are.

mod keys;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Validation, decode, decode_header};
use moka::sync::Cache;
use serde::Deserialize;
use tokio::{
    select,
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::keys::{KeySet, Source};
use crate::{clock::Clock, config};

pub use self::keys::Error as KeysError;

/// A longer one is no token of an issuer in its right mind.
const LONGEST: usize = 16 * 1024;
/// Tokens that were proved are remembered, at most so many.
const REMEMBERED: u64 = 10_000;
/// The issuer is asked for its keys so often, and how soon after that for one that is not known.
const REFRESH: Duration = Duration::from_secs(300);
const SOONEST: Duration = Duration::from_secs(30);
/// While the issuer gives none, more often.
const RETRY: Duration = Duration::from_secs(15);
/// Whoever shows a token with a new key waits no longer for it.
const PATIENCE: Duration = Duration::from_secs(3);

/// Proves tokens.
pub struct Verifier {
    issuer: String,
    audience: String,
    leeway: SignedDuration,
    source: Source,
    keys: ArcSwap<KeySet>,
    /// By the hash of the token.
    proved: Cache<[u8; 32], Proved>,
    clock: Clock,
    wanted: Notify,
    /// The issuer was asked only just now, and is not asked again yet.
    resting: AtomicBool,
    /// Counts the looks at the issuer's keys.
    looks: watch::Sender<u64>,
}

/// What a token proves, and for how long.
#[derive(Clone)]
struct Proved {
    subject: Arc<str>,
    expires: Timestamp,
}

/// What became of a token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is this subject's.
    Subject(Arc<str>),
    /// It is no good, whatever the reason.
    Refused,
    /// It was signed with a key that we do not know: the issuer may have a new one.
    UnknownKey,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    nbf: Option<f64>,
}

impl Verifier {
    /// Proves tokens as `config` says. There are no keys yet: see [`Verifier::keep`].
    ///
    /// # Errors
    ///
    /// When the way to the issuer cannot be prepared.
    pub fn new(config: &config::CallerJwt, clock: Clock) -> Result<Arc<Self>, KeysError> {
        Ok(Arc::new(Self {
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            leeway: SignedDuration::try_from(config.leeway).unwrap_or(SignedDuration::ZERO),
            source: Source::new(config)?,
            keys: ArcSwap::default(),
            proved: Cache::new(REMEMBERED),
            clock,
            wanted: Notify::new(),
            resting: AtomicBool::new(false),
            looks: watch::Sender::new(0),
        }))
    }

    /// Whether `presented` has the form of a token, so that it is no key.
    pub fn is_token(presented: &[u8]) -> bool {
        presented.starts_with(b"eyJ") && presented.iter().filter(|byte| **byte == b'.').count() == 2
    }

    /// Whose `token` is. One that was proved before costs a hash and a look.
    pub fn verify(&self, token: &[u8]) -> Verdict {
        if token.len() > LONGEST {
            return Verdict::Refused;
        }
        let now = self.clock.now();
        let hash = *blake3::hash(token).as_bytes();
        if let Some(proved) = self.proved.get(&hash) {
            let is_good = now < self.later(proved.expires);
            return if is_good { Verdict::Subject(proved.subject) } else { Verdict::Refused };
        }
        let verdict = self.prove(token, now);
        if let Ok(proved) = &verdict {
            self.proved.insert(hash, proved.clone());
        }
        verdict.map_or_else(|verdict| verdict, |proved| Verdict::Subject(proved.subject))
    }

    fn prove(&self, token: &[u8], now: Timestamp) -> Result<Proved, Verdict> {
        let header = decode_header(token).map_err(|_| Verdict::Refused)?;
        let keys = self.keys.load();
        let mut candidates = keys.find(header.kid.as_deref(), header.alg).peekable();
        if candidates.peek().is_none() {
            return Err(Verdict::UnknownKey);
        }
        // The algorithm is the key's, never the token's choice.
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Times are judged by our own clock, below.
        (validation.validate_exp, validation.validate_nbf) = (false, false);
        let proved = candidates.find_map(|key| decode::<Claims>(token, key, &validation).ok());
        let claims = proved.ok_or(Verdict::Refused)?.claims;
        let (expires, begins) = (time(claims.exp), claims.nbf.map(time));
        let expires = expires.ok_or(Verdict::Refused)?;
        let has_begun = match begins {
            None => true,
            Some(begins) => begins.is_some_and(|begins| begins <= self.later(now)),
        };
        if now < self.later(expires) && has_begun {
            Ok(Proved { subject: claims.sub.into(), expires })
        } else {
            Err(Verdict::Refused)
        }
    }

    fn later(&self, time: Timestamp) -> Timestamp {
        time.checked_add(self.leeway).unwrap_or(Timestamp::MAX)
    }

    /// Asks for the issuer's keys, and waits for them for a little while.
    pub async fn refresh(&self) {
        if self.resting.load(Relaxed) {
            return;
        }
        let mut looks = self.looks.subscribe();
        let before = *looks.borrow_and_update();
        self.wanted.notify_one();
        let _ = timeout(PATIENCE, looks.wait_for(|looks| *looks > before)).await;
    }

    /// Keeps the issuer's keys up to date until `stop`.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let mut failing = false;
        loop {
            let asked = Instant::now();
            let looked = self.source.keys().await;
            let pause = match looked {
                Ok(keys) => {
                    self.take(keys);
                    failing = false;
                    REFRESH
                }
                Err(error) => {
                    if !failing {
                        let reason = error.to_string();
                        warn!(reason, "the keys of the issuer cannot be had; known ones go on");
                    }
                    failing = true;
                    RETRY
                }
            };
            self.looks.send_modify(|looks| *looks += 1);
            select! {
                () = stop.cancelled() => return,
                () = self.changed(pause) => {}
                () = self.wanted.notified() => {
                    // Whoever makes keys up must not make us ask each time.
                    let rest = if failing { RETRY } else { SOONEST };
                    let due = self.source.is_cheap() || asked.elapsed() >= rest;
                    if !due {
                        self.resting.store(true, Relaxed);
                        // Whoever waits does so in vain.
                        self.looks.send_modify(|looks| *looks += 1);
                        select! {
                            () = stop.cancelled() => return,
                            () = sleep(rest.saturating_sub(asked.elapsed())) => {}
                        }
                        self.resting.store(false, Relaxed);
                    }
                }
            }
        }
    }

    /// Until it is time for the next look.
    async fn changed(&self, pause: Duration) {
        // A file costs nothing to look at.
        let pause = if self.source.is_cheap() { Duration::from_secs(1) } else { pause };
        sleep(pause).await;
    }

    fn take(&self, keys: KeySet) {
        if **self.keys.load() == keys {
            return;
        }
        info!(keys = keys.len(), "the issuer's keys were taken over");
        self.keys.store(Arc::new(keys));
        // What was proved with a key that is gone proves nothing any more.
        self.proved.invalidate_all();
    }
}

/// A NumericDate (RFC 7519 section 2).
fn time(seconds: f64) -> Option<Timestamp> {
    Timestamp::from_duration(SignedDuration::try_from_secs_f64(seconds).ok()?).ok()
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}
