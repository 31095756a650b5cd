//! What has happened so far: counters, and the requests themselves.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use http::{HeaderMap, Method, Uri, Version};
use serde::Serialize;

use super::routes::Host;

/// What has happened so far.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Stats {
    /// Logins that ended with a JWT.
    pub logins: u64,
    /// Logins and second factors that were refused.
    pub failed_logins: u64,
    /// Second factors that were accepted.
    pub mfa_responses: u64,
    /// Sessions that were logged out.
    pub logouts: u64,
    /// Request tokens that were handed out.
    pub request_tokens_minted: u64,
    /// Calls with a request token that was spent before.
    pub request_tokens_reused: u64,
    /// Sessions that live now.
    pub live_sessions: u64,
    /// The most sessions that ever lived at once.
    pub peak_sessions: u64,
    /// Calls that sent a bearer to a route that wants none.
    pub stray_bearers: u64,
    /// Calls to a bearer route that were refused for their bearer.
    pub refused_bearers: u64,
    /// Requests received by both hosts.
    pub requests: u64,
    /// Connections accepted by both hosts.
    pub connections: u64,
    /// Calls that took effect, by `METHOD /template`.
    pub side_effects: BTreeMap<String, u64>,
}

/// One request as it arrived.
#[derive(Clone, Debug, Serialize)]
pub struct Seen {
    /// Which host it came to.
    pub host: Host,
    /// Its method.
    pub method: String,
    /// Its path and query, byte for byte.
    pub target: String,
    /// Its HTTP version.
    pub version: String,
    /// Its header fields, in order.
    pub headers: Vec<(String, String)>,
    /// How many bytes of its body were read.
    pub body_length: u64,
    /// The first of them, 4 KiB at most.
    #[serde(skip)]
    pub body: Vec<u8>,
}

impl Seen {
    /// The first value of the header field `name`, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// A counter that never wraps.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, more: u64) {
        let add = |count: u64| Some(count.saturating_add(more));
        // The closure always returns a value, so this cannot fail.
        let _ = self.0.fetch_update(Relaxed, Relaxed, add);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The counters behind [`Stats`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) logins: Counter,
    pub(super) failed_logins: Counter,
    pub(super) mfa_responses: Counter,
    pub(super) logouts: Counter,
    pub(super) minted: Counter,
    pub(super) reused: Counter,
    pub(super) stray_bearers: Counter,
    pub(super) refused_bearers: Counter,
    pub(super) requests: Counter,
    pub(super) connections: Counter,
    side_effects: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counters {
    /// A call to the route `key` took effect.
    pub(super) fn took_effect(&self, key: &'static str) {
        let mut effects = self.side_effects.lock().unwrap_or_else(PoisonError::into_inner);
        let count = effects.entry(key).or_default();
        *count = count.saturating_add(1);
    }

    /// What has happened so far.
    pub(super) fn read(&self, (live, peak): (usize, usize)) -> Stats {
        let effects = self.side_effects.lock().unwrap_or_else(PoisonError::into_inner);
        Stats {
            logins: self.logins.get(),
            failed_logins: self.failed_logins.get(),
            mfa_responses: self.mfa_responses.get(),
            logouts: self.logouts.get(),
            request_tokens_minted: self.minted.get(),
            request_tokens_reused: self.reused.get(),
            live_sessions: live as u64,
            peak_sessions: peak as u64,
            stray_bearers: self.stray_bearers.get(),
            refused_bearers: self.refused_bearers.get(),
            requests: self.requests.get(),
            connections: self.connections.get(),
            side_effects: effects.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect(),
        }
    }
}

/// Of each body so much is remembered.
const KEPT: usize = 4096;

/// What has arrived of a body.
#[derive(Debug)]
pub(super) struct Arrived {
    length: Counter,
    beginning: Mutex<Vec<u8>>,
    kept: usize,
}

impl Arrived {
    fn new(kept: usize) -> Arc<Self> {
        Arc::new(Self { length: Counter::default(), beginning: Mutex::default(), kept })
    }

    /// More has arrived.
    pub(super) fn add(&self, bytes: &[u8]) {
        self.length.add(bytes.len() as u64);
        let mut beginning = self.beginning.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.kept.saturating_sub(beginning.len()).min(bytes.len());
        beginning.extend_from_slice(bytes.get(..room).unwrap_or_default());
    }

    /// How many bytes there were so far.
    pub(super) fn length(&self) -> u64 {
        self.length.get()
    }

    fn beginning(&self) -> Vec<u8> {
        self.beginning.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The last requests.
#[derive(Debug)]
pub(super) struct Memory {
    last: Mutex<VecDeque<Remembered>>,
    most: usize,
}

#[derive(Debug)]
struct Remembered {
    host: Host,
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    body: Arc<Arrived>,
}

impl Memory {
    /// Remembers up to `most` requests.
    pub(super) fn new(most: usize) -> Self {
        Self { last: Mutex::default(), most }
    }

    /// Remembers `request`, and its body as it is read.
    pub(super) fn remember<B>(&self, host: Host, request: &http::Request<B>) -> Arc<Arrived> {
        if self.most == 0 {
            return Arrived::new(0);
        }
        let body = Arrived::new(KEPT);
        let remembered = Remembered {
            host,
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: request.headers().clone(),
            body: Arc::clone(&body),
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        while last.len() >= self.most {
            last.pop_front();
        }
        last.push_back(remembered);
        body
    }

    /// The last requests, oldest first.
    pub(super) fn read(&self) -> Vec<Seen> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.iter().map(Remembered::seen).collect()
    }

    /// Forgets the last requests.
    pub(super) fn forget(&self) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Remembered {
    fn seen(&self) -> Seen {
        Seen {
            host: self.host,
            method: self.method.to_string(),
            target: target(&self.uri),
            version: format!("{:?}", self.version),
            headers: fields(&self.headers),
            body_length: self.body.length(),
            body: self.body.beginning(),
        }
    }
}

/// The path and query as they arrived.
pub(super) fn target(uri: &Uri) -> String {
    uri.path_and_query().map_or_else(|| uri.to_string(), ToString::to_string)
}

/// The header fields, in order.
pub(super) fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}
