//! TLS towards callers, of the real program: who is shown what, who is let in, and what happens
//! when certificates change.
#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use amove_gateway::emulator::{Emulator, Options};
use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use process_support::{Gateway, emulator, eventually, get, request, soon};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    DistinguishedName, DnType, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SanType, SerialNumber, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

mod process_support;

const USERINFO: &str = "/api/v1/user/userinfo";

/// An authority, and a folder for what it issues.
struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = called("the authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("a file");
        Self { folder, issuer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes NAME.crt and NAME.key for these names.
    fn issue(&self, name: &str, serial: u64, names: &[SanType], valid: bool) {
        let mut params = CertificateParams::default();
        params.distinguished_name = called(name);
        params.subject_alt_names = names.to_vec();
        params.serial_number = Some(SerialNumber::from(serial));
        if !valid {
            (params.not_before, params.not_after) =
                (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        // The certificate last: the pair fits together from then on.
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("a file");
        fs::write(self.path(&format!("{name}.crt")), certificate.pem()).expect("a file");
    }

    /// Writes ca.crl, which revokes these.
    fn revoke(&self, serials: &[u64]) {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).expect("a list");
        fs::write(self.path("ca.crl"), list.pem().expect("PEM")).expect("a file");
    }
}

fn called(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().expect("a name"))
}

fn uri(uri: &str) -> SanType {
    SanType::URI(uri.try_into().expect("a URI"))
}

/// A gateway that shows server.crt; `settings` go below `[server.tls]`.
async fn gateway(authority: &Authority, amove: &Emulator, settings: &str) -> Gateway {
    let file = |name: &str| authority.path(name).display().to_string();
    let text = format!(
        "[callers.media]\nspiffe_id = \"spiffe://corp.test/media\"\n\
         [callers.reports]\nsan = \"reports.corp.test\"\n\
         [callers.here]\nrate = \"100000/s\"\n\
         [server.tls]\ncert_file = \"{}\"\nkey_file = \"{}\"\nclient_ca_file = \"{}\"\n{settings}\n",
        file("server.crt"),
        file("server.key"),
        file("ca.pem"),
    );
    let config = authority.path("gateway.toml");
    fs::write(&config, text).expect("a file");
    Gateway::ready(amove, &[("AMOVE_GATEWAY_CONFIG", config.to_str().expect("text"))]).await
}

async fn amove() -> Emulator {
    emulator(Options { mfa: false, ..Options::default() }).await
}

/// A client that trusts `authority`, and shows a certificate of that name, if one is given.
fn client(
    authority: &Authority,
    shown: Option<(&Authority, &str)>,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_file(authority.path("ca.pem")).expect("an authority");
    roots.add(root).expect("a root");
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some((authority, name)) => {
            let certificate = authority.path(&format!("{name}.crt"));
            let certificate = CertificateDer::from_pem_file(certificate).expect("a certificate");
            let key = authority.path(&format!("{name}.key"));
            let key = PrivateKeyDer::from_pem_file(key).expect("a key");
            builder.with_client_auth_cert(vec![certificate], key).expect("a pair")
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

async fn connect(
    client: &TlsConnector,
    address: SocketAddr,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    client.connect(ServerName::try_from("localhost").expect("a name"), stream).await
}

/// The answer to `GET userinfo`; nothing if there is no connection.
async fn ask(client: &TlsConnector, address: SocketAddr) -> Option<Response<Bytes>> {
    let stream = TokioIo::new(connect(client, address).await.ok()?);
    let (parts, body) = if stream.inner().get_ref().1.alpn_protocol() == Some(b"h2") {
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await;
        let (mut sender, connection) = handshake.ok()?;
        tokio::spawn(connection);
        let uri = format!("https://localhost{USERINFO}");
        let request = http::Request::get(uri).body(Full::<Bytes>::default()).expect("a request");
        sender.send_request(request).await.ok()?.into_parts()
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.ok()?;
        tokio::spawn(connection);
        sender.send_request(request("GET", USERINFO)).await.ok()?.into_parts()
    };
    Some(Response::from_parts(parts, body.collect().await.ok()?.to_bytes()))
}

async fn status(client: &TlsConnector, address: SocketAddr) -> Option<u16> {
    soon("an answer", ask(client, address)).await.map(|answer| answer.status().as_u16())
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_come_in_over_both_versions_of_tls_and_of_http() {
    let authority = Authority::new();
    authority.issue("server", 1, &[dns("localhost")], true);
    let amove = amove().await;
    let gateway = gateway(&authority, &amove, "").await;

    for version in [&TLS12, &TLS13] {
        for (alpn, http) in
            [(&[b"h2" as &[u8], b"http/1.1"][..], "2"), (&[b"http/1.1"], "1.1"), (&[], "1.1")]
        {
            let client = client(&authority, None, &[version], alpn);
            let answer = soon("an answer", ask(&client, gateway.address)).await.expect("an answer");
            assert_eq!(answer.status(), 200, "{version:?} {http}");
        }
    }
    // What is not TLS is no request.
    let mut plain = TcpStream::connect(gateway.address).await.expect("a connection");
    plain.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("written");
    let mut answer = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut plain, &mut answer);
    let _ = soon("the connection ends", read).await;
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    let metrics = get(gateway.admin, "/metrics").await;
    let metrics = String::from_utf8_lossy(metrics.body()).into_owned();
    let name = "amove_gateway_tls_certificate_expires_timestamp_seconds{role=\"server\"} ";
    assert!(metrics.contains(name), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_tells_who_calls() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    authority.issue("server", 1, &[dns("localhost")], true);
    authority.issue("media", 2, &[uri("spiffe://corp.test/media")], true);
    authority.issue("reports", 3, &[dns("Reports.corp.test")], true);
    authority.issue("stranger", 4, &[dns("stranger.corp.test")], true);
    authority.issue("two-ids", 5, &[uri("spiffe://corp.test/media"), uri("spiffe://x/y")], true);
    authority.issue("expired", 6, &[uri("spiffe://corp.test/media")], false);
    authority.issue("revoked", 7, &[uri("spiffe://corp.test/media")], true);
    authority.revoke(&[7]);
    foreign.issue("media", 2, &[uri("spiffe://corp.test/media")], true);
    let amove = amove().await;
    let crl = format!("client_crl_file = \"{}\"\n", authority.path("ca.crl").display());
    // Nobody but `here` may call without a certificate, and only from this machine: as we do.
    for (auth, without) in [("optional", Some(200)), ("required", None)] {
        let settings = format!("client_auth = \"{auth}\"\n{crl}");
        let gateway = gateway(&authority, &amove, &settings).await;
        for (shown, expected) in [
            (None, without),
            (Some((&authority, "media")), Some(200)),
            (Some((&authority, "reports")), Some(200)),
            (Some((&authority, "expired")), None),
            (Some((&authority, "revoked")), None),
            (Some((&foreign, "media")), None),
        ] {
            let name = shown.map(|(_, name)| name);
            for version in [&TLS12, &TLS13] {
                let client = client(&authority, shown, &[version], &[b"http/1.1"]);
                let got = status(&client, gateway.address).await;
                assert_eq!(got, expected, "{auth}, {name:?}, {version:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_certificate_that_is_nobodys_is_told_so() {
    let authority = Authority::new();
    authority.issue("server", 1, &[dns("localhost")], true);
    authority.issue("stranger", 4, &[dns("stranger.corp.test")], true);
    authority.issue("two-ids", 5, &[uri("spiffe://corp.test/media"), uri("spiffe://x/y")], true);
    let text = format!(
        "[callers.media]\nspiffe_id = \"spiffe://corp.test/media\"\n\
         [server.tls]\ncert_file = \"{0}/server.crt\"\nkey_file = \"{0}/server.key\"\n\
         client_ca_file = \"{0}/ca.pem\"\nclient_auth = \"optional\"\n",
        authority.folder.path().display()
    );
    let config = authority.path("gateway.toml");
    fs::write(&config, text).expect("a file");
    let amove = amove().await;
    let config = config.to_str().expect("text");
    let gateway = Gateway::ready(&amove, &[("AMOVE_GATEWAY_CONFIG", config)]).await;

    for name in ["stranger", "two-ids"] {
        let client = client(&authority, Some((&authority, name)), &[&TLS13], &[]);
        assert_eq!(status(&client, gateway.address).await, Some(403), "{name}");
    }
    let client = client(&authority, None, &[&TLS13], &[]);
    assert_eq!(status(&client, gateway.address).await, Some(401));
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_under_load_and_what_is_no_use_replaces_nothing() {
    let authority = Authority::new();
    authority.issue("server", 1, &[dns("localhost")], true);
    let amove = amove().await;
    let gateway = gateway(&authority, &amove, "").await;
    let (stop, shaken, failed) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut load = Vec::new();
    for _ in 0..8 {
        let (stop, shaken, failed) = (Arc::clone(&stop), Arc::clone(&shaken), Arc::clone(&failed));
        let (client, address) = (client(&authority, None, &[&TLS13], &[]), gateway.address);
        load.push(tokio::spawn(async move {
            while !stop.load(Relaxed) {
                let counter =
                    if connect(&client, address).await.is_ok() { &shaken } else { &failed };
                counter.fetch_add(1, Relaxed);
            }
        }));
    }
    let shows = async |serial: u64| {
        let client = client(&authority, None, &[&TLS13], &[]);
        let stream = connect(&client, gateway.address).await.expect("a handshake");
        let shown = stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone();
        let (_, shown) = x509_parser::parse_x509_certificate(&shown).expect("a certificate");
        shown.tbs_certificate.serial.to_u64_digits() == [serial]
    };
    assert!(shows(1).await);

    let since = std::time::Instant::now();
    for serial in 2..5 {
        authority.issue("server", serial, &[dns("localhost")], true);
        eventually("the new one is shown", async || shows(serial).await).await;
    }
    let took = since.elapsed();
    // A key that is another's, and half a certificate.
    authority.issue("other", 9, &[dns("localhost")], true);
    fs::copy(authority.path("other.key"), authority.path("server.key")).expect("a file");
    eventually("it is refused", async || {
        gateway.process.stderr().contains("new certificate is no use")
    })
    .await;
    assert!(shows(4).await);
    fs::copy(authority.path("other.crt"), authority.path("server.crt")).expect("a file");
    eventually("the pair fits", async || shows(9).await).await;

    stop.store(true, Relaxed);
    futures_util::future::join_all(load).await;
    let (shaken, failed) = (shaken.load(Relaxed), failed.load(Relaxed));
    eprintln!("{shaken} handshakes, {failed} failed, three replacements in {took:?}");
    assert_eq!(failed, 0);
    assert!(shaken > 500, "{shaken}");
    assert!(took < Duration::from_secs(12), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_finishes_its_handshake_is_let_go_and_holds_nobody_up() {
    let authority = Authority::new();
    authority.issue("server", 1, &[dns("localhost")], true);
    let amove = amove().await;
    let gateway = gateway(&authority, &amove, "[server]\nheader_timeout = \"1s\"\n").await;
    let mut held = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(gateway.address).await.expect("a connection");
        stream.write_all(&[0x16, 0x03, 0x01]).await.expect("written");
        held.push(stream);
    }

    let client = client(&authority, None, &[&TLS13], &[]);

    assert_eq!(status(&client, gateway.address).await, Some(200));
    let mut rest = Vec::new();
    let ended = tokio::io::AsyncReadExt::read_to_end(&mut held[0], &mut rest);
    let _ = soon("it is let go", ended).await;
}

/// Whether there is such a program; says so if there is not.
fn is_there(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        eprintln!("SKIPPED: {program} is missing");
    }
    found
}

fn run(program: &str, arguments: &[&str]) -> (String, bool) {
    let output = Command::new(program)
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .output()
        .expect("the program starts");
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&text).into_owned(), output.status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_and_openssl_get_along_with_it() {
    let authority = Authority::new();
    authority.issue("server", 1, &[dns("localhost")], true);
    authority.issue("media", 2, &[uri("spiffe://corp.test/media")], true);
    let amove = amove().await;
    let gateway = gateway(&authority, &amove, "client_auth = \"required\"").await;
    let path = |name: &str| authority.path(name).display().to_string();
    let (ca, cert, key) = (path("ca.pem"), path("media.crt"), path("media.key"));
    let port = gateway.address.port();

    if is_there("curl") {
        let url = format!("https://localhost:{port}{USERINFO}");
        let good = ["-sS", "-i", "--cacert", &ca, "--cert", &cert, "--key", &key, &url];
        let (answer, _) = run("curl", &good);
        assert!(answer.contains(" 200"), "{answer}");
        let (answer, succeeded) = run("curl", &["-sS", "-i", "--cacert", &ca, &url]);
        assert!(!succeeded, "{answer}");
    }
    if is_there("openssl") {
        let at = format!("localhost:{port}");
        for version in ["-tls1_2", "-tls1_3"] {
            let handshake = [
                "s_client",
                "-connect",
                &at,
                "-CAfile",
                &ca,
                "-cert",
                &cert,
                "-key",
                &key,
                version,
                "-alpn",
                "h2",
                "-servername",
                "localhost",
                "-verify_return_error",
            ];
            let (answer, _) = run("openssl", &handshake);
            assert!(answer.contains("ALPN protocol: h2"), "{version}: {answer}");
            assert!(answer.contains("Verify return code: 0 (ok)"), "{version}: {answer}");
        }
        let (answer, _) = run("openssl", &["s_client", "-connect", &at, "-tls1_1"]);
        assert!(answer.contains("no peer certificate available"), "{answer}");
    }
}

#[test]
fn what_does_not_fit_together_is_told_with_its_line() {
    let authority = Authority::new();
    authority.issue("server", 1, &[dns("localhost")], true);
    authority.issue("other", 2, &[dns("localhost")], true);
    let check = |cert: &Path, key: &Path, more: &str| {
        let text = format!(
            "[identities.main]\napi_token = \"t\"\n[server.tls]\ncert_file = \"{}\"\nkey_file = \"{}\"\n{more}",
            cert.display(),
            key.display()
        );
        amove_gateway::config::load::load_str(&text, &[]).map(drop).map_err(|it| it.to_string())
    };
    let (cert, key, other) =
        (authority.path("server.crt"), authority.path("server.key"), authority.path("other.key"));

    assert_eq!(check(&cert, &key, ""), Ok(()));
    for (result, expected) in [
        (check(&cert, &other, ""), "not the key of the certificate"),
        (check(&key, &key, ""), "holds no certificate"),
        (check(&cert, &cert, ""), "holds no private key"),
        (check(&cert, &authority.path("none"), ""), "holds no private key"),
        (check(&cert, &key, "client_auth = \"required\""), "client_ca_file"),
        (check(&cert, &key, "client_auth = \"maybe\""), "client_auth"),
    ] {
        let report = result.expect_err(expected);
        assert!(report.contains(expected), "{expected}: {report}");
    }
}
