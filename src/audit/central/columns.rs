//! The columns of the table, and how records get into them.

use std::{collections::BTreeSet, ops::Range};

use bytes::{BufMut, BytesMut};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use tokio_postgres::types::{IsNull, Kind, ToSql, Type, to_sql_checked};

use super::row::EPOCH;
use crate::{
    audit::{
        record::{FIELDS, Sealed},
        value::Value,
    },
    message::BoxError,
};

/// What is shipped at once: so many records, or so many bytes.
const RECORDS: usize = 2000;
const BYTES: usize = 1024 * 1024;

/// The columns and their types, in the order of [`Sealed::values`].
#[rustfmt::skip] // a table reads in columns
pub(super) const COLUMNS: [(&str, &str); FIELDS] = [
    ("seq",             "bigint"),
    ("phase",           "text"),
    ("id",              "uuid"),
    ("request_id",      "text"),
    ("time",            "timestamptz"),
    ("gateway",         "text"),
    ("caller",          "text"),
    ("identity",        "text"),
    ("method",          "text"),
    ("route",           "text"),
    ("effect",          "text"),
    ("status",          "smallint"),
    ("upstream_status", "smallint"),
    ("code",            "text"),
    ("outcome",         "text"),
    ("duration_us",     "bigint"),
    ("upstream_us",     "bigint"),
    ("bytes_in",        "bigint"),
    ("bytes_out",       "bigint"),
    ("attempts",        "integer"),
    ("replay",          "text"),
    ("rule",            "text"),
    ("legacy",          "boolean"),
    ("peer",            "text"),
    ("trace_id",        "text"),
    ("lost",            "bigint"),
    ("prev_hash",       "bytea"),
    ("hash",            "bytea"),
];

/// The names of all columns.
pub(super) fn names() -> String {
    COLUMNS.map(|(name, _)| name).join(", ")
}

/// Records on their way, column by column, as PostgreSQL takes them.
#[derive(Debug)]
pub(super) struct Batch {
    columns: Vec<Column>,
    /// The number of each record.
    seqs: Vec<u64>,
    /// When the first of them was written, in microseconds since 1970.
    earliest: i64,
    months: BTreeSet<Date>,
    bytes: usize,
}

/// One column of them: its values, and where each of them ends.
#[derive(Debug, Default)]
struct Column {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Batch {
    pub(super) fn new() -> Self {
        let columns = COLUMNS.map(|_| Column::default()).into();
        let (seqs, months) = (Vec::new(), BTreeSet::new());
        Self { columns, seqs, earliest: i64::MAX, months, bytes: 0 }
    }

    pub(super) fn push(&mut self, sealed: &Sealed<'_>) {
        for ((column, (_, value)), (_, kind)) in
            self.columns.iter_mut().zip(sealed.values()).zip(COLUMNS)
        {
            let before = column.bytes.len();
            encode(&value, kind, &mut column.bytes);
            column.ends.push(column.bytes.len());
            self.bytes += column.bytes.len() - before;
        }
        self.seqs.push(sealed.seq);
        self.earliest = self.earliest.min(sealed.record.time);
        self.months.insert(month(sealed.record.time));
    }

    pub(super) fn is_full(&self) -> bool {
        self.seqs.len() >= RECORDS || self.bytes >= BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.seqs.is_empty()
    }

    /// The numbers of its records.
    pub(super) fn seqs(&self) -> &[u64] {
        &self.seqs
    }

    /// When the first of them was written, in microseconds since 1970.
    pub(super) fn earliest(&self) -> i64 {
        self.earliest
    }

    /// The first days of the months that they are of.
    pub(super) fn months(&self) -> impl Iterator<Item = Date> {
        self.months.iter().copied()
    }

    /// Some of its records, as what a statement takes: one array for each column.
    pub(super) fn arrays(&self, rows: Range<usize>) -> Vec<Array<'_>> {
        let array = |column| Array { column, rows: rows.clone() };
        self.columns.iter().map(array).collect()
    }
}

