//! CSV (RFC 4180): a header row with the names of the values, then one row for each record.
//!
//! Nothing is an empty field. A text stands as it was recorded, also if it begins with `=`, `+`,
//! `-` or `@`: a file of evidence changes nothing. Whoever opens it with a spreadsheet imports it
//! as text.

use std::io::{self, Write};

use csv::{Terminator, Writer, WriterBuilder};

use crate::audit::record::{Phase, Record, Sealed};

pub(super) struct Rows<W: Write> {
    writer: Writer<W>,
    /// The field that is being written, kept to be used again.
    field: Vec<u8>,
}

impl<W: Write> Rows<W> {
    /// Writes the header row.
    pub(super) fn begin(out: W) -> io::Result<Self> {
        let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(out);
        // The names are the same for all records.
        let any = Sealed {
            seq: 0,
            gateway: "",
            record: Record { phase: Phase::Gap, ..Record::gap(0, 0) },
            prev_hash: [0; 32],
            hash: [0; 32],
        };
        writer.write_record(any.values().map(|(name, _)| name))?;
        Ok(Self { writer, field: Vec::new() })
    }

    pub(super) fn add(&mut self, sealed: &Sealed<'_>) -> io::Result<()> {
        for (_, value) in sealed.values() {
            self.field.clear();
            value.plain(&mut self.field);
            self.writer.write_field(&self.field)?;
        }
        // Nothing more is in it: ends the row.
        Ok(self.writer.write_record(None::<&[u8]>)?)
    }

    pub(super) fn finish(self) -> io::Result<W> {
        self.writer.into_inner().map_err(csv::IntoInnerError::into_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::record::tests::sample;

    #[test]
    fn what_would_be_read_differently_is_quoted() {
        let record = Record { rule: Some("a \"b\", c\r\nd"), request_id: "=1+1", ..sample() };
        let sealed =
            Sealed { seq: 7, gateway: "host/1", record, prev_hash: [1; 32], hash: [2; 32] };
        let mut rows = Rows::begin(Vec::new()).expect("a file");

        rows.add(&sealed).expect("a row");

        let text = String::from_utf8(rows.finish().expect("a file")).expect("text");
        let names = sealed.values().map(|(name, _)| name).join(",");
        assert!(text.starts_with(&format!("{names}\r\n7,outcome,")), "{text}");
        assert!(text.contains(",\"a \"\"b\"\", c\r\nd\",false,"), "{text}");
        assert!(text.contains(",=1+1,2025-11-26T00:00:00.123456Z,host/1,"), "{text}");
        assert!(text.ends_with(&format!(",{}\r\n", "02".repeat(32))), "{text}");
    }
}
