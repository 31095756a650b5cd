//! How far the records were shipped, in `central.json`.
//!
//! It lies beside them, not in PostgreSQL: whoever may only insert there cannot look it up. It is
//! written after the records have arrived, so some may be shipped twice and none never. Who deletes
//! it has all records shipped anew that are still here; those that have arrived are not repeated.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use crate::audit::store::Folder;

/// What has arrived.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Cursor {
    /// Whose records.
    pub(super) gateway: String,
    /// Where: hosts and database, without who one is there.
    pub(super) place: String,
    /// The number of the last of them.
    pub(super) seq: u64,
}

impl Cursor {
    /// The one in `folder`; one that cannot be read is as good as none.
    pub(super) fn read(folder: &Folder) -> Self {
        let text = fs::read(path(folder)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Keeps it. Whoever reads it sees the old one or the new one.
    pub(super) fn keep(&self, folder: &Folder) -> io::Result<()> {
        let (path, mut new) = (path(folder), folder.path().to_owned());
        new.push("central.json.new");
        let mut options = OpenOptions::new();
        let mut out = options.create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        out.write_all(&serde_json::to_vec(self)?)?;
        fs::rename(new, path)
    }
}

fn path(folder: &Folder) -> PathBuf {
    folder.path().join("central.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_and_a_broken_one_means_that_all_is_shipped_anew() {
        let directory = tempfile::tempdir().expect("a folder");
        let folder = Folder::new(directory.path());
        let cursor = Cursor { gateway: "host/1".into(), place: "db:5432/audit".into(), seq: 7 };

        assert_eq!(Cursor::read(&folder), Cursor::default());
        cursor.keep(&folder).expect("a file");
        assert_eq!(Cursor::read(&folder), cursor);
        fs::write(path(&folder), "{\"seq\":").expect("a file");
        assert_eq!(Cursor::read(&folder), Cursor::default());
    }
}
