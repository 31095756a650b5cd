//! What a request costs the whole gateway, counted in instructions; and a load to train a build with.
#![expect(clippy::expect_used, reason = "a measurement that cannot be set up has failed")]
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod backend;
mod client;
mod gateway;
mod scenario;
mod train;

use std::{path::PathBuf, time::Duration};

const USAGE: &str = "\
usage: cargo bench --bench whole -- [OPTION]
  --train SECONDS   send a mix of all requests to the gateway, without counting
  --binary PATH     another gateway than the one that cargo has built";

fn main() {
    let mut binary = PathBuf::from(env!("CARGO_BIN_EXE_amove-gateway"));
    let mut train = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value =
            || arguments.next().unwrap_or_else(|| panic!("{argument} wants a value\n{USAGE}"));
        match argument.as_str() {
            // What cargo says to every benchmark.
            "--bench" => {}
            "--train" => train = Some(value().parse().map(Duration::from_secs).expect("seconds")),
            "--binary" => binary = std::path::absolute(value()).expect("a path"),
            _ => panic!("{argument} is not known\n{USAGE}"),
        }
    }
    if let Some(time) = train {
        train::train(&binary, time);
    }
}
