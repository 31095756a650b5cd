//! The audit log of a gateway: opened once, written by its workers, read by operators.

use std::{
    fmt,
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use jiff::{Timestamp, civil::Date};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{
    central::{self, Begin, Outlet, Shipper},
    journal::{Journals, Scribe, Syncer},
    ledger::{Error, Ledger},
    lines::Lines,
    signing::Signer,
    store::{Days, Folder, OpenError, ReadError},
    writer::{Progress, Work, Writer},
};
use crate::{
    clock::Clock,
    config::{self, Durability, OnFailure},
    supervise::Deaths,
};

/// Whoever looks at the log of a gateway that has crashed needs no longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What to do about another gateway that has the store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rival {
    /// There must be none.
    Refused,
    /// It is our predecessor, and will leave the store to us. Until then records are safe in the
    /// journal, and have no place in the chain yet.
    Awaited {
        /// It has left within this time, or something is wrong.
        within: Duration,
    },
}

/// Where records go.
#[derive(Debug)]
pub struct Trail {
    folder: Folder,
    journals: Arc<Journals>,
    progress: Arc<Progress>,
    news: watch::Receiver<u64>,
    central: Option<Arc<Outlet>>,
    clock: Clock,
}

/// How the audit log fares.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct State {
    /// Why nothing can be written, if nothing can.
    pub failure: Option<String>,
    /// Whether requests are refused for that reason.
    pub refuses: bool,
    /// Records are safe, but cannot be put into the store.
    pub stuck: bool,
    /// Records are safe, and wait until the predecessor leaves the store.
    #[serde(default)]
    pub waits: bool,
    /// The number of the last record.
    pub seq: u64,
    /// Records that were put into the store since the start.
    pub stored: u64,
    /// When the last of them was written.
    pub last: Option<Timestamp>,
    /// Records that were lost since the start.
    pub lost: u64,
    /// Lines that standard output did not take.
    pub lines_lost: u64,
    /// Bytes of unfinished records that were found after a crash.
    pub torn: u64,
    /// How the central store fares, if there is one.
    pub central: Option<central::State>,
}

impl Trail {
    /// Opens the audit log that `config` describes, and starts to write it.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if another gateway has it, or if it cannot be opened and `audit.on_failure`
    /// forbids to go on without.
    pub fn open(config: &config::Audit, clock: &Clock) -> Result<(Arc<Self>, Writer), OpenError> {
        Self::open_beside(config, clock, Rival::Refused)
    }

    /// The same, beside a `rival` that may have the store.
    ///
    /// # Errors
    ///
    /// See [`Trail::open`].
    pub fn open_beside(
        config: &config::Audit,
        clock: &Clock,
        rival: Rival,
    ) -> Result<(Arc<Self>, Writer), OpenError> {
        let awaited = match rival {
            Rival::Refused => None,
            Rival::Awaited { within } => Some(within),
        };
        let is_awaited = awaited.is_some();
        let folder = Folder::new(&config.store);
        let system = |source| OpenError::System { folder: folder.path().to_owned(), source };
        let patience = if is_awaited { Duration::ZERO } else { PATIENCE };
        let ledger = match Ledger::open(&folder, clock, patience) {
            Ok(ledger) => Some(ledger),
            Err(OpenError::Taken(_)) if is_awaited => None,
            Err(error @ OpenError::Taken(_)) => return Err(error),
            Err(error) if config.on_failure == OnFailure::Deny => return Err(error),
            Err(error) => {
                let reason = error.to_string();
                tracing::error!(reason, "no audit log for now: it is tried again");
                None
            }
        };
        let syncer = (config.durability == Durability::Sync).then(Syncer::new);
        let last = match folder.last_journal() {
            Err(_) if ledger.is_none() => None,
            last => last.map_err(system)?,
        };
        let (path, on_failure) = (folder.journal(), config.on_failure);
        let journals = Journals::new(&path, last.as_deref(), on_failure, syncer, clock);
        if ledger.is_some() {
            // Whoever opens the store later takes them in then.
            journals.adopt(folder.journals().map_err(system)?);
        }
        journals.start(config.on_failure).map_err(system)?;
        let progress = Arc::new(Progress::default());
        let seq = ledger.as_ref().map_or(0, |ledger| ledger.head().seq);
        progress.seq.store(seq, Relaxed);
        progress.waits.store(is_awaited && ledger.is_none(), Relaxed);
        let lines = config.stdout.then(|| Lines::start(&progress.lines_lost, &journals.deaths));
        let (told, news) = watch::channel(seq);
        let central = config.postgres.as_ref();
        let central = central.map(|postgres| Arc::new(Outlet::new(postgres, &folder)));
        let work = Work {
            folder: folder.clone(),
            journals: Arc::clone(&journals),
            clock: clock.clone(),
            retain: config.retain,
            signer: config.signing_key.as_ref().and_then(signer),
            lines: lines.transpose().map_err(system)?,
            progress: Arc::clone(&progress),
            news: told,
            hurry: false,
            shipped: central.as_deref().map(Outlet::arrived),
            patience: awaited.map(|within| Instant::now() + within),
        };
        let writer = Writer::start(work, ledger).map_err(system)?;
        let clock = clock.clone();
        Ok((Arc::new(Self { folder, journals, progress, news, central, clock }), writer))
    }

    /// A scribe for one worker.
    pub fn scribe(&self) -> Arc<Scribe> {
        self.journals.scribe()
    }

