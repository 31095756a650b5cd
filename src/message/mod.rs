//! The one request, response and body type, and where a request comes from.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::clock::deadlines::Silence;

pub use self::{
    awaited::Wanted,
    peer::{Certificate, Peer},
    spare::Spare,
    trailers::{announced, may_trail},
    tunnel::{Duplex, Tunnel, TunnelEnd},
};
use awaited::Waiting;
use spare::Lent;

mod awaited;
mod peer;
mod spare;
mod trailers;
mod tunnel;

/// A request on its way to the API. Boxed: it is handed from layer to layer, and a pointer is
/// handed over sooner than some hundred bytes, ten times.
#[derive(Debug)]
pub struct Request(Box<http::Request<Body>>);

impl Request {
    /// A request for `/` with this body.
    pub fn new(body: Body) -> Self {
        Self(Box::new(http::Request::new(body)))
    }

    /// The request itself.
    pub fn into_inner(self) -> http::Request<Body> {
        *self.0
    }

    /// The same request with another body.
    #[must_use]
    pub fn map_body(mut self, change: impl FnOnce(Body) -> Body) -> Self {
        let body = std::mem::take(self.body_mut());
        *self.body_mut() = change(body);
        self
    }

    /// The same request once more, if all of its body is in memory.
    pub fn again(&self) -> Option<Self> {
        let mut again = Self::new(self.body().again()?);
        *again.method_mut() = self.method().clone();
        *again.uri_mut() = self.uri().clone();
        *again.headers_mut() = self.headers().clone();
        Some(again)
    }
}

impl From<http::Request<Body>> for Request {
    fn from(request: http::Request<Body>) -> Self {
        Self(Box::new(request))
    }
}

