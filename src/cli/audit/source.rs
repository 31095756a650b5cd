//! Where records are read from: the days of one gateway, or the table of many.

use crate::audit::{
    Days, Filter, Sealed, Wanted,
    central::{self, Central, Place},
};

use super::{Exit, Failure, unread};

/// What records are read from.
pub(super) enum Source {
    Days(Days),
    Central(Box<Central>),
}

impl Source {
    /// Shows what fits `filter`, the newest first, until it is enough; `before` is where the page
    /// before has ended, as [`Self::end`] gives it.
    pub(super) fn newest_first(
        &self,
        filter: &Filter,
        before: Option<&str>,
        show: impl FnMut(&Sealed<'_>) -> Wanted,
    ) -> Result<(), Failure> {
        let wrong =
            |expected: &str| Failure::new(Exit::Usage, format!("--before: expected {expected}"));
        match self {
            Self::Days(days) => {
                let before = before.map(str::parse).transpose();
                let before = before.map_err(|_| wrong("the number of a record"))?;
                let filter = Filter { before, ..filter.clone() };
                days.newest_first(&filter, show).map_err(|error| unread(&error))
            }
            Self::Central(central) => {
                let before = before.map(str::parse::<Place>).transpose();
                let before = before.map_err(|_| wrong("TIME/SEQ/GATEWAY"))?;
                central
                    .newest_first(filter, before.as_ref(), show)
                    .map_err(|error| unanswered(&error))
            }
        }
    }

    /// Shows what fits `filter`, the oldest first, until it is enough.
    pub(super) fn oldest_first(
        &self,
        filter: &Filter,
        show: impl FnMut(&Sealed<'_>) -> Wanted,
    ) -> Result<(), Failure> {
        match self {
            Self::Days(days) => days.oldest_first(filter, show).map_err(|error| unread(&error)),
            Self::Central(central) => {
                central.oldest_first(filter, None, show).map_err(|error| unanswered(&error))
            }
        }
    }

    /// Where a page ends whose last record is `sealed`.
    pub(super) fn end(&self, sealed: &Sealed<'_>) -> String {
        match self {
            Self::Days(_) => sealed.seq.to_string(),
            Self::Central(_) => Place::from(sealed).to_string(),
        }
    }

    /// The numbers of the first record and the last, where they are one gateway's.
    pub(super) fn extent(&self) -> Result<Option<(u64, u64)>, Failure> {
        let Self::Days(days) = self else { return Ok(None) };
        let last = days.last().map_err(|error| unread(&error))?;
        Ok(Some((last.saturating_sub(days.count()), last)))
    }
}

/// The central store cannot be asked.
pub(super) fn unanswered(error: &central::Error) -> Failure {
    Failure::caused(Exit::Io, "the central audit store cannot be read", error)
}
