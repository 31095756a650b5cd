//! The stream to the API: in TLS, where its URL says so.

use std::{io, sync::Arc};

use rustls::pki_types::ServerName;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

use super::{life::Socket, trust};
use crate::{
    config::{self, BaseUrl, Http2},
    message::BoxError,
};

/// A connected stream: in the clear, or not.
pub(super) type Stream = Either<Socket, Box<TlsStream<Socket>>>;

/// Wraps connections into TLS where the base URL says `https`.
#[derive(Clone)]
pub(super) struct Tls(Option<Connectors>);

/// How to connect, by what is spoken afterwards.
#[derive(Clone)]
struct Connectors {
    /// What the configuration says.
    any: TlsConnector,
    http1: TlsConnector,
}

impl Tls {
    /// Trusts the system's roots and those of `upstream.ca_file`.
    pub(super) fn new(config: &config::Upstream) -> Result<Self, BoxError> {
        if !config.api_url.tls && !config.auth_url.tls {
            return Ok(Self(None));
        }
        let mut client = trust::client("upstream.ca_file", config.ca_file.as_deref())?;
        let protocols: &[&[u8]] = match config.http2 {
            Http2::Auto => &[b"h2", b"http/1.1"],
            Http2::Always => &[b"h2"],
            Http2::Never => &[b"http/1.1"],
        };
        let mut http1 = client.clone();
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        client.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let (any, http1) = (Arc::new(client).into(), Arc::new(http1).into());
        Ok(Self(Some(Connectors { any, http1 })))
    }

    /// Makes `socket` what `base` asks for.
    pub(super) async fn wrap(&self, base: &BaseUrl, socket: Socket) -> io::Result<Stream> {
        connect(self.0.as_ref().map(|connectors| &connectors.any), base, socket).await
    }

    /// The same, to speak HTTP/1.1 whatever else the host speaks.
    pub(super) async fn wrap_http1(&self, base: &BaseUrl, socket: Socket) -> io::Result<Stream> {
        connect(self.0.as_ref().map(|connectors| &connectors.http1), base, socket).await
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tls").field(&self.0.is_some()).finish()
    }
}

async fn connect(
    connector: Option<&TlsConnector>,
    base: &BaseUrl,
    socket: Socket,
) -> io::Result<Stream> {
    let (true, Some(connector)) = (base.tls, connector) else { return Ok(Stream::Left(socket)) };
    let name = ServerName::try_from(base.host.to_string()).map_err(io::Error::other)?;
    Ok(Stream::Right(Box::new(connector.connect(name, socket).await?)))
}

/// The connection below.
pub(super) fn socket(stream: &Stream) -> &Socket {
    match stream {
        Stream::Left(socket) => socket,
        Stream::Right(tls) => tls.get_ref().0,
    }
}

/// Whether the handshake settled on HTTP/2; nothing is settled without TLS.
pub(super) fn negotiated_http2(stream: &Stream) -> Option<bool> {
    match stream {
        Stream::Left(_) => None,
        Stream::Right(stream) => Some(stream.get_ref().1.alpn_protocol() == Some(b"h2")),
    }
}
