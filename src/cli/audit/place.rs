//! Which audit log a verb is about.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Exit, Failure, Global, remark};
use crate::{
    audit::{Archive, OpenError},
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
    /// The embedded one.
    Folder(PathBuf),
}

impl Place {
    /// Where it is, and the settings that say so, unless it was named.
    pub(super) fn store(&self, global: &Global) -> Result<(Store, Option<config::Audit>), Failure> {
        let Some(named) = &self.store else {
            let config = configured(global)?;
            return Ok((Store::Folder(config.store.clone()), Some(config)));
        };
        if ["postgres://", "postgresql://"].iter().any(|scheme| named.starts_with(scheme)) {
            let message = "a central store cannot be asked yet: name the folder of a gateway's \
                           audit log with --store PATH";
            return Err(Failure::new(Exit::Usage, message));
        }
        Ok((Store::Folder(named.into()), None))
    }
}

impl Store {
    /// Opens it.
    pub(super) fn open(&self) -> Result<Archive, Failure> {
        let Self::Folder(folder) = self;
        let archive = Archive::open(folder, &Clock::system());
        let archive = archive.map_err(|error| unopened(folder, &error))?;
        archive.remark().into_iter().for_each(remark);
        Ok(archive)
    }

    /// Opens it, if there is one yet.
    pub(super) fn open_if_there(&self) -> Result<Option<Archive>, Failure> {
        let Self::Folder(folder) = self;
        match folder.try_exists() {
            Ok(false) => Ok(None),
            Ok(true) | Err(_) => self.open().map(Some),
        }
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
