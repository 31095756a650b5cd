//! The connections to one host, owned by one worker.
//!
//! A worker polls a connection from the very task that serves the caller: nothing is handed over
//! between tasks or threads, and a packet causes one wake-up.

use std::{
    fmt,
    future::poll_fn,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use http::{HeaderMap, HeaderValue, StatusCode, Uri, Version, header, uri::PathAndQuery};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    Error, Step, UNASKED,
    connection::{Connection, Failed, Multiplexed},
    tls::{Stream, Tls, negotiated_http2},
};
use crate::{
    clock::deadlines::Deadlines,
    config::{self, Http2},
    message::{Body, Request, Response},
    slots::Slot,
};

/// How long an unused connection is kept: shorter than servers wait before they hang up.
const KEEP: Duration = Duration::from_secs(50);

/// How long the shared connection may be silent while answers are awaited, until it is asked
/// whether it still lives, and how long it has for its answer: else every request would wait for a
/// connection that is dead.
const ALIVE: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(10));

/// The connections to one host.
pub(super) struct Pool {
    base: config::BaseUrl,
    /// Host and port, as `Host` and `:authority` want them.
    authority: Arc<str>,
    host_header: Option<HeaderValue>,
    http2: Http2,
    connect_timeout: Duration,
    /// How long a body may be silent.
    patience: Duration,
    deadlines: Deadlines,
    tls: Tls,
    /// What the workers' pools for the same host know of each other.
    peers: Arc<Peers>,
    /// Last in, first out: what is not needed grows old and is closed.
    #[expect(
        clippy::vec_box,
        reason = "a connection is boxed for its whole life: it is a body's driver"
    )]
    idle: Mutex<Vec<Box<Connection>>>,
    /// The connection that all share, where the host speaks HTTP/2.
    shared: Mutex<Option<http2::SendRequest<Body>>>,
    /// Held while dialling a host known to speak HTTP/2: one connection is enough.
    dialling: tokio::sync::Mutex<()>,
    speaks_http2: AtomicBool,
}

/// What a request can be sent on.
enum Line {
    Own(Box<Connection>),
    Shared(http2::SendRequest<Body>),
}

impl Pool {
    pub(super) fn new(config: &config::Upstream, base: &config::BaseUrl, tls: Tls) -> Arc<Self> {
        let authority = authority(base);
        let peers = Arc::new(Peers::new(config.max_connections));
        Self {
            base: base.clone(),
            host_header: HeaderValue::from_str(&authority).ok(),
            authority,
            http2: config.http2,
            connect_timeout: config.connect_timeout,
            patience: config.response_timeout,
            deadlines: Deadlines::default(),
            tls,
            peers,
            idle: Mutex::default(),
            shared: Mutex::default(),
            dialling: tokio::sync::Mutex::default(),
            speaks_http2: AtomicBool::new(!base.tls && config.http2 == Http2::Always),
        }
        .join()
    }

    /// A pool for the same host without any connection yet.
    pub(super) fn sibling(&self) -> Arc<Self> {
        Self {
            base: self.base.clone(),
            authority: Arc::clone(&self.authority),
            host_header: self.host_header.clone(),
            http2: self.http2,
            connect_timeout: self.connect_timeout,
            patience: self.patience,
            deadlines: Deadlines::default(),
            tls: self.tls.clone(),
            peers: Arc::clone(&self.peers),
            idle: Mutex::default(),
            shared: Mutex::default(),
            dialling: tokio::sync::Mutex::default(),
            speaks_http2: AtomicBool::new(self.speaks_http2.load(Ordering::Relaxed)),
        }
        .join()
    }

