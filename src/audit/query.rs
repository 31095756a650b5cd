//! Which records somebody wants to see: the filters of the verb and of the admin API.

use jiff::{SignedDuration, Timestamp};
use rusqlite::types::ToSql;

use super::record::Outcome;

/// What is asked for. Everything that is set has to fit.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Filter {
    /// Who called.
    pub caller: Option<String>,
    /// Whom the caller is to the API.
    pub identity: Option<String>,
    /// A route's template, or the beginning of one that ends with `*`.
    pub route: Option<String>,
    /// The status that the caller got.
    pub status: Option<Status>,
    /// The API's code.
    pub code: Option<String>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Not before, in microseconds since 1970.
    pub since: Option<i64>,
    /// Before, in microseconds since 1970.
    pub until: Option<i64>,
    /// What the caller calls its request.
    pub request_id: Option<String>,
    /// Only records before the one with this number: where the page before has ended.
    pub before: Option<u64>,
    /// Only records after the one with this number.
    pub after: Option<u64>,
    /// Also intents whose outcome is known.
    pub intents: bool,
}

/// One status, or all that begin with a digit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Status {
    /// The lowest that fits.
    pub lowest: u16,
    /// The highest that fits.
    pub highest: u16,
}

/// A filter that makes no sense.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{name}: expected {expected}")]
pub struct FilterError {
    /// Which one.
    pub name: &'static str,
    /// What would have been right.
    pub expected: String,
}

impl Filter {
    /// The names of all filters, as in the admin API; the verb has them as flags.
    pub const NAMES: [&'static str; 11] = [
        "caller",
        "identity",
        "route",
        "status",
        "code",
        "outcome",
        "since",
        "until",
        "request_id",
        "before",
        "intents",
    ];

    /// Sets the filter with that name; `now` is what relative times count from.
    ///
    /// # Errors
    ///
    /// [`FilterError`] if there is none with that name, or it cannot be read.
    pub fn set(&mut self, name: &str, value: &str, now: Timestamp) -> Result<(), FilterError> {
        let text = || Some(value.to_owned());
        match name {
            "caller" => self.caller = text(),
            "identity" => self.identity = text(),
            "route" => self.route = text(),
            "code" => self.code = text(),
            "request_id" => self.request_id = text(),
            "status" => self.status = Some(value.parse()?),
            "outcome" => self.outcome = Some(outcome(value)?),
            "since" => self.since = Some(time("since", value, now)?),
            "until" => self.until = Some(time("until", value, now)?),
            "before" => self.before = Some(number("before", value)?),
            "intents" => self.intents = yes_or_no("intents", value)?,
            _ => {
                let expected = format!("one of {}", Self::NAMES.join(", "));
                return Err(FilterError { name: "filter", expected });
            }
        }
        Ok(())
    }

    /// What has to occur in a stretch of the chain so that it can have something that fits, as
    /// conditions on its facets.
    pub(super) fn facets(&self) -> Vec<(&'static str, Vec<&dyn ToSql>)> {
        let mut facets: Vec<(_, Vec<&dyn ToSql>)> = Vec::new();
        let texts = [
            ("kind = 'caller' AND value = ?", &self.caller),
            ("kind = 'identity' AND value = ?", &self.identity),
            ("kind = 'code' AND value = ?", &self.code),
        ];
        for (term, text) in texts {
            facets.extend(text.iter().map(|text| (term, vec![text as &dyn ToSql])));
        }
        if let Some(route) = &self.route {
            facets.push(match route.contains('*') {
                true => ("kind = 'route' AND value GLOB ?", vec![route]),
                false => ("kind = 'route' AND value = ?", vec![route]),
            });
        }
        if let Some(outcome) = &self.outcome {
            facets.push(("kind = 'outcome' AND value = ?", vec![outcome]));
        }
        if let Some(Status { lowest, highest }) = &self.status {
            let term = "kind = 'status' AND CAST(value AS INTEGER) BETWEEN ? AND ?";
            facets.push((term, vec![lowest, highest]));
        }
        facets
    }

