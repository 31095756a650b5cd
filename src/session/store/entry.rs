//! What all who share a store know about one identity.

use std::{fmt, sync::Arc};

use jiff::{
    SignedDuration, Timestamp,
    fmt::serde::timestamp::millisecond::{optional, required},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use super::super::login::Fingerprint;

/// Sessions that wait to be ended. There are more only if the API cannot be reached for hours.
pub(in crate::session) const MAX_RETIRED: usize = 8;

/// What all who share a store know about one identity. Its times are by our own clock, whoever
/// wrote it.
///
/// This is also what is sealed: a field may be added, but one that goes or means something else
/// makes a new version.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(in crate::session) struct Entry {
    /// The session in force.
    pub(in crate::session) session: Option<Stored>,
    /// Sessions that were replaced, and since when: the oldest first, at most [`MAX_RETIRED`].
    #[serde(default)]
    pub(in crate::session) retired: Vec<Retired>,
    /// Why the last login failed, if it did.
    pub(in crate::session) note: Option<Note>,
    /// When the logins that denied tokens have asked for are paid off.
    #[serde(default, with = "optional")]
    pub(in crate::session) denials_paid: Option<Timestamp>,
}

/// A session, as it is kept.
#[derive(Clone, Deserialize, Serialize)]
pub(in crate::session) struct Stored {
    /// Names it without giving it away.
    pub(in crate::session) id: Uuid,
    #[serde(serialize_with = "exposed")]
    pub(in crate::session) jwt: SecretString,
    #[serde(with = "required")]
    pub(in crate::session) issued: Timestamp,
    /// What could be read of its expiry.
    #[serde(default, with = "optional")]
    pub(in crate::session) expires: Option<Timestamp>,
    pub(in crate::session) second_factor: bool,
    /// The credentials that opened it.
    #[serde(serialize_with = "hex", deserialize_with = "of_hex")]
    pub(in crate::session) secrets: Fingerprint,
}

/// A session that was replaced and is still open.
#[derive(Clone, Deserialize, Serialize)]
pub(in crate::session) struct Retired {
    pub(in crate::session) id: Uuid,
    #[serde(serialize_with = "exposed")]
    pub(in crate::session) jwt: SecretString,
    /// Nobody uses it any more after this.
    #[serde(with = "required")]
    pub(in crate::session) from: Timestamp,
}

/// Why a login failed, so that nobody repeats it in vain.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(in crate::session) struct Note {
    pub(in crate::session) failure: Failure,
    /// For people; no secrets.
    pub(in crate::session) reason: Arc<str>,
    /// The credentials that were tried.
    #[serde(serialize_with = "hex", deserialize_with = "of_hex")]
    pub(in crate::session) tried: Fingerprint,
    /// Not again before this time; of refused credentials, not at all.
    #[serde(with = "required")]
    pub(in crate::session) until: Timestamp,
    /// How many logins have failed in a row.
    pub(in crate::session) failures: u32,
}

/// How a login failed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::session) enum Failure {
    /// The same credentials will be refused again.
    Refused,
    /// The user has as many sessions as the API allows.
    Quota,
    /// The API does not accept its own request tokens.
    RequestToken,
    /// Another time it may work.
    Transient,
}

impl Entry {
    /// The same, by a clock that is so far ahead.
    pub(super) fn shifted(mut self, ahead: SignedDuration) -> Self {
        let shift = |time: &mut Timestamp| *time = time.saturating_add(ahead).unwrap_or(*time);
        if let Some(session) = &mut self.session {
            shift(&mut session.issued);
            session.expires.as_mut().map(shift);
        }
        self.retired.iter_mut().map(|retired| &mut retired.from).for_each(shift);
        self.note.as_mut().map(|note| &mut note.until).map(shift);
        self.denials_paid.as_mut().map(shift);
        self
    }
}

fn exposed<S: Serializer>(jwt: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(jwt.expose_secret())
}

fn hex<S: Serializer>(fingerprint: &Fingerprint, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&fingerprint.0.to_hex())
}

fn of_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Fingerprint, D::Error> {
    let text = String::deserialize(deserializer)?;
    blake3::Hash::from_hex(text).map(Fingerprint).map_err(de::Error::custom)
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("id", &self.id)
            .field("issued", &self.issued)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Retired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retired")
            .field("id", &self.id)
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}
