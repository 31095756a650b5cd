//! `audit prune`: deletes days that need not be kept any longer.

use std::{fmt::Write, fs, path::PathBuf, time::Duration};

use clap::Args;
use jiff::{SignedDuration, civil::Date, tz::TimeZone};
use secrecy::SecretString;

use super::{
    Exit, Failure, Global,
    place::{Place, Store},
    print, unread,
};
use crate::{
    audit::{OpenError, is_signing_key},
    cli::duration,
    clock::Clock,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// Delete days that ended longer ago; without it, what `audit.retain` says
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    older_than: Option<Duration>,
    /// Only tell what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// Sign how far the deleted days went with this private key (PEM); without it, with
    /// `audit.signing`
    #[arg(long, value_name = "PEM")]
    key: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

/// Deletes them, and tells which.
pub(super) fn run(arguments: &Arguments, global: &Global) -> Result<(), Failure> {
    let (store, config) = arguments.place.store(global)?;
    let older_than = arguments.older_than.or(config.as_ref().map(|config| config.retain));
    let Some(older_than) = older_than else {
        let message = "with --store, say how long records are kept: --older-than 90d";
        return Err(Failure::new(Exit::Usage, message));
    };
    let date = first_kept(older_than)?;
    let archive = store.open()?;
    let old = archive.before(date).map_err(|error| unread(&error))?;
    if arguments.dry_run {
        return print(told(&old, "would be deleted", date));
    }
    let key = match &arguments.key {
        Some(path) => Some(private_key(path)?),
        None => config.and_then(|config| config.signing_key),
    };
    let is_signed = archive.days().and_then(|days| days.is_signed());
    if key.is_none() && is_signed.map_err(|error| unread(&error))? {
        let message = "the audit log is signed, and so has to be what is deleted from it: name \
                       the private key with --key PEM";
        return Err(Failure::new(Exit::Usage, message));
    }
    archive.prune(date, key.as_ref()).map_err(|error| refused(&store, &error))?;
    print(told(&old, "deleted", date))
}

/// The first day that is kept.
fn first_kept(older_than: Duration) -> Result<Date, Failure> {
    let oldest = SignedDuration::try_from(older_than).ok();
    let oldest = oldest.and_then(|older_than| Clock::system().now().checked_sub(older_than).ok());
    let oldest = oldest.ok_or_else(|| Failure::new(Exit::Usage, "nothing is as old as that"))?;
    Ok(oldest.to_zoned(TimeZone::UTC).date())
}

fn private_key(path: &PathBuf) -> Result<SecretString, Failure> {
    let wrong = |what: String| Failure::new(Exit::Usage, format!("--key: {what}"));
    let pem = fs::read_to_string(path)
        .map_err(|error| wrong(format!("cannot read {}: {error}", path.display())))?;
    let pem = SecretString::from(pem);
    if !is_signing_key(&pem) {
        let what = format!("{} is no private Ed25519 key in PEM (PKCS #8)", path.display());
        return Err(wrong(what));
    }
    Ok(pem)
}

fn refused(store: &Store, error: &OpenError) -> Failure {
    match (store, error) {
        (Store::Folder(folder), OpenError::Taken(_)) => {
            let message = format!(
                "a gateway is running on the audit log in {}: it deletes by itself what is older \
                 than its `audit.retain`",
                folder.display()
            );
            Failure::new(Exit::Other, message)
        }
        (_, error) => Failure::caused(Exit::Io, "the audit log cannot be pruned", error),
    }
}

fn told(days: &[(Date, u64)], what: &str, kept: Date) -> String {
    let mut text = String::new();
    for (day, records) in days {
        let _ = writeln!(text, "{day}  {records} records");
    }
    let days = days.len();
    let _ =
        writeln!(text, "{days} days {what}; kept is what comes from {kept}, or is the last day");
    text
}
