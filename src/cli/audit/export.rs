//! `audit export`: records that fit as a file, which is there as a whole or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, IsTerminal, Write},
    ops::ControlFlow,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};

use super::{
    Exit, Failure, Global, filters::Filters, place::Place, progress, remark, source::Source,
};
use crate::{
    audit::{Export, Filter, Format},
    clock::Clock,
};

/// What is written at once.
const BUFFER: usize = 256 * 1024;

/// Records after which the bar moves.
const STRIDE: u64 = 1024;

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// What kind of file
    #[arg(long, value_enum, default_value = "ndjson")]
    format: Kind,
    /// Where to; without it, or as `-`, standard output
    #[arg(long, short, value_name = "FILE", default_value = "-", hide_default_value = true)]
    output: PathBuf,
    /// How many at most; the oldest come first
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    filters: Filters,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// One JSON object a line
    Ndjson,
    /// With a header row; nothing is an empty field, and texts are left as they are
    Csv,
    /// Typed columns, compressed
    Parquet,
}

/// Writes the file.
pub(super) fn run(arguments: &Arguments, global: &Global) -> Result<(), Failure> {
    let format = match arguments.format {
        Kind::Ndjson => Format::Ndjson,
        Kind::Csv => Format::Csv,
        Kind::Parquet => Format::Parquet,
    };
    let filter = arguments.filters.filter(Clock::system().now())?;
    let to_stdout = arguments.output.as_os_str() == "-";
    if to_stdout && format == Format::Parquet && io::stdout().is_terminal() {
        let message = "Parquet is nothing to look at: name a file with --output FILE";
        return Err(Failure::new(Exit::Usage, message));
    }
    let source = arguments.place.store(global)?.0.source()?;
    let limit = arguments.limit.unwrap_or(u64::MAX);
    if to_stdout {
        write(&source, &filter, limit, format, io::stdout())?;
        return Ok(());
    }
    let path = &arguments.output;
    let at = |error| Failure::new(Exit::Io, format!("cannot write {}: {error}", path.display()));
    let target = Target::open(path).map_err(at)?;
    let written = match write(&source, &filter, limit, format, &target.file) {
        Ok(written) => written,
        Err(Stopped::Writing(error)) => return Err(at(error)),
        Err(stopped) => return Err(stopped.into()),
    };
    target.keep().map_err(at)?;
    remark(format_args!("{written} records written to {}", path.display()));
    Ok(())
}

/// Why there is no file.
enum Stopped {
    Reading(Failure),
    Writing(io::Error),
}

impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Reading(failure) => failure,
            Stopped::Writing(error) => error.into(),
        }
    }
}

/// Writes what fits `filter`; says how many records that were.
fn write(
    source: &Source,
    filter: &Filter,
    limit: u64,
    format: Format,
    out: impl Write + Send,
) -> Result<u64, Stopped> {
    let out = BufWriter::with_capacity(BUFFER, out);
    let mut export = Export::begin(format, out).map_err(Stopped::Writing)?;
    let (first, last) = source.extent().map_err(Stopped::Reading)?.unwrap_or((0, limit));
    let bar = progress::bar(last.saturating_sub(first));
    let is_numbered = matches!(source, Source::Days(_));
    let (mut written, mut outcome) = (0_u64, Ok(()));
    if limit > 0 {
        let read = source.oldest_first(filter, |sealed| {
            outcome = export.add(sealed);
            written += 1;
            if written.is_multiple_of(STRIDE) {
                // Between those that fit are others.
                let passed = sealed.seq.saturating_sub(first);
                bar.set_position(if is_numbered { passed } else { written });
            }
            if outcome.is_err() || written == limit {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        read.map_err(Stopped::Reading)?;
    }
    bar.finish_and_clear();
    outcome.map_err(Stopped::Writing)?;
    export.finish().map_err(Stopped::Writing)?;
    Ok(written)
}

/// The file, under another name until it is whole.
struct Target<'a> {
    path: &'a Path,
    part: Option<PathBuf>,
    file: File,
}

impl<'a> Target<'a> {
    fn open(path: &'a Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        if path.metadata().is_ok_and(|it| !it.is_file() && !it.is_dir()) {
            // A pipe or a device, which cannot be put in place.
            return Ok(Self { path, part: None, file: options.open(path)? });
        }
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = options.open(&part)?;
        Ok(Self { path, part: Some(part), file })
    }

    /// Puts it in place.
    fn keep(mut self) -> io::Result<()> {
        let Some(part) = &self.part else { return Ok(()) };
        self.file.sync_all()?;
        fs::rename(part, self.path)?;
        self.part = None;
        Ok(())
    }
}

impl Drop for Target<'_> {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            let _ = fs::remove_file(part);
        }
    }
}
