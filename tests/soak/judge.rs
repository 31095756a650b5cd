//! What must hold in the end.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    process::ExitCode,
    time::{Duration, Instant},
};

use amove_gateway::{
    audit::{self, Archive, Filter},
    clock::Clock,
};
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    book::{Book, Heard},
    calls::token,
    process_support::{Gateway, get},
    scene::Scene,
};

/// What was freed may take so long to be given back.
const SETTLES: Duration = Duration::from_secs(40);

/// Of all answers, so many at least did what was asked, whatever went wrong.
const GOOD: f64 = 0.5;

/// What the gateway holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Footprint {
    memory_kib: u64,
    threads: u64,
    descriptors: u64,
}

impl Footprint {
    pub(crate) fn of(scene: &Scene) -> Self {
        let pid = scene.gateway.process.pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
            line.split_whitespace().next().and_then(|it| it.parse().ok()).expect("a number")
        };
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count();
        Self {
            memory_kib: field("VmRSS:"),
            threads: field("Threads:"),
            descriptors: descriptors as u64,
        }
    }

    /// Whether this is no more than `before`, give or take what a pool of connections, a cache and an
    /// allocator keep.
    fn is_no_more_than(&self, before: &Self) -> bool {
        self.memory_kib <= before.memory_kib + before.memory_kib / 4 + 24 * 1024
            && self.threads <= before.threads + 2
            && self.descriptors <= before.descriptors + 40
    }
}

/// See above.
pub(crate) struct Judge<'a> {
    book: &'a Book,
}

impl<'a> Judge<'a> {
    pub(crate) fn over(book: &'a Book) -> Self {
        Self { book }
    }

    /// Nothing grows.
    pub(crate) async fn footprint(&mut self, before: &Footprint, scene: &Scene) {
        let begun = Instant::now();
        loop {
            let after = Footprint::of(scene);
            if after.is_no_more_than(before) {
                return println!("{before:?} before, {after:?} after");
            }
            if begun.elapsed() > SETTLES {
                return self
                    .book
                    .wrong(format!("it has grown: {before:?} before, {after:?} after"));
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// What the gateway says of itself.
    pub(crate) async fn metrics(&mut self, scene: &Scene) {
        let share = self.book.tally().share_of_good();
        if share < GOOD {
            self.book.wrong(format!("only {:.0} % of all answers were good", share * 100.0));
        }
        let metrics = get(scene.gateway.admin, "/metrics").await;
        let metrics = String::from_utf8_lossy(metrics.body()).into_owned();
        let of = |name: &str| {
            let samples = metrics.lines().filter(|line| line.starts_with(name));
            let values = samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
            values.sum::<f64>()
        };
        let logins = of("amove_gateway_session_logins_total{identity=\"main\",result=\"ok\"}");
        println!("{logins} logins, sessions ended {} times", scene.ended);
        if logins < 1.0 || logins > scene.ended as f64 + 1.0 {
            self.book.wrong(format!("{logins} logins for {} ended sessions", scene.ended));
        }
        let log = scene.gateway.process.stderr();
        for line in
            log.lines().filter(|it| it.contains("panicked") || it.contains("problem:internal"))
        {
            self.book.wrong(line.to_owned());
        }
    }

    /// What was answered is recorded, once, as it was answered; here and in the central store.
    pub(crate) async fn records(&mut self, mut scene: Scene) {
        let begun = Instant::now();
        while behind(&scene.gateway).await != 0 {
            if begun.elapsed() > SETTLES {
                return self.book.wrong("records have not arrived in the central store".to_owned());
            }
            sleep(Duration::from_millis(500)).await;
        }
        scene.gateway.process.signal("TERM");
        let code = scene.gateway.process.exit_code().await;
        if code != Some(0) {
            self.book.wrong(format!("it ended with {code:?}"));
        }
        let archive = Archive::open(&scene.audit(), &Clock::system()).expect("an audit log");
        if let Err(error) = audit::verify(&archive, None, None, |_| ()) {
            self.book.wrong(format!("its audit log is not whole: {error}"));
        }
        let (outcomes, all) = self.read(&archive);
        for (number, heard) in self.book.entries() {
            let recorded = outcomes.get(&token(number)).map_or(&[][..], |it| it);
            let is_right = match heard {
                Heard::Answer(status) => recorded == [u64::from(status)],
                Heard::Cut(_) => recorded.len() == 1,
                Heard::Left => recorded.len() <= 1,
            };
            if !is_right && self.book.is_clean() {
                let token = token(number);
                self.book.wrong(format!("{token}: {heard:?} was heard, {recorded:?} recorded"));
            }
        }
        let client = scene.postgres.client().await;
        let counted = client.query_one("select count(*) from audit_records", &[]).await;
        let central: i64 = counted.expect("a count").get(0);
        println!("{all} records, {central} of them in the central store");
        if central != all {
            self.book.wrong(format!("{all} records, {central} of them in the central store"));
        }
    }

    /// The statuses of each request by its id, and how many records there are.
    fn read(&self, archive: &Archive) -> (BTreeMap<String, Vec<u64>>, i64) {
        let (mut outcomes, mut intents, mut all) =
            (BTreeMap::<String, Vec<u64>>::new(), BTreeMap::<String, bool>::new(), 0);
        let days = archive.days().expect("days");
        let every = Filter { intents: true, ..Filter::default() };
        let read = days.oldest_first(&every, |sealed| {
            let mut line = Vec::new();
            sealed.json_line(&mut line);
            let record: Value = serde_json::from_slice(&line).expect("JSON");
            let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
            all += 1;
            if record["phase"] == "intent" {
                intents.entry(text("id")).or_default();
            } else {
                intents.insert(text("id"), true);
                let status = record["status"].as_u64().unwrap_or_default();
                outcomes.entry(text("request_id")).or_default().push(status);
            }
            ControlFlow::Continue(())
        });
        read.expect("records");
        for (id, _) in intents.iter().filter(|(_, ended)| !**ended) {
            self.book.wrong(format!("{id} was announced and has no end"));
        }
        (outcomes, all)
    }

    /// Tells what is wrong.
    pub(crate) fn verdict(self) -> ExitCode {
        println!("in all: {}", self.book.tally());
        let wrongs = self.book.wrongs();
        for wrong in &wrongs {
            println!("WRONG: {wrong}");
        }
        println!("soak: {}", if wrongs.is_empty() { "passed" } else { "FAILED" });
        if wrongs.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// How many records have not arrived in the central store; what is under way is none of them.
async fn behind(gateway: &Gateway) -> u64 {
    let status = get(gateway.admin, "/-/status.json").await;
    let status: Value = serde_json::from_slice(status.body()).expect("JSON");
    let central = &status["audit"]["central"];
    if central["up"] == true { central["behind"].as_u64().unwrap_or(1) } else { 1 }
}
