//! Runs a verb and turns its error into an exit code.

fn main() {}
