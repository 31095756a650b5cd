//! The hub over a WebSocket: asked for, joined, and ended, as the caller and the API see it.
#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

mod asking;
mod ends;
mod flow;
mod hub;
#[path = "../process_support/mod.rs"]
mod process_support;
mod support;
