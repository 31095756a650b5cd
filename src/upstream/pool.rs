//! The connections to one host, owned by one worker.
//!
//! A worker polls a connection from the very task that serves the caller: nothing is handed over
//! between tasks or threads, and a packet causes one wake-up.

use std::{
    fmt,
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{
    Error, UNASKED,
    connection::{Connection, Failed, Multiplexed},
    counts::Ending,
    dial::{Dialler, Speaks},
    shared::{Place, Share, address},
    site::{Reserve, Site},
    tls::{Stream, Tls, negotiated_http2},
    unprocessed::Unprocessed,
};
use crate::{
    clock::deadlines::Deadlines,
    config::{self, Http2},
    message::{Body, Request, Response, Spare},
    slots::Slot,
};

/// How much of a body is kept while it is not known whether the API processes it.
const ROOM: usize = 64 * 1024;

/// The connections to one host.
pub(super) struct Pool {
    dialler: Dialler,
    host_header: Option<HeaderValue>,
    http2: Http2,
    /// How long a body may be silent.
    patience: Duration,
    deadlines: Deadlines,
    /// Last in, first out: what is not needed grows old and is closed.
    #[expect(
        clippy::vec_box,
        reason = "a connection is boxed for its whole life: it is a body's driver"
    )]
    idle: Mutex<Vec<Box<Connection>>>,
    /// The connection that all share, where the host speaks HTTP/2.
    shared: Place,
    /// Held while dialling a host known to speak HTTP/2: one connection is enough.
    dialling: tokio::sync::Mutex<()>,
    speaks_http2: AtomicBool,
}

/// What a request can be sent on.
enum Line {
    Own(Box<Connection>),
    Shared(Share),
}

impl Pool {
    pub(super) fn new(config: &config::Upstream, site: &Arc<Site>, tls: Tls) -> Arc<Self> {
        let speaks_http2 = !site.base.tls && config.http2 == Http2::Always;
        let dialler = Dialler { site: Arc::clone(site), tls, within: config.connect_timeout };
        Self::over(dialler, config.http2, config.response_timeout, speaks_http2)
    }

    /// A pool for the same host without any connection yet.
    pub(super) fn sibling(&self) -> Arc<Self> {
        let speaks_http2 = self.speaks_http2.load(Ordering::Relaxed);
        Self::over(self.dialler.clone(), self.http2, self.patience, speaks_http2)
    }

    fn over(dialler: Dialler, http2: Http2, patience: Duration, speaks_http2: bool) -> Arc<Self> {
        let site = Arc::clone(&dialler.site);
        let pool = Arc::new(Self {
            host_header: HeaderValue::from_str(&dialler.site.authority).ok(),
            dialler,
            http2,
            patience,
            deadlines: Deadlines::default(),
            idle: Mutex::default(),
            shared: Place::default(),
            dialling: tokio::sync::Mutex::default(),
            speaks_http2: AtomicBool::new(speaks_http2),
        });
        let reserve: Weak<Self> = Arc::downgrade(&pool);
        site.enlist(reserve);
        pool
    }

    /// See [`super::Upstream::send`].
    pub(super) async fn send(
        self: &Arc<Self>,
        mut request: Request,
        slot: Option<Slot>,
    ) -> Result<Response, Error> {
        if let Some(host) = &self.host_header {
            request.headers_mut().insert(header::HOST, host.clone());
        }
        let switches = request.headers().contains_key(header::UPGRADE);
        let mut refusals = 0;
        loop {
            let line = if switches { self.http1_line().await? } else { self.line().await? };
            let failed = match line {
                Line::Own(connection) => {
                    *request.version_mut() = Version::HTTP_11;
                    match connection.exchange(request).await {
                        Ok((response, connection)) if switches && is_switch(&response) => {
                            return connection.switch(response, slot).await;
                        }
                        // Nobody knows what follows, so it is not put aside.
                        Ok((response, _)) if is_switch(&response) => return Err(UNASKED),
                        Ok((response, connection)) => {
                            return Ok(connection.deliver(response, Arc::downgrade(self), slot));
                        }
                        Err(failed) => failed,
                    }
                }
                Line::Shared(mut share) => {
                    address(&mut request, &self.dialler.site);
                    let spare = request.spare(ROOM);
                    match share.sender.try_send_request(request.into_inner()).await {
                        Ok(response) => {
                            let silence = goes_on(response.headers())
                                .then(|| self.deadlines.silence(self.patience));
                            let lease = Box::pin(Multiplexed { _slot: slot, silence });
                            return Ok(response.map(|body| Body::driven(body, lease)).into());
                        }
                        Err(error) => {
                            refusals += 1;
                            self.refused(error.into(), spare, share.number, refusals)
                        }
                    }
                }
            };
            match failed {
                // The connection had been closed while nobody used it: that costs it its place,
                // so this ends at the latest with a new connection.
                Failed::Unsent(unsent) => request = unsent,
                Failed::Lost(error) => return Err(error),
            }
        }
    }

