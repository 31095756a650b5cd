//! The one thread that moves records from the journals into the store, in batches.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicI64, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    thread::{JoinHandle, park_timeout},
    time::{Duration, Instant},
};

use jiff::SignedDuration;
use tokio::sync::watch;

use super::{
    journal::Journals,
    ledger::{Error, Ledger, date_of},
    lines::Lines,
    signing::Signer,
    store::{Folder, OpenError},
};
use crate::{clock::Clock, supervise::supervise_here};

/// How long records gather before they go into the store. They are safe in the journal meanwhile.
const GATHER: Duration = Duration::from_millis(100);
/// How often it is looked whether there is something to do that nobody has asked for.
const REST: Duration = Duration::from_secs(1);
/// How often old days are looked for.
const MINUTE: Duration = Duration::from_secs(60);

/// How the store fares, for operators.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The number of the last record in the store.
    pub(super) seq: AtomicU64,
    /// Records that this process has stored.
    pub(super) stored: AtomicU64,
    /// When it last stored one, in microseconds since 1970.
    pub(super) last: AtomicI64,
    /// Bytes of unfinished records that were found after a crash.
    pub(super) torn: AtomicU64,
    /// Whether the store cannot take records, which wait in the journal.
    pub(super) stuck: AtomicBool,
    /// Whether the store is still the predecessor's, which is about to end.
    pub(super) waits: AtomicBool,
    /// Lines that standard output did not take.
    pub(super) lines_lost: Arc<AtomicU64>,
}

/// What the thread works with.
pub(super) struct Work {
    pub(super) folder: Folder,
    pub(super) journals: Arc<Journals>,
    pub(super) clock: Clock,
    pub(super) retain: Duration,
    pub(super) signer: Option<Signer>,
    pub(super) lines: Option<Lines>,
    pub(super) progress: Arc<Progress>,
    /// The number of the last record, for those who follow.
    pub(super) news: watch::Sender<u64>,
    /// Nobody else needs the processor, or there is no time.
    pub(super) hurry: bool,
    /// No day is deleted that has records after this one.
    pub(super) shipped: Option<watch::Receiver<u64>>,
    /// Until when the predecessor may have the store, if there is one.
    pub(super) patience: Option<Instant>,
}

/// The thread, as long as it runs.
#[derive(Debug)]
pub struct Writer {
    journals: Arc<Journals>,
    ended: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Writer {
    pub(super) fn start(mut work: Work, mut ledger: Option<Ledger>) -> io::Result<Self> {
        let journals = Arc::clone(&work.journals);
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        let thread = std::thread::Builder::new().name("audit".into());
        let thread = thread.spawn(move || {
            let deaths = work.journals.deaths.clone();
            supervise_here::<Error>(&deaths, || {
                run(&mut work, &mut ledger, &end);
                Ok(())
            });
        })?;
        journals.set_reader(thread.thread().clone());
        Ok(Self { journals, ended, thread })
    }

    /// Waits until everything that was written down so far is in the store. What comes later stays
    /// in the journal until the next start.
    pub fn finish(self) {
        self.journals.close();
        self.ended.store(true, Release);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            tracing::error!("the writer of the audit log has crashed; the journal has its records");
        }
    }
}

fn run(work: &mut Work, ledger: &mut Option<Ledger>, ended: &AtomicBool) {
    let (mut complained, mut house) = (false, Instant::now());
    loop {
        let ending = ended.load(Acquire);
        work.hurry |= ending;
        work.journals.write_all();
        match work.attempt(ledger, ending) {
            Ok(()) if complained => {
                complained = false;
                tracing::info!("the audit store takes records again");
            }
            Ok(()) => {}
            Err(error) if work.is_patient(&error) => {}
            Err(error) if !complained => {
                complained = true;
                let reason = error.to_string();
                tracing::error!(reason, "the audit store takes no records: the journal keeps them");
            }
            Err(_) => {}
        }
        work.progress.stuck.store(complained, Relaxed);
        if ending {
            break;
        }
        if house.elapsed() >= MINUTE {
            house = Instant::now();
            work.prune(ledger.as_mut());
            work.adopt(ledger.as_ref());
        }
        work.rest(complained, ended);
    }
    work.lines.take().into_iter().for_each(Lines::finish);
}

