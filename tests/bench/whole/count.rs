//! Counts instructions: the gateway runs below callgrind, which is told when to begin and to end.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    backend::Backend,
    client::{Client, Round},
    gateway::{Gateway, Size},
    scenario::Scenario,
};

/// Callers that ask at the same time.
const CALLERS: usize = 16;
/// Rounds until all connections are open, all code has been used and all memory has its size.
const WARM_UP: usize = 10;
/// Rounds that are counted.
const ROUNDS: usize = 60;
/// A round takes so long at least: as many records come together in the store on a fast machine
/// as on a slow one.
const PACE: Duration = Duration::from_millis(30);
/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What tells the threads apart: each spends its life in one of these.
const WORKER: &[&str] = &["amove_gateway::server::worker::"];
/// What is not inlined into the other is not the same in every program.
const WRITER: &[&str] = &["amove_gateway::audit::writer::", "amove_gateway::audit::ledger::"];

/// What one request costs, in instructions in user space.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cost {
    /// On the thread that serves it, before it is answered.
    pub(crate) worker: f64,
    /// On the thread that moves its records into the store, soon afterwards.
    pub(crate) writer: f64,
}

/// A gateway whose instructions are counted.
#[derive(Debug)]
pub(crate) struct Counted {
    backend: Backend,
    gateway: Gateway,
    client: Client,
    callers: usize,
    dumps: usize,
}

/// Whether this machine can count.
pub(crate) fn can_count() -> bool {
    let answers = |program| Command::new(program).arg("--help").output().is_ok();
    answers("valgrind") && answers("vgdb")
}

impl Counted {
    /// Starts what `gateway` makes of a configuration, without counting yet.
    pub(crate) fn start(gateway: impl FnOnce(&Path) -> Command, size: Size) -> Self {
        let backend = Backend::start().expect("a backend");
        let below = |config: &Path| {
            let folder = config.parent().expect("a folder");
            let gateway = gateway(config);
            let mut valgrind = Command::new("valgrind");
            valgrind
                .args(["--quiet", "--tool=callgrind"])
                .args(["--instr-atstart=no", "--separate-threads=yes"])
                .arg(format!("--callgrind-out-file={}", folder.join("counts").display()))
                .arg(format!("--vgdb-prefix={}", folder.join("vgdb").display()))
                .arg(gateway.get_program())
                .args(gateway.get_args());
            valgrind
        };
        let gateway = Gateway::start(below, &backend, size);
        let client = Client::connect(gateway.address, CALLERS);
        let counted = Self { backend, gateway, client, callers: size.callers, dumps: 0 };
        counted.tell(&["instrumentation", "on"]);
        counted
    }

    /// What a request of that kind costs. Where a folder is given, what callgrind knows about it
    /// is kept there.
    pub(crate) fn cost(&mut self, scenario: &'static Scenario, keep: Option<&Path>) -> Cost {
        let apart = (self.callers / CALLERS).max(1);
        let round = Round::new(CALLERS, |at| (scenario, at * apart % self.callers));
        self.backend.answer_together(if scenario.is_forwarded { CALLERS } else { 1 });
        self.ask(&round, scenario, WARM_UP);
        self.tell(&["zero"]);
        self.ask(&round, scenario, ROUNDS);
        self.tell(&["dump"]);
        self.dumps += 1;
        let profiles = self.profiles();
        if let Some(folder) = keep {
            for (path, _) in &profiles {
                let thread = path.extension().unwrap_or_default().to_string_lossy();
                let thread = thread.rsplit('-').next().unwrap_or_default();
                let name = format!("callgrind.{}.{thread}", scenario.name);
                fs::copy(path, folder.join(name)).expect("a folder that can be written");
            }
        }
        let requests = (CALLERS * ROUNDS) as f64;
        let of = |thread: &[&str]| {
            let is_of = |text: &str| thread.iter().any(|name| text.contains(name));
            let profiles = profiles.iter().filter(|(_, text)| is_of(text));
            let counts: Vec<_> = profiles.map(|(_, text)| total(text)).collect();
            assert!(!counts.is_empty(), "no thread is in {thread:?} any more");
            counts.iter().sum::<u64>() as f64 / requests
        };
        Cost { worker: of(WORKER), writer: of(WRITER) }
    }

    /// Lets all callers ask so often, and waits until what they did is in the store.
    fn ask(&mut self, round: &Round, scenario: &Scenario, rounds: usize) {
        let before = self.stored();
        for _ in 0..rounds {
            let begun = Instant::now();
            self.client.round(round);
            thread::sleep(PACE.saturating_sub(begun.elapsed()));
        }
        let records = (rounds * CALLERS * scenario.records) as u64;
        let deadline = Instant::now() + PATIENCE;
        while self.stored() < before + records {
            assert!(Instant::now() < deadline, "records are missing: {}", scenario.name);
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(self.stored(), before + records, "{}", scenario.name);
    }

    /// How many records are in the store.
    fn stored(&self) -> u64 {
        let (status, body) = self.gateway.ask("/-/status.json");
        assert_eq!(status, 200);
        let report: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        report["audit"]["stored"].as_u64().expect("a number")
    }

    /// What callgrind has counted last: a file for each thread.
    fn profiles(&self) -> Vec<(PathBuf, String)> {
        let prefix = format!("counts.{}-", self.dumps);
        let files = fs::read_dir(self.gateway.folder()).expect("a folder");
        let paths = files.map(|file| file.expect("a file").path());
        let of_now = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
        };
        let read = |path: PathBuf| {
            let text = fs::read_to_string(&path).expect("text");
            (path, text)
        };
        paths.filter(of_now).map(read).collect()
    }

    /// Tells callgrind what to do.
    fn tell(&self, what: &[&str]) {
        let prefix = self.gateway.folder().join("vgdb");
        let mut vgdb = Command::new("vgdb")
            .arg(format!("--pid={}", self.gateway.pid()))
            .arg(format!("--vgdb-prefix={}", prefix.display()))
            // By itself it would stop the process to be heard, which is not allowed everywhere.
            .arg("--max-invoke-ms=0")
            .args(what)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("vgdb starts");
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = vgdb.try_wait().expect("a child") {
                break status;
            }
            assert!(Instant::now() < deadline, "callgrind does not hear: {what:?}");
            // A process that waits hears nothing. This wakes the thread that serves operators.
            self.gateway.ask("/livez");
        };
        assert!(status.success(), "vgdb {what:?}: {status}");
    }

    /// Ends it in good order.
    pub(crate) fn stop(self) {
        drop(self.client);
        self.gateway.stop();
    }
}

/// The instructions that a profile of one thread is about.
fn total(profile: &str) -> u64 {
    let total = profile.lines().find_map(|line| line.strip_prefix("summary: "));
    total.and_then(|total| total.trim().parse().ok()).expect("a sum")
}
