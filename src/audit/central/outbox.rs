//! What is still to be shipped: the embedded store, read in batches from where the last one ended.

use super::columns::Batch;
use crate::audit::store::{Finding, Folder, ReadError, Reader, Wanted};

/// Reads on where it was, without opening a file twice.
#[derive(Debug)]
pub(super) struct Outbox {
    folder: Folder,
    day: Option<Reader>,
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Next {
    /// Records, in their order.
    Batch(Batch),
    /// Nothing at the moment.
    Nothing,
    /// A record that cannot be read, and why.
    Unreadable(u64, String),
}

impl Outbox {
    pub(super) fn new(folder: Folder) -> Self {
        Self { folder, day: None }
    }

    /// Who writes the store, and how far it has got; `None` if there is nothing in it.
    pub(super) fn head(&self) -> Result<Option<(String, u64)>, ReadError> {
        for (date, path) in self.days()?.into_iter().rev() {
            if let Some(reader) = Reader::open(date, path)? {
                return Ok(Some((reader.anchor.gateway.clone(), reader.head().seq)));
            }
        }
        Ok(None)
    }

    /// Whether it has found its place.
    pub(super) fn is_open(&self) -> bool {
        self.day.is_some()
    }

    /// Looks for the files anew: somebody may have put others into their place.
    pub(super) fn forget(&mut self) {
        self.day = None;
    }

    /// The records after the one with that number.
    pub(super) fn next(&mut self, after: u64) -> Result<Next, ReadError> {
        let next = self.look(after);
        if next.is_err() {
            self.forget();
        }
        next
    }

    fn look(&mut self, after: u64) -> Result<Next, ReadError> {
        if self.day.is_none() {
            self.day = self.find(after)?;
        }
        while let Some(reader) = &self.day {
            let mut next = read(reader, after)?;
            if matches!(next, Next::Nothing) {
                let Some(later) = self.after(reader)? else { return Ok(Next::Nothing) };
                // Once there is a later day nothing is added to this one; until then, it was.
                next = read(reader, after)?;
                if matches!(next, Next::Nothing) {
                    self.day = Some(later);
                    continue;
                }
            }
            return Ok(next);
        }
        Ok(Next::Nothing)
    }

    /// The day that the record after that one is in, or the first that there is.
    fn find(&self, after: u64) -> Result<Option<Reader>, ReadError> {
        let mut found = None;
        for (date, path) in self.days()?.into_iter().rev() {
            let Some(reader) = Reader::open(date, path)? else { continue };
            let reaches = reader.anchor.first <= after + 1;
            found = Some(reader);
            if reaches {
                break;
            }
        }
        Ok(found)
    }

    /// The day after that one, if something was written to it.
    fn after(&self, reader: &Reader) -> Result<Option<Reader>, ReadError> {
        for (date, path) in self.days()? {
            if date > reader.date
                && let Some(later) = Reader::open(date, path)?
            {
                return Ok(Some(later));
            }
        }
        Ok(None)
    }