impl Work {
    /// How long to rest after each of so many slices of a batch. Who is behind does not rest.
    pub(super) fn rest_between(&self, slices: usize) -> Duration {
        let slices = u32::try_from(slices).unwrap_or(u32::MAX);
        if self.hurry || slices > 100 { Duration::ZERO } else { (GATHER / 2) / slices.max(10) }
    }

    /// Waits until it is worth while to look again.
    fn rest(&self, stuck: bool, ended: &AtomicBool) {
        let waits = self.progress.waits.load(Relaxed);
        let pending =
            || stuck || waits || self.journals.failure().is_some() || self.journals.has_news();
        if !pending() {
            self.journals.reader_sleeps();
            // What has come in between has woken nobody.
            if !pending() && !ended.load(Acquire) {
                park_timeout(REST);
            }
        }
        let until = Instant::now() + GATHER;
        while !ended.load(Acquire) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            park_timeout(left);
        }
    }

    /// As [`Self::drain`]; a panic is a failure like any other, after which the store is opened anew.
    fn attempt(&mut self, ledger: &mut Option<Ledger>, ending: bool) -> Result<(), Error> {
        let drain = AssertUnwindSafe(|| self.drain(ledger, ending));
        catch_unwind(drain).unwrap_or_else(|_| {
            self.journals.deaths.note();
            *ledger = None;
            Err(io::Error::other("the writer of the audit log has crashed").into())
        })
    }

    /// Moves everything that is in the journals into the store.
    pub(super) fn drain(&mut self, ledger: &mut Option<Ledger>, ending: bool) -> Result<(), Error> {
        let ledger = match ledger {
            Some(ledger) => ledger,
            None => ledger.insert(self.open()?),
        };
        self.journals.take_news();
        while ledger.take_in(self)? {}
        ledger.sign_if_due(self, ending)
    }

    /// Opens the store when it did not come with the start.
    fn open(&self) -> Result<Ledger, Error> {
        let ledger = Ledger::open(&self.folder, &self.clock, Duration::ZERO)?;
        self.journals.adopt(self.folder.journals()?);
        let seq = ledger.head().seq;
        self.progress.seq.store(seq, Relaxed);
        if self.progress.waits.swap(false, Relaxed) {
            tracing::info!(seq, "the audit store is ours: the predecessor has left it");
        }
        self.news.send_replace(seq);
        Ok(ledger)
    }

    /// Whether it is only that the predecessor is not through yet.
    fn is_patient(&self, error: &Error) -> bool {
        let is_taken = matches!(error, Error::Open(OpenError::Taken(_)));
        let waits = is_taken && self.patience.is_some_and(|until| Instant::now() < until);
        self.progress.waits.store(waits, Relaxed);
        waits
    }

    /// Takes in what processes have left behind that ended since the start: after us, or beside us.
    pub(super) fn adopt(&self, ledger: Option<&Ledger>) {
        if ledger.is_none() {
            return;
        }
        match self.folder.journals() {
            Ok(left_behind) => self.journals.adopt(left_behind),
            Err(error) => {
                tracing::warn!(reason = error.to_string(), "journals left behind were not found");
            }
        }
    }

    fn prune(&self, ledger: Option<&mut Ledger>) {
        let (Some(ledger), Ok(retain)) = (ledger, SignedDuration::try_from(self.retain)) else {
            return;
        };
        let Ok(oldest) = self.clock.now().checked_sub(retain) else { return };
        match ledger.prune(self, date_of(oldest)) {
            Ok(0) => {}
            Ok(days) => tracing::info!(days, "old audit days deleted"),
            Err(error) => {
                tracing::warn!(reason = error.to_string(), "old audit days were not deleted");
            }
        }
    }
}
