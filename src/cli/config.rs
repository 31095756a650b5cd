//! `config`: the effective configuration, and its schema.

use clap::Subcommand;

use super::{Failure, Global, print};
use crate::config::schema;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// The effective configuration with where each value comes from; secrets are redacted
    Show,
    /// The JSON Schema of the configuration, for editors
    Schema,
}

/// Prints what `verb` asks for.
pub(super) fn run(verb: &Verb, global: &Global) -> Result<(), Failure> {
    match verb {
        Verb::Show => print(global.load()?.show()),
        Verb::Schema => print(format!("{:#}\n", schema())),
    }
}
