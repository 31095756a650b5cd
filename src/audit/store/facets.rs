//! What a stretch of the chain has in it: finds records by caller, route and the like without an
//! index over all records.
//!
//! The chain is cut into stretches of some thousand records (spans). For each there is one row for
//! every value that occurs in it, so a query opens only the spans that have what it looks for. That
//! is a thirtieth of the rows of an index, all of a span lie together, and it works for every filter
//! alike.

use std::{collections::HashSet, sync::Arc};

use crate::audit::record::{Outcome, Record};

/// What records can be looked for by. The text is what stands in the column `kind`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(in crate::audit) enum Kind {
    Caller,
    Identity,
    Route,
    Status,
    Code,
    Outcome,
}

impl Kind {
    pub(in crate::audit) const fn word(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Identity => "identity",
            Self::Route => "route",
            Self::Status => "status",
            Self::Code => "code",
            Self::Outcome => "outcome",
        }
    }

    fn of(word: &str) -> Option<Self> {
        let all =
            [Self::Caller, Self::Identity, Self::Route, Self::Status, Self::Code, Self::Outcome];
        all.into_iter().find(|kind| kind.word() == word)
    }
}

/// The values in one span.
#[derive(Clone, Debug, Default)]
pub(in crate::audit) struct Facets {
    texts: [Texts; 5],
    statuses: HashSet<u16>,
    /// What most records have, the one before had as well.
    last_status: Option<u16>,
}

/// The values of one kind.
#[derive(Clone, Debug, Default)]
struct Texts {
    all: HashSet<Arc<str>>,
    /// The one that was asked for last: most likely it is asked for again.
    last: Option<Arc<str>>,
}

impl Facets {
    /// Adds what is in `record`; shows `new` what was not there before.
    pub(in crate::audit) fn add(&mut self, record: &Record<'_>, mut new: impl FnMut(Kind, &str)) {
        for (texts, (kind, value)) in self.texts.iter_mut().zip(texts(record)) {
            if let Some(value) = value
                && !texts.has(value)
            {
                texts.all.insert(value.into());
                new(kind, value);
            }
        }
        if let Some(status) = record.status
            && self.last_status != record.status
        {
            self.last_status = record.status;
            if self.statuses.insert(status) {
                new(Kind::Status, &status.to_string());
            }
        }
    }

    /// Adds a value that was written down; says whether there can be such a one.
    pub(in crate::audit) fn insert(&mut self, kind: &str, value: &str) -> bool {
        let at = match Kind::of(kind) {
            Some(Kind::Status) => {
                return value.parse().is_ok_and(|status| {
                    self.statuses.insert(status);
                    true
                });
            }
            Some(Kind::Caller) => 0,
            Some(Kind::Identity) => 1,
            Some(Kind::Route) => 2,
            Some(Kind::Code) => 3,
            Some(Kind::Outcome) => 4,
            None => return false,
        };
        self.texts[at].all.insert(value.into());
        true
    }

    /// Whether everything in `record` is among them.
    pub(in crate::audit) fn hold(&mut self, record: &Record<'_>) -> bool {
        let has = |(texts, (_, value)): (&mut Texts, (Kind, Option<&str>))| {
            value.is_none_or(|value| texts.has(value))
        };
        self.texts.iter_mut().zip(texts(record)).all(has)
            && record.status.is_none_or(|status| self.statuses.contains(&status))
    }
}

impl Texts {
    /// Whether `value` is among them.
    fn has(&mut self, value: &str) -> bool {
        if self.last.as_deref() == Some(value) {
            return true;
        }
        let found = self.all.get(value);
        self.last = found.cloned();
        found.is_some()
    }
}

fn texts<'a>(record: &Record<'a>) -> [(Kind, Option<&'a str>); 5] {
    [
        (Kind::Caller, record.caller),
        (Kind::Identity, record.identity),
        (Kind::Route, record.route),
        (Kind::Code, record.code),
        (Kind::Outcome, record.outcome.map(Outcome::word)),
    ]
}
