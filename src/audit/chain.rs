//! The hash chain: each record is sealed with the hash of the one before it.

use std::{fmt, str::FromStr};

use super::{
    record::{Record, Sealed},
    value::{Hash, Value},
};

/// How far the chain has got.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Head {
    /// The number of the last record; 0: there is none yet.
    pub seq: u64,
    /// Its hash; all zero before the first.
    pub hash: Hash,
}

/// A head that is not written as `SEQ:HASH`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected SEQ:HASH, as `audit verify` prints it")]
pub struct HeadError;

/// As it is noted elsewhere: `SEQ:HASH`.
impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, Value::Hash(&self.hash))
    }
}

impl FromStr for Head {
    type Err = HeadError;

    fn from_str(text: &str) -> Result<Self, HeadError> {
        let (seq, hash) = text.split_once(':').ok_or(HeadError)?;
        let seq = seq.parse().map_err(|_| HeadError)?;
        let hash = blake3::Hash::from_hex(hash).map_err(|_| HeadError)?;
        Ok(Self { seq, hash: hash.into() })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_is_written() {
        let head = Head { seq: 12, hash: [0xa5; 32] };

        let written = head.to_string();

        assert_eq!(written, format!("12:{}", "a5".repeat(32)));
        assert_eq!(written.parse(), Ok(head));
        for wrong in ["", "12", "12:", "x:a5", &written[..20], &format!("{written}0")] {
            assert_eq!(wrong.parse::<Head>(), Err(HeadError), "{wrong}");
        }
    }
}
