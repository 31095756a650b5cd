//! A block: some consecutive records, as one row of the store.
//!
//! It begins with the hash of the record before its first, so it can be read by itself. Then comes
//! a frame for each record: the length of its compact form (four bytes, little-endian), that form,
//! and its hash. Which number the first has is the key of the row.

use super::error::Finding;
use crate::audit::{
    chain::Head,
    compact,
    record::{Record, Sealed},
    value::Hash,
};

const HASH: usize = size_of::<Hash>();
const LENGTH: usize = size_of::<u32>();

/// Whoever reads has one block in memory; this is about 350 records.
const FULL: usize = 64 * 1024;

/// A block that is being filled.
#[derive(Debug)]
pub(in crate::audit) struct Block {
    pub(super) first: u64,
    pub(super) bytes: Vec<u8>,
}

impl Block {
    /// A block of the records after `head`.
    pub(in crate::audit) fn after(head: Head) -> Self {
        let mut block = Self { first: 0, bytes: Vec::with_capacity(FULL + FULL / 4) };
        block.begin(head);
        block
    }

    /// Empties it, for the records after `head`.
    pub(in crate::audit) fn begin(&mut self, head: Head) {
        self.first = head.seq + 1;
        self.bytes.clear();
        self.bytes.extend_from_slice(&head.hash);
    }

    /// Adds the next record: its compact form, and its hash.
    pub(in crate::audit) fn add(&mut self, record: &[u8], hash: &Hash) {
        // No record is nearly as long as that.
        let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(record);
        self.bytes.extend_from_slice(hash);
    }

    pub(in crate::audit) fn is_empty(&self) -> bool {
        self.bytes.len() <= HASH
    }

    pub(in crate::audit) fn is_full(&self) -> bool {
        self.bytes.len() >= FULL
    }
}

/// A record as it lies in a block, in its place.
#[derive(Clone, Copy, Debug)]
pub(in crate::audit) struct Frame<'a> {
    pub(in crate::audit) seq: u64,
    prev_hash: &'a Hash,
    record: &'a [u8],
    hash: &'a Hash,
}

impl<'a> Frame<'a> {
    /// The record, if there is one in it.
    pub(in crate::audit) fn record(&self) -> Result<Record<'a>, Finding> {
        let broken = |what: &str| Finding { seq: self.seq, what: what.to_owned() };
        let record = compact::read(self.record);
        let record = record.ok_or_else(|| broken("it cannot be read: its bytes are no record"))?;
        // What is not shown, and so is not part of the hash, must not be used to hide something.
        match record.is_plausible() {
            true => Ok(record),
            false => Err(broken("it cannot be read: it says what it cannot know")),
        }
    }

    /// `record`, which is its own, in the chain of `gateway`.
    pub(in crate::audit) fn sealed(&self, gateway: &'a str, record: Record<'a>) -> Sealed<'a> {
        Sealed { seq: self.seq, gateway, record, prev_hash: *self.prev_hash, hash: *self.hash }
    }
}

/// The frames of a block, in their order. Where it is not whole, that is told once, and it ends.
#[derive(Debug)]
pub(in crate::audit) struct Frames<'a> {
    next: u64,
    /// Nothing, when it has ended.
    rest: Option<(&'a Hash, &'a [u8])>,
}

impl<'a> Frames<'a> {
    /// Those of the block `bytes`, whose first record has the number `first`.
    pub(super) fn of(first: u64, bytes: &'a [u8]) -> Result<Self, Finding> {
        match bytes.split_first_chunk() {
            // There is no block without a record.
            Some((prev_hash, rest)) if !rest.is_empty() => {
                Ok(Self { next: first, rest: Some((prev_hash, rest)) })
            }
            _ => Err(cut(first)),
        }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, Finding>;

    fn next(&mut self) -> Option<Self::Item> {
        let (prev_hash, bytes) = self.rest.take().filter(|(_, bytes)| !bytes.is_empty())?;
        let seq = self.next;
        let Some((record, hash, rest)) = split(bytes) else { return Some(Err(cut(seq))) };
        (self.next, self.rest) = (seq.saturating_add(1), Some((hash, rest)));
        Some(Ok(Frame { seq, prev_hash, record, hash }))
    }
}

/// A record, its hash, and what comes behind.
fn split(bytes: &[u8]) -> Option<(&[u8], &Hash, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (record, rest) = rest.split_at_checked(length)?;
    let (hash, rest) = rest.split_first_chunk()?;
    Some((record, hash, rest))
}

fn cut(seq: u64) -> Finding {
    Finding { seq, what: "it cannot be read: its block is not whole".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::record::tests::sample;

    /// A block of the records 8, 9 and 10.
    fn three() -> Vec<u8> {
        let mut block = Block::after(Head { seq: 7, hash: [7; 32] });
        let mut record = Vec::new();
        compact::write(&sample(), &mut record).expect("bytes");
        (8..11).for_each(|seq| block.add(&record, &[seq; 32]));
        assert_eq!(block.first, 8);
        block.bytes
    }

    fn read(bytes: &[u8]) -> (Vec<Sealed<'_>>, Option<u64>) {
        let mut records = Vec::new();
        let frames = match Frames::of(8, bytes) {
            Ok(frames) => frames,
            Err(finding) => return (records, Some(finding.seq)),
        };
        for frame in frames {
            match frame.and_then(|frame| Ok(frame.sealed("host/1", frame.record()?))) {
                Ok(sealed) => records.push(sealed),
                Err(finding) => return (records, Some(finding.seq)),
            }
        }
        (records, None)
    }

    #[test]
    fn records_are_read_as_they_were_put_in() {
        let bytes = three();

        let (records, wrong) = read(&bytes);

        let sealed = |seq: u8| Sealed {
            seq: seq.into(),
            gateway: "host/1",
            record: sample(),
            prev_hash: [seq - 1; 32],
            hash: [seq; 32],
        };
        assert_eq!((records, wrong), (vec![sealed(8), sealed(9), sealed(10)], None));
    }

    #[test]
    fn a_block_that_ends_anywhere_else_names_the_record_that_is_not_whole() {
        let bytes = three();
        let one = (bytes.len() - HASH) / 3;

        for end in 0..bytes.len() {
            let whole = end.saturating_sub(HASH) / one;
            let is_whole = end > HASH && (end - HASH).is_multiple_of(one);
            let wrong = (!is_whole).then_some(8 + whole as u64);
            let (records, found) = read(&bytes[..end]);
            assert_eq!((records.len(), found), (whole, wrong), "{end}");
        }
    }

    #[test]
    fn no_changed_bit_goes_unnoticed() {
        let bytes = three();
        let (records, _) = read(&bytes);

        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(read(&changed), (records.clone(), None), "bit {bit}");
        }
    }

    #[test]
    fn what_a_record_cannot_know_makes_it_unreadable() {
        let (mut block, mut bytes) = (Block::after(Head::default()), Vec::new());
        compact::write(&Record { lost: 1, ..sample() }, &mut bytes).expect("bytes");
        block.add(&bytes, &[1; 32]);

        assert_eq!(read(&block.bytes), (Vec::new(), Some(8)));
    }
}
