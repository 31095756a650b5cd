//! The audit log of the real program: kills, outages of the disk, counts, and what is never in it.
#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use amove_gateway::{
    audit::{self, Archive, Filter},
    clock::Clock,
    emulator::{self, Emulator, Fault, Options},
};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use process_support::{
    Gateway, PATIENCE, Process, borrowed, emulator, environment_with, eventually, get,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

mod process_support;

const USERINFO: &str = "/api/v1/user/userinfo";
const INSERT: &str = "/api/v1/project/insert";

const STORE: &str = "AMOVE_GATEWAY_AUDIT__STORE";
const STDOUT: &str = "AMOVE_GATEWAY_AUDIT__STDOUT";
const DURABILITY: &str = "AMOVE_GATEWAY_AUDIT__DURABILITY";
const ON_FAILURE: &str = "AMOVE_GATEWAY_AUDIT__ON_FAILURE";

/// How often the gateway is killed; 200 outside CI show more.
fn kills() -> u32 {
    number("AMOVE_GATEWAY_TEST_KILLS").unwrap_or(6)
}

/// How many requests are counted; 100,000 outside CI show more.
fn requests() -> u32 {
    number("AMOVE_GATEWAY_TEST_REQUESTS").unwrap_or(960)
}

fn number(name: &str) -> Option<u32> {
    std::env::var(name).ok()?.parse().ok()
}

async fn amove() -> Emulator {
    // A session that is left open by a kill ends by itself, and there may be many of them.
    emulator(Options { mfa: false, max_sessions: 10_000, ..Options::default() }).await
}

/// All records of the audit log in `folder`, as JSON, in their order.
fn records(folder: &Path) -> Vec<Value> {
    let archive = Archive::open(folder, &Clock::system()).expect("an audit log");
    let mut lines = Vec::new();
    let all = Filter { intents: true, ..Filter::default() };
    let days = archive.days().expect("days");
    let read = days.oldest_first(&all, |sealed| {
        sealed.json_line(&mut lines);
        ControlFlow::Continue(())
    });
    read.expect("records");
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).expect("JSON")).collect()
}

fn verified(folder: &Path) -> audit::Verified {
    let archive = Archive::open(folder, &Clock::system()).expect("an audit log");
    audit::verify(&archive, None, None, |_| ()).expect("nothing is wrong with it")
}

fn ids<'a>(records: &'a [Value], phase: &str) -> BTreeMap<&'a str, usize> {
    let mut ids = BTreeMap::new();
    for record in records.iter().filter(|record| record["phase"] == phase) {
        *ids.entry(record["request_id"].as_str().expect("an id")).or_default() += 1;
    }
    ids
}

