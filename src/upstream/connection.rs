//! One connection to the API, polled by whoever is using it.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Weak,
    task::{Context, Poll, Waker},
};

use http::{StatusCode, header};
use http_body::Body as _;
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1},
};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::{
    Error,
    pool::{Counted, Pool, goes_on},
    quiet::Quiet,
    switched::{Switched, switches_to_websocket},
    tls::Stream,
};
use crate::{
    clock::deadlines::Silence,
    gather::Gathered,
    message::{Body, Drive, Driven, Request, Response, Wanted},
    slots::Slot,
};

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
    /// When it was last put aside.
    pub(super) idle_since: Instant,
    /// Where it belongs, and its right to be in use.
    lease: Option<(Weak<Pool>, Option<Slot>)>,
    counted: Counted,
}

impl Connection {
    /// Begins to speak HTTP/1.1 on `stream`.
    pub(super) async fn begin(
        stream: Stream,
        silence: Silence,
        counted: Counted,
    ) -> Result<Box<Self>, hyper::Error> {
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
            idle_since,
            lease: None,
            counted,
        }))
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
        let Self { driver, counted, .. } = *self;
        let parts = driver.into_parts();
        let far = Switched::new(parts.io.into_inner().0, parts.read_buf, (slot, counted));
        Ok(response.map(|_| Body::switched(Box::new(far))).into())
    }
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
        let Self { driver, quiet, silence, goes_on, .. } = &mut *self;
        let mut ended = false;
        let frame = quiet.poll(cx, |cx| {
            // First the connection, then what it has brought.
            ended = Pin::new(&mut *driver).poll(cx).is_ready();
            Pin::new(&mut *body).poll_frame(cx)
        });
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
