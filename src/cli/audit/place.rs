//! Which audit log a verb is about.

use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::SecretString;

use super::{
    Exit, Failure, Global, remark,
    source::{Source, unanswered},
    unread,
};
use crate::{
    audit::{Archive, OpenError, central::Central},
    clock::Clock,
    config,
};

#[derive(Debug, Args)]
pub(super) struct Place {
    /// The folder of the audit log; without it, the configured one
    #[arg(long, value_name = "PATH_OR_URL")]
    store: Option<String>,
}

/// Where an audit log is kept.
#[derive(Clone, Debug)]
pub(super) enum Store {
    /// The embedded one of a gateway.
    Folder(PathBuf),
    /// The central one of many, by a URL that may hold a password.
    Central(SecretString),
}

impl Place {
    /// Where it is, and the settings that say so, unless it was named.
    pub(super) fn store(&self, global: &Global) -> Result<(Store, Option<config::Audit>), Failure> {
        let Some(named) = &self.store else {
            let config = configured(global)?;
            return Ok((Store::Folder(config.store.clone()), Some(config)));
        };
        if ["postgres://", "postgresql://"].iter().any(|scheme| named.starts_with(scheme)) {
            return Ok((Store::Central(named.clone().into()), None));
        }
        Ok((Store::Folder(named.into()), None))
    }
}

impl Store {
    /// Opens it to read records.
    pub(super) fn source(&self) -> Result<Source, Failure> {
        match self {
            Self::Folder(_) => {
                let days = self.open()?.days();
                Ok(Source::Days(days.map_err(|error| unread(&error))?))
            }
            Self::Central(_) => self.central().map(|central| Source::Central(Box::new(central))),
        }
    }

    /// Opens the embedded store.
    pub(super) fn open(&self) -> Result<Archive, Failure> {
        let Self::Folder(folder) = self else {
            let message = "this is about the audit log of one gateway: name its folder with \
                           --store PATH";
            return Err(Failure::new(Exit::Usage, message));
        };
        let archive = Archive::open(folder, &Clock::system());
        let archive = archive.map_err(|error| unopened(folder, &error))?;
        archive.remark().into_iter().for_each(remark);
        Ok(archive)
    }

    /// Opens the embedded store, if there is one yet.
    pub(super) fn open_if_there(&self) -> Result<Option<Archive>, Failure> {
        match self {
            Self::Folder(folder) if matches!(folder.try_exists(), Ok(false)) => Ok(None),
            Self::Folder(_) | Self::Central(_) => self.open().map(Some),
        }
    }

    /// Connects to the central store.
    pub(super) fn central(&self) -> Result<Central, Failure> {
        let Self::Central(url) = self else {
            return Err(Failure::new(Exit::Usage, "this is about a central store"));
        };
        Central::connect(url, None).map_err(|error| unanswered(&error))
    }
}

fn configured(global: &Global) -> Result<config::Audit, Failure> {
    let loaded = global.load().map_err(|mut failure| {
        failure.message += "\nIt is only read to find the audit log; --store PATH does too.";
        failure
    })?;
    Ok(loaded.config.audit)
}

fn unopened(folder: &Path, error: &OpenError) -> Failure {
    match error {
        OpenError::System { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            let message = format!(
                "there is no audit log in {}; --store PATH looks elsewhere",
                folder.display()
            );
            Failure::new(Exit::Io, message)
        }
        error => Failure::caused(Exit::Io, "the audit log cannot be opened", error),
    }
}
