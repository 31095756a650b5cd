//! One day of the audit log.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::civil::Date;
use rusqlite::{CachedStatement, Connection, OpenFlags, Result, Transaction, params};
use uuid::Uuid;

use super::{block::Block, error::ReadError, facets::Kind};
use crate::audit::{chain::Head, value::Hash};

const SCHEMA: &str = include_str!("schema.sql");

/// What `schema.sql` says of itself.
const VERSION: i64 = 2;

/// The file of one day, opened to write.
#[derive(Debug)]
pub(in crate::audit) struct Day {
    pub(in crate::audit) date: Date,
    pub(in crate::audit) path: PathBuf,
    connection: Connection,
    /// The file itself, whatever has come to lie at its path.
    inode: u64,
}

/// Where a day's part of the chain comes from, and how far it goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::audit) struct Anchor {
    /// Who wrote it.
    pub(in crate::audit) gateway: String,
    /// The number of its first record.
    pub(in crate::audit) first: u64,
    /// The hash before that.
    pub(in crate::audit) prev_hash: Hash,
    /// How far it goes.
    pub(in crate::audit) head: Head,
}

impl Day {
    /// Opens the file at `path`; without a schema it is as good as not there.
    pub(in crate::audit) fn open(date: Date, path: &Path, create: bool) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let flags = if create { flags | OpenFlags::SQLITE_OPEN_CREATE } else { flags };
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // A batch is on the disk before its journal may be deleted.
        connection.pragma_update(None, "synchronous", "FULL")?;
        // 16 MiB: pages that change often are written to the file less often.
        connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
        connection.set_prepared_statement_cache_capacity(32);
        let metadata = fs::metadata(path).map_err(system)?;
        if metadata.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(system)?;
        }
        Ok(Self { date, path: path.to_owned(), connection, inode: metadata.ino() })
    }

    /// Whether the file is still where it was.
    pub(in crate::audit) fn is_there(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode)
    }

    /// Where its part of the chain lies; `None` if nothing was ever written to it.
    pub(in crate::audit) fn anchor(&self) -> std::result::Result<Option<Anchor>, ReadError> {
        anchor(&self.connection)
    }

    /// How far each journal had been read.
    pub(in crate::audit) fn positions(&self) -> Result<Vec<(String, u64)>> {
        let mut select = self.connection.prepare("SELECT name, position FROM journals")?;
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect()
    }

    /// Begins to write; `anchor` is for a file that has nothing in it.
    pub(in crate::audit) fn begin(&mut self, anchor: &Anchor) -> Result<Writing<'_>> {
        let is_new = version(&self.connection)? == 0;
        let transaction = self.connection.transaction()?;
        if is_new {
            transaction.execute_batch(SCHEMA)?;
            transaction.execute(
                "INSERT INTO chain VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    anchor.gateway,
                    anchor.first,
                    anchor.prev_hash,
                    anchor.head.seq,
                    anchor.head.hash
                ],
            )?;
        }
        Ok(Writing { transaction })
    }
}

/// A batch that is being written: all of it, or nothing.
pub(in crate::audit) struct Writing<'a> {
    transaction: Transaction<'a>,
}

/// Notes how what was announced has ended.
pub(in crate::audit) struct Outcomes<'a>(CachedStatement<'a>);

impl Outcomes<'_> {
    /// Notes that the record `seq` is the outcome of the request `id`.
    pub(in crate::audit) fn add(&mut self, id: Uuid, seq: u64) -> Result<()> {
        self.0.execute(params![id.as_bytes(), seq]).map(drop)
    }
}

impl Writing<'_> {
    /// Puts the records of a block in.
    pub(in crate::audit) fn block(&self, block: &Block) -> Result<()> {
        let insert = "INSERT INTO blocks VALUES (?1, ?2)";
        self.transaction.prepare_cached(insert)?.execute(params![block.first, block.bytes])?;
        Ok(())
    }

    pub(in crate::audit) fn outcomes(&self) -> Result<Outcomes<'_>> {
        self.transaction.prepare_cached("INSERT INTO outcomes VALUES (?1, ?2)").map(Outcomes)
    }

    /// Notes that the records from `first` to `last` are of the time from `earliest` to `latest`.
    pub(in crate::audit) fn span(
        &self,
        (first, last): (u64, u64),
        (earliest, latest): (i64, i64),
    ) -> Result<()> {
        let insert = "INSERT OR REPLACE INTO spans VALUES (?1, ?2, ?3, ?4)";
        let row = params![first, last, earliest, latest];
        self.transaction.prepare_cached(insert)?.execute(row)?;
        Ok(())
    }

    /// Notes that `value` occurs in the span that begins with `first`.
    pub(in crate::audit) fn facet(&self, kind: Kind, value: &str, first: u64) -> Result<()> {
        let insert = "INSERT OR IGNORE INTO facets VALUES (?1, ?2, ?3)";
        self.transaction.prepare_cached(insert)?.execute(params![first, kind.word(), value])?;
        Ok(())
    }

    /// Notes that the days up to the record `last` were deleted.
    pub(in crate::audit) fn pruned(
        &self,
        (first, last): (u64, Head),
        time: i64,
        signed: Option<(&[u8], &[u8])>,
    ) -> Result<()> {
        let insert = "INSERT OR REPLACE INTO pruned VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let (key, signature) = signed.unzip();
        let row = params![first, last.seq, last.hash, time, key, signature];
        self.transaction.execute(insert, row)?;
        Ok(())
    }

    /// Keeps a signed head.
    pub(in crate::audit) fn signed(
        &self,
        head: Head,
        time: i64,
        key: &[u8],
        signature: &[u8],
    ) -> Result<()> {
        let insert = "INSERT OR REPLACE INTO heads VALUES (?1, ?2, ?3, ?4, ?5)";
        let row = params![head.seq, time, head.hash, key, signature];
        self.transaction.execute(insert, row)?;
        Ok(())
    }

    /// Ends the batch: the chain has got to `head`, and the journals were read so far.
    pub(in crate::audit) fn commit<'a>(
        self,
        head: Head,
        positions: impl Iterator<Item = (&'a str, u64)>,
    ) -> Result<()> {
        let update = "UPDATE chain SET seq = ?1, hash = ?2";
        self.transaction.prepare_cached(update)?.execute(params![head.seq, head.hash])?;
        self.transaction.prepare_cached("DELETE FROM journals")?.execute([])?;
        let insert = "INSERT INTO journals VALUES (?1, ?2)";
        for (name, position) in positions {
            self.transaction.prepare_cached(insert)?.execute(params![name, position])?;
        }
        self.transaction.commit()
    }
}

/// Where the part of the chain behind `connection` lies; `None` if nothing was ever written to it.
pub(super) fn anchor(connection: &Connection) -> std::result::Result<Option<Anchor>, ReadError> {
    match version(connection)? {
        0 => return Ok(None),
        VERSION => {}
        found => {
            let file = PathBuf::from(connection.path().unwrap_or_default());
            return Err(ReadError::Version { file, found, expected: VERSION });
        }
    }
    let select = "SELECT gateway, first, prev_hash, seq, hash FROM chain";
    let anchor = connection.query_row(select, [], |row| {
        Ok(Anchor {
            gateway: row.get(0)?,
            first: row.get(1)?,
            prev_hash: row.get(2)?,
            head: Head { seq: row.get(3)?, hash: row.get(4)? },
        })
    })?;
    Ok(Some(anchor))
}

/// The version of the format; 0 if nothing was ever written.
fn version(connection: &Connection) -> Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn system(error: std::io::Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}