/// A request with that id; every other one writes.
fn numbered(number: u64) -> Request<Full<Bytes>> {
    let request = Request::builder().header("host", "x").header("x-request-id", id_of(number));
    let request = match number % 2 {
        0 => request.uri(USERINFO).body(Full::default()),
        _ => request
            .method("POST")
            .uri(INSERT)
            .header("content-type", "application/json")
            .body(Full::from(format!(r#"{{"name":"p{number}"}}"#))),
    };
    request.expect("a request")
}

fn id_of(number: u64) -> String {
    format!("r-{number}")
}

/// Sends numbered requests on one connection until it breaks or `stop` is set; the ids of those
/// whose answer came whole.
async fn load(
    address: std::net::SocketAddr,
    next: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> Vec<(String, StatusCode)> {
    let mut answered = Vec::new();
    let Ok(stream) = TcpStream::connect(address).await else { return answered };
    let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(stream)).await else {
        return answered;
    };
    tokio::spawn(connection);
    while !stop.load(Relaxed) {
        let number = next.fetch_add(1, Relaxed);
        let Ok(answer) = sender.send_request(numbered(number)).await else { break };
        let (head, body) = answer.into_parts();
        if body.collect().await.is_err() || sender.ready().await.is_err() {
            break;
        }
        answered.push((id_of(number), head.status));
    }
    answered
}

async fn survives_kills(durability: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("audit");
    let amove = amove().await;
    let sessions = folder.path().join("session");
    let settings = [
        (STORE, store.to_str().expect("text")),
        (DURABILITY, durability),
        ("AMOVE_GATEWAY_SESSION_STORE__KIND", "file"),
        ("AMOVE_GATEWAY_SESSION_STORE__PATH", sessions.to_str().expect("text")),
        (
            "AMOVE_GATEWAY_SESSION_STORE__ENCRYPTION_KEY",
            "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
        ),
    ];
    let next = Arc::new(AtomicU64::new(0));
    let (mut answered, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for kill in 0..kills() {
        let mut gateway = Gateway::ready(&amove, &settings).await;
        amove.forget_requests();
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for _ in 0..8 {
            clients.spawn(load(gateway.address, Arc::clone(&next), Arc::clone(&stop)));
        }
        // A different moment each time, also within a batch of the store.
        sleep(Duration::from_millis(20 + u64::from(kill) * 37 % 300)).await;
        gateway.process.signal("KILL");
        gateway.process.ended().await;
        for client in clients.join_all().await {
            answered.extend(client.into_iter().map(|(id, _)| id));
        }
        let requests = amove.requests();
        let wrote = requests.iter().filter(|request| request.target == INSERT);
        seen.extend(wrote.filter_map(|it| it.header("x-request-id").map(str::to_owned)));
        if kill % 8 == 0 {
            verified(&store);
        }
    }
    // What the last one left in its journal is found by whoever looks.
    let records = records(&store);
    let verified = verified(&store);

    assert_eq!(verified.records, records.len() as u64);
    let (intents, outcomes) = (ids(&records, "intent"), ids(&records, "outcome"));
    assert!(answered.len() > 100, "{} answers", answered.len());
    for id in &answered {
        assert_eq!(outcomes.get(id.as_str()), Some(&1), "{id} was answered");
    }
    for id in &seen {
        assert_eq!(intents.get(id.as_str()), Some(&1), "{id} was seen by the API");
    }
    assert!(outcomes.values().all(|count| *count == 1));
    assert!(records.iter().all(|record| record["phase"] != "gap"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_recorded_whenever_the_gateway_is_killed() {
    survives_kills("batch").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_is_when_records_go_to_the_disk_first() {
    survives_kills("sync").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_leaves_exactly_one_outcome_however_it_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("audit");
    let amove = amove().await;
    let settings = [
        (STORE, store.to_str().expect("text")),
        ("AMOVE_GATEWAY_UPSTREAM__RESPONSE_TIMEOUT", "1s"),
        ("AMOVE_GATEWAY_SERVER__HEADER_TIMEOUT", "1s"),
        ("AMOVE_GATEWAY_RATE_LIMIT__GLOBAL", "60/s"),
    ];
    let mut gateway = Gateway::ready(&amove, &settings).await;
    // One route never answers in time.
    let route = Some("project/get_all".to_owned());
    amove.inject(Fault::Latency { ms: 3000, count: None, host: None, route });
    let address = gateway.address;
    let sent = Arc::new(Mutex::new(BTreeSet::new()));
    let mut clients = JoinSet::new();
    let count = if requests() > 10_000 { 64 } else { 16 };
    for client in 0..count {
        let sent = Arc::clone(&sent);
        clients.spawn(async move {
            for turn in 0..requests() / count {
                let id = format!("c{client}-{turn}");
                let (method, target, leaves) = match (client + turn) % 8 {
                    0 => ("GET", USERINFO, false),
                    1 => ("POST", INSERT, false),
                    2 => ("GET", "/api/v1/sync/get?id=nobody", false),
                    3 => ("GET", "/api/v1/emulator/blob?bytes=10000000", true),
                    4 => ("GET", "/api/v1//twice", false),
                    5 => ("POST", "/api/authentication/login", false),
                    6 => ("GET", "/api/v1/project/get_all", true),
                    _ => ("DELETE", "/api/v1/project/delete?id=x", true),
                };
                let Ok(mut stream) = TcpStream::connect(address).await else { continue };
                let head = format!(
                    "{method} {target} HTTP/1.1\r\nhost: x\r\nx-request-id: {id}\r\n\
                     connection: close\r\ncontent-length: 0\r\n\r\n"
                );
                if stream.write_all(head.as_bytes()).await.is_err() {
                    continue;
                }
                // Whoever has read a byte of the answer, or the API's, was received for certain.
                let mut answer = vec![0; 256];
                let read = timeout(Duration::from_secs(5), stream.read(&mut answer)).await;
                if leaves {
                    drop(stream);
                } else {
                    let _ = stream.read_to_end(&mut answer).await;
                }
                assert!(matches!(read, Ok(Ok(1..))), "{id}: {read:?}");
                sent.lock().expect("a lock").insert(id);
            }
        });
    }
    clients.join_all().await;
    // What ends early leaves a record as well.
    let early = [
        "garbage\r\n\r\n",
        "GET /api/v1/user",
        "POST /api/v1/project/insert HTTP/1.1\r\nhost: x\r\nx-request-id: half\r\n\
         content-length: 10\r\n\r\nhalf",
    ];
    for bytes in early {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(bytes.as_bytes()).await.expect("a beginning");
        // The first is refused at once, the second when its time is over, the third leaves.
        let wait = Duration::from_secs(if bytes.contains("half") { 0 } else { 5 });
        let _ = timeout(wait, stream.read(&mut [0; 64])).await;
    }
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.exit_code().await, Some(0));

    let records = records(&store);
    verified(&store);
    let outcomes = ids(&records, "outcome");
    let sent = sent.lock().expect("a lock");
    for id in &*sent {
        assert_eq!(outcomes.get(id.as_str()), Some(&1), "{id}");
    }
    let others: Vec<_> = records
        .iter()
        .filter(|record| record["phase"] == "outcome")
        .filter(|record| !sent.contains(record["request_id"].as_str().expect("an id")))
        .map(|record| (record["status"].as_u64(), record["outcome"].as_str()))
        .collect();
    let (refused, slow) = ((Some(400), Some("denied")), (Some(408), Some("denied")));
    assert_eq!(others[..2], [refused, slow]);
    assert_eq!((others[2].1, others.len()), (Some("client_closed"), 3));
    let kinds: BTreeSet<_> =
        records.iter().filter_map(|record| record["outcome"].as_str()).collect();
    for kind in ["ok", "upstream_error", "denied", "limited", "client_closed"] {
        assert!(kinds.contains(kind), "{kind}: {kinds:?}");
    }
    // What was announced has ended.
    assert!(ids(&records, "intent").keys().all(|id| outcomes.contains_key(id)));
}

/// Starts a gateway that is told when a file may not grow, rather than be ended for it.
async fn with_limits(amove: &Emulator, settings: &[(&str, &str)]) -> Gateway {
    Gateway::start_ignoring(amove, settings, "XFSZ").await
}

/// From now on no file of the process may grow, as on a full disk.
fn fill_disk(process: &Process, full: bool) {
    let limit = if full { "--fsize=0:unlimited" } else { "--fsize=unlimited:unlimited" };
    let pid = process.pid().to_string();
    let status = Command::new("prlimit").args(["--pid", &pid, limit]).status();
    assert!(status.expect("prlimit").success());
}

async fn status_of(gateway: &Gateway) -> (u16, String) {
    let answer = get(gateway.address, USERINFO).await;
    let kind = serde_json::from_slice::<Value>(answer.body()).ok();
    let kind = kind.and_then(|body| Some(body["type"].as_str()?.to_owned())).unwrap_or_default();
    (answer.status().as_u16(), kind)
}

async fn audit_state(gateway: &Gateway) -> Value {
    let status = get(gateway.admin, "/-/status.json").await;
    serde_json::from_slice::<Value>(status.body()).expect("JSON")["audit"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_nothing_happens_and_nothing_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("audit");
    let amove = amove().await;
    let mut gateway = with_limits(&amove, &[(STORE, store.to_str().expect("text"))]).await;
    assert_eq!(status_of(&gateway).await.0, 200);
    let before = amove.stats().requests;

    fill_disk(&gateway.process, true);
    let refused = (503, "urn:amove-gateway:problem:audit-unavailable".to_owned());
    // The first one finds it out: its answer is not given.
    for _ in 0..20 {
        assert_eq!(status_of(&gateway).await, refused);
    }
    // Nobody waits for the body of what is refused; so nothing can follow it, which is told.
    let mut early = TcpStream::connect(gateway.address).await.expect("a connection");
    let head = format!("POST {INSERT} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n");
    early.write_all(head.as_bytes()).await.expect("somebody who reads");
    let mut answer = String::new();
    timeout(PATIENCE, early.read_to_string(&mut answer))
        .await
        .expect("its end")
        .expect("an answer");
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("connection: close"),
        "{answer}"
    );
    let forwarded = amove.stats().requests - before;
    assert!(forwarded <= 1, "{forwarded}");
    // Each is told once, and that it fails is told once.
    let told = |what: &str| gateway.process.stderr().matches(what).count();
    eventually("it is told", async || told("\"audit-unavailable\"") == 21).await;
    assert_eq!(told("the audit log cannot be written"), 1);
    assert_eq!(get(gateway.admin, "/readyz").await.status(), 503);
    assert!(!audit_state(&gateway).await["failure"].is_null());

    fill_disk(&gateway.process, false);
    eventually("it goes on by itself", async || {
        get(gateway.admin, "/readyz").await.status() == 200
    })
    .await;
    assert_eq!(status_of(&gateway).await.0, 200);
    eventually("it is told", async || {
        gateway.process.stderr().matches("the audit log can be written again").count() == 1
    })
    .await;
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.exit_code().await, Some(0));
    let records = records(&store);
    verified(&store);
    let refused = records.iter().filter(|it| it["status"] == 503 && it["outcome"] == "failed");
    assert_eq!((refused.count(), records.len()), (21, 23));
    assert!(records.iter().all(|record| record["phase"] == "outcome"));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_that_is_allowed_requests_go_on_and_what_is_lost_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("audit");
    let amove = amove().await;
    let settings = [(STORE, store.to_str().expect("text")), (ON_FAILURE, "allow")];
    let mut gateway = with_limits(&amove, &settings).await;

    fill_disk(&gateway.process, true);
    for _ in 0..20 {
        assert_eq!(status_of(&gateway).await.0, 200);
    }
    assert_eq!(get(gateway.admin, "/readyz").await.status(), 200);
    // What waits in memory is bounded; the rest is lost.
    let next = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for _ in 0..16 {
        clients.spawn(load(gateway.address, Arc::clone(&next), Arc::clone(&stop)));
    }
    eventually("records are lost", async || {
        audit_state(&gateway).await["lost"].as_u64().is_some_and(|lost| lost > 10)
    })
    .await;
    stop.store(true, Relaxed);
    let answered = clients.join_all().await.into_iter().flatten().count() as u64;

    fill_disk(&gateway.process, false);
    eventually("it is written again", async || audit_state(&gateway).await["failure"].is_null())
        .await;
    let lost = audit_state(&gateway).await["lost"].as_u64().expect("a number");
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.exit_code().await, Some(0));
    let records = records(&store);
    verified(&store);
    let gaps = records.iter().filter_map(|record| record["lost"].as_u64());
    assert_eq!(gaps.sum::<u64>(), lost);
    // Each is there, or among what the gaps count: writes have two records.
    let outcomes = records.iter().filter(|record| record["phase"] == "outcome").count() as u64;
    assert!(outcomes + lost >= answered + 20, "{outcomes} + {lost}, {answered}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_taken_away_is_made_again_or_nothing_happens_without_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let store: PathBuf = folder.path().join("audit");
    let amove = amove().await;
    let gateway = Gateway::ready(&amove, &[(STORE, store.to_str().expect("text"))]).await;
    assert_eq!(status_of(&gateway).await.0, 200);
    eventually("it is stored", async || audit_state(&gateway).await["seq"] == 1).await;

    std::fs::remove_dir_all(&store).expect("it is gone");
    assert_eq!(status_of(&gateway).await.0, 200);
    eventually("it is stored", async || {
        store.join("head.json").exists() && audit_state(&gateway).await["seq"] == 2
    })
    .await;
    // The one that was taken away is missed.
    let archive = Archive::open(&store, &Clock::system()).expect("an audit log");
    let verdict = audit::verify(&archive, None, None, |_| ());
    assert!(verdict.is_err_and(|error| error.to_string().starts_with("record 1: missing")));

    // There can be no folder where there is a file.
    std::fs::remove_dir_all(&store).expect("it is gone");
    std::fs::write(&store, "").expect("a file");
    eventually("it is found out", async || status_of(&gateway).await.0 == 503).await;
    std::fs::remove_file(&store).expect("it is gone");
    eventually("it goes on by itself", async || status_of(&gateway).await.0 == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_have_not_one_audit_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("audit");
    let amove = amove().await;
    let settings = [(STORE, store.to_str().expect("text"))];
    let _first = Gateway::ready(&amove, &settings).await;

    let environment = environment_with(&amove, &settings);
    let second = process_support::run(&["run"], &borrowed(&environment)).await;

    assert_eq!(second.status.code(), Some(74));
    let told = process_support::stderr(&second);
    assert!(told.contains("belongs to another gateway") && told.contains("audit.store"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_ever_in_the_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("audit");
    let amove = amove().await;
    let settings = [(STORE, store.to_str().expect("text")), (STDOUT, "true")];
    let mut gateway = Gateway::ready(&amove, &settings).await;
    amove.forget_requests();
    let canary = "c4n4ry";
    for target in [
        format!("/api/v1/fastrLicense/info/{canary}"),
        format!("/api/v1/sync/get?id={canary}"),
        format!("/api/v1/unknown/{canary}"),
        format!("/{canary}"),
    ] {
        let request = Request::builder()
            .method("POST")
            .uri(target)
            .header("host", canary)
            .header("cookie", canary)
            .header("user-agent", canary)
            .header("referer", canary)
            .header("x-api-key", canary)
            .header("authorization", format!("Bearer {canary}"))
            .header("traceparent", format!("00-{canary}-0000000000000001-01"))
            .body(Full::from(canary))
            .expect("a request");
        process_support::call(gateway.address, request).await.expect("an answer");
    }
    amove.inject(Fault::Code { code: "DEFAULT".into(), count: 1, host: None, route: None });
    get(gateway.address, USERINFO).await;
    let bearer = amove.requests().iter().find_map(|seen| {
        seen.header("authorization").and_then(|it| it.strip_prefix("Bearer ")).map(str::to_owned)
    });
    let outcomes = || records(&store).iter().filter(|record| record["phase"] == "outcome").count();
    eventually("they are stored", async || store.join("head.json").exists() && outcomes() == 5)
        .await;
    gateway.process.signal("KILL");
    gateway.process.ended().await;

    let secrets = [canary, emulator::PASSWORD, emulator::TOTP_SECRET, emulator::USERNAME];
    let secrets = secrets.into_iter().map(str::to_owned).chain(bearer);
    let secrets: Vec<_> = secrets.collect();
    let mut files = vec![gateway.process.stdout().into_bytes()];
    for folder in [store.join("journal"), store.clone()] {
        for file in std::fs::read_dir(folder).expect("a folder") {
            let path = file.expect("a file").path();
            if path.is_file() {
                use std::os::unix::fs::PermissionsExt;
                let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
                assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
                files.push(std::fs::read(path).expect("a file"));
            }
        }
    }
    assert!(files.len() > 3);
    for secret in secrets {
        for file in &files {
            assert!(memchr::memmem::find(file, secret.as_bytes()).is_none(), "{secret}");
        }
    }
}
