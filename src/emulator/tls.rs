//! The test CA, and what it certifies.

use std::{io, net::IpAddr, path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio_rustls::TlsAcceptor;

/// Writes a new CA to `ca.pem` in `directory`, and accepts TLS with a certificate of it.
///
/// The certificate is good for `localhost`, the loopback addresses and `addresses`. Its key, and
/// that of the CA, never leave memory.
pub(super) fn acceptor(
    directory: &Path,
    addresses: &[IpAddr],
    http2: bool,
) -> io::Result<TlsAcceptor> {
    let ca_key = KeyPair::generate().map_err(io::Error::other)?;
    let mut ca = CertificateParams::new([]).map_err(io::Error::other)?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.distinguished_name.push(DnType::CommonName, "Amove emulator test CA");
    let ca_certificate = ca.self_signed(&ca_key).map_err(io::Error::other)?;
    std::fs::create_dir_all(directory)?;
    std::fs::write(directory.join("ca.pem"), ca_certificate.pem())?;

    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    names.extend(addresses.iter().map(ToString::to_string));
    names.sort();
    names.dedup();
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let certificate = CertificateParams::new(names)
        .and_then(|params| params.signed_by(&key, &Issuer::new(ca, &ca_key)))
        .map_err(io::Error::other)?;

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .map_err(io::Error::other)?;
    if http2 {
        config.alpn_protocols.push(b"h2".to_vec());
    }
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok(TlsAcceptor::from(Arc::new(config)))
}
