//! One connection: its protocol, its requests, its end.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::{
    tls::Stream,
    wire::{Guard, Handle, Protocol, REFUSED, Refusal, Sniffed},
    worker::{Care, Watched},
};
use crate::{
    exchange::Arrival,
    message::{Body, BoxError, Malformed, Peer},
    problem::{Kind, Problem},
};

/// What one HTTP/2 connection may cost. All of it is hyper's to enforce; what is beyond ends the
/// connection with `ENHANCE_YOUR_CALM`.
mod http2_limits {
    /// Requests that may be under way at once: fewer than a worker has connections to the API.
    pub(super) const STREAMS: u32 = 100;
    /// Streams that the client resets before we have looked at them.
    pub(super) const RESETS: usize = 20;
    /// Streams that we have to reset, as the client breaks a rule.
    pub(super) const ERRORS: usize = 100;
    /// Of one request's body, what may wait until it is read.
    pub(super) const STREAM_WINDOW: u32 = 256 * 1024;
    /// The same of all requests together.
    pub(super) const CONNECTION_WINDOW: u32 = 1024 * 1024;
    /// Of one answer, what may wait until the client takes it.
    pub(super) const SEND_BUFFER: usize = 64 * 1024;
    /// The largest frame that the client may send; it is RFC 9113's smallest.
    pub(super) const FRAME: u32 = 16 * 1024;
    /// What the client may make us keep of header fields it repeats.
    pub(super) const HEADER_TABLE: u32 = 4096;
}

/// Serves what comes on `stream` until it ends.
pub(super) async fn serve(
    care: &Care,
    stream: Stream,
    peer: Peer,
    watched: &Watched,
) -> Result<(), BoxError> {
    let config = &care.edge.config;
    let guard = Guard::new(stream, config.max_header_bytes, watched.handle.clone());
    let mut sniffing = pin!(guard.sniff());
    let Sniffed { guard, protocol } = tokio::select! {
        sniffed = &mut sniffing => sniffed?,
        () = care.edge.draining.cancelled() => {
            // Nothing has been asked yet, so nothing is lost; but the client is told.
            watched.handle.expire();
            sniffing.await?
        }
    };
    let origin: Arc<str> = peer.to_string().into();
    let service = service_fn(|request: http::Request<Incoming>| {
        let is_refused = request.method() == REFUSED;
        let refusal = is_refused.then(|| refused(watched.handle.take_verdict()));
        // What was refused is no exchange to the guard: it is how a connection ends.
        let open = (!is_refused).then(|| Open::new(&watched.handle));
        let request = request.map(|body| Body::from(body).explained(explain));
        let arrival = Arrival { peer: peer.clone(), origin: Arc::clone(&origin), refusal };
        let answer = care.gateway.answer(request.into(), arrival);
        async move {
            answer.await.map(|response| {
                let open = open.map(|mut open| {
                    open.offer(true);
                    open
                });
                response.into_inner().map(|body| Sending { body, broken: None, open })
            })
        }
    });
    match protocol {
        Protocol::Http1 => {
            let connection = http1::Builder::new()
                .header_read_timeout(None) // the guard's business
                .max_buf_size(config.max_header_bytes.saturating_add(MARGIN))
                .serve_connection(guard, service);
            let mut connection = pin!(connection);
            let mut told = false;
            poll_fn(|cx| {
                match orders(care, watched, cx) {
                    Orders::Abandon => return Poll::Ready(Ok(())),
                    Orders::Finish if !std::mem::replace(&mut told, true) => {
                        connection.as_mut().graceful_shutdown();
                    }
                    Orders::Finish | Orders::GoOn => {}
                }
                connection.as_mut().poll(cx)
            })
            .await?;
        }
        Protocol::Http2 => {
            let header_list = u32::try_from(config.max_header_bytes).unwrap_or(u32::MAX);
            let connection = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(http2_limits::STREAMS)
                .max_pending_accept_reset_streams(http2_limits::RESETS)
                .max_local_error_reset_streams(http2_limits::ERRORS)
                .initial_stream_window_size(http2_limits::STREAM_WINDOW)
                .initial_connection_window_size(http2_limits::CONNECTION_WINDOW)
                .max_send_buf_size(http2_limits::SEND_BUFFER)
                .max_frame_size(http2_limits::FRAME)
                .header_table_size(http2_limits::HEADER_TABLE)
                .max_header_list_size(header_list)
                .serve_connection(guard, service);
            let mut connection = pin!(connection);
            let mut told = false;
            poll_fn(|cx| {
                let overdue = watched.handle.is_expired();
                match orders(care, watched, cx) {
                    Orders::Abandon => return Poll::Ready(Ok(())),
                    Orders::GoOn if !overdue => {}
                    Orders::Finish | Orders::GoOn if !std::mem::replace(&mut told, true) => {
                        connection.as_mut().graceful_shutdown();
                    }
                    Orders::Finish | Orders::GoOn => {}
                }
                connection.as_mut().poll(cx)
            })
            .await?;
        }
    }
    Ok(())
}

/// Room in hyper's buffer beyond the largest head: part of the body may come with it.
const MARGIN: usize = 16 * 1024;

/// What a connection is to do besides serving; whoever changes it wakes `cx`.
fn orders(care: &Care, watched: &Watched, cx: &Context<'_>) -> Orders {
    watched.waker.register(cx.waker());
    if watched.abandoned.load(Ordering::Relaxed) {
        Orders::Abandon
    } else if care.edge.draining.is_cancelled() {
        Orders::Finish
    } else {
        Orders::GoOn
    }
}

/// See [`orders`].
#[derive(Clone, Copy, Eq, PartialEq)]
enum Orders {
    GoOn,
    /// End with the present exchange.
    Finish,
    /// End now: the client does not even react to being told.
    Abandon,
}

/// What the guard found, where it is the guard that broke a body off.
fn explain(error: BoxError) -> BoxError {
    match Refusal::behind(&*error) {
        Some(refusal) => Malformed(refusal.to_string()).into(),
        None => error,
    }
}

/// What the caller of a refused message is told.
fn refused(verdict: Option<Refusal>) -> Problem {
    let Some(refusal) = verdict else {
        return Problem::new(Kind::MethodRefused, "The gateway does not relay this method.");
    };
    let kind = match refusal.status() {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Kind::HeadTooLarge,
        StatusCode::URI_TOO_LONG => Kind::TargetTooLong,
        StatusCode::REQUEST_TIMEOUT => Kind::RequestTimeout,
        _ => Kind::Malformed,
    };
    Problem::new(kind, refusal.to_string())
}

/// An exchange that is under way on a connection, until its answer is sent or given up.
struct Open {
    handle: Handle,
    /// Something of the answer is there, and the client has not taken it.
    offers: bool,
}

impl Open {
    fn new(handle: &Handle) -> Self {
        handle.opened();
        Self { handle: handle.clone(), offers: false }
    }

    fn offer(&mut self, offers: bool) {
        if self.offers != offers {
            self.offers = offers;
            self.handle.offer(offers);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.offer(false);
        self.handle.closed();
    }
}

/// A body that keeps its exchange open while it is being sent.
struct Sending {
    body: Body,
    /// Why the body broke off, until hyper is told.
    broken: Option<BoxError>,
    open: Option<Open>,
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Some(open) = &mut self.open {
            open.offer(frame.is_ready());
        }
        match ready!(frame) {
            Some(Err(error)) => {
                // At an error hyper throws away what it has not written yet, the head included;
                // while it has to wait, it writes.
                self.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.broken.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