    /// As a condition of SQL, and what goes into its gaps. Numbers of records are not in it.
    pub(super) fn condition(&self) -> (String, Vec<&dyn ToSql>) {
        let mut terms: Vec<&str> = vec!["TRUE"];
        let mut values: Vec<&dyn ToSql> = Vec::new();
        let mut add = |term, value| {
            terms.push(term);
            values.push(value);
        };
        let texts = [
            ("caller = ?", &self.caller),
            ("identity = ?", &self.identity),
            ("code = ?", &self.code),
            ("request_id = ?", &self.request_id),
        ];
        for (term, text) in &texts {
            if let Some(text) = text {
                add(*term, text as &dyn ToSql);
            }
        }
        if let Some(route) = &self.route {
            // An asterisk is at home in no template, so this cannot surprise.
            add(if route.contains('*') { "route GLOB ?" } else { "route = ?" }, route);
        }
        if let Some(Status { lowest, highest }) = &self.status {
            add("status >= ?", lowest);
            add("status <= ?", highest);
        }
        if let Some(since) = &self.since {
            add("time >= ?", since);
        }
        if let Some(until) = &self.until {
            add("time < ?", until);
        }
        if let Some(outcome) = &self.outcome {
            add("outcome = ?", outcome);
        }
        (terms.join(" AND "), values)
    }
}

impl ToSql for Outcome {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        Ok(self.word().into())
    }
}

impl std::str::FromStr for Status {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let expected = || FilterError { name: "status", expected: "404, or 4xx".into() };
        if let Some(class) = text.strip_suffix("xx") {
            let class: u16 = class.parse().map_err(|_| expected())?;
            let class = (1..=9).contains(&class).then_some(class * 100).ok_or_else(expected)?;
            return Ok(Self { lowest: class, highest: class + 99 });
        }
        let status = text.parse().ok().filter(|status| (100..1000).contains(status));
        status.map(|status| Self { lowest: status, highest: status }).ok_or_else(expected)
    }
}

fn outcome(word: &str) -> Result<Outcome, FilterError> {
    let expected = || format!("one of {}", Outcome::WORDS.join(", "));
    Outcome::of(word).ok_or_else(|| FilterError { name: "outcome", expected: expected() })
}

fn yes_or_no(name: &'static str, text: &str) -> Result<bool, FilterError> {
    text.parse().map_err(|_| FilterError { name, expected: "true or false".into() })
}

fn number(name: &'static str, text: &str) -> Result<u64, FilterError> {
    text.parse().map_err(|_| FilterError { name, expected: "a number".into() })
}

/// A point in time: `2h` ago, a date, or a date and a time.
fn time(name: &'static str, text: &str, now: Timestamp) -> Result<i64, FilterError> {
    let ago = crate::config::duration_of(text);
    let ago = ago.and_then(|ago| now.checked_sub(SignedDuration::try_from(ago).ok()?).ok());
    let utc = |civil: jiff::civil::DateTime| civil.to_zoned(jiff::tz::TimeZone::UTC).ok();
    let time = ago
        .or_else(|| text.parse().ok())
        .or_else(|| utc(text.parse().ok()?).map(|zoned| zoned.timestamp()));
    let expected = "a time such as 2h (ago), 2026-11-26, or 2026-11-26T12:00:00Z";
    time.map(Timestamp::as_microsecond)
        .ok_or_else(|| FilterError { name, expected: expected.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-26T12:00:00Z".parse().expect("a time")
    }

    #[test]
    fn times_are_relative_or_absolute() {
        let read = |text| time("since", text, now()).map(Timestamp::from_microsecond);
        let at = |text: &str| Ok(Ok(text.parse::<Timestamp>().expect("a time")));

        assert_eq!(read("2h").map(|it| it.map_err(drop)), at("2026-11-26T10:00:00Z"));
        assert_eq!(read("2026-11-25").map(|it| it.map_err(drop)), at("2026-11-25T00:00:00Z"));
        assert_eq!(
            read("2026-11-25T01:02:03").map(|it| it.map_err(drop)),
            at("2026-11-25T01:02:03Z")
        );
        assert!(read("yesterday").is_err());
    }

    #[test]
    fn a_status_is_one_or_a_hundred() {
        assert_eq!("404".parse(), Ok(Status { lowest: 404, highest: 404 }));
        assert_eq!("4xx".parse(), Ok(Status { lowest: 400, highest: 499 }));
        for wrong in ["", "xx", "4x", "0xx", "99", "1000", "-1"] {
            assert!(wrong.parse::<Status>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_unknown_filter_says_which_ones_there_are() {
        let error = Filter::default().set("callr", "x", now()).expect_err("it is unknown");

        assert!(error.to_string().contains("caller"), "{error}");
    }
}
