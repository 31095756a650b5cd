//! What is read from the journals at once.

use std::{collections::HashMap, io, sync::Arc};

use super::journal::{Frames, Noted, Segment};

/// What is read from one journal at once.
const READ: usize = 1024 * 1024;
/// What is read at once, however many journals wait: it is in memory.
const ROOM: usize = 16 * READ;

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
    /// Reads on in `segments`, the oldest first, from where `positions` say.
    pub(super) fn read(segments: &[Arc<Segment>], positions: &Positions) -> io::Result<Self> {
        let (mut pages, mut room) = (Vec::with_capacity(segments.len()), ROOM);
        for segment in segments {
            if room == 0 {
                break;
            }
            let position = positions.get(&segment.name).copied().unwrap_or(0);
            let mut bytes = Vec::new();
            segment.read(position, READ.min(room), &mut bytes)?;
            room = room.saturating_sub(bytes.len());
            pages.push(Page { segment: Arc::clone(segment), position, bytes });
        }
        Ok(Self(pages))
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

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn however_many_journals_wait_they_are_read_little_by_little() {
        const WAITING: usize = ROOM / READ + 2;
        let folder = tempfile::tempdir().expect("a folder");
        let segment = |number| {
            let path = folder.path().join(format!("{number:02}"));
            File::create_new(&path).and_then(|it| it.set_len(READ as u64)).expect("a file");
            Arc::new(Segment::left_behind(path).expect("a journal").expect("nobody has it"))
        };
        let segments: Vec<_> = (0..WAITING).map(segment).collect();

        let first = Pages::read(&segments, &Positions::new()).expect("bytes");
        let name = |page: &Page| page.segment.name.clone();
        let positions = first.0.iter().map(|page| (name(page), READ as u64)).collect();
        let then = Pages::read(&segments, &positions).expect("bytes");

        let read = |pages: &Pages| pages.0.iter().map(|page| page.bytes.len()).sum::<usize>();
        assert_eq!((read(&first), read(&then)), (ROOM, 2 * READ));
        assert_eq!(first.0.first().map(name), Some("00".to_owned()));
    }
}
