//! Whom we trust to be the API, and the stream that comes of it.

use std::{io, path::Path, sync::Arc};

use rustls::{
    ClientConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use rustls_platform_verifier::Verifier;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

use crate::{
    config::{self, BaseUrl, Http2},
    message::BoxError,
};

/// A connected stream: in the clear, or not.
pub(super) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Wraps connections into TLS where the base URL says `https`.
#[derive(Clone)]
pub(super) struct Tls(Option<TlsConnector>);

impl Tls {
    /// Trusts the system's roots and those of `upstream.ca_file`.
    pub(super) fn new(config: &config::Upstream) -> Result<Self, BoxError> {
        if !config.api_url.tls && !config.auth_url.tls {
            return Ok(Self(None));
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let extra = config.ca_file.as_deref().map(roots).transpose()?.unwrap_or_default();
        let verifier = Verifier::new_with_extra_roots(extra, Arc::clone(&provider))?;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous() // rustls' word for any verifier but its own; this one is the platform's
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        let protocols: &[&[u8]] = match config.http2 {
            Http2::Auto => &[b"h2", b"http/1.1"],
            Http2::Always => &[b"h2"],
            Http2::Never => &[b"http/1.1"],
        };
        client.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(Self(Some(TlsConnector::from(Arc::new(client)))))
    }

    /// Makes `tcp` what `base` asks for.
    pub(super) async fn wrap(&self, base: &BaseUrl, tcp: TcpStream) -> io::Result<Stream> {
        let (true, Some(connector)) = (base.tls, &self.0) else { return Ok(Stream::Left(tcp)) };
        let name = ServerName::try_from(base.host.to_string()).map_err(io::Error::other)?;
        Ok(Stream::Right(Box::new(connector.connect(name, tcp).await?)))
    }
}

fn roots(path: &Path) -> Result<Vec<CertificateDer<'static>>, BoxError> {
    let unreadable = |error| format!("cannot read upstream.ca_file {}: {error}", path.display());
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable)?;
    if certificates.is_empty() {
        return Err(format!("upstream.ca_file {} holds no certificate", path.display()).into());
    }
    Ok(certificates)
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tls").field(&self.0.is_some()).finish()
    }
}

/// Whether the handshake settled on HTTP/2; nothing is settled without TLS.
pub(super) fn negotiated_http2(stream: &Stream) -> Option<bool> {
    match stream {
        Stream::Left(_) => None,
        Stream::Right(stream) => Some(stream.get_ref().1.alpn_protocol() == Some(b"h2")),
    }
}
