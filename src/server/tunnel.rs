//! A connection that has switched protocols: bytes pass both ways, and nobody looks at them.
//!
//! Each direction reads only when what it read before is written, ends for itself, and has no
//! buffer while nothing is under way.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    connection::{Orders, orders},
    tls::Stream,
    wire::{Guard, with_scratch},
    worker::{Care, Watched},
};
use crate::message::{Direction, Tunnel, TunnelEnd};

/// Joins the caller behind `guard` and the API behind `tunnel`, until both have ended, one of them
/// has broken off, both have been silent for too long, or the gateway ends.
pub(super) async fn join(care: &Care, watched: &Watched, guard: Guard<Stream>, mut tunnel: Tunnel) {
    let counted = Counted::new(&care.edge.tunnels);
    let mut near = TokioIo::new(guard);
    let (mut up, mut down) = (Flow::default(), Flow::default());
    let mut caller_left_first = false;
    let end = poll_fn(|cx| {
        if orders(care, watched, cx) == Orders::Abandon {
            return Poll::Ready(TunnelEnd::CallerLeft("the caller takes nothing".into()));
        }
        if care.edge.cutting.is_cancelled() || watched.handle.is_expired() {
            return Poll::Ready(TunnelEnd::Closed);
        }
        let mut passed = 0;
        let up_ended = up.poll(cx, &mut near, &mut tunnel.far, &mut passed);
        tunnel.passed(Direction::Request, std::mem::take(&mut passed));
        let down_ended = down.poll(cx, &mut tunnel.far, &mut near, &mut passed);
        tunnel.passed(Direction::Response, passed);
        caller_left_first |= up.has_ended() && !down.has_ended();
        match (up_ended, down_ended) {
            (Poll::Ready(Err(Broken::Reading(error))), _)
            | (_, Poll::Ready(Err(Broken::Writing(error)))) => {
                Poll::Ready(TunnelEnd::CallerLeft(error.into()))
            }
            // It does not listen any more to what the caller may still say.
            (Poll::Ready(Err(Broken::Writing(_))), _) if down.has_ended() => {
                Poll::Ready(TunnelEnd::Closed)
            }
            (Poll::Ready(Err(Broken::Writing(error))), _)
            | (_, Poll::Ready(Err(Broken::Reading(error)))) => {
                Poll::Ready(TunnelEnd::Broken(error.into()))
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) if caller_left_first => {
                Poll::Ready(TunnelEnd::CallerLeft("it closed its side first".into()))
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(TunnelEnd::Closed),
            (Poll::Pending, _) | (_, Poll::Pending) => Poll::Pending,
        }
    })
    .await;
    tracing::debug!(?end, "tunnel ended");
    if matches!(end, TunnelEnd::Closed) {
        // Politely, but whoever does not take the end now is not waited for.
        poll_fn(|cx| Poll::Ready(Pin::new(&mut near).poll_shutdown(cx).is_ready())).await;
        poll_fn(|cx| Poll::Ready(Pin::new(&mut tunnel.far).poll_shutdown(cx).is_ready())).await;
    }
    drop((near, counted));
    tunnel.end(end).await;
}

/// One direction.
#[derive(Debug, Default)]
struct Flow {
    /// Read and not written.
    held: Bytes,
    /// Written, and perhaps not sent.
    unsent: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    #[default]
    Flowing,
    /// Nothing more will be read.
    Ending,
    /// The other side knows.
    Ended,
}

/// Which side of a flow has failed.
#[derive(Debug)]
enum Broken {
    Reading(io::Error),
    Writing(io::Error),
}

impl Flow {
    fn has_ended(&self) -> bool {
        self.state != State::Flowing
    }

    /// Moves what there is; ready when there will be nothing more and `to` knows it. How many bytes
    /// were written is added to `passed`.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        passed: &mut usize,
    ) -> Poll<Result<(), Broken>> {
        loop {
            while !self.held.is_empty() {
                let written = ready!(write(cx, to, &self.held)).map_err(Broken::Writing)?;
                self.held.advance(written);
                self.unsent = true;
                *passed += written;
            }
            self.held = Bytes::new();
            match self.state {
                State::Flowing => {
                    if ready!(self.poll_move(cx, from, to, passed))? == 0 {
                        self.state = State::Ending;
                    }
                }
                State::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(Broken::Writing)?;
                    self.state = State::Ended;
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Reads once and writes that at once, as far as it is taken. Says how much was read.
    fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        passed: &mut usize,
    ) -> Poll<Result<usize, Broken>> {
        with_scratch(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(from).poll_read(cx, &mut buffer) {
                Poll::Ready(read) => read.map_err(Broken::Reading)?,
                Poll::Pending => {
                    if self.unsent {
                        ready!(Pin::new(to).poll_flush(cx)).map_err(Broken::Writing)?;
                        self.unsent = false;
                    }
                    return Poll::Pending;
                }
            }
            let read = buffer.filled();
            if read.is_empty() {
                return Poll::Ready(Ok(0));
            }
            let written = match write(cx, to, read) {
                Poll::Ready(written) => written.map_err(Broken::Writing)?,
                Poll::Pending => 0,
            };
            self.unsent = true;
            *passed += written;
            self.held = Bytes::copy_from_slice(read.get(written..).unwrap_or_default());
            Poll::Ready(Ok(read.len()))
        })
    }
}

fn write(
    cx: &mut Context<'_>,
    to: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(to).poll_write(cx, bytes))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        written => Poll::Ready(Ok(written)),
    }
}

/// Counts a tunnel as long as it is open.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(open: &'a AtomicUsize) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(open)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
