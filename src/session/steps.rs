//! No TOTP step is used twice: not by us, not by another gateway, not after a restart.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};

use super::{
    store::{self, Shelf, is_free},
    totp::Step,
};

/// The steps that have been used for one identity.
#[derive(Debug)]
pub(super) struct Steps {
    shelf: Arc<Shelf>,
    /// The end of the last one that we have used, in Unix time: for when the store cannot tell.
    used_until: AtomicU64,
    /// Whether the last login asked for a code.
    asked_for: AtomicBool,
}

impl Steps {
    /// Those that `shelf` knows of.
    pub(super) fn new(shelf: Arc<Shelf>) -> Self {
        Self { shelf, used_until: AtomicU64::new(0), asked_for: AtomicBool::new(false) }
    }

    /// Whether the next login is likely to ask for a code, as the last one did.
    pub(super) fn are_asked_for(&self) -> bool {
        self.asked_for.load(SeqCst)
    }

    /// Whether a login has just asked for a code.
    pub(super) fn expect(&self, asked_for: bool) {
        self.asked_for.store(asked_for, SeqCst);
    }

    /// Takes `step` for a code that is used now, and never again.
    ///
    /// # Errors
    ///
    /// Until when, in Unix time, all steps have been used.
    pub(super) async fn take(&self, step: Step) -> Result<(), u64> {
        let Step { end, period } = step;
        let taken = self.shelf.take_step(end, period).await;
        let used_until = self.used_until.load(SeqCst);
        match taken {
            Ok(store::Step::UsedUntil(used_until)) => Err(used_until),
            // One of ours that the store does not know of was used while it could not be asked.
            Ok(store::Step::Taken) | Err(_) if !is_free(end, period, used_until) => Err(used_until),
            Ok(store::Step::Taken) | Err(_) => {
                self.used_until.store(end, SeqCst);
                Ok(())
            }
        }
    }
}
