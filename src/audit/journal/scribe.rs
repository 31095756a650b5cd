//! Writes records down: many with one write, on the thread of those who wait for it.

use std::{
    future::poll_fn,
    io,
    sync::{Arc, Mutex},
    task::Poll,
};

use super::{
    group::{Group, Unwritten},
    journals::{Journals, lock},
    segment::{Segment, frame},
};
use crate::{audit::record::Record, config::OnFailure};

/// A file that is larger is followed by another one. Small ones are soon deleted, and the system
/// uses their memory again for the next: memory that was never touched costs more than the writing.
const SEGMENT: u64 = 1024 * 1024;
/// What may wait in memory, for each worker, while nothing can be written.
const WAITING: usize = 1024 * 1024;

/// Writes the journal of one worker.
#[derive(Debug)]
pub struct Scribe {
    journals: Arc<Journals>,
    page: Mutex<Page>,
}

/// A record that is noted, and not yet written down.
#[derive(Debug)]
#[must_use = "what is noted has to be settled"]
pub struct Receipt(Arc<Group>);

/// What is to be written next, and where.
#[derive(Debug, Default)]
struct Page {
    segment: Option<Arc<Segment>>,
    /// Bytes that the segment has.
    length: u64,
    bytes: Vec<u8>,
    /// Where each frame in `bytes` ends, and whether somebody waits for it.
    frames: Vec<(usize, bool)>,
    group: Arc<Group>,
}

impl Scribe {
    pub(super) fn new(journals: &Arc<Journals>) -> Self {
        Self { journals: Arc::clone(journals), page: Mutex::default() }
    }

    /// Notes `record`; it is written down by [`Self::settle`].
    pub fn note(&self, record: &Record<'_>) -> Receipt {
        Receipt(self.add(record, true))
    }

    /// Waits until what was noted is written down: as firmly as `audit.durability` wants it.
    ///
    /// # Errors
    ///
    /// [`Unwritten`] if it cannot be written and `audit.on_failure` forbids to go on without. It
    /// is not in the journal then, and will not be.
    pub async fn settle(&self, Receipt(group): Receipt) -> Result<(), Unwritten> {
        // Whoever is ready at this moment comes along.
        let mut yielded = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        if group.is_open() {
            self.write();
        }
        group.outcome().await
    }

    /// Writes `record` down; nobody waits for it.
    pub fn leave(&self, record: &Record<'_>) {
        self.add(record, false);
        if !self.journals.is_failing() {
            self.write();
        }
    }

    /// Whether requests are to be refused because nothing can be written.
    pub fn refuses(&self) -> bool {
        self.journals.refuses()
    }

    fn add(&self, record: &Record<'_>, waits: bool) -> Arc<Group> {
        let mut page = lock(&self.page);
        if page.bytes.len() >= WAITING {
            drop(page);
            let group = Arc::new(Group::default());
            let goes_on = self.journals.on_failure == OnFailure::Allow;
            if !waits || goes_on {
                self.journals.lose(1);
            }
            group.resolve(goes_on);
            return group;
        }
        frame(record, &mut page.bytes);
        let end = page.bytes.len();
        page.frames.push((end, waits));
        if !waits {
            page.group.add_unattended();
        }
        Arc::clone(&page.group)
    }

    /// Writes what has gathered, and ends the file. What comes later begins a new one.
    pub(super) fn close(&self) {
        self.write();
        let mut page = lock(&self.page);
        let Some(segment) = page.segment.take() else { return };
        match &self.journals.syncer {
            Some(syncer) => {
                let group = std::mem::take(&mut page.group);
                syncer.hand_over(segment, page.length, true, group);
            }
            None => segment.close(),
        }
    }

    /// Writes what has gathered.
    pub(super) fn write(&self) {
        let journals = &*self.journals;
        let mut page = lock(&self.page);
        let unsaid = journals.take_unsaid();
        if unsaid > 0 {
            let now = journals.clock.now().as_microsecond();
            frame(&Record::gap(unsaid, now), &mut page.bytes);
            let end = page.bytes.len();
            page.frames.push((end, false));
            page.group.add_gap(unsaid);
        }
        if page.frames.is_empty() {
            return;
        }
        match page.write(journals) {
            // Otherwise it is known when it is on the disk.
            Ok(()) if journals.syncer.is_none() => {
                drop(page);
                journals.works();
                journals.wake_reader();
            }
            Ok(()) => {}
            Err(error) => {
                journals.failed(&error);
                // A gap is told again, with what is lost until then.
                journals.leave_unsaid(unsaid);
                page.keep(unsaid > 0, journals.on_failure);
            }
        }
    }
}

impl Page {
    fn write(&mut self, journals: &Journals) -> io::Result<()> {
        let segment = match self.append(journals) {
            // Somebody has taken the file away: there can be another one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.append(journals)?,
            appended => appended?,
        };
        self.length += self.bytes.len() as u64;
        self.bytes.clear();
        self.frames.clear();
        let group = std::mem::take(&mut self.group);
        let is_last = self.length >= SEGMENT;
        match &journals.syncer {
            Some(syncer) => {
                group.hand_over();
                syncer.hand_over(Arc::clone(&segment), self.length, is_last, group);
            }
            None => {
                segment.publish(self.length);
                group.resolve(true);
                if is_last {
                    segment.close();
                }
            }
        }
        if is_last {
            self.segment = None;
        }
        Ok(())
    }