    /// How it fares.
    pub fn state(&self) -> State {
        let progress = &self.progress;
        let last = Timestamp::from_microsecond(progress.last.load(Relaxed));
        let stored = progress.stored.load(Relaxed);
        let seq = progress.seq.load(Relaxed);
        let central = self.central.as_ref();
        State {
            failure: self.journals.failure().map(|reason| reason.to_string()),
            refuses: self.journals.refuses(),
            stuck: progress.stuck.load(Relaxed),
            waits: progress.waits.load(Relaxed),
            seq,
            stored,
            last: last.ok().filter(|_| stored > 0),
            lost: self.journals.lost(),
            lines_lost: progress.lines_lost.load(Relaxed),
            torn: progress.torn.load(Relaxed),
            central: central.map(|outlet| outlet.state(seq, self.clock.now())),
        }
    }

    /// How often its threads and its task have died.
    pub fn deaths(&self) -> impl Iterator<Item = Deaths> {
        let shipping = self.central.as_ref().map(|outlet| outlet.deaths().clone());
        [self.journals.deaths.clone()].into_iter().chain(shipping)
    }

    /// Ships what is in the store to the central one, if there is one, on the present runtime.
    pub fn ship(&self) -> Option<Shipper> {
        let waits = self.progress.waits.load(Relaxed);
        let begin = if waits { Begin::WithNews } else { Begin::Now };
        self.central.as_ref().map(|outlet| outlet.ship(self.news(), begin))
    }

    /// What is in the store at the moment. Reads files: not for a thread that serves callers.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn days(&self) -> Result<Days, ReadError> {
        Days::open(&self.folder)
    }

    /// Tells the number of the last record whenever there are new ones in the store.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.clone()
    }
}

/// Whether heads can be signed with it: Ed25519, PKCS #8 in PEM.
pub fn is_signing_key(pem: &SecretString) -> bool {
    signer(pem).is_some()
}

/// `None` if it is not a key, which was checked where it was read.
fn signer(pem: &SecretString) -> Option<Signer> {
    let key = PrivatePkcs8KeyDer::from_pem_slice(pem.expose_secret().as_bytes()).ok()?;
    Signer::new(key.secret_pkcs8_der())
}

/// An audit log that is looked at from outside, whether or not a gateway writes it.
pub struct Archive {
    folder: Folder,
    clock: Clock,
    /// What a person should know of it.
    remark: Option<String>,
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Archive").field(&self.folder.path()).finish()
    }
}

impl Archive {
    /// The audit log in `folder`, which has to be there. What a gateway that has crashed left in
    /// its journals is put into the store first, so that it is seen.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if there is none.
    pub fn open(folder: &Path, clock: &Clock) -> Result<Self, OpenError> {
        let folder = Folder::new(folder);
        let mut archive = Self { folder, clock: clock.clone(), remark: None };
        let left = archive.folder.days().and_then(|_| archive.folder.journals());
        let system =
            |source| OpenError::System { folder: archive.folder.path().to_owned(), source };
        if !left.map_err(system)?.is_empty() {
            match archive.work() {
                // Whoever writes it takes care of that.
                Ok(_) | Err(Error::Open(OpenError::Taken(_))) => {}
                Err(error) => {
                    let what = "the last records of a gateway that crashed are not among these";
                    archive.remark = Some(format!("{what}: {error}"));
                }
            }
        }
        Ok(archive)
    }

    /// What whoever reads it should know.
    pub fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }

    /// What is in it.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn days(&self) -> Result<Days, ReadError> {
        Days::open(&self.folder)
    }

    /// The days in it that can have records after number `seq`.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn days_after(&self, seq: u64) -> Result<Days, ReadError> {
        Days::after(&self.folder, seq)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The days before `date` that [`Self::prune`] would delete, with the number of their records.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn before(&self, date: Date) -> Result<Vec<(Date, u64)>, ReadError> {
        let days = self.days()?;
        let (_, old) = days.all().split_last().unzip();
        let old = old.unwrap_or_default().iter().filter(|day| day.date < date);
        Ok(old.map(|day| (day.date, day.count())).collect())
    }

    /// Deletes the days before `date`, except the last that there is, and what has not arrived at the
    /// central store; says how many. With a private key (PEM), it is signed how far they went.
    ///
    /// # Errors
    ///
    /// [`OpenError::Taken`] if a gateway writes it, which then does that itself.
    pub fn prune(&self, date: Date, key: Option<&SecretString>) -> Result<usize, OpenError> {
        let folder = || self.folder.path().to_owned();
        let unreadable = |error: &dyn fmt::Display| OpenError::Unreadable {
            folder: folder(),
            reason: error.to_string(),
        };
        let pruned = self.work().and_then(|(mut work, mut ledger)| {
            work.signer = key.and_then(signer);
            ledger.prune(&work, date)
        });
        pruned.map_err(|error| match error {
            Error::Open(error) => error,
            Error::System(source) => OpenError::System { folder: folder(), source },
            Error::Sqlite(error) => unreadable(&error),
            Error::Read(error) => unreadable(&error),
        })
    }

    /// Takes the place of the gateway, and does what it has left undone.
    fn work(&self) -> Result<(Work, Ledger), Error> {
        let ledger = Ledger::open(&self.folder, &self.clock, Duration::ZERO)?;
        let journals =
            Journals::new(&self.folder.journal(), None, OnFailure::Allow, None, &self.clock);
        journals.adopt(self.folder.journals()?);
        let mut work = Work {
            folder: self.folder.clone(),
            journals,
            clock: self.clock.clone(),
            retain: Duration::MAX,
            signer: None,
            lines: None,
            progress: Arc::default(),
            news: watch::Sender::new(0),
            hurry: true,
            shipped: central::arrived(&self.folder).map(|seq| watch::Sender::new(seq).subscribe()),
            patience: None,
        };
        let mut ledger = Some(ledger);
        work.drain(&mut ledger, false)?;
        // It was there before.
        let ledger = ledger.ok_or_else(|| std::io::Error::other("the audit log has gone"))?;
        Ok((work, ledger))
    }
}