    /// Lets the others know of it.
    fn join(self) -> Arc<Self> {
        let pool = Arc::new(self);
        let mut pools = lock(&pool.peers.pools);
        pools.retain(|other| other.strong_count() > 0);
        pools.push(Arc::downgrade(&pool));
        drop(pools);
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
                Line::Shared(mut sender) => {
                    self.address(&mut request);
                    match sender.try_send_request(request.into_inner()).await {
                        Ok(response) => {
                            let silence = goes_on(response.headers())
                                .then(|| self.deadlines.silence(self.patience));
                            let lease = Box::pin(Multiplexed { _slot: slot, silence });
                            return Ok(response.map(|body| Body::driven(body, lease)).into());
                        }
                        Err(error) => error.into(),
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

    /// Keeps `connection` for another exchange.
    pub(super) fn put_aside(&self, mut connection: Box<Connection>) {
        if self.speaks_http2.load(Ordering::Relaxed) {
            // It was for a switch of protocols; other requests share theirs.
            return;
        }
        let now = Instant::now();
        connection.idle_since = now;
        let mut idle = lock(&self.idle);
        // The oldest lie at the bottom; at most two a call, so that nobody pays for many.
        for _ in 0..2 {
            if idle.first().is_some_and(|oldest| now.duration_since(oldest.idle_since) > KEEP) {
                idle.remove(0);
            }
        }
        idle.push(connection);
    }

    /// A connection that lives: one put aside, the shared one, or a new one. What is seldom done is
    /// boxed, so that it takes no room in the future of every request.
    async fn line(&self) -> Result<Line, Error> {
        if let Some(line) = self.open_line().await {
            return Ok(line);
        }
        if !self.speaks_http2.load(Ordering::Relaxed) {
            return Box::pin(self.dial()).await;
        }
        let _one_at_a_time = self.dialling.lock().await;
        match self.open_line().await {
            Some(line) => Ok(line),
            None => Box::pin(self.dial()).await,
        }
    }

    async fn open_line(&self) -> Option<Line> {
        let shared = lock(&self.shared).clone();
        if let Some(mut sender) = shared {
            if sender.ready().await.is_ok() {
                return Some(Line::Shared(sender));
            }
            lock(&self.shared).take_if(|sender| sender.is_closed());
        }
        self.idle_line().await
    }

    /// A connection that was put aside and lives.
    async fn idle_line(&self) -> Option<Line> {
        loop {
            let mut connection = lock(&self.idle).pop()?;
            let alive = poll_fn(|cx| Poll::Ready(connection.is_alive(cx))).await;
            if alive && connection.idle_since.elapsed() < KEEP {
                return Some(Line::Own(connection));
            }
        }
    }

    /// A connection that speaks HTTP/1.1, whatever else the host speaks: only there are protocols
    /// switched.
    async fn http1_line(&self) -> Result<Line, Error> {
        match self.idle_line().await {
            Some(line) => Ok(line),
            None => {
                let is_there = AtomicBool::new(false);
                Box::pin(self.in_time(&is_there, self.connect_http1(&is_there))).await
            }
        }
    }

    async fn dial(&self) -> Result<Line, Error> {
        let is_there = AtomicBool::new(false);
        self.in_time(&is_there, self.connect(&is_there)).await
    }

    /// Waits for a connection; `is_there` is set when there is somebody to shake hands with.
    async fn in_time(
        &self,
        is_there: &AtomicBool,
        connecting: impl Future<Output = Result<Line, Error>>,
    ) -> Result<Line, Error> {
        match timeout(self.connect_timeout, connecting).await {
            Ok(line) => line,
            Err(_) => Err(Error::ConnectTimeout {
                host: Arc::clone(&self.authority),
                within: self.connect_timeout,
                step: if is_there.load(Ordering::Relaxed) { Step::Tls } else { Step::Connect },
            }),
        }
    }

    async fn connect_tcp(&self, is_there: &AtomicBool) -> io::Result<TcpStream> {
        let tcp = TcpStream::connect((&*self.base.host, self.base.port)).await?;
        tcp.set_nodelay(true)?;
        is_there.store(true, Ordering::Relaxed);
        Ok(tcp)
    }

    async fn connect_http1(&self, is_there: &AtomicBool) -> Result<Line, Error> {
        let failed = |source| Error::Connect { host: Arc::clone(&self.authority), source };
        let counted = Peers::count(&self.peers);
        let tcp = self.connect_tcp(is_there).await.map_err(failed)?;
        let stream = self.tls.wrap_http1(&self.base, tcp).await.map_err(failed)?;
        self.begin(stream, counted).await
    }

    /// A connection that one request at a time has for itself.
    async fn begin(&self, stream: Stream, counted: Counted) -> Result<Line, Error> {
        let silence = self.deadlines.silence(self.patience);
        Ok(Line::Own(Connection::begin(stream, silence, counted).await?))
    }

    async fn connect(&self, is_there: &AtomicBool) -> Result<Line, Error> {
        let failed = |source| Error::Connect { host: Arc::clone(&self.authority), source };
        let counted = Peers::count(&self.peers);
        let tcp = self.connect_tcp(is_there).await.map_err(failed)?;
        let stream = self.tls.wrap(&self.base, tcp).await.map_err(failed)?;
        let http2 = negotiated_http2(&stream).unwrap_or(self.http2 == Http2::Always);
        self.speaks_http2.store(http2, Ordering::Relaxed);
        if !http2 {
            return self.begin(stream, counted).await;
        }
        let (sender, driver) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(ALIVE.0)
            .keep_alive_timeout(ALIVE.1)
            .max_header_list_size(64 * 1024)
            .max_send_buf_size(64 * 1024)
            .max_pending_accept_reset_streams(20)
            .max_local_error_reset_streams(100)
            .adaptive_window(true)
            .handshake(TokioIo::new(stream))
            .await?;
        // Many exchanges share it, so none of them can drive it: it ends with its last sender.
        tokio::spawn(driver);
        *lock(&self.shared) = Some(sender.clone());
        Ok(Line::Shared(sender))
    }

    /// Puts scheme and authority into the URI, where HTTP/2 wants them.
    fn address(&self, request: &mut Request) {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme =
            Some(if self.base.tls { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP });
        parts.authority = self.authority.parse().ok();
        parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
        // Of whole and valid parts there is always a URI.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        let headers = request.headers_mut();
        headers.remove(header::HOST);
        headers.remove(header::TRANSFER_ENCODING);
        // There a body goes up when there is a window for it.
        headers.remove(header::EXPECT);
        *request.version_mut() = Version::HTTP_2;
    }
}

/// What the pools for one host know of each other.
pub(super) struct Peers {
    /// More connections than this are not kept open.
    limit: usize,
    open: AtomicUsize,
    pools: Mutex<Vec<Weak<Pool>>>,
}

/// One connection, as long as it is open.
pub(super) struct Counted(Arc<Peers>);

impl Peers {
    fn new(limit: usize) -> Self {
        Self { limit, open: AtomicUsize::new(0), pools: Mutex::default() }
    }

    /// Counts one connection more. Where that is one too many, another worker has put one aside that
    /// it does not need: there are never more in use.
    fn count(peers: &Arc<Self>) -> Counted {
        if peers.open.fetch_add(1, Ordering::Relaxed) >= peers.limit {
            let pools = lock(&peers.pools).clone();
            let mut pools = pools.iter().filter_map(Weak::upgrade);
            let oldest = pools.find_map(|pool| {
                let mut idle = lock(&pool.idle);
                (!idle.is_empty()).then(|| idle.remove(0))
            });
            drop(oldest);
        }
        Counted(Arc::clone(peers))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a body must go on: all but events, which come when there are any.
pub(super) fn goes_on(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    let events = b"text/event-stream";
    !kind.get(..events.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(events))
}

/// Whether it switches protocols.
fn is_switch(response: &http::Response<Incoming>) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS
}

/// Host and port, the port left out where it is the scheme's own.
fn authority(base: &config::BaseUrl) -> Arc<str> {
    let host =
        if base.host.contains(':') { format!("[{}]", base.host) } else { base.host.to_string() };
    let own = if base.tls { 443 } else { 80 };
    if base.port == own { host.into() } else { format!("{host}:{}", base.port).into() }
}

/// Nothing can panic while one of these locks is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("host", &self.authority).finish_non_exhaustive()
    }
}
