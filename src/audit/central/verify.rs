//! Finds out whether the chains in the central store are as they were written.
//!
//! For each gateway, from the first of its records that is there to the last: none was changed,
//! removed, added or put elsewhere. Older ones may be gone, as old partitions are dropped; how far
//! the chain should go is known only where the gateway is, or from a head that was noted elsewhere:
//! whoever can rewrite the whole table can also compute new hashes.

use std::pin::pin;

use futures_util::TryStreamExt;
use tokio_postgres::types::ToSql;

use super::{
    columns::names,
    error::Error,
    read::{Central, read},
};
use crate::audit::{
    chain::{Chain, Head},
    store::Finding,
    verify::Verified,
};

/// Why there is no verdict, or which.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It is not as it was written.
    #[error("{gateway}: {finding}")]
    Broken {
        /// Whose chain.
        gateway: String,
        /// The first record that is wrong.
        finding: Finding,
    },
    /// It cannot be read.
    #[error(transparent)]
    Central(#[from] Error),
}

impl From<tokio_postgres::Error> for VerifyError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Central(error.into())
    }
}

impl Central {
    /// Goes through the chain of every gateway; what has come in meanwhile is not looked at.
    /// `expected` are heads that were noted elsewhere, with the gateway each is of. `progress` is
    /// told how many records have been gone through.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Broken`] with the first record that is wrong.
    pub fn verify(
        &self,
        expected: &[(String, Head)],
        mut progress: impl FnMut(u64),
    ) -> Result<Vec<Verified>, VerifyError> {
        let mut gateways = self.gateways()?;
        gateways.extend(expected.iter().map(|(gateway, _)| gateway.clone()));
        gateways.sort();
        gateways.dedup();
        let mut before = 0;
        let verified = gateways.into_iter().map(|gateway| {
            let heads = expected.iter().filter(|(whose, _)| *whose == gateway);
            let mut walk = Walk {
                verified: Verified { gateway: gateway.clone(), ..Verified::default() },
                chain: Chain::after(Head::default()),
                expected: heads.map(|(_, head)| *head).collect(),
            };
            let walked = self.runtime.block_on(self.walk(&mut walk, before, &mut progress))?;
            walked.map_err(|finding| VerifyError::Broken { gateway, finding })?;
            before += walk.verified.records;
            Ok(walk.verified)
        });
        verified.collect()
    }

    async fn walk(
        &self,
        walk: &mut Walk,
        before: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Result<(), Finding>, Error> {
        // In the order of the index: sorting would take the room of a whole chain.
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL enable_sort = off; \
                     SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off";
        self.link.answer(self.link.client.batch_execute(begin)).await?;
        let select =
            format!("SELECT {} FROM audit_records WHERE gateway = $1 ORDER BY seq", names());
        let gateway = walk.verified.gateway.clone();
        let values: [&(dyn ToSql + Sync); 1] = [&gateway];
        let rows = self.link.answer(self.link.client.query_raw(&select, values)).await?;
        let mut rows = pin!(rows);
        let mut found = Ok(());
        while let Some(row) = self.link.answer(rows.try_next()).await? {
            found = walk.check(&row);
            if found.is_err() {
                break;
            }
            if walk.verified.records.is_multiple_of(16_384) {
                progress(before + walk.verified.records);
            }
        }
        if found.is_ok() {
            self.link.answer(self.link.client.batch_execute("COMMIT")).await?;
        }
        Ok(found.and_then(|()| walk.finish()))
    }
}

struct Walk {
    verified: Verified,
    chain: Chain,
    expected: Vec<Head>,
}

impl Walk {
    fn check(&mut self, row: &tokio_postgres::Row) -> Result<(), Finding> {
        let next = self.verified.head.seq + 1;
        let broken = |seq, what: String| Finding { seq, what };
        let sealed = match read(row) {
            Ok(sealed) => sealed,
            Err(Error::Row { seq, reason, .. }) => {
                let seq = u64::try_from(seq).unwrap_or(0);
                return Err(broken(seq, format!("it cannot be read: {reason}")));
            }
            Err(error) => return Err(broken(next, error.to_string())),
        };
        let seq = sealed.seq;
        if self.verified.records == 0 {
            // The first that is there says itself what came before it.
            self.verified.first = seq;
            let hash = sealed.prev_hash;
            self.verified.head = Head { seq: seq.saturating_sub(1), hash };
            if seq == 1 && hash != Head::default().hash {
                return Err(broken(1, "something is said to come before it".into()));
            }
        } else if seq < next {
            return Err(broken(seq, "there is another record with this number".into()));
        } else if seq > next {
            return Err(broken(next, format!("missing: the next one is {seq}")));
        }
        let before = self.verified.head.hash;
        if sealed.prev_hash != before || self.chain.hash(&sealed) != sealed.hash {
            let what = "changed, or not the one that was there: its hash does not fit";
            return Err(broken(seq, what.into()));
        }
        let head = Head { seq, hash: sealed.hash };
        if self.expected.iter().any(|expected| expected.seq == seq && *expected != head) {
            return Err(broken(seq, "it is not the one that the expected head names".into()));
        }
        self.verified.head = head;
        self.verified.records += 1;
        Ok(())
    }

    fn finish(&self) -> Result<(), Finding> {
        let end = self.verified.head.seq;
        match self.expected.iter().map(|head| head.seq).filter(|seq| *seq > end).max() {
            Some(beyond) => {
                let what = format!("missing: the expected head says that there are {beyond}");
                Err(Finding { seq: end + 1, what })
            }
            None => Ok(()),
        }
    }
}
