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
/// Members look at the store more often than this, so who has not is gone: its lease is void, and
/// it keeps nobody from ending the session.
pub(super) const MEMBER_GONE: Duration = Duration::from_secs(5);

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
    /// When the logins that denied tokens have asked for are paid off.
    pub(super) denials_paid: Option<Timestamp>,
}

/// A session, as it is kept.
#[derive(Clone)]
pub(super) struct Stored {
    /// Names it without giving it away.
    pub(super) id: Uuid,
    pub(super) jwt: SecretString,
    pub(super) issued: Timestamp,
    /// What could be read of its expiry.
    pub(super) expires: Option<Timestamp>,
    pub(super) second_factor: bool,
    /// The credentials that opened it.
    pub(super) secrets: Fingerprint,
}

/// A session that was replaced and is still open.
#[derive(Clone)]
pub(super) struct Retired {
    pub(super) id: Uuid,
    pub(super) jwt: SecretString,
    /// Nobody uses it any more after this.
    pub(super) from: Timestamp,
}

/// Why a login failed, so that nobody repeats it in vain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Note {
    pub(super) failure: Failure,
    /// For people; no secrets.
    pub(super) reason: Arc<str>,
    /// The credentials that were tried.
    pub(super) tried: Fingerprint,
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
    Quota,
    /// The API does not accept its own request tokens.
    RequestToken,
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

/// The right to log in and to write the entry. It ends by [`Shelf::put`], [`Shelf::give_back`], or
/// when it has not been renewed in time.
#[derive(Debug)]
pub(super) struct Lease(LeaseKind);

#[derive(Debug)]
enum LeaseKind {
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
    Nobody(Entry),
    /// Others, who use the session; the one who was here last was here so long ago.
    Others { seen: Duration },
    /// The session waits for the next start; what was retired is ours to end.
    Kept { retired: Vec<Retired> },
}

/// Why the store was of no help.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached, or it has answered with an error.
    #[error("the session store cannot be used: {0}")]
    Unavailable(Arc<str>),
}

/// One identity's place in the store.
#[derive(Debug)]
pub(super) enum Shelf {
    Memory(Memory),
}

impl Shelf {
    /// Whether somebody else may write the entry, so that it has to be looked at again.
    pub(super) fn is_shared(&self) -> bool {
        match self {
            Self::Memory(_) => false,
        }
    }

    /// Whether a fleet shares the session.
    pub(super) fn is_fleet(&self) -> bool {
        match self {
            Self::Memory(_) => false,
        }
    }

    /// The entry, unless it is still of revision `known`. Also tells the others that we are here.
    pub(super) async fn look(&self, known: Option<Revision>) -> Result<Look, Error> {
        match self {
            Self::Memory(memory) => Ok(memory.look(known)),
        }
    }

    /// Asks for the right to log in; does not wait for it.
    pub(super) async fn claim(&self) -> Result<Claim, Error> {
        match self {
            Self::Memory(memory) => Ok(Claim::Mine(Lease(LeaseKind::Memory), memory.entry())),
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
            (Self::Memory(memory), LeaseKind::Memory) => Ok(Put::Done(memory.put(entry))),
        }
    }

    /// Gives the lease back.
    pub(super) async fn give_back(&self, lease: Lease) {
        match (self, lease.0) {
            (Self::Memory(_), LeaseKind::Memory) => {}
        }
    }

    /// Takes the TOTP step that ends at `end` and lasts for `period` seconds, for all who share the
    /// entry and across restarts.
    pub(super) async fn take_step(&self, end: u64, period: u64) -> Result<Step, Error> {
        match self {
            Self::Memory(memory) => Ok(memory.take_step(end, period)),
        }
    }

    /// Leaves those who share the entry. May be asked again.
    pub(super) async fn leave(&self) -> Result<Left, Error> {
        match self {
            Self::Memory(memory) => Ok(Left::Nobody(memory.leave())),
        }
    }
}

/// Whether the step that ends at `end` is free, when those until `used_until` have been used.
///
/// Used steps further ahead than one were counted by a clock that has since been put right.
pub(super) fn is_free(end: u64, period: u64, used_until: u64) -> bool {
    used_until < end || used_until > end.saturating_add(period)
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

/// STUB until merge
pub(super) struct Store;
pub(super) struct Binding;
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub enum OpenError {}
impl Store {
    pub(super) fn open(_: &crate::config::SessionStore) -> Result<Self, OpenError> {
        Ok(Self)
    }
    pub(super) fn shelf(&self, _: &Binding, _: &crate::clock::Clock) -> Shelf {
        Shelf::Memory(Memory::default())
    }
}
