//! Records as files for other programs: JSON lines, CSV and Parquet.
//!
//! All three have the same rows and, by the same names, the same values: those of
//! [`Sealed::values`]. None of them grows in memory with what is written.

use std::io::{self, Write};

use self::{columns::Columns, rows::Rows};
use super::record::Sealed;

mod columns;
mod rows;

/// What a file of records looks like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// One JSON object a line.
    Ndjson,
    /// RFC 4180, with a header row.
    Csv,
    /// Parquet, compressed with Snappy.
    Parquet,
}

/// A file of records that is being written.
#[expect(missing_debug_implementations, reason = "the writer of Parquet has none")]
pub struct Export<W: Write + Send>(Kind<W>);

enum Kind<W: Write + Send> {
    Ndjson { out: W, line: Vec<u8> },
    Csv(Box<Rows<W>>),
    Parquet(Box<Columns<W>>),
}

impl<W: Write + Send> Export<W> {
    /// Begins a file of that format.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn begin(format: Format, out: W) -> io::Result<Self> {
        Ok(Self(match format {
            Format::Ndjson => Kind::Ndjson { out, line: Vec::new() },
            Format::Csv => Kind::Csv(Box::new(Rows::begin(out)?)),
            Format::Parquet => Kind::Parquet(Box::new(Columns::begin(out)?)),
        }))
    }

    /// Adds a record.
    ///
    /// # Errors
    ///
    /// Those of what it writes to.
    pub fn add(&mut self, sealed: &Sealed<'_>) -> io::Result<()> {
        match &mut self.0 {
            Kind::Ndjson { out, line } => {
                line.clear();
                sealed.json_line(line);
                out.write_all(line)
            }
            Kind::Csv(rows) => rows.add(sealed),
            Kind::Parquet(columns) => columns.add(sealed),
        }
    }

    /// Ends the file; what it was written to.
    ///
    /// # Errors
    ///
    /// Those of what it writes to.
    pub fn finish(self) -> io::Result<W> {
        let mut out = match self.0 {
            Kind::Ndjson { out, .. } => out,
            Kind::Csv(rows) => rows.finish()?,
            Kind::Parquet(columns) => columns.finish()?,
        };
        out.flush()?;
        Ok(out)
    }
}
