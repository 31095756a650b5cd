//! Whoever means us harm: malformed and ambiguous messages from either side, floods, and clients
//! that only want to occupy us. Over raw sockets, against the real executable.
#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

mod answers;
mod backend;
mod case;
mod crowds;
mod dawdlers;
mod fields;
mod floods;
mod frames;
mod framing;
mod http2;
mod lines;
mod paths;
mod pipelines;
#[path = "../process_support/mod.rs"]
mod process_support;
mod rests;
mod strict;
mod target;
mod upstream_http2;
