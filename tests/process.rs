//! The gateway as a process: starts, serves, drains, tells, and keeps its secrets.
#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::{collections::BTreeSet, net::SocketAddr, path::Path, time::Duration};

use amove_gateway::emulator::{self, Emulator, Fault, Host, Options};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use process_support::{
    Gateway, Process, borrowed, call, emulator, environment_with, eventually, free_port, get,
    request, run, soon, stderr,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

mod process_support;

const USERINFO: &str = "/api/v1/user/userinfo";

/// The `type` of a problem, without what all have in common.
fn problem(answer: &Response<bytes::Bytes>) -> String {
    let problem: Value = serde_json::from_slice(answer.body()).expect("a problem in JSON");
    let kind = problem["type"].as_str().expect("a type");
    kind.trim_start_matches("urn:amove-gateway:problem:").to_owned()
}

async fn has_seen(emulator: &Emulator, part: &str) {
    eventually(part, async || emulator.requests().iter().any(|seen| seen.target.contains(part)))
        .await;
}

/// Begins to upload 10 bytes and sends 5; the upload is under way upstream when this returns.
async fn half_an_upload(gateway: &Gateway, emulator: &Emulator) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.address).await.expect("a connection");
    let head = "POST /api/v1/emulator/sink HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n12345";
    stream.write_all(head.as_bytes()).await.expect("half a request");
    has_seen(emulator, "/sink").await;
    stream
}

