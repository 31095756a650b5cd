//! An accepted socket → a stream that can be served, and who is at its other end.

use std::{future::poll_fn, io, sync::Arc, task::Poll, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::either::Either;

use super::{Tls, client};
use crate::{
    message::Peer,
    server::worker::{Edge, Watched},
};

/// An accepted socket.
pub(in crate::server) type Socket = Either<TcpStream, UnixStream>;

/// What is served: a socket in the clear, or TLS over one.
pub(in crate::server) type Stream = Either<Socket, Box<TlsStream<TcpStream>>>;

/// A client that has been refused may take so long to read why.
const LINGER: Duration = Duration::from_secs(1);

/// What a client that has been refused may still send.
const LINGER_BYTES: u64 = 64 * 1024;

/// Makes `socket` what the configuration asks for; nothing if that has failed, or if the drain
/// began meanwhile: nothing has been asked yet, so nothing is lost.
///
/// A handshake counts against the time that a client has for its first head.
pub(in crate::server) async fn secure(
    edge: &Edge,
    socket: Socket,
    peer: Peer,
    watched: &Watched,
) -> Option<(Stream, Peer)> {
    let (tls, tcp, address) = match (&edge.tls, socket, peer) {
        (Some(tls), Either::Left(tcp), Peer::Tcp(address)) => (tls, tcp, address),
        (_, socket, peer) => return Some((Either::Left(socket), peer)),
    };
    let attempt = async {
        match tls.shake_hands(tcp).await {
            Ok(stream) => Some(stream),
            Err((error, tcp)) => {
                tracing::debug!(%address, error = error.to_string(), "TLS handshake failed");
                linger(tcp).await;
                None
            }
        }
    };
    let stream = tokio::select! {
        stream = attempt => stream?,
        () = overdue(watched) => {
            tracing::debug!(%address, "TLS handshake took too long");
            return None;
        }
        () = edge.closing.cancelled() => return None,
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.map(|certificate| Arc::new(client::names(certificate)));
    Some((Either::Right(Box::new(stream)), Peer::Tls { address, certificate }))
}

impl Tls {
    /// The error comes with the connection, on which the client has been told.
    async fn shake_hands(
        &self,
        tcp: TcpStream,
    ) -> Result<TlsStream<TcpStream>, (io::Error, TcpStream)> {
        TlsAcceptor::from(self.current.load_full()).accept(tcp).into_fallible().await
    }
}

/// Ends a connection so that its client can read why. What it sends meanwhile, unread, would
/// reset the connection, and the reset would overtake the alert.
async fn linger(mut tcp: TcpStream) {
    let ended = async {
        tcp.shutdown().await?;
        tokio::io::copy(&mut tcp.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    // However that ends, it is the end.
    let _ = timeout(LINGER, ended).await;
}

/// Waits until the sweep says that the client takes too long.
async fn overdue(watched: &Watched) {
    poll_fn(|cx| {
        watched.waker.register(cx.waker());
        if watched.handle.is_expired() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
