//! Serves HTTP/1: with hyper, whose buffers are large, only while there is something to serve.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::atomic::Ordering,
    task::Poll,
};

use http::{Request, Response};
use hyper::{body::Incoming, rt::Write, server::conn::http1, service::Service};

use super::{
    connection::{Orders, orders},
    sending::Sending,
    tls::Stream,
    tunnel,
    wire::Guard,
    worker::{Care, Watched},
};
use crate::message::BoxError;

/// Room in hyper's buffer beyond the largest head: part of the body may come with it.
const MARGIN: usize = 16 * 1024;

/// Serves what comes through `guard` until it ends. The head of a request has at most `max_head`
/// bytes.
pub(super) async fn serve<S>(
    care: &Care,
    watched: &Watched,
    max_head: usize,
    mut guard: Guard<Stream>,
    mut service: S,
) -> Result<(), BoxError>
where
    S: Service<Request<Incoming>, Response = Response<Sending>, Error: Into<BoxError>>,
{
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None) // the guard's business
        .max_buf_size(max_head.saturating_add(MARGIN));
    loop {
        guard = arrival(care, watched, guard).await?;
        watched.rests.store(false, Ordering::Relaxed);
        let mut connection = Box::new(builder.serve_connection(guard, service));
        let mut told = false;
        let ended = poll_fn(|cx| {
            match orders(care, watched, cx) {
                Orders::Abandon => return Poll::Ready(Ok(Ended::ForGood)),
                // Who asks once more is told with the answer that it was the last; who does not
                // waits without hyper.
                Orders::Finish if watched.handle.is_quiet() => {
                    watched.rests.store(true, Ordering::Relaxed);
                }
                Orders::Finish if !told && care.edge.closing.is_cancelled() => {
                    told = true;
                    Pin::new(&mut *connection).graceful_shutdown();
                }
                Orders::Finish | Orders::GoOn => {}
            }
            match Pin::new(&mut *connection).poll(cx) {
                Poll::Ready(result) => Poll::Ready(result.map(|()| Ended::ForGood)),
                Poll::Pending if !told && watched.may_rest() => Poll::Ready(Ok(Ended::ForNow)),
                Poll::Pending => Poll::Pending,
            }
        });
        let ended = ended.await?;
        let parts = connection.into_parts();
        (guard, service) = (parts.io, parts.service);
        guard.take_back(&parts.read_buf);
        if ended == Ended::ForGood {
            if let Some(tunnel) = watched.handle.take_tunnel() {
                Box::pin(tunnel::join(care, watched, guard, tunnel)).await;
                return Ok(());
            }
            // Where a switch was asked for once, hyper leaves it to us.
            return Ok(closed(care, watched, guard).await?);
        }
    }
}

/// Waits until hyper has something to do, be it only to end.
async fn arrival(
    care: &Care,
    watched: &Watched,
    guard: Guard<Stream>,
) -> Result<Guard<Stream>, BoxError> {
    let mut waiting = pin!(guard.arrived());
    tokio::select! {
        guard = &mut waiting => Ok(guard?),
        () = care.edge.closing.cancelled() => {
            watched.handle.expire();
            Ok(waiting.await?)
        }
    }
}

/// Ends a connection, unless it has ended already.
async fn closed(care: &Care, watched: &Watched, mut guard: Guard<Stream>) -> io::Result<()> {
    poll_fn(|cx| match orders(care, watched, cx) {
        Orders::Abandon => Poll::Ready(Ok(())),
        Orders::Finish | Orders::GoOn => Pin::new(&mut guard).poll_shutdown(cx),
    })
    .await
}

/// How hyper's part of a connection ended.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Ended {
    /// With the connection.
    ForGood,
    /// Until there is another request.
    ForNow,
}
