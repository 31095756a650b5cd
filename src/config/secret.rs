//! Values that never print; files that are read again.

use std::{
    fmt,
    io::{self, Read},
    path::{Path, PathBuf},
};

use secrecy::{SecretString, zeroize::Zeroizing};

/// A larger file is no secret.
const LIMIT: u64 = 64 * 1024;

/// Where a secret is.
#[derive(Clone)]
pub enum Secret {
    /// In the configuration itself, or in the environment.
    Inline(SecretString),
    /// In a file, which is read again whenever the secret is needed.
    File(PathBuf),
}

/// A secret that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its file cannot be read.
    #[error("cannot read the secret file {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is nothing in its file.
    #[error("the secret file {0} is empty")]
    Empty(PathBuf),
    /// Its file is not text, or far too large.
    #[error("the secret file {0} is not a text of at most 64 KiB")]
    NotText(PathBuf),
}

impl Secret {
    /// The secret as it is now; a line break at the end of a file is not part of it.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn read(&self) -> Result<SecretString, Error> {
        match self {
            Self::Inline(secret) => Ok(secret.clone()),
            Self::File(path) => read(path),
        }
    }
}

fn read(path: &Path) -> Result<SecretString, Error> {
    let unreadable = |source| Error::Unreadable { path: path.to_owned(), source };
    let mut bytes = Zeroizing::new(Vec::new());
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(LIMIT + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let too_large = bytes.len() as u64 > LIMIT;
    let text = std::str::from_utf8(&bytes).ok().filter(|_| !too_large);
    let text = text.ok_or_else(|| Error::NotText(path.to_owned()))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() { Err(Error::Empty(path.to_owned())) } else { Ok(text.into()) }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("***"),
            Self::File(path) => write!(f, "*** of {}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_file_is_read_again_each_time_and_loses_one_line_break() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let secret = Secret::File(path.clone());

        assert!(matches!(secret.read(), Err(Error::Unreadable { .. })));
        for (content, expected) in [("one\n", "one"), ("two\r\n", "two"), (" x \n\n", " x \n")] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(secret.read().unwrap().expose_secret(), expected);
        }
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(secret.read(), Err(Error::Empty(_))));
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(matches!(secret.read(), Err(Error::NotText(_))));
    }

    #[test]
    fn debug_shows_where_a_secret_is_and_never_what() {
        let secret = Secret::Inline("canary".into());

        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(format!("{:?}", Secret::File("/run/x".into())), "*** of /run/x");
    }
}
