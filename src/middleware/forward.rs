//! Headers for the API; one attempt, in its turn and within its time.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Method, header};
use http_body::Body as _;
use tokio::time::timeout;

use super::{
    Answer, Next,
    entrance::{self, Entrance},
    receive::VIA,
    sanitise::sanitise_answer,
};
use crate::{
    amove::tags::Tags,
    clock::{Clock, deadlines::Deadlines},
    config,
    exchange::{Exchange, REQUEST_ID},
    message::{BoxError, Malformed, Request, Response, TooLarge},
    pause::Wish,
    problem::{Kind, Problem, TIMEOUT},
    slots::{Slot, Slots},
    upstream::{self, Step, Upstream, goes_on},
};

/// SignalR answers a long poll after a minute and a half, be it with nothing.
const LONG_POLL: Duration = Duration::from_secs(120);

/// The end of the way.
#[derive(Debug)]
pub struct Forward {
    upstream: Upstream,
    entrance: Entrance,
    response_timeout: Duration,
    /// What an attempt may take, its answer included.
    total_timeout: Option<Duration>,
    deadlines: Deadlines,
    clock: Clock,
}

impl Forward {
    /// Sends over `upstream` when one of `slots` is free, and waits as long as `config` says.
    pub fn new(
        upstream: Upstream,
        slots: &Slots,
        config: &config::Upstream,
        clock: &Clock,
    ) -> Self {
        let (response_timeout, deadlines) = (config.response_timeout, Deadlines::default());
        let entrance = Entrance::new(slots);
        let total_timeout = config.total_timeout;
        Self {
            upstream,
            entrance,
            response_timeout,
            total_timeout,
            deadlines,
            clock: clock.clone(),
        }
    }

    /// How long nothing may happen before there is a response, and how long all of it may take.
    fn patience(&self, exchange: &Exchange) -> Result<(Duration, Option<Duration>), Problem> {
        let route = exchange.destination()?.route;
        let is_realtime = route.is_some_and(|route| route.tags.contains(Tags::REALTIME));
        let (usual, total) = match is_realtime {
            true => (self.response_timeout.max(LONG_POLL), None),
            false => (self.response_timeout, self.total_timeout),
        };
        Ok((exchange.patience().unwrap_or(usual), total))
    }

    /// Waits for a response as long as the request still makes progress, and then once more.
    async fn send(
        &self,
        exchange: &Exchange,
        request: Request,
        slot: Slot,
        started: Instant,
    ) -> Answer {
        let host = exchange.destination()?.host();
        let mut sending = pin!(self.upstream.send_in(host, request, Some(slot)));
        let mut sent = exchange.bytes_in();
        let (patience, total) = self.patience(exchange)?;
        let mut left = total;
        loop {
            let within = left.map_or(patience, |left| patience.min(left));
            let sending = self.deadlines.within(within, sending.as_mut());
            if let Ok(response) = sending.await {
                return Ok(response?);
            }
            left = total.map(|total| total.saturating_sub(started.elapsed()));
            let is_callers_fault = exchange.awaits_caller();
            if left.is_some_and(|left| left.is_zero()) {
                return Err(too_long(is_callers_fault));
            }
            let progress = exchange.bytes_in();
            if progress == sent {
                return Err(if is_callers_fault { stalled() } else { timed_out() });
            }
            sent = progress;
        }
    }

    /// Sees to it that an answer is broken off which takes longer than all of it may; `took` is what
    /// its head has taken. Events take any time.
    fn bound(&self, exchange: &Exchange, response: &mut Response, took: Duration) {
        let Ok((_, Some(total))) = self.patience(exchange) else { return };
        if !response.body().is_end_stream() && goes_on(response.headers()) {
            let time = self.deadlines.silence(total.saturating_sub(took));
            response.body_mut().bound(time);
        }
    }
}

impl Next for Forward {
    async fn run(&self, exchange: &Arc<Exchange>, request: Request) -> Answer {
        let request = prepare(exchange, request, self.response_timeout).await?;
        let (turn, slot) = self.entrance.admit(exchange).await?;
        let started = Instant::now();

        let answer = self.send(exchange, request, slot, started).await;

        let status = answer.as_ref().ok().map(|response| response.status());
        let took = started.elapsed();
        exchange.attempted(status, took);
        entrance::heard(turn, &answer, took);
        let mut response = answer?;
        self.bound(exchange, &mut response, took);
        if let Some(wish) = Wish::of(response.status(), response.headers(), &self.clock) {
            exchange.set_wish(wish);
        }
        let mut response = sanitise_answer(response);
        if response.body().is_switched() {
            name_websocket(response.headers_mut());
        }
        // Answers hold credentials and personal data (contract section 8.1).
        let no_store = HeaderValue::from_static("no-store");
        response.headers_mut().entry(header::CACHE_CONTROL).or_insert(no_store);
        Ok(response)
    }
}

