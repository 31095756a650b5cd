//! The token in force, where every request finds it without a lock.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use arc_swap::ArcSwapOption;

use super::token::Token;

/// The place of one identity's token.
#[derive(Debug, Default)]
pub(super) struct Slot {
    token: ArcSwapOption<Token>,
    generation: AtomicU64,
}

impl Slot {
    /// The token in force, whether or not it still serves. Takes no lock.
    pub(super) fn token(&self) -> Option<Arc<Token>> {
        self.token.load_full()
    }

    /// The generation of the last token that was put here; 0: there was none.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(SeqCst)
    }

    /// Puts a token in force.
    pub(super) fn put(&self, token: Arc<Token>) {
        let generation = token.generation();
        // In this order: whoever sees the generation finds the token.
        self.token.store(Some(token));
        self.generation.fetch_max(generation, SeqCst);
    }

    /// Takes the token out of force: it is given to one only.
    pub(super) fn take(&self) -> Option<Arc<Token>> {
        self.token.swap(None)
    }
}
