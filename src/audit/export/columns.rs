//! Parquet: one column for each value, in row groups that fit into memory.

use std::{
    io::{self, Write},
    sync::Arc,
};

use bytes::Bytes;
use parquet::{
    basic::Compression,
    column::writer::ColumnWriter,
    data_type::{ByteArray, FixedLenByteArray},
    errors::ParquetError,
    file::{
        properties::{EnabledStatistics, WriterProperties},
        writer::SerializedFileWriter,
    },
    schema::{parser::parse_message_type, types::ColumnPath},
};

use crate::audit::{record::Sealed, value::Value};

/// The columns, in the order of [`Sealed::values`].
const SCHEMA: &str = "message audit {
    required int64 seq;
    required binary phase (string);
    required fixed_len_byte_array(16) id (uuid);
    optional binary request_id (string);
    required int64 time (timestamp(micros,true));
    required binary gateway (string);
    optional binary caller (string);
    optional binary identity (string);
    optional binary method (string);
    optional binary route (string);
    optional binary effect (string);
    optional int32 status;
    optional int32 upstream_status;
    optional binary code (string);
    optional binary outcome (string);
    optional int64 duration_us;
    optional int64 upstream_us;
    optional int64 bytes_in;
    optional int64 bytes_out;
    optional int32 attempts;
    optional binary replay (string);
    optional binary rule (string);
    required boolean legacy;
    optional binary peer (string);
    optional binary trace_id (string);
    optional int64 lost;
    required fixed_len_byte_array(32) prev_hash;
    required fixed_len_byte_array(32) hash;
}";

/// Records that are in memory at once: about 20 MB.
const GROUP: usize = 32 * 1024;

pub(super) struct Columns<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    columns: Vec<Column>,
    rows: usize,
}

/// What one column of a group holds.
struct Column {
    is_optional: bool,
    /// For each row of an optional column, whether there is a value.
    levels: Vec<i16>,
    values: Values,
}

