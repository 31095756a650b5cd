//! What has happened: one record for each request, and the trail they go to.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use http::{HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::{amove::catalogue::Effect, config, message::Peer};

mod queue;

use queue::Queue;

/// One request and how it ended. Never holds a path, a query, a body or a credential.
#[derive(Debug, Serialize)]
pub struct Record {
    /// Whether this says that a request began or how it ended.
    pub phase: Phase,
    /// Unique, and in the order of time (UUIDv7).
    pub id: Uuid,
    /// What the caller calls its request.
    #[serde(serialize_with = "header")]
    pub request_id: HeaderValue,
    /// When it ended.
    pub time: Timestamp,
    /// Who called.
    pub caller: Option<Arc<str>>,
    /// Whom the caller is to the API.
    pub identity: Option<Arc<str>>,
    /// The method.
    #[serde(serialize_with = "method")]
    pub method: Method,
    /// The route's template; never the path.
    pub route: Option<&'static str>,
    /// What the route does.
    #[serde(serialize_with = "effect")]
    pub effect: Option<Effect>,
    /// The status that the caller got.
    #[serde(serialize_with = "status")]
    pub status: Option<StatusCode>,
    /// The status that the API gave last.
    #[serde(serialize_with = "status")]
    pub upstream_status: Option<StatusCode>,
    /// The API's code for its last error.
    pub code: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// From the first byte of the request to the last of the answer, in microseconds.
    #[serde(rename = "duration_us", serialize_with = "microseconds")]
    pub duration: Duration,
    /// The API's part of that.
    #[serde(rename = "upstream_us", serialize_with = "microseconds")]
    pub upstream: Duration,
    /// Size of the request's body.
    pub bytes_in: u64,
    /// Size of the answer's body.
    pub bytes_out: u64,
    /// How often the request was sent.
    pub attempts: u32,
    /// What became of the replay, where our token was denied.
    pub replay: Option<Replay>,
    /// The rule that forbade the call.
    pub rule: Option<Arc<str>>,
    /// Whether the path came without a version.
    pub legacy: bool,
    /// Where the request came from.
    #[serde(serialize_with = "display")]
    pub peer: Peer,
}

/// What a record is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// How a request ended.
    Outcome,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The API answered, and well.
    Ok,
    /// The API answered with an error.
    UpstreamError,
    /// We did not let it pass.
    Denied,
    /// The caller's quota was used up.
    Limited,
    /// Nobody knows who called.
    Unauthenticated,
    /// The caller left before the end.
    ClientClosed,
    /// It could not be served.
    Failed,
}

/// What became of a replay after our token was denied.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Replay {
    /// The request was sent once more, with a newer token.
    Done,
    /// It may spend something that works once, or nobody knows what it does.
    Declined,
    /// Its body was too large to keep.
    TooLarge,
    /// There was no newer token to be had.
    Failed,
}

/// Where records go.
#[derive(Debug)]
pub struct Trail {
    queue: Option<Arc<Queue>>,
    lost: AtomicU64,
}

/// The thread that writes what the trail is given.
#[derive(Debug)]
pub struct Writer(Option<(Arc<Queue>, JoinHandle<()>)>);

impl Trail {
    /// Opens the trail that `config` describes.
    ///
    /// # Errors
    ///
    /// The system's, when it has no thread for the writer.
    pub fn open(config: &config::Audit) -> io::Result<(Arc<Self>, Writer)> {
        let lost = AtomicU64::new(0);
        if !config.stdout {
            return Ok((Arc::new(Self { queue: None, lost }), Writer(None)));
        }
        let queue = Arc::new(Queue::default());
        let read = Arc::clone(&queue);
        let thread = std::thread::Builder::new().name("audit".into());
        let thread = thread.spawn(move || write_lines(&read, io::stdout()))?;
        let writer = Writer(Some((Arc::clone(&queue), thread)));
        Ok((Arc::new(Self { queue: Some(queue), lost }), writer))
    }

    /// Writes down what `record` tells. Never waits; what cannot be written is counted.
    pub fn write(&self, record: impl FnOnce() -> Record) {
        let Some(queue) = &self.queue else { return };
        if !queue.push(record()) && self.lost.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::error!("audit records are lost: standard output is too slow");
        }
    }

    /// Records that could not be written since the start.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Writer {
    /// Waits until everything that was given to the trail so far is written; what comes later is
    /// lost.
    pub fn finish(self) {
        let Some((queue, thread)) = self.0 else { return };
        queue.end();
        if thread.join().is_err() {
            tracing::error!("the writer of audit records has crashed");
        }
    }
}

/// Writes what has gathered in one go: the workers never wait for the disk.
fn write_lines(queue: &Queue, mut out: impl Write) {
    let (mut records, mut lines) = (Vec::new(), Vec::new());
    while queue.take(&mut records) {
        for record in records.drain(..) {
            // A record consists of what can be written as JSON.
            if serde_json::to_writer(&mut lines, &record).is_ok() {
                lines.push(b'\n');
            }
        }
        if let Err(error) = out.write_all(&lines).and_then(|()| out.flush()) {
            tracing::error!(error = error.to_string(), "audit records cannot be written");
        }
        lines.clear();
    }
}

fn header<S: Serializer>(value: &HeaderValue, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value.to_str().unwrap_or_default())
}

fn method<S: Serializer>(method: &Method, serializer: S) -> Result<S::Ok, S::Error> {
    // A method may be any token: what is not a usual one is cut short.
    serializer.serialize_str(method.as_str().get(..16).unwrap_or(method.as_str()))
}

fn effect<S: Serializer>(effect: &Option<Effect>, serializer: S) -> Result<S::Ok, S::Error> {
    match effect {
        Some(effect) => serializer.collect_str(effect),
        None => serializer.serialize_none(),
    }
}

fn status<S: Serializer>(status: &Option<StatusCode>, serializer: S) -> Result<S::Ok, S::Error> {
    match status {
        Some(status) => serializer.serialize_u16(status.as_u16()),
        None => serializer.serialize_none(),
    }
}

fn microseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

fn display<S: Serializer>(value: &impl ToString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}