/// The first day of the month of `time`, in UTC.
pub(super) fn month(time: i64) -> Date {
    let time = Timestamp::from_microsecond(time).unwrap_or_default();
    time.to_zoned(TimeZone::UTC).date().first_of_month()
}

fn encode(value: &Value<'_>, kind: &str, out: &mut Vec<u8>) {
    let mut put = |bytes: &[u8]| {
        // No value is nearly as long as that.
        out.put_i32(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
        out.put_slice(bytes);
    };
    match (value, kind) {
        (Value::Null, _) => out.put_i32(-1),
        (Value::Bool(it), _) => put(&[u8::from(*it)]),
        // No measure is nearly as large as its type.
        (Value::Number(it), "smallint") => {
            put(&i16::try_from(*it).unwrap_or(i16::MAX).to_be_bytes());
        }
        (Value::Number(it), "integer") => {
            put(&i32::try_from(*it).unwrap_or(i32::MAX).to_be_bytes());
        }
        (Value::Number(it), _) => put(&i64::try_from(*it).unwrap_or(i64::MAX).to_be_bytes()),
        (Value::Text(it), _) => put(it.as_bytes()),
        (Value::Time(it), _) => put(&it.saturating_sub(EPOCH).to_be_bytes()),
        (Value::Id(it), _) => put(it.as_bytes()),
        (Value::Hash(it), _) => put(*it),
    }
}

/// A part of a column.
#[derive(Debug)]
pub(super) struct Array<'a> {
    column: &'a Column,
    rows: Range<usize>,
}

impl ToSql for Array<'_> {
    fn to_sql(&self, array: &Type, out: &mut BytesMut) -> Result<IsNull, BoxError> {
        let Kind::Array(element) = array.kind() else { return Err("expected an array".into()) };
        let end = |row: usize| self.column.ends.get(row).copied().unwrap_or_default();
        let begin = self.rows.start.checked_sub(1).map_or(0, end);
        let bytes = self.column.bytes.get(begin..end(self.rows.end.saturating_sub(1)));
        // One dimension; there may be nulls; of what; how many; counted from one.
        out.put_i32(1);
        out.put_i32(1);
        out.put_u32(element.oid());
        out.put_i32(i32::try_from(self.rows.len())?);
        out.put_i32(1);
        out.put_slice(bytes.unwrap_or_default());
        Ok(IsNull::No)
    }

    fn accepts(array: &Type) -> bool {
        matches!(array.kind(), Kind::Array(_))
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::record::tests::sample;

    fn batch(records: u64) -> Batch {
        let mut batch = Batch::new();
        for seq in 1..=records {
            let record = sample();
            let (prev_hash, hash) = ([1; 32], [2; 32]);
            batch.push(&Sealed { seq, gateway: "host/1", record, prev_hash, hash });
        }
        batch
    }

    #[test]
    fn the_columns_are_the_values_of_a_record() {
        let record = sample();
        let (prev_hash, hash) = ([1; 32], [2; 32]);
        let sealed = Sealed { seq: 1, gateway: "host/1", record, prev_hash, hash };

        assert_eq!(sealed.values().map(|(name, _)| name), COLUMNS.map(|(name, _)| name));
    }

    #[test]
    fn a_part_of_a_column_is_an_array_of_its_own() {
        let batch = batch(3);
        let mut out = BytesMut::new();

        let array = &batch.arrays(1..3)[0];
        array.to_sql(&Type::INT8_ARRAY, &mut out).expect("an array");

        let mut expected = vec![0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 20, 0, 0, 0, 2, 0, 0, 0, 1];
        for seq in [2, 3] {
            expected.extend([0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, seq]);
        }
        assert_eq!(&out[..], expected);
    }

    #[test]
    fn a_batch_is_full_at_some_time() {
        assert!(!batch(1).is_full());
        assert!(batch(RECORDS as u64).is_full());
    }
}
