//! `audit`: what has happened, for those who ask.

use clap::Subcommand;

use super::{Exit, Failure, Global, operator::printable, print};
use crate::audit::{Finding, ReadError};

mod export;
mod filters;
mod page;
mod place;
mod progress;
mod prune;
mod query;
mod source;
mod table;
mod tail;
mod verify;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Records that fit, the newest first
    Query(query::Arguments),
    /// The last records, and then those that come
    Tail(tail::Arguments),
    /// Records that fit as a file for other programs, the oldest first
    Export(export::Arguments),
    /// Whether every record is there, in its place and unchanged; exits with 65 if not
    Verify(verify::Arguments),
    /// Delete days that are older than they have to be kept
    Prune(prune::Arguments),
}

/// Does what `verb` says.
pub(super) fn run(verb: &Verb, global: &Global) -> Result<(), Failure> {
    match verb {
        Verb::Query(arguments) => query::run(arguments, global),
        Verb::Tail(arguments) => tail::run(arguments, global),
        Verb::Export(arguments) => export::run(arguments, global),
        Verb::Verify(arguments) => verify::run(arguments, global),
        Verb::Prune(arguments) => prune::run(arguments, global),
    }
}

/// The store cannot be read, or is broken.
fn unread(error: &ReadError) -> Failure {
    match error {
        ReadError::Broken(finding) => broken(finding),
        error => Failure::caused(Exit::Io, "the audit log cannot be read", error),
    }
}

fn broken(Finding { seq, what }: &Finding) -> Failure {
    let what = printable(what);
    Failure::new(Exit::Broken, format!("the audit log is broken at record {seq}: {what}"))
}

/// Says something that is no part of the output.
fn remark(text: impl std::fmt::Display) {
    // Whoever does not listen has still got the output.
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{text}\n"));
}
