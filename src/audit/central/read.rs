//! Reads the central store: the same filters, over all gateways.

use std::{collections::HashSet, fmt, path::Path, str::FromStr};

use jiff::Timestamp;
use secrecy::SecretString;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use super::{
    columns::names,
    condition::{Condition, signed},
    error::Error,
    link::{self, Link},
    row::{Micros, sealed},
};
use crate::audit::{
    query::Filter,
    record::{Phase, Sealed},
    store::Wanted,
};

/// Rows that are fetched at once: few at first, since a page may be all that is wanted.
const FIRST: i64 = 128;
const MOST: i64 = 4096;

/// The central store, to be read. It blocks: not for a thread that serves callers.
pub struct Central {
    pub(super) runtime: Runtime,
    pub(super) link: Link,
}

/// Where a page ends. Records of many gateways have no common number.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// When the record was written, in microseconds since 1970.
    pub time: i64,
    /// Its number.
    pub seq: u64,
    /// Who wrote it.
    pub gateway: String,
}

/// Written `TIME/SEQ/GATEWAY`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = Timestamp::from_microsecond(self.time).unwrap_or_default();
        write!(f, "{time:.6}/{}/{}", self.seq, self.gateway)
    }
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "expected TIME/SEQ/GATEWAY";
        let mut parts = text.splitn(3, '/');
        let mut part = || parts.next().ok_or(EXPECTED);
        let time: Timestamp = part()?.parse().map_err(|_| EXPECTED)?;
        let seq = part()?.parse().map_err(|_| EXPECTED)?;
        Ok(Self { time: time.as_microsecond(), seq, gateway: part()?.to_owned() })
    }
}

