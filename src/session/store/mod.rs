//! Where sessions outlive the process, or are shared by a fleet.

mod binding;
mod entry;
mod file;
mod memory;
mod redis;
mod seal;
#[cfg(test)]
mod testing;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

pub(super) use self::{
    binding::Binding,
    entry::{Entry, Failure, MAX_RETIRED, Note, Retired, Stored},
};
use self::{
    file::{FilePlace, FileStore},
    memory::Memory,
    redis::{RedisPlace, RedisStore},
};
use crate::{
    clock::Clock,
    config::{SessionStore, StoreKind},
    redis::LinkError,
};

/// A lease lasts so long unless it is renewed: longer than any login may talk to the API.
pub(super) const LEASE: Duration = Duration::from_secs(45);
/// Members look at the store more often than this, so who has not is gone: its lease is void, and
/// it keeps nobody from ending the session.
pub(super) const MEMBER_GONE: Duration = Duration::from_secs(5);

/// Counts what was written for an identity; others than the last one are of no interest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Revision(pub(super) u64);

/// What a look at the store shows.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) revision: Revision,
    /// `None`: it is as the looker knows it. An entry that cannot be unsealed counts as empty.
    pub(super) entry: Option<Entry>,
    /// How many share this entry, ourselves included.
    pub(super) members: usize,
}

/// Whether we may log in.
#[derive(Debug)]
pub(super) enum Claim {
    /// We may, and nobody else; this is the entry as it stands.
    Mine(Lease, Box<Entry>),
    /// Somebody else is logging in.
    Others,
}

/// The right to log in and to write the entry. It ends by [`Shelf::put`], [`Shelf::give_back`], or
/// when it has not been renewed in time.
#[derive(Debug)]
pub(super) struct Lease(LeaseKind);

#[derive(Debug)]
enum LeaseKind {
    /// Nobody else could hold it.
    Memory,
    File(file::Lease),
    Redis(redis::Lease),
}

/// What became of an entry that was to be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Put {
    Done(Revision),
    /// The lease was somebody else's by then, so nothing was written.
    LeaseLost,
}

/// Whether the code of a TOTP step may be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// It is ours, and nobody's after us.
    Taken,
    /// Steps up to the one that ends then, in Unix time by the host's clock, have been used.
    UsedUntil(u64),
}

/// Who is left after we have gone.
#[derive(Debug)]
pub(super) enum Left {
    /// Nobody: what was in the entry is ours to end, and the entry is empty now.
    Nobody(Box<Entry>),
    /// Others, who use the session; the one who was here last was here so long ago.
    Others { seen: Duration },
    /// The session waits for the next start; what was retired is ours to end.
    Kept { retired: Vec<Retired> },
}

