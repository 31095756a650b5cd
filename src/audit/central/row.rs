//! A row of the table, and the record that is in it.

use bytes::{BufMut, BytesMut};
use tokio_postgres::{
    Row,
    types::{FromSql, IsNull, ToSql, Type, to_sql_checked},
};
use uuid::Uuid;

use super::columns::COLUMNS;
use crate::{
    audit::{
        record::{Outcome, Phase, Record, Replay, Sealed},
        value::Hash,
    },
    message::BoxError,
};

/// PostgreSQL counts from 2000-01-01; we, from 1970-01-01. In microseconds.
pub(super) const EPOCH: i64 = 946_684_800_000_000;

/// A `timestamptz`, in microseconds since 1970.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Micros(pub(super) i64);

impl ToSql for Micros {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, BoxError> {
        out.put_i64(self.0.saturating_sub(EPOCH));
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::TIMESTAMPTZ
    }

    to_sql_checked!();
}

impl FromSql<'_> for Micros {
    fn from_sql(_: &Type, raw: &[u8]) -> Result<Self, BoxError> {
        let micros = i64::from_be_bytes(raw.try_into()?).checked_add(EPOCH);
        Ok(Self(micros.ok_or("no time")?))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::TIMESTAMPTZ
    }
}

/// Reads what some phases have and others have not.
struct Reading<'a>(&'a Row);

/// The record in a row of [`names`](super::columns::names).
pub(super) fn sealed(row: &Row) -> Result<Sealed<'_>, BoxError> {
    let it = Reading(row);
    let phase = Phase::of(row.try_get(1)?).ok_or("it has an unknown phase")?;
    let (measured, is_gap) = (phase == Phase::Outcome, phase == Phase::Gap);
    let record = Record {
        phase,
        id: row.try_get::<_, Uuid>(2)?,
        request_id: it.text(3, !is_gap)?,
        time: row.try_get::<_, Micros>(4)?.0,
        caller: row.try_get(6)?,
        identity: row.try_get(7)?,
        method: it.text(8, !is_gap)?,
        route: row.try_get(9)?,
        effect: row.try_get(10)?,
        status: it.small(11)?,
        upstream_status: it.small(12)?,
        code: row.try_get(13)?,
        outcome: match row.try_get(14)? {
            Some(word) => Some(Outcome::of(word).ok_or("it has an unknown outcome")?),
            None => None,
        },
        duration_us: it.number(15, measured)?,
        upstream_us: it.number(16, measured)?,
        bytes_in: it.number(17, measured)?,
        bytes_out: it.number(18, measured)?,
        attempts: match (row.try_get::<_, Option<i32>>(19)?, measured) {
            (Some(number), true) => number.try_into()?,
            (None, false) => 0,
            _ => return Err(it.misplaced(19)),
        },
        replay: match row.try_get(20)? {
            Some(word) => Some(Replay::of(word).ok_or("it has an unknown replay")?),
            None => None,
        },
        rule: row.try_get(21)?,
        legacy: row.try_get(22)?,
        peer: it.text(23, !is_gap)?,
        trace_id: row.try_get(24)?,
        lost: it.number(25, is_gap)?,
    };
    Ok(Sealed {
        seq: row.try_get::<_, i64>(0)?.try_into()?,
        gateway: row.try_get(5)?,
        record,
        prev_hash: it.hash(26)?,
        hash: it.hash(27)?,
    })
}

impl<'a> Reading<'a> {
    fn text(&self, at: usize, is_due: bool) -> Result<&'a str, BoxError> {
        match (self.0.try_get::<_, Option<&str>>(at)?, is_due) {
            (Some(text), true) => Ok(text),
            (None, false) => Ok(""),
            _ => Err(self.misplaced(at)),
        }
    }

    fn number(&self, at: usize, is_due: bool) -> Result<u64, BoxError> {
        match (self.0.try_get::<_, Option<i64>>(at)?, is_due) {
            (Some(number), true) => Ok(number.try_into()?),
            (None, false) => Ok(0),
            _ => Err(self.misplaced(at)),
        }
    }

    fn small(&self, at: usize) -> Result<Option<u16>, BoxError> {
        let number = self.0.try_get::<_, Option<i16>>(at)?;
        Ok(number.map(u16::try_from).transpose()?)
    }

    fn hash(&self, at: usize) -> Result<Hash, BoxError> {
        Ok(self.0.try_get::<_, &[u8]>(at)?.try_into()?)
    }

    /// What the hash does not cover must not be used to hide something.
    fn misplaced(&self, at: usize) -> BoxError {
        let name = COLUMNS.get(at).map_or("it", |(name, _)| name);
        format!("{name} does not belong to its phase").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_from_another_year_and_back() {
        let mut out = BytesMut::new();
        let time = Micros(1_764_115_200_123_456);
        time.to_sql(&Type::TIMESTAMPTZ, &mut out).expect("a time");

        assert_eq!(Micros::from_sql(&Type::TIMESTAMPTZ, &out).expect("a time"), time);
        let infinity = i64::MAX.to_be_bytes();
        assert!(Micros::from_sql(&Type::TIMESTAMPTZ, &infinity).is_err());
    }
}
