//! One process follows another, and nobody notices: no request fails, nobody logs in again, nothing is
//! missing from the audit log.
#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::{
    net::{SocketAddr, TcpListener},
    ops::ControlFlow,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use amove_gateway::{
    audit::{Archive, Filter, verify},
    clock::Clock,
    emulator::{Emulator, Fault, Host, Options},
};
use http::StatusCode;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use process_support::{
    Gateway, Process, borrowed, command, emulator, environment_with, eventually, get, redis::Redis,
    request, soon,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    task::JoinSet,
};

mod process_support;

const USERINFO: &str = "/api/v1/user/userinfo";
const KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
const LISTEN: &str = "AMOVE_GATEWAY_SERVER__LISTEN";
const ADMIN: &str = "AMOVE_GATEWAY_SERVER__ADMIN_LISTEN";
const STORE: &str = "AMOVE_GATEWAY_AUDIT__STORE";
const KIND: &str = "AMOVE_GATEWAY_SESSION_STORE__KIND";
/// How many call at the same time.
const CALLERS: usize = 9;
const SEALING_KEY: &str = "AMOVE_GATEWAY_SESSION_STORE__ENCRYPTION_KEY";

async fn amove() -> Emulator {
    emulator(Options { mfa: false, ..Options::default() }).await
}

/// Where callers connect to.
#[derive(Clone)]
enum Door {
    Tcp(SocketAddr),
    Unix(std::path::PathBuf),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Door {
    async fn connect(&self) -> Result<Box<dyn Stream>, String> {
        let failed = |error| format!("no connection: {error}");
        Ok(match self {
            Self::Tcp(address) => {
                Box::new(TcpStream::connect(address).await.map_err(failed)?) as Box<dyn Stream>
            }
            Self::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(failed)?),
        })
    }

    /// One request on a connection of its own.
    async fn call_once(&self) -> Result<(), String> {
        let mut stream = self.connect().await?;
        let head = format!("GET {USERINFO} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let mut answer = String::new();
        stream.write_all(head.as_bytes()).await.map_err(|error| format!("not sent: {error}"))?;
        let read = stream.read_to_string(&mut answer).await;
        read.map_err(|error| format!("not answered: {error}"))?;
        if answer.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(format!("{answer:?}")) }
    }

    /// Requests on one connection, until the gateway says that it was the last, or `stop` says so.
    async fn call_often(&self, stop: &AtomicBool) -> Result<usize, (usize, String)> {
        let stream = self.connect().await.map_err(|error| (0, error))?;
        let handshake = http1::handshake::<_, Empty<bytes::Bytes>>(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| (0, error.to_string()))?;
        tokio::spawn(connection);
        let mut count = 0;
        while !stop.load(Relaxed) {
            let call = async {
                let request = request("GET", USERINFO).map(|_| Empty::new());
                let (head, body) = sender.send_request(request).await?.into_parts();
                body.collect().await?;
                Ok::<_, hyper::Error>(head)
            };
            let head = call.await.map_err(|error| (count, format!("{error:?}")))?;
            if head.status != StatusCode::OK {
                return Err((count, format!("{head:?}")));
            }
            count += 1;
            if head.headers.get("connection").is_some_and(|it| it == "close") {
                break;
            }
        }
        Ok(count)
    }
}

impl Door {
    /// Requests on one connection of HTTP/2, until the gateway ends it, or `stop` says so.
    async fn call_by_http2(&self, stop: &AtomicBool) -> Result<usize, (usize, String)> {
        let stream = self.connect().await.map_err(|error| (0, error))?;
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| (0, error.to_string()))?;
        tokio::spawn(connection);
        let mut count = 0;
        while !stop.load(Relaxed) {
            let uri = format!("http://localhost{USERINFO}");
            let request = http::Request::get(uri).body(Empty::<bytes::Bytes>::new());
            let answer = match sender.try_send_request(request.expect("a request")).await {
                Ok(answer) => answer,
                Err(mut error) => match error.take_message() {
                    // It was not sent: whoever has it knows, and takes another connection.
                    Some(_) => break,
                    None => return Err((count, format!("{:?}", error.into_error()))),
                },
            };
            let status = answer.status();
            let body = answer.into_body().collect().await;
            body.map_err(|error| (count, format!("{error:?}")))?;
            if status != StatusCode::OK {
                return Err((count, status.to_string()));
            }
            count += 1;
        }
        Ok(count)
    }
}

