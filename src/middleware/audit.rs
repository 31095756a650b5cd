//! Sees to it that every exchange leaves a record, however it ends.

use std::{sync::Arc, time::Duration};

use super::{Answer, Middleware, Next};
use crate::{
    audit::Scribe,
    clock::Clock,
    exchange::Exchange,
    message::Request,
    problem::{Kind, Problem},
};

/// Stands above everything that refuses: what is refused is recorded as well.
#[derive(Debug)]
pub struct Audit {
    scribe: Arc<Scribe>,
    clock: Clock,
}

impl Audit {
    /// Records are written by `scribe`.
    pub fn new(scribe: &Arc<Scribe>, clock: &Clock) -> Self {
        Self { scribe: Arc::clone(scribe), clock: clock.clone() }
    }
}

impl Middleware for Audit {
    async fn handle<N: Next>(
        &self,
        exchange: &Arc<Exchange>,
        request: Request,
        next: &N,
    ) -> Answer {
        // The record is written when the whole answer is there, and before the caller has it; or
        // when the exchange is dropped, because the caller has left.
        exchange.set_ledger(&self.scribe, &self.clock);
        if self.scribe.refuses() {
            exchange.set_unwritten();
            return Err(audit_unavailable());
        }
        next.run(exchange, request).await
    }
}

/// Nothing happens that is not written down.
pub(super) fn audit_unavailable() -> Problem {
    let detail = "The gateway cannot write its audit log, and does nothing without it.";
    Problem::new(Kind::AuditUnavailable, detail).retry_after(Duration::from_secs(1))
}
