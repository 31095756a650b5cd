//! A certificate authority of the test's own, and clients that know it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use http::StatusCode;
use http_body_util::BodyExt;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{request, soon};

/// A year that has passed.
pub(crate) const PAST: i32 = 2001;

/// A year that is still to come.
pub(crate) const FUTURE: i32 = 2060;

/// An authority, and a folder for what it writes down.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    folder: TempDir,
}

/// A certificate and its key.
pub(crate) struct Certified {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) certificate_pem: String,
    pub(crate) key: KeyPair,
    serial: SerialNumber,
}

impl Authority {
    /// An authority that nobody knows yet; its certificate is in `ca.pem`.
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "test CA");
        let signed = params.self_signed(&key).expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.pem"), signed.pem()).expect("a file");
        let certificate = signed.der().clone();
        Self { issuer: Issuer::new(params, key), certificate, folder }
    }

    /// Certifies `name`, which is good until the year `until`.
    pub(crate) fn certify(&self, name: &str, until: i32) -> Certified {
        let key = KeyPair::generate().expect("a key");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("parameters");
        let uri = format!("spiffe://corp.test/{name}");
        params.subject_alt_names.push(SanType::URI(uri.try_into().expect("ASCII")));
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let serial = SerialNumber::from(key.public_key_raw()[1..9].to_vec());
        params.serial_number = Some(serial.clone());
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let certificate_pem = certificate.pem();
        Certified { certificate: certificate.der().clone(), certificate_pem, key, serial }
    }

    /// A list of revoked certificates, the next of which is to come in `next`.
    pub(crate) fn revoke(&self, revoked: &[&Certified], next: i32) -> String {
        let revoke = |certified: &&Certified| RevokedCertParams {
            serial_number: certified.serial.clone(),
            revocation_time: date_time_ymd(2000, 6, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2000, 6, 1),
            next_update: date_time_ymd(next, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(revoke).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("a list").pem().expect("a list in PEM")
    }

    /// Where the file `name` of this authority is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same, as settings take it.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes a file, whole or not at all.
    pub(crate) fn write(&self, name: &str, content: &str) {
        let (path, new) = (self.path(name), self.path(&format!("{name}.new")));
        std::fs::write(&new, content).expect("a file");
        std::fs::rename(new, path).expect("a file");
    }

    /// Writes `NAME.crt` and `NAME.key`.
    pub(crate) fn keep(&self, name: &str, certified: &Certified) {
        self.write(&format!("{name}.crt"), &certified.certificate_pem);
        self.write(&format!("{name}.key"), &certified.key.serialize_pem());
    }

    /// A client that knows this authority and speaks one of `versions` and `protocols`.
    pub(crate) fn client(
        &self,
        own: Option<&Certified>,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&str],
    ) -> TlsConnector {
        let mut config = self.remembering_client(own, versions, protocols);
        config.resumption = Resumption::disabled();
        TlsConnector::from(Arc::new(config))
    }

    /// The same, which resumes sessions.
    pub(crate) fn remembering_client(
        &self,
        own: Option<&Certified>,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&str],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.key.serialize_der()));
                builder
                    .with_client_auth_cert(vec![own.certificate.clone()], key)
                    .expect("a certificate and its key")
            }
        };
        config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        config
    }
}

/// Both versions.
pub(crate) const VERSIONS: &[&SupportedProtocolVersion] =
    &[&rustls::version::TLS13, &rustls::version::TLS12];

/// Shakes hands with whoever listens at `address`.
pub(crate) async fn connect(
    client: &TlsConnector,
    address: SocketAddr,
) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    soon("a handshake", client.connect(name, tcp)).await
}

/// What a GET of `target` is answered with, by HTTP/2 if that was agreed upon.
pub(crate) async fn status(
    stream: TlsStream<TcpStream>,
    target: &str,
) -> Result<StatusCode, hyper::Error> {
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let io = TokioIo::new(stream);
    let answer = if is_http2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        let mut request = request("GET", &format!("https://localhost{target}"));
        request.headers_mut().remove("host");
        soon("an answer", sender.send_request(request)).await?
    } else {
        let (mut sender, connection) = http1::handshake(io).await?;
        tokio::spawn(connection);
        soon("an answer", sender.send_request(request("GET", target))).await?
    };
    let (parts, body) = answer.into_parts();
    soon("a body", body.collect()).await?;
    Ok(parts.status)
}

/// Whether `path` is a program of this machine; without it a test says loudly that it is skipped,
/// and fails where `CI` is `true`.
pub(crate) fn has_program(name: &str, argument: &str) -> bool {
    let found = std::process::Command::new(name).arg(argument).output().is_ok();
    if !found {
        let is_ci = std::env::var("CI").is_ok_and(|it| it == "true");
        assert!(!is_ci, "{name} is missing");
        eprintln!("SKIPPED: {name} is missing (apt-get install {name})");
    }
    found
}

/// The bytes of a file.
pub(crate) fn content(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a file")
}
