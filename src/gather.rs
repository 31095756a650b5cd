//! Small pieces in one plain write.
//!
//! A message is a head and a body, which hyper hands over as two pieces. For one or two small
//! pieces `writev` costs the system more than copying them costs us: half a microsecond of each
//! request, where both sides are counted.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is larger is not copied.
const SMALL: usize = 4 * 1024;

thread_local! {
    /// One buffer for all connections of a thread. It is taken out while it is in use.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Writes `slices` to `stream`: with one plain write, if they are few and small.
///
/// # Errors
///
/// The stream's.
pub fn poll_write<S: AsyncWrite>(
    stream: Pin<&mut S>,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [slice] = slices {
        return stream.poll_write(cx, slice);
    }
    if slices.iter().map(|slice| slice.len()).sum::<usize>() > SMALL {
        return stream.poll_write_vectored(cx, slices);
    }
    let mut bytes = SPARE.take();
    bytes.clear();
    slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
    let written = stream.poll_write(cx, &bytes);
    SPARE.set(bytes);
    written
}

/// A stream whose pieces are gathered.
#[derive(Debug)]
pub struct Gathered<S>(pub S);

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        poll_write(Pin::new(&mut self.0), cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Remembers how it was written to, and takes at most so many bytes at once.
    #[derive(Debug)]
    struct Recorder {
        room: usize,
        plain: Vec<Vec<u8>>,
        vectored: usize,
    }

    impl AsyncWrite for Recorder {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = bytes.len().min(self.room);
            self.plain.push(bytes[..taken].to_vec());
            Poll::Ready(Ok(taken))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.vectored += 1;
            Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn write(room: usize, pieces: &[&[u8]]) -> (usize, Recorder) {
        let mut stream = Gathered(Recorder { room, plain: Vec::new(), vectored: 0 });
        let slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let written = poll_fn(|cx| Pin::new(&mut stream).poll_write_vectored(cx, &slices)).await;
        (written.expect("written"), stream.0)
    }

    #[tokio::test]
    async fn what_is_small_goes_out_in_one_plain_write() {
        let (written, stream) = write(SMALL, &[b"head", b"", b"body"]).await;
        assert_eq!((written, stream.plain), (8, vec![b"headbody".to_vec()]));

        let (written, stream) = write(6, &[b"head", b"body"]).await;
        assert_eq!((written, stream.plain), (6, vec![b"headbo".to_vec()]), "as far as it goes");
    }

    #[tokio::test]
    async fn what_is_large_is_not_copied() {
        let large = vec![0; SMALL];

        let (written, stream) = write(SMALL, &[b"head", &large]).await;
        assert_eq!((written, stream.vectored, stream.plain.len()), (SMALL + 4, 1, 0));

        let (written, stream) = write(usize::MAX, &[&large]).await;
        assert_eq!(
            (written, stream.vectored, stream.plain.len()),
            (SMALL, 0, 1),
            "nor a single one"
        );
    }
}
