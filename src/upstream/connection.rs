//! One connection to the API, polled by whoever is using it.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{HeaderMap, StatusCode, header};
use http_body::Body as _;
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1},
};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::{
    Error,
    counts::Ending,
    life::Life,
    pool::{Pool, goes_on},
    quiet::Quiet,
    switched::{Switched, names, switches_to_websocket},
    tls::{Stream, socket},
};
use crate::{
    clock::deadlines::Silence,
    gather::Gathered,
    message::{Body, Drive, Driven, Request, Response, Wanted},
    slots::Slot,
};

/// How long an unused connection is kept: shorter than servers wait before they hang up.
const KEEP: Duration = Duration::from_secs(50);

/// A server that says when it will hang up may do so a little earlier, as seen from here.
const EARLIER: Duration = Duration::from_secs(1);

/// What an attempt on one connection ended with, if not with a response.
pub(super) enum Failed {
    /// Nothing was written: the request can go elsewhere.
    Unsent(Request),
    /// It cannot be known what the API received.
    Lost(Error),
}

impl From<TrySendError<http::Request<Body>>> for Failed {
    fn from(mut error: TrySendError<http::Request<Body>>) -> Self {
        match error.take_message() {
            Some(request) => Self::Unsent(request.into()),
            None => Self::Lost(error.into_error().into()),
        }
    }
}

impl From<hyper::Error> for Error {
    fn from(error: hyper::Error) -> Self {
        if error.is_user() { Self::RequestBody(error) } else { Self::Broken(error) }
    }
}

/// A connection that speaks HTTP/1.1: one exchange at a time.
pub(super) struct Connection {
    sender: http1::SendRequest<Body>,
    driver: http1::Connection<TokioIo<Gathered<Stream>>, Body>,
    /// Who is woken by any of this.
    quiet: Quiet,
    /// Whether the present request has a body, which may still be on its way when it is answered.
    sends_body: bool,
    /// How long the present answer says nothing, and whether that matters.
    silence: Silence,
    goes_on: bool,
    pub(super) life: Arc<Life>,
    /// When it was last put aside, and how long it may lie there.
    idle_since: Instant,
    keep: Duration,
    /// Where it belongs, and its right to be in use.
    lease: Option<(Weak<Pool>, Option<Slot>)>,
}

impl Connection {
    /// Begins to speak HTTP/1.1 on `stream`.
    pub(super) async fn begin(stream: Stream, silence: Silence) -> Result<Box<Self>, hyper::Error> {
        let life = Arc::clone(&socket(&stream).life);
        let (sender, driver) =
            http1::Builder::new().handshake(TokioIo::new(Gathered(stream))).await?;
        let (quiet, idle_since) = (Quiet::new(), Instant::now());
        Ok(Box::new(Self {
            sender,
            driver,
            quiet,
            sends_body: false,
            silence,
            goes_on: true,
            life,
            idle_since,
            keep: KEEP,
            lease: None,
        }))
    }

    /// Nobody needs it for now.
    pub(super) fn rest(&mut self, now: Instant) {
        self.idle_since = now;
    }

    /// Whether it has lain aside for too long.
    pub(super) fn is_unused(&self, now: Instant) -> bool {
        now.duration_since(self.idle_since) >= self.keep
    }

    /// It is not used again, and this is why.
    pub(super) fn close(self: Box<Self>, ending: Ending) {
        self.life.end(ending);
    }

    /// Whether it can take a request: notices that the API has closed it meanwhile.
    pub(super) fn is_alive(&mut self, cx: &mut Context<'_>) -> bool {
        let Self { driver, quiet, .. } = self;
        quiet.poll(cx, |cx| Pin::new(&mut *driver).poll(cx)).is_pending() && self.sender.is_ready()
    }

    /// Sends `request` and waits for the response's head.
    pub(super) async fn exchange(
        mut self: Box<Self>,
        mut request: Request,
    ) -> Result<(http::Response<Incoming>, Box<Self>), Failed> {
        if request.headers().contains_key(header::EXPECT) {
            request = until_wanted(request);
        }
        self.sends_body = !request.body().is_end_stream();
        let Self { sender, driver, quiet, .. } = &mut *self;
        let mut response = pin!(quiet.hush(|| sender.try_send_request(request.into_inner())));
        let received = poll_fn(|cx| {
            quiet.poll(cx, |cx| {
                // Where the connection ends, the response tells why.
                let _ = Pin::new(&mut *driver).poll(cx);
                response.as_mut().poll(cx)
            })
        })
        .await?;
        Ok((received, self))
    }

    /// Hands `response` over. When its body has been read, the connection goes back to `pool`.
    pub(super) fn deliver(
        mut self: Box<Self>,
        response: http::Response<Incoming>,
        pool: Weak<Pool>,
        slot: Option<Slot>,
    ) -> Response {
        self.lease = Some((pool, slot));
        self.keep = keep(response.headers());
        if response.body().is_end_stream() {
            // Nobody reads a body that is empty, so nobody would notice its end.
            Box::into_pin(self).release();
            return response.map(|_| Body::empty()).into();
        }
        self.goes_on = goes_on(response.headers());
        response.map(|body| Body::driven(body, Box::into_pin(self))).into()
    }

