//! Finds out from its first bytes which protocol a client speaks.

use std::{
    future::poll_fn,
    io, mem,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Guard, Mode, Phase, counted::with_scratch};

/// How a client of HTTP/2 begins (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// HTTP/1.0 or 1.1, or nothing that we know; the guard inspects it.
    Http1,
    /// HTTP/2; the guard only keeps its time.
    Http2,
}

/// A connection whose protocol is known. Hyper will read it from its first byte.
#[derive(Debug)]
pub struct Sniffed<S> {
    /// The connection.
    pub guard: Guard<S>,
    /// What its client speaks.
    pub protocol: Protocol,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guard<S> {
    /// Reads until it is clear which protocol the client speaks.
    ///
    /// # Errors
    ///
    /// Whatever happened to the stream.
    pub async fn sniff(mut self) -> io::Result<Sniffed<S>> {
        let protocol = poll_fn(|cx| self.poll_sniff(cx)).await?;
        match protocol {
            Protocol::Http1 => self.mode = Mode::Resume,
            Protocol::Http2 => {
                self.mode = Mode::Through;
                self.ready.extend_from_slice(&mem::take(&mut self.held));
                self.handle.enter(Phase::Http2);
            }
        }
        Ok(Sniffed { guard: self, protocol })
    }

    fn poll_sniff(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Protocol>> {
        self.handle.register(cx.waker());
        loop {
            if self.held.starts_with(PREFACE) {
                return Poll::Ready(Ok(Protocol::Http2));
            }
            if self.handle.is_expired() || !PREFACE.starts_with(&self.held) {
                return Poll::Ready(Ok(Protocol::Http1));
            }
            let read = with_scratch(|scratch| {
                let bytes = ready!(self.io.inner_mut().poll_fill(cx, scratch))?;
                self.held.extend_from_slice(bytes);
                Poll::Ready(io::Result::Ok(bytes.len()))
            });
            if ready!(read)? == 0 {
                return Poll::Ready(Ok(Protocol::Http1));
            }
            self.handle.enter(Phase::Head);
        }
    }
}
