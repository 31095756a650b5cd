//! The central store: the records of all gateways in one table of PostgreSQL.
//!
//! ```text
//! store ── outbox: a batch ──▶ insert: each record once ──▶ audit_records ──▶ read, verify
//!   ▲                                   │
//!   └── not deleted before ── cursor ◀──┘ it has arrived
//! ```
//!
//! The embedded store is the outbox: requests never wait for PostgreSQL, which may be gone for as
//! long as the disk has room. Batches go out in the order of the chain, on one connection. What may
//! have arrived is sent again, and is not repeated: its key is already there.
//!
//! A role that may only insert is enough. So the cursor is a file beside the records, no statement
//! reads the table, and partitions are made by a function that runs as its owner.

mod columns;
mod condition;
mod cursor;
mod error;
mod insert;
mod link;
mod outbox;
mod pause;
mod read;
mod row;
mod schema;
mod ship;
mod state;
mod tls;
mod verify;

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

pub(super) use self::ship::Begin;
use self::{cursor::Cursor, state::Progress};
pub use self::{
    error::Error,
    read::{Central, Place},
    ship::Shipper,
    state::State,
    verify::VerifyError,
};
use super::store::Folder;
use crate::{config, supervise::Deaths};

/// Where records go from here, and how far they have got.
#[derive(Debug)]
pub(super) struct Outlet {
    postgres: config::AuditPostgres,
    folder: Folder,
    progress: Progress,
    deaths: Deaths,
}

impl Outlet {
    pub(super) fn new(postgres: &config::AuditPostgres, folder: &Folder) -> Self {
        let cursor = Cursor::read(folder);
        // What has arrived elsewhere has not arrived.
        let place = postgres.url.read().ok().and_then(|url| link::postgres(&url).ok());
        let is_there = place.is_some_and(|postgres| link::place(&postgres) == cursor.place);
        let progress = Progress::new(if is_there { cursor.seq } else { 0 });
        let deaths = Deaths::of("audit-shipping");
        Self { postgres: postgres.clone(), folder: folder.clone(), progress, deaths }
    }

    /// Starts to ship; `news` tells how far the embedded store has got.
    pub(super) fn ship(self: &Arc<Self>, news: watch::Receiver<u64>, begin: Begin) -> Shipper {
        Shipper::start(Arc::clone(self), news, begin)
    }

    /// How often the task that ships has died.
    pub(super) const fn deaths(&self) -> &Deaths {
        &self.deaths
    }

    /// The number of the last record that has arrived: what comes after it must not be deleted.
    pub(super) fn arrived(&self) -> watch::Receiver<u64> {
        self.progress.cursor.subscribe()
    }

    /// How it fares; the embedded store has got to the record `last`.
    pub(super) fn state(&self, last: u64, now: Timestamp) -> State {
        self.progress.state(last, now)
    }
}

/// The number of the last record of the audit log in `folder` that has arrived at a central store,
/// if it was ever shipped to one.
pub(super) fn arrived(folder: &Folder) -> Option<u64> {
    let cursor = Cursor::read(folder);
    (!cursor.place.is_empty()).then_some(cursor.seq)
}
