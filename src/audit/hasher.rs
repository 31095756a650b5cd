//! Hashes records on a thread of its own, while the next ones are read.

use std::{
    io,
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread::{self, JoinHandle},
};

use super::{record::Sealed, value::Hash};

/// Bytes that are handed over at once.
const BATCH: usize = 512 * 1024;
/// Batches that may wait.
const WAITING: usize = 2;

/// Finds the first record whose hash does not fit.
pub(super) struct Hasher {
    batch: Batch,
    full: SyncSender<Batch>,
    /// What was hashed, to be filled again.
    empty: Receiver<Batch>,
    thread: JoinHandle<Option<u64>>,
}

/// Some records, one after the other.
#[derive(Default)]
struct Batch {
    /// What their hashes are taken over.
    bytes: Vec<u8>,
    records: Vec<Expected>,
}

/// What is claimed of a record.
struct Expected {
    seq: u64,
    /// Where its bytes end.
    end: usize,
    hash: Hash,
}

impl Hasher {
    pub(super) fn start() -> io::Result<Self> {
        let (full, to_hash) = sync_channel(WAITING);
        // Never more than are on their way.
        let (hashed, empty) = channel();
        let thread = thread::Builder::new().name("audit-hasher".into());
        let thread = thread.spawn(move || run(&to_hash, &hashed))?;
        Ok(Self { batch: Batch::default(), full, empty, thread })
    }

    /// Takes a record in. Returns false if it is known that one before does not fit.
    pub(super) fn add(&mut self, sealed: &Sealed<'_>) -> bool {
        let Batch { bytes, records } = &mut self.batch;
        sealed.canonical(bytes);
        records.push(Expected { seq: sealed.seq, end: bytes.len(), hash: sealed.hash });
        if bytes.len() < BATCH {
            return true;
        }
        let next = self.empty.try_recv().unwrap_or_default();
        self.full.send(std::mem::replace(&mut self.batch, next)).is_ok()
    }

    /// The number of the first record whose hash does not fit, if there is one.
    pub(super) fn finish(self) -> io::Result<Option<u64>> {
        // If it has ended, it has found one.
        let _ = self.full.send(self.batch);
        drop(self.full);
        self.thread.join().map_err(|_| io::Error::other("the hashing of records has crashed"))
    }
}

fn run(to_hash: &Receiver<Batch>, hashed: &Sender<Batch>) -> Option<u64> {
    for mut batch in to_hash {
        let mut begin = 0;
        for expected in &batch.records {
            let bytes = &batch.bytes[begin..expected.end];
            if blake3::hash(bytes) != expected.hash {
                return Some(expected.seq);
            }
            begin = expected.end;
        }
        batch.bytes.clear();
        batch.records.clear();
        // At the end nobody wants it back.
        let _ = hashed.send(batch);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{chain::Chain, chain::Head, record::tests::sample};

    /// Hashes so many records, of which some carry another's hash.
    fn first_wrong(count: u64, wrong: &[u64]) -> Option<u64> {
        let (mut chain, mut hasher) = (Chain::after(Head::default()), Hasher::start().expect("it"));
        for seq in 1..=count {
            let mut sealed = chain.seal("host/1", sample());
            if wrong.contains(&seq) {
                sealed.hash = [7; 32];
            }
            if !hasher.add(&sealed) {
                break;
            }
        }
        hasher.finish().expect("a verdict")
    }

    #[test]
    fn the_first_that_does_not_fit_is_found_wherever_it_is() {
        // Several batches.
        const COUNT: u64 = 5000;

        assert_eq!(first_wrong(0, &[]), None);
        assert_eq!(first_wrong(COUNT, &[]), None);
        for seq in [1, COUNT / 2, COUNT] {
            assert_eq!(first_wrong(COUNT, &[seq, COUNT]), Some(seq));
        }
    }
}