impl From<&Sealed<'_>> for Place {
    fn from(sealed: &Sealed<'_>) -> Self {
        let gateway = sealed.gateway.to_owned();
        Self { time: sealed.record.time, seq: sealed.seq, gateway }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Order {
    NewestFirst,
    OldestFirst,
}

impl Central {
    /// Connects; a role that may only read is enough. `ca_file` has trust roots besides the system's.
    ///
    /// # Errors
    ///
    /// [`Error`], if that is not possible.
    pub fn connect(url: &SecretString, ca_file: Option<&Path>) -> Result<Self, Error> {
        let postgres = link::postgres(url)?;
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let link = runtime.block_on(async {
            let link = Link::open(postgres, ca_file).await?;
            let read_only = "SET default_transaction_read_only = on; SET jit = off";
            link.answer(link.client.batch_execute(read_only)).await?;
            Ok::<_, Error>(link)
        })?;
        Ok(Self { runtime, link })
    }

    /// Shows what fits `filter`, the newest first, until it is enough; `after` is where the page
    /// before has ended. Intents whose outcome is known are left out, unless the filter wants them.
    ///
    /// # Errors
    ///
    /// PostgreSQL's, or a record that cannot be read.
    pub fn newest_first(
        &self,
        filter: &Filter,
        after: Option<&Place>,
        show: impl FnMut(&Sealed<'_>) -> Wanted,
    ) -> Result<(), Error> {
        self.runtime.block_on(self.select(filter, Order::NewestFirst, after.cloned(), show))
    }

    /// Shows what fits `filter`, the oldest first, until it is enough; `after` is where it was when
    /// it ended before. Intents are shown if the filter wants them.
    ///
    /// # Errors
    ///
    /// PostgreSQL's, or a record that cannot be read.
    pub fn oldest_first(
        &self,
        filter: &Filter,
        after: Option<&Place>,
        show: impl FnMut(&Sealed<'_>) -> Wanted,
    ) -> Result<(), Error> {
        self.runtime.block_on(self.select(filter, Order::OldestFirst, after.cloned(), show))
    }

    /// Who has written here, in alphabetical order.
    ///
    /// # Errors
    ///
    /// PostgreSQL's.
    pub fn gateways(&self) -> Result<Vec<String>, Error> {
        self.runtime.block_on(async {
            let mut gateways = Vec::new();
            // Each is looked up in the index of the chains, rather than all records gone through.
            let next = "SELECT min(gateway) FROM audit_records WHERE gateway > $1";
            let next = self.link.answer(self.link.client.prepare(next)).await?;
            loop {
                let last = gateways.last().map_or("", String::as_str);
                let row = self.link.answer(self.link.client.query_one(&next, &[&last])).await?;
                match row.try_get::<_, Option<String>>(0)? {
                    Some(gateway) => gateways.push(gateway),
                    None => return Ok(gateways),
                }
            }
        })
    }

    async fn select(
        &self,
        filter: &Filter,
        order: Order,
        mut place: Option<Place>,
        mut show: impl FnMut(&Sealed<'_>) -> Wanted,
    ) -> Result<(), Error> {
        let mut limit = FIRST;
        loop {
            let rows = self.page(filter, order, place.as_ref(), limit).await?;
            let ended = self.ended(filter, order, &rows).await?;
            for row in &rows {
                let sealed = read(row)?;
                let is_intent = sealed.record.phase == Phase::Intent;
                if is_intent && ended.contains(&sealed.record.id) {
                    continue;
                }
                if show(&sealed).is_break() {
                    return Ok(());
                }
            }
            let Some(last) = rows.last().filter(|_| rows.len() as i64 == limit) else {
                return Ok(());
            };
            place = Some(Place::from(&read(last)?));
            limit = (limit * 4).min(MOST);
        }
    }

    async fn page(
        &self,
        filter: &Filter,
        order: Order,
        place: Option<&Place>,
        limit: i64,
    ) -> Result<Vec<Row>, Error> {
        let mut condition = Condition::of(filter);
        if order == Order::OldestFirst && !filter.intents {
            condition.terms.push("phase <> 'intent'".into());
        }
        let (sign, direction) = match order {
            Order::NewestFirst => ("<", "DESC"),
            Order::OldestFirst => (">", "ASC"),
        };
        if let Some(place) = place {
            let time = condition.value(Micros(place.time));
            let seq = condition.value(signed(place.seq));
            let gateway = condition.value(place.gateway.clone());
            condition.terms.push(format!("(time, seq, gateway) {sign} ({time}, {seq}, {gateway})"));
        }
        let limit = condition.value(limit);
        let select = format!(
            "SELECT {} FROM audit_records WHERE {} \
             ORDER BY time {direction}, seq {direction}, gateway {direction} LIMIT {limit}",
            names(),
            condition.terms.join(" AND ")
        );
        let values: Vec<_> =
            condition.values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect();
        self.link.answer(self.link.client.query(&select, &values)).await
    }

    /// The requests of intents in `rows` of which it is known how they ended.
    async fn ended(
        &self,
        filter: &Filter,
        order: Order,
        rows: &[Row],
    ) -> Result<HashSet<Uuid>, Error> {
        if filter.intents || order == Order::OldestFirst {
            return Ok(HashSet::new());
        }
        let is_intent = |row: &&Row| row.try_get(1).is_ok_and(|phase: &str| phase == "intent");
        let intents = rows.iter().filter(is_intent).map(|row| row.try_get(2));
        let intents = intents.collect::<Result<Vec<Uuid>, _>>()?;
        if intents.is_empty() {
            return Ok(HashSet::new());
        }
        let select = "SELECT id FROM audit_records WHERE id = ANY($1) AND phase = 'outcome'";
        let rows = self.link.answer(self.link.client.query(select, &[&intents])).await?;
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
    }
}

/// The record in `row`.
pub(super) fn read(row: &Row) -> Result<Sealed<'_>, Error> {
    sealed(row).map_err(|reason| Error::Row {
        gateway: row.try_get(5).unwrap_or_default(),
        seq: row.try_get(0).unwrap_or_default(),
        reason: reason.to_string(),
    })
}

impl fmt::Debug for Central {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Central").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_can_be_written_down() {
        let gateway = "host/af02".to_owned();
        let place = Place { time: 1_764_115_200_123_456, seq: 7, gateway };

        assert_eq!(place.to_string(), "2025-11-26T00:00:00.123456Z/7/host/af02");
        assert_eq!(place.to_string().parse(), Ok(place));
        assert!("7".parse::<Place>().is_err());
    }
}
