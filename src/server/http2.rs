//! Serves HTTP/2.
//!
//! What one connection may cost is bounded below. All of it is hyper's to enforce; what is beyond
//! ends the connection with `ENHANCE_YOUR_CALM`.

use std::{future::poll_fn, task::Poll};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::Service};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::{
    connection::{Orders, orders},
    sending::Sending,
    tls::Stream,
    wire::Guard,
    worker::{Care, Watched},
};
use crate::message::BoxError;

/// Requests that may be under way at once: fewer than a worker has connections to the API.
const STREAMS: u32 = 100;
/// Streams that the client resets before we have looked at them.
const RESETS: usize = 20;
/// Streams that we have to reset, as the client breaks a rule.
const ERRORS: usize = 100;
/// Of one request's body, what may wait until it is read.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same of all requests together.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Of one answer, what may wait until the client takes it.
const SEND_BUFFER: usize = 64 * 1024;
/// The largest frame that the client may send; it is RFC 9113's smallest.
const FRAME: u32 = 16 * 1024;
/// What the client may make us keep of header fields it repeats.
const HEADER_TABLE: u32 = 4096;

/// Serves what comes through `guard` until it ends. The head of a request has at most `max_head`
/// bytes.
pub(super) async fn serve<S>(
    care: &Care,
    watched: &Watched,
    max_head: usize,
    guard: Guard<Stream>,
    service: S,
) -> Result<(), BoxError>
where
    S: Service<Request<Incoming>, Response = Response<Sending>>,
    S: Service<Request<Incoming>, Error: Into<BoxError>, Future: Send + 'static>,
{
    let connection = builder(max_head).serve_connection(guard, service);
    let mut connection = Box::pin(connection);
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
    Ok(())
}

/// How connections are served. Each request has a task of its own: what dies is one answer.
fn builder(max_head: usize) -> http2::Builder<TokioExecutor> {
    let header_list = u32::try_from(max_head).unwrap_or(u32::MAX);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(ERRORS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_frame_size(FRAME)
        .header_table_size(HEADER_TABLE)
        .max_header_list_size(header_list);
    builder
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        pin::Pin,
        task::{Context, Poll},
    };

    use bytes::Bytes;
    use http_body::Frame;
    use http_body_util::{BodyExt, Empty};
    use hyper::{client, service::service_fn};
    use hyper_util::rt::TokioIo;

    use super::*;

    /// A body that has one frame, or that dies.
    struct Mortal {
        dies: bool,
        frames: usize,
    }

    impl http_body::Body for Mortal {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            assert!(!self.dies, "this answer dies");
            self.frames = self.frames.saturating_sub(1);
            let frame = (self.frames > 0).then(|| Frame::data(Bytes::from_static(b"well")));
            Poll::Ready(frame.map(Ok))
        }
    }

    #[tokio::test]
    async fn an_answer_that_dies_takes_no_other_with_it() {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let service = service_fn(async |request: Request<Incoming>| {
            let dies = request.uri().path() == "/dies";
            Ok::<_, Infallible>(Response::new(Mortal { dies, frames: 2 }))
        });
        let served = builder(16 * 1024).serve_connection(TokioIo::new(far), service);
        tokio::spawn(served);
        let handshake = client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near));
        let (mut sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        let mut get = async |path: &str| {
            let uri = format!("http://localhost{path}");
            let request = Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
            let answer = sender.send_request(request).await.unwrap();
            answer.into_body().collect().await.map(http_body_util::Collected::to_bytes)
        };

        let (first, dies, last) = (get("/").await, get("/dies").await, get("/").await);

        assert_eq!(first.unwrap(), "well");
        assert!(dies.is_err());
        assert_eq!(last.unwrap(), "well");
    }
}
