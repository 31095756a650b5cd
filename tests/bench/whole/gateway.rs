//! The real gateway, as a process: with everything on, on one worker.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use amove_gateway::caller::api_key;
use tempfile::TempDir;

use crate::{backend::Backend, scenario::key_of};

/// What takes longer has failed, also below valgrind and with many callers.
const PATIENCE: Duration = Duration::from_secs(300);

/// How much there is that a request could depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Callers with an API key each.
    pub(crate) callers: usize,
    /// Rules in the policy of each caller.
    pub(crate) rules: usize,
}

impl Default for Size {
    fn default() -> Self {
        Self { callers: 64, rules: 4 }
    }
}

/// A running gateway.
#[derive(Debug)]
pub(crate) struct Gateway {
    process: Child,
    log: JoinHandle<String>,
    /// Where callers reach it.
    pub(crate) address: SocketAddr,
    /// Where operators reach it.
    admin: SocketAddr,
    /// Its configuration, its records, and whatever else it writes.
    folder: TempDir,
}

impl Gateway {
    /// Starts what `command` makes of a configuration, and waits until it is ready.
    pub(crate) fn start(
        command: impl FnOnce(&Path) -> Command,
        backend: &Backend,
        size: Size,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("gateway.toml");
        fs::write(&config, configuration(backend, size)).expect("a file");
        let mut command = command(&config);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("AMOVE_") {
                command.env_remove(name);
            }
        }
        let mut process = command
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the gateway starts");
        let (started, has_started) = mpsc::channel();
        let stderr = process.stderr.take().expect("a pipe");
        let log = thread::spawn(move || {
            let mut log = String::new();
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.contains("gateway started") {
                    let _ = started.send(line.clone());
                }
                log += &line;
                log.push('\n');
            }
            log
        });
        let Ok(line) = has_started.recv_timeout(PATIENCE) else {
            let _ = process.kill();
            panic!("the gateway does not start:\n{}", log.join().unwrap_or_default());
        };
        let line: serde_json::Value = serde_json::from_str(&line).expect("a line of JSON");
        let address = |field: &str| {
            let text = line[field].as_str().expect(field);
            text.trim_matches(['[', ']', '"']).parse().expect("one address")
        };
        let (address, admin) = (address("listen"), address("admin"));
        let gateway = Self { process, log, address, admin, folder };
        let deadline = Instant::now() + PATIENCE;
        while gateway.ask("/readyz").0 != 200 {
            assert!(Instant::now() < deadline, "the gateway does not become ready");
            thread::sleep(Duration::from_millis(20));
        }
        gateway
    }

    /// The number of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Where it writes.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Asks what operators ask; the status and the body.
    pub(crate) fn ask(&self, target: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin).expect("the gateway listens");
        let head = format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("the gateway reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        (status.expect("a status"), body.to_owned())
    }

    /// Tells it to end, as an orchestrator does, and waits until it has: it ends in good order.
    pub(crate) fn stop(mut self) {
        let kill = format!("kill -TERM {}", self.pid());
        let sent = Command::new("sh").args(["-c", &kill]).status().expect("a shell");
        assert!(sent.success(), "{kill}");
        let status = self.process.wait().expect("a child");
        let log = self.log.join().expect("a reader");
        assert!(status.success(), "the gateway ends with {status}:\n{log}");
    }
}

/// The command that runs `binary` as `config` says.
pub(crate) fn run(binary: &Path, config: &Path) -> Command {
    let mut command = Command::new(binary);
    command.arg("--config").arg(config).arg("run");
    command
}

/// Everything on: callers with keys, rules, quotas of three kinds, records, operators.
fn configuration(backend: &Backend, size: Size) -> String {
    let url = backend.url();
    let mut text = format!(
        r#"
[server]
listen = ["127.0.0.1:0"]
admin_listen = "127.0.0.1:0"
workers = 1
[upstream]
api_url = "{url}"
auth_url = "{url}"
[identities.main]
api_token = "bench-token"
[rate_limit]
global = "1000000/s"
per_identity = "1000000/s"
[audit]
store = "audit"
[telemetry]
log_format = "json"
"#
    );
    let allow = allowed(size.rules.saturating_sub(1));
    for caller in 0..size.callers {
        let hash = api_key::written_hash(&key_of(caller).into());
        writeln!(
            text,
            "[callers.caller-{caller:07}]\napi_key_hash = \"{hash}\"\nallow = [{allow}]\n\
             deny = [\"DELETE project/*\"]\nrate = \"1000000/s\"\nmax_concurrent = 1000"
        )
        .expect("memory");
    }
    text
}

/// So many rules, of which the last ones matter.
fn allowed(rules: usize) -> String {
    const NEEDED: [&str; 3] = ["* user/*", "* project/*", "* *"];
    let filler = (0..rules.saturating_sub(NEEDED.len())).map(|_| "GET cloudaccount/get_all");
    let rules: Vec<_> = filler.chain(NEEDED).map(|rule| format!("\"{rule}\"")).collect();
    rules.join(", ")
}
