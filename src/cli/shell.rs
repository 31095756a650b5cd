//! `completions` and `man`: what a shell and its manual want to know of us.

use std::io::{self, Write};

use clap::Command;
use clap_complete::Shell;

use super::Failure;

/// Prints the completions of `shell`.
pub(super) fn completions(shell: Shell, command: &mut Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, "amove-gateway", &mut script);
    Ok(io::stdout().write_all(&script)?)
}

/// Prints the manual page of all verbs.
pub(super) fn man(command: Command) -> Result<(), Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(io::stdout().write_all(&page)?)
}
