//! What is known about a request while it is on its way.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use uuid::Uuid;

use crate::{
    amove::{catalogue::Route, codes, tags::Tags},
    audit::{Outcome, Phase, Record, Replay, Scribe, Unwritten},
    caller::Caller,
    clock::Clock,
    limit::Permit,
    message::{BoxError, Close, Direction, Malformed, Peer, TooLarge, Watch},
    pause::Wish,
    problem::{Blame, Kind, Problem},
    upstream::Host,
};

/// The header field that carries the id of a request.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Longer ones are cut short in records.
const LONGEST_METHOD: usize = 16;
const LONGEST_CODE: usize = 64;

/// One request and everything found out about it. Each fact is written once, by one layer.
pub struct Exchange {
    /// Leads from the answer to the log and the audit log. The caller's own, if it has one.
    pub id: HeaderValue,
    /// Unique among all records, whatever the caller calls its request.
    pub record_id: Uuid,
    /// The method as received.
    pub method: Method,
    /// Where the request came from.
    pub peer: Peer,
    origin: Arc<str>,
    refusal: Mutex<Option<Problem>>,
    started: Instant,
    caller: OnceLock<Arc<Caller>>,
    destination: OnceLock<Destination>,
    attempts: Mutex<Attempts>,
    replay: OnceLock<Replay>,
    rule: OnceLock<Arc<str>>,
    permit: OnceLock<Permit>,
    wish: OnceLock<Wish>,
    /// How long the API may still take to answer, in milliseconds; 0: as long as usual.
    patience: AtomicU64,
    /// The caller asks to go on in WebSocket.
    asks_for_websocket: AtomicBool,
    /// The caller sends its body when it is told that it is wanted.
    waits_to_send: AtomicBool,
    ending: Mutex<Ending>,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    request_complete: AtomicBool,
    /// More of the request's body is wanted than has come.
    caller_is_awaited: AtomicBool,
    /// The caller broke off in the middle of its request.
    caller_left: AtomicBool,
    response_complete: AtomicBool,
    /// The trace that the request belongs to, if it says so well.
    trace: Option<HeaderValue>,
    ledger: OnceLock<(Arc<Scribe>, Clock)>,
    /// Its record is written, or somebody is about to write it.
    recorded: AtomicBool,
    /// Its record could not be written when that was wanted.
    unwritten: AtomicBool,
}