/// Why the store was of no help.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Error {
    /// It cannot be reached, or it has answered with an error.
    #[error("the session store cannot be used: {0}")]
    Unavailable(Arc<str>),
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There can be no file.
    #[error(
        "`session_store.path` cannot be {path}: its folder must exist and be writable, and the file readable if there is one"
    )]
    File {
        /// As it is set.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The URL cannot be used.
    #[error(
        "`session_store.url` cannot be used: expected redis://HOST:PORT, rediss://HOST:PORT or unix:/path"
    )]
    Url,
    /// There are no roots.
    #[error("`session_store.ca_file` cannot be {path}: expected certificates in PEM")]
    Roots {
        /// As it is set.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Where sessions are kept.
#[derive(Debug)]
pub(super) enum Store {
    /// In the process.
    Memory,
    /// In a file of this machine.
    File(FileStore),
    /// In a Redis that a fleet shares.
    Redis(RedisStore),
}

impl Store {
    /// Opens what is configured. A Redis that is down is tried again whenever it is needed.
    pub(super) fn open(config: &SessionStore) -> Result<Self, OpenError> {
        match &config.kind {
            StoreKind::Memory => Ok(Self::Memory),
            StoreKind::File { path, key } => {
                let unusable = |source| OpenError::File { path: path.clone(), source };
                FileStore::open(path, key).map(Self::File).map_err(unusable)
            }
            StoreKind::Redis { url, ca_file, key } => {
                let unusable = |error| match error {
                    LinkError::Url => OpenError::Url,
                    LinkError::Roots(source) => {
                        OpenError::Roots { path: ca_file.clone().unwrap_or_default(), source }
                    }
                };
                RedisStore::open(url, ca_file.as_deref(), key).map(Self::Redis).map_err(unusable)
            }
        }
    }

    /// The place of what is bound so. Each call makes another member of the fleet.
    pub(super) fn shelf(&self, binding: &Binding, clock: &Clock) -> Shelf {
        match self {
            Self::Memory => Shelf::Memory(Memory::default()),
            Self::File(store) => Shelf::File(store.place(binding)),
            Self::Redis(store) => Shelf::Redis(store.place(binding, clock)),
        }
    }
}

/// One identity's place in the store.
#[derive(Debug)]
pub(super) enum Shelf {
    Memory(Memory),
    File(FilePlace),
    Redis(RedisPlace),
}

impl Shelf {
    /// Whether somebody else may write the entry, so that it has to be looked at again.
    pub(super) fn is_shared(&self) -> bool {
        match self {
            Self::Memory(_) => false,
            Self::File(_) | Self::Redis(_) => true,
        }
    }

    /// Whether a fleet shares the session.
    pub(super) fn is_fleet(&self) -> bool {
        match self {
            Self::Memory(_) | Self::File(_) => false,
            Self::Redis(_) => true,
        }
    }

    /// The entry, unless it is still of revision `known`. Also tells the others that we are here.
    pub(super) async fn look(&self, known: Option<Revision>) -> Result<Look, Error> {
        match self {
            Self::Memory(memory) => Ok(memory.look(known)),
            Self::File(file) => file.look(known).await,
            Self::Redis(redis) => redis.look(known).await,
        }
    }

    /// Asks for the right to log in; does not wait for it.
    pub(super) async fn claim(&self) -> Result<Claim, Error> {
        let claimed = match self {
            Self::Memory(memory) => Some((LeaseKind::Memory, memory.entry())),
            Self::File(file) => {
                file.claim().await?.map(|(lease, entry)| (LeaseKind::File(lease), entry))
            }
            Self::Redis(redis) => {
                redis.claim().await?.map(|(lease, entry)| (LeaseKind::Redis(lease), entry))
            }
        };
        Ok(claimed
            .map_or(Claim::Others, |(lease, entry)| Claim::Mine(Lease(lease), Box::new(entry))))
    }

    /// Keeps the lease for another [`LEASE`]; `false` if it is lost.
    pub(super) async fn renew(&self, lease: &Lease) -> Result<bool, Error> {
        match (self, &lease.0) {
            (Self::Redis(redis), LeaseKind::Redis(lease)) => redis.renew(lease).await,
            (_, LeaseKind::Memory | LeaseKind::File(_)) => Ok(true),
            (_, LeaseKind::Redis(_)) => Ok(false),
        }
    }

    /// Writes the entry and gives the lease back.
    pub(super) async fn put(&self, lease: Lease, entry: &Entry) -> Result<Put, Error> {
        match (self, lease.0) {
            (Self::Memory(memory), LeaseKind::Memory) => Ok(Put::Done(memory.put(entry))),
            (Self::File(file), LeaseKind::File(lease)) => {
                file.put(lease, entry).await.map(Put::Done)
            }
            (Self::Redis(redis), LeaseKind::Redis(lease)) => redis.put(lease, entry).await,
            // A lease of another store is worth nothing here.
            (Self::Memory(_) | Self::File(_) | Self::Redis(_), _) => Ok(Put::LeaseLost),
        }
    }

    /// Gives the lease back.
    pub(super) async fn give_back(&self, lease: Lease) {
        match (self, lease.0) {
            (Self::Redis(redis), LeaseKind::Redis(lease)) => redis.give_back(lease).await,
            // The others end when they are dropped.
            (Self::Memory(_) | Self::File(_) | Self::Redis(_), _) => {}
        }
    }

    /// Takes the TOTP step that ends at `end` and lasts for `period` seconds, for all who share the
    /// entry and across restarts.
    pub(super) async fn take_step(&self, end: u64, period: u64) -> Result<Step, Error> {
        match self {
            Self::Memory(memory) => Ok(memory.take_step(end, period)),
            Self::File(file) => file.take_step(end, period).await,
            Self::Redis(redis) => redis.take_step(end, period).await,
        }
    }

    /// Leaves those who share the entry. May be asked again.
    pub(super) async fn leave(&self) -> Result<Left, Error> {
        match self {
            Self::Memory(memory) => Ok(Left::Nobody(Box::new(memory.leave()))),
            Self::File(file) => file.leave().await.map(|retired| Left::Kept { retired }),
            Self::Redis(redis) => redis.leave().await,
        }
    }
}

/// Whether the step that ends at `end` is free, when those until `used_until` have been used.
///
/// Used steps further ahead than one were counted by a clock that has since been put right.
pub(super) fn is_free(end: u64, period: u64, used_until: u64) -> bool {
    used_until < end || used_until > end.saturating_add(period)
}
