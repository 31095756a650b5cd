//! `[audit]`: what is written down.

use std::path::PathBuf;

use aws_lc_rs::signature::Ed25519KeyPair;
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use secrecy::{ExposeSecret, SecretString};

use super::{Audit, Durability, OnFailure, parse, read::Reader};

impl Reader<'_> {
    /// Nothing if what is needed is missing or wrong, which is then among the findings.
    pub(super) fn audit(&mut self) -> Option<Audit> {
        let store = self.read("audit.store", parse::text);
        let on_failure = [("deny", OnFailure::Deny), ("allow", OnFailure::Allow)];
        let on_failure = self.word("audit.on_failure", &on_failure);
        let durability = [("batch", Durability::Batch), ("sync", Durability::Sync)];
        let durability = self.word("audit.durability", &durability);
        let retain = self.positive("audit.retain", parse::duration);
        let stdout = self.read("audit.stdout", parse::boolean).unwrap_or_default();
        let key = self.secret("audit.signing.key");
        let signing_key = key.and_then(|key| key.read().ok()).and_then(|key| self.signing(key));
        let postgres = self.audit_postgres();
        if store.as_ref().is_some_and(String::is_empty) {
            self.wrong("audit.store", "expected a folder: every request leaves a record");
            return None;
        }
        Some(Audit {
            store: PathBuf::from(store?),
            on_failure: on_failure?,
            durability: durability?,
            retain: retain?,
            stdout,
            signing_key,
            postgres,
        })
    }

    fn signing(&mut self, key: SecretString) -> Option<SecretString> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(key.expose_secret().as_bytes());
        let is_key =
            der.is_ok_and(|der| Ed25519KeyPair::from_pkcs8(der.secret_pkcs8_der()).is_ok());
        if !is_key {
            let form = self.form_of("audit.signing.key");
            self.wrong(&form, "expected a private key in PEM: openssl genpkey -algorithm ed25519");
            return None;
        }
        Some(key)
    }
}
