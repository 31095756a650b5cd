//! Waits for a request without hyper, whose buffers are larger than all else that a connection
//! needs.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll, ready},
};

use hyper::rt::ReadBuf;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Guard, Mode, Next};

/// How much is read ahead of hyper: a head, usually.
const AHEAD: usize = 8 * 1024;

impl<S: AsyncRead + AsyncWrite + Unpin> Guard<S> {
    /// Waits until hyper has something to do: a whole head, an end, or a verdict.
    ///
    /// # Errors
    ///
    /// Whatever happened to the stream.
    pub async fn arrived(mut self) -> io::Result<Self> {
        poll_fn(|cx| self.poll_arrived(cx)).await?;
        Ok(self)
    }

    /// Takes back what hyper has read and not used.
    pub fn take_back(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let later = self.ready.split();
            self.ready.extend_from_slice(bytes);
            self.ready.extend_from_slice(&later);
        }
    }

    fn poll_arrived(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.handle.register(cx.waker());
        // There is no room: all that is good is put aside for hyper.
        let mut nothing = ReadBuf::new(&mut []);
        loop {
            if !self.ready.is_empty() || self.handle.is_expired() {
                return Poll::Ready(Ok(()));
            }
            let next = match self.mode {
                Mode::Inspect => ready!(self.poll_inspect(cx, AHEAD, &mut nothing.unfilled()))?,
                Mode::Resume => self.resume(&mut nothing.unfilled()),
                Mode::Undecided | Mode::Through | Mode::Refused | Mode::Broken(_) => {
                    return Poll::Ready(Ok(()));
                }
            };
            if matches!(next, Next::End) {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
