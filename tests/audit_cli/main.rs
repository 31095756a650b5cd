//! The verbs of the audit log: over the log of a real gateway, and over logs that were tampered
//! with.
#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

mod blocks;
mod export;
mod follow;
mod log;
#[path = "../process_support/mod.rs"]
mod process_support;
mod prune;
mod search;
mod traffic;
mod verify;