async fn stalled(gateway: &Gateway, emulator: &Emulator) -> TcpStream {
    emulator.inject(Fault::Stall { count: 1000, host: Some(Host::Main), route: None });
    let mut stream = TcpStream::connect(gateway.address).await.expect("a connection");
    let head = format!("GET {USERINFO} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("a request");
    has_seen(emulator, USERINFO).await;
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn it_becomes_ready_and_serves() {
    let emulator = emulator(Options::default()).await;
    let probes = format!("127.0.0.1:{}", free_port());
    let settings = [("AMOVE_GATEWAY_SERVER__HEALTH_LISTEN", &*probes)];
    let gateway = Gateway::ready(&emulator, &settings).await;
    let probes: SocketAddr = probes.parse().expect("an address");

    assert_eq!(get(gateway.address, USERINFO).await.status(), 200);
    for address in [gateway.admin, probes] {
        for path in ["/livez", "/readyz", "/healthz"] {
            assert_eq!(get(address, path).await.status(), 200, "{path}");
        }
    }
    let status = get(gateway.admin, "/-/status.json").await;
    let status: Value = serde_json::from_slice(status.body()).expect("JSON");
    assert_eq!(status["draining"], false, "{status}");
    assert_eq!(get(probes, "/-/status.json").await.status(), 404, "probes see health only");
    assert_eq!(emulator.stats().logins, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_when_it_is_told_to_end_is_finished() {
    let emulator = emulator(Options::default()).await;
    let mut gateway = Gateway::ready(&emulator, &[]).await;
    let mut upload = half_an_upload(&gateway, &emulator).await;

    gateway.process.signal("TERM");
    eventually("new connections are refused", async || {
        TcpStream::connect(gateway.address).await.is_err()
    })
    .await;
    let ready = get(gateway.admin, "/readyz").await;
    assert_eq!(
        (ready.status(), &**ready.body()),
        (StatusCode::SERVICE_UNAVAILABLE, &b"draining\n"[..])
    );
    assert!(gateway.process.is_running());
    upload.write_all(b"67890").await.expect("the other half");
    let mut answer = String::new();
    soon("the answer", upload.read_to_string(&mut answer)).await.expect("an answer");

    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("\"bytes\":10"), "{answer}");
    assert_eq!(gateway.process.exit_code().await, Some(0), "{}", gateway.process.stderr());
    let stats = emulator.stats();
    assert_eq!((stats.logouts, stats.live_sessions), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    for second in ["TERM", "INT"] {
        let emulator = emulator(Options::default()).await;
        let mut gateway = Gateway::ready(&emulator, &[]).await;
        let _hangs = stalled(&gateway, &emulator).await;

        gateway.process.signal("TERM");
        eventually("it drains", async || gateway.process.stderr().contains("gateway drains")).await;
        gateway.process.signal(second);

        assert_eq!(gateway.process.exit_code().await, Some(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hangs_is_cut_when_the_drain_runs_out_of_time() {
    let emulator = emulator(Options::default()).await;
    let settings = [("AMOVE_GATEWAY_SERVER__DRAIN_TIMEOUT", "100ms")];
    let mut gateway = Gateway::ready(&emulator, &settings).await;
    let mut hangs = stalled(&gateway, &emulator).await;

    gateway.process.signal("TERM");

    assert_eq!(gateway.process.exit_code().await, Some(0));
    let mut rest = Vec::new();
    let _ = soon("the end", hangs.read_to_end(&mut rest)).await;
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    assert!(gateway.process.stderr().contains("connections were cut"));
    assert_eq!(emulator.stats().logouts, 1, "the session is given back all the same");
}

async fn get_over(socket: &Path, target: &str) -> StatusCode {
    let stream = UnixStream::connect(socket).await.expect("somebody listens");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let answer = soon("an answer", sender.send_request(request("GET", target))).await;
    let (parts, body) = answer.expect("an answer").into_parts();
    body.collect().await.expect("a body");
    parts.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_serves_and_survives_a_crash_but_not_a_rival() {
    let emulator = emulator(Options::default()).await;
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("gateway.sock");
    let listen = format!("unix:{}", socket.display());
    let settings = [("AMOVE_GATEWAY_SERVER__LISTEN", &*listen)];

    let mut first = Gateway::ready(&emulator, &settings).await;
    assert_eq!(get_over(&socket, USERINFO).await, 200);
    let environment = environment_with(&emulator, &settings);
    let rival = run(&["run"], &borrowed(&environment)).await;
    assert_eq!(rival.status.code(), Some(74), "{}", stderr(&rival));
    assert!(stderr(&rival).contains("another program listens there already"));
    first.process.signal("KILL");
    first.process.ended().await;
    assert!(socket.exists(), "a crash leaves the file");

    let mut second = Gateway::ready(&emulator, &settings).await;
    assert_eq!(get_over(&socket, USERINFO).await, 200);
    second.process.signal("TERM");
    assert_eq!(second.process.exit_code().await, Some(0));
    assert!(!socket.exists(), "a good end does not");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_port_is_told_and_nobody_logs_in_for_nothing() {
    let emulator = emulator(Options::default()).await;
    let gateway = Gateway::ready(&emulator, &[]).await;
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let stranger = stranger.local_addr().expect("an address");
    let _keep = std::net::TcpListener::bind(stranger);

    for (name, address) in [
        ("AMOVE_GATEWAY_SERVER__LISTEN", gateway.address),
        ("AMOVE_GATEWAY_SERVER__LISTEN", emulator.api_url()[7..].parse().expect("an address")),
        ("AMOVE_GATEWAY_SERVER__ADMIN_LISTEN", gateway.admin),
    ] {
        let address = address.to_string();
        let environment = environment_with(&emulator, &[(name, &address)]);
        let output = run(&["run"], &borrowed(&environment)).await;

        assert_eq!(output.status.code(), Some(74), "{}", stderr(&output));
        let sentence = format!("cannot listen on {address}: another program listens there already");
        assert!(stderr(&output).contains(&sentence), "{}", stderr(&output));
    }
    assert_eq!(emulator.stats().logins, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_keep_it_up_but_not_ready_and_are_not_tried_again() {
    let emulator = emulator(Options::default()).await;
    let mut gateway = Gateway::start(&emulator, &[("AMOVE_PASSWORD", "wrong")]).await;
    eventually("the login is refused", async || emulator.stats().failed_logins > 0).await;

    for _ in 0..5 {
        let answer = get(gateway.address, USERINFO).await;
        assert_eq!(
            (answer.status(), &*problem(&answer)),
            (StatusCode::BAD_GATEWAY, "upstream-auth")
        );
    }

    assert_eq!(get(gateway.admin, "/readyz").await.status(), 503);
    assert_eq!(get(gateway.admin, "/livez").await.status(), 200);
    assert!(gateway.process.is_running());
    assert_eq!(emulator.stats().failed_logins, 1, "a second try could lock the account");
}

fn hash_of(key: &str) -> String {
    format!("blake3:{}", blake3::hash(key.as_bytes()).to_hex())
}

async fn call_as(
    gateway: &Gateway,
    key: &str,
    method: &str,
    target: &str,
) -> Response<bytes::Bytes> {
    let mut request = request(method, target);
    if !key.is_empty() {
        let key = HeaderValue::from_str(key).expect("a key");
        request.headers_mut().insert("x-api-key", key);
    }
    call(gateway.address, request).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_leaves_one_record_that_tells_no_secret() {
    const FIELDS: [&str; 19] = [
        "attempts",
        "bytes_in",
        "bytes_out",
        "caller",
        "code",
        "duration_us",
        "effect",
        "id",
        "identity",
        "legacy",
        "method",
        "outcome",
        "peer",
        "phase",
        "replay",
        "request_id",
        "route",
        "status",
        "time",
    ];
    let emulator = emulator(Options::default()).await;
    let settings = [
        ("AMOVE_GATEWAY_AUDIT__STDOUT", "true"),
        ("AMOVE_GATEWAY_CALLERS__BILLING__API_KEY_HASH", &*hash_of("b1lling-key")),
        ("AMOVE_GATEWAY_CALLERS__HASTY__API_KEY_HASH", &*hash_of("h4sty-key")),
        ("AMOVE_GATEWAY_CALLERS__HASTY__RATE", "1/h"),
    ];
    let mut gateway = Gateway::ready(&emulator, &settings).await;
    let expected = [
        ("b1lling-key", "GET", USERINFO, 200, "ok"),
        ("b1lling-key", "GET", "/api/user/userinfo", 200, "ok"),
        ("b1lling-key", "GET", "/api/v1/fastrLicense/info/p4r4m", 404, "upstream_error"),
        ("b1lling-key", "GET", "/api/v1/fastrLicense/info/unknown?q=p4r4m", 404, "upstream_error"),
        ("b1lling-key", "DELETE", "/api/v1/cloudaccount/delete?id=p4r4m", 400, "upstream_error"),
        ("b1lling-key", "GET", "/api/v1/p4r4m/../x", 400, "denied"),
        ("b1lling-key", "POST", "/api/authentication/login", 403, "denied"),
        ("", "GET", USERINFO, 401, "unauthenticated"),
        ("wr0ng-key", "GET", USERINFO, 401, "unauthenticated"),
        ("h4sty-key", "GET", USERINFO, 200, "ok"),
        ("h4sty-key", "GET", USERINFO, 429, "limited"),
    ];
    for (key, method, target, _, _) in expected {
        call_as(&gateway, key, method, target).await;
    }
    // The last one leaves in the middle of the answer.
    let mut leaves = TcpStream::connect(gateway.address).await.expect("a connection");
    let head = "GET /api/v1/emulator/blob?bytes=1000000000 HTTP/1.1\r\nhost: x\r\n\
                authorization: Bearer b1lling-key\r\nx-request-id: leaver\r\n\r\n";
    leaves.write_all(head.as_bytes()).await.expect("a request");
    leaves.read_exact(&mut [0; 4096]).await.expect("some of the answer");
    drop(leaves);
    eventually("the last record", async || gateway.process.stdout().contains("leaver")).await;
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.exit_code().await, Some(0));

    let text = gateway.process.stdout();
    for secret in ["p4r4m", "-key", "eyJ", emulator::PASSWORD] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    let (intents, records) = records_in(&text);
    let told: Vec<_> = records
        .iter()
        .map(|record| {
            let status = record["status"].as_u64().unwrap_or_default();
            (
                record["method"].as_str().expect("a method"),
                status,
                record["outcome"].as_str().expect("an outcome"),
            )
        })
        .collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|(_, method, _, status, outcome)| (*method, *status, *outcome))
        .collect();
    assert_eq!(told[..told.len() - 1], expected[..]);
    assert_eq!(told.last(), Some(&("GET", 200, "client_closed")));
    let ids: BTreeSet<_> = records.iter().map(|record| record["id"].to_string()).collect();
    assert_eq!(ids.len(), records.len());
    for record in &records {
        let fields = record.as_object().expect("an object");
        for field in FIELDS.iter().chain(&["upstream_status", "upstream_us"]) {
            assert!(fields.contains_key(*field), "{field}: {record}");
        }
        assert_eq!(record["phase"], "outcome");
    }
    // What may change something, and what nobody knows, was announced; what was refused was not.
    let announced: Vec<_> = intents.iter().map(|intent| &intent["id"]).collect();
    assert_eq!(announced, [&records[4]["id"], &records[11]["id"]]);
    assert_eq!((&intents[0]["status"], &intents[0]["duration_us"]), (&Value::Null, &Value::Null));
    assert_eq!(records[0]["caller"], "billing");
    assert_eq!(records[0]["identity"], "main");
    assert_eq!(records[0]["attempts"], 1);
    assert_eq!(records[0]["effect"], "read");
    assert_eq!((&records[0]["legacy"], &records[1]["legacy"]), (&false.into(), &true.into()));
    assert_eq!(records[1]["route"], USERINFO);
    assert_eq!(records[2]["route"], "/api/v1/fastrLicense/info/{licenseKey}");
    assert_eq!(
        (&records[4]["code"], &records[4]["upstream_status"], &records[4]["effect"]),
        (&"Global".into(), &499.into(), &"destructive".into())
    );
    assert_eq!((&records[7]["caller"], &records[7]["attempts"]), (&Value::Null, &0.into()));
    assert_eq!((&records[10]["caller"], &records[10]["attempts"]), (&"hasty".into(), &0.into()));
    let sent = records[11]["bytes_out"].as_u64().expect("a size");
    assert!((1..1_000_000_000).contains(&sent), "{sent}");
}

/// The intents and the outcomes among lines of JSON.
fn records_in(lines: &str) -> (Vec<Value>, Vec<Value>) {
    let records = lines.lines().map(|line| serde_json::from_str(line).expect("a line of JSON"));
    records.partition(|record: &Value| record["phase"] == "intent")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_tells_what_became_of_a_replay() {
    let emulator = emulator(Options { mfa: false, ..Options::default() }).await;
    let settings = [
        ("AMOVE_GATEWAY_AUDIT__STDOUT", "true"),
        ("AMOVE_GATEWAY_IDENTITIES__MAIN__REPLAY_BUFFER", "16B"),
    ];
    let mut gateway = Gateway::ready(&emulator, &settings).await;
    let small = r#"{"name":"x"}"#;
    let large = r#"{"name":"larger than the buffer"}"#;
    let insert = "/api/v1/project/insert";
    let expected = [
        ("POST", insert, small, false, 200, Value::Null),
        ("POST", insert, r#"{"name":"y"}"#, true, 200, "done".into()),
        ("POST", insert, large, true, 502, "too_large".into()),
        ("POST", "/api/v1/desktop/box_authorization_callback", small, true, 502, "declined".into()),
        ("POST", "/api/v1/emulator/echo", small, true, 502, "declined".into()),
        ("POST", "/api/v1/desktop/signup", "{}", false, 422, Value::Null),
        // From here on there is no login.
        ("GET", USERINFO, "", true, 503, "failed".into()),
    ];
    for (method, target, body, denied, status, _) in &expected {
        if *denied {
            emulator.inject(Fault::Unauthorized { count: 1 });
        }
        emulator.inject(Fault::AuthDown { on: *status == 503 });
        let request = Request::builder().method(*method).uri(*target).header("host", "x");
        let request = request.header("content-type", "application/json");
        let request = request.body(Full::from(*body)).expect("a request");
        let answer = call(gateway.address, request).await.expect("an answer");
        assert_eq!(answer.status().as_u16(), *status, "{target}");
    }
    gateway.process.signal("TERM");
    gateway.process.exit_code().await;

    let text = gateway.process.stdout();
    let (_, records) = records_in(&text);
    let told: Vec<_> = records.iter().map(|record| record["replay"].clone()).collect();
    let attempts: Vec<_> = records.iter().map(|record| record["attempts"].clone()).collect();
    assert_eq!(told, expected.map(|(.., replay)| replay));
    assert_eq!(attempts, [1, 2, 1, 1, 1, 1, 1]);
    let minted = emulator.requests().into_iter().find(|seen| seen.target.ends_with("/signup"));
    let minted: Value = serde_json::from_slice(&minted.expect("a request").body).expect("JSON");
    let minted = minted["requestToken"].as_str().expect("a token that was minted");
    for output in [text, gateway.process.stderr()] {
        assert!(!output.contains(minted), "{output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_logged_at_any_level() {
    let directory = tempfile::tempdir().expect("a directory");
    for (http2, tls) in [("never", false), ("always", false), ("auto", true)] {
        let tls_dir = tls.then(|| directory.path().to_owned());
        let emulator = emulator(Options { tls_dir, ..Options::default() }).await;
        let ca = directory.path().join("ca.pem").display().to_string();
        let settings = [
            ("AMOVE_GATEWAY_TELEMETRY__LOG", "trace"),
            ("AMOVE_GATEWAY_UPSTREAM__HTTP2", http2),
            ("AMOVE_GATEWAY_UPSTREAM__CA_FILE", if tls { &*ca } else { "" }),
            ("AMOVE_GATEWAY_CALLERS__BILLING__API_KEY_HASH", &*hash_of("b1lling-key")),
        ];
        let mut gateway = Gateway::ready(&emulator, &settings).await;
        assert_eq!(call_as(&gateway, "b1lling-key", "GET", USERINFO).await.status(), 200);
        assert_eq!(call_as(&gateway, "wr0ng-key", "GET", USERINFO).await.status(), 401);
        let signup = "/api/v1/desktop/signup";
        assert_eq!(call_as(&gateway, "b1lling-key", "POST", signup).await.status(), 422);
        let minted = emulator.requests().into_iter().find(|seen| seen.target == signup);
        let minted: Value = serde_json::from_slice(&minted.expect("a request").body).expect("JSON");
        let minted = minted["requestToken"].as_str().expect("a token that was minted");
        emulator.revoke_sessions();
        gateway.process.signal("TERM");
        gateway.process.exit_code().await;

        let log = gateway.process.stderr();
        // Only HTTP/2 is that talkative.
        assert!(http2 == "never" || log.contains("\"TRACE\""), "the level is the lowest there is");
        let jwt = emulator.requests().iter().find_map(|seen| {
            seen.header("authorization")
                .and_then(|it| it.strip_prefix("Bearer "))
                .map(str::to_owned)
        });
        let jwt = jwt.expect("a token");
        for secret in [
            emulator::PASSWORD,
            emulator::TOTP_SECRET,
            "b1lling-key",
            "wr0ng-key",
            &*jwt,
            "eyJ",
            minted,
        ] {
            let line = log.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "http2 = {http2}: {secret}: {line:?}");
        }
    }
}

/// The method and the URL of each `curl` on the screen.
fn commands(screen: &str) -> Vec<(String, SocketAddr, String)> {
    let mut commands = Vec::new();
    for line in screen.lines().filter_map(|line| line.trim().strip_prefix("curl ")) {
        let words: Vec<_> = line.split(' ').map(|word| word.trim_matches('\'')).collect();
        let method = words.windows(2).find(|pair| pair[0] == "-X").map_or("GET", |pair| pair[1]);
        let url = words.iter().find_map(|word| word.strip_prefix("http://")).expect("a URL");
        let (address, path) = url.split_once('/').expect("a path");
        let address = address.parse().expect("an address");
        commands.push((method.to_owned(), address, format!("/{path}")));
    }
    commands
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_keeps_what_its_screen_promises() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let (admin, api) = (free_port().to_string(), free_port().to_string());
    let arguments = [
        "sandbox",
        "--port",
        &port,
        "--admin-port",
        &admin,
        "--emulator-port",
        &api,
        "--color",
        "never",
    ];
    let mut sandbox = Process::start(&arguments, &[]);
    eventually("its screen", async || sandbox.stdout().contains("Ctrl-C ends it.")).await;
    let screen = sandbox.stdout();

    assert!(screen.contains(&format!("Port {port} is busy, so the gateway is at ")), "{screen}");
    let commands = commands(&screen);
    let (_, gateway, _) = commands[0];
    let (_, api, _) = commands[3];
    eventually("sample traffic with an error of Amove", async || {
        let seen = get(api, "/_emulator/requests").await;
        String::from_utf8_lossy(seen.body()).contains("sync/get?id=nobody")
    })
    .await;
    eventually("a caller over its limit", async || {
        let mut request = request("GET", USERINFO);
        request.headers_mut().insert("x-api-key", HeaderValue::from_static("sandbox-hasty"));
        call(gateway, request).await.expect("an answer").status() == 429
    })
    .await;
    let mut answers = Vec::new();
    for (method, address, target) in &commands {
        answers.push(call(*address, request(method, target)).await.expect("an answer"));
    }
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status().as_u16()).collect();
    assert_eq!(statuses, [200, 200, 404, 200], "{screen}");
    assert!(answers[1].headers().contains_key("deprecation"));
    assert!(answers[1].headers()["link"].to_str().expect("text").contains("successor-version"));
    assert_eq!(problem(&answers[2]), "upstream-error");
    sandbox.signal("INT");
    assert_eq!(sandbox.exit_code().await, Some(0), "{}", sandbox.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn https_is_spoken_with_whom_the_extra_authority_vouches_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let tls_dir = Some(directory.path().to_owned());
    let emulator = emulator(Options { tls_dir, ..Options::default() }).await;
    let ca = directory.path().join("ca.pem").display().to_string();

    for (http2, has_host) in [("auto", false), ("never", true)] {
        emulator.forget_requests();
        let settings =
            [("AMOVE_GATEWAY_UPSTREAM__CA_FILE", &*ca), ("AMOVE_GATEWAY_UPSTREAM__HTTP2", http2)];
        let gateway = Gateway::ready(&emulator, &settings).await;
        assert_eq!(get(gateway.address, USERINFO).await.status(), 200);
        let seen = emulator.requests();
        let seen = seen.iter().find(|seen| seen.target == USERINFO).expect("the request");
        // Only HTTP/1.1 has the field; HTTP/2 has `:authority`.
        assert_eq!(seen.header("host").is_some(), has_host, "http2 = {http2}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_believed_without_a_certificate_that_somebody_vouches_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let tls_dir = Some(directory.path().to_owned());
    let impostor = emulator(Options { tls_dir, ..Options::default() }).await;
    let honest = emulator(Options::default()).await;

    let nowhere = Gateway::start(&impostor, &[]).await;
    let answer = get(nowhere.address, USERINFO).await;
    assert_eq!(answer.status(), 503);
    assert_eq!(problem(&answer), "session-unavailable");
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(get(nowhere.admin, "/readyz").await.status(), 503);

    let api = impostor.api_url();
    let settings = [("AMOVE_GATEWAY_UPSTREAM__API_URL", &*api)];
    let half = Gateway::ready(&honest, &settings).await;
    let answer = get(half.address, USERINFO).await;
    assert_eq!(answer.status(), 502);
    assert_eq!(problem(&answer), "upstream-unreachable");
    assert!(impostor.requests().is_empty(), "not even a request was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_when_amove_ends_all_sessions() {
    let emulator = emulator(Options { mfa: false, ..Options::default() }).await;
    let gateway = Gateway::ready(&emulator, &[]).await;

    emulator.revoke_sessions();
    let answers = tokio::join!(
        get(gateway.address, USERINFO),
        get(gateway.address, USERINFO),
        get(gateway.address, USERINFO)
    );

    assert_eq!([answers.0.status(), answers.1.status(), answers.2.status()], [StatusCode::OK; 3]);
    let stats = emulator.stats();
    assert_eq!((stats.logins, stats.live_sessions), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_is_waited_for_as_long_as_configured() {
    let emulator = emulator(Options::default()).await;
    let settings = [("AMOVE_GATEWAY_UPSTREAM__RESPONSE_TIMEOUT", "300ms")];
    let gateway = Gateway::ready(&emulator, &settings).await;

    emulator.inject(Fault::Latency { ms: 20, count: Some(1), host: Some(Host::Main), route: None });
    assert_eq!(get(gateway.address, USERINFO).await.status(), 200);
    emulator.inject(Fault::Stall { count: 1000, host: Some(Host::Main), route: None });
    let begun = std::time::Instant::now();
    let answer = get(gateway.address, USERINFO).await;
    assert_eq!(
        (answer.status(), &*problem(&answer)),
        (StatusCode::GATEWAY_TIMEOUT, "upstream-timeout")
    );
    assert!(begun.elapsed() >= Duration::from_millis(300));
}
