//! What the service manager is told: `NOTIFY_SOCKET` is a socket of the test.
#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::{
    os::unix::net::UnixDatagram,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use amove_gateway::emulator::Options;
use process_support::{Gateway, emulator, eventually, get};
use tempfile::TempDir;

mod process_support;

/// A service manager that notes what it is told.
struct Manager {
    folder: TempDir,
    told: Arc<Mutex<Vec<String>>>,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        let told = Arc::new(Mutex::new(Vec::new()));
        let note = Arc::clone(&told);
        // It ends with the test.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let mut note = note.lock().unwrap_or_else(PoisonError::into_inner);
                note.push(text.trim().to_owned());
            }
        });
        Self { folder, told }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("notify")
    }

    /// All it has been told so far, but for signs of life.
    fn told(&self) -> Vec<String> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.iter().filter(|line| *line != "WATCHDOG=1").cloned().collect()
    }

    fn signs_of_life(&self) -> usize {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.iter().filter(|line| *line == "WATCHDOG=1").count()
    }

    async fn hears(&self, line: &str) {
        eventually(line, async || self.told().iter().any(|told| told == line)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manager_hears_of_start_reload_and_end_and_that_all_workers_turn() {
    let (manager, emulator) = (Manager::new(), emulator(Options::default()).await);
    let path = manager.path().display().to_string();
    let settings = [("NOTIFY_SOCKET", &*path), ("WATCHDOG_USEC", "3000000")];
    let mut gateway = Gateway::start(&emulator, &settings).await;

    manager.hears("READY=1\nSTATUS=ready").await;
    assert_eq!(get(gateway.admin, "/readyz").await.status(), 200);
    gateway.process.signal("HUP");
    manager.hears("READY=1").await;
    let before = manager.signs_of_life();
    eventually("signs of life", async || manager.signs_of_life() >= before + 2).await;
    gateway.process.signal("STOP");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let stopped = manager.signs_of_life();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(manager.signs_of_life(), stopped);
    gateway.process.signal("CONT");
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.exit_code().await, Some(0), "{}", gateway.process.stderr());

    let told = manager.told();
    let place = |line: &str| told.iter().position(|told| told.starts_with(line)).expect("told");
    let reloading = &told[place("RELOADING=1")];
    let at = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("a time");
    assert!(at.parse::<u64>().is_ok_and(|at| at > 0), "{reloading}");
    let ready = told.iter().rposition(|told| told == "READY=1").expect("told");
    assert!(place("READY=1\nSTATUS=ready") < place("RELOADING=1"), "{told:?}");
    assert!(place("RELOADING=1") < ready, "{told:?}");
    assert!(ready < place("STOPPING=1\nSTATUS=draining"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_over_when_it_is_known_that_waiting_does_not_help() {
    let (manager, emulator) = (Manager::new(), emulator(Options::default()).await);
    let path = manager.path().display().to_string();
    let settings = [("NOTIFY_SOCKET", &*path), ("AMOVE_PASSWORD", "wrong")];
    let mut gateway = Gateway::start(&emulator, &settings).await;

    manager.hears("READY=1\nSTATUS=not ready: credentials refused").await;

    assert_eq!(emulator.stats().failed_logins, 1);
    assert_eq!(manager.signs_of_life(), 0, "nobody asks for them");
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.exit_code().await, Some(0));
}
