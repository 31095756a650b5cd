//! Runs a verb and turns its error into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    amove_gateway::cli::main()
}
