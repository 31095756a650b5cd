//! Error codes of the API, and the status each deserves.

use std::{collections::HashMap, sync::LazyLock};

use http::{HeaderMap, StatusCode};
use serde_json::Value;

/// The contract's table of codes (contract section 7.2).
const TABLE: &str = include_str!("error-codes.csv");

/// The row for codes that have none: the list is not closed.
const ANY: &str = "*";

/// What a code is called that nobody has sent.
const UNKNOWN: &str = "unknown";

/// Longer codes are not codes.
const CODE_LENGTH: usize = 64;

/// More messages than that, or longer ones, help nobody.
const MESSAGES: usize = 32;
const MESSAGE_LENGTH: usize = 1024;

static CODES: LazyLock<HashMap<String, Code>> = LazyLock::new(|| parse(TABLE));

/// What we know about a code.
#[derive(Debug)]
struct Code {
    meaning: String,
    status: StatusCode,
}

/// The status that `code` deserves. A code that is not listed is a 400, as any client error that
/// is not understood (RFC 9110 section 15).
pub fn status(code: &str) -> StatusCode {
    let known = CODES.get(code).or_else(|| CODES.get(ANY));
    known.map_or(StatusCode::BAD_REQUEST, |code| code.status)
}

/// What `code` means, in a sentence; nothing for one that is not listed.
pub fn meaning(code: &str) -> Option<&'static str> {
    CODES.get(code).filter(|_| code != ANY).map(|code| code.meaning.as_str())
}

/// All listed codes.
pub fn listed() -> impl Iterator<Item = &'static str> {
    CODES.keys().map(String::as_str).filter(|code| *code != ANY)
}

/// Whether the same request may succeed later without anybody having changed anything.
pub fn retryable(code: &str) -> bool {
    matches!(code, "COGNITO" | "PENDING" | "SESSION_MAXOUT")
}

/// Whether `code` says that our token, or the session behind it, is dead (contract section 4.7).
pub fn denies_token(code: &str) -> bool {
    matches!(code, "SESSION" | "TOKEN")
}

/// An error that the API reported: what can be read of a 499.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AppError {
    /// The application's code.
    pub code: String,
    /// What it says about it. Personal data: for the caller only.
    pub messages: Vec<String>,
}

impl AppError {
    /// Reads an error whatever shape it is in (contract section 7.1): the code is `type`, or else
    /// the `error-code` field, or else the first key of `errors`.
    pub fn read(headers: &HeaderMap, body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let errors = body.get("errors").and_then(Value::as_object);
        let code = body
            .get("type")
            .and_then(Value::as_str)
            .filter(|code| is_code(code))
            .or_else(|| headers.get("error-code")?.to_str().ok().filter(|code| is_code(code)))
            .or_else(|| errors?.keys().next().map(String::as_str).filter(|code| is_code(code)))
            .unwrap_or(UNKNOWN);
        let messages = (errors.into_iter().flatten())
            .flat_map(|(_, messages)| match messages {
                Value::Array(messages) => messages.iter().filter_map(Value::as_str).collect(),
                Value::String(message) => vec![message.as_str()],
                _ => Vec::new(),
            })
            .take(MESSAGES)
            .map(|message| message.chars().take(MESSAGE_LENGTH).collect())
            .collect();
        Self { code: code.to_owned(), messages }
    }
}

fn is_code(text: &str) -> bool {
    (1..=CODE_LENGTH).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Rows that cannot be understood are left out; a test counts those that can.
fn parse(table: &str) -> HashMap<String, Code> {
    let row = |row: csv::StringRecord| {
        let status = row.get(2)?.parse().ok()?;
        let meaning = row.get(1)?.trim_end_matches('.').to_owned() + ".";
        Some((row.get(0)?.to_owned(), Code { meaning, status }))
    };
    csv::Reader::from_reader(table.as_bytes()).records().flatten().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn every_code_of_the_contract_has_its_status_and_any_other_is_a_400() {
        assert_eq!(listed().count(), 29);
        for row in csv::Reader::from_reader(TABLE.as_bytes()).records() {
            let row = row.unwrap();
            assert_eq!(status(&row[0]).as_str(), &row[2], "{}", &row[0]);
        }
        assert_eq!(status("BRAND_NEW"), StatusCode::BAD_REQUEST);
        assert_eq!((meaning("BRAND_NEW"), meaning("*")), (None, None));
    }

    #[track_caller]
    fn check(header: Option<&'static str>, body: &str, code: &str, messages: &[&str]) {
        let mut headers = HeaderMap::new();
        headers.extend(header.map(|it| (http::HeaderName::from_static("error-code"), HeaderValue::from_static(it))));

        let error = AppError::read(&headers, body.as_bytes());

        assert_eq!((&*error.code, error.messages), (code, messages.iter().map(|it| (*it).to_owned()).collect()));
    }

    #[test]
    fn an_error_is_read_whatever_shape_it_is_in() {
        let full = r#"{"type":"NOT_FOUND","status":499,"errors":{"NOT_FOUND":["a","b"]}}"#;

        check(Some("OTHER"), full, "NOT_FOUND", &["a", "b"]);
        check(Some("TOKEN"), "", "TOKEN", &[]);
        check(Some("TOKEN"), "<html>", "TOKEN", &[]);
        check(Some("TOKEN"), r#"{"type":"","errors":null}"#, "TOKEN", &[]);
        check(None, r#"{"errors":{"COST":["x"]}}"#, "COST", &["x"]);
        check(None, r#"{"type":7,"errors":{"COST":"x","B":[1,"y"]}}"#, "B", &["y", "x"]);
        check(None, "[]", "unknown", &[]);
        check(None, r#"{"type":"two words"}"#, "unknown", &[]);
    }

    #[test]
    fn what_is_read_is_bounded() {
        let body = format!(r#"{{"type":"{}","errors":{{"X":["{}"]}}}}"#, "A".repeat(65), "é".repeat(5000));

        let error = AppError::read(&HeaderMap::new(), body.as_bytes());

        assert_eq!((&*error.code, error.messages[0].chars().count()), ("X", MESSAGE_LENGTH));
    }
}