    /// What the shared connection of this number refused to process can go elsewhere, if `spare`
    /// is left of it.
    fn refused(&self, failed: Failed, spare: Spare, number: u64, refusals: usize) -> Failed {
        let Failed::Lost(Error::Broken(error)) = failed else { return failed };
        let Some(unprocessed) = Unprocessed::of(&error) else {
            return Failed::Lost(Error::Broken(error));
        };
        if unprocessed.ends_connection() {
            self.shared.retire(number, Ending::Peer);
        }
        let spare = if unprocessed.may_repeat(refusals) { spare.take_back() } else { None };
        let (host, is_sent_again) = (&*self.dialler.site.authority, spare.is_some());
        tracing::debug!(host, ?unprocessed, is_sent_again, "request was not processed");
        self.dialler.site.counts.unprocessed(is_sent_again);
        spare.map_or(Failed::Lost(Error::Unprocessed(error)), Failed::Unsent)
    }

    /// Keeps `connection` for another exchange.
    pub(super) fn put_aside(&self, mut connection: Box<Connection>) {
        if self.speaks_http2.load(Ordering::Relaxed) {
            // It was for a switch of protocols; other requests share theirs.
            return connection.close(Ending::Unused);
        }
        let now = Instant::now();
        if let Some(ending) = connection.life.spent(now) {
            return connection.close(ending);
        }
        connection.rest(now);
        let mut idle = lock(&self.idle);
        // The oldest lie at the bottom; at most two a call, so that nobody pays for many.
        for _ in 0..2 {
            if idle.first().is_some_and(|oldest| oldest.is_unused(now)) {
                idle.remove(0).close(Ending::Unused);
            }
        }
        idle.push(connection);
    }

    /// A connection that lives: one put aside, the shared one, or a new one. What is seldom done is
    /// boxed, so that it takes no room in the future of every request.
    async fn line(self: &Arc<Self>) -> Result<Line, Error> {
        if let Some(line) = self.open_line().await {
            return Ok(line);
        }
        if !self.speaks_http2.load(Ordering::Relaxed) {
            return Box::pin(self.connect()).await;
        }
        let _one_at_a_time = self.dialling.lock().await;
        match self.open_line().await {
            Some(line) => Ok(line),
            None => Box::pin(self.connect()).await,
        }
    }

    async fn open_line(self: &Arc<Self>) -> Option<Line> {
        if !self.speaks_http2.load(Ordering::Relaxed) {
            return self.idle_line().await;
        }
        let share = self.shared.share(Instant::now())?;
        if share.wants_replacement {
            tokio::spawn(Arc::clone(self).replace());
        }
        Some(Line::Shared(share))
    }

    /// Opens another shared connection in place of one that is old: no request waits for it.
    async fn replace(self: Arc<Self>) {
        let _one_at_a_time = self.dialling.lock().await;
        match self.connect().await {
            Ok(Line::Shared(_)) => {}
            Ok(Line::Own(connection)) => self.put_aside(connection),
            Err(error) => {
                let host = &*self.dialler.site.authority;
                let error = error.to_string();
                tracing::debug!(host, error, "an old connection is not replaced yet");
            }
        }
    }

    /// A connection that was put aside and lives.
    async fn idle_line(&self) -> Option<Line> {
        loop {
            let mut connection = lock(&self.idle).pop()?;
            let alive = poll_fn(|cx| Poll::Ready(connection.is_alive(cx))).await;
            if !alive {
                connection.close(Ending::Peer);
                continue;
            }
            let now = Instant::now();
            let unused = connection.is_unused(now).then_some(Ending::Unused);
            match unused.or_else(|| connection.life.spent(now)) {
                Some(ending) => connection.close(ending),
                None => return Some(Line::Own(connection)),
            }
        }
    }

    /// A connection that speaks HTTP/1.1, whatever else the host speaks: only there are protocols
    /// switched.
    async fn http1_line(&self) -> Result<Line, Error> {
        if let Some(line) = self.idle_line().await {
            return Ok(line);
        }
        let stream = Box::pin(self.dialler.dial(Speaks::Http1)).await?;
        self.begin_http1(stream).await
    }

    async fn begin_http1(&self, stream: Stream) -> Result<Line, Error> {
        let silence = self.deadlines.silence(self.patience);
        Ok(Line::Own(Connection::begin(stream, silence).await?))
    }

    async fn connect(&self) -> Result<Line, Error> {
        let stream = self.dialler.dial(Speaks::Any).await?;
        let http2 = negotiated_http2(&stream).unwrap_or(self.http2 == Http2::Always);
        self.speaks_http2.store(http2, Ordering::Relaxed);
        if !http2 {
            self.shared.empty();
            return self.begin_http1(stream).await;
        }
        Ok(Line::Shared(self.shared.begin(stream).await?))
    }
}

impl Reserve for Pool {
    fn give_up(&self) -> bool {
        let oldest = {
            let mut idle = lock(&self.idle);
            (!idle.is_empty()).then(|| idle.remove(0))
        };
        oldest.map(|oldest| oldest.close(Ending::Unused)).is_some()
    }
}

/// Whether a body must go on: all but events, which come when there are any.
pub fn goes_on(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    let events = b"text/event-stream";
    !kind.get(..events.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(events))
}

/// Whether it switches protocols.
fn is_switch(response: &http::Response<Incoming>) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS
}

/// Nothing can panic while one of these locks is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("host", &self.dialler.site.authority).finish_non_exhaustive()
    }
}
