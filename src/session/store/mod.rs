//! Where sessions outlive the process, or are shared by a fleet.

mod memory;

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use secrecy::SecretString;
use uuid::Uuid;

use self::memory::Memory;
use super::login::Fingerprint;

/// A lease lasts so long unless it is renewed: longer than any login may talk to the API.
pub(super) const LEASE: Duration = Duration::from_secs(45);
/// Sessions that wait to be ended. There are more only if the API cannot be reached for hours.
pub(super) const MAX_RETIRED: usize = 8;
/// A member that has not been heard of for so long is gone.
pub(super) const MEMBER_GONE: Duration = Duration::from_secs(30);

/// What all who share a store know about one identity. Its times are by our own clock, whoever
/// wrote it.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    /// The session in force.
    pub(super) session: Option<Stored>,
    /// Sessions that were replaced, and since when: the oldest first, at most [`MAX_RETIRED`].
    pub(super) retired: Vec<Retired>,
    /// Why the last login failed, if it did.
    pub(super) note: Option<Note>,
}

/// A session, as it is kept.
#[derive(Clone)]
pub(super) struct Stored {
    /// Names it without giving it away.
    pub(super) id: Uuid,
    pub(super) jwt: SecretString,
    /// Who opened it.
    pub(super) owner: Uuid,
    pub(super) issued: Timestamp,
    /// What could be read of its expiry.
    pub(super) expires: Option<Timestamp>,
    /// When it ceases to serve, readable or not.
    pub(super) ends: Timestamp,
    pub(super) second_factor: bool,
    /// The credentials that opened it.
    pub(super) secrets: Fingerprint,
}

/// A session that was replaced and is still open.
#[derive(Clone)]
pub(super) struct Retired {
    pub(super) id: Uuid,
    pub(super) jwt: SecretString,
    pub(super) since: Timestamp,
    /// It need not be ended after that.
    pub(super) ends: Timestamp,
}

/// Why a login failed, so that nobody repeats it in vain.
#[derive(Clone, Debug)]
pub(super) struct Note {
    pub(super) failure: Failure,
    /// For people; no secrets.
    pub(super) reason: Arc<str>,
    /// The credentials that were tried.
    pub(super) tried: Option<Fingerprint>,
    /// Not again before this time; of refused credentials, not at all.
    pub(super) until: Timestamp,
    /// How many logins have failed in a row.
    pub(super) failures: u32,
}

/// How a login failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Failure {
    /// The same credentials will be refused again.
    Refused,
    /// The user has as many sessions as the API allows.
    SessionLimit,
    /// Another time it may work.
    Transient,
}

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
    Mine(Lease, Entry),
    /// Somebody else is logging in.
    Others,
}

/// The right to log in. It ends by [`Shelf::put`], [`Shelf::give_back`], or when it is dropped or
/// has not been renewed in time.
#[derive(Debug)]
pub(super) struct Lease(pub(super) LeaseKind);

/// What holds a lease.
#[derive(Debug)]
pub(super) enum LeaseKind {
    /// Nobody else could hold it.
    Memory,
}

/// What became of an entry that was to be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Put {
    Done(Revision),
    /// The lease was somebody else's by then, so nothing was written.
    LeaseLost,
}

/// Who is left after we have gone.
#[derive(Debug)]
pub(super) enum Left {
    /// Nobody: what was in the entry is ours to end, and the entry is empty now.
    Nobody(Entry),
    /// Others, who use the session.
    Others,
    /// The entry waits for the next start.
    Kept,
}

/// Why the store was of no help.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached, or it has answered with an error.
    #[error("the session store cannot be asked: {0}")]
    Unavailable(Arc<str>),
}

/// One identity's place in the store.
#[derive(Debug)]
pub(super) enum Shelf {
    Memory(Memory),
}

impl Shelf {
    /// The entry, unless it is still of revision `known`. Also tells the others that we are here.
    pub(super) async fn look(&self, known: Option<Revision>) -> Result<Look, Error> {
        match self {
            Self::Memory(memory) => Ok(memory.look(known)),
        }
    }

    /// Asks for the right to log in; does not wait for it.
    pub(super) async fn claim(&self) -> Result<Claim, Error> {
        match self {
            Self::Memory(memory) => Ok(memory.claim()),
        }
    }

    /// Keeps the lease for another [`LEASE`]; `false` if it is lost.
    pub(super) async fn renew(&self, lease: &Lease) -> Result<bool, Error> {
        match (self, &lease.0) {
            (Self::Memory(_), LeaseKind::Memory) => Ok(true),
        }
    }

    /// Writes the entry and gives the lease back.
    pub(super) async fn put(&self, lease: Lease, entry: &Entry) -> Result<Put, Error> {
        match (self, lease.0) {
            (Self::Memory(memory), LeaseKind::Memory) => Ok(memory.put(entry)),
        }
    }

    /// Gives the lease back.
    pub(super) async fn give_back(&self, lease: Lease) {
        match (self, lease.0) {
            (Self::Memory(_), LeaseKind::Memory) => {}
        }
    }

    /// Takes a TOTP step, which ends at `ends_at` in Unix time; `false` if it has been used.
    pub(super) async fn take_step(&self, ends_at: u64) -> Result<bool, Error> {
        match self {
            Self::Memory(_) => Ok(ends_at > 0),
        }
    }

    /// Leaves those who share the entry.
    pub(super) async fn leave(&self) -> Result<Left, Error> {
        match self {
            Self::Memory(memory) => Ok(memory.leave()),
        }
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("id", &self.id)
            .field("owner", &self.owner)
            .field("issued", &self.issued)
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Retired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retired")
            .field("id", &self.id)
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}
