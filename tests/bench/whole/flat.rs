//! Whether a request costs the same however much is configured.

use std::{path::Path, process::Command};

use crate::{count::Counted, gateway::Size, scenario};

/// How much more the dearest may cost than the cheapest, in percent.
const TOLERANCE: f64 = 10.0;

/// What is compared: callers with keys, and rules of each.
const SIZES: [Size; 6] = [
    Size { callers: 10, rules: 4 },
    Size { callers: 1_000, rules: 4 },
    Size { callers: 100_000, rules: 4 },
    Size { callers: 1_000_000, rules: 4 },
    Size { callers: 10, rules: 1 },
    Size { callers: 10, rules: 100 },
];

/// Counts the usual request with little and with very much; whether it costs the same.
pub(crate) fn flat() -> bool {
    println!("{:>10} {:>8} {:>14}", "callers", "rules", "instructions");
    let costs = SIZES.map(|size| {
        // The callers are made in memory: nobody would write so many into a file.
        let mut counted = Counted::start(|config| serve(config, size.callers), size);
        let cost = counted.cost(&scenario::ALL[0], None).worker;
        counted.stop();
        println!("{:>10} {:>8} {cost:>14.0}", size.callers, size.rules);
        cost
    });
    let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
    let most = costs.iter().copied().fold(0.0, f64::max);
    let more = (most / least - 1.0) * 100.0;
    println!("the dearest costs {more:.1} % more than the cheapest; {TOLERANCE} % are allowed");
    more <= TOLERANCE
}

/// This program itself, as a gateway with so many callers.
fn serve(config: &Path, callers: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.arg("--serve").arg(config).arg(callers.to_string());
    command
}
