//! A Redis of the test's own.

use std::{
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{PATIENCE, free_port};

/// A running server, which is killed when it is dropped. It keeps nothing.
pub(crate) struct Redis {
    port: u16,
    child: Child,
}

impl Redis {
    /// Starts one. Without the program there is none, which is a failure where `CI` is `true`.
    pub(crate) fn start() -> Option<Self> {
        let port = free_port();
        let Some(child) = spawn(port) else {
            let is_ci = std::env::var("CI").is_ok_and(|it| it == "true");
            assert!(!is_ci, "redis-server is missing");
            eprintln!("SKIPPED: redis-server is missing (apt-get install redis-server)");
            return None;
        };
        Some(Self { port, child })
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        super::kill(self.child.id(), name);
    }

    /// Starts it again, empty.
    pub(crate) fn revive(&mut self) {
        self.child = spawn(self.port).expect("it has been started before");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(port: u16) -> Option<Child> {
    let port_text = port.to_string();
    let child = Command::new("redis-server")
        .args(["--port", &port_text, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "redis-server does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    Some(child)
}