/// Callers that never rest: some with a connection for each request, some that keep theirs, some by
/// HTTP/2.
struct Load {
    stop: Arc<AtomicBool>,
    callers: JoinSet<(usize, Vec<String>)>,
}

impl Load {
    fn start(door: &Door) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut callers = JoinSet::new();
        for number in 0..CALLERS {
            let (door, stop) = (door.clone(), Arc::clone(&stop));
            callers.spawn(async move {
                let (mut count, mut failures) = (0, Vec::new());
                while !stop.load(Relaxed) {
                    let called = match number % 3 {
                        0 => door.call_once().await.map(|()| 1).map_err(|error| (0, error)),
                        1 => door.call_often(&stop).await,
                        _ => door.call_by_http2(&stop).await,
                    };
                    match called {
                        Ok(calls) => count += calls,
                        Err((calls, error)) => {
                            count += calls;
                            failures.push(error);
                        }
                    }
                }
                (count, failures)
            });
        }
        Self { stop, callers }
    }

    /// How many requests were served; none may have failed.
    async fn end(self) -> usize {
        let (served, failures) = self.end_somehow().await;
        assert!(failures.is_empty(), "{} failed, first: {}", failures.len(), failures[0]);
        served
    }

    /// How many requests were served, and what became of the others.
    async fn end_somehow(self) -> (usize, Vec<String>) {
        self.stop.store(true, Relaxed);
        let (mut served, mut failed) = (0, Vec::new());
        for (count, failures) in soon("the callers end", self.callers.join_all()).await {
            served += count;
            failed.extend(failures);
        }
        (served, failed)
    }
}

/// The records of requests in the audit log, whose chain is proved; nothing waits in a journal.
fn recorded(store: &Path) -> usize {
    let left = std::fs::read_dir(store.join("journal")).expect("a folder").count();
    assert_eq!(left, 0, "journals are left");
    let archive = Archive::open(store, &Clock::system()).expect("an audit log");
    let verified = verify(&archive, None, None, |_| ()).expect("one chain");
    let mut count = 0;
    let all = Filter::default();
    let read = archive.days().expect("days").oldest_first(&all, |_| {
        count += 1;
        ControlFlow::Continue(())
    });
    read.expect("records");
    assert_eq!((verified.records, verified.first), (count as u64, 1));
    count
}

async fn take_over(emulator: &Emulator, settings: &[(&str, &str)]) -> Gateway {
    let environment = environment_with(emulator, settings);
    Gateway::started(Process::start(&["run", "--take-over"], &borrowed(&environment))).await
}

/// Enough of the load has passed to mean something.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(400)).await;
}

/// Three processes follow each other under load.
async fn three_generations(emulator: &Emulator, settings: &[(&str, &str)], door: Option<Door>) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("audit");
    let settings = [settings, &[(STORE, store.to_str().expect("text"))]].concat();
    let mut gateway = Gateway::ready(emulator, &settings).await;
    let (address, admin) = (gateway.address, gateway.admin);
    let load = Load::start(&door.unwrap_or(Door::Tcp(address)));
    a_while().await;

    for told in [false, true] {
        let successor = take_over(emulator, &settings).await;
        if told {
            // Whoever sends a signal as well does no harm.
            gateway.process.signal("TERM");
        }
        assert_eq!((successor.address, successor.admin), (address, admin), "the sockets stay");
        assert_eq!(gateway.process.exit_code().await, Some(0), "{}", gateway.process.stderr());
        assert_eq!(get(admin, "/readyz").await.status(), 200);
        eventually("the store is taken over", async || {
            let status = get(admin, "/-/status.json").await;
            let status: serde_json::Value = serde_json::from_slice(status.body()).expect("JSON");
            status["audit"]["waits"] == false
        })
        .await;
        a_while().await;
        gateway = successor;
    }
    let served = load.end().await;
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.exit_code().await, Some(0), "{}", gateway.process.stderr());

    assert!(served > 100, "{served}");
    assert_eq!(recorded(&store), served);
}

