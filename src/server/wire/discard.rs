//! Ends a connection so that the client can read the last answer.
//!
//! Closing a socket that has unread bytes resets the connection, and the reset overtakes our
//! answer. So what the client still sends is read and dropped for a while.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::rt::Write;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Guard, Mode, Phase, counted::with_scratch};

/// How much is dropped at most.
pub(super) const MAX: usize = 1024 * 1024;

impl<S: AsyncRead + AsyncWrite + Unpin> Guard<S> {
    /// Hyper wants more, and there will be nothing. The end is not reported either: hyper would
    /// take the client to be gone and drop the answer, but it may only have finished sending.
    pub(super) fn poll_refused(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_discard(cx))?;
        Poll::Pending
    }

    /// Closes our side. If the client may be sending still, waits until it has closed its own,
    /// has sent too much, or is overdue.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.finished {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            self.finished = true;
            // In another protocol the other direction may go on.
            if self.handle.phase() != Phase::Upgraded {
                self.handle.enter(Phase::Closing);
            }
        }
        if !self.is_interrupted() {
            return Poll::Ready(Ok(()));
        }
        self.handle.register(cx.waker());
        if self.handle.is_expired() {
            return Poll::Ready(Ok(()));
        }
        // The answer is out; how the client leaves is its own affair.
        self.poll_discard(cx).map(|_| Ok(()))
    }

    /// Whether a message was refused, or answered before it was read to its end.
    const fn is_interrupted(&self) -> bool {
        match self.mode {
            Mode::Refused | Mode::Broken(_) => true,
            Mode::Inspect | Mode::Resume => !self.inspector.is_between(),
            Mode::Undecided | Mode::Through => false,
        }
    }

    /// Reads and drops. Ready when there is nothing more to drop.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.discard > 0 {
            let read = with_scratch(|scratch| {
                self.io.inner_mut().poll_fill(cx, scratch).map_ok(|bytes| bytes.len())
            });
            self.discard = match ready!(read)? {
                0 => 0,
                read => self.discard.saturating_sub(read),
            };
        }
        Poll::Ready(Ok(()))
    }
}
