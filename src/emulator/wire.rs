//! A connection that can be broken on purpose.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How a connection is broken.
#[derive(Debug)]
pub(super) enum Break {
    /// By a reset.
    Reset,
    /// By these bytes in place of an answer.
    Say(Bytes),
}

/// Breaks a connection when it is next written to.
#[derive(Debug, Default)]
pub(super) struct Saboteur {
    armed: AtomicBool,
    how: Mutex<Option<Break>>,
}

impl Saboteur {
    /// Breaks the connection with the next answer.
    pub(super) fn order(&self, how: Break) {
        *self.how.lock().unwrap_or_else(PoisonError::into_inner) = Some(how);
        self.armed.store(true, Ordering::Release);
    }

    fn strike(&self) -> Option<Break> {
        if !self.armed.load(Ordering::Acquire) {
            return None;
        }
        self.how.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The stream under a [`Wire`].
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection that can be broken on purpose.
pub(super) struct Wire {
    stream: Stream,
    /// What was read ahead.
    ahead: Bytes,
    saboteur: Arc<Saboteur>,
    /// What is said in place of an answer.
    saying: Option<Bytes>,
}

impl Wire {
    /// Wraps `stream`.
    pub(super) fn new(stream: Stream, saboteur: Arc<Saboteur>) -> Self {
        Self { stream, ahead: Bytes::new(), saboteur, saying: None }
    }

    /// Whether the client begins with the preface of HTTP/2.
    pub(super) async fn is_http2(&mut self) -> io::Result<bool> {
        let mut ahead = Vec::with_capacity(PREFACE.len());
        while ahead.len() < PREFACE.len() && PREFACE.starts_with(&ahead) {
            let missing = PREFACE.len() - ahead.len();
            if (&mut *self).take(missing as u64).read_buf(&mut ahead).await? == 0 {
                break;
            }
        }
        let http2 = ahead == PREFACE;
        self.ahead = ahead.into();
        Ok(http2)
    }

    fn tcp(&self) -> &TcpStream {
        match &self.stream {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => tls.get_ref().0,
        }
    }

    /// Says what is to be said instead, and then breaks.
    fn poll_break(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.saboteur.strike() {
            Some(Break::Reset) => {
                self.tcp().set_zero_linger()?;
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            Some(Break::Say(bytes)) => self.saying = Some(bytes),
            None => {}
        }
        let Some(saying) = &mut self.saying else { return Poll::Ready(Ok(())) };
        let mut stream = Pin::new(&mut self.stream);
        while saying.has_remaining() {
            let written = ready!(stream.as_mut().poll_write(cx, saying))?;
            saying.advance(written);
        }
        ready!(stream.poll_shutdown(cx))?;
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let some = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead.split_to(some));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_break(cx))?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_break(cx))?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, slices),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
