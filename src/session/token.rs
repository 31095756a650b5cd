//! The proof of a session: what it is sent as, and how long it serves.

use std::{
    fmt,
    sync::atomic::{AtomicI64, Ordering::Relaxed},
    time::Duration,
};

use http::HeaderValue;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::dangerous::insecure_decode_claims;
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use serde::Deserialize;

use super::{login, store::Stored};
use crate::config::{Identity, RefreshAhead};

/// A token is not handed out in its last second: it has a way to go.
const MARGIN: SignedDuration = SignedDuration::from_secs(1);
/// However early a renewal is wanted, the token serves for this long first.
const SHORTEST_SERVICE: Duration = Duration::from_secs(1);
/// The share of the time ahead of expiry by which renewals are spread.
const JITTER: f64 = 0.1;

/// What proves a session to the API.
pub struct Token {
    bearer: HeaderValue,
    jwt: SecretString,
    generation: u64,
    issued: Timestamp,
    expires: Option<Timestamp>,
    service: Service,
    second_factor: bool,
    /// Callers wait for another one until this time (in Unix milliseconds) rather than use it.
    suspect_until: AtomicI64,
}

/// How long a token serves, and when it is replaced, by our clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Service {
    pub(super) until: Timestamp,
    pub(super) renew_at: Timestamp,
}

impl Service {
    /// Of a session that a login has opened; `None` if it had expired when it came. `chance` is a
    /// random share, which spreads renewals.
    pub(super) fn of(session: &Stored, identity: &Identity, chance: f64) -> Option<Self> {
        let end = session.expires.unwrap_or_else(|| later(session.issued, identity.max_age));
        let lifetime = end.duration_since(session.issued);
        if !lifetime.is_positive() {
            return None;
        }
        let service = service(lifetime.unsigned_abs(), identity.refresh_ahead, chance);
        let until = end.checked_sub(MARGIN.min(lifetime / 10)).unwrap_or(end);
        Some(Self { until, renew_at: later(session.issued, service) })
    }
}

impl Token {
    /// The token of a session that a login has opened.
    ///
    /// # Errors
    ///
    /// [`login::Error::NotAToken`].
    pub(super) fn of_session(
        session: &Stored,
        generation: u64,
        service: Service,
    ) -> Result<Self, login::Error> {
        let Stored { issued, expires, second_factor, .. } = *session;
        Self::new(session.jwt.clone(), generation, issued, expires, service, second_factor)
    }

    /// A token from the configuration: it cannot be renewed.
    ///
    /// # Errors
    ///
    /// [`login::Error::Expired`] and [`login::Error::NotAToken`].
    pub(super) fn from_configuration(
        jwt: SecretString,
        generation: u64,
        issued: Timestamp,
    ) -> Result<Self, login::Error> {
        let expires = expiry(&jwt);
        if expires.is_some_and(|expires| expires <= issued) {
            return Err(login::Error::Expired);
        }
        let until = expires.unwrap_or(Timestamp::MAX);
        let service = Service { until, renew_at: until };
        Self::new(jwt, generation, issued, expires, service, false)
    }

    fn new(
        jwt: SecretString,
        generation: u64,
        issued: Timestamp,
        expires: Option<Timestamp>,
        service: Service,
        second_factor: bool,
    ) -> Result<Self, login::Error> {
        let bearer = Zeroizing::new(format!("Bearer {}", jwt.expose_secret()));
        let mut bearer = HeaderValue::from_str(&bearer).map_err(|_| login::Error::NotAToken)?;
        bearer.set_sensitive(true);
        let suspect_until = AtomicI64::new(i64::MIN);
        Ok(Self { bearer, jwt, generation, issued, expires, service, second_factor, suspect_until })
    }

    /// The value of `Authorization`, ready to be cloned.
    pub fn bearer(&self) -> &HeaderValue {
        &self.bearer
    }

    /// The JWT alone, for a logout.
    pub fn jwt(&self) -> &SecretString {
        &self.jwt
    }

    /// Counts the tokens of an identity: a newer one has a higher number.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// When it was issued, by our clock.
    pub fn issued(&self) -> Timestamp {
        self.issued
    }

