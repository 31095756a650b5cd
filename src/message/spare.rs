//! A request that can be taken back while nothing has come of it.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};

use super::{Body, BoxError, Request, Source};

/// What is left of a request that is on its way. What it keeps is let go with it.
#[derive(Debug)]
pub struct Spare {
    head: Request,
    /// Its body, if that is not in memory.
    lent: Option<Lent>,
}

impl Request {
    /// Keeps what is needed to send the request again: its head, and of a body that is not in memory
    /// the first `room` bytes that are read of it from now on.
    pub fn spare(&mut self, room: usize) -> Spare {
        if let Some(head) = self.again() {
            return Spare { head, lent: None };
        }
        let body = std::mem::take(self.body_mut());
        let head = self.again().unwrap_or_else(|| Self::new(Body::empty()));
        let lent = Lent(Arc::new(Mutex::new(State { body, sent: Vec::new(), room: Some(room) })));
        *self.body_mut() = Body::from_source(Source::Lent(lent.clone()));
        Spare { head, lent: Some(lent) }
    }
}

impl Spare {
    /// The request as it was, also if a part of its body has been read; whoever still has the first
    /// one gets nothing more of it. `None`: more has been read than there was room for, or the body
    /// has broken off.
    pub fn take_back(mut self) -> Option<Request> {
        if let Some(lent) = &self.lent {
            *self.head.body_mut() = lent.lock().take_back()?;
        }
        Some(std::mem::replace(&mut self.head, Request::new(Body::empty())))
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        if let Some(lent) = &self.lent {
            lent.lock().forget();
        }
    }
}

/// A body that whoever reads it may have to give back.
#[derive(Clone, Debug)]
pub(super) struct Lent(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    body: Body,
    /// What has been read of it.
    sent: Vec<Bytes>,
    /// How much more may be; `None`: it cannot be given back.
    room: Option<usize>,
}

impl State {
    fn keep(&mut self, frame: Option<&Result<Frame<Bytes>, BoxError>>) {
        let (Some(room), Some(frame)) = (self.room, frame) else { return };
        let data = frame.as_ref().ok().and_then(Frame::data_ref);
        match data.and_then(|data| Some((data, room.checked_sub(data.len())?))) {
            Some((data, left)) => {
                self.sent.push(data.clone());
                self.room = Some(left);
            }
            None => self.forget(),
        }
    }

    fn forget(&mut self) {
        (self.room, self.sent) = (None, Vec::new());
    }

    fn take_back(&mut self) -> Option<Body> {
        self.room?;
        let mut body = std::mem::take(&mut self.body);
        let sent: BytesMut = self.sent.drain(..).flatten().collect();
        if !sent.is_empty() {
            // It was counted when it was read.
            let rest = std::mem::take(&mut body.source);
            body.source = Source::Resumed(sent.freeze(), Box::new(rest));
        }
        Some(body)
    }
}

impl Lent {
    pub(super) fn poll_frame(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut state = self.lock();
        let frame = Pin::new(&mut state.body).poll_frame(cx);
        if let Poll::Ready(frame) = &frame {
            state.keep(frame.as_ref());
        }
        frame
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.lock().body.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.lock().body.size_hint()
    }

    /// Nothing can panic while this lock is held that leaves it in disorder.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    /// A body of two pieces, the first of which has been read ahead.
    fn streamed() -> Body {
        let rest = Source::Full(Bytes::from_static(b"rest"));
        Body::from_source(Source::Resumed(Bytes::from_static(b"first "), Box::new(rest)))
    }

    fn request(body: Body) -> Request {
        let mut request = Request::new(body);
        request.headers_mut().insert("x-kept", http::HeaderValue::from_static("1"));
        request
    }

    async fn whole(request: Request) -> (bool, Bytes) {
        let has_field = request.headers().contains_key("x-kept");
        (has_field, request.into_inner().into_body().collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn what_was_read_comes_back_with_the_rest() {
        for read in 0..=2 {
            let mut sent = request(streamed());
            let spare = sent.spare(10);
            assert_eq!(sent.body().size_hint().exact(), Some(10));
            for _ in 0..read {
                assert!(sent.body_mut().frame().await.unwrap().is_ok());
            }

            let back = spare.take_back().unwrap();

            assert!(sent.body().is_end_stream(), "whoever had it has nothing more of it");
            assert_eq!(back.body().size_hint().exact(), Some(10), "{read}");
            assert_eq!(whole(back).await, (true, Bytes::from_static(b"first rest")), "{read}");
        }
    }

    #[tokio::test]
    async fn what_is_in_memory_comes_back_as_often_as_one_likes() {
        let mut sent = request(Bytes::from_static(b"all").into());
        let spare = sent.spare(0);
        assert_eq!(whole(sent).await.1, "all");

        let mut again = spare.take_back().unwrap();
        let spare = again.spare(0);

        assert_eq!(whole(again).await.1, "all");
        assert_eq!(whole(spare.take_back().unwrap()).await, (true, Bytes::from_static(b"all")));
    }

    #[tokio::test]
    async fn what_is_too_long_or_has_broken_off_does_not_come_back() {
        let mut long = request(streamed());
        let spare = long.spare(9);
        assert_eq!(whole(long).await.1, "first rest", "it is sent all the same");
        assert!(spare.take_back().is_none());

        let mut broken = request(streamed().limited(3));
        broken.body_mut().allowance = Some(3);
        let spare = broken.spare(10);
        assert!(broken.into_inner().into_body().collect().await.is_err());
        assert!(spare.take_back().is_none());
    }

    #[tokio::test]
    async fn a_spare_that_is_dropped_keeps_nothing() {
        let mut sent = request(streamed());
        let spare = sent.spare(10);
        let Some(lent) = spare.lent.clone() else { panic!("it is not in memory") };
        assert!(sent.body_mut().frame().await.unwrap().is_ok());
        assert_eq!(lent.lock().sent.len(), 1);

        drop(spare);

        assert!(lent.lock().sent.is_empty());
        assert_eq!(whole(sent).await.1, "rest");
        assert!(lent.lock().sent.is_empty());
    }
}
