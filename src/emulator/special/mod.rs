//! Routes that do something of their own.

mod consent;
mod fastr;
mod identity;
mod signing;
mod storage;
mod transfer;

use super::{answer::Outcome, desk::Call};

/// Answers a call that does something of its own.
pub(super) fn act(call: &Call<'_>) -> Option<Outcome> {
    identity::act(call)
        .or_else(|| signing::act(call))
        .or_else(|| consent::act(call))
        .or_else(|| storage::act(call))
        .or_else(|| fastr::act(call))
        .or_else(|| transfer::act(call))
}