enum Values {
    Bool(Vec<bool>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    /// One text after the other, and where each ends.
    Text(Vec<u8>, Vec<usize>),
    /// One after the other, each of that length.
    Fixed(Vec<u8>, usize),
}

impl<W: Write + Send> Columns<W> {
    pub(super) fn begin(out: W) -> io::Result<Self> {
        let schema = Arc::new(parse_message_type(SCHEMA).map_err(system)?);
        let mut properties = WriterProperties::builder()
            .set_created_by(concat!("amove-gateway ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_compression(Compression::SNAPPY)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true);
        // No two are the same, and nobody looks for a stretch of them.
        for unique in ["seq", "id", "time", "prev_hash", "hash"] {
            properties = properties.set_column_dictionary_enabled(unique.into(), false);
        }
        for random in ["prev_hash", "hash"] {
            let column = ColumnPath::from(random);
            properties = properties.set_column_statistics_enabled(column, EnabledStatistics::None);
        }
        let writer = SerializedFileWriter::new(out, schema, Arc::new(properties.build()));
        let writer = writer.map_err(system)?;
        let columns = writer.schema_descr().columns().iter();
        let columns = columns
            .map(|column| Column {
                is_optional: column.max_def_level() > 0,
                levels: Vec::new(),
                values: Values::of(column.physical_type(), column.type_length()),
            })
            .collect();
        Ok(Self { writer, columns, rows: 0 })
    }

    pub(super) fn add(&mut self, sealed: &Sealed<'_>) -> io::Result<()> {
        for (column, (name, value)) in self.columns.iter_mut().zip(sealed.values()) {
            column.add(value).map_err(|()| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{name} has no room for it"))
            })?;
        }
        self.rows += 1;
        if self.rows == GROUP { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut group = self.writer.next_row_group().map_err(system)?;
        for column in &mut self.columns {
            // There are as many as in the schema.
            let Some(mut writer) = group.next_column().map_err(system)? else { break };
            column.write(writer.untyped()).map_err(system)?;
            writer.close().map_err(system)?;
        }
        group.close().map_err(system)?;
        self.rows = 0;
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        if self.rows > 0 {
            self.flush()?;
        }
        self.writer.into_inner().map_err(system)
    }
}

impl Values {
    fn of(kind: parquet::basic::Type, length: i32) -> Self {
        use parquet::basic::Type;
        match kind {
            Type::BOOLEAN => Self::Bool(Vec::new()),
            Type::INT32 => Self::Int32(Vec::new()),
            Type::INT64 => Self::Int64(Vec::new()),
            Type::FIXED_LEN_BYTE_ARRAY => {
                Self::Fixed(Vec::new(), usize::try_from(length).unwrap_or(1).max(1))
            }
            Type::BYTE_ARRAY | Type::INT96 | Type::FLOAT | Type::DOUBLE => {
                Self::Text(Vec::new(), Vec::new())
            }
        }
    }
}

impl Column {
    fn add(&mut self, value: Value<'_>) -> Result<(), ()> {
        if self.is_optional {
            self.levels.push((value != Value::Null).into());
        }
        match (&mut self.values, value) {
            (_, Value::Null) if self.is_optional => {}
            (Values::Bool(values), Value::Bool(value)) => values.push(value),
            (Values::Int32(values), Value::Number(value)) => {
                values.push(value.try_into().map_err(drop)?);
            }
            (Values::Int64(values), Value::Number(value)) => {
                values.push(value.try_into().map_err(drop)?);
            }
            (Values::Int64(values), Value::Time(value)) => values.push(value),
            (Values::Text(text, ends), Value::Text(value)) => {
                text.extend_from_slice(value.as_bytes());
                ends.push(text.len());
            }
            (Values::Fixed(bytes, 16), Value::Id(id)) => bytes.extend_from_slice(id.as_bytes()),
            (Values::Fixed(bytes, 32), Value::Hash(hash)) => bytes.extend_from_slice(hash),
            _ => return Err(()),
        }
        Ok(())
    }

    /// Writes what it holds, and empties it.
    fn write(&mut self, writer: &mut ColumnWriter<'_>) -> Result<(), ParquetError> {
        let levels = self.is_optional.then_some(&*self.levels);
        match (&mut self.values, writer) {
            (Values::Bool(values), ColumnWriter::BoolColumnWriter(writer)) => {
                writer.write_batch(values, levels, None)?;
                values.clear();
            }
            (Values::Int32(values), ColumnWriter::Int32ColumnWriter(writer)) => {
                writer.write_batch(values, levels, None)?;
                values.clear();
            }
            (Values::Int64(values), ColumnWriter::Int64ColumnWriter(writer)) => {
                writer.write_batch(values, levels, None)?;
                values.clear();
            }
            (Values::Text(text, ends), ColumnWriter::ByteArrayColumnWriter(writer)) => {
                let (text, mut start) = (Bytes::from(std::mem::take(text)), 0);
                let value =
                    |end| ByteArray::from(text.slice(std::mem::replace(&mut start, end)..end));
                let values: Vec<_> = ends.drain(..).map(value).collect();
                writer.write_batch(&values, levels, None)?;
            }
            (Values::Fixed(bytes, length), ColumnWriter::FixedLenByteArrayColumnWriter(writer)) => {
                let (bytes, length) = (Bytes::from(std::mem::take(bytes)), *length);
                let starts = (0..bytes.len()).step_by(length);
                let value = |start| ByteArray::from(bytes.slice(start..start + length));
                let values: Vec<FixedLenByteArray> = starts.map(value).map(Into::into).collect();
                writer.write_batch(&values, levels, None)?;
            }
            _ => return Err(ParquetError::General("a column of another type".to_owned())),
        }
        self.levels.clear();
        Ok(())
    }
}

fn system(error: ParquetError) -> io::Error {
    match error {
        // What the file below says, if it is the cause.
        ParquetError::External(error) => match error.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(error) => io::Error::other(error),
        },
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use parquet::{
        file::reader::{FileReader, SerializedFileReader},
        record::Field,
    };

    use super::*;
    use crate::audit::record::{Record, tests::sample};

    fn sealed(seq: u64, record: Record<'static>) -> Sealed<'static> {
        Sealed { seq, gateway: "host/1", record, prev_hash: [1; 32], hash: [2; 32] }
    }

    #[test]
    fn every_value_has_its_column_by_the_same_name() {
        let columns = Columns::begin(Vec::new()).expect("a file");

        let names: Vec<_> =
            columns.writer.schema_descr().columns().iter().map(|it| it.name().to_owned()).collect();

        assert_eq!(names, sealed(1, sample()).values().map(|(name, _)| name));
    }

    #[test]
    fn groups_hold_all_rows_with_what_is_there_and_what_is_not() {
        let mut columns = Columns::begin(Vec::new()).expect("a file");
        let rows = GROUP as u64 + 3;
        for seq in 1..rows {
            columns.add(&sealed(seq, sample())).expect("a row");
        }
        columns.add(&sealed(rows, Record::gap(5, 0))).expect("a row");

        let file = Bytes::from(columns.finish().expect("a file"));

        let reader = SerializedFileReader::new(file).expect("a file");
        assert_eq!(reader.num_row_groups(), 2);
        let read = reader.get_row_iter(None).expect("rows").map(|row| row.expect("a row"));
        let read: Vec<Vec<_>> = read
            .map(|row| row.get_column_iter().map(|(_, field)| field.clone()).collect())
            .collect();
        assert_eq!(read.len() as u64, rows);
        for (at, row) in read.iter().enumerate() {
            assert_eq!(row[0], Field::Long(at as i64 + 1));
        }
        let (first, last) = (&read[0], &read[read.len() - 1]);
        assert_eq!(first[4], Field::TimestampMicros(1_764_115_200_123_456));
        assert_eq!(first[11], Field::Int(200));
        assert_eq!((&first[13], &first[22]), (&Field::Null, &Field::Bool(false)));
        assert_eq!((&last[1], &last[25]), (&Field::Str("gap".into()), &Field::Long(5)));
        assert_eq!((&last[3], &last[15]), (&Field::Null, &Field::Null));
        let Field::Bytes(hash) = &last[27] else { panic!("{:?}", last[27]) };
        assert_eq!(hash.data(), [2; 32]);
    }
}
