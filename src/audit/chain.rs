//! The hash chain: each record is sealed with the hash of the one before it.

use super::record::{Hash, Record, Sealed};

/// How far the chain has got.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Head {
    /// The number of the last record; 0: there is none yet.
    pub seq: u64,
    /// Its hash; all zero before the first.
    pub hash: Hash,
}

/// Seals records, one after the other.
#[derive(Debug)]
pub(super) struct Chain {
    head: Head,
    /// The bytes that a hash is taken over, kept to be used again.
    bytes: Vec<u8>,
}

impl Chain {
    /// Goes on after `head`.
    pub(super) fn after(head: Head) -> Self {
        Self { head, bytes: Vec::with_capacity(1024) }
    }

    pub(super) fn head(&self) -> Head {
        self.head
    }

    /// Gives `record` the next place.
    pub(super) fn seal<'a>(&mut self, gateway: &'a str, record: Record<'a>) -> Sealed<'a> {
        let (seq, prev_hash) = (self.head.seq + 1, self.head.hash);
        let mut sealed = Sealed { seq, gateway, record, prev_hash, hash: Hash::default() };
        sealed.hash = self.hash(&sealed);
        self.head = Head { seq, hash: sealed.hash };
        sealed
    }

    /// The hash that belongs to `sealed`, whatever hash it carries.
    pub(super) fn hash(&mut self, sealed: &Sealed<'_>) -> Hash {
        self.bytes.clear();
        sealed.canonical(&mut self.bytes);
        blake3::hash(&self.bytes).into()
    }
}
