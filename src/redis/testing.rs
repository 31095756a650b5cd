//! A real Redis for tests.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::TcpListener,
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// What takes longer has failed, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A Redis of our own, which ends with the value.
pub(crate) struct RedisServer {
    folder: TempDir,
    child: Child,
    tls_port: Option<u16>,
}

impl RedisServer {
    /// On a unix socket. `None` if there is no program, which only CI may not lack.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(tempfile::tempdir().expect("a folder"), None)
    }

    /// Also with TLS, certified by `ca.pem` in its folder.
    pub(crate) fn start_with_tls() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        certify(folder.path());
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        Self::start_with(folder, Some(port))
    }

    fn start_with(folder: TempDir, tls_port: Option<u16>) -> Option<Self> {
        match spawn(folder.path(), tls_port) {
            Ok(child) => {
                let server = Self { folder, child, tls_port };
                server.wait();
                Some(server)
            }
            Err(error) => {
                let in_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
                assert!(!in_ci, "redis-server cannot be started: {error}");
                eprintln!("SKIPPED: redis-server cannot be started: {error}");
                None
            }
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn url(&self) -> String {
        format!("unix:{}", self.folder.path().join("redis.sock").display())
    }

    pub(crate) fn tls_url(&self) -> String {
        format!("rediss://localhost:{}", self.tls_port.expect("TLS"))
    }

    /// As it is killed by the system.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a child");
        self.child.wait().expect("a child");
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &kill]).status().expect("a shell");
        assert!(sent.success(), "{kill}");
    }

    /// Starts it anew after [`Self::kill`]: it has forgotten everything.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(self.folder.path(), self.tls_port).expect("it started before");
        self.wait();
    }

    /// What Redis answers to a command, past the library and ourselves.
    pub(crate) fn ask(&self, command: &[&str]) -> redis::Value {
        let client = redis::Client::open(self.url()).expect("a URL");
        let mut connection = client.get_connection().expect("a connection");
        redis::cmd(command[0]).arg(&command[1..]).query(&mut connection).expect("an answer")
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        redis::from_redis_value(self.ask(&["KEYS", "*"])).expect("keys")
    }

    fn wait(&self) {
        let deadline = Instant::now() + PATIENCE;
        let socket = self.folder.path().join("redis.sock");
        let ping = || {
            let mut stream = UnixStream::connect(&socket)?;
            stream.write_all(b"PING\r\n")?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer)?;
            Ok::<_, io::Error>(answer == *b"+PONG")
        };
        while !ping().unwrap_or(false) {
            assert!(Instant::now() < deadline, "in vain: Redis answers");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(folder: &Path, tls_port: Option<u16>) -> io::Result<Child> {
    let mut command = Command::new("redis-server");
    command.current_dir(folder).args([
        "--port",
        "0",
        "--unixsocket",
        "redis.sock",
        "--save",
        "",
        "--appendonly",
        "no",
    ]);
    if let Some(port) = tls_port {
        command
            .args(["--tls-port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem"])
            .args(["--tls-ca-cert-file", "ca.pem", "--tls-auth-clients", "no"]);
    }
    let log = File::create(folder.join("redis.log"))?;
    command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null()).spawn()
}

fn certify(folder: &Path) {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new([]).expect("a CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).expect("a CA");
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(["localhost".to_owned()])
        .and_then(|params| params.signed_by(&key, &Issuer::new(ca, &ca_key)))
        .expect("a certificate");
    let write = |name, text| std::fs::write(folder.join(name), text).expect("a file");
    write("ca.pem", ca_certificate.pem());
    write("cert.pem", certificate.pem());
    write("key.pem", key.serialize_pem());
}
