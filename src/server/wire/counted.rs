//! A stream that remembers how much the latest read brought.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::gather;

const SCRATCH: usize = 16 * 1024;

thread_local! {
    /// One buffer for all connections of a thread, so that an idle connection owns none. It is
    /// taken out while it is in use: a read within a read finds none and makes its own.
    static SPARE: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// Lends the thread's scratch buffer.
pub(in crate::server) fn with_scratch<R>(work: impl FnOnce(&mut [u8]) -> R) -> R {
    let mut scratch = SPARE.take().unwrap_or_else(|| vec![0; SCRATCH].into_boxed_slice());
    let result = work(&mut scratch);
    SPARE.set(Some(scratch));
    result
}

/// Hyper's buffers cannot be asked afterwards how much was put into them; this can.
#[derive(Debug)]
pub(super) struct Counted<S> {
    stream: S,
    latest: usize,
}

impl<S> Counted<S> {
    pub(super) const fn new(stream: S) -> Self {
        Self { stream, latest: 0 }
    }

    pub(super) const fn stream(&self) -> &S {
        &self.stream
    }

    /// How many bytes the latest read brought.
    pub(super) const fn latest(&self) -> usize {
        self.latest
    }
}

impl<S: AsyncRead + Unpin> Counted<S> {
    /// Reads into the front of `scratch` and returns what was read: nothing at the end.
    pub(super) fn poll_fill<'a>(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &'a mut [u8],
    ) -> Poll<io::Result<&'a [u8]>> {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        let read = buffer.filled().len();
        Poll::Ready(Ok(scratch.get(..read).unwrap_or_default()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.latest = buffer.filled().len() - before;
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        gather::poll_write(Pin::new(&mut self.stream), cx, slices)
    }
}
