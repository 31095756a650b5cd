//! `[session_store]`: where sessions outlive the process, or are shared by a fleet.

use std::{path::PathBuf, sync::Arc};

use base64::{
    Engine,
    engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig},
};
use secrecy::{ExposeSecret, SecretBox, SecretString, zeroize::Zeroizing};

use super::{SessionStore, StoreError, StoreKind, parse, read::Reader};

/// What seals a session: 32 bytes.
pub type SealingKey = Arc<SecretBox<[u8; 32]>>;

impl Reader<'_> {
    /// Nothing if what is needed is missing or wrong, which is then among the findings.
    pub(super) fn session_store(&mut self) -> Option<SessionStore> {
        #[derive(Clone, Copy)]
        enum Word {
            Memory,
            File,
            Redis,
        }
        let words = [("memory", Word::Memory), ("file", Word::File), ("redis", Word::Redis)];
        let kind = self.word("session_store.kind", &words);
        let path = self.read("session_store.path", parse::optional(parse::text)).flatten();
        let url = self.secret("session_store.url");
        let key = self.secret("session_store.encryption_key");
        let ca_file = self.read("session_store.ca_file", parse::optional(parse::text)).flatten();
        let on_error = [("local", StoreError::Local), ("hold", StoreError::Hold)];
        let on_error = self.word("session_store.on_error", &on_error)?;

        let kind = match kind? {
            Word::Memory => {
                if path.is_some() || url.is_some() || key.is_some() {
                    self.warn(
                        "[session_store] is of kind \"memory\": its other settings do nothing",
                    );
                }
                return Some(SessionStore { kind: StoreKind::Memory, on_error });
            }
            Word::File => {
                let path = path.map(PathBuf::from);
                if path.is_none() {
                    self.missing("session_store", "path", "there is no file to keep sessions in");
                }
                let key = self.sealing_key(key);
                StoreKind::File { path: path?, key: key? }
            }
            Word::Redis => {
                if url.is_none() && !self.is_secret_set("session_store.url") {
                    self.missing("session_store", "url", "there is no Redis to share sessions in");
                }
                let url = url.and_then(|url| self.redis("session_store.url", &url));
                let key = self.sealing_key(key);
                StoreKind::Redis { url: url?, ca_file: ca_file.map(PathBuf::from), key: key? }
            }
        };
        Some(SessionStore { kind, on_error })
    }

    fn sealing_key(&mut self, key: Option<super::secret::Secret>) -> Option<SealingKey> {
        const EXPECTED: &str = "expected 32 random bytes in base64: openssl rand -base64 32";
        if key.is_none() && !self.is_secret_set("session_store.encryption_key") {
            let why = "sessions are sealed wherever they are kept: openssl rand -base64 32";
            self.missing("session_store", "encryption_key_file", why);
        }
        let text = key?.read().ok()?;
        let key = sealing_key(&text);
        if key.is_none() {
            let form = self.form_of("session_store.encryption_key");
            self.wrong(&form, EXPECTED);
        }
        key
    }
}

fn sealing_key(text: &SecretString) -> Option<SealingKey> {
    let lenient = GeneralPurposeConfig::new()
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, lenient);
    let text = text.expose_secret().trim();
    let bytes = engine.decode(text).ok().map(Zeroizing::new)?;
    let key: [u8; 32] = bytes.as_slice().try_into().ok()?;
    Some(Arc::new(SecretBox::new(Box::new(key))))
}
