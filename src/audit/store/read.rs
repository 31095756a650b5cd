//! Reads the audit log, also while a gateway writes it.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use jiff::civil::Date;
use rusqlite::{Connection, OpenFlags, Result, params_from_iter, types::ToSql};

use super::{
    day::{self, Anchor, COLUMNS},
    folder::Folder,
};
use crate::audit::{
    chain::Head,
    query::Filter,
    record::{Phase, Record, Sealed},
    value::Hash,
};

/// Steps of SQLite's machine after which it is looked whether to go on: about a millisecond.
const STEPS: i32 = 10_000;

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

/// A record with the hash it carries, or why it cannot be read.
pub(in crate::audit) type Read<'a> = std::result::Result<(Record<'a>, Hash), String>;

/// Whether to go on.
pub type Wanted = std::ops::ControlFlow<()>;

impl Days {
    /// Opens the days in `folder`.
    pub(in crate::audit) fn open(folder: &Folder) -> Result<Self> {
        let days = folder
            .days()
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        let days = days.into_iter().map(|(date, path)| Reader::open(date, path));
        let days = days.collect::<Result<Vec<_>>>()?;
        Ok(Self(days.into_iter().flatten().collect()))
    }

    /// Opens the days in `folder` that can have records after number `seq`.
    pub(in crate::audit) fn after(folder: &Folder, seq: u64) -> Result<Self> {
        let days = folder
            .days()
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        let mut readers = Vec::new();
        for (date, path) in days.into_iter().rev() {
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
    /// SQLite's.
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
    /// SQLite's.
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
    /// SQLite's.
    pub fn newest_first(
        &self,
        filter: &Filter,
        show: impl FnMut(&Sealed<'_>) -> Wanted,
    ) -> Result<()> {
        self.show(filter, true, self.0.iter().enumerate().rev(), show)
    }

    /// The same, the oldest first.
    ///
    /// # Errors
    ///
    /// SQLite's.
    pub fn oldest_first(
        &self,
        filter: &Filter,
        show: impl FnMut(&Sealed<'_>) -> Wanted,
    ) -> Result<()> {
        self.show(filter, false, self.0.iter().enumerate(), show)
    }

    fn show<'a>(
        &'a self,
        filter: &Filter,
        newest_first: bool,
        days: impl Iterator<Item = (usize, &'a Reader)>,
        mut show: impl FnMut(&Sealed<'_>) -> Wanted,
    ) -> Result<()> {
        let mut shown = Wanted::Continue(());
        for (at, reader) in days {
            let later = self.0.get(at..).unwrap_or_default();
            reader.select(filter, newest_first, &mut |sealed| {
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
    /// SQLite's.
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
        newest_first: bool,
        show: &mut dyn FnMut(&Sealed<'_>) -> Result<Wanted>,
    ) -> Result<()> {
        let (condition, values) = filter.condition();
        let order = if newest_first { "DESC" } else { "ASC" };
        let select = format!(
            "SELECT {COLUMNS}, coalesce((SELECT hash FROM records before \
             WHERE before.seq = records.seq - 1), (SELECT prev_hash FROM chain)) \
             FROM records WHERE {condition} AND seq >= ? AND seq <= ? ORDER BY seq {order}"
        );
        let mut select = self.connection.prepare_cached(&select)?;
        for (first, last) in self.spans(filter, order)? {
            let ends = [&first as &dyn ToSql, &last];
            let mut rows = select.query(params_from_iter(values.iter().copied().chain(ends)))?;
            while let Some(row) = rows.next()? {
                let (seq, record, hash) = day::row(row)?;
                let prev_hash: Hash = row.get(26)?;
                let gateway = &self.anchor.gateway;
                if show(&Sealed { seq, gateway, record, prev_hash, hash })?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The stretches that can have something that fits, cut to the numbers that are wanted.
    fn spans(&self, filter: &Filter, order: &str) -> Result<Vec<(u64, u64)>> {
        // SQLite's numbers are signed.
        let most = i64::MAX.unsigned_abs();
        let lowest = filter.after.map_or(0, |after| after.saturating_add(1)).min(most);
        let highest = filter.before.map_or(most, |before| before.saturating_sub(1)).min(most);
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
            select += &format!(" AND first IN (SELECT first FROM facets WHERE {term})");
            values.extend(wanted);
        }
        select += &format!(" ORDER BY first {order}");
        let mut select = self.connection.prepare_cached(&select)?;
        let rows = select.query_map(params_from_iter(values), |row| {
            let (first, last): (u64, u64) = (row.get(0)?, row.get(1)?);
            Ok((first.max(lowest), last.min(highest)))
        })?;
        rows.collect()
    }

    /// Whether it is known how the request ended that `intent` is about.
    fn has_outcome(&self, intent: &Record<'_>) -> Result<bool> {
        // In the words of the index, which has all that are announced.
        let select = "SELECT 1 FROM records WHERE id = ? AND phase = 'outcome' \
                      AND (effect IS NOT 'read' OR route = '/api/rm')";
        self.connection.prepare_cached(select)?.exists([intent.id.as_bytes()])
    }

    /// Goes through all records in their order, with the number each has.
    pub(in crate::audit) fn each(
        &self,
        show: &mut dyn FnMut(u64, Read<'_>) -> Wanted,
    ) -> Result<()> {
        let select = format!("SELECT {COLUMNS} FROM records ORDER BY seq");
        let mut select = self.connection.prepare(&select)?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let seq: u64 = row.get(0)?;
            let read = day::row(row).map(|(_, record, hash)| (record, hash));
            if show(seq, read.map_err(|error| error.to_string())).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Shows the records after the one with that number, whatever the spans say, until it is enough.
    pub(in crate::audit) fn after(
        &self,
        seq: u64,
        show: &mut dyn FnMut(&Sealed<'_>) -> Wanted,
    ) -> Result<()> {
        let select = format!(
            "SELECT {COLUMNS}, coalesce((SELECT hash FROM records before \
             WHERE before.seq = records.seq - 1), (SELECT prev_hash FROM chain)) \
             FROM records WHERE seq > ? ORDER BY seq"
        );
        let mut select = self.connection.prepare_cached(&select)?;
        let mut rows = select.query([seq])?;
        while let Some(row) = rows.next()? {
            let (seq, record, hash) = day::row(row)?;
            let (gateway, prev_hash) = (&*self.anchor.gateway, row.get(26)?);
            if show(&Sealed { seq, gateway, record, prev_hash, hash }).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Where its part of the chain ends, as it says itself.
    pub(in crate::audit) fn head(&self) -> Head {
        self.anchor.head
    }
}
