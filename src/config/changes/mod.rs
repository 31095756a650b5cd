//! What a new configuration changes, and what it cannot change.

use std::collections::BTreeSet;

use super::{Config, QuotaStore};

/// What differs between a configuration in force and the one that comes after it, by the names of
/// settings.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Changes {
    taken: BTreeSet<String>,
    at_start: BTreeSet<String>,
}

impl Changes {
    /// What comes into force: settings, and whole sections that came or went (`callers.billing`).
    pub fn taken(&self) -> impl Iterator<Item = &str> {
        self.taken.iter().map(String::as_str)
    }

    /// Settings that only a start sets: they stay what they are.
    pub fn at_start(&self) -> impl Iterator<Item = &str> {
        self.at_start.iter().map(String::as_str)
    }

    /// Whether anything in `section` has changed.
    pub fn touch(&self, section: &str) -> bool {
        let is_in = |name: &str| name.strip_prefix(section).is_some_and(|it| it.starts_with('.'));
        self.taken().any(is_in)
    }

    pub(super) fn add_taken(&mut self, name: String) {
        self.taken.insert(name);
    }

    pub(super) fn add_at_start(&mut self, name: String) {
        self.at_start.insert(name);
    }
}

impl Config {
    /// Takes what only a start sets from `before`; a test compares it with the table of settings.
    pub(super) fn keep_from(&mut self, before: &Self) {
        let (server, then) = (&mut self.server, &before.server);
        server.listen.clone_from(&then.listen);
        server.admin_listen.clone_from(&then.admin_listen);
        // A listener that was opened to the network never loses its token.
        server.admin_token.clone_from(&then.admin_token);
        server.health_listen.clone_from(&then.health_listen);
        server.workers = then.workers;
        if server.tls.is_some() != then.tls.is_some() {
            server.tls.clone_from(&then.tls);
        }
        self.session_store = before.session_store.clone();
        let mut store = before.rate_limit.store.clone();
        if let (QuotaStore::Redis { on_error, .. }, QuotaStore::Redis { on_error: now, .. }) =
            (&mut store, &self.rate_limit.store)
        {
            *on_error = *now;
        }
        self.rate_limit.store = store;
        self.audit = before.audit.clone();
        self.telemetry.log_format = before.telemetry.log_format;
    }
}

#[cfg(test)]
mod tests;
