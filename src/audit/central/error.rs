//! Why the central store cannot be used, in words that hold no secret.

use std::{error::Error as _, fmt::Write};

use tokio_postgres::error::SqlState;

use crate::{audit::store::ReadError, config::secret, message::BoxError};

/// Why the central store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL cannot be read.
    #[error(transparent)]
    Secret(#[from] secret::Error),
    /// What is read there is none.
    #[error("the URL of the central store is wrong: {0}")]
    Url(&'static str),
    /// The trust roots cannot be read, or are none.
    #[error("{0}")]
    Roots(BoxError),
    /// PostgreSQL says no, or cannot be reached.
    #[error("{}", words(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// It takes longer than anybody should wait.
    #[error("PostgreSQL does not answer")]
    Silent,
    /// The connection has ended.
    #[error("PostgreSQL has ended the connection")]
    Ended,
    /// There is no table, and we may not create it.
    #[error(
        "PostgreSQL has no table audit_records, and this role may not create it: let a role that \
         may run src/audit/central/migrations/1.sql, or start one gateway with such a role"
    )]
    NoTable,
    /// So many records were refused, and none was taken, that it is not for the records.
    #[error("PostgreSQL refuses all records: {0}")]
    RefusesAll(String),
    /// A record in the table is none.
    #[error("record {seq} of {gateway} in the central store cannot be read: {reason}")]
    Row {
        /// Who wrote it.
        gateway: String,
        /// Its number.
        seq: i64,
        /// What is wrong with it.
        reason: String,
    },
    /// The embedded store cannot be read.
    #[error("the audit store cannot be read: {0}")]
    Store(#[from] ReadError),
    /// The system has no threads or files for us.
    #[error("the system refuses what shipping needs: {0}")]
    System(#[from] std::io::Error),
}

/// What happened, without details: those hold values of the row that they are about.
pub(super) fn words(error: &tokio_postgres::Error) -> String {
    if let Some(answer) = error.as_db_error() {
        return match answer.code() {
            &SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
                "PostgreSQL refuses the user name or the password".to_owned()
            }
            code => format!("PostgreSQL answers {}: {}", code.code(), answer.message()),
        };
    }
    let mut text = format!("PostgreSQL cannot be used: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

/// Whether the answer is about the record that was to be inserted, and will always be the same.
pub(super) fn is_refusal(error: &tokio_postgres::Error) -> bool {
    // A data exception, a constraint, a limit of the program, a view's check, a trigger.
    const CLASSES: [&str; 5] = ["22", "23", "44", "54", "P0"];
    let code = error.code().map(SqlState::code);
    code.is_some_and(|code| CLASSES.iter().any(|class| code.starts_with(class)))
}

/// Whether the role may not do that.
pub(super) fn is_forbidden(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
}