/// Makes of what the caller sent what the API receives: its target as it came, framed anew.
async fn prepare(
    exchange: &Exchange,
    mut request: Request,
    within: Duration,
) -> Result<Request, Problem> {
    // Of a target in absolute form only the path and the query are the API's business.
    if request.uri().scheme().is_some() {
        *request.uri_mut() =
            request.uri().path_and_query().cloned().map(Into::into).unwrap_or_default();
    }
    let body = request.body();
    if !body.is_end_stream() && body.size_hint().exact().is_none() {
        // Nothing leaves before the body has shown that it is well framed.
        let body = std::mem::take(request.body_mut());
        *request.body_mut() = Box::pin(in_time(within, body.begun())).await?;
    }
    let wants_length = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    let is_empty = request.body().is_end_stream();
    let has_size = request.body().size_hint().exact().is_some();
    // What has been read already, nobody waits to send.
    let waits = exchange.waits_to_send() && !is_empty && request.body().is_untouched();
    let headers = request.headers_mut();
    if is_empty && wants_length {
        // Servers refuse these methods without a length (contract section 4.1).
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    if waits {
        headers.insert(header::EXPECT, HeaderValue::from_static("100-continue"));
    }
    if has_size {
        headers.remove(header::TRAILER);
    } else if !is_empty && !wants_length {
        // Without a word hyper would leave the body of a GET out.
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    headers.insert(header::VIA, VIA);
    headers.insert(REQUEST_ID, exchange.id.clone());
    if exchange.wants_websocket() {
        name_websocket(headers);
    }
    Ok(request)
}

/// Asks the next hop for a WebSocket, or tells it that this is one now.
fn name_websocket(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

fn timed_out() -> Problem {
    Problem::new(
        Kind::UpstreamTimeout,
        "Amove did not answer in time; whether the request took effect is not known.",
    )
    .member(TIMEOUT, "response_header")
}

/// A caller who takes all the time says nothing about how Amove is.
fn too_long(is_callers_fault: bool) -> Problem {
    let kind = if is_callers_fault { Kind::RequestTimeout } else { Kind::UpstreamTimeout };
    let detail = "The request and its answer took longer than they may; whether it took effect is not known.";
    Problem::new(kind, detail).member(TIMEOUT, "total")
}

fn stalled() -> Problem {
    let detail = "The request's body did not go on; whether Amove has done something with what was \
        sent of it is not known.";
    Problem::new(Kind::RequestTimeout, detail).member(TIMEOUT, "request_body_stall")
}

impl From<upstream::Error> for Problem {
    fn from(error: upstream::Error) -> Self {
        use upstream::Error;
        let unreachable = "Amove cannot be reached; the request did not leave the gateway.";
        let problem = match error {
            Error::RequestBody(error) => return body_broke_off(error.into()),
            Error::ConnectTimeout { step, .. } => Self::new(Kind::UpstreamTimeout, unreachable)
                .member(TIMEOUT, step.name())
                .proxy_error(if step == Step::Lookup {
                    "dns_timeout"
                } else {
                    "connection_timeout"
                })
                .retry_after(Duration::from_secs(5)),
            Error::Lookup { ref host, .. } => {
                let detail = format!(
                    "The name {host} cannot be resolved; the request did not leave the gateway."
                );
                Self::new(Kind::UpstreamUnreachable, detail)
                    .proxy_error("dns_error")
                    .retry_after(Duration::from_secs(5))
            }
            Error::Unprocessed(_) => Self::new(
                Kind::UpstreamUnreachable,
                "Amove did not process the request; nothing of it took effect.",
            )
            .proxy_error("connection_terminated")
            .retry_after(Duration::from_secs(1)),
            Error::Roots(_) => Self::new(Kind::UpstreamUnreachable, unreachable)
                .retry_after(Duration::from_secs(5)),
            Error::Connect { ref source, .. } => Self::new(Kind::UpstreamUnreachable, unreachable)
                .proxy_error(no_connection(source))
                .retry_after(Duration::from_secs(5)),
            Error::Broken(_) => Self::new(
                Kind::UpstreamUnreachable,
                "Amove broke the connection off; whether the request took effect is not known.",
            )
            .proxy_error("connection_terminated"),
            Error::Ambiguous(_) => Self::new(
                Kind::UpstreamMalformed,
                "Amove's answer can be read in more than one way, so it was not passed on.",
            ),
        };
        problem.caused_by(error)
    }
}

/// Why there is no connection, in the words of RFC 9209.
fn no_connection(error: &std::io::Error) -> &'static str {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(_)) => "tls_certificate_error",
        Some(_) => "tls_protocol_error",
        None if error.kind() == std::io::ErrorKind::ConnectionRefused => "connection_refused",
        None => "destination_unavailable",
    }
}

/// What is read of the request's body before anything is sent; nobody waits for it for ever.
pub(super) async fn in_time<T>(
    within: Duration,
    reading: impl Future<Output = Result<T, BoxError>>,
) -> Result<T, Problem> {
    match timeout(within, reading).await {
        Ok(read) => read.map_err(body_broke_off),
        Err(_) => Err(Problem::new(
            Kind::RequestTimeout,
            "The request's body did not come in time; nothing was sent to Amove.",
        )
        .member(TIMEOUT, "request_body_stall")),
    }
}

/// The request's body did not come to its end: too large, malformed, or the caller has left.
pub(super) fn body_broke_off(error: BoxError) -> Problem {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&*error);
    while let Some(link) = cause {
        if link.is::<TooLarge>() {
            let detail = "The request's body is larger than the gateway accepts.";
            return Problem::new(Kind::TooLarge, detail);
        }
        if let Some(malformed) = link.downcast_ref::<Malformed>() {
            return Problem::new(Kind::Malformed, malformed.to_string());
        }
        cause = match link.downcast_ref::<std::io::Error>() {
            // What an I/O error carries is not its source but what its source is asked for.
            Some(carrier) => carrier.get_ref().map(|inner| inner as _),
            None => link.source(),
        };
    }
    Problem::new(Kind::Malformed, "The request's body broke off.").caused_by(error)
}
