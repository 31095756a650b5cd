//! What a request costs the whole gateway, counted in instructions; and a load to train a build with.
#![expect(clippy::expect_used, reason = "a measurement that cannot be set up has failed")]
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod backend;
mod baseline;
mod client;
mod count;
mod flat;
mod gateway;
mod scenario;
mod serve;
mod train;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use self::{
    baseline::{Baseline, Costs},
    count::Counted,
    gateway::{Size, run},
};

const USAGE: &str = "\
usage: cargo bench --bench whole -- [OPTION]...
                    count what each kind of request costs, and compare with the baseline
  --check           fail where it costs more than the baseline tolerates
  --save            make it the baseline
  --flat            count with few and with very many callers and rules instead
  --train SECONDS   send a mix of all requests instead, without counting
  --binary PATH     another gateway than the one that cargo has built
  --keep FOLDER     keep there what callgrind_annotate can read";

/// What to do.
#[derive(Debug)]
enum Order {
    Help,
    Show,
    Check,
    Save,
    Flat,
    Train(Duration),
    /// Of `flat` to itself: the configuration, and how many callers.
    Serve(PathBuf, usize),
}

fn main() -> ExitCode {
    let mut binary = PathBuf::from(env!("CARGO_BIN_EXE_amove-gateway"));
    // Without anything to do, `cargo test --benches` must not take minutes.
    let (mut order, mut keep) = (Order::Help, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut next =
            || arguments.next().unwrap_or_else(|| panic!("{argument} wants a value\n{USAGE}"));
        match argument.as_str() {
            // What `cargo bench` says last of all to every benchmark.
            "--bench" if matches!(order, Order::Help) => order = Order::Show,
            "--bench" => {}
            "--check" => order = Order::Check,
            "--save" => order = Order::Save,
            "--flat" => order = Order::Flat,
            "--train" => {
                order = Order::Train(Duration::from_secs(next().parse().expect("seconds")))
            }
            "--serve" => order = Order::Serve(next().into(), next().parse().expect("a number")),
            "--binary" => binary = std::path::absolute(next()).expect("a path"),
            "--keep" => keep = Some(PathBuf::from(next())),
            _ => panic!("{argument} is not known\n{USAGE}"),
        }
    }
    match order {
        Order::Help => println!("{USAGE}"),
        Order::Train(time) => train::train(&binary, time),
        Order::Serve(config, callers) => serve::serve(&config, callers),
        _ if !count::can_count() => return cannot_count(),
        Order::Flat => return code(flat::flat()),
        Order::Show => drop(count(&binary, keep.as_deref())),
        Order::Check => return check(&count(&binary, keep.as_deref())),
        Order::Save => Baseline::read().save(&count(&binary, keep.as_deref())),
    }
    ExitCode::SUCCESS
}

/// Counts all scenarios, and shows them beside the baseline.
fn count(binary: &Path, keep: Option<&Path>) -> Costs {
    let baseline = Baseline::read();
    let mut counted = Counted::start(|config| run(binary, config), Size::default());
    println!("{:10} {:>10} {:>8} {:>10} {:>8}", "request", "worker", "", "writer", "");
    let costs = scenario::ALL.iter().map(|scenario| {
        let cost = counted.cost(scenario, keep);
        let then = baseline.cost(scenario);
        let change = |now: f64, then: Option<f64>| {
            then.map_or_else(
                || "new".to_owned(),
                |then| format!("{:+.1} %", (now / then - 1.0) * 100.0),
            )
        };
        println!(
            "{:10} {:>10.0} {:>8} {:>10.0} {:>8}",
            scenario.name,
            cost.worker,
            change(cost.worker, then.map(|then| then.worker)),
            cost.writer,
            change(cost.writer, then.map(|then| then.writer)),
        );
        (scenario, cost)
    });
    let costs = costs.collect();
    counted.stop();
    costs
}

/// Whether `costs` can be tolerated.
fn check(costs: &Costs) -> ExitCode {
    let baseline = Baseline::read();
    let verdict = baseline.verdict(costs);
    let agree = "agree to it with: cargo bench --bench whole -- --save";
    for sentence in verdict.worse.iter().chain(&verdict.better) {
        println!("{sentence}");
    }
    if !verdict.better.is_empty() {
        println!("That is good news; {agree}, so that it cannot get lost unnoticed.");
    }
    if !verdict.worse.is_empty() {
        println!("If it is worth what it costs, {agree}");
        for tool in baseline.other_tools() {
            println!("It may also be the tools. Now {tool}.");
        }
    }
    code(verdict.worse.is_empty())
}

/// Nobody is held up by a missing tool, except where the gate is.
fn cannot_count() -> ExitCode {
    println!("NOT COUNTED: there is no valgrind here (apt-get install valgrind)");
    code(std::env::var_os("CI").is_none_or(|ci| ci != "true"))
}

fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