    /// Hands over what is left of the connection when the API has switched protocols with
    /// `response`.
    pub(super) async fn switch(
        mut self: Box<Self>,
        response: http::Response<Incoming>,
        slot: Option<Slot>,
    ) -> Result<Response, Error> {
        if !switches_to_websocket(response.headers()) {
            return Err(Error::Ambiguous("it switches to another protocol than was asked for"));
        }
        // Where hyper is not done with it, there is more to write, and no request has more.
        if poll_fn(|cx| Poll::Ready(self.driver.poll_without_shutdown(cx))).await.is_pending() {
            return Err(Error::Ambiguous("it switches protocols within the request"));
        }
        let Self { driver, .. } = *self;
        let parts = driver.into_parts();
        let far = Switched::new(parts.io.into_inner().0, parts.read_buf, slot);
        Ok(response.map(|_| Body::switched(Box::new(far))).into())
    }
}

/// How long the connection of this answer may lie aside: shorter than its server says it waits.
fn keep(headers: &HeaderMap) -> Duration {
    // The field means nothing where `Connection` does not name it.
    if !names(headers, &header::CONNECTION, b"keep-alive") {
        return KEEP;
    }
    let value = headers.get("keep-alive").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let timeout = value.split(',').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let is_it = name.trim().eq_ignore_ascii_case("timeout");
        is_it.then(|| value.trim().parse().ok()).flatten()
    });
    let timeout = timeout.map(Duration::from_secs);
    timeout.map_or(KEEP, |timeout| timeout.saturating_sub(EARLIER).min(KEEP))
}

/// Holds the body back until the API says that it wants it.
fn until_wanted(mut request: Request) -> Request {
    let wanted = Wanted::default();
    let told = wanted.clone();
    hyper::ext::on_informational(&mut *request, move |interim| {
        if interim.status() == StatusCode::CONTINUE {
            told.tell();
        }
    });
    request.map_body(|body| body.awaited(wanted))
}

impl Drive for Connection {
    fn poll_body(mut self: Pin<&mut Self>, body: &mut Incoming, cx: &mut Context<'_>) -> Driven {
        let Self { driver, quiet, silence, goes_on, life, .. } = &mut *self;
        let mut ended = false;
        let frame = quiet.poll(cx, |cx| {
            // First the connection, then what it has brought.
            ended = Pin::new(&mut *driver).poll(cx).is_ready();
            Pin::new(&mut *body).poll_frame(cx)
        });
        if ended {
            life.end(Ending::Peer);
        }
        let silence = goes_on.then_some(silence);
        let stalled = silence.is_some_and(|silence| is_too_long(silence, frame.is_pending(), cx));
        Driven { frame, ended, stalled }
    }

    fn release(self: Pin<Box<Self>>) {
        let mut connection = Pin::into_inner(self);
        // Answered ahead of its body: what is left of it must not wait here for the next request.
        if connection.sends_body && !connection.is_alive(&mut Context::from_waker(Waker::noop())) {
            return;
        }
        if let Some((pool, _slot)) = connection.lease.take()
            && let Some(pool) = pool.upgrade()
        {
            pool.put_aside(connection);
        }
    }
}

/// Whether nothing has come for too long.
fn is_too_long(silence: &mut Silence, is_silent: bool, cx: &Context<'_>) -> bool {
    if is_silent {
        return silence.poll_elapsed(cx).is_ready();
    }
    silence.end();
    false
}

/// An exchange on a connection that many share: it only holds its right to be under way.
pub(super) struct Multiplexed {
    /// How long the answer says nothing, if that matters.
    pub(super) silence: Option<Silence>,
    pub(super) _slot: Option<Slot>,
}

impl Drive for Multiplexed {
    fn poll_body(mut self: Pin<&mut Self>, body: &mut Incoming, cx: &mut Context<'_>) -> Driven {
        let frame = Pin::new(body).poll_frame(cx);
        let silence = self.silence.as_mut();
        let stalled = silence.is_some_and(|silence| is_too_long(silence, frame.is_pending(), cx));
        Driven { frame, ended: false, stalled }
    }

    fn release(self: Pin<Box<Self>>) {}
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[track_caller]
    fn check(connection: &'static str, keep_alive: &'static str, expected: u64) {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, HeaderValue::from_static(connection));
        headers.insert("keep-alive", HeaderValue::from_static(keep_alive));
        assert_eq!(keep(&headers), Duration::from_secs(expected), "{connection} {keep_alive}");
    }

    #[test]
    fn who_says_when_it_hangs_up_is_believed() {
        assert_eq!(keep(&HeaderMap::new()), KEEP);
        check("keep-alive", "timeout=5", 4);
        check("Keep-Alive, x", "max=100, Timeout = 30", 29);
        check("keep-alive", "timeout=1", 0);
        check("keep-alive", "timeout=0", 0);
        check("keep-alive", "timeout=600", 50);
        for nothing in ["", "timeout", "timeout=", "timeout=-1", "timeout=x", "max=5"] {
            check("keep-alive", nothing, 50);
        }
        check("x", "timeout=5", 50);
    }
}
