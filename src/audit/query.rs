//! Which records somebody wants to see: the filters of the verb and of the admin API.

use jiff::{SignedDuration, Timestamp};
use rusqlite::types::ToSql;

use super::record::{Outcome, Record};

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
    pub(super) fn facets(&self) -> Vec<(&'static str, Vec<Box<dyn ToSql + '_>>)> {
        let mut facets: Vec<(_, Vec<Box<dyn ToSql + '_>>)> = Vec::new();
        let texts = [
            ("kind = 'caller' AND value = ?", &self.caller),
            ("kind = 'identity' AND value = ?", &self.identity),
            ("kind = 'code' AND value = ?", &self.code),
        ];
        for (term, text) in texts {
            facets.extend(text.iter().map(|text| (term, vec![Box::new(text) as Box<dyn ToSql>])));
        }
        if let Some(route) = &self.route {
            facets.push(match route.contains('*') {
                true => ("kind = 'route' AND value GLOB ?", vec![Box::new(glob(route))]),
                false => ("kind = 'route' AND value = ?", vec![Box::new(route)]),
            });
        }
        if let Some(outcome) = self.outcome {
            facets.push(("kind = 'outcome' AND value = ?", vec![Box::new(outcome.word())]));
        }
        if let Some(Status { lowest, highest }) = self.status {
            let term = "kind = 'status' AND CAST(value AS INTEGER) BETWEEN ? AND ?";
            facets.push((term, vec![Box::new(lowest), Box::new(highest)]));
        }
        facets
    }

    /// Whether `record` fits. Numbers of records are not looked at, nor whether an intent has ended.
    pub(super) fn fits(&self, record: &Record<'_>) -> bool {
        let is = |wanted: &Option<String>, text: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| text == Some(wanted))
        };
        let is_route = |wanted: &str| record.route.is_some_and(|route| matches(wanted, route));
        let is_status = |wanted: Status| {
            record.status.is_some_and(|it| wanted.lowest <= it && it <= wanted.highest)
        };
        self.since.is_none_or(|since| record.time >= since)
            && self.until.is_none_or(|until| record.time < until)
            && is(&self.request_id, Some(record.request_id))
            && is(&self.caller, record.caller)
            && is(&self.identity, record.identity)
            && is(&self.code, record.code)
            && self.route.as_deref().is_none_or(is_route)
            && self.status.is_none_or(is_status)
            && self.outcome.is_none_or(|wanted| record.outcome == Some(wanted))
    }
}

/// Whether `text` is `pattern`, in which an asterisk stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((begin, pattern)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(begin) else { return false };
    let (middle, end) = pattern.rsplit_once('*').unwrap_or(("", pattern));
    for part in middle.split('*') {
        let Some((_, rest)) = text.split_once(part) else { return false };
        text = rest;
    }
    text.ends_with(end)
}

/// A pattern in the words of SQLite, where not only an asterisk has a meaning.
fn glob(pattern: &str) -> String {
    pattern.replace('[', "[[]").replace('?', "[?]")
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
    fn an_asterisk_stands_for_any_text_and_nothing_else_does() {
        let sqlite = rusqlite::Connection::open_in_memory().expect("a database");
        let check = |pattern: &str, text: &str, expected: bool| {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
            let glob = [text.to_owned(), glob(pattern)];
            let found = sqlite.query_row("SELECT ? GLOB ?", glob, |row| row.get(0));
            assert_eq!(found, Ok(expected), "{pattern} {text}");
        };

        check("/a/*", "/a/", true);
        check("/a/*", "/a/b/c", true);
        check("/a/*", "/a", false);
        check("*", "", true);
        check("*/c", "/a/c/c", true);
        check("/a*a", "/a", false);
        check("/a*/b*c", "/a/x/b/c", true);
        check("/a*/b*c", "/a/x/c", false);
        check("**a**", "bab", true);
        check("/?*", "/a", false);
        check("/[a]*", "/a", false);
        check("/[a]*", "/[a]b", true);
    }

    #[test]
    fn an_unknown_filter_says_which_ones_there_are() {
        let error = Filter::default().set("callr", "x", now()).expect_err("it is unknown");

        assert!(error.to_string().contains("caller"), "{error}");
    }
}
