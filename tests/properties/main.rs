//! What holds whatever comes: each file is one target, a function of bytes or of structured input
//! with properties that must hold for all of them.
//!
//! The seeds in `corpus/TARGET/` come first, each time; then mutations of them, and input that is
//! generated. A run without settings is over in half a minute; `PROPTEST_CASES=100000` makes it
//! search for hours (the usual number is 256). Whatever is found becomes a seed.
#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

mod aspnet;
mod certificates;
mod configuration;
mod corpus;
mod differential;
mod errors;
mod logins;
mod paths;
mod peers;
mod policy;
mod records;
#[path = "../gateway/support/mod.rs"]
#[expect(dead_code, reason = "every test binary uses its part of this")]
mod support;
