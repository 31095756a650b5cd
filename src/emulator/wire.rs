//! A connection that can end badly, when that is ordered.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// How HTTP/2 begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How a connection is to end, if not well. Clones are about the same connection.
#[derive(Clone, Default)]
pub(super) struct Ending(Arc<Mutex<How>>);

#[derive(Default)]
struct How {
    reset: bool,
    instead: Option<Vec<u8>>,
}

impl Ending {
    /// The connection is reset when it is dropped.
    pub(super) fn reset(&self) {
        self.how(|how| how.reset = true);
    }

    /// The next thing that is written is `bytes` instead; then the connection ends.
    pub(super) fn say_instead(&self, bytes: String) {
        self.how(|how| how.instead = Some(bytes.into_bytes()));
    }

    fn how<T>(&self, look: impl FnOnce(&mut How) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A TCP stream under such orders.
pub(super) struct Wire {
    stream: TcpStream,
    ending: Ending,
    broken: bool,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> (Self, Ending) {
        let ending = Ending::default();
        (Self { stream, ending: ending.clone(), broken: false }, ending)
    }

    /// Looks at the first bytes without taking them.
    pub(super) async fn speaks_http2(&self) -> bool {
        let mut first = [0; PREFACE.len()];
        loop {
            match self.stream.peek(&mut first).await {
                Ok(0) | Err(_) => return false,
                Ok(seen) => {
                    let (seen, preface) = (first.get(..seen), PREFACE.get(..seen));
                    if seen != preface {
                        return false;
                    }
                    if seen.is_some_and(|seen| seen.len() == PREFACE.len()) {
                        return true;
                    }
                    // The rest of the preface comes with the next packet.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
    }

    fn broken() -> io::Error {
        io::ErrorKind::BrokenPipe.into()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.ending.how(|how| how.reset) {
            // Without lingering, a close is a reset.
            let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.broken {
            return Poll::Ready(Err(Self::broken()));
        }
        let Some(bytes) = self.ending.how(|how| how.instead.clone()) else {
            return Pin::new(&mut self.stream).poll_write(cx, buf);
        };
        // A few bytes fit into the system's buffer at once.
        let _ = ready!(Pin::new(&mut self.stream).poll_write(cx, &bytes))?;
        self.broken = true;
        Poll::Ready(Err(Self::broken()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