#[tokio::test(flavor = "multi_thread")]
async fn successors_serve_on_with_the_session_in_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sessions");
    let emulator = amove().await;
    let path = path.to_str().expect("text");
    let settings =
        [(KIND, "file"), ("AMOVE_GATEWAY_SESSION_STORE__PATH", path), (SEALING_KEY, KEY)];

    three_generations(&emulator, &settings, None).await;

    let stats = emulator.stats();
    assert_eq!((stats.logins, stats.logouts, stats.live_sessions), (1, 0, 1), "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn successors_serve_on_with_the_session_in_redis() {
    let Some(redis) = Redis::start() else { return };
    let (emulator, url) = (amove().await, redis.url());
    let settings = [
        (KIND, "redis"),
        ("AMOVE_GATEWAY_SESSION_STORE__URL", &*url),
        (SEALING_KEY, KEY),
        ("AMOVE_GATEWAY_AUDIT__DURABILITY", "sync"),
    ];

    three_generations(&emulator, &settings, None).await;

    let stats = emulator.stats();
    assert_eq!((stats.logins, stats.logouts, stats.live_sessions), (1, 1, 0), "{stats:?}");
    assert_eq!(stats.refused_bearers, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn successors_serve_on_at_a_unix_socket_with_sessions_of_their_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gateway.sock");
    let listen = format!("unix:{}", path.display());
    let emulator = amove().await;

    three_generations(&emulator, &[(LISTEN, &listen)], Some(Door::Unix(path.clone()))).await;

    let stats = emulator.stats();
    assert_eq!((stats.logins, stats.logouts, stats.live_sessions), (3, 3, 0), "{stats:?}");
    assert!(!path.exists(), "the last one has removed it");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_sign_in_leaves_its_predecessor_in_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("audit");
    let settings = [(STORE, store.to_str().expect("text"))];
    let emulator = amove().await;
    let mut gateway = Gateway::ready(&emulator, &settings).await;
    let load = Load::start(&Door::Tcp(gateway.address));

    let wrong = [&settings[..], &[("AMOVE_PASSWORD", "wrong")]].concat();
    let environment = environment_with(&emulator, &wrong);
    let mut successor = Process::start(&["run", "--take-over"], &borrowed(&environment));

    assert_eq!(successor.exit_code().await, Some(69), "{}", successor.stderr());
    assert!(successor.stderr().contains("leaves its predecessor in its place"));
    a_while().await;
    let served = load.end().await;
    assert!(gateway.process.is_running());
    assert_eq!(emulator.stats().failed_logins, 1);
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.exit_code().await, Some(0));
    assert_eq!(recorded(&store), served);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_configured_wrongly_leaves_its_predecessor_in_its_place_until_one_is_right() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("audit");
    let settings = [(STORE, store.to_str().expect("text"))];
    let emulator = amove().await;
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    let mut gateway = Gateway::ready(&emulator, &settings).await;
    let load = Load::start(&Door::Tcp(gateway.address));

    for (wrong, exit, told) in [
        // Nobody asks for sockets with it.
        (("AMOVE_GATEWAY_SERVER__IDLE_TIMEOUT", "never"), 78, "idle_timeout"),
        (("AMOVE_GATEWAY_UPSTREAM__CA_FILE", "/nowhere/ca.pem"), 78, "/nowhere/ca.pem"),
        (("AMOVE_GATEWAY_SERVER__HEALTH_LISTEN", &*taken), 74, &*taken),
    ] {
        let environment = environment_with(&emulator, &[&settings[..], &[wrong]].concat());
        let mut successor = Process::start(&["run", "--take-over"], &borrowed(&environment));
        let code = successor.exit_code().await;
        assert_eq!(code, Some(exit), "{wrong:?}: {}", successor.stderr());
        assert!(successor.stderr().contains(told), "{wrong:?}: {}", successor.stderr());
        assert!(gateway.process.is_running(), "{}", gateway.process.stderr());
    }
    assert_eq!(emulator.stats().logins, 1);
    let mut successor = take_over(&emulator, &settings).await;
    assert_eq!(gateway.process.exit_code().await, Some(0), "{}", gateway.process.stderr());
    a_while().await;
    let served = load.end().await;
    successor.process.signal("TERM");

    assert_eq!(successor.process.exit_code().await, Some(0), "{}", successor.process.stderr());
    assert_eq!(recorded(&store), served);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_killed_while_its_successor_prepares_loses_what_it_had_begun_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("audit");
    let settings = [(STORE, store.to_str().expect("text"))];
    let emulator = amove().await;
    let mut gateway = Gateway::ready(&emulator, &settings).await;
    let load = Load::start(&Door::Tcp(gateway.address));
    a_while().await;
    let (host, route) = (Some(Host::Auth), None);
    emulator.inject(Fault::Latency { ms: 2000, count: Some(1), host, route });
    let logins = || emulator.requests().iter().filter(|seen| seen.host == Host::Auth).count();
    let before = logins();

    let environment = environment_with(&emulator, &settings);
    let successor = Process::start(&["run", "--take-over"], &borrowed(&environment));
    eventually("the successor logs in", async || logins() > before).await;
    gateway.process.signal("KILL");
    gateway.process.ended().await;
    // Whoever comes now waits in the system's queue.
    let mut successor = Gateway::started(successor).await;
    assert_eq!(successor.address, gateway.address);
    a_while().await;
    let (served, failed) = load.end_somehow().await;
    assert_eq!(get(successor.address, USERINFO).await.status(), 200);
    successor.process.signal("TERM");

    assert_eq!(successor.process.exit_code().await, Some(0), "{}", successor.process.stderr());
    assert!(failed.len() <= CALLERS, "each has one request under way: {failed:?}");
    // Records are safe before the answer; an answer may have been on its way to who did not get it.
    let (served, recorded) = (served + 1, recorded(&store));
    assert!(
        (served..=served + failed.len()).contains(&recorded),
        "{served}, {recorded}, {failed:?}"
    );
    assert_eq!(emulator.stats().logins, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_runs_it_is_a_plain_start_and_who_is_killed_is_followed_by_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("audit");
    let settings = [(STORE, store.to_str().expect("text"))];
    let emulator = amove().await;

    for _ in 0..2 {
        let mut gateway = take_over(&emulator, &settings).await;
        assert_eq!(get(gateway.address, USERINFO).await.status(), 200);
        assert!(gateway.process.stderr().contains("this is a plain start"));
        gateway.process.signal("KILL");
        gateway.process.ended().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_predecessor_that_takes_long_does_not_keep_its_successor_from_serving() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("audit");
    let settings = [(STORE, store.to_str().expect("text"))];
    let emulator = amove().await;
    let mut gateway = Gateway::ready(&emulator, &settings).await;
    emulator.inject(Fault::Stall { count: 1, host: Some(Host::Main), route: None });
    let mut hangs = TcpStream::connect(gateway.address).await.expect("a connection");
    let head = format!("GET {USERINFO} HTTP/1.1\r\nhost: x\r\n\r\n");
    hangs.write_all(head.as_bytes()).await.expect("a request");
    eventually("it hangs", async || emulator.requests().iter().any(|seen| seen.target == USERINFO))
        .await;

    let mut successor = take_over(&emulator, &settings).await;
    for _ in 0..10 {
        assert_eq!(get(successor.address, USERINFO).await.status(), 200);
        assert_eq!(get(successor.admin, "/readyz").await.status(), 200);
    }
    let status = get(successor.admin, "/-/status.json").await;
    let status: serde_json::Value = serde_json::from_slice(status.body()).expect("JSON");
    assert_eq!(
        (&status["audit"]["waits"], &status["audit"]["stuck"]),
        (&true.into(), &false.into())
    );
    assert!(gateway.process.is_running(), "it finishes what it has begun");

    gateway.process.signal("TERM");
    gateway.process.signal("KILL");
    gateway.process.ended().await;
    successor.process.signal("TERM");
    assert_eq!(successor.process.exit_code().await, Some(0));
    assert_eq!(recorded(&store), 10);
}

/// Starts the gateway with a listening socket as the service manager passes it.
fn started_with(
    socket: impl Into<OwnedFd>,
    name: &str,
    emulator: &Emulator,
    settings: &[(&str, &str)],
) -> Process {
    let environment = environment_with(emulator, settings);
    let gateway = command(&["run"], &borrowed(&environment));
    let mut shell = Command::new("sh");
    let passes = "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\"";
    shell.args(["-c", passes]).env("LISTEN_FDNAMES", name).stdin(socket.into());
    Process::start_by(shell, &gateway)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_the_service_managers_socket_fails_no_request() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, store) = (folder.path().join("sessions"), folder.path().join("audit"));
    let emulator = amove().await;
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");
    let listen = address.to_string();
    let settings = [
        (KIND, "file"),
        ("AMOVE_GATEWAY_SESSION_STORE__PATH", path.to_str().expect("text")),
        (SEALING_KEY, KEY),
        (STORE, store.to_str().expect("text")),
        (LISTEN, &listen),
    ];
    let start = async || {
        let socket = socket.try_clone().expect("a handle");
        Gateway::started(started_with(socket, "callers", &emulator, &settings)).await
    };
    let mut gateway = start().await;
    assert_eq!(gateway.address, address);
    let load = Load::start(&Door::Tcp(address));

    for _ in 0..2 {
        a_while().await;
        gateway.process.signal("TERM");
        assert_eq!(gateway.process.exit_code().await, Some(0), "{}", gateway.process.stderr());
        gateway = start().await;
    }
    a_while().await;
    let served = load.end().await;
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.exit_code().await, Some(0));

    assert!(served > 100, "{served}");
    assert_eq!(recorded(&store), served);
    assert_eq!(emulator.stats().logins, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_managers_unix_socket_is_served_and_its_file_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gateway.sock");
    let listen = format!("unix:{}", path.display());
    let emulator = amove().await;
    let socket = UnixListener::bind(&path).expect("a socket");

    // With a name that says nothing, the address does.
    let process = started_with(socket, "amove-gateway.socket", &emulator, &[(LISTEN, &listen)]);
    let mut gateway = Gateway::started(process).await;
    Door::Unix(path.clone()).call_once().await.expect("an answer");
    gateway.process.signal("TERM");

    assert_eq!(gateway.process.exit_code().await, Some(0));
    assert!(path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_come_in_at_the_service_managers_socket() {
    let emulator = amove().await;
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");

    let admin = address.to_string();
    let process = started_with(socket, "admin", &emulator, &[(ADMIN, &admin)]);
    let gateway = Gateway::started(process).await;

    assert_eq!(gateway.admin, address);
    assert_eq!(get(address, "/livez").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_no_setting_names_is_told() {
    let emulator = amove().await;
    for (listen, name) in [("127.0.0.1:0", "health"), ("127.0.0.2:0", "callers")] {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("an address").to_string();

        let mut process = started_with(socket, name, &emulator, &[(LISTEN, listen)]);

        assert_eq!(process.exit_code().await, Some(78), "{}", process.stderr());
        let told = format!("passes a socket that listens at {address}, and no setting names");
        assert!(process.stderr().contains(&told), "{}", process.stderr());
    }
    assert_eq!(emulator.stats().logins, 0);
}
