//! The gateway in force at one worker.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;

use crate::{
    exchange::Arrival,
    message::Request,
    middleware::receive::{Answering, Gateway},
};

/// The gateway in force. A reload swaps it; requests under way finish on the old one, which is gone
/// with the last of them.
#[derive(Clone)]
pub(super) struct Live(Arc<ArcSwap<Gateway>>);

impl Live {
    /// Puts `gateway` in force.
    pub(super) fn new(gateway: Gateway) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(gateway)))
    }

    /// Replaces the gateway in force.
    pub(super) fn swap(&self, gateway: Gateway) {
        self.0.store(Arc::new(gateway));
    }

    /// Answers `request` with the gateway in force. Takes no lock.
    pub(super) fn answer(&self, request: Request, arrival: Arrival) -> Answering {
        self.0.load().answer(request, arrival)
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Live")
    }
}