impl Deref for Request {
    type Target = http::Request<Body>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Request {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

/// A response on its way to the caller. Boxed, as a request is.
#[derive(Debug)]
pub struct Response(Box<http::Response<Body>>);

impl Response {
    /// A response with status 200 and this body.
    pub fn new(body: Body) -> Self {
        Self(Box::new(http::Response::new(body)))
    }

    /// The response itself.
    pub fn into_inner(self) -> http::Response<Body> {
        *self.0
    }

    /// The same response with another body.
    #[must_use]
    pub fn map_body(mut self, change: impl FnOnce(Body) -> Body) -> Self {
        let body = std::mem::take(self.body_mut());
        *self.body_mut() = change(body);
        self
    }
}

impl From<http::Response<Body>> for Response {
    fn from(response: http::Response<Body>) -> Self {
        Self(Box::new(response))
    }
}

impl Deref for Response {
    type Target = http::Response<Body>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Response {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

/// Any error, where only its text and its causes matter.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A message body: streamed, never collected unless somebody asks for it.
#[derive(Default)]
pub struct Body {
    source: Source,
    watch: Option<(Arc<dyn Watch>, Direction)>,
    /// Bytes that may still pass; `None`: any number.
    allowance: Option<u64>,
    /// Which fields may follow it.
    may_trail: Option<fn(&str) -> bool>,
    /// Says in our words what broke the body off.
    explain: Option<fn(BoxError) -> BoxError>,
    /// How long all of it may take.
    time: Option<Silence>,
    /// The end of the body, which waits until its watcher is ready for it.
    closing: Option<Box<Closing>>,
}

/// The last frame, if there is one, and what has to happen before it may go.
struct Closing {
    frame: Option<Frame<Bytes>>,
    ready: Close,
}

/// What a watcher does before the end of a body goes by.
pub type Close = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

#[derive(Default)]
enum Source {
    #[default]
    Empty,
    Full(Bytes),
    Incoming(Incoming),
    Driven(Incoming, Pin<Box<dyn Drive>>),
    /// What was read ahead (and counted then), and the rest.
    Resumed(Bytes, Box<Self>),
    Trailers(Box<HeaderMap>),
    /// What is not sent until it is wanted.
    Awaited(Box<(Waiting, Self)>),
    /// What may have to be given back.
    Lent(Lent),
    /// It has broken off, which nobody has been told yet.
    Broken(Option<BoxError>),
    /// No body: the API has switched protocols, and this is its side of the connection.
    Switched(Box<dyn Duplex>),
}

/// What moves a body forward: the connection it arrives on, polled by whoever reads the body.
pub trait Drive: Send {
    /// Lets the connection work, and takes what it has brought.
    fn poll_body(self: Pin<&mut Self>, body: &mut Incoming, cx: &mut Context<'_>) -> Driven;

    /// The body has been read to its end: the connection is free for another exchange.
    fn release(self: Pin<Box<Self>>);
}

/// What came of driving a connection.
#[derive(Debug)]
pub struct Driven {
    /// The body's next frame.
    pub frame: Poll<Option<Result<Frame<Bytes>, hyper::Error>>>,
    /// The connection has ended.
    pub ended: bool,
    /// It has been silent for too long.
    pub stalled: bool,
}

/// Who wants to know how much of a body has passed, and whether it was all.
pub trait Watch: Send + Sync {
    /// So many bytes of the body went by.
    fn passed(&self, direction: Direction, bytes: usize);

    /// Somebody wants more of it, but nothing has come.
    fn waits(&self, _direction: Direction) {}

    /// The body was read to its end. A body that is dropped or fails never gets here.
    fn completed(&self, direction: Direction);

    /// The body broke off with `error`.
    fn failed(&self, direction: Direction, error: &BoxError);

    /// What has to be done before the end of the body goes by, if anything; if it fails, the body
    /// breaks off instead.
    fn close(self: Arc<Self>, direction: Direction) -> Option<Close>;
}

/// What [`Body::peek`] found.
#[derive(Debug)]
pub enum Peeked {
    /// All of it.
    Whole(Bytes),
    /// More than has come, or nothing yet: the body as it was.
    Unfinished(Body),
}

/// Which way a body goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// From the caller to the API.
    Request,
    /// From the API to the caller.
    Response,
}

/// The body is larger than what is accepted.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the body is larger than it may be")]
pub struct TooLarge;

/// All of the body took longer than it may.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the body took longer in all than it may")]
pub struct Overdue;

/// The body did not go on in time.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the body did not go on in time")]
pub struct Stalled;

/// The body cannot be read in one way only; says what was found.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// The fields that follow a body, if there are any.
pub type Trailers = Option<Box<HeaderMap>>;

/// What [`Body::hold`] found.
#[derive(Debug)]
pub enum Held {
    /// The whole body, and the fields that followed it; it fits.
    Whole(Bytes, Trailers),
    /// It does not fit: the body as it was, nothing lost.
    TooLong(Body),
}

impl Body {
    /// No body at all.
    pub fn empty() -> Self {
        Self::default()
    }

    /// A body that arrives on `driver`'s connection, which only moves when the body is read.
    pub fn driven(incoming: Incoming, driver: Pin<Box<dyn Drive>>) -> Self {
        Self::from_source(Source::Driven(incoming, driver))
    }

    /// What stands in place of a body where the API has switched protocols: see
    /// [`Self::into_tunnel`].
    pub fn switched(far: Box<dyn Duplex>) -> Self {
        Self::from_source(Source::Switched(far))
    }

    /// Whether the API has switched protocols.
    pub fn is_switched(&self) -> bool {
        matches!(self.source, Source::Switched(_))
    }

    /// The tunnel to an API that has switched protocols; whoever watched the body watches it.
    pub fn into_tunnel(self) -> Option<Tunnel> {
        let Source::Switched(far) = self.source else { return None };
        Some(Tunnel { far, watch: self.watch.map(|(watch, _)| watch) })
    }

    /// Reports to `watch` what passes. A body has one watcher.
    #[must_use]
    pub fn watched(mut self, watch: Arc<dyn Watch>, direction: Direction) -> Self {
        self.watch = Some((watch, direction));
        self
    }

    /// Lets only those fields follow the body that `may_trail`; others are dropped.
    #[must_use]
    pub fn trailed(mut self, may_trail: fn(&str) -> bool) -> Self {
        self.may_trail = Some(may_trail);
        self
    }

    /// Nobody has read any of it.
    pub fn is_untouched(&self) -> bool {
        matches!(self.source, Source::Incoming(_) | Source::Awaited(_))
    }

    /// Sends nothing until it is `wanted`, which not everybody says: one second at most.
    #[must_use]
    pub fn awaited(mut self, wanted: Wanted) -> Self {
        let source = match std::mem::take(&mut self.source) {
            Source::Awaited(awaited) => awaited.1,
            source => source,
        };
        self.source = Source::Awaited(Box::new((Waiting::new(wanted), source)));
        self
    }

    /// Passes every error through `explain`, which may know more about it.
    #[must_use]
    pub fn explained(mut self, explain: fn(BoxError) -> BoxError) -> Self {
        self.explain = Some(explain);
        self
    }

    /// Breaks off with [`Overdue`] when it has taken all of its `time`, counted from when somebody
    /// first has to wait for it.
    pub fn bound(&mut self, time: Silence) {
        self.time = Some(time);
    }

    /// Breaks off with [`TooLarge`] after `limit` bytes.
    #[must_use]
    pub fn limited(mut self, limit: u64) -> Self {
        self.allowance = Some(limit);
        self
    }

    /// Reads the body into memory if it has at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// Whatever broke the body off.
    pub async fn hold(mut self, limit: usize) -> Result<Held, BoxError> {
        if self.size_hint().lower() > limit as u64 {
            return Ok(Held::TooLong(self));
        }
        let (mut held, mut trailers) = (BytesMut::new(), None);
        while let Some(frame) = self.frame().await {
            let data = match frame?.into_data() {
                Ok(data) => data,
                Err(frame) => {
                    trailers = frame.into_trailers().ok().map(Box::new);
                    continue;
                }
            };
            if held.is_empty() && self.is_end_stream() && data.len() <= limit {
                return Ok(Held::Whole(data, None));
            }
            held.extend_from_slice(&data);
            if held.len() > limit {
                let rest = std::mem::take(&mut self.source);
                self.source = Source::Resumed(held.freeze(), Box::new(rest));
                return Ok(Held::TooLong(self));
            }
        }
        Ok(Held::Whole(held.freeze(), trailers))
    }

    /// Looks whether the whole body is there already. What is read here goes by the watcher, but
    /// nothing is waited for.
    pub fn peek(mut self, cx: &mut Context<'_>) -> Peeked {
        let Poll::Ready(frame) = self.next_frame(cx) else { return Peeked::Unfinished(self) };
        match frame.map(|frame| frame.map(Frame::into_data)) {
            None => return Peeked::Whole(Bytes::new()),
            Some(Ok(Ok(data))) if self.source.is_end_stream() => return Peeked::Whole(data),
            Some(Ok(Ok(data))) => {
                let rest = std::mem::take(&mut self.source);
                self.source = Source::Resumed(data, Box::new(rest));
            }
            Some(Ok(Err(frame))) => {
                let trailers = frame.into_trailers().ok().map(Box::new);
                self.source = trailers.map_or(Source::Empty, Source::Trailers);
            }
            Some(Err(error)) => self.source = Source::Broken(Some(error)),
        }
        Peeked::Unfinished(self)
    }

    /// Waits for the body's first data, and puts it back.
    ///
    /// # Errors
    ///
    /// Whatever broke the body off.
    pub async fn begun(mut self) -> Result<Self, BoxError> {
        let Some(frame) = self.frame().await else { return Ok(self) };
        match frame?.into_data() {
            Ok(data) => {
                let rest = std::mem::take(&mut self.source);
                self.source = Source::Resumed(data, Box::new(rest));
            }
            Err(frame) => {
                let trailers = frame.into_trailers().ok().map(Box::new);
                self.source = trailers.map_or(Source::Empty, Source::Trailers);
            }
        }
        Ok(self)
    }

    /// A body that was held, as it was.
    pub fn held(bytes: Bytes, trailers: Trailers) -> Self {
        match trailers {
            Some(trailers) => {
                Self::from_source(Source::Resumed(bytes, Box::new(Source::Trailers(trailers))))
            }
            None => bytes.into(),
        }
    }

    /// The same body once more, if all of it is in memory. Nobody watches it.
    fn again(&self) -> Option<Self> {
        match &self.source {
            Source::Empty => Some(Self::empty()),
            Source::Full(bytes) => Some(bytes.clone().into()),
            Source::Resumed(bytes, rest) => match &**rest {
                Source::Trailers(trailers) => {
                    Some(Self::held(bytes.clone(), Some(trailers.clone())))
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn from_source(source: Source) -> Self {
        Self { source, ..Self::default() }
    }
}

impl Source {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self {
            Self::Empty | Self::Resumed(..) => Poll::Ready(None),
            Self::Awaited(awaited) => {
                ready!(awaited.0.poll(cx));
                let source = std::mem::take(&mut awaited.1);
                *self = source;
                self.poll_frame(cx)
            }
            Self::Lent(lent) => lent.poll_frame(cx),
            // It has no end that could be waited for.
            Self::Switched(_) => Poll::Pending,
            Self::Broken(error) => Poll::Ready(error.take().map(Err)),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Trailers(_) => {
                let Self::Trailers(trailers) = std::mem::take(self) else {
                    return Poll::Ready(None);
                };
                Poll::Ready(Some(Ok(Frame::trailers(*trailers))))
            }
            Self::Incoming(incoming) => {
                let frame = ready!(Pin::new(incoming).poll_frame(cx));
                if is_last(&frame) {
                    *self = Self::Empty;
                }
                Poll::Ready(frame.map(|frame| Ok(frame?)))
            }
            Self::Driven(incoming, driver) => {
                let Driven { frame, ended, stalled } = driver.as_mut().poll_body(incoming, cx);
                if frame.is_pending() && stalled {
                    return Poll::Ready(Some(Err(Stalled.into())));
                }
                if frame.is_pending() && ended {
                    return Poll::Ready(Some(Err("the connection ended within the body".into())));
                }
                let frame = ready!(frame);
                let finished = frame.is_none() || is_last(&frame) || incoming.is_end_stream();
                if finished
                    && !ended
                    && let Self::Driven(_, driver) = std::mem::take(self)
                {
                    driver.release();
                }
                Poll::Ready(frame.map(|frame| Ok(frame?)))
            }
        }
    }

    /// Asked many times for each message: what would keep it from being inlined stands apart.
    #[inline]
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Incoming(incoming) | Self::Driven(incoming, _) => incoming.is_end_stream(),
            Self::Awaited(_) | Self::Lent(_) => self.is_end_of_another(),
            Self::Resumed(..) | Self::Trailers(_) | Self::Broken(_) | Self::Switched(_) => false,
        }
    }

    #[cold]
    fn is_end_of_another(&self) -> bool {
        match self {
            Self::Awaited(awaited) => awaited.1.is_end_stream(),
            Self::Lent(lent) => lent.is_end_stream(),
            _ => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Awaited(awaited) => awaited.1.size_hint(),
            Self::Lent(lent) => lent.size_hint(),
            // With an exact size there is no place for trailers in HTTP/1.
            Self::Trailers(_) | Self::Broken(_) | Self::Switched(_) => SizeHint::default(),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Incoming(incoming) | Self::Driven(incoming, _) => incoming.size_hint(),
            Self::Resumed(ahead, rest) => {
                let (ahead, rest) = (ahead.len() as u64, rest.size_hint());
                let mut hint = SizeHint::new();
                hint.set_lower(ahead.saturating_add(rest.lower()));
                if let Some(upper) = rest.upper() {
                    hint.set_upper(ahead.saturating_add(upper));
                }
                hint
            }
        }
    }
}

/// Nothing follows trailers, and nobody looks whether something does.
fn is_last(frame: &Option<Result<Frame<Bytes>, hyper::Error>>) -> bool {
    matches!(frame, Some(Ok(frame)) if frame.is_trailers())
}

impl Body {
    /// Counts `frame`, refuses it when it is one too many, and looks what follows the body.
    fn account(&mut self, mut frame: Frame<Bytes>) -> Result<Frame<Bytes>, BoxError> {
        if let (Some(may_trail), Some(trailers)) = (self.may_trail, frame.trailers_mut()) {
            retain(trailers, may_trail);
        }
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        if let Some(allowance) = &mut self.allowance {
            *allowance = allowance.checked_sub(bytes as u64).ok_or(TooLarge)?;
        }
        if let Some((watch, direction)) = &self.watch {
            watch.passed(*direction, bytes);
        }
        Ok(frame)
    }
}

impl Body {
    /// The next frame, which its watcher has seen.
    fn next_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match self.source.poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending
                if self.time.as_mut().is_some_and(|time| time.poll_elapsed(cx).is_ready()) =>
            {
                Some(Err(Overdue.into()))
            }
            Poll::Pending => {
                if let Some((watch, direction)) = &self.watch {
                    watch.waits(*direction);
                }
                return Poll::Pending;
            }
        };
        let frame = match frame {
            Some(Ok(frame)) => Some(self.account(frame)),
            Some(Err(error)) => Some(Err(match self.explain {
                Some(explain) => explain(error),
                None => error,
            })),
            None => None,
        };
        let completed = frame.is_none() || self.source.is_end_stream();
        if let Some((watch, direction)) = &self.watch {
            match &frame {
                Some(Err(error)) => watch.failed(*direction, error),
                _ if completed => watch.completed(*direction),
                _ => {}
            }
        }
        if frame.as_ref().is_some_and(Result::is_err) {
            // A broken body stays broken: what is left must not be taken for its end.
            self.source = Source::Empty;
            self.watch = None;
        }
        Poll::Ready(frame)
    }

    /// Lets the watcher do what it has to before the end goes by.
    fn begin_closing(&mut self, frame: Option<Frame<Bytes>>) -> Option<Frame<Bytes>> {
        // It has seen everything now.
        let close = self.watch.take().and_then(|(watch, direction)| watch.close(direction));
        match close {
            Some(ready) => {
                self.closing = Some(Box::new(Closing { frame, ready }));
                None
            }
            None => frame,
        }
    }
}

fn retain(trailers: &mut HeaderMap, may_stay: fn(&str) -> bool) {
    let unwanted: Vec<_> =
        trailers.keys().filter(|name| !may_stay(name.as_str())).cloned().collect();
    for name in unwanted {
        trailers.remove(name);
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Source::Resumed(ahead, rest) = &mut self.source {
            // It was counted when it was read ahead.
            let (ahead, rest) = (std::mem::take(ahead), std::mem::take(&mut **rest));
            self.source = rest;
            return Poll::Ready(Some(Ok(Frame::data(ahead))));
        }
        if self.closing.is_none() {
            let frame = match ready!(self.next_frame(cx)) {
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) if !self.source.is_end_stream() => {
                    return Poll::Ready(Some(Ok(frame)));
                }
                Some(Ok(frame)) => Some(frame),
                None => None,
            };
            let frame = self.begin_closing(frame);
            if self.closing.is_none() {
                return Poll::Ready(frame.map(Ok));
            }
        }
        let Some(closing) = &mut self.closing else { return Poll::Ready(None) };
        let closed = ready!(closing.ready.as_mut().poll(cx));
        let frame = self.closing.take().and_then(|closing| closing.frame);
        Poll::Ready(match closed {
            Ok(()) => frame.map(Ok),
            Err(error) => Some(Err(error)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.closing.is_none() && self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.closing {
            Some(closing) => {
                let data = closing.frame.as_ref().and_then(Frame::data_ref);
                SizeHint::with_exact(data.map_or(0, Bytes::len) as u64)
            }
            None => self.source.size_hint(),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::from_source(if bytes.is_empty() { Source::Empty } else { Source::Full(bytes) })
    }
}

impl From<Incoming> for Body {
    fn from(incoming: Incoming) -> Self {
        let empty = incoming.is_end_stream();
        Self::from_source(if empty { Source::Empty } else { Source::Incoming(incoming) })
    }
}

impl fmt::Debug for Body {
    /// Never shows content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("size", &self.size_hint().exact()).finish_non_exhaustive()
    }
}