/// What the listener knows about a request.
#[derive(Debug)]
pub struct Arrival {
    /// Where it came from.
    pub peer: Peer,
    /// The same, as it is written down: once for all requests of a connection.
    pub origin: Arc<str>,
    /// Why it must not pass, where its bytes on the wire were refused already.
    pub refusal: Option<Problem>,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub struct Destination {
    /// The route, if it is in the catalogue.
    pub route: Option<&'static Route>,
    /// Whether the path came without a version.
    pub legacy: bool,
}

impl Destination {
    /// The host that serves it. What is not in the catalogue belongs to the API's main host.
    pub fn host(&self) -> Host {
        self.route.map_or(Host::Api, |route| route.host)
    }
}

/// What the API said so far.
#[derive(Clone, Debug, Default)]
pub struct Attempts {
    /// How often the request was sent.
    pub count: u32,
    /// The status of the last response.
    pub status: Option<StatusCode>,
    /// The API's own code for its last error.
    pub code: Option<String>,
    /// How long the API took, all attempts together.
    pub duration: Duration,
}

/// How it ended, as far as is known.
#[derive(Debug, Default)]
struct Ending {
    status: Option<StatusCode>,
    problem: Option<Kind>,
    broken: bool,
}

impl Exchange {
    /// Opens the exchange of a request that has just arrived.
    pub fn open(method: &Method, headers: &HeaderMap, arrival: Arrival) -> Arc<Self> {
        let record_id = Uuid::now_v7();
        let own = headers.get(&REQUEST_ID).filter(|id| is_acceptable_id(id.as_bytes()));
        Arc::new(Self {
            id: own.cloned().unwrap_or_else(|| header_of(record_id)),
            record_id,
            method: method.clone(),
            peer: arrival.peer,
            origin: arrival.origin,
            refusal: Mutex::new(arrival.refusal),
            started: Instant::now(),
            caller: OnceLock::new(),
            destination: OnceLock::new(),
            attempts: Mutex::default(),
            replay: OnceLock::new(),
            rule: OnceLock::new(),
            permit: OnceLock::new(),
            wish: OnceLock::new(),
            patience: AtomicU64::new(0),
            asks_for_websocket: AtomicBool::new(false),
            waits_to_send: AtomicBool::new(false),
            ending: Mutex::default(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            request_complete: AtomicBool::new(false),
            caller_is_awaited: AtomicBool::new(false),
            caller_left: AtomicBool::new(false),
            response_complete: AtomicBool::new(false),
            trace: headers.get(TRACEPARENT).filter(|it| is_traceparent(it.as_bytes())).cloned(),
            ledger: OnceLock::new(),
            recorded: AtomicBool::new(false),
            unwritten: AtomicBool::new(false),
        })
    }

    /// Read by `admit`: why the listener refused it, if it did.
    pub fn take_refusal(&self) -> Option<Problem> {
        lock(&self.refusal).take()
    }

    /// Written by `audit`: who writes the record, and what time it is then.
    pub fn set_ledger(&self, scribe: &Arc<Scribe>, clock: &Clock) {
        write_once(&self.ledger, (Arc::clone(scribe), clock.clone()));
    }

    /// Written by `audit`, where nothing can be written: nobody waits for its record, which is left
    /// to be written when it is over.
    pub fn set_unwritten(&self) {
        self.unwritten.store(true, Ordering::Relaxed);
    }

    /// Writes down that it goes on now, and waits until that is written.
    ///
    /// # Errors
    ///
    /// [`Unwritten`] if it must not go on.
    pub async fn announce(&self) -> Result<(), Unwritten> {
        let Some((scribe, clock)) = self.ledger.get() else { return Ok(()) };
        let receipt = self.with_record(Phase::Intent, clock, |record| scribe.note(record));
        let settled = scribe.settle(receipt).await;
        if settled.is_err() {
            self.set_unwritten();
        }
        settled
    }

    /// Writes down how it has ended, once, and waits until that is written.
    ///
    /// # Errors
    ///
    /// [`Unwritten`] if the answer must not go out. How it ends then is written when it is over.
    pub async fn settle(&self) -> Result<(), Unwritten> {
        let Some((scribe, clock)) = self.ledger.get() else { return Ok(()) };
        if self.unwritten.load(Ordering::Relaxed) || self.recorded.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let receipt = self.with_record(Phase::Outcome, clock, |record| scribe.note(record));
        let settled = scribe.settle(receipt).await;
        if settled.is_err() {
            // The caller is told so, and does not wait again.
            self.set_unwritten();
            self.recorded.store(false, Ordering::Relaxed);
        }
        settled
    }

    /// Written by `authenticate`.
    pub fn set_caller(&self, caller: Arc<Caller>) {
        write_once(&self.caller, caller);
    }

    /// Written by `find_route`.
    pub fn set_destination(&self, destination: Destination) {
        write_once(&self.destination, destination);
    }

    /// Who is calling.
    ///
    /// # Errors
    ///
    /// [`Kind::Internal`] above `authenticate`.
    pub fn caller(&self) -> Result<&Caller, Problem> {
        self.caller.get().map(Arc::as_ref).ok_or_else(|| unknown("caller"))
    }

    /// Where the request goes.
    ///
    /// # Errors
    ///
    /// [`Kind::Internal`] above `find_route`.
    pub fn destination(&self) -> Result<Destination, Problem> {
        self.destination.get().copied().ok_or_else(|| unknown("route"))
    }

    /// Written by `forward`, once for each attempt: what came back, and after how long.
    pub fn attempted(&self, status: Option<StatusCode>, duration: Duration) {
        let mut attempts = lock(&self.attempts);
        attempts.count += 1;
        attempts.status = status;
        attempts.code = None;
        attempts.duration += duration;
    }

    /// Written by `normalise`: the API's code for the error of the last attempt.
    pub fn reported(&self, code: &str) {
        lock(&self.attempts).code = Some(code.to_owned());
    }

    /// Written by `limit`: counts the request as under way until the exchange is over.
    pub fn hold(&self, permit: Permit) {
        write_once(&self.permit, permit);
    }

    /// Written by `forward`, if the API asks to be left alone.
    pub fn set_wish(&self, wish: Wish) {
        write_once(&self.wish, wish);
    }

    /// Whether the API asks to be left alone.
    pub fn wish(&self) -> Option<Wish> {
        self.wish.get().copied()
    }

    /// Written by `retry` ahead of each repeat: all attempts together have the time of one.
    pub fn set_patience(&self, left: Duration) {
        let milliseconds = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        self.patience.store(milliseconds.max(1), Ordering::Relaxed);
    }

    /// How long the API may take to answer, if not as long as usual.
    pub fn patience(&self) -> Option<Duration> {
        match self.patience.load(Ordering::Relaxed) {
            0 => None,
            milliseconds => Some(Duration::from_millis(milliseconds)),
        }
    }

    /// Written by `sanitise`, which takes away what the caller asks with.
    pub fn set_asks_for_websocket(&self) {
        self.asks_for_websocket.store(true, Ordering::Relaxed);
    }

    /// Written by `sanitise`: the caller expects to be told to continue.
    pub fn set_waits_to_send(&self) {
        self.waits_to_send.store(true, Ordering::Relaxed);
    }

    /// Whether the caller sends its body only when it is told that it is wanted.
    pub fn waits_to_send(&self) -> bool {
        self.waits_to_send.load(Ordering::Relaxed)
    }

    /// Whether the connection is to be a WebSocket from now on: where the caller asks for it, and
    /// the route is one that stays open.
    pub fn wants_websocket(&self) -> bool {
        let stays_open = |route: &Route| route.tags.contains(Tags::REALTIME);
        self.asks_for_websocket.load(Ordering::Relaxed)
            && self.destination.get().and_then(|to| to.route).is_some_and(stays_open)
    }

    /// Written by `authorise`: the rule that forbids the call.
    pub fn set_rule(&self, rule: Arc<str>) {
        write_once(&self.rule, rule);
    }

    /// Written by `inject_token`, if our token was denied.
    pub fn set_replay(&self, replay: Replay) {
        write_once(&self.replay, replay);
    }

    /// Whether the last answer says that our token is dead (contract section 4.7).
    pub fn token_was_denied(&self) -> bool {
        let attempts = lock(&self.attempts);
        attempts.status == Some(StatusCode::UNAUTHORIZED)
            || attempts.code.as_deref().is_some_and(codes::denies_token)
    }

    /// What the API said so far.
    pub fn attempts(&self) -> Attempts {
        lock(&self.attempts).clone()
    }

    /// Written by `receive`: the answer that leaves us, and the problem if it is one.
    pub fn answered(&self, status: StatusCode, problem: Option<Kind>) {
        let mut ending = lock(&self.ending);
        ending.status = Some(status);
        ending.problem = problem;
    }

    /// Bytes of the request's body that came so far.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    /// Whether the whole request body has come.
    pub fn request_complete(&self) -> bool {
        self.request_complete.load(Ordering::Relaxed)
    }

    /// Whether more of the request's body is wanted than has come.
    pub fn awaits_caller(&self) -> bool {
        self.caller_is_awaited.load(Ordering::Relaxed) && !self.request_complete()
    }

    /// How long it has been going on.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Written by `receive`: nothing of the answer remains to be sent.
    pub fn answer_is_complete(&self) {
        self.response_complete.store(true, Ordering::Relaxed);
    }

    fn outcome(&self) -> Outcome {
        let ending = lock(&self.ending);
        let Some(status) = ending.status else { return Outcome::ClientClosed };
        if self.caller_left.load(Ordering::Relaxed) {
            return Outcome::ClientClosed;
        }
        if ending.broken {
            return Outcome::Failed;
        }
        if !self.response_complete.load(Ordering::Relaxed) {
            return Outcome::ClientClosed;
        }
        match ending.problem {
            None if status.is_client_error() || status.is_server_error() => Outcome::UpstreamError,
            None => Outcome::Ok,
            Some(kind) => match kind.blame() {
                Blame::Denied => Outcome::Denied,
                Blame::Stranger => Outcome::Unauthenticated,
                Blame::Quota => Outcome::Limited,
                Blame::Api => Outcome::UpstreamError,
                Blame::Service => Outcome::Failed,
            },
        }
    }

    /// Shows `write` the record of it as it is now.
    fn with_record<T>(
        &self,
        phase: Phase,
        clock: &Clock,
        write: impl FnOnce(&Record<'_>) -> T,
    ) -> T {
        let attempts = lock(&self.attempts);
        // One lock at a time: the outcome takes the same.
        let status = lock(&self.ending).status;
        let outcome = self.outcome();
        let destination = self.destination.get().copied();
        let route = destination.and_then(|destination| destination.route);
        let ended = phase == Phase::Outcome;
        let measure = |number: u64| if ended { number } else { 0 };
        let microseconds = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let caller = self.caller.get();
        let method = self.method.as_str();
        write(&Record {
            phase,
            id: self.record_id,
            request_id: self.id.to_str().unwrap_or_default(),
            time: clock.now().as_microsecond(),
            caller: caller.map(|caller| &*caller.name),
            identity: caller.map(|caller| &*caller.identity_name),
            // A method may be any token: what is not a usual one is cut short.
            method: method.get(..LONGEST_METHOD).unwrap_or(method),
            route: route.map(|route| route.template),
            effect: route.map(|route| route.effect.word()),
            status: status.filter(|_| ended).map(|status| status.as_u16()),
            upstream_status: attempts.status.filter(|_| ended).map(|status| status.as_u16()),
            code: attempts.code.as_deref().filter(|_| ended).map(cleaned),
            outcome: ended.then_some(outcome),
            duration_us: measure(microseconds(self.started.elapsed())),
            upstream_us: measure(microseconds(attempts.duration)),
            bytes_in: measure(self.bytes_in()),
            bytes_out: measure(self.bytes_out.load(Ordering::Relaxed)),
            attempts: if ended { attempts.count } else { 0 },
            replay: self.replay.get().copied(),
            rule: self.rule.get().map(|rule| &**rule),
            legacy: destination.is_some_and(|destination| destination.legacy),
            peer: &self.origin,
            trace_id: self.trace.as_ref().and_then(|it| it.to_str().ok()?.get(3..35)),
            lost: 0,
        })
    }

    /// Whether nothing of the answer is left to be sent.
    pub fn has_answered(&self) -> bool {
        self.response_complete.load(Ordering::Relaxed)
    }
}

impl Watch for Exchange {
    fn passed(&self, direction: Direction, bytes: usize) {
        let count = match direction {
            Direction::Request => {
                self.caller_is_awaited.store(false, Ordering::Relaxed);
                &self.bytes_in
            }
            Direction::Response => &self.bytes_out,
        };
        count.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn waits(&self, direction: Direction) {
        if direction == Direction::Request {
            self.caller_is_awaited.store(true, Ordering::Relaxed);
        }
    }

    fn completed(&self, direction: Direction) {
        match direction {
            Direction::Request => self.request_complete.store(true, Ordering::Relaxed),
            Direction::Response => self.answer_is_complete(),
        }
    }

    fn failed(&self, direction: Direction, error: &BoxError) {
        if direction == Direction::Request {
            // What is wrong with its bytes is another matter.
            let is_refused = error.is::<TooLarge>() || error.is::<Malformed>();
            self.caller_left.store(!is_refused, Ordering::Relaxed);
        }
        if direction == Direction::Response {
            lock(&self.ending).broken = true;
            tracing::warn!(id = ?self.id, error = error.to_string(), "response broke off");
        }
    }

    fn close(self: Arc<Self>, direction: Direction) -> Option<Close> {
        let close = async move { self.settle().await.map_err(BoxError::from) };
        (direction == Direction::Response).then(|| Box::pin(close) as Close)
    }
}

impl Drop for Exchange {
    /// Whatever way it ended: the caller may have left before its answer was there.
    fn drop(&mut self) {
        if *self.recorded.get_mut() {
            return;
        }
        if let Some((scribe, clock)) = self.ledger.get() {
            self.with_record(Phase::Outcome, clock, |record| scribe.leave(record));
        }
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("id", &self.id).finish_non_exhaustive()
    }
}

/// 1 to 128 visible ASCII characters: fit for a header field, a log and a record.
fn is_acceptable_id(id: &[u8]) -> bool {
    (1..=128).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

/// A code as the API writes them; anything else does not belong into a record.
fn cleaned(code: &str) -> &str {
    let is_code =
        |code: &str| code.len() <= LONGEST_CODE && code.bytes().all(|it| it.is_ascii_graphic());
    if is_code(code) { code } else { "unreadable" }
}

/// `00-<trace id>-<parent id>-<flags>` (W3C Trace Context); a trace id of zeros is none.
fn is_traceparent(value: &[u8]) -> bool {
    let is_hex =
        |part: &[u8]| part.iter().all(|it| it.is_ascii_digit() || (b'a'..=b'f').contains(it));
    value.len() == 55
        && value.starts_with(b"00-")
        && (value[35], value[52]) == (b'-', b'-')
        && is_hex(&value[3..35])
        && is_hex(&value[36..52])
        && is_hex(&value[53..])
        && value[3..35].iter().any(|it| *it != b'0')
}

fn header_of(id: Uuid) -> HeaderValue {
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    // Digits and hyphens are always a header value.
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut text))
        .unwrap_or(HeaderValue::from_static("unknown"))
}

fn write_once<T>(fact: &OnceLock<T>, value: T) {
    let first = fact.set(value).is_ok();
    debug_assert!(first, "a fact is written once");
}

fn unknown(fact: &'static str) -> Problem {
    Problem::new(Kind::Internal, "The gateway has made a mistake.")
        .caused_by(format!("the {fact} of the request is not known at this point"))
}

/// Nothing can panic while one of these locks is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
