//! All journals of a process: which files there are, who writes and reads them, and how they fare.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread::Thread,
};

use uuid::Uuid;

use super::{scribe::Scribe, segment::Segment, sync::Syncer};
use crate::{audit::store, clock::Clock, config::OnFailure, supervise::Deaths};

/// So many files may wait for a store that takes nothing: 1 GiB.
const BEHIND: usize = 1024;

/// All journals of this process.
#[derive(Debug)]
pub(in crate::audit) struct Journals {
    folder: PathBuf,
    /// Begins the names of our files: behind those of all processes before.
    run: String,
    next: AtomicU64,
    pub(super) on_failure: OnFailure,
    pub(super) syncer: Option<Syncer>,
    pub(super) clock: Clock,
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
    /// How often the threads behind the journals have died.
    pub(in crate::audit) deaths: Deaths,
}

impl Journals {
    /// Journals in `folder`, where the last one that there is has the name `last`.
    pub(in crate::audit) fn new(
        folder: &Path,
        last: Option<&str>,
        on_failure: OnFailure,
        syncer: Option<Syncer>,
        clock: &Clock,
    ) -> Arc<Self> {
        let now = clock.now().as_millisecond();
        // Behind what is there, even if the clock has been put back.
        let last = last.and_then(|name| name.split('-').next());
        let last = last.and_then(|run| i64::from_str_radix(run, 16).ok()).unwrap_or(0);
        // Two processes may begin at the same moment.
        let [.., a, b, c, d] = *Uuid::now_v7().as_bytes();
        let own = u32::from_be_bytes([a, b, c, d]);
        let run = format!("{:016x}-{own:08x}", now.max(last + 1));
        Arc::new(Self {
            folder: folder.to_owned(),
            run,
            next: AtomicU64::new(1),
            on_failure,
            syncer,
            clock: clock.clone(),
            segments: Mutex::default(),
            scribes: Mutex::default(),
            failure: Mutex::default(),
            failing: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            unsaid: AtomicU64::new(0),
            reader: OnceLock::new(),
            reader_sleeps: AtomicBool::new(false),
            news: AtomicBool::new(true),
            deaths: Deaths::of("audit"),
        })
    }

    /// Starts what has to run besides.
    pub(in crate::audit) fn start(self: &Arc<Self>, on_failure: OnFailure) -> io::Result<()> {
        let start = |syncer: &Syncer| syncer.start(Arc::downgrade(self), on_failure);
        self.syncer.as_ref().map_or(Ok(()), start)
    }

    /// A scribe for one more worker.
    pub(in crate::audit) fn scribe(self: &Arc<Self>) -> Arc<Scribe> {
        let scribe = Arc::new(Scribe::new(self));
        lock(&self.scribes).push(Arc::clone(&scribe));
        scribe
    }

    /// The files that may have something to read.
    pub(in crate::audit) fn segments(&self) -> Vec<Arc<Segment>> {
        lock(&self.segments).clone()
    }

    /// Takes in files that other processes have left behind: they are read first.
    pub(in crate::audit) fn adopt(&self, left_behind: Vec<Arc<Segment>>) {
        let mut segments = lock(&self.segments);
        let is_new = |left: &Arc<Segment>| segments.iter().all(|known| known.name != left.name);
        let adopted: Vec<_> = left_behind.into_iter().filter(is_new).collect();
        segments.splice(0..0, adopted);
    }

    /// Lets go of everything, as the end of the process does.
    #[cfg(test)]
    pub(in crate::audit) fn abandon(&self) {
        lock(&self.scribes).clear();
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
        scribes.iter().for_each(|scribe| scribe.close());
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
        self.reader_sleeps.store(true, SeqCst);
    }

    /// Whether there may be something that was not read.
    pub(in crate::audit) fn has_news(&self) -> bool {
        self.news.load(SeqCst)
    }

    /// The reader is about to read everything.
    pub(in crate::audit) fn take_news(&self) {
        self.news.store(false, SeqCst);
    }

    pub(super) fn wake_reader(&self) {
        // First the news, then the look whether it sleeps; the reader does it the other way round.
        self.news.store(true, SeqCst);
        if self.reader_sleeps.load(SeqCst) && self.reader_sleeps.swap(false, SeqCst) {
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

    /// Whether nothing could be written when it was last tried.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Relaxed)
    }

    /// How many were lost since it was last said; who is told has to say it.
    pub(super) fn take_unsaid(&self) -> u64 {
        self.unsaid.swap(0, Relaxed)
    }

    /// That so many were lost could not be said.
    pub(super) fn leave_unsaid(&self, records: u64) {
        self.unsaid.fetch_add(records, Relaxed);
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

    pub(super) fn works(&self) {
        if self.failing.load(Relaxed) && lock(&self.failure).take().is_some() {
            self.failing.store(false, Relaxed);
            let lost = self.lost.load(Relaxed);
            tracing::info!(lost, "the audit log can be written again");
        }
    }

    pub(super) fn begin(&self) -> io::Result<Arc<Segment>> {
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

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
