//! Does the assembled gateway behave? Real sockets, an emulated Amove behind, one process.
#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

mod admin;
mod audit_search;
mod breaker;
mod callers;
mod errors;
mod hygiene;
mod jwt;
mod malformed;
mod minting;
mod pauses;
mod policy;
mod replay;
mod retry;
mod routes;
mod session;
mod support;
mod timeouts;
