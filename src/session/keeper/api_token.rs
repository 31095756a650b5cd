//! An identity that has a configured token and never logs in.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;
use tokio::time::Instant;
use tracing::{error, warn};

use super::Keeper;
use crate::{
    config::{Credentials, secret::Secret},
    session::{Error, Token, error::sentence, login::Fingerprint},
};

/// Nobody but an operator can renew it, and operators have holidays.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

impl Keeper {
    /// The configured token, as it is now.
    pub(super) fn adopt(&self, secret: &Secret) -> Result<Arc<Token>, Error> {
        let mut gate = self.gate();
        let now = Instant::now();
        if let Some(refusal) = gate.refusal(now) {
            return Err(refusal);
        }
        let jwt = match secret.read() {
            Ok(jwt) => jwt,
            Err(error) => {
                drop(gate);
                // An unreadable file takes nothing away from what was read before.
                return self.current().ok_or_else(|| self.failed(error.into(), None));
            }
        };
        let same = |token: &Arc<Token>| token.jwt().expose_secret() == jwt.expose_secret();
        if let Some(token) = self.current().filter(same) {
            return Ok(token);
        }
        let tried = Fingerprint::of(&[jwt.expose_secret()]);
        gate.admit(now, Some(&tried))?;
        let token = Token::from_configuration(jwt, self.origin(false)).map_err(|error| {
            let reason = sentence(&error);
            error!(identity = %self.identity.name, reason, "API token is no use");
            let error = self.no_use(&reason);
            self.set_failure(Some(reason));
            gate.latch(now, error.clone(), tried);
            error
        })?;
        gate.open();
        let soon = |expires: &Timestamp| expires.duration_since(token.issued()) < SOON;
        if let Some(expires) = token.expires().filter(soon) {
            warn!(identity = %self.identity.name, %expires, "API token expires soon");
        }
        Ok(self.put_in_force(token))
    }

    /// The configured token, if it is newer than `stale`: a refused one cannot be renewed.
    pub(super) fn adopt_newer(&self, secret: &Secret, stale: &Token) -> Result<Arc<Token>, Error> {
        let token = self.adopt(secret)?;
        if token.generation() == stale.generation() {
            return Err(self.no_use("the API refused it"));
        }
        Ok(token)
    }

    /// Takes over a configured token that has changed.
    pub(in crate::session) fn look_at_configuration(&self) {
        if let Credentials::ApiToken(secret) = &self.identity.credentials {
            // A failure has been logged, and stands in the status.
            let _ = self.adopt(secret);
        }
    }

    fn no_use(&self, reason: &str) -> Error {
        Error::ApiToken { identity: Arc::clone(&self.identity.name), reason: reason.into() }
    }
}
