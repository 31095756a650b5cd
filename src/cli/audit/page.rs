//! Records on their way to standard output.

use std::io::{self, Write};

use super::table::Table;
use crate::audit::Sealed;

/// What is written at once.
const BUFFER: usize = 64 * 1024;

/// How records are printed.
#[derive(Debug)]
pub(super) enum Form {
    Json,
    Table(Table),
}

/// Records on their way to standard output.
#[derive(Debug)]
pub(super) struct Page {
    form: Form,
    text: Vec<u8>,
}

impl Page {
    pub(super) fn new(form: Form) -> Self {
        Self { form, text: Vec::new() }
    }

    pub(super) fn add(&mut self, sealed: &Sealed<'_>) -> io::Result<()> {
        match &mut self.form {
            Form::Json => sealed.json_line(&mut self.text),
            Form::Table(table) => table.add(sealed, &mut self.text),
        }
        if self.text.len() >= BUFFER { self.write() } else { Ok(()) }
    }

    /// Prints everything that was added.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        if let Form::Table(table) = &mut self.form {
            table.write(&mut self.text);
        }
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(&self.text)?;
        self.text.clear();
        out.flush()
    }
}