    fn days(&self) -> Result<Vec<(jiff::civil::Date, std::path::PathBuf)>, ReadError> {
        Ok(self.folder.days()?)
    }
}

fn read(reader: &Reader, after: u64) -> Result<Next, ReadError> {
    let (mut batch, mut unreadable) = (Batch::new(), None);
    let gateway = &reader.anchor.gateway;
    reader.after(after, &mut |read| {
        match read.and_then(|frame| Ok(frame.sealed(gateway, frame.record()?))) {
            Ok(sealed) => batch.push(&sealed),
            Err(finding) => unreadable = Some(finding),
        }
        let is_enough = batch.is_full() || unreadable.is_some();
        if is_enough { Wanted::Break(()) } else { Wanted::Continue(()) }
    })?;
    Ok(match unreadable {
        // What comes before it goes first.
        Some(Finding { seq, what }) if batch.is_empty() => Next::Unreadable(seq, what),
        _ if batch.is_empty() => Next::Nothing,
        _ => Next::Batch(batch),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        audit::{
            Archive,
            central::cursor::Cursor,
            chain::{Chain, Head},
            compact,
            record::tests::sample,
            store::{Anchor, Block, Day},
        },
        clock::Clock,
    };

    /// Adds `records` to the day in `folder`.
    fn write(folder: &Path, day: &str, chain: &mut Chain, records: u64) {
        let (folder, date) = (Folder::new(folder), day.parse().expect("a date"));
        let mut day = Day::open(date, &folder.day(date), true).expect("a day");
        let (gateway, head) = ("host/1".to_owned(), chain.head());
        let anchor = Anchor { gateway, first: head.seq + 1, prev_hash: head.hash, head };
        let writing = day.begin(&anchor).expect("a batch");
        let mut record = Vec::new();
        compact::write(&sample(), &mut record).expect("bytes");
        let mut block = Block::after(head);
        for _ in 0..records {
            block.add(&record, &chain.seal("host/1", sample()).hash);
            if block.is_full() {
                writing.block(&block).expect("a block");
                block.begin(chain.head());
            }
        }
        if !block.is_empty() {
            writing.block(&block).expect("a block");
        }
        writing.commit(chain.head(), std::iter::empty()).expect("a batch");
    }

    /// The numbers of all records after that one, and where it could not be read.
    fn all(outbox: &mut Outbox, mut after: u64) -> (Vec<u64>, Vec<u64>) {
        let (mut read, mut unreadable) = (Vec::new(), Vec::new());
        loop {
            match outbox.next(after).expect("the store can be read") {
                Next::Batch(batch) => read.extend(batch.seqs()),
                Next::Unreadable(seq, _) => unreadable.push(seq),
                Next::Nothing => return (read, unreadable),
            }
            after = read.iter().chain(&unreadable).copied().max().unwrap_or(after);
        }
    }

    #[test]
    fn it_reads_on_from_one_day_to_the_next_and_leaves_nothing_out() {
        let directory = tempfile::tempdir().expect("a folder");
        let (folder, mut chain) = (directory.path(), Chain::after(Head::default()));
        let mut outbox = Outbox::new(Folder::new(folder));
        assert_eq!(outbox.head().expect("a store"), None);
        assert!(all(&mut outbox, 0).0.is_empty());

        write(folder, "2026-11-25", &mut chain, 5000);
        assert!(all(&mut outbox, 0).0.into_iter().eq(1..=5000));
        // More for the day that it is at, and more than one day after that.
        write(folder, "2026-11-25", &mut chain, 3);
        write(folder, "2026-11-27", &mut chain, 2);
        write(folder, "2026-11-28", &mut chain, 2);

        assert_eq!(all(&mut outbox, 5000).0, [5001, 5002, 5003, 5004, 5005, 5006, 5007]);
        assert_eq!(all(&mut Outbox::new(Folder::new(folder)), 5005).0, [5006, 5007]);
        assert_eq!(outbox.head().expect("a store"), Some(("host/1".into(), 5007)));
    }

    #[test]
    fn what_has_been_deleted_or_spoilt_holds_up_nothing() {
        let directory = tempfile::tempdir().expect("a folder");
        let (folder, mut chain) = (directory.path(), Chain::after(Head::default()));
        for day in ["2026-11-25", "2026-11-26", "2026-11-27"] {
            write(folder, day, &mut chain, 10);
        }
        std::fs::remove_file(folder.join("2026-11-26.sqlite")).expect("a day");
        let day = rusqlite::Connection::open(folder.join("2026-11-27.sqlite")).expect("a day");
        let select = "SELECT records FROM blocks WHERE first = 21";
        let whole: Vec<u8> = day.query_row(select, [], |row| row.get(0)).expect("a block");
        let one = (whole.len() - 32) / 10;
        let spoil = |spoilt: &[u8]| {
            let update = "UPDATE blocks SET records = ? WHERE first = 21";
            day.execute(update, [spoilt]).expect("a block");
        };

        let mut spoilt = whole.clone();
        // Behind the length, that is the phase.
        [21, 25].iter().for_each(|seq| spoilt[32 + (seq - 21) * one + 4] = 7);
        spoil(&spoilt);
        let (read, unreadable) = all(&mut Outbox::new(Folder::new(folder)), 5);

        assert_eq!(read, [6, 7, 8, 9, 10, 22, 23, 24, 26, 27, 28, 29, 30]);
        assert_eq!(unreadable, [21, 25]);

        // Where the block itself is not whole, what comes behind it goes on.
        spoil(&whole[..32 + one * 5 + 7]);
        write(folder, "2026-11-28", &mut chain, 2);
        let (read, unreadable) = all(&mut Outbox::new(Folder::new(folder)), 20);
        assert_eq!((read, unreadable), (vec![21, 22, 23, 24, 25, 31, 32], vec![26]));
    }

    #[test]
    fn what_has_not_arrived_is_not_deleted_however_old_it_is() {
        let directory = tempfile::tempdir().expect("a folder");
        let (folder, mut chain) = (directory.path(), Chain::after(Head::default()));
        for day in ["2020-11-25", "2020-11-26", "2020-11-27"] {
            write(folder, day, &mut chain, 10);
        }
        let prune = |seq| {
            let cursor = Cursor { gateway: "host/1".into(), place: "db:5432/audit".into(), seq };
            cursor.keep(&Folder::new(folder)).expect("a cursor");
            let archive = Archive::open(folder, &Clock::system()).expect("an audit log");
            archive.prune("2021-01-01".parse().expect("a date"), None).expect("nobody writes it")
        };

        assert_eq!([prune(0), prune(9), prune(10), prune(19), prune(30)], [0, 0, 1, 0, 1]);
    }
}
