//! The filters, as flags.

use clap::{Args, builder::PossibleValuesParser};
use jiff::Timestamp;

use super::{Exit, Failure};
use crate::audit::{Filter, Outcome};

#[derive(Debug, Args)]
#[command(next_help_heading = "Filters")]
pub(super) struct Filters {
    /// Who called, as in [callers.NAME]
    #[arg(long, value_name = "NAME")]
    caller: Option<String>,
    /// Whom the caller is to Amove, as in [identities.NAME]
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// The route, or the beginning of some: /api/v1/project/insert or '/api/v1/project/*'
    #[arg(long)]
    route: Option<String>,
    /// The status that the caller got: 404 or 4xx
    #[arg(long)]
    status: Option<String>,
    /// Amove's error code, for example NOT_FOUND
    #[arg(long)]
    code: Option<String>,
    /// How it ended
    #[arg(long, value_parser = PossibleValuesParser::new(Outcome::WORDS))]
    outcome: Option<String>,
    /// Not before: 2h (ago), 2026-11-26, 2026-11-26T12:00:00Z; without a zone, UTC
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Before, in the same forms
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// What the caller was told as X-Request-Id
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Also the records of requests that begin, where the end is known
    #[arg(long)]
    intents: bool,
}

impl Filters {
    /// What they ask for, if `now` is the time.
    pub(super) fn filter(&self, now: Timestamp) -> Result<Filter, Failure> {
        let mut filter = Filter { intents: self.intents, ..Filter::default() };
        for (name, value) in [
            ("caller", &self.caller),
            ("identity", &self.identity),
            ("route", &self.route),
            ("status", &self.status),
            ("code", &self.code),
            ("outcome", &self.outcome),
            ("since", &self.since),
            ("until", &self.until),
            ("request_id", &self.request_id),
        ] {
            let Some(value) = value else { continue };
            filter.set(name, value, now).map_err(|error| {
                let (name, expected) = (error.name, error.expected);
                let message = format!("--{name} cannot be {value:?}: expected {expected}");
                Failure::new(Exit::Usage, message)
            })?;
        }
        Ok(filter)
    }
}
