//! An answer on its way to the client, until which its exchange is open.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::wire::Handle;
use crate::message::{Body, BoxError, Tunnel};

/// An exchange that is under way on a connection, until its answer is sent or given up.
pub(super) struct Open {
    handle: Handle,
    /// How many there have been on its connection.
    number: u32,
    /// Something of the answer is there, and the client has not taken it.
    offers: bool,
}

impl Open {
    /// Counts it in.
    pub(super) fn new(handle: &Handle) -> Self {
        let number = handle.opened();
        Self { handle: handle.clone(), number, offers: false }
    }

    /// The API has switched protocols: after the head of this answer, everything goes through
    /// `tunnel`.
    pub(super) fn switch(&self, tunnel: Tunnel) {
        self.handle.switch(tunnel);
    }

    /// Whether the request has not arrived to its end. In HTTP/2 that concerns nobody else.
    pub(super) fn is_early(&self) -> bool {
        self.handle.is_arriving(self.number)
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

/// The body of an answer; it keeps its exchange open while it is being sent.
pub(super) struct Sending {
    body: Body,
    /// Why the body broke off, until hyper is told.
    broken: Option<BoxError>,
    open: Option<Open>,
}

impl Sending {
    /// Sends `body`; what was refused is no exchange, and has nothing to keep open.
    pub(super) fn new(body: Body, mut open: Option<Open>) -> Self {
        if let Some(open) = &mut open {
            // Its head is there.
            open.offer(true);
        }
        Self { body, broken: None, open }
    }
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