    /// When it expires, by our clock; `None` if that cannot be read.
    pub fn expires(&self) -> Option<Timestamp> {
        self.expires
    }

    /// Whether the login asked for a TOTP code.
    pub fn second_factor(&self) -> bool {
        self.second_factor
    }

    /// Whether it may be sent.
    pub(super) fn serves(&self, now: Timestamp) -> bool {
        now < self.service.until
    }

    /// Whether callers should use it rather than wait for another one.
    pub(super) fn is_trusted(&self, now: Timestamp) -> bool {
        now.as_millisecond() >= self.suspect_until.load(Relaxed)
    }

    /// It seems to be dead, and another one is being fetched: callers wait for that until then.
    pub(super) fn suspect(&self, until: Timestamp) {
        self.suspect_until.store(until.as_millisecond(), Relaxed);
    }

    /// There will be no other one for now.
    pub(super) fn trust(&self) {
        self.suspect_until.store(i64::MIN, Relaxed);
    }

    /// When it will be replaced.
    pub(super) fn renew_at(&self) -> Timestamp {
        self.service.renew_at
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("generation", &self.generation)
            .field("issued", &self.issued)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// The `exp` of a JWT, by the clock of whoever issued it. An encrypted one has none to read.
pub(super) fn expiry(jwt: &SecretString) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }
    let claims: Claims = insecure_decode_claims(jwt.expose_secret()).ok()?;
    let seconds = SignedDuration::try_from_secs_f64(claims.exp).ok()?;
    Timestamp::from_duration(seconds).ok()
}

/// How long a token of this `lifetime` serves before it is replaced.
fn service(lifetime: Duration, ahead: RefreshAhead, jitter: f64) -> Duration {
    let ahead = match ahead {
        RefreshAhead::Share(share) => lifetime.mul_f64(share.clamp(0.0, 1.0)),
        // A token that lives shorter than that would be renewed in a loop.
        RefreshAhead::Before(before) => before.min(lifetime / 2),
    };
    let ahead = ahead.mul_f64(1.0 + JITTER * jitter.clamp(0.0, 1.0));
    lifetime.saturating_sub(ahead).max(SHORTEST_SERVICE.min(lifetime / 2))
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[track_caller]
    fn check(lifetime: Duration, ahead: RefreshAhead, jitter: f64, expected: Duration) {
        let service = service(lifetime, ahead, jitter).as_secs_f64();
        assert!((service - expected.as_secs_f64()).abs() < 0.001, "{ahead:?}: {service} s");
    }

    #[test]
    fn a_token_serves_for_most_of_its_life() {
        check(HOUR, RefreshAhead::Share(0.2), 0.0, HOUR * 80 / 100);
        check(HOUR, RefreshAhead::Share(0.2), 1.0, HOUR * 78 / 100);
        check(HOUR, RefreshAhead::Before(HOUR / 4), 0.0, HOUR * 3 / 4);
        check(HOUR, RefreshAhead::Before(HOUR * 4), 0.0, HOUR / 2);
        check(HOUR, RefreshAhead::Share(0.999_999), 1.0, Duration::from_secs(1));
        check(Duration::from_secs(1), RefreshAhead::Share(0.999), 1.0, Duration::from_millis(500));
    }

    #[test]
    fn only_a_time_is_read_as_one() {
        for (claims, expected) in [
            (r#"{"exp":1900000000}"#, Some(1_900_000_000)),
            (r#"{"exp":1900000000.9,"sub":"x"}"#, Some(1_900_000_000)),
            (r#"{"exp":-5}"#, Some(-5)),
            (r#"{"exp":1e300}"#, None),
            (r#"{"exp":"1900000000"}"#, None),
            (r#"{"exp":null}"#, None),
            (r#"{"sub":"x"}"#, None),
            ("[]", None),
            ("sealed", None),
        ] {
            let payload = URL_SAFE_NO_PAD.encode(claims);
            let jwt = SecretString::from(format!("e30.{payload}.sig"));
            assert_eq!(expiry(&jwt).map(Timestamp::as_second), expected, "{claims}");
        }
        for text in ["", ".", "..", "a.b", "a.b.c", "a.b.c.d.e"] {
            assert_eq!(expiry(&SecretString::from(text)), None, "{text}");
        }
    }
}
