//! Writes records down: many with one write, on the thread of those who wait for it.

use std::{
    future::poll_fn,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicBool, AtomicU8, AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    task::Poll,
    thread::Thread,
};

use tokio::sync::Notify;

use super::{
    segment::{Segment, frame},
    sync::Syncer,
};
use crate::{
    audit::{record::Record, store},
    clock::Clock,
    config::OnFailure,
};

/// A file that is larger is followed by another one. Small ones are soon deleted, and the system
/// uses their memory again for the next: memory that was never touched costs more than the writing.
const SEGMENT: u64 = 1024 * 1024;
/// So many files may wait for a store that takes nothing: 1 GiB.
const BEHIND: usize = 1024;
/// What may wait in memory, for each worker, while nothing can be written.
const WAITING: usize = 1024 * 1024;

/// All journals of this process.
#[derive(Debug)]
pub(in crate::audit) struct Journals {
    folder: PathBuf,
    /// Begins the names of our files: behind those of all processes before.
    run: String,
    next: AtomicU64,
    on_failure: OnFailure,
    syncer: Option<Syncer>,
    clock: Clock,
    /// Files with something in them that may not be in the store yet, in the order of their names.
    segments: Mutex<Vec<Arc<Segment>>>,
    scribes: Mutex<Vec<Arc<Scribe>>>,
    /// Why nothing can be written, if nothing can.
    failure: Mutex<Option<Arc<str>>>,
    failing: AtomicBool,
    /// Records that were lost, since the start and since it was last written down.
    lost: AtomicU64,
    unsaid: AtomicU64,
    /// Who reads the journals, and whether it sleeps until there is something to read.
    reader: OnceLock<Thread>,
    reader_sleeps: AtomicBool,
    /// There is something that it has not read.
    news: AtomicBool,
}

/// Writes the journal of one worker.
#[derive(Debug)]
pub struct Scribe {
    journals: Arc<Journals>,
    page: Mutex<Page>,
}

/// A record could not be written, and nothing may happen without one.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the audit log cannot be written")]
pub struct Unwritten;

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

/// Records that are written together.
#[derive(Debug, Default)]
pub(super) struct Group {
    state: AtomicU8,
    /// Records in it that nobody waits for.
    unattended: AtomicUsize,
    resolved: Notify,
}

impl Group {
    const OPEN: u8 = 0;
    const WRITTEN: u8 = 1;
    const FAILED: u8 = 2;
    /// Written, but not yet on the disk.
    const HANDED_OVER: u8 = 3;

    pub(super) fn resolve(&self, written: bool) {
        self.state.store(if written { Self::WRITTEN } else { Self::FAILED }, Release);
        self.resolved.notify_waiters();
    }

    async fn outcome(&self) -> Result<(), Unwritten> {
        loop {
            let resolved = self.resolved.notified();
            tokio::pin!(resolved);
            // First the ear, then the look: a call in between is not missed.
            resolved.as_mut().enable();
            match self.state.load(Acquire) {
                Self::WRITTEN => return Ok(()),
                Self::FAILED => return Err(Unwritten),
                _ => resolved.await,
            }
        }
    }
}

impl Journals {
    /// Journals in `folder`, among which are those in `left_behind`.
    pub(in crate::audit) fn new(
        folder: &Path,
        left_behind: Vec<Arc<Segment>>,
        on_failure: OnFailure,
        syncer: Option<Syncer>,
        clock: &Clock,
    ) -> Arc<Self> {
        let now = clock.now().as_millisecond();
        // Behind what is there, even if the clock has been put back.
        let last = left_behind.last().and_then(|segment| segment.name.split('-').next());
        let last = last.and_then(|run| i64::from_str_radix(run, 16).ok()).unwrap_or(0);
        let run = format!("{:016x}", now.max(last + 1));
        Arc::new(Self {
            folder: folder.to_owned(),
            run,
            next: AtomicU64::new(1),
            on_failure,
            syncer,
            clock: clock.clone(),
            segments: Mutex::new(left_behind),
            scribes: Mutex::default(),
            failure: Mutex::default(),
            failing: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            unsaid: AtomicU64::new(0),
            reader: OnceLock::new(),
            reader_sleeps: AtomicBool::new(false),
            news: AtomicBool::new(true),
        })
    }

    /// Starts what has to run besides.
    pub(in crate::audit) fn start(self: &Arc<Self>, on_failure: OnFailure) -> io::Result<()> {
        let start = |syncer: &Syncer| syncer.start(Arc::downgrade(self), on_failure);
        self.syncer.as_ref().map_or(Ok(()), start)
    }

    /// A scribe for one more worker.
    pub(in crate::audit) fn scribe(self: &Arc<Self>) -> Arc<Scribe> {
        let scribe = Arc::new(Scribe { journals: Arc::clone(self), page: Mutex::default() });
        lock(&self.scribes).push(Arc::clone(&scribe));
        scribe
    }

    /// The files that may have something to read.
    pub(in crate::audit) fn segments(&self) -> Vec<Arc<Segment>> {
        lock(&self.segments).clone()
    }

    /// Forgets files that have been read to the end.
    pub(in crate::audit) fn forget(&self, done: &[Arc<Segment>]) {
        lock(&self.segments).retain(|it| !done.iter().any(|done| Arc::ptr_eq(it, done)));
    }

    /// Writes what nobody waits for, and tries again what could not be written.
    pub(in crate::audit) fn write_all(&self) {
        let scribes = lock(&self.scribes).clone();
        scribes.iter().for_each(|scribe| scribe.write());
    }

