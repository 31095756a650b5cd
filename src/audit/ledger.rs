//! The chain and the day that it has got to: takes records out of the journals, seals them, and
//! puts them into the store.

use std::{
    collections::HashMap,
    fmt, io,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::sleep,
    time::{Duration, Instant},
};

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use uuid::Uuid;

use super::{
    batch::{Batch, Pages, Positions},
    chain::{Chain, Head},
    compact,
    journal::{Noted, Segment},
    record::Record,
    store::{Anchor, Block, Day, Facets, Folder, Lock, OpenError, ReadError, Reader, Writing},
    writer::Work,
};
use crate::clock::Clock;

/// Records that are put in without a rest, so that whoever serves callers on the same core is never
/// held up for long.
const SLICE: usize = 256;
/// Records in a stretch that is known by its time.
const SPAN: u64 = 1024;
/// How often the head of the chain is signed.
const MINUTE: Duration = Duration::from_secs(60);

/// Why records cannot go into the store.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    System(#[from] io::Error),
}

/// A stretch of the chain: from where to where, from when to when, and what occurs in it.
#[derive(Debug)]
struct Span {
    first: u64,
    last: u64,
    times: (i64, i64),
    facets: Facets,
}

impl Span {
    fn new(first: u64, time: i64) -> Self {
        Self { first, last: first, times: (time, time), facets: Facets::default() }
    }

    /// Notes that `record`, which is the next, is in it.
    fn add(
        &mut self,
        seq: u64,
        record: &Record<'_>,
        writing: &Writing<'_>,
    ) -> rusqlite::Result<()> {
        let (earliest, latest) = self.times;
        self.times = (earliest.min(record.time), latest.max(record.time));
        self.last = seq;
        let mut noted = Ok(());
        self.facets.add(record, |kind, value| {
            noted = std::mem::replace(&mut noted, Ok(()))
                .and_then(|()| writing.facet(kind, value, self.first));
        });
        noted
    }

    fn is_full(&self) -> bool {
        self.last - self.first + 1 >= SPAN
    }

    fn write(&self, writing: &Writing<'_>) -> rusqlite::Result<()> {
        writing.span((self.first, self.last), self.times)
    }
}

/// The store, opened to write.
#[derive(Debug)]
pub(super) struct Ledger {
    lock: Lock,
    gateway: String,
    chain: Chain,
    day: Option<Day>,
    /// How far each journal has been read.
    positions: Positions,
    /// The stretch that the next records belong to.
    span: Option<Span>,
    /// How far the chain had got when `head.json` was last written.
    kept: u64,
    /// How far the chain had got when its head was last signed, and when that was.
    signed: (u64, Option<Instant>),
}

impl Ledger {
    /// Opens the store in `folder` and finds out how far its chain has got.
    ///
    /// Waits for `patience` if somebody else has it: who only looks at a crashed gateway's log has it for
    /// a moment.
    pub(super) fn open(
        folder: &Folder,
        clock: &Clock,
        patience: Duration,
    ) -> Result<Self, OpenError> {
        let lock = folder.take(patience)?;
        let unreadable = |reason: String| {
            let folder = folder.path().to_owned();
            OpenError::Unreadable { folder, reason }
        };
        let system = |source| OpenError::System { folder: folder.path().to_owned(), source };
        let (mut found, mut positions) = (None, HashMap::new());
        for (date, path) in folder.days().map_err(system)?.into_iter().rev() {
            let at = |error: &dyn fmt::Display| unreadable(format!("{}: {error}", path.display()));
            let day = Day::open(date, &path, false).map_err(|error| at(&error))?;
            if let Some(anchor) = day.anchor().map_err(|error| at(&error))? {
                positions.extend(day.positions().map_err(|error| at(&error))?);
                found = Some((anchor.gateway, anchor.head, day));
                break;
            }
        }
        let kept = folder.head().unwrap_or_else(|error| {
            tracing::error!(reason = error.to_string(), "the audit log's head.json is ignored");
            None
        });
        let last_kept = kept.as_ref().map_or(0, |(_, kept)| kept.seq);
        let (gateway, head, day) = match (found, kept) {
            (Some((gateway, head, day)), Some((_, kept))) if kept.seq > head.seq => {
                // The chain goes on where it was: what is missing will show.
                let (last, missing) = (head.seq, kept.seq - head.seq);
                tracing::error!(last, missing, "audit records are missing from the store");
                (gateway, kept, Some(day))
            }
            (Some((gateway, head, day)), _) => (gateway, head, Some(day)),
            (None, Some((gateway, kept))) => {
                let missing = kept.seq;
                tracing::error!(missing, "audit records are missing from the store");
                (gateway, kept, None)
            }
            (None, None) => (name(clock), Head::default(), None),
        };
        let (chain, signed) = (Chain::after(head), (head.seq, None));
        Ok(Self { lock, gateway, chain, day, positions, span: None, kept: last_kept, signed })
    }

