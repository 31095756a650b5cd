//! Bodies flow, both ways, as they come: nothing is kept, and whoever leaves is noticed.
#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

mod aborts;
mod asking;
mod flow;
#[path = "../process_support/mod.rs"]
mod process_support;
mod trailers;
mod whole;
