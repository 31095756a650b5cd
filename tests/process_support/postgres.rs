//! A PostgreSQL of the test's own.

use std::{
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use super::{PATIENCE, free_port};

/// What the superuser proves itself with.
pub(crate) const PASSWORD: &str = "canary-of-the-superuser";

/// Settings that make it quick. Killed processes lose nothing by them, only the power cut would.
const QUICK: [&str; 4] =
    ["fsync=off", "full_page_writes=off", "shared_buffers=32MB", "max_connections=40"];

/// A running server, which is killed when it is dropped, and its folder deleted.
pub(crate) struct Postgres {
    folder: TempDir,
    programs: PathBuf,
    port: u16,
    settings: Vec<String>,
    child: Option<Child>,
}

impl Postgres {
    /// Starts one. Without the programs there is none, which is a failure where `CI` is `true`.
    pub(crate) fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            let is_ci = std::env::var("CI").is_ok_and(|it| it == "true");
            assert!(!is_ci, "postgres is missing");
            eprintln!("SKIPPED: postgres is missing (apt-get install postgresql)");
            return None;
        };
        let folder = tempfile::tempdir().expect("a folder");
        let mut server =
            Self { folder, programs, port: free_port(), settings: Vec::new(), child: None };
        let password = server.folder.path().join("password");
        std::fs::write(&password, PASSWORD).expect("a file");
        server.give_away(server.folder.path());
        server.give_away(&password);
        let made = server
            .program("initdb")
            .args(["--no-sync", "--no-instructions", "--auth=scram-sha-256", "--username=postgres"])
            .args(["--encoding=UTF8", "--locale=C", "--pwfile", &password.display().to_string()])
            .arg(server.data())
            .output()
            .expect("initdb");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        server.revive();
        Some(server)
    }

    /// Speaks TLS from now on, with that certificate and key in PEM.
    pub(crate) fn use_tls(&mut self, certificate: &str, key: &str) {
        for (name, content) in [("server.crt", certificate), ("server.key", key)] {
            let path = self.folder.path().join(name);
            std::fs::write(&path, content).expect("a file");
            let private = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(&path, private).expect("permissions");
            self.give_away(&path);
            let option = if name == "server.crt" { "ssl_cert_file" } else { "ssl_key_file" };
            self.settings.push(format!("{option}={}", path.display()));
        }
        self.settings.push("ssl=on".into());
        self.stop();
        self.revive();
    }

    /// How that user reaches a database over TCP.
    pub(crate) fn url(&self, user: &str, password: &str, database: &str) -> String {
        format!("postgres://{user}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// How the superuser reaches the first database.
    pub(crate) fn owner(&self) -> String {
        self.url("postgres", PASSWORD, "postgres")
    }

    /// The same, over a unix socket.
    pub(crate) fn owner_by_socket(&self) -> String {
        let (folder, port) = (self.folder.path().display(), self.port);
        format!("postgresql://postgres:{PASSWORD}@/postgres?host={folder}&port={port}")
    }

    /// A connection of the superuser.
    pub(crate) async fn client(&self) -> Client {
        let (client, connection) =
            tokio_postgres::connect(&self.owner(), NoTls).await.expect("a connection");
        tokio::spawn(connection);
        client
    }

    /// What all its tables hold, as text.
    pub(crate) fn dump(&self) -> String {
        let mut dump = self.program("pg_dump");
        let dump = dump.args(["--inserts", "--dbname", &self.owner()]).output().expect("pg_dump");
        assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        String::from_utf8(dump.stdout).expect("text")
    }

    /// Ends it in an orderly way.
    pub(crate) fn stop(&mut self) {
        self.end("INT");
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        self.end("KILL");
    }

    fn end(&mut self, signal: &str) {
        let Some(mut child) = self.child.take() else { return };
        let kill = format!("kill -{signal} {}", child.id());
        let _ = Command::new("sh").args(["-c", &kill]).status();
        let _ = child.wait();
    }

    /// Starts it again, with what it had.
    pub(crate) fn revive(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut child = self.spawn();
            // What has crashed leaves processes that take a moment to notice.
            while child.try_wait().expect("a child").is_none() {
                if TcpStream::connect(("127.0.0.1", self.port)).is_ok() && self.is_ready() {
                    self.child = Some(child);
                    return;
                }
                assert!(Instant::now() < deadline, "postgres does not listen");
                std::thread::sleep(Duration::from_millis(20));
            }
            assert!(Instant::now() < deadline, "postgres does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// It listens while it still recovers.
    fn is_ready(&self) -> bool {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        log.contains("ready to accept connections")
    }

    fn spawn(&self) -> Child {
        let log = std::fs::File::create(self.log()).expect("a file");
        let settings = QUICK.iter().copied().chain(self.settings.iter().map(String::as_str));
        let folder = self.folder.path().display();
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.data()).args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        command.arg("-k").arg(folder.to_string());
        settings.for_each(|setting| {
            command.args(["-c", setting]);
        });
        command.stdout(Stdio::null()).stderr(log).spawn().expect("postgres")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// One of its programs: it wants to be nobody's superuser.
    fn program(&self, name: &str) -> Command {
        let program = self.programs.join(name);
        let mut command = match self.is_root() {
            true => {
                let mut command = Command::new("setpriv");
                let user = user();
                command.args([format!("--reuid={user}"), format!("--regid={user}")]);
                command.arg("--clear-groups").arg(program);
                command
            }
            false => Command::new(program),
        };
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    fn is_root(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
    }

    fn give_away(&self, path: &Path) {
        if self.is_root() {
            let user = user();
            let owner = format!("{user}:{user}");
            let done = Command::new("chown").arg(owner).arg(path).status().expect("chown");
            assert!(done.success());
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.end("QUIT");
    }
}

/// Whoever it runs as, where we are root.
fn user() -> &'static str {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    if users.lines().any(|line| line.starts_with("postgres:")) { "postgres" } else { "nobody" }
}

/// Where its programs are: of Debian's versions, the latest.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).collect::<Vec<_>>();
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    versions.sort();
    versions.reverse();
    let all = ["initdb", "postgres", "pg_dump"];
    let mut folders = versions.into_iter().chain(on_path);
    folders.find(|folder| all.iter().all(|name| folder.join(name).exists()))
}
