//! `key new`: a new API key for a caller, shown once.

use clap::Subcommand;
use secrecy::ExposeSecret;

use super::{Exit, Failure, print};
use crate::caller::api_key;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make a key for a caller: prints it, once, and what to write into the configuration
    New {
        /// The caller, as in [callers.NAME]
        name: String,
    },
}

/// Makes what `verb` asks for.
pub(super) fn run(verb: &Verb) -> Result<(), Failure> {
    let Verb::New { name } = verb;
    if !(1..=64).contains(&name.len()) || name.chars().any(char::is_control) {
        let message = "a caller's name has 1 to 64 characters, and all of them are printable";
        return Err(Failure::new(Exit::Usage, message));
    }
    let key = api_key::generate()
        .map_err(|_| Failure::new(Exit::Internal, "the system has no randomness"))?;
    let section = toml_edit::Key::new(name);
    let section = section.display_repr();
    print(format!(
        "The key of {name}; it is not shown again:\n\n    {}\n\n\
         Give it to the caller, which sends it as `X-Api-Key`. Write this into the configuration:\n\n\
         [callers.{section}]\napi_key_hash = \"{}\"\n\n\
         To replace a key, list both hashes until the old one is no longer used:\n\
         api_key_hash = [\"blake3:...\", \"blake3:...\"]\n",
        key.expose_secret(),
        api_key::written_hash(&key),
    ))
}
