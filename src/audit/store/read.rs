//! Reads the audit log, also while a gateway writes it.

use std::{
    ops::RangeInclusive,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use jiff::civil::Date;
use memchr::memmem::Finder;
use rusqlite::{Connection, OpenFlags, Rows, Transaction, params, params_from_iter, types::ToSql};
use uuid::Uuid;

use super::{
    block::{Frame, Frames},
    day::{self, Anchor},
    error::{Finding, ReadError},
    folder::Folder,
};
use crate::audit::{
    chain::Head,
    query::Filter,
    record::{Phase, Record, Sealed},
};

/// Steps of SQLite's machine after which it is looked whether to go on: some ten blocks.
const STEPS: i32 = 100;

/// SQLite's numbers are signed.
const MOST: u64 = i64::MAX.unsigned_abs();

type Result<T> = std::result::Result<T, ReadError>;

/// All days of an audit log, as they were when it was opened.
#[derive(Debug)]
pub struct Days(Vec<Reader>);

/// One day of it.
#[derive(Debug)]
pub(in crate::audit) struct Reader {
    pub(in crate::audit) date: Date,
    pub(in crate::audit) anchor: Anchor,
    connection: Connection,
}

/// A record as it lies in the store, or why there is none.
pub(in crate::audit) type Read<'a> = std::result::Result<Frame<'a>, Finding>;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Order {
    NewestFirst,
    OldestFirst,
}

impl Order {
    const fn word(self) -> &'static str {
        match self {
            Self::NewestFirst => "DESC",
            Self::OldestFirst => "ASC",
        }
    }
}

/// Whether to go on.
pub type Wanted = std::ops::ControlFlow<()>;

impl Days {
    /// Opens the days in `folder`.
    pub(in crate::audit) fn open(folder: &Folder) -> Result<Self> {
        let days = folder.days()?.into_iter().map(|(date, path)| Reader::open(date, path));
        let days = days.collect::<Result<Vec<_>>>()?;
        Ok(Self(days.into_iter().flatten().collect()))
    }

    /// Opens the days in `folder` that can have records after number `seq`.
    pub(in crate::audit) fn after(folder: &Folder, seq: u64) -> Result<Self> {
        let mut readers = Vec::new();
        for (date, path) in folder.days()?.into_iter().rev() {
            let Some(reader) = Reader::open(date, path)? else { continue };
            let goes_back = reader.anchor.first <= seq.saturating_add(1);
            readers.push(reader);
            if goes_back {
                break;
            }
        }
        readers.reverse();
        Ok(Self(readers))
    }

