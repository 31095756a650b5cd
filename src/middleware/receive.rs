//! Opens the exchange; always answers.

use std::{
    convert::Infallible, future::poll_fn, panic::AssertUnwindSafe, pin::Pin, sync::Arc, task::Poll,
};

use futures_util::FutureExt;
use http::{HeaderValue, Method, header};
use http_body::Body as _;
use tracing::{debug, error, warn};

use super::{Answer, Next, audit::audit_unavailable};
use crate::{
    exchange::{Arrival, Exchange, REQUEST_ID},
    message::{Body, Direction, Peeked, Request, Response},
    problem::{Blame, Kind, Problem},
};

/// The assembled gateway: takes any request and answers every one. Cloning it is cheap.
#[derive(Clone)]
pub struct Gateway(Arc<dyn Fn(Request, Arrival) -> Answering + Send + Sync>);

/// An answer that is still to come. It cannot fail.
pub type Answering = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

impl Gateway {
    /// Puts `way` behind the door.
    pub fn new<N: Next>(way: N) -> Self {
        let receive = Arc::new(Receive { next: way });
        // The one allocation of a request's way: it gives memory back while a connection is idle.
        Self(Arc::new(move |request, arrival| {
            let receive = Arc::clone(&receive);
            Box::pin(async move { Ok(receive.answer(request, arrival).await) })
        }))
    }

    /// Answers `request`.
    pub fn answer(&self, request: Request, arrival: Arrival) -> Answering {
        (self.0)(request, arrival)
    }
}

/// The outermost layer: above it there are no errors any more, only responses.
#[derive(Debug)]
struct Receive<N> {
    next: N,
}

impl<N: Next> Receive<N> {
    async fn answer(&self, request: Request, arrival: Arrival) -> Response {
        let exchange = Exchange::open(request.method(), request.headers(), arrival);
        let watch = Arc::clone(&exchange);
        let request = request.map_body(|body| body.watched(watch, Direction::Request));

        // Nothing that a panic could leave half done is used afterwards: facts are written once.
        let way = AssertUnwindSafe(self.next.run(&exchange, request)).catch_unwind();
        let answer = way.await.unwrap_or_else(|_| Err(panicked()));
        let response = finish(&exchange, answer);
        written_down(&exchange, response).await
    }
}

/// Sees to it that the caller has no whole answer before the record is written. What is there as a
/// whole waits for it here, and can still become a problem; what is still coming waits at its end.
async fn written_down(exchange: &Arc<Exchange>, mut response: Response) -> Response {
    if !exchange.has_answered() {
        let peeked = peek(std::mem::take(response.body_mut())).await;
        let is_whole = matches!(peeked, Peeked::Whole(_));
        *response.body_mut() = match peeked {
            Peeked::Unfinished(body) => body,
            Peeked::Whole(bytes) => bytes.into(),
        };
        if !is_whole {
            return response;
        }
    }
    match exchange.settle().await {
        Ok(()) => response,
        Err(_) => finish(exchange, Err(audit_unavailable())),
    }
}

async fn peek(body: Body) -> Peeked {
    let mut body = Some(body);
    poll_fn(|cx| Poll::Ready(body.take().unwrap_or_default().peek(cx))).await
}

/// Whatever came of a request, made into the response that leaves us.
fn finish(exchange: &Arc<Exchange>, answer: Answer) -> Response {
    let (kind, mut response) = match answer {
        Ok(response) => (None, response),
        Err(problem) => {
            log(exchange, &problem);
            (Some(problem.kind()), problem.into_response(&exchange.id))
        }
    };
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, exchange.id.clone());
    headers.append(header::VIA, VIA);
    exchange.answered(response.status(), kind);
    debug!(
        id = ?exchange.id,
        method = exchange.method.as_str(),
        route = exchange.destination().ok().and_then(|to| to.route).map(|route| route.template),
        status = response.status().as_u16(),
        problem = kind.map(Kind::name),
        duration_us = exchange.elapsed().as_micros(),
        "request answered"
    );
    if exchange.method == Method::HEAD || response.body().is_end_stream() {
        exchange.answer_is_complete();
    }
    let watch = Arc::clone(exchange);
    response.map_body(|body| body.watched(watch, Direction::Response))
}

/// Who we are, to those who come later on the way (RFC 9110 section 7.6.3).
pub(super) const VIA: HeaderValue = HeaderValue::from_static("1.1 amove-gateway");

fn panicked() -> Problem {
    Problem::new(Kind::Internal, "The gateway has made a mistake.").caused_by("a layer panicked")
}

/// The only place where a problem is logged, with its causes.
fn log(exchange: &Exchange, problem: &Problem) {
    let (id, kind, causes) = (&exchange.id, problem.kind().name(), problem.causes());
    match problem.kind().blame() {
        _ if problem.kind() == Kind::Internal => {
            error!(?id, causes, "request failed by a mistake of ours")
        }
        // It has been told when that began.
        _ if matches!(problem.kind(), Kind::UpstreamPaused | Kind::CircuitOpen) => {
            debug!(?id, kind, causes, "request held back");
        }
        Blame::Service => warn!(?id, kind, causes, "request could not be served"),
        Blame::Denied | Blame::Stranger | Blame::Quota | Blame::Api => {
            debug!(?id, kind, causes, "request ended in a problem");
        }
    }
}