    fn append(&mut self, journals: &Journals) -> io::Result<Arc<Segment>> {
        self.segment.take_if(|segment| segment.is_spoiled());
        let segment = match &self.segment {
            Some(segment) => Arc::clone(segment),
            None => {
                self.length = 0;
                Arc::clone(self.segment.insert(journals.begin()?))
            }
        };
        let appended = segment.append(self.length, &self.bytes);
        if appended.is_err() {
            // The next attempt begins a new file: this one may be gone, or not be what we think.
            segment.close();
            self.segment = None;
        }
        appended.map(|()| segment)
    }

    /// Nothing could be written: those who wait are told, what nobody waits for is kept.
    fn keep(&mut self, has_gap: bool, on_failure: OnFailure) {
        if has_gap {
            self.frames.pop();
            let end = self.frames.last().map_or(0, |(end, _)| *end);
            self.bytes.truncate(end);
        }
        let group = std::mem::take(&mut self.group);
        if on_failure == OnFailure::Deny {
            let (mut bytes, mut frames, mut begin) = (Vec::new(), Vec::new(), 0);
            for (end, waits) in std::mem::take(&mut self.frames) {
                if !waits {
                    bytes.extend_from_slice(&self.bytes[begin..end]);
                    frames.push((bytes.len(), false));
                }
                begin = end;
            }
            (self.bytes, self.frames) = (bytes, frames);
        } else {
            // Nobody waits for them any more.
            self.frames.iter_mut().for_each(|(_, waits)| *waits = false);
        }
        self.group.set_unattended(self.frames.len());
        group.resolve(on_failure == OnFailure::Allow);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::{
        audit::{compact, journal::Frames, record::tests::sample},
        clock::Clock,
    };

    fn journals(folder: &TempDir, on_failure: OnFailure) -> Arc<Journals> {
        let folder = folder.path().join("journal");
        Journals::new(&folder, None, on_failure, None, &Clock::system())
    }

    /// The times of all records that are written, and how many a gap speaks of.
    fn written(journals: &Journals) -> (Vec<i64>, u64) {
        let (mut times, mut lost) = (Vec::new(), 0);
        for segment in journals.segments() {
            let mut bytes = Vec::new();
            segment.read(0, usize::MAX, &mut bytes).expect("a journal");
            for noted in Frames::of(&bytes) {
                let record = compact::read(noted.bytes).expect("a record");
                lost += record.lost;
                times.extend((record.lost == 0).then_some(record.time));
            }
        }
        (times, lost)
    }

    fn at(time: i64) -> Record<'static> {
        Record { time, ..sample() }
    }

    #[tokio::test]
    async fn who_is_ready_at_the_same_time_is_written_together() {
        let folder = tempfile::tempdir().expect("a folder");
        let journals = journals(&folder, OnFailure::Deny);
        let scribe = journals.scribe();
        let receipts = [scribe.note(&at(1)), scribe.note(&at(2)), scribe.note(&at(3))];
        assert!(written(&journals).0.is_empty());

        let [first, second, third] = receipts.map(|receipt| scribe.settle(receipt));
        first.await.expect("it is written");

        assert_eq!(written(&journals).0, [1, 2, 3]);
        second.await.expect("it is written");
        third.await.expect("it is written");
        assert_eq!(written(&journals).0, [1, 2, 3]);
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_told_to_those_who_wait_and_kept_for_those_who_do_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let journals = journals(&folder, OnFailure::Deny);
        let scribe = journals.scribe();
        // There can be no folder where there is a file.
        let blocks = folder.path().join("journal");
        fs::write(&blocks, "").expect("a file");

        let waits = scribe.note(&at(1));
        scribe.leave(&at(2));
        assert!(scribe.settle(waits).await.is_err());
        assert!(scribe.refuses() && journals.failure().is_some());
        scribe.leave(&at(3));

        fs::remove_file(&blocks).expect("it is gone");
        journals.write_all();
        assert_eq!(written(&journals), (vec![2, 3], 0));
        assert!(!scribe.refuses() && journals.failure().is_none());
    }

    #[tokio::test]
    async fn what_there_is_no_room_for_is_counted_and_told_once_there_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let journals = journals(&folder, OnFailure::Allow);
        let scribe = journals.scribe();
        let blocks = folder.path().join("journal");
        fs::write(&blocks, "").expect("a file");
        let mut count = 0;
        while journals.lost() < 5 {
            let receipt = scribe.note(&at(count));
            scribe.settle(receipt).await.expect("it goes on");
            count += 1;
        }
        assert!(!scribe.refuses());

        fs::remove_file(&blocks).expect("it is gone");
        journals.write_all();

        let (times, lost) = written(&journals);
        assert_eq!((times.len() as i64 + 5, lost), (count, 5));
    }
}