    /// Breaks off whatever is being read when `stop` is set, with an error.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn stop_when(&mut self, stop: &Arc<AtomicBool>) -> Result<()> {
        for reader in &mut self.0 {
            let stop = Arc::clone(stop);
            let is_set = move || stop.load(Relaxed);
            reader.connection.progress_handler(STEPS, Some(is_set))?;
        }
        Ok(())
    }

    /// How many records there are, as the days say themselves.
    pub fn count(&self) -> u64 {
        self.0.iter().map(Reader::count).sum()
    }

    /// Whether any head of the chain was signed.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn is_signed(&self) -> Result<bool> {
        for reader in self.0.iter().rev() {
            if reader.connection.prepare("SELECT 1 FROM heads")?.exists([])? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The days, the oldest first.
    pub(in crate::audit) fn all(&self) -> &[Reader] {
        &self.0
    }

    /// Shows what fits `filter`, the newest first, until it is enough. An intent is shown if its
    /// outcome is not known, or the filter wants them all.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn newest_first(
        &self,
        filter: &Filter,
        show: impl FnMut(&Sealed<'_>) -> Wanted,
    ) -> Result<()> {
        self.show(filter, Order::NewestFirst, self.0.iter().enumerate().rev(), show)
    }

    /// The same, the oldest first.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn oldest_first(
        &self,
        filter: &Filter,
        show: impl FnMut(&Sealed<'_>) -> Wanted,
    ) -> Result<()> {
        self.show(filter, Order::OldestFirst, self.0.iter().enumerate(), show)
    }

    fn show<'a>(
        &'a self,
        filter: &Filter,
        order: Order,
        days: impl Iterator<Item = (usize, &'a Reader)>,
        mut show: impl FnMut(&Sealed<'_>) -> Wanted,
    ) -> Result<()> {
        let mut shown = Wanted::Continue(());
        for (at, reader) in days {
            let later = self.0.get(at..).unwrap_or_default();
            reader.select(filter, order, &mut |sealed| {
                if is_shown(sealed, filter, later)? {
                    shown = show(sealed);
                }
                Ok(shown)
            })?;
            if shown.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The number of the last record; 0 if there is none.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn last(&self) -> Result<u64> {
        let Some(reader) = self.0.last() else { return Ok(0) };
        Ok(day::anchor(&reader.connection)?.map_or(0, |anchor| anchor.head.seq))
    }
}

/// Whether a record that fits `filter` is one to show: `later` has its day and those after it.
fn is_shown(sealed: &Sealed<'_>, filter: &Filter, later: &[Reader]) -> Result<bool> {
    if sealed.record.phase != Phase::Intent || filter.intents {
        return Ok(true);
    }
    for reader in later {
        if reader.has_outcome(&sealed.record)? {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Reader {
    /// Opens a day; `None` if nothing was ever written to it.
    pub(in crate::audit) fn open(date: Date, path: PathBuf) -> Result<Option<Self>> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        let anchor = day::anchor(&connection)?;
        Ok(anchor.map(|anchor| Self { date, anchor, connection }))
    }

    /// How many records it has, as it says itself.
    pub(in crate::audit) fn count(&self) -> u64 {
        self.anchor.head.seq.saturating_add(1).saturating_sub(self.anchor.first)
    }

    /// Everything behind it.
    pub(in crate::audit) fn connection(&self) -> &Connection {
        &self.connection
    }

    fn select(
        &self,
        filter: &Filter,
        order: Order,
        show: &mut dyn FnMut(&Sealed<'_>) -> Result<Wanted>,
    ) -> Result<()> {
        // No facet tells of it; but it stands in its block as it is, and seldom in another.
        let id = filter.request_id.as_ref().map(|id| Finder::new(id.as_bytes()));
        let has_id = |block: &[u8]| id.as_ref().is_none_or(|id| id.find(block).is_some());
        let mut show = |read: Read<'_>| {
            let frame = read?;
            let record = frame.record()?;
            if !filter.fits(&record) {
                return Ok(Wanted::Continue(()));
            }
            show(&frame.sealed(&self.anchor.gateway, record))
        };
        for (first, last) in self.spans(filter, order)? {
            if self.blocks(first..=last, order, &has_id, &mut show)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Shows the records with these numbers, as far as they lie in blocks that `are_wanted`.
    fn blocks(
        &self,
        numbers: RangeInclusive<u64>,
        order: Order,
        are_wanted: &dyn Fn(&[u8]) -> bool,
        show: &mut dyn FnMut(Read<'_>) -> Result<Wanted>,
    ) -> Result<Wanted> {
        let select = format!(
            "SELECT first, records FROM blocks WHERE first <= ?2 AND first >= \
             coalesce((SELECT max(first) FROM blocks WHERE first <= ?1), ?1) ORDER BY first {}",
            order.word()
        );
        let mut select = self.connection.prepare_cached(&select)?;
        let mut rows = select.query([numbers.start(), numbers.end()])?;
        while let Some((first, bytes)) = next(&mut rows)? {
            if !are_wanted(bytes) {
                continue;
            }
            let mut frames = frames(first, bytes);
            if order == Order::NewestFirst {
                frames.reverse();
            }
            frames.retain(|read| numbers.contains(&number(read)));
            for read in frames {
                if show(read)?.is_break() {
                    return Ok(Wanted::Break(()));
                }
            }
        }
        Ok(Wanted::Continue(()))
    }

    /// The stretches that can have something that fits, cut to the numbers that are wanted.
    fn spans(&self, filter: &Filter, order: Order) -> Result<Vec<(u64, u64)>> {
        let lowest = filter.after.map_or(0, |after| after.saturating_add(1)).min(MOST);
        let highest = filter.before.map_or(MOST, |before| before.saturating_sub(1)).min(MOST);
        let since = filter.since.unwrap_or(i64::MIN);
        // The end is not part of it.
        let until = filter.until.map_or(i64::MAX, |until| until.saturating_sub(1));
        let mut select = String::from(
            "SELECT first, last FROM spans WHERE last >= ? AND first <= ? \
             AND latest >= ? AND earliest <= ?",
        );
        let mut values: Vec<&dyn ToSql> = vec![&lowest, &highest, &since, &until];
        let facets = filter.facets();
        for (term, wanted) in &facets {
            select += " AND EXISTS (SELECT 1 FROM facets WHERE facets.first = spans.first AND ";
            select += term;
            select.push(')');
            values.extend(wanted.iter().map(|value| &**value));
        }
        select += &format!(" ORDER BY first {}", order.word());
        let mut select = self.connection.prepare_cached(&select)?;
        let rows = select.query_map(params_from_iter(values), |row| {
            let (first, last): (u64, u64) = (row.get(0)?, row.get(1)?);
            Ok((first.max(lowest), last.min(highest)))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Whether it is known how the request ended that `intent` is about.
    fn has_outcome(&self, intent: &Record<'_>) -> Result<bool> {
        let select = "SELECT 1 FROM outcomes WHERE id = ?";
        Ok(self.connection.prepare_cached(select)?.exists([intent.id.as_bytes()])?)
    }

    /// Whether it is told that the record `seq` is the outcome of the request `id`.
    pub(in crate::audit) fn tells(&self, id: Uuid, seq: u64) -> Result<bool> {
        let select = "SELECT 1 FROM outcomes WHERE id = ? AND seq = ?";
        Ok(self.connection.prepare_cached(select)?.exists(params![id.as_bytes(), seq])?)
    }

    /// Of how many outcomes it tells.
    pub(in crate::audit) fn told(&self) -> Result<u64> {
        Ok(self.connection.query_one("SELECT count(*) FROM outcomes", [], |row| row.get(0))?)
    }

    /// Goes through everything that is there, in its order.
    pub(in crate::audit) fn each(&self, show: &mut dyn FnMut(Read<'_>) -> Wanted) -> Result<()> {
        let mut select =
            self.connection.prepare("SELECT first, records FROM blocks ORDER BY first")?;
        let mut rows = select.query([])?;
        while let Some((first, bytes)) = next(&mut rows)? {
            if frames(first, bytes).into_iter().try_for_each(&mut *show).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Shows the records after the one with that number, whatever the spans say, until it is enough.
    pub(in crate::audit) fn after(
        &self,
        seq: u64,
        show: &mut dyn FnMut(Read<'_>) -> Wanted,
    ) -> Result<()> {
        let numbers = seq.saturating_add(1).min(MOST)..=MOST;
        self.blocks(numbers, Order::OldestFirst, &|_| true, &mut |read| Ok(show(read))).map(drop)
    }

    /// What is there now is what is seen until this is dropped.
    pub(in crate::audit) fn hold(&self) -> Result<Transaction<'_>> {
        Ok(self.connection.unchecked_transaction()?)
    }

    /// Where its part of the chain ends, as it says itself.
    pub(in crate::audit) fn head(&self) -> Head {
        self.anchor.head
    }
}

/// The next block: the number of its first record, and its bytes.
fn next<'a>(rows: &'a mut Rows<'_>) -> Result<Option<(u64, &'a [u8])>> {
    let Some(row) = rows.next()? else { return Ok(None) };
    // What cannot be the number of a record is that of none.
    let first = u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0);
    // What is no block has no records.
    Ok(Some((first, row.get_ref(1)?.as_blob().unwrap_or_default())))
}

/// The records in a block, up to where it is not whole.
fn frames(first: u64, bytes: &[u8]) -> Vec<Read<'_>> {
    match Frames::of(first, bytes) {
        Ok(frames) => frames.collect(),
        Err(finding) => vec![Err(finding)],
    }
}

/// The number of a record, readable or not.
pub(in crate::audit) fn number(read: &Read<'_>) -> u64 {
    match read {
        Ok(frame) => frame.seq,
        Err(finding) => finding.seq,
    }
}
