//! What the tests of stores have in common: entries, a log, and a real Redis.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::TcpListener,
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use secrecy::{ExposeSecret, SecretBox};
use tempfile::TempDir;
use uuid::Uuid;

use super::{Binding, Claim, Entry, Lease, Shelf, Store, Stored};
use crate::{
    clock::Clock,
    config::{SealingKey, SessionStore, StoreError, StoreKind, UserType},
    session::login::Fingerprint,
};

/// What takes longer has failed, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn key(byte: u8) -> SealingKey {
    Arc::new(SecretBox::new(Box::new([byte; 32])))
}

pub(super) fn binding(identity: &str) -> Binding {
    Binding {
        identity: identity.into(),
        username: "svc@corp.test".to_owned(),
        user_type: UserType::AccountAdmin,
        auth_url: "https://auth.test".to_owned(),
    }
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("a time")
}

/// With a session of this token.
pub(super) fn entry(jwt: &str) -> Entry {
    let session = Stored {
        id: Uuid::now_v7(),
        jwt: jwt.into(),
        issued: at(1_800_000_000),
        expires: Some(at(1_800_000_900)),
        second_factor: true,
        secrets: Fingerprint::of(&["password"]),
    };
    Entry { session: Some(session), ..Entry::default() }
}

/// The token of the session in there.
pub(super) fn jwt(entry: &Entry) -> Option<&str> {
    entry.session.as_ref().map(|session| session.jwt.expose_secret())
}

pub(super) fn store(kind: StoreKind) -> Store {
    Store::open(&SessionStore { kind, on_error: StoreError::Local }).expect("a store")
}

impl Store {
    /// The place of the identity `main`.
    pub(super) fn main(&self) -> Shelf {
        self.shelf(&binding("main"), &Clock::system())
    }
}

impl Shelf {
    pub(super) async fn claim_mine(&self) -> (Lease, Entry) {
        match self.claim().await.expect("an answer") {
            Claim::Mine(lease, entry) => (lease, *entry),
            Claim::Others => panic!("the lease is another's"),
        }
    }

    pub(super) async fn write(&self, entry: &Entry) {
        let (lease, _) = self.claim_mine().await;
        self.put(lease, entry).await.expect("an answer");
    }

    /// The entry as it stands.
    pub(super) async fn read(&self) -> Entry {
        self.look(None).await.expect("an answer").entry.expect("an entry")
    }
}

/// What `work` logs.
pub(super) fn logged(work: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("nobody panics").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, work);
    let bytes = lines.0.lock().expect("nobody panics").clone();
    String::from_utf8(bytes).expect("text")
}

/// A Redis of our own, which ends with the value.
pub(super) struct RedisServer {
    folder: TempDir,
    child: Child,
    tls_port: Option<u16>,
}

impl RedisServer {
    /// On a unix socket. `None` if there is no program, which only CI may not lack.
    pub(super) fn start() -> Option<Self> {
        Self::start_with(tempfile::tempdir().expect("a folder"), None)
    }

    /// Also with TLS, certified by `ca.pem` in its folder.
    pub(super) fn start_with_tls() -> Option<Self> {
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

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn url(&self) -> String {
        format!("unix:{}", self.folder.path().join("redis.sock").display())
    }

    pub(super) fn tls_url(&self) -> String {
        format!("rediss://localhost:{}", self.tls_port.expect("TLS"))
    }

    /// As it is killed by the system.
    pub(super) fn kill(&mut self) {
        self.child.kill().expect("a child");
        self.child.wait().expect("a child");
    }

    /// Starts it anew after [`Self::kill`]: it has forgotten everything.
    pub(super) fn restart(&mut self) {
        self.child = spawn(self.folder.path(), self.tls_port).expect("it started before");
        self.wait();
    }

    pub(super) fn store(&self, key: SealingKey) -> Store {
        store(StoreKind::Redis { url: self.url().into(), ca_file: None, key })
    }

    /// What Redis answers to a command, past the library and ourselves.
    pub(super) fn ask(&self, command: &[&str]) -> redis::Value {
        let client = redis::Client::open(self.url()).expect("a URL");
        let mut connection = client.get_connection().expect("a connection");
        redis::cmd(command[0]).arg(&command[1..]).query(&mut connection).expect("an answer")
    }

    pub(super) fn keys(&self) -> Vec<String> {
        redis::from_redis_value(self.ask(&["KEYS", "*"])).expect("keys")
    }

    /// The key that ends so.
    pub(super) fn key_of(&self, what: &str) -> String {
        self.keys().into_iter().find(|key| key.ends_with(what)).expect("a key")
    }

    /// Makes it long ago that any member was here.
    pub(super) fn age_members(&self) {
        let key = self.key_of(":members");
        let members = self.ask(&["ZRANGE", &key, "0", "-1"]);
        for member in redis::from_redis_value::<Vec<String>>(members).expect("members") {
            self.ask(&["ZADD", &key, "1000", &member]);
        }
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
