//! The file: what is in it, and how it is read and replaced.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tracing::warn;

/// How the file is to be read.
const VERSION: u32 = 1;
/// A larger file was not written by us.
const LIMIT: u64 = 16 * 1024 * 1024;
/// Nobody holds the lock longer than it takes to write a small file.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(2);

/// One file for all identities.
#[derive(Debug)]
pub(super) struct Book {
    path: PathBuf,
    /// The ids that we write: a file that has none of them comes from elsewhere.
    ours: Mutex<BTreeSet<String>>,
    /// What was last complained about, so that it is told once.
    told: Mutex<Option<blake3::Hash>>,
    loose: AtomicBool,
}

/// The entries of a file, by the id of their binding.
pub(super) type Places = BTreeMap<String, Place>;

/// What is kept for one binding.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Place {
    /// A sealed entry, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sealed: Option<String>,
    /// The TOTP steps that have been used, in Unix time.
    #[serde(default)]
    pub(super) steps_used_until: u64,
}

/// Changes whenever the file does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Stamp {
    modified: (i64, i64),
    length: u64,
    inode: u64,
}

#[derive(Deserialize, Serialize)]
struct Content {
    version: u32,
    sessions: Places,
}

impl Book {
    /// Proves that the file can be written, and read if it exists.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let book = Self {
            path: path.to_owned(),
            ours: Mutex::default(),
            told: Mutex::default(),
            loose: AtomicBool::default(),
        };
        if path.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let _lock = book.lock()?;
        book.create_new()?;
        fs::remove_file(book.beside("new"))?;
        if path.exists() {
            File::open(path)?;
        }
        Ok(book)
    }

    /// `id` is one of ours.
    pub(super) fn expect(&self, id: &str) {
        lock(&self.ours).insert(id.to_owned());
    }

    /// Of the file as it is now; `None` if there is none.
    pub(super) fn stamp(&self) -> io::Result<Option<Stamp>> {
        let metadata = match fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(Stamp {
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            length: metadata.len(),
            inode: metadata.ino(),
        }))
    }

    /// What is in the file. One that is missing or damaged is empty.
    pub(super) fn read(&self) -> io::Result<Places> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Places::new()),
            Err(error) => return Err(error),
        };
        self.warn_if_loose(&file.metadata()?);
        let mut bytes = Vec::new();
        file.take(LIMIT + 1).read_to_end(&mut bytes)?;
        let content = serde_json::from_slice::<Content>(&bytes).ok();
        let content = content.filter(|content| content.version == VERSION);
        let Some(Content { sessions, .. }) = content else {
            self.warn(&bytes, "it is damaged, or of another version");
            return Ok(Places::new());
        };
        let is_ours =
            sessions.is_empty() || sessions.keys().any(|id| lock(&self.ours).contains(id));
        if !is_ours {
            self.warn(&bytes, "its sessions are of other identities or of another auth host");
        }
        Ok(sessions)
    }

    /// Changes what is in the file, while nobody else does.
    pub(super) fn change<T>(
        &self,
        change: impl FnOnce(&mut Places) -> io::Result<T>,
    ) -> io::Result<T> {
        let _lock = self.lock()?;
        let mut sessions = self.read()?;
        let result = change(&mut sessions)?;
        self.write(sessions)?;
        Ok(result)
    }

    /// The right to log in for `id`, if nobody has it. It ends with the file, or the process.
    pub(super) fn lease(&self, id: &str) -> io::Result<Option<File>> {
        let file = private().create(true).open(self.beside(&format!("{id}.lease")))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn lock(&self) -> io::Result<File> {
        let file = private().create(true).open(self.beside("lock"))?;
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "its lock is not given back",
                    ));
                }
            }
        }
    }

    /// Whoever reads the file sees the old one or the new one, also after a power cut.
    fn write(&self, sessions: Places) -> io::Result<()> {
        let mut file = self.create_new()?;
        let content = Content { version: VERSION, sessions };
        file.write_all(&serde_json::to_vec_pretty(&content)?)?;
        file.sync_all()?;
        fs::rename(self.beside("new"), &self.path)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn create_new(&self) -> io::Result<File> {
        let path = self.beside("new");
        // Left behind by a process that was killed: who is alive and writes it has the lock.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        private().create_new(true).open(&path)
    }

    fn beside(&self, extension: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".");
        path.push(extension);
        path.into()
    }

    fn warn(&self, bytes: &[u8], reason: &str) {
        let hash = blake3::hash(bytes);
        let told = lock(&self.told).replace(hash);
        if told != Some(hash) {
            let path = self.path.display();
            warn!(%path, reason, "session file ignored: the next login writes its own session there");
        }
    }

    fn warn_if_loose(&self, metadata: &fs::Metadata) {
        let mode = metadata.permissions().mode() & 0o777;
        let is_loose = mode & 0o077 != 0;
        let was_loose = self.loose.swap(is_loose, Relaxed);
        if is_loose && !was_loose {
            let (path, mode) = (self.path.display(), format!("{mode:04o}"));
            warn!(%path, mode, "session file open to others: the next login makes it 0600");
        }
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