    /// How far the chain has got.
    pub(super) fn head(&self) -> Head {
        self.chain.head()
    }

    /// Takes in what is in the journals at the moment, or a part of it; says whether there was
    /// something.
    pub(super) fn take_in(&mut self, work: &mut Work) -> Result<bool, Error> {
        let segments = work.journals.segments();
        let pages = Pages::read(&segments, &self.positions)?;
        let batch = pages.batch(self.positions.clone());
        work.progress.torn.fetch_add(batch.torn, Relaxed);
        let moved = batch.positions != self.positions;
        if !batch.records.is_empty() {
            self.store(&batch, work)?;
        }
        // Whatever fails from here on, what is in the store is not taken in again.
        self.positions = batch.positions;
        self.clear(&segments, work);
        self.keep_head(work)?;
        Ok(moved)
    }

    /// Writes down how far the chain has got, apart from the days that it vouches for.
    fn keep_head(&mut self, work: &Work) -> io::Result<()> {
        let head = self.chain.head();
        if self.kept != head.seq {
            work.folder.set_head(&self.gateway, head)?;
            self.kept = head.seq;
        }
        Ok(())
    }

    fn store(&mut self, batch: &Batch<'_>, work: &mut Work) -> Result<(), Error> {
        // They are in the order of time.
        let time = |noted: Option<&Noted<'_>>| noted.map_or(0, |noted| noted.time);
        let (earliest, latest) = (time(batch.records.first()), time(batch.records.last()));
        self.turn_page(date(earliest), work)?;
        let before = self.chain.head();
        let stored = self.write(batch, work);
        let lines = match stored {
            Ok(lines) => lines,
            Err(error) => {
                // Nothing of it has happened.
                self.chain = Chain::after(before);
                (self.day, self.span) = (None, None);
                return Err(error.into());
            }
        };
        let head = self.chain.head();
        let progress = &work.progress;
        progress.seq.store(head.seq, Relaxed);
        progress.stored.fetch_add(head.seq - before.seq, Relaxed);
        progress.last.store(latest, Relaxed);
        if let (Some(printer), Some(lines)) = (&work.lines, lines) {
            printer.push(lines);
        }
        work.news.send_replace(head.seq);
        Ok(())
    }

    fn write(&mut self, batch: &Batch<'_>, work: &Work) -> rusqlite::Result<Option<Vec<u8>>> {
        let anchor = self.anchor();
        // It was opened just now.
        let Some(day) = &mut self.day else { return Ok(None) };
        let writing = day.begin(&anchor)?;
        let mut outcomes = writing.outcomes()?;
        let (mut block, mut foreign) = (Block::after(self.chain.head()), 0);
        let mut lines = work.lines.is_some().then(Vec::new);
        // It is put back when everything is written.
        let mut span = self.span.take();
        let rest = work.rest_between(batch.records.len().div_ceil(SLICE));
        for (at, noted) in (1..).zip(&batch.records) {
            if at % SLICE == 0 && !rest.is_zero() {
                sleep(rest);
            }
            let Some(record) = compact::read(noted.bytes) else {
                foreign += noted.bytes.len() as u64;
                continue;
            };
            let sealed = self.chain.seal(&self.gateway, record);
            block.add(noted.bytes, &sealed.hash);
            if sealed.record.ends_announced() {
                outcomes.add(sealed.record.id, sealed.seq)?;
            }
            lines.iter_mut().for_each(|lines| sealed.json_line(lines));
            let open = span.get_or_insert_with(|| Span::new(sealed.seq, noted.time));
            open.add(sealed.seq, &sealed.record, &writing)?;
            let ends_span = open.is_full();
            if ends_span {
                open.write(&writing)?;
                span = None;
            }
            if ends_span || block.is_full() {
                writing.block(&block)?;
                block.begin(self.chain.head());
            }
        }
        drop(outcomes);
        if !block.is_empty() {
            writing.block(&block)?;
        }
        if let Some(span) = &span {
            span.write(&writing)?;
        }
        let positions = batch.positions.iter().map(|(name, at)| (name.as_str(), *at));
        writing.commit(self.chain.head(), positions)?;
        self.span = span;
        if foreign > 0 {
            let bytes = foreign;
            tracing::warn!(bytes, "audit records in a journal are of another version");
            work.progress.torn.fetch_add(foreign, Relaxed);
        }
        Ok(lines)
    }

    fn anchor(&self) -> Anchor {
        let head = self.chain.head();
        let gateway = self.gateway.clone();
        Anchor { gateway, first: head.seq + 1, prev_hash: head.hash, head }
    }

