//! Sees to it that every exchange leaves a record, however it ends.

use std::sync::Arc;

use super::{Answer, Middleware, Next};
use crate::{audit::Trail, clock::Clock, exchange::Exchange, message::Request};

/// Stands above everything that refuses: what is refused is recorded as well.
#[derive(Debug)]
pub struct Audit {
    trail: Arc<Trail>,
    clock: Clock,
}

impl Audit {
    /// Records go to `trail`.
    pub fn new(trail: &Arc<Trail>, clock: &Clock) -> Self {
        Self { trail: Arc::clone(trail), clock: clock.clone() }
    }
}

impl Middleware for Audit {
    async fn handle<N: Next>(
        &self,
        exchange: &Arc<Exchange>,
        request: Request,
        next: &N,
    ) -> Answer {
        // The exchange writes its record when it is dropped: after the last byte of the answer,
        // or when the caller has left.
        exchange.set_ledger(&self.trail, &self.clock);
        next.run(exchange, request).await
    }
}
