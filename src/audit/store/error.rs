//! Why an audit log cannot be read.

use std::path::PathBuf;

/// The first thing that is wrong with it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("record {seq}: {what}")]
pub struct Finding {
    /// The number of the record, or of the one that should be there.
    pub seq: u64,
    /// What is wrong with it.
    pub what: String,
}

/// Why an audit log, or a part of it, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not as it was written.
    #[error(transparent)]
    Broken(#[from] Finding),
    /// It is written in another way.
    #[error(
        "{} has version {found} of the format, and this program reads {expected}: read it with the \
         program that wrote it, or move it elsewhere", .file.display()
    )]
    Version {
        /// Which day.
        file: PathBuf,
        /// What it says.
        found: i64,
        /// The one that is known.
        expected: i64,
    },
    /// It is no database, or a broken one.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The system does not let us.
    #[error(transparent)]
    System(#[from] std::io::Error),
}
