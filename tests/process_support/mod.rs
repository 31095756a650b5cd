//! Runs the executable as its users do, and talks to it.
#![allow(dead_code, reason = "every test binary uses its part of this")]

use std::{
    future::Future,
    io::Read,
    net::SocketAddr,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use amove_gateway::emulator::{self, Emulator, Options};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::TcpStream;

pub(crate) mod between;
pub(crate) mod pki;
pub(crate) mod postgres;
pub(crate) mod redis;

/// What takes longer has failed, also on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The executable, without whatever the environment of the tests would tell it.
pub(crate) fn command(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amove-gateway"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AMOVE_") || name == "NO_COLOR" {
            command.env_remove(name);
        }
    }
    command.args(arguments).envs(environment.iter().copied()).stdin(Stdio::null());
    command
}

/// Runs the executable to its end, which must come by itself.
pub(crate) async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut process = Process::start(arguments, environment);
    let status = process.ended().await;
    let (stdout, stderr) = (process.stdout().into(), process.stderr().into());
    Output { status, stdout, stderr }
}

/// What a process wrote to standard output.
pub(crate) fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("text")
}

/// What a process wrote to standard error.
pub(crate) fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("text")
}

/// A running executable, which is killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
    /// Where it runs: what it writes to no place in particular goes there.
    _folder: TempDir,
}

impl Process {
    /// Starts it.
    pub(crate) fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::spawn(command(arguments, environment))
    }

    /// Has `shell` start `gateway`, as its `$0` and `$@`, in the environment of that.
    pub(crate) fn start_by(mut shell: Command, gateway: &Command) -> Self {
        shell.arg(gateway.get_program()).args(gateway.get_args());
        for (name, value) in gateway.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        Self::spawn(shell)
    }

    /// Starts it as `command` says.
    fn spawn(mut command: Command) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = command
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the executable starts");
        let (stdout, out) = gather(child.stdout.take().expect("a pipe"));
        let (stderr, err) = gather(child.stderr.take().expect("a pipe"));
        Self { child, stdout, stderr, readers: vec![out, err], _folder: folder }
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output so far.
    pub(crate) fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// What it has written to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        kill(self.pid(), name);
    }

    /// Whether it has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> std::process::ExitStatus {
        let mut status = None;
        eventually("the process ends", async || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        })
        .await;
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader");
        }
        status.expect("it has ended")
    }

    /// Waits for its end; its exit code.
    pub(crate) async fn exit_code(&mut self) -> Option<i32> {
        self.ended().await.code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gather(mut pipe: impl Read + Send + 'static) -> (Arc<Mutex<Vec<u8>>>, JoinHandle<()>) {
    let gathered = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&gathered);
    let reader = std::thread::spawn(move || {
        let mut some = [0; 16 * 1024];
        while let Ok(size @ 1..) = pipe.read(&mut some) {
            let mut into = into.lock().unwrap_or_else(PoisonError::into_inner);
            into.extend_from_slice(&some[..size]);
        }
    });
    (gathered, reader)
}

fn text(bytes: &Mutex<Vec<u8>>) -> String {
    String::from_utf8_lossy(&bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
}

/// Sends a signal to a process of ours.
fn kill(pid: u32, name: &str) {
    let kill = format!("kill -{name} {pid}");
    let sent = Command::new("sh").args(["-c", &kill]).status().expect("a shell");
    assert!(sent.success(), "{kill}");
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for `future`, but not for ever.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("in vain: {what}"))
}

/// An emulated Amove in this process.
pub(crate) async fn emulator(options: Options) -> Emulator {
    Emulator::start(options).await.expect("an emulator")
}