    /// Writes everything and ends every file. What comes later begins new ones.
    pub(in crate::audit) fn close(&self) {
        let scribes = lock(&self.scribes).clone();
        for scribe in scribes {
            scribe.write();
            let mut page = lock(&scribe.page);
            if let Some(segment) = page.segment.take() {
                match &self.syncer {
                    Some(syncer) => {
                        let group = std::mem::take(&mut page.group);
                        syncer.hand_over(segment, page.length, true, group);
                    }
                    None => segment.close(),
                }
            }
        }
        if let Some(syncer) = &self.syncer {
            syncer.finish();
        }
    }

    /// Says who is to be woken when there is something to read.
    pub(in crate::audit) fn set_reader(&self, reader: Thread) {
        // There is only one.
        let _ = self.reader.set(reader);
    }

    /// The reader goes to sleep, unless there has been something since it last looked: see
    /// [`Self::wake_reader`].
    pub(in crate::audit) fn reader_sleeps(&self) {
        self.reader_sleeps.store(true, Release);
    }

    /// Whether there may be something that was not read.
    pub(in crate::audit) fn has_news(&self) -> bool {
        self.news.load(Acquire)
    }

    /// The reader is about to read everything.
    pub(in crate::audit) fn take_news(&self) {
        self.news.store(false, Release);
    }

    pub(super) fn wake_reader(&self) {
        self.news.store(true, Release);
        if self.reader_sleeps.load(Relaxed) && self.reader_sleeps.swap(false, AcqRel) {
            self.reader.get().into_iter().for_each(Thread::unpark);
        }
    }

    /// Why nothing can be written, if nothing can.
    pub(in crate::audit) fn failure(&self) -> Option<Arc<str>> {
        lock(&self.failure).clone()
    }

    /// Whether requests are to be refused because nothing can be written.
    pub(in crate::audit) fn refuses(&self) -> bool {
        self.failing.load(Relaxed) && self.on_failure == OnFailure::Deny
    }

    /// Records that were lost since the start.
    pub(in crate::audit) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    pub(super) fn lose(&self, records: usize) {
        self.lost.fetch_add(records as u64, Relaxed);
        self.unsaid.fetch_add(records as u64, Relaxed);
    }

    pub(super) fn failed(&self, error: &io::Error) {
        let reason: Arc<str> = error.to_string().into();
        let before = lock(&self.failure).replace(Arc::clone(&reason));
        self.failing.store(true, Relaxed);
        if before.is_none() {
            let folder = self.folder.display();
            tracing::error!(%folder, %reason, "the audit log cannot be written");
        }
    }

    fn works(&self) {
        if self.failing.load(Relaxed) && lock(&self.failure).take().is_some() {
            self.failing.store(false, Relaxed);
            let lost = self.lost.load(Relaxed);
            tracing::info!(lost, "the audit log can be written again");
        }
    }

    fn begin(&self) -> io::Result<Arc<Segment>> {
        // One for each worker, and so many that the store has not taken.
        if lock(&self.segments).len() >= BEHIND + lock(&self.scribes).len() {
            let reason = "the store takes no records, and the journal has no more room for them";
            return Err(io::Error::new(io::ErrorKind::StorageFull, reason));
        }
        let number = self.next.fetch_add(1, Relaxed);
        let segment = Segment::create(&self.folder, format!("{}-{number:08x}", self.run));
        let segment = match segment {
            // Somebody has taken the folder away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                store::create_folder(&self.folder)?;
                Segment::create(&self.folder, format!("{}-{number:08x}", self.run))
            }
            created => created,
        };
        let segment = Arc::new(segment?);
        if self.syncer.is_some() {
            std::fs::File::open(&self.folder)?.sync_all()?;
        }
        lock(&self.segments).push(Arc::clone(&segment));
        Ok(segment)
    }
}

impl Scribe {
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
        if group.state.load(Acquire) == Group::OPEN {
            self.write();
        }
        group.outcome().await
    }

    /// Writes `record` down; nobody waits for it.
    pub fn leave(&self, record: &Record<'_>) {
        self.add(record, false);
        if !self.journals.failing.load(Relaxed) {
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
            page.group.unattended.fetch_add(1, Relaxed);
        }
        Arc::clone(&page.group)
    }

    /// Writes what has gathered.
    fn write(&self) {
        let journals = &*self.journals;
        let mut page = lock(&self.page);
        let unsaid = journals.unsaid.swap(0, Relaxed);
        if unsaid > 0 {
            let now = journals.clock.now().as_microsecond();
            frame(&Record::gap(unsaid, now), &mut page.bytes);
            let end = page.bytes.len();
            page.frames.push((end, false));
        }
        if page.frames.is_empty() {
            return;
        }
        match page.write(journals) {
            Ok(()) => {
                journals.works();
                drop(page);
                if journals.syncer.is_none() {
                    journals.wake_reader();
                }
            }
            Err(error) => {
                journals.failed(&error);
                // A gap is told again, with what is lost until then.
                journals.unsaid.fetch_add(unsaid, Relaxed);
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
                group.state.store(Group::HANDED_OVER, Release);
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
        self.group.unattended.store(self.frames.len(), Relaxed);
        group.resolve(on_failure == OnFailure::Allow);
    }
}

impl Group {
    pub(super) fn unattended(&self) -> usize {
        self.unattended.load(Relaxed)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
