//! TLS towards callers: what is spoken, who is let in, and certificates that change.
#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::{
    convert::Infallible,
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use amove_gateway::{
    config::load::load_str,
    emulator::{Emulator, Options},
};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::{body::Frame, client::conn::http1};
use hyper_util::rt::TokioIo;
use process_support::{
    Gateway, borrowed, emulator, environment, eventually, get,
    pki::{Authority, Certified, FUTURE, PAST, VERSIONS, connect, content, has_program, status},
    request, run, soon, stderr,
};
use rustls::{HandshakeKind, ProtocolVersion, pki_types::CertificateDer};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;

mod process_support;

const USERINFO: &str = "/api/v1/user/userinfo";

/// What a client is to the gateway.
type Own<'a> = Option<&'a Certified>;

/// A gateway with a certificate of `authority`, and these settings of `[server.tls]` besides.
async fn gateway(emulator: &Emulator, authority: &Authority, settings: &[(&str, &str)]) -> Gateway {
    if !authority.path("server.crt").exists() {
        authority.keep("server", &authority.certify("gateway", FUTURE));
    }
    let files = [
        ("AMOVE_GATEWAY_SERVER__TLS__CERT_FILE", authority.text("server.crt")),
        ("AMOVE_GATEWAY_SERVER__TLS__KEY_FILE", authority.text("server.key")),
        ("AMOVE_GATEWAY_TELEMETRY__LOG", "info,amove_gateway::server=debug".into()),
    ];
    let files = files.iter().map(|(name, value)| (*name, &**value));
    let settings: Vec<_> = files.chain(settings.iter().copied()).collect();
    Gateway::ready(emulator, &settings).await
}

/// The settings of mutual TLS, with `client_auth` as given.
fn mutual(authority: &Authority, client_auth: &'static str) -> Vec<(&'static str, String)> {
    vec![
        ("AMOVE_GATEWAY_SERVER__TLS__CLIENT_AUTH", client_auth.to_owned()),
        ("AMOVE_GATEWAY_SERVER__TLS__CLIENT_CA_FILE", authority.text("ca.pem")),
        ("AMOVE_GATEWAY_SERVER__TLS__CLIENT_CRL_FILE", authority.text("crl.pem")),
    ]
}

