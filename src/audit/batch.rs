//! What is read from the journals at once.

use std::{collections::HashMap, io, sync::Arc};

use super::journal::{Frames, Noted, Segment};

/// What is read from one journal at once.
const READ: usize = 1024 * 1024;

/// How far each journal has been read, by its name.
pub(super) type Positions = HashMap<String, u64>;

/// A part of every journal.
#[derive(Debug)]
pub(super) struct Pages(Vec<Page>);

#[derive(Debug)]
struct Page {
    segment: Arc<Segment>,
    position: u64,
    bytes: Vec<u8>,
}

/// The records in them.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    /// In the order of time.
    pub(super) records: Vec<Noted<'a>>,
    /// How far the journals have been read with them.
    pub(super) positions: Positions,
    /// Bytes of records that were not written to their end.
    pub(super) torn: u64,
}

impl Pages {
    /// Reads on in each of `segments` from where `positions` say.
    pub(super) fn read(segments: &[Arc<Segment>], positions: &Positions) -> io::Result<Self> {
        let page = |segment: &Arc<Segment>| {
            let position = positions.get(&segment.name).copied().unwrap_or(0);
            let mut bytes = Vec::new();
            segment.read(position, READ, &mut bytes)?;
            Ok(Page { segment: Arc::clone(segment), position, bytes })
        };
        segments.iter().map(page).collect::<io::Result<_>>().map(Self)
    }

    /// What is in them; `positions` is how far the journals were read before.
    pub(super) fn batch(&self, mut positions: Positions) -> Batch<'_> {
        let (mut records, mut torn) = (Vec::new(), 0);
        for Page { segment, position, bytes } in &self.0 {
            let mut frames = Frames::of(bytes);
            records.extend(frames.by_ref());
            let mut read = frames.read as u64;
            if read == 0 && !bytes.is_empty() {
                // Nothing that is whole will ever begin there.
                read = segment.unread(*position);
                torn += read;
                let (journal, bytes) = (&segment.name, read);
                tracing::warn!(journal, bytes, "an audit record was not written to its end");
            }
            positions.insert(segment.name.clone(), position + read);
        }
        // Each journal is in order; together they are nearly so.
        records.sort_by_key(|noted| noted.time);
        Batch { records, positions, torn }
    }
}
