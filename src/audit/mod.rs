//! What has happened: one record for each request, kept so that nothing is lost, forged or leaked.
//!
//! ```text
//! worker ──▶ journal ──▶ chain ──▶ store ──▶ central store
//!            (safe)      (sealed)  (found)     (all gateways)
//! ```
//!
//! - `record`, `value`: what a record holds, and how it is written.
//! - `journal`: each worker appends to a file of its own. When that is done the request goes on.
//! - `chain`, `signing`: every record is sealed with the hash of the one before it.
//! - `store`, `ledger`, `writer`: one thread moves records from the journals into SQLite.
//! - `query`, `verify` (with `hasher`), `export`: what can be done with them.
//! - `central`: ships what is stored to PostgreSQL, at its own pace.

mod batch;
pub mod central;
mod chain;
mod compact;
mod export;
mod hasher;
mod journal;
mod ledger;
mod lines;
mod query;
mod record;
mod signing;
mod store;
#[cfg(test)]
mod tests;
mod trail;
mod value;
mod verify;
mod writer;

pub use self::{
    chain::{Head, HeadError},
    export::{Export, Format},
    journal::{Receipt, Scribe, Unwritten},
    query::{Filter, FilterError, Status},
    record::{Outcome, Phase, Record, Replay, Sealed},
    signing::PublicKey,
    store::{Days, Finding, OpenError, ReadError, Wanted},
    trail::{Archive, Rival, State, Trail, is_signing_key},
    value::{Hash, Value},
    verify::{Verified, verify},
    writer::Writer,
};
