//! What has happened: counts, and the latest requests.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use super::faults::HostName;

/// How many requests are remembered.
const REMEMBERED: usize = 4096;

/// Counts since the start.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stats {
    /// Requests of any kind, control excepted.
    pub requests: u64,
    /// Logins that opened a session.
    pub logins: u64,
    /// Logins that were refused.
    pub failed_logins: u64,
    /// TOTP codes that were accepted.
    pub mfa_responses: u64,
    /// TOTP codes that were refused.
    pub failed_mfa_responses: u64,
    /// Sessions that were ended by their owner.
    pub logouts: u64,
    /// Request tokens that were handed out.
    pub request_tokens_minted: u64,
    /// Request tokens that somebody tried to use twice.
    pub request_tokens_reused: u64,
    /// Sessions that are open now.
    pub live_sessions: usize,
    /// Sessions that were open at once.
    pub peak_sessions: usize,
    /// Requests that were denied for their token.
    pub denied: u64,
    /// Tokens on routes that want none.
    pub stray_bearers: u64,
    /// Changes that were made, by method and route.
    pub side_effects: BTreeMap<String, u64>,
}

/// A request, as it arrived.
#[derive(Clone, Debug, Serialize)]
pub struct Seen {
    /// Which host it reached.
    pub host: HostName,
    /// The method.
    pub method: String,
    /// Path and query, byte for byte.
    pub target: String,
    /// Header fields in their order.
    pub headers: Vec<(String, String)>,
    /// Size of the body, where it was read.
    pub body_bytes: u64,
}

impl Seen {
    /// The first value of the header field `name`.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

#[derive(Default)]
pub(super) struct Book {
    pub(super) stats: Stats,
    pub(super) seen: VecDeque<Seen>,
}

impl Book {
    pub(super) fn note(&mut self, seen: Seen) {
        self.stats.requests += 1;
        if self.seen.len() == REMEMBERED {
            self.seen.pop_front();
        }
        self.seen.push_back(seen);
    }

    pub(super) fn note_effect(&mut self, method: &str, template: &str) {
        *self.stats.side_effects.entry(format!("{method} {template}")).or_default() += 1;
    }
}
