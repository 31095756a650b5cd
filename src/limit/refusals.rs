//! Requests that were refused, counted by whose quota they were over.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Scope;

/// What is counted: the scopes of quotas, and requests under way.
const NAMES: [&str; 5] = [
    Scope::Route.name(),
    Scope::Caller.name(),
    Scope::Identity.name(),
    Scope::Global.name(),
    "concurrent",
];

/// The counters.
#[derive(Debug, Default)]
pub struct Refusals([AtomicU64; NAMES.len()]);

impl Refusals {
    /// One more was over a quota of this scope.
    pub fn over(&self, scope: Scope) {
        self.add(match scope {
            Scope::Route => 0,
            Scope::Caller => 1,
            Scope::Identity => 2,
            Scope::Global => 3,
        });
    }

    /// One more came while its caller had as many requests under way as it may.
    pub fn too_many_under_way(&self) {
        self.add(4);
    }

    /// All names, each with its number.
    pub fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NAMES.into_iter().zip(self.0.iter().map(|refused| refused.load(Relaxed)))
    }

    fn add(&self, at: usize) {
        if let Some(refused) = self.0.get(at) {
            refused.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_under_its_name() {
        let refusals = Refusals::default();

        for scope in [Scope::Route, Scope::Caller, Scope::Identity, Scope::Global] {
            refusals.over(scope);
            let last = refusals.read().filter(|(_, refused)| *refused == 1).last();
            assert_eq!(last, Some((scope.name(), 1)));
        }
        refusals.too_many_under_way();
        refusals.too_many_under_way();

        assert_eq!(refusals.read().last(), Some(("concurrent", 2)));
    }
}
