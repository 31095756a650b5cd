//! One connection: its protocol, its requests, its end.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::Context,
};

use http::{HeaderValue, StatusCode, header};
use hyper::{body::Incoming, service::service_fn};

use super::{
    http1, http2,
    sending::{Open, Sending},
    tls::Stream,
    wire::{Guard, Protocol, REFUSED, Refusal, Sniffed},
    worker::{Care, Watched},
};
use crate::{
    exchange::Arrival,
    message::{Body, BoxError, Malformed, Peer, Response},
    problem::{Kind, Problem, TIMEOUT},
};

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Serves what comes on `stream` until it ends.
pub(super) async fn serve(
    care: &Care,
    stream: Stream,
    peer: Peer,
    watched: &Watched,
) -> Result<(), BoxError> {
    // It stays as it is now, also after a reload.
    let max_head = care.edge.config().max_header_bytes;
    let guard = Guard::new(stream, max_head, watched.handle.clone());
    let mut sniffing = pin!(guard.sniff());
    let Sniffed { guard, protocol } = tokio::select! {
        sniffed = &mut sniffing => sniffed?,
        () = care.edge.closing.cancelled() => {
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
        let answer = care.live.answer(request.into(), arrival);
        // HTTP/2 has its own way to say so.
        let is_last = protocol == Protocol::Http1 && care.edge.ends.load(Ordering::Relaxed);
        async move {
            let answer = answer.await;
            answer.map(|it| sent(it, open, is_last))
        }
    });
    match protocol {
        Protocol::Http1 => http1::serve(care, watched, max_head, guard, service).await,
        Protocol::Http2 => Box::pin(http2::serve(care, watched, max_head, guard, service)).await,
    }
}

/// An answer as hyper takes it; the last one of its connection says so.
fn sent(answer: Response, open: Option<Open>, is_last: bool) -> http::Response<Sending> {
    let mut answer = answer.into_inner();
    if answer.body().is_switched()
        && let Some(tunnel) = std::mem::take(answer.body_mut()).into_tunnel()
        && let Some(open) = &open
    {
        open.switch(tunnel);
    }
    // What is left of an early one's request is not read, so that nothing can follow it. Hyper says so
    // itself, but not where the answer was there at once.
    let is_early = open.as_ref().is_some_and(Open::is_early);
    if is_early || (is_last && answer.status() != StatusCode::SWITCHING_PROTOCOLS) {
        answer.headers_mut().insert(header::CONNECTION, CLOSE);
    }
    answer.map(|body| Sending::new(body, open))
}

/// What a connection is to do besides serving; whoever changes it wakes `cx`.
pub(super) fn orders(care: &Care, watched: &Watched, cx: &Context<'_>) -> Orders {
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
pub(super) enum Orders {
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
    let problem = Problem::new(kind, refusal.to_string());
    // A body that does not go on has begun an exchange: it is refused by whoever waits for it.
    if kind == Kind::RequestTimeout { problem.member(TIMEOUT, "request_header") } else { problem }
}
