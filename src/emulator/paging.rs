//! Filters, sorts and cuts lists the way Amove does.

use std::cmp::Ordering;

use serde_json::{Value, json};

use super::{answer::Refusal, resources::Row};

const NOT_FILTERS: &[&str] = &["page", "pagesize", "sortfield", "descending", "deleted", "days"];

/// Which page of a list, in which order.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Page {
    number: usize,
    size: usize,
    field: String,
    descending: bool,
}

impl Page {
    /// Everything, by `field`.
    pub(super) fn all(field: &str, descending: bool) -> Self {
        Self { number: 0, size: 0, field: field.to_owned(), descending }
    }

    /// The page a query asks for.
    pub(super) fn asked(
        query: &[(String, String)],
        (field, descending): (&str, bool),
    ) -> Result<Self, Refusal> {
        let mut page = Self { number: 1, size: 50, ..Self::all(field, descending) };
        for (name, value) in query.iter().filter(|(_, value)| !value.is_empty()) {
            let wrong = || Refusal::code("DEFAULT", format!("The value {value} is not valid."));
            let number = || value.parse().ok().filter(|number| *number > 0).ok_or_else(wrong);
            match name.to_ascii_lowercase().as_str() {
                "page" => page.number = number()?,
                "pagesize" => page.size = number()?,
                "sortfield" => page.field.clone_from(value),
                "descending" => {
                    page.descending = value.to_ascii_lowercase().parse().map_err(|_| wrong())?;
                }
                _ => {}
            }
        }
        Ok(page)
    }

    /// The thing inside a row by which it is sorted.
    pub(super) fn inner(&self) -> &str {
        self.field.split_once('.').map_or("", |(inner, _)| inner)
    }

    /// The rows of this page.
    pub(super) fn cut(&self, mut rows: Vec<Row>) -> Vec<Row> {
        rows.sort_by(|one, other| {
            let order = compare(field(one, &self.field), field(other, &self.field));
            if self.descending { order.reverse() } else { order }
        });
        if self.size == 0 {
            return rows;
        }
        let skipped = self.size.saturating_mul(self.number.saturating_sub(1));
        rows.into_iter().skip(skipped).take(self.size).collect()
    }

    /// How the envelope describes it.
    pub(super) fn options(&self) -> Value {
        json!({
            "pageSize": self.size,
            "page": self.number,
            "sort": [{"field": self.field, "descending": self.descending}],
        })
    }
}

/// Whether a row passes the filters of a query. What is not a field filters nothing.
///
/// `inner` is the thing a link is listed for; a name may be meant to be that thing's.
pub(super) fn filtered(row: &Row, filters: &[(String, String)], inner: &str) -> bool {
    let given = filters.iter().filter(|(name, value)| {
        !value.is_empty() && !NOT_FILTERS.iter().any(|not| name.eq_ignore_ascii_case(not))
    });
    given.into_iter().all(|(name, value)| passes(lookup(row, name, inner), name, value))
}

fn passes(value: Option<&Value>, name: &str, wanted: &str) -> bool {
    match value {
        // A bit mask, as the types of transfers are.
        Some(Value::Number(number)) if name.eq_ignore_ascii_case("type") => {
            let mask: u64 = wanted.parse().unwrap_or(u64::MAX);
            number.as_u64().unwrap_or(0) & mask != 0
        }
        Some(Value::String(text)) if !name.to_ascii_lowercase().ends_with("id") => {
            text.to_lowercase().contains(&wanted.to_lowercase())
        }
        Some(Value::String(text)) => text.eq_ignore_ascii_case(wanted),
        Some(value) => value.to_string().eq_ignore_ascii_case(wanted),
        None => true,
    }
}

/// The field a filter means.
fn lookup<'a>(row: &'a Row, name: &str, inner: &str) -> Option<&'a Value> {
    field(row, name)
        .filter(|value| !value.is_object())
        // One route leaves the `Id` out.
        .or_else(|| field(row, &format!("{name}Id")))
        .or_else(|| field(row, &format!("{inner}.{name}")))
}

/// A field by its dotted name, in any case.
fn field<'a>(row: &'a Row, dotted: &str) -> Option<&'a Value> {
    let (first, rest) = dotted.split_once('.').map_or((dotted, None), |(a, b)| (a, Some(b)));
    let (_, value) = row.iter().find(|(key, _)| key.eq_ignore_ascii_case(first))?;
    match rest {
        Some(rest) => field(value.as_object()?, rest),
        None => Some(value),
    }
}

fn compare(one: Option<&Value>, other: Option<&Value>) -> Ordering {
    match (one, other) {
        (Some(Value::String(one)), Some(Value::String(other))) => {
            one.to_lowercase().cmp(&other.to_lowercase())
        }
        (Some(Value::Number(one)), Some(Value::Number(other))) => {
            one.as_f64().partial_cmp(&other.as_f64()).unwrap_or(Ordering::Equal)
        }
        (Some(Value::Bool(one)), Some(Value::Bool(other))) => one.cmp(other),
        _ => Ordering::Equal,
    }
}
