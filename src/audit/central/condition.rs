//! A filter in the words of PostgreSQL.

use tokio_postgres::types::ToSql;

use super::row::Micros;
use crate::audit::{query::Filter, record::Outcome};

/// A condition of SQL, and what goes into its gaps.
pub(super) struct Condition {
    pub(super) terms: Vec<String>,
    pub(super) values: Vec<Box<dyn ToSql + Sync + Send>>,
}

impl Condition {
    pub(super) fn of(filter: &Filter) -> Self {
        let mut condition = Self { terms: vec!["TRUE".into()], values: Vec::new() };
        let texts = [
            ("caller =", &filter.caller),
            ("identity =", &filter.identity),
            ("code =", &filter.code),
            ("request_id =", &filter.request_id),
            ("outcome =", &filter.outcome.map(|outcome| outcome.word().to_owned())),
        ];
        for (term, text) in texts {
            if let Some(text) = text {
                condition.add(term, text.clone());
            }
        }
        match filter.route.as_deref().map(|route| (route, pattern(route))) {
            Some((_, Some(pattern))) => condition.add("route LIKE", pattern),
            Some((route, None)) => condition.add("route =", route.to_owned()),
            None => {}
        }
        if let Some(status) = filter.status {
            let [lowest, highest] = [status.lowest, status.highest]
                .map(|status| i16::try_from(status).unwrap_or(i16::MAX));
            // What is the same in all rows is in the order of its index.
            if lowest == highest {
                condition.add("status =", lowest);
            } else {
                condition.add("status >=", lowest);
                condition.add("status <=", highest);
            }
            // Said again in the words of the partial indexes, or they would not be used.
            condition.say(status.lowest >= 400, "status >= 400");
        }
        condition.say(filter.code.is_some(), "code IS NOT NULL");
        let is_error = filter.outcome.is_some_and(|outcome| outcome != Outcome::Ok);
        condition.say(is_error, "outcome <> 'ok'");
        if let Some(since) = filter.since {
            condition.add("time >=", Micros(since));
        }
        if let Some(until) = filter.until {
            condition.add("time <", Micros(until));
        }
        if let Some(before) = filter.before {
            condition.add("seq <", signed(before));
        }
        if let Some(after) = filter.after {
            condition.add("seq >", signed(after));
        }
        condition
    }

    fn add(&mut self, term: &str, value: impl ToSql + Sync + Send + 'static) {
        let gap = self.value(value);
        self.terms.push(format!("{term} {gap}"));
    }

    fn say(&mut self, is_so: bool, term: &str) {
        self.terms.extend(is_so.then(|| term.to_owned()));
    }

    /// The gap that the value goes into.
    pub(super) fn value(&mut self, value: impl ToSql + Sync + Send + 'static) -> String {
        self.values.push(Box::new(value));
        format!("${}", self.values.len())
    }
}

/// The same for LIKE, if there is an asterisk in it.
fn pattern(route: &str) -> Option<String> {
    let escaped = route.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    route.contains('*').then(|| escaped.replace('*', "%"))
}

/// PostgreSQL knows signed numbers only.
pub(super) fn signed(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asterisk_is_all_that_has_a_meaning_in_a_route() {
        assert_eq!(pattern("/api/v1/user/get_all"), None);
        assert_eq!(pattern("/api/v1/user/get_*"), Some("/api/v1/user/get\\_%".into()));
    }
}
