//! One connection's life: where it goes, how old it may become, and why it ends.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};

use super::{counts::Ending, site::Site};

/// What is known of a connection from when it is opened until the last of it is dropped.
#[derive(Debug)]
pub(super) struct Life {
    site: Arc<Site>,
    address: SocketAddr,
    born: Instant,
    expires: Option<Instant>,
    /// When the name was last found to have the address: see [`super::addresses`].
    verified: AtomicU64,
    /// The first [`Ending`] that was found; 0: none yet.
    ending: AtomicU8,
}

impl Life {
    /// Begins now; lasts for as long as `site` says.
    pub(super) fn begin(site: &Arc<Site>, address: SocketAddr) -> Arc<Self> {
        let born = Instant::now();
        site.counts.opened();
        Arc::new(Self {
            address,
            born,
            expires: site.next_age().map(|age| born + age),
            // The answer may have changed while it was opened.
            verified: AtomicU64::new(u64::MAX),
            ending: AtomicU8::new(0),
            site: Arc::clone(site),
        })
    }

    /// Why it should take no further request, if so. While nothing has changed this compares two
    /// numbers and the time.
    pub(super) fn spent(&self, now: Instant) -> Option<Ending> {
        let generation = self.site.addresses.generation();
        if generation != self.verified.load(Relaxed) {
            if !self.site.addresses.contain(&self.address) {
                return Some(Ending::Moved);
            }
            self.verified.store(generation, Relaxed);
        }
        self.expires.is_some_and(|expires| expires <= now).then_some(Ending::Aged)
    }

    /// It ends, or is about to; the first reason is the one that counts.
    pub(super) fn end(&self, ending: Ending) {
        let _ = self.ending.compare_exchange(0, ending as u8, Relaxed, Relaxed);
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let ending = self.ending.load(Relaxed);
        let ending = Ending::ALL.into_iter().find(|it| *it as u8 == ending);
        self.site.counts.closed(ending.unwrap_or(Ending::Dropped), self.born.elapsed());
    }
}

/// The share of the longest age that the next connection gets: from 0.9 to 1, spread evenly over
/// those that follow each other, so that what was opened together is not closed together.
pub(super) fn aged(longest: Duration, seed: u64, number: u64) -> Duration {
    // Steps of the golden ratio: each falls into the widest gap between those before.
    let at = seed.wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    #[expect(clippy::cast_precision_loss, reason = "it need not be exact")]
    let share = at as f64 / u64::MAX as f64;
    longest.mul_f64(0.9 + 0.1 * share)
}

/// A TCP connection that knows of its life.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) tcp: TcpStream,
    pub(super) life: Arc<Life>,
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.remaining();
        let read = Pin::new(&mut self.tcp).poll_read(cx, buffer);
        match &read {
            Poll::Ready(Ok(())) if buffer.remaining() == before && before > 0 => {
                self.life.end(Ending::Peer);
            }
            Poll::Ready(Err(_)) => self.life.end(Ending::Broken),
            _ => {}
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_opened_together_is_not_closed_together() {
        let longest = Duration::from_secs(300);
        for seed in [0, 7, u64::MAX] {
            let mut ages: Vec<_> = (0..100).map(|number| aged(longest, seed, number)).collect();
            ages.sort();

            assert!(ages[0] >= Duration::from_secs(270) && ages[99] <= longest, "{ages:?}");
            let gap = ages.windows(2).map(|two| two[1] - two[0]).max().unwrap();
            assert!(gap < Duration::from_millis(900), "{gap:?}");
        }
    }
}
