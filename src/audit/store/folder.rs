//! The folder that the audit log is in.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::audit::{
    chain::Head,
    journal::Segment,
    value::{Hash, Value},
};

const EXTENSION: &str = "sqlite";
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Where things are.
#[derive(Clone, Debug)]
pub(in crate::audit) struct Folder(PathBuf);

/// The right to write there; lasts as long as it is held.
#[derive(Debug)]
pub(in crate::audit) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Whether the file that is locked is the one that others find.
    pub(in crate::audit) fn is_there(&self) -> bool {
        let inode = |metadata: io::Result<fs::Metadata>| metadata.map(|it| it.ino()).ok();
        let ours = inode(self.file.metadata());
        ours.is_some() && ours == inode(fs::metadata(&self.path))
    }
}

/// Why an audit log cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process writes it.
    #[error(
        "the audit log in {0} belongs to another gateway that is running; give this one a folder \
         of its own with `audit.store`"
    )]
    Taken(PathBuf),
    /// The system does not let us.
    #[error("the audit log in {folder} cannot be opened; `audit.store` says where it is")]
    System {
        /// Which folder.
        folder: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// There is something there that is not ours.
    #[error("the audit log in {folder} cannot be read: {reason}")]
    Unreadable {
        /// Which folder.
        folder: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// `head.json`.
#[derive(Debug, Deserialize, Serialize)]
struct HeadFile {
    gateway: String,
    seq: u64,
    hash: String,
}

impl Folder {
    pub(in crate::audit) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(in crate::audit) fn path(&self) -> &Path {
        &self.0
    }

    pub(in crate::audit) fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }

    /// Makes sure that it is there and nobody else writes it, or will have stopped after `patience`.
    pub(in crate::audit) fn take(&self, patience: Duration) -> Result<Lock, OpenError> {
        let system = |source| OpenError::System { folder: self.0.clone(), source };
        create_folder(&self.journal()).map_err(system)?;
        let mut options = OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).mode(0o600);
        let path = self.0.join("lock");
        let lock = lock.open(&path).map_err(system)?;
        let deadline = Instant::now() + patience;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Lock { file: lock, path }),
                Err(TryLockError::Error(error)) => return Err(system(error)),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => return Err(OpenError::Taken(self.0.clone())),
            }
        }
    }

    /// The days that there are, the oldest first.
    pub(in crate::audit) fn days(&self) -> io::Result<Vec<(Date, PathBuf)>> {
        let mut days = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            let is_day = path.extension().is_some_and(|extension| extension == EXTENSION);
            let date = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            days.extend(date.filter(|_| is_day).map(|date| (date, path)));
        }
        days.sort();
        Ok(days)
    }

    pub(in crate::audit) fn day(&self, date: Date) -> PathBuf {
        self.0.join(format!("{date}.{EXTENSION}"))
    }

    /// The journals that earlier processes have left, the oldest first. Those of processes that live
    /// are not among them.
    pub(in crate::audit) fn journals(&self) -> io::Result<Vec<Arc<Segment>>> {
        let mut left = Vec::new();
        for path in self.journal_files()? {
            left.extend(Segment::left_behind(path)?.map(Arc::new));
        }
        Ok(left)
    }

    /// The name of the journal that was begun last, by whomever.
    pub(in crate::audit) fn last_journal(&self) -> io::Result<Option<String>> {
        let files = self.journal_files()?;
        let name = files.last().and_then(|path| path.file_name());
        Ok(name.map(|name| name.to_string_lossy().into_owned()))
    }

    fn journal_files(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(self.journal()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
        let mut paths = paths?;
        paths.sort();
        Ok(paths)
    }

    /// What `head.json` says: whose chain it is, and how far it has got.
    pub(in crate::audit) fn head(&self) -> io::Result<Option<(String, Head)>> {
        let text = match fs::read_to_string(self.0.join("head.json")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let head = serde_json::from_str::<HeadFile>(&text).ok().and_then(|file| {
            let hash = blake3::Hash::from_hex(file.hash).ok()?;
            Some((file.gateway, Head { seq: file.seq, hash: hash.into() }))
        });
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "head.json is not readable");
        head.map(Some).ok_or_else(broken)
    }

    /// Writes `head.json`. Whoever reads it sees the old one or the new one.
    pub(in crate::audit) fn set_head(&self, gateway: &str, head: Head) -> io::Result<()> {
        let file = HeadFile { gateway: gateway.to_owned(), seq: head.seq, hash: hex(&head.hash) };
        let (new, path) = (self.0.join("head.json.new"), self.0.join("head.json"));
        let mut options = OpenOptions::new();
        let mut out = options.create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        out.write_all(&serde_json::to_vec(&file)?)?;
        fs::rename(new, path)
    }

    /// Deletes the file of a day, and what SQLite keeps beside it.
    pub(in crate::audit) fn delete(&self, day: &Path) -> io::Result<()> {
        for suffix in ["", "-wal", "-shm"] {
            let mut path = day.as_os_str().to_owned();
            path.push(suffix);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Creates a folder that only we can look into.
pub(in crate::audit) fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

pub(in crate::audit) fn hex(hash: &Hash) -> String {
    let mut text = Vec::new();
    Value::Hash(hash).plain(&mut text);
    // It consists of digits.
    String::from_utf8(text).unwrap_or_default()
}
