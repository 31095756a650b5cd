//! An audit log of several days, written without a gateway; and what can be done to its files.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use amove_gateway::{
    audit::{Outcome, Phase, Record, Scribe, Trail, Writer},
    clock::Clock,
    config::{self, Durability, OnFailure},
};
use jiff::Timestamp;
use rusqlite::Connection;
use tempfile::TempDir;
use uuid::Uuid;

use crate::process_support::PATIENCE;

/// A log that is open, and grows.
pub(crate) struct Log {
    folder: TempDir,
    trail: Arc<Trail>,
    scribe: Arc<Scribe>,
    writer: Option<Writer>,
    records: u64,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self::with_key(None)
    }

    /// With a private key (PEM), heads are signed.
    pub(crate) fn with_key(key: Option<&str>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config::Audit {
            store: folder.path().to_owned(),
            on_failure: OnFailure::Deny,
            durability: Durability::Batch,
            retain: Duration::from_secs(100 * 365 * 86_400),
            stdout: false,
            signing_key: key.map(Into::into),
            postgres: None,
        };
        let (trail, writer) = Trail::open(&config, &Clock::system()).expect("an audit log");
        let scribe = trail.scribe();
        Self { folder, trail, scribe, writer: Some(writer), records: 0 }
    }

    /// Writes some records of that day, and waits until they are in the store.
    pub(crate) fn write(&mut self, day: &str, count: u64) {
        for number in 1..=count {
            let request_id = format!("r-{}", self.records + 1);
            self.leave(&Record { request_id: &request_id, ..record(day, number) });
        }
        self.wait();
    }

    /// Writes down that something begins, and how it has ended.
    pub(crate) fn act(&mut self, day: &str) {
        let route = Some("/api/v1/project/insert");
        let ended = Record { method: "POST", route, effect: Some("write"), ..record(day, 1) };
        let (phase, outcome) = (Phase::Intent, None);
        self.leave(&Record { phase, outcome, status: None, attempts: 0, ..ended.clone() });
        self.leave(&ended);
        self.wait();
    }

    fn leave(&mut self, record: &Record<'_>) {
        self.records += 1;
        self.scribe.leave(record);
    }

    fn wait(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.trail.state().stored < self.records {
            assert!(Instant::now() < deadline, "the records are not stored");
            sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends the writing.
    pub(crate) fn close(&mut self) {
        self.writer.take().into_iter().for_each(Writer::finish);
    }
}

/// A record of that day, so many milliseconds after midnight.
fn record(day: &str, milliseconds: u64) -> Record<'static> {
    let midnight: Timestamp = format!("{day}T00:00:00Z").parse().expect("a day");
    let time = midnight.as_microsecond() + i64::try_from(milliseconds).expect("few") * 1000;
    Record {
        phase: Phase::Outcome,
        id: Uuid::now_v7(),
        request_id: "r",
        caller: Some("billing"),
        identity: Some("main"),
        method: "GET",
        route: Some("/api/v1/user/userinfo"),
        effect: Some("read"),
        status: Some(200),
        upstream_status: Some(200),
        outcome: Some(Outcome::Ok),
        attempts: 1,
        peer: "127.0.0.1:1",
        ..Record::gap(0, time)
    }
}

/// A copy of a log, to be tampered with.
pub(crate) struct Copied(TempDir);

impl Copied {
    pub(crate) fn of(folder: &Path) -> Self {
        let copy = tempfile::tempdir().expect("a folder");
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                let name = path.file_name().expect("a name");
                fs::copy(&path, copy.path().join(name)).expect("a copy");
            }
        }
        Self(copy)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs SQL in the file of that day.
    pub(crate) fn sql(&self, day: &str, sql: &str) {
        self.open(day).execute_batch(sql).expect(sql);
    }

    /// The file of that day.
    pub(crate) fn open(&self, day: &str) -> Connection {
        Connection::open(self.file(&format!("{day}.sqlite"))).expect("a file")
    }
}
