//! Seals entries, so that a store gives nothing away and nothing foreign is taken from it.

#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, Nonce, RandomizedNonceKey};
use secrecy::{ExposeSecret, zeroize::Zeroizing};
use tracing::warn;

use super::{Binding, Entry, Error, MAX_RETIRED};
use crate::config::SealingKey;

/// The first byte: how the rest is to be read.
const VERSION: u8 = 1;
const VERSION_AND_NONCE: usize = 1 + 12;
const TAG: usize = 16;
/// What is sealed is never larger, so what is larger was not sealed by us.
pub(super) const LIMIT: usize = 256 * 1024;

/// Seals the entries of one binding.
pub(super) struct Sealer {
    key: SealingKey,
    binding: Binding,
    /// Authenticated with each entry, but not part of it.
    context: Vec<u8>,
    /// What could not be unsealed last, so that it is told once.
    told: Mutex<Option<blake3::Hash>>,
}

/// Why something cannot be unsealed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Unsealable {
    #[error("it was sealed with another key or for another identity, or has been altered")]
    Foreign,
    #[error("it is damaged, or of another version")]
    Damaged,
}

impl Sealer {
    pub(super) fn new(key: &SealingKey, binding: &Binding) -> Self {
        let context = [b"amove-gateway session 1".as_slice(), &binding.bytes()].concat();
        let (key, binding) = (SealingKey::clone(key), binding.clone());
        Self { key, binding, context, told: Mutex::default() }
    }

    /// Names the key without giving it away.
    pub(super) fn key_id(&self) -> String {
        let context = "amove-gateway sealing key id 1";
        let hash = blake3::Hash::from(blake3::derive_key(context, self.key.expose_secret()));
        hash.to_hex()[..8].to_owned()
    }

    pub(super) fn seal(&self, entry: &Entry) -> Result<Vec<u8>, Error> {
        let failed = |why: &str| Error::Unavailable(format!("cannot seal a session: {why}").into());
        let mut buffer = plaintext(entry).map_err(|_| failed("it has no text"))?;
        if VERSION_AND_NONCE + buffer.len() + TAG > LIMIT {
            return Err(failed("it is too large"));
        }
        let (nonce, tag) = self
            .cipher()
            .and_then(|cipher| cipher.seal_in_place_separate_tag(self.aad(), &mut buffer))
            .map_err(|_| failed("no random numbers"))?;
        Ok([&[VERSION][..], nonce.as_ref(), &buffer, tag.as_ref()].concat())
    }

    /// What is sealed in there; of something unsealable, nothing, and a warning.
    pub(super) fn unseal_or_warn(&self, sealed: &[u8]) -> Entry {
        self.unseal(sealed).unwrap_or_else(|reason| {
            let hash = blake3::hash(sealed);
            let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).replace(hash);
            if told != Some(hash) {
                warn!(
                    identity = %self.binding.identity,
                    %reason,
                    "stored session ignored: if nobody changed session_store.encryption_key, find out who else writes to the store; the next login replaces it"
                );
            }
            Entry::default()
        })
    }

    fn unseal(&self, sealed: &[u8]) -> Result<Entry, Unsealable> {
        if sealed.len() > LIMIT {
            return Err(Unsealable::Damaged);
        }
        let (head, body) = sealed.split_at_checked(VERSION_AND_NONCE).ok_or(Unsealable::Damaged)?;
        let (&[VERSION], nonce) = head.split_at(1) else { return Err(Unsealable::Damaged) };
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unsealable::Damaged)?;
        let mut buffer = Zeroizing::new(body.to_vec());
        let text = self
            .cipher()
            .and_then(|cipher| {
                cipher.open_in_place(nonce, self.aad(), &mut buffer).map(|text| &*text)
            })
            .map_err(|_| Unsealable::Foreign)?;
        let mut entry: Entry = serde_json::from_slice(text).map_err(|_| Unsealable::Damaged)?;
        let surplus = entry.retired.len().saturating_sub(MAX_RETIRED);
        entry.retired.drain(..surplus);
        Ok(entry)
    }

    fn cipher(&self) -> Result<RandomizedNonceKey, aws_lc_rs::error::Unspecified> {
        RandomizedNonceKey::new(&AES_256_GCM_SIV, self.key.expose_secret())
    }

    fn aad(&self) -> Aad<&[u8]> {
        Aad::from(&self.context)
    }
}

fn plaintext(entry: &Entry) -> serde_json::Result<Zeroizing<Vec<u8>>> {
    let tokens = entry.session.iter().map(|session| &session.jwt);
    let tokens = tokens.chain(entry.retired.iter().map(|retired| &retired.jwt));
    let tokens: usize = tokens.map(|jwt| jwt.expose_secret().len()).sum();
    let reason = entry.note.as_ref().map_or(0, |note| note.reason.len());
    // Enough for everything, even if each byte is escaped: a buffer that grows leaves copies.
    let mut buffer = Zeroizing::new(Vec::with_capacity(8 * 1024 + 6 * (tokens + reason)));
    serde_json::to_writer(&mut *buffer, entry)?;
    Ok(buffer)
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("binding", &self.binding).finish_non_exhaustive()
    }
}
