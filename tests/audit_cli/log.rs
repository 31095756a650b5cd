//! An audit log of several days, written without a gateway; and what can be done to its files.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use amove_gateway::{
    audit::{Outcome, Phase, Record, Trail, Writer},
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
        Self { folder, trail, writer: Some(writer), records: 0 }
    }

    /// Writes some records of that day, and waits until they are in the store.
    pub(crate) fn write(&mut self, day: &str, count: u64) {
        let midnight: Timestamp = format!("{day}T00:00:00Z").parse().expect("a day");
        let scribe = self.trail.scribe();
        for number in 1..=count {
            self.records += 1;
            let time = midnight.as_microsecond() + i64::try_from(number).expect("few") * 1000;
            scribe.leave(&Record {
                phase: Phase::Outcome,
                id: Uuid::now_v7(),
                request_id: &format!("r-{}", self.records),
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
                lost: 0,
                ..Record::gap(0, time)
            });
        }
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
        let file = Connection::open(self.file(&format!("{day}.sqlite"))).expect("a file");
        file.execute_batch(sql).expect(sql);
    }
}
