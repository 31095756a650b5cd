//! The files of `[server.tls]`, as they are at one moment.

use std::{
    fmt,
    io::Read,
    path::{Path, PathBuf},
};

use secrecy::zeroize::Zeroizing;

use crate::config::Tls;

/// Revocation lists may be long; what is longer is none.
const LIMIT: u64 = 64 * 1024 * 1024;

pub(super) const CERT: &str = "server.tls.cert_file";
pub(super) const KEY: &str = "server.tls.key_file";
pub(super) const CA: &str = "server.tls.client_ca_file";
pub(super) const CRL: &str = "server.tls.client_crl_file";

/// What the files hold at one moment, not yet understood.
pub struct Files {
    pub(super) certificate: Vec<u8>,
    pub(super) key: Zeroizing<Vec<u8>>,
    pub(super) ca: Vec<u8>,
    pub(super) crl: Vec<u8>,
}

/// A file that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{setting}` cannot be used: {reason} ({})", path.display())]
pub struct FileError {
    /// The setting that names it.
    pub setting: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Why not.
    pub reason: String,
}

/// Files that cannot be used: all of them, not just the first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unusable(pub Vec<FileError>);

impl std::error::Error for Unusable {}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if at == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl Tls {
    /// The files as they are now.
    ///
    /// # Errors
    ///
    /// [`Unusable`]: those that cannot be read.
    pub fn look(&self) -> Result<Files, Unusable> {
        let trust = self.client_auth.trust();
        let crl_file = trust.and_then(|trust| trust.crl_file.as_deref());
        let mut errors = Vec::new();
        let mut look = |setting, path: Option<&Path>| {
            let read = path.map(|path| read(setting, path)).transpose();
            read.unwrap_or_else(|error| {
                errors.push(error);
                None
            })
            .unwrap_or_default()
        };
        let files = Files {
            certificate: look(CERT, Some(&self.cert_file)),
            key: look(KEY, Some(&self.key_file)).into(),
            ca: look(CA, trust.map(|trust| &*trust.ca_file)),
            crl: look(CRL, crl_file),
        };
        if errors.is_empty() { Ok(files) } else { Err(Unusable(errors)) }
    }
}

impl Files {
    /// Equal for equal files.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for file in [&self.certificate, &*self.key, &self.ca, &self.crl] {
            hasher.update(&(file.len() as u64).to_le_bytes()).update(file);
        }
        hasher.finalize().into()
    }
}

/// Without the bytes: one of the files is a key.
impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").finish_non_exhaustive()
    }
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, FileError> {
    let wrong = |reason: String| FileError { setting, path: path.to_owned(), reason };
    let unreadable = |error| wrong(format!("this file cannot be read: {error}"));
    // To open what is no file may take for ever.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(wrong("this is not a file".into()));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(LIMIT + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LIMIT { Err(wrong("this file is too large".into())) } else { Ok(bytes) }
}
