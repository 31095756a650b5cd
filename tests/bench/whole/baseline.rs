//! What requests cost when somebody last agreed to it.

use std::{fs, path::PathBuf, process::Command};

use toml_edit::{DocumentMut, Item, value};

use crate::{count::Cost, scenario::Scenario};

/// The costs of all scenarios.
pub(crate) type Costs = Vec<(&'static Scenario, Cost)>;

/// What was saved, and how far from it one may be.
#[derive(Debug)]
pub(crate) struct Baseline(DocumentMut);

/// How what was counted compares.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// What costs more than is tolerated, a sentence each.
    pub(crate) worse: Vec<String>,
    /// What costs so much less that the baseline tells nothing any more.
    pub(crate) better: Vec<String>,
}

/// Where it is kept.
fn path() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "bench", "instructions.toml"].iter().collect()
}

impl Baseline {
    /// The one that is kept in the repository.
    pub(crate) fn read() -> Self {
        let text = fs::read_to_string(path()).expect("tests/bench/instructions.toml");
        Self(text.parse().expect("instructions.toml is TOML"))
    }

    /// What it says about a scenario, if it knows that.
    pub(crate) fn cost(&self, scenario: &Scenario) -> Option<Cost> {
        let table = self.0.get("cost")?.get(scenario.name)?;
        let number = |name| table.get(name).and_then(Item::as_integer).map(|it| it as f64);
        Some(Cost { worker: number("worker")?, writer: number("writer")? })
    }

    /// Compares.
    pub(crate) fn verdict(&self, costs: &Costs) -> Verdict {
        let mut verdict = Verdict::default();
        for (scenario, now) in costs {
            let name = scenario.name;
            let Some(then) = self.cost(scenario) else {
                verdict.worse.push(format!("`{name}` is not in the baseline"));
                continue;
            };
            let threads =
                [("worker", then.worker, now.worker), ("writer", then.writer, now.writer)];
            for (thread, then, now) in threads {
                let tolerance = self.tolerance(thread);
                let percent = (now / then - 1.0) * 100.0;
                let sentence = |what| {
                    format!(
                        "`{name}` costs the {thread} {now:.0} instructions, {:.1} % {what} than the \
                         {then:.0} of the baseline ({tolerance} % are tolerated)",
                        percent.abs()
                    )
                };
                if percent > tolerance {
                    verdict.worse.push(sentence("more"));
                } else if percent < -tolerance {
                    verdict.better.push(sentence("less"));
                }
            }
        }
        verdict
    }

    /// What it was saved with, where that is not what is used now: then it may be nobody's fault.
    pub(crate) fn other_tools(&self) -> Vec<String> {
        let then = |name: &str| {
            self.0.get("tools").and_then(|tools| tools.get(name)).and_then(Item::as_str)
        };
        tools()
            .into_iter()
            .filter(|(name, now)| then(name) != Some(now))
            .map(|(name, now)| format!("{name}: {now}, then {}", then(name).unwrap_or("unknown")))
            .collect()
    }

    /// Keeps `costs` from now on. Tolerances and comments stay.
    pub(crate) fn save(mut self, costs: &Costs) {
        for (name, tool) in tools() {
            self.0["tools"][name] = value(tool);
        }
        let names: Vec<_> = costs.iter().map(|(scenario, _)| scenario.name).collect();
        if let Some(known) = self.0["cost"].as_table_mut() {
            known.retain(|name, _| names.contains(&name));
        }
        for (scenario, cost) in costs {
            let table = &mut self.0["cost"][scenario.name];
            table["worker"] = value(cost.worker.round() as i64);
            table["writer"] = value(cost.writer.round() as i64);
        }
        fs::write(path(), self.0.to_string()).expect("instructions.toml can be written");
    }

    /// How many percent more or less are nobody's fault.
    fn tolerance(&self, thread: &str) -> f64 {
        let tolerance = self.0.get("tolerance").and_then(|it| it.get(thread));
        tolerance.and_then(Item::as_integer).expect("a tolerance in percent") as f64
    }
}

/// What else the counts depend on.
fn tools() -> [(&'static str, String); 4] {
    let says = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output().ok();
        let text = output.map(|it| String::from_utf8_lossy(&it.stdout).trim().to_owned());
        text.filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".to_owned())
    };
    let avx2 = cfg!(target_arch = "x86_64") && says("cat", "/proc/cpuinfo").contains(" avx2 ");
    let processor = if avx2 { "x86-64 with AVX2" } else { std::env::consts::ARCH };
    [
        ("compiler", says("rustc", "--version")),
        ("libc", says("getconf", "GNU_LIBC_VERSION")),
        ("valgrind", says("valgrind", "--version")),
        ("processor", processor.to_owned()),
    ]
}