/// The settings of a gateway in front of `emulator`, on ports that the system chooses.
pub(crate) fn environment(emulator: &Emulator) -> Vec<(String, String)> {
    [
        ("AMOVE_GATEWAY_SERVER__LISTEN", "127.0.0.1:0"),
        ("AMOVE_GATEWAY_SERVER__ADMIN_LISTEN", "127.0.0.1:0"),
        ("AMOVE_GATEWAY_SERVER__WORKERS", "2"),
        ("AMOVE_GATEWAY_UPSTREAM__API_URL", &emulator.api_url()),
        ("AMOVE_GATEWAY_UPSTREAM__AUTH_URL", &emulator.auth_url()),
        ("AMOVE_GATEWAY_LOG_FORMAT", "json"),
        ("AMOVE_USERNAME", emulator::USERNAME),
        ("AMOVE_PASSWORD", emulator::PASSWORD),
        ("AMOVE_USER_TYPE", "AccountAdmin"),
        ("AMOVE_TOTP_SECRET", emulator::TOTP_SECRET),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// `settings` over those of [`environment`].
pub(crate) fn environment_with(
    emulator: &Emulator,
    settings: &[(&str, &str)],
) -> Vec<(String, String)> {
    let mut environment = environment(emulator);
    for (name, value) in settings {
        environment.retain(|(known, _)| known != name);
        environment.push(((*name).to_owned(), (*value).to_owned()));
    }
    environment
}

/// The same, as commands take it.
pub(crate) fn borrowed(environment: &[(String, String)]) -> Vec<(&str, &str)> {
    environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// A running gateway.
pub(crate) struct Gateway {
    /// Its process.
    pub(crate) process: Process,
    /// Where callers reach it, if that is TCP.
    pub(crate) address: SocketAddr,
    /// Where operators reach it.
    pub(crate) admin: SocketAddr,
}

impl Gateway {
    /// Starts a gateway in front of `emulator`, and waits until it listens.
    pub(crate) async fn start(emulator: &Emulator, settings: &[(&str, &str)]) -> Self {
        let environment = environment_with(emulator, settings);
        Self::started(Process::start(&["run"], &borrowed(&environment))).await
    }

    /// Starts one that ignores a signal, and waits until it is ready.
    pub(crate) async fn start_ignoring(
        emulator: &Emulator,
        settings: &[(&str, &str)],
        signal: &str,
    ) -> Self {
        let environment = environment_with(emulator, settings);
        Self::ignoring(&["run"], &borrowed(&environment), signal).await
    }

    /// The same with arguments and an environment of its own.
    pub(crate) async fn ignoring(
        arguments: &[&str],
        environment: &[(&str, &str)],
        signal: &str,
    ) -> Self {
        let gateway = command(arguments, environment);
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("trap '' {signal}; exec \"$0\" \"$@\"")]);
        shell.stdin(Stdio::null());
        let gateway = Self::started(Process::start_by(shell, &gateway)).await;
        eventually("the gateway is ready", async || {
            get(gateway.admin, "/readyz").await.status() == 200
        })
        .await;
        gateway
    }

    /// One that has been started, as soon as it listens.
    pub(crate) async fn started(process: Process) -> Self {
        let mut started = None;
        eventually("the gateway starts", async || {
            let log = process.stderr();
            started = log.lines().find(|line| line.contains("gateway started")).map(str::to_owned);
            started.is_some()
        })
        .await;
        let started: serde_json::Value =
            serde_json::from_str(&started.expect("a line")).expect("a line of JSON");
        let address = |field: &str| {
            let text = started[field].as_str().expect(field);
            let first = text.split(", ").next().unwrap_or_default();
            let address = first.trim_matches(['[', ']', '"']);
            address.parse().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)))
        };
        let (address, admin) = (address("listen"), address("admin"));
        Self { process, address, admin }
    }

    /// The same, and waits until it is ready.
    pub(crate) async fn ready(emulator: &Emulator, settings: &[(&str, &str)]) -> Self {
        let gateway = Self::start(emulator, settings).await;
        eventually("the gateway is ready", async || {
            get(gateway.admin, "/readyz").await.status() == 200
        })
        .await;
        gateway
    }
}

/// Sends `request` on a connection of its own.
pub(crate) async fn call(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, hyper::Error> {
    let stream = TcpStream::connect(address).await.expect("somebody listens");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let exchange = async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        Ok(Response::from_parts(parts, body.collect().await?.to_bytes()))
    };
    soon("an answer", exchange).await
}

/// A request for `target` without a body.
pub(crate) fn request(method: &str, target: &str) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(target).header("host", "localhost");
    request.body(Full::default()).expect("a request")
}

/// Gets `target` on a connection of its own.
pub(crate) async fn get(address: SocketAddr, target: &str) -> Response<Bytes> {
    call(address, request("GET", target)).await.expect("an answer")
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}
