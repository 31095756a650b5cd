//! Puts records into the table, each once, however often it is tried.

use std::{collections::HashSet, ops::Range};

use jiff::{ToSpan, civil::Date};
use tokio_postgres::{Statement, types::ToSql};

use super::{
    columns::{Batch, COLUMNS, names},
    error::{Error, is_refusal, words},
    link::Link,
};

/// When so many records were refused one after the other, it is not for the records.
const ENOUGH: usize = 32;

/// The statement, and the months that have a partition.
pub(super) struct Inserting {
    statement: Statement,
    months: HashSet<Date>,
}

/// A record that the table does not take, and why.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) seq: u64,
    pub(super) reason: String,
}

impl Inserting {
    /// Gets ready to insert on `link`.
    pub(super) async fn new(link: &Link) -> Result<Self, Error> {
        // What was acknowledged must not be lost, whatever this database usually does.
        let safe = "SELECT set_config('synchronous_commit', 'on', false) \
                    WHERE current_setting('synchronous_commit') IN ('off', 'local')";
        link.answer(link.client.batch_execute(safe)).await?;
        let at = 1..=COLUMNS.len();
        let arrays: Vec<_> =
            at.zip(COLUMNS).map(|(at, (_, kind))| format!("${at}::{kind}[]")).collect();
        // Without a target there is nothing that one would have to be allowed to read.
        let insert = format!(
            "INSERT INTO audit_records ({}) SELECT * FROM unnest({}) ON CONFLICT DO NOTHING",
            names(),
            arrays.join(", ")
        );
        let statement = link.answer(link.client.prepare(&insert)).await?;
        Ok(Self { statement, months: HashSet::new() })
    }

    /// Inserts all of `batch` in its order, and tells what was refused. `in_a_row` is how many were
    /// refused since one was taken.
    pub(super) async fn insert(
        &mut self,
        link: &Link,
        batch: &Batch,
        in_a_row: &mut usize,
    ) -> Result<Vec<Refused>, Error> {
        for month in batch.months() {
            self.make_partition(link, month).await?;
        }
        let whole = 0..batch.seqs().len();
        let mut parts: Vec<_> = std::iter::once(whole).collect();
        let (mut refused, mut taken) = (Vec::new(), false);
        while let Some(part) = parts.pop() {
            let Err(reason) = self.try_insert(link, batch, part.clone()).await? else {
                taken = true;
                continue;
            };
            if part.len() > 1 {
                let middle = part.start + part.len() / 2;
                parts.extend([middle..part.end, part.start..middle]);
                continue;
            }
            let seq = batch.seqs().get(part.start).copied().unwrap_or_default();
            refused.push(Refused { seq, reason });
        }
        *in_a_row = if taken { 0 } else { *in_a_row + refused.len() };
        match refused.first() {
            Some(first) if *in_a_row >= ENOUGH => Err(Error::RefusesAll(first.reason.clone())),
            _ => Ok(refused),
        }
    }

    /// Says why, if the answer is about the records.
    async fn try_insert(
        &self,
        link: &Link,
        batch: &Batch,
        rows: Range<usize>,
    ) -> Result<Result<(), String>, Error> {
        let arrays = batch.arrays(rows);
        let values: Vec<_> = arrays.iter().map(|array| array as &(dyn ToSql + Sync)).collect();
        match link.answer(link.client.execute(&self.statement, &values)).await {
            Ok(_) => Ok(Ok(())),
            Err(Error::Postgres(error)) if is_refusal(&error) => Ok(Err(words(&error))),
            Err(error) => Err(error),
        }
    }

    /// Has partitions made for that month and the next, unless that was done on this connection.
    async fn make_partition(&mut self, link: &Link, first: Date) -> Result<(), Error> {
        if !self.months.insert(first) {
            return Ok(());
        }
        for month in [Some(first), first.checked_add(1.month()).ok()].into_iter().flatten() {
            let make = format!("SELECT audit_make_partition('{month}')");
            match link.answer(link.client.batch_execute(&make)).await {
                // The default partition takes what has no other.
                Err(Error::Postgres(error)) if error.as_db_error().is_some() => {
                    tracing::debug!(reason = words(&error), "no partition of the audit table made");
                }
                result => result?,
            }
        }
        Ok(())
    }
}
