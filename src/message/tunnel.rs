//! What is left of an exchange when the API has switched protocols: bytes, both ways.

use std::{fmt, sync::Arc};

use tokio::io::{AsyncRead, AsyncWrite};

use super::{BoxError, Direction, Watch};

/// A stream of bytes each way.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// The API's side of a connection that has switched protocols, and who wants to know what passes.
pub struct Tunnel {
    /// The API's side.
    pub far: Box<dyn Duplex>,
    /// Who is told how much passes, and how it ends.
    pub watch: Option<Arc<dyn Watch>>,
}

/// How a tunnel ended.
#[derive(Debug)]
pub enum TunnelEnd {
    /// The API closed it, or we did.
    Closed,
    /// The caller has left before.
    CallerLeft(BoxError),
    /// The API broke it off.
    Broken(BoxError),
}

impl Tunnel {
    /// So many bytes went by.
    pub fn passed(&self, direction: Direction, bytes: usize) {
        if let Some(watch) = &self.watch {
            watch.passed(direction, bytes);
        }
    }

    /// Lets go of the API's side, and tells its watcher how it ended; waits until that is written
    /// down.
    pub async fn end(self, end: TunnelEnd) {
        drop(self.far);
        let Some(watch) = self.watch else { return };
        match &end {
            TunnelEnd::Closed => watch.completed(Direction::Response),
            TunnelEnd::CallerLeft(error) => watch.failed(Direction::Request, error),
            TunnelEnd::Broken(error) => watch.failed(Direction::Response, error),
        }
        if let Some(close) = watch.close(Direction::Response) {
            // What could not be written now is written when the watcher is dropped.
            drop(close.await);
        }
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tunnel")
    }
}