    /// Opens the file for `date`, unless that or a later one is open.
    fn turn_page(&mut self, date: Date, work: &mut Work) -> Result<(), Error> {
        let date = match &self.day {
            Some(day) if day.is_there() && day.date >= date => return Ok(()),
            // A clock that was put back makes no file older than the last.
            Some(day) => date.max(day.date),
            None => {
                let last = work.folder.days()?.last().map(|(date, _)| *date);
                last.map_or(date, |last| date.max(last))
            }
        };
        if self.day.as_ref().is_some_and(Day::is_there) {
            self.sign(work)?;
        }
        if !self.lock.is_there() {
            // Somebody has taken the whole folder away, and with it the right to write there.
            self.lock = work.folder.take(Duration::ZERO)?;
            self.kept = 0;
        }
        (self.day, self.span) = (Some(Day::open(date, &work.folder.day(date), true)?), None);
        Ok(())
    }

    /// Deletes journals that are read to their end.
    fn clear(&mut self, segments: &[Arc<Segment>], work: &Work) {
        let position = |segment: &Segment| self.positions.get(&segment.name).copied();
        let is_done = |segment: &&Arc<Segment>| segment.is_done(position(segment).unwrap_or(0));
        let done: Vec<_> = segments.iter().filter(is_done).cloned().collect();
        for segment in &done {
            if let Err(error) = segment.delete() {
                let (journal, reason) = (&segment.name, error.to_string());
                tracing::warn!(journal, reason, "a journal that is in the store was not deleted");
            }
            self.positions.remove(&segment.name);
        }
        work.journals.forget(&done);
    }

    pub(super) fn sign_if_due(&mut self, work: &Work, ending: bool) -> Result<(), Error> {
        let rested = self.signed.1.is_none_or(|last| last.elapsed() >= MINUTE);
        if rested || ending { self.sign(work) } else { Ok(()) }
    }

    /// Signs the head of the chain, if it has moved since.
    fn sign(&mut self, work: &Work) -> Result<(), Error> {
        let head = self.chain.head();
        let Some(signer) = &work.signer else { return Ok(()) };
        if head.seq == self.signed.0 && self.signed.1.is_some() || head.seq == 0 {
            return Ok(());
        }
        let anchor = self.anchor();
        let Some(day) = &mut self.day else { return Ok(()) };
        let now = work.clock.now().as_microsecond();
        let writing = day.begin(&anchor)?;
        writing.signed(head, now, signer.key(), &signer.sign(&self.gateway, head))?;
        writing.commit(head, self.positions.iter().map(|(name, at)| (name.as_str(), *at)))?;
        self.signed = (head.seq, Some(Instant::now()));
        Ok(())
    }

    /// Deletes the days before `date`, except the last and what was not shipped; says how many.
    pub(super) fn prune(&mut self, work: &Work, date: Date) -> Result<usize, Error> {
        let shipped = work.shipped.as_ref().map(|shipped| *shipped.borrow());
        let mut days = work.folder.days()?;
        let current = self.day.as_ref().map(|day| day.date);
        days.retain(|(day, _)| *day < date && current.is_some_and(|current| *day < current));
        let mut deleted = 0;
        for (day, path) in days {
            if let Some(reader) = Reader::open(day, path.clone())? {
                if shipped.is_some_and(|shipped| reader.head().seq > shipped) {
                    break;
                }
                self.note_pruned(reader.anchor.first, reader.head(), work)?;
            }
            work.folder.delete(&path)?;
            deleted += 1;
        }
        Ok(deleted)
    }

    fn note_pruned(&mut self, first: u64, last: Head, work: &Work) -> Result<(), Error> {
        let (anchor, head) = (self.anchor(), self.chain.head());
        let Some(day) = &mut self.day else { return Ok(()) };
        let writing = day.begin(&anchor)?;
        let signature = work.signer.as_ref().map(|it| it.sign(&self.gateway, last));
        let signed = work.signer.as_ref().zip(signature.as_deref());
        let signed = signed.map(|(signer, signature)| (signer.key(), signature));
        writing.pruned((first, last), work.clock.now().as_microsecond(), signed)?;
        writing.commit(head, self.positions.iter().map(|(name, at)| (name.as_str(), *at)))?;
        Ok(())
    }
}

/// A name for a gateway that begins a new chain: its host, and something of its own.
fn name(clock: &Clock) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.trim().chars().filter(|c| c.is_ascii_graphic()).take(64).collect();
    let host = if host.is_empty() { "gateway" } else { &host };
    let hash =
        blake3::hash(&[Uuid::now_v7().as_bytes(), clock.now().to_string().as_bytes()].concat());
    format!("{host}/{}", &hash.to_hex()[..8])
}

fn date(time: i64) -> Date {
    date_of(Timestamp::from_microsecond(time).unwrap_or_default())
}

/// The day of `time`, in UTC.
pub(super) fn date_of(time: Timestamp) -> Date {
    time.to_zoned(TimeZone::UTC).date()
}
