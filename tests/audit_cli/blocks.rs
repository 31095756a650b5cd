//! The blocks of a day, taken apart to be tampered with, and put together again.

use amove_gateway::audit::Record;
use rusqlite::{Connection, params};

use crate::log::Copied;

const HASH: usize = 32;
const LENGTH: usize = 4;

/// A record as it lies in its block: its compact form, and its hash.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Kept {
    pub(crate) bytes: Vec<u8>,
    pub(crate) hash: [u8; HASH],
}

impl Kept {
    /// Changes what it says, and leaves its hash.
    pub(crate) fn edit(&mut self, edit: impl FnOnce(&mut Record<'_>)) {
        let mut record = postcard::from_bytes(&self.bytes).expect("a record");
        edit(&mut record);
        self.bytes = postcard::to_allocvec(&record).expect("bytes");
    }
}

impl Copied {
    /// Does something to the records of that day, which are in one block then.
    pub(crate) fn tamper(&self, day: &str, tamper: impl FnOnce(&mut Vec<Kept>)) {
        let file = self.open(day);
        let (first, block) = whole(&file);
        let (before, mut rest) = block.split_at(HASH);
        let mut records = Vec::new();
        while let Some((length, bytes)) = rest.split_first_chunk::<LENGTH>() {
            let (bytes, after) = bytes.split_at(u32::from_le_bytes(*length) as usize);
            let (hash, after) = after.split_first_chunk().expect("a hash");
            records.push(Kept { bytes: bytes.to_vec(), hash: *hash });
            rest = after;
        }
        tamper(&mut records);
        let mut block = before.to_vec();
        for Kept { bytes, hash } in &records {
            block.extend(u32::try_from(bytes.len()).expect("a short one").to_le_bytes());
            block.extend_from_slice(bytes);
            block.extend_from_slice(hash);
        }
        put(&file, first, (!records.is_empty()).then_some(&block));
    }

    /// The only block of that day, to be spoilt by [`Self::put`].
    pub(crate) fn block(&self, day: &str) -> Vec<u8> {
        let file = self.open(day);
        let (first, block) = whole(&file);
        put(&file, first, Some(&block));
        block
    }

    /// Replaces the only block of that day.
    pub(crate) fn put(&self, day: &str, block: &[u8]) {
        let file = self.open(day);
        file.execute("UPDATE blocks SET records = ?", [block]).expect("a block");
    }
}

/// All blocks as one, and the number of its first record.
fn whole(file: &Connection) -> (u64, Vec<u8>) {
    let mut select = file.prepare("SELECT first, records FROM blocks ORDER BY first").expect("SQL");
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("blocks");
    let blocks: Vec<(u64, Vec<u8>)> = rows.collect::<Result<_, _>>().expect("blocks");
    let (first, mut whole) = blocks[0].clone();
    // Only the first says what came before it.
    blocks[1..].iter().for_each(|(_, block)| whole.extend_from_slice(&block[HASH..]));
    (first, whole)
}

fn put(file: &Connection, first: u64, block: Option<&Vec<u8>>) {
    file.execute("DELETE FROM blocks", []).expect("no blocks");
    if let Some(block) = block {
        file.execute("INSERT INTO blocks VALUES (?, ?)", params![first, block]).expect("a block");
    }
}
