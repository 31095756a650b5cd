//! A caller's connection: in the clear over a unix socket, or TLS with HTTP/1.1 or HTTP/2.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
    rt::{Read, Write},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;

use crate::process_support::pki;

/// Where the gateway is.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) unix: PathBuf,
    pub(crate) tcp: SocketAddr,
    pub(crate) http1: TlsConnector,
    pub(crate) http2: TlsConnector,
}

/// A way to it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Unix,
    Http1,
    Http2,
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::Unix, Self::Http1, Self::Http2];
}

/// See above.
pub(crate) enum Line {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl Line {
    /// Opens one. Somebody who listens takes it, whatever else goes wrong.
    pub(crate) async fn open(door: &Arc<Door>, way: Way) -> Result<Self, String> {
        let broken = |error: &dyn std::error::Error| format!("no connection by {way:?}: {error}");
        match way {
            Way::Unix => {
                let stream = UnixStream::connect(&door.unix).await.map_err(|it| broken(&it))?;
                Self::http1(TokioIo::new(stream)).await.map_err(|it| broken(&it))
            }
            Way::Http1 => {
                let stream = pki::connect(&door.http1, door.tcp).await.map_err(|it| broken(&it))?;
                Self::http1(TokioIo::new(stream)).await.map_err(|it| broken(&it))
            }
            Way::Http2 => {
                let stream = pki::connect(&door.http2, door.tcp).await.map_err(|it| broken(&it))?;
                let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
                let (sender, connection) = shaken.map_err(|it| broken(&it))?;
                tokio::spawn(connection);
                Ok(Self::Two(sender))
            }
        }
    }

    async fn http1(io: impl Read + Write + Send + Unpin + 'static) -> hyper::Result<Self> {
        let (sender, connection) = http1::handshake(io).await?;
        tokio::spawn(connection);
        Ok(Self::One(sender))
    }

    /// Whether it can take another request.
    pub(crate) async fn is_open(&mut self) -> bool {
        match self {
            Self::One(sender) => sender.ready().await.is_ok(),
            Self::Two(sender) => sender.ready().await.is_ok(),
        }
    }

    /// Sends a request; gives it back if nothing of it was sent.
    pub(crate) async fn send(
        &mut self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, (hyper::Error, Option<Request<Full<Bytes>>>)> {
        let sent = match self {
            Self::One(sender) => sender.try_send_request(request).await,
            Self::Two(sender) => {
                let target = format!("https://localhost{}", request.uri());
                *request.uri_mut() = target.parse().expect("a URI");
                request.headers_mut().remove("host");
                sender.try_send_request(request).await
            }
        };
        sent.map_err(|mut error| {
            let request = error.take_message().map(|mut request| {
                let path = request.uri().path_and_query().expect("a path").as_str().to_owned();
                *request.uri_mut() = path.parse().expect("a URI");
                request.headers_mut().insert("host", http::HeaderValue::from_static("localhost"));
                request
            });
            (error.into_error(), request)
        })
    }
}
