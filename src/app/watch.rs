//! Looks at the files of the configuration, whatever way they are replaced.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{
    config::looks::{Fingerprint, Looks, fingerprint},
    supervise::blocking,
};

/// How often the files are looked at.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// Finds out whether the files have changed: a look at what is in them, by their names, sees a
/// rename or another link as well. A file that is being written is not tried: it has to look the
/// same twice.
#[derive(Debug)]
pub(super) struct Watch {
    files: Arc<[PathBuf]>,
    looks: Looks,
    last: Fingerprint,
}

impl Watch {
    /// Watches `files`, which are used as that fingerprint tells.
    pub(super) fn new(files: &[PathBuf], used: Fingerprint) -> Self {
        Self { files: files.into(), looks: Looks::new(used), last: used }
    }

    /// Whether they have changed, and stopped changing.
    pub(super) async fn look(&mut self) -> bool {
        let files = Arc::clone(&self.files);
        // A file system may take its time.
        self.last = blocking(move || look_at(&files)).await;
        self.looks.are_settled(self.last)
    }

    /// They are taken as they were at the last look.
    pub(super) fn takes(&mut self) {
        self.looks.took(self.last);
    }
}

fn look_at(files: &[PathBuf]) -> Fingerprint {
    // One that is gone is a change as well, and will be told as one that cannot be read.
    let contents: Vec<_> =
        files.iter().map(|file| std::fs::read(file).unwrap_or_default()).collect();
    fingerprint(contents.iter().map(Vec::as_slice))
}