fn borrow<'a>(settings: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    settings.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// What a client with this certificate is answered; nothing if it is not let in.
async fn ask(
    gateway: &Gateway,
    authority: &Authority,
    own: Own<'_>,
    version: &'static rustls::SupportedProtocolVersion,
) -> Option<StatusCode> {
    let client = authority.client(own, &[version], &["http/1.1"]);
    let stream = connect(&client, gateway.address).await.ok()?;
    status(stream, USERINFO).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_of_tls_and_of_http_are_spoken() {
    let (emulator, authority) = (emulator(Options::default()).await, Authority::new());
    let gateway = gateway(&emulator, &authority, &[]).await;

    for (version, expected) in
        VERSIONS.iter().zip([ProtocolVersion::TLSv1_3, ProtocolVersion::TLSv1_2])
    {
        for (offered, agreed) in [
            (&["h2", "http/1.1"][..], Some("h2")),
            (&["http/1.1"], Some("http/1.1")),
            (&["http/1.1", "h2"], Some("h2")),
            (&[], None),
        ] {
            let client = authority.client(None, &[version], offered);
            let stream = connect(&client, gateway.address).await.expect("a handshake");
            let (_, session) = stream.get_ref();
            assert_eq!(session.protocol_version(), Some(expected));
            assert_eq!(session.alpn_protocol(), agreed.map(str::as_bytes), "{offered:?}");

            assert_eq!(status(stream, USERINFO).await.expect("an answer"), 200, "{offered:?}");
        }
    }
    let client = authority.client(None, VERSIONS, &["spdy/3"]);
    assert!(connect(&client, gateway.address).await.is_err(), "nothing to agree upon");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_let_in_by_their_certificates() {
    let authority = Authority::new();
    let (good, revoked) = (authority.certify("good", FUTURE), authority.certify("bad", FUTURE));
    let expired = authority.certify("late", PAST);
    let foreign = Authority::new().certify("good", FUTURE);
    authority.write("crl.pem", &authority.revoke(&[&revoked], FUTURE));

    for (client_auth, expected) in [
        ("off", [true, true, true, true, true]),
        ("optional", [true, true, false, false, false]),
        ("required", [false, true, false, false, false]),
    ] {
        let settings = mutual(&authority, client_auth);
        // One each: a second login would have to wait for the next code of the second factor.
        let emulator = emulator(Options::default()).await;
        let gateway = gateway(&emulator, &authority, &borrow(&settings)).await;
        for version in VERSIONS {
            let clients = [None, Some(&good), Some(&foreign), Some(&expired), Some(&revoked)];
            for (at, (own, is_let_in)) in clients.into_iter().zip(expected).enumerate() {
                let answer = ask(&gateway, &authority, own, version).await;
                let expected = is_let_in.then_some(StatusCode::OK);
                assert_eq!(answer, expected, "{client_auth}, client {at}, {version:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_out_of_date_counts_and_is_told() {
    let (emulator, authority) = (emulator(Options::default()).await, Authority::new());
    let (good, revoked) = (authority.certify("good", FUTURE), authority.certify("bad", FUTURE));
    authority.write("crl.pem", &authority.revoke(&[&revoked], PAST));
    let settings = mutual(&authority, "required");

    let gateway = gateway(&emulator, &authority, &borrow(&settings)).await;

    let version = &rustls::version::TLS13;
    assert_eq!(ask(&gateway, &authority, Some(&good), version).await, Some(StatusCode::OK));
    assert_eq!(ask(&gateway, &authority, Some(&revoked), version).await, None);
    eventually("it is told", async || {
        gateway.process.stderr().contains("the TLS revocation list is out of date")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_revoked_while_the_gateway_runs() {
    let (emulator, authority) = (emulator(Options::default()).await, Authority::new());
    let client = authority.certify("client", FUTURE);
    authority.write("crl.pem", &authority.revoke(&[], FUTURE));
    let settings = mutual(&authority, "required");
    let gateway = gateway(&emulator, &authority, &borrow(&settings)).await;
    let version = &rustls::version::TLS13;
    assert_eq!(ask(&gateway, &authority, Some(&client), version).await, Some(StatusCode::OK));

    authority.write("crl.pem", &authority.revoke(&[&client], FUTURE));

    eventually("it is refused", async || {
        ask(&gateway, &authority, Some(&client), version).await.is_none()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_resumed_unless_they_prove_who_a_client_is() {
    let authority = Authority::new();
    let own = authority.certify("client", FUTURE);
    authority.write("crl.pem", &authority.revoke(&[], FUTURE));

    for (client_auth, expected) in
        [("off", HandshakeKind::Resumed), ("optional", HandshakeKind::Full)]
    {
        let emulator = emulator(Options::default()).await;
        let settings = mutual(&authority, client_auth);
        let gateway = gateway(&emulator, &authority, &borrow(&settings)).await;
        for version in VERSIONS {
            let config = authority.remembering_client(Some(&own), &[version], &["http/1.1"]);
            let client = TlsConnector::from(Arc::new(config));
            let first = connect(&client, gateway.address).await.expect("a handshake");
            assert_eq!(status(first, USERINFO).await.expect("an answer"), 200);

            let second = connect(&client, gateway.address).await.expect("a handshake");

            let kind = second.get_ref().1.handshake_kind();
            assert_eq!(kind, Some(expected), "{client_auth}, {version:?}");
            assert_eq!(status(second, USERINFO).await.expect("an answer"), 200);
        }
    }
}

/// The certificate that the gateway shows.
async fn shown(client: &TlsConnector, gateway: &Gateway) -> CertificateDer<'static> {
    let stream = connect(client, gateway.address).await.expect("a handshake");
    let chain = stream.get_ref().1.peer_certificates().expect("a certificate");
    chain[0].clone().into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_change_under_load_and_no_handshake_fails() {
    let (emulator, authority) = (emulator(Options::default()).await, Authority::new());
    let first = authority.certify("first", FUTURE);
    authority.keep("server", &first);
    let gateway = Arc::new(gateway(&emulator, &authority, &[]).await);
    let client = authority.client(None, VERSIONS, &["http/1.1"]);
    let (done, shaken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let begun = Instant::now();
    let load: Vec<_> = (0..16)
        .map(|_| {
            let (gateway, client) = (Arc::clone(&gateway), client.clone());
            let (done, shaken) = (Arc::clone(&done), Arc::clone(&shaken));
            tokio::spawn(async move {
                while !done.load(Relaxed) {
                    shown(&client, &gateway).await;
                    shaken.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    let took_over = async |next: &Certified| {
        let changed = Instant::now();
        eventually("the new certificate is shown", async || {
            shown(&client, &gateway).await == next.certificate
        })
        .await;
        assert!(changed.elapsed() < Duration::from_secs(3), "{:?}", changed.elapsed());
    };

    assert_eq!(shown(&client, &gateway).await, first.certificate);
    let mut latest = first;
    for name in ["second", "third"] {
        latest = authority.certify(name, FUTURE);
        authority.keep("server", &latest);
        took_over(&latest).await;
    }
    // Neither half a pair nor nonsense is taken over.
    for (file, content) in
        [("server.crt", authority.certify("x", FUTURE).certificate_pem), ("server.key", "?".into())]
    {
        authority.write(file, &content);
        let told = || gateway.process.stderr().matches("cannot be taken over").count();
        let before = told();
        eventually("it is told", async || told() > before).await;
        assert_eq!(shown(&client, &gateway).await, latest.certificate);
    }
    let last = authority.certify("last", FUTURE);
    authority.keep("server", &last);
    took_over(&last).await;
    done.store(true, Relaxed);
    for task in load {
        task.await.expect("no handshake fails");
    }

    let rate = shaken.load(Relaxed) as f64 / begun.elapsed().as_secs_f64();
    eprintln!("{rate:.0} handshakes a second");
    let failed = gateway.process.stderr().matches("TLS handshake failed").count();
    assert_eq!(failed, 0, "{}", gateway.process.stderr());
    let log = gateway.process.stderr();
    assert!(log.contains("this is not the key of the first certificate"), "{log}");
    assert!(log.contains("there is no private key in it"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_certificate_can_be_seen_coming() {
    let (emulator, authority) = (emulator(Options::default()).await, Authority::new());
    authority.keep("server", &authority.certify("gateway", PAST));

    let gateway = gateway(&emulator, &authority, &[]).await;

    let metrics = get(gateway.admin, "/metrics").await;
    let metrics = String::from_utf8_lossy(metrics.body()).into_owned();
    let gauge =
        "amove_gateway_tls_certificate_expires_timestamp_seconds{role=\"server\"} 978307200";
    assert!(metrics.contains(gauge), "{metrics}");
    eventually("it is told", async || {
        gateway.process.stderr().contains("the TLS certificate has expired")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_handshakes_hold_nobody_up_and_end() {
    let (emulator, authority) = (emulator(Options::default()).await, Authority::new());
    let settings = [("AMOVE_GATEWAY_SERVER__HEADER_TIMEOUT", "2s")];
    let gateway = gateway(&emulator, &authority, &settings).await;
    let mut slow = Vec::new();
    for at in 0..200 {
        let mut stream = TcpStream::connect(gateway.address).await.expect("a connection");
        // The beginning of a handshake record, and no more.
        stream.write_all(&[0x16, 3, 1, 2, 0, 1][..at % 7]).await.expect("a few bytes");
        slow.push(stream);
    }

    let begun = Instant::now();
    assert_eq!(
        ask(&gateway, &authority, None, &rustls::version::TLS13).await,
        Some(StatusCode::OK)
    );
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());

    for mut stream in slow {
        let mut rest = Vec::new();
        soon("the end", stream.read_to_end(&mut rest)).await.expect("an end");
    }
    // What is written comes through a pipe, in its own time.
    eventually("it is told", async || {
        gateway.process.stderr().contains("TLS handshake took too long")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_speaks_plaintext_is_shown_out() {
    let (emulator, authority) = (emulator(Options::default()).await, Authority::new());
    let gateway = gateway(&emulator, &authority, &[]).await;
    let before = emulator.requests().len();

    for sent in [
        format!("GET {USERINFO} HTTP/1.1\r\nhost: x\r\n\r\n"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "x".repeat(60_000),
    ] {
        let mut stream = TcpStream::connect(gateway.address).await.expect("a connection");
        stream.write_all(sent.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        soon("the end", stream.read_to_end(&mut answer)).await.expect("an end, and no reset");
        // A fatal alert of TLS.
        assert_eq!(answer.first(), Some(&21), "{answer:?}");
    }

    assert_eq!(emulator.requests().len(), before);
    // What is written comes through a pipe, in its own time.
    eventually("it is told", async || gateway.process.stderr().contains("TLS handshake failed"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_flow_both_ways() {
    const PIECES: usize = 1024;
    let (emulator, authority) = (emulator(Options::default()).await, Authority::new());
    let settings = [("AMOVE_GATEWAY_SERVER__MAX_BODY_BYTES", "0")];
    let gateway = gateway(&emulator, &authority, &settings).await;
    let client = authority.client(None, VERSIONS, &["http/1.1"]);
    let stream = connect(&client, gateway.address).await.expect("a handshake");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let piece = Bytes::from(vec![7; 64 * 1024]);
    let total = PIECES * piece.len();
    let mut hash = blake3::Hasher::new();
    for _ in 0..PIECES {
        hash.update(&piece);
    }

    let frames =
        std::iter::repeat_n(piece, PIECES).map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
    let upload = Request::post("/api/v1/emulator/sink")
        .header("host", "x")
        .body(StreamBody::new(futures_util::stream::iter(frames)).boxed())
        .expect("a request");
    let answer = soon("an answer", sender.send_request(upload)).await.expect("an answer");
    let answer = answer.into_body().collect().await.expect("a body").to_bytes();
    let seen: Value = serde_json::from_slice(&answer).expect("JSON");
    assert_eq!(seen["bytes"], total, "{seen}");
    assert_eq!(seen["blake3"], hash.finalize().to_hex().as_str(), "{seen}");

    let target = format!("/api/v1/emulator/blob?bytes={total}");
    let download = request("GET", &target).map(BodyExt::boxed);
    soon("ready", sender.ready()).await.expect("ready");
    let answer = soon("an answer", sender.send_request(download)).await.expect("an answer");
    let body = soon("a body", answer.into_body().collect()).await.expect("a body").to_bytes();
    assert!(body.len() == total && body.iter().all(|byte| *byte == 0), "{}", body.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused_within_tls_too() {
    let (emulator, authority) = (emulator(Options::default()).await, Authority::new());
    let gateway = gateway(&emulator, &authority, &[]).await;
    let client = authority.client(None, VERSIONS, &["http/1.1"]);
    let before = emulator.requests().len();

    for head in [
        "POST /api/v1/project/new HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        "POST /api/v1/project/new HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /api/v1/user/userinfo HTTP/1.1\nhost: x\n\n",
        "GET /api/v1/user/userinfo HTTP/1.1\r\nhost: x\r\nx_y: 1\r\n\r\n",
        "GET /api/v1/user/userinfo HTTP/1.1\r\nhost: x\r\na: b\r\n c\r\n\r\n",
        "GET /api/v1/user/../user/userinfo HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    ] {
        let mut stream = connect(&client, gateway.address).await.expect("a handshake");
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        soon("the end", stream.read_to_end(&mut answer)).await.expect("an orderly end");

        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{head:?}: {answer}");
        assert!(answer.contains("urn:amove-gateway:problem:malformed"), "{head:?}: {answer}");
    }
    assert_eq!(emulator.requests().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_told_when_the_gateway_ends() {
    let (emulator, authority) = (emulator(Options::default()).await, Authority::new());
    let mut gateway = gateway(&emulator, &authority, &[]).await;
    let client = authority.client(None, VERSIONS, &["http/1.1"]);
    let mut fresh = connect(&client, gateway.address).await.expect("a handshake");
    let mut idle = connect(&client, gateway.address).await.expect("a handshake");
    let head = format!("GET {USERINFO} HTTP/1.1\r\nhost: x\r\n\r\n");
    idle.write_all(head.as_bytes()).await.expect("a request");
    assert!(idle.read(&mut [0; 4096]).await.expect("an answer") > 0);

    gateway.process.signal("TERM");

    for stream in [&mut fresh, &mut idle] {
        let mut rest = Vec::new();
        // Without a word before it, the end would be an error.
        soon("the end", stream.read_to_end(&mut rest)).await.expect("an orderly end");
    }
    assert_eq!(gateway.process.exit_code().await, Some(0), "{}", gateway.process.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn unix_sockets_and_operators_stay_in_the_clear() {
    let (emulator, authority) = (emulator(Options::default()).await, Authority::new());
    let socket = authority.text("gateway.sock");
    let listen = format!("127.0.0.1:0, unix:{socket}");
    let settings = [("AMOVE_GATEWAY_SERVER__LISTEN", &*listen)];
    let gateway = gateway(&emulator, &authority, &settings).await;

    let mut stream = UnixStream::connect(&socket).await.expect("a connection");
    let head = format!("GET {USERINFO} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("a request");
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await.expect("an answer");

    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(get(gateway.admin, "/readyz").await.status(), 200);
}

/// Runs a program of this machine.
async fn tool(name: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(name);
    command.args(arguments).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output());
    soon(name, output).await.expect("a task").expect("a program")
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_and_curl_get_along_with_it() {
    if !has_program("openssl", "version") || !has_program("curl", "--version") {
        return;
    }
    let (emulator, authority) = (emulator(Options::default()).await, Authority::new());
    let client = authority.certify("client", FUTURE);
    authority.keep("client", &client);
    authority.write("crl.pem", &authority.revoke(&[], FUTURE));
    let settings = mutual(&authority, "required");
    let gateway = gateway(&emulator, &authority, &borrow(&settings)).await;
    let (ca, cert, key) =
        (authority.text("ca.pem"), authority.text("client.crt"), authority.text("client.key"));

    for version in ["-tls1_2", "-tls1_3"] {
        let address = gateway.address.to_string();
        let arguments = ["s_client", "-connect", &address, version, "-CAfile", &ca];
        let own = ["-cert", &cert, "-key", &key, "-alpn", "h2", "-verify_return_error"];
        let output = tool("openssl", &[&arguments[..], &own].concat()).await;
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("Verify return code: 0 (ok)"), "{text}");
        assert!(text.contains("ALPN protocol: h2"), "{text}");
    }

    let url = format!("https://localhost:{}{USERINFO}", gateway.address.port());
    let curl = async |extra: &[&str]| {
        let arguments = ["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", &ca];
        let output = tool("curl", &[&arguments[..], extra, &[&*url]].concat()).await;
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let own = ["--cert", &*cert, "--key", &*key];
    for extra in [&["--http1.1"][..], &["--http2"], &["--tls-max", "1.2"], &["--tlsv1.3"]] {
        assert_eq!(curl(&[&own, extra].concat()).await, (true, "200".to_owned()), "{extra:?}");
    }
    assert!(!curl(&[]).await.0, "a client without a certificate is not let in");
}

/// What `check` says about a `[server.tls]` of these lines.
async fn check(authority: &Authority, lines: &str) -> (Option<i32>, String) {
    let text = format!("[identities.main]\napi_token = \"t\"\n[server.tls]\n{lines}\n");
    authority.write("gateway.toml", &text);
    let output = run(&["check", "--config", &authority.text("gateway.toml")], &[]).await;
    (output.status.code(), stderr(&output).to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_found_by_check_with_the_line() {
    let authority = Authority::new();
    let own = authority.certify("gateway", FUTURE);
    authority.keep("server", &own);
    authority.keep("other", &authority.certify("other", FUTURE));
    authority.keep("late", &authority.certify("late", PAST));
    authority.write("none", "nothing\n");
    let file = |key: &str, name: &str| format!("{key} = {:?}\n", authority.text(name));
    let pair = file("cert_file", "server.crt") + &file("key_file", "server.key");
    let required = format!("{pair}client_auth = \"required\"\n");
    let missing = "this file cannot be read";

    for (lines, findings) in [
        (
            file("cert_file", "gone") + &file("key_file", "gone"),
            &[("gateway.toml:4:", missing), ("gateway.toml:5:", missing)][..],
        ),
        (
            file("cert_file", "none") + &file("key_file", "none"),
            &[("gateway.toml:4:", "there is no certificate in it")],
        ),
        (
            file("cert_file", "server.crt") + &file("key_file", "none"),
            &[("gateway.toml:5:", "there is no private key in it")],
        ),
        (
            file("cert_file", "server.crt") + &file("key_file", "other.key"),
            &[("gateway.toml:5:", "this is not the key of the first certificate")],
        ),
        (file("cert_file", "server.crt"), &[("gateway.toml:4:", "lacks `key_file`")]),
        (required.clone(), &[("gateway.toml:4:", "lacks `client_ca_file`")]),
        (required.clone() + &file("client_ca_file", "gone"), &[("gateway.toml:7:", missing)]),
        (
            required.clone() + &file("client_ca_file", "ca.pem") + &file("client_crl_file", "none"),
            &[("gateway.toml:8:", "there is no revocation list in it")],
        ),
        (format!("{pair}client_auth = \"always\""), &[("gateway.toml:6:", "expected `off`")]),
        (format!("{pair}cert_fil = \"x\""), &[("gateway.toml:6:", "cert_file")]),
    ] {
        let (code, report) = check(&authority, &lines).await;

        assert_eq!(code, Some(78), "{lines}\n{report}");
        for (line, text) in findings {
            assert!(report.contains(line) && report.contains(text), "{lines}\n{report}");
        }
    }
    for (lines, warning) in [
        (pair.clone(), None),
        (required + &file("client_ca_file", "ca.pem"), None),
        (pair + &file("client_ca_file", "ca.pem"), Some("client_auth is \"off\"")),
        (
            file("cert_file", "late.crt") + &file("key_file", "late.key"),
            Some("has expired at 2001-01-01"),
        ),
    ] {
        let (code, report) = check(&authority, &lines).await;

        assert_eq!(code, Some(0), "{lines}\n{report}");
        assert!(warning.map_or(report.is_empty(), |it| report.contains(it)), "{lines}\n{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_does_not_start_on_files_that_are_wrong() {
    let (emulator, authority) = (emulator(Options::default()).await, Authority::new());
    authority.write("server.crt", &content(&authority.path("ca.pem")));
    let mut environment = environment(&emulator);
    for (key, name) in [("CERT", "server.crt"), ("KEY", "server.key")] {
        environment.push((format!("AMOVE_GATEWAY_SERVER__TLS__{key}_FILE"), authority.text(name)));
    }

    let output = run(&["run"], &borrowed(&environment)).await;

    assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
    assert_eq!(emulator.stats().logins, 0);
}

#[test]
fn certificates_are_credentials_where_they_are_required() {
    let authority = Authority::new();
    authority.keep("server", &authority.certify("gateway", FUTURE));
    let check = |client_auth: &str, is_allowed: bool| {
        let text = format!(
            "[identities.main]\napi_token = \"t\"\n[server]\nlisten = [\"0.0.0.0:8443\"]\n\
             [server.tls]\ncert_file = {:?}\nkey_file = {:?}\nclient_ca_file = {:?}\n\
             client_auth = \"{client_auth}\"\n",
            authority.text("server.crt"),
            authority.text("server.key"),
            authority.text("ca.pem"),
        );
        let loaded = load_str(&text, &[]);
        assert_eq!(loaded.is_ok(), is_allowed, "{client_auth}: {:?}", loaded.err());
    };

    check("required", true);
    check("optional", false);
    check("off", false);
}
