//! The API's own error codes, and the status each deserves.

use std::{collections::HashMap, fmt, sync::LazyLock};

use csv::StringRecord;
use http::{HeaderMap, HeaderName, StatusCode};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value;

/// One row for each code: the contract's own table.
const TABLE: &str = include_str!("error-codes.csv");

/// Repeats the code of a 499.
pub const ERROR_CODE: HeaderName = HeaderName::from_static("error-code");

/// The code of a 499 that names none.
pub const UNKNOWN: &str = "unknown";

const MAX_CODE: usize = 64;
const MAX_MESSAGES: usize = 32;
const MAX_MESSAGE: usize = 1024;

static RECORDS: LazyLock<Vec<StringRecord>> = LazyLock::new(|| {
    csv::Reader::from_reader(TABLE.as_bytes()).into_records().filter_map(Result::ok).collect()
});
static CODES: LazyLock<Vec<Code>> =
    LazyLock::new(|| RECORDS.iter().filter_map(Code::from_record).collect());
static INDEX: LazyLock<HashMap<&'static str, &'static Code>> =
    LazyLock::new(|| CODES.iter().map(|code| (code.name, code)).collect());

/// A code we know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Code {
    /// What the API calls it.
    pub name: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What a caller should see in place of 499.
    pub status: StatusCode,
    /// Why that status.
    pub reason: &'static str,
}

/// What a 499 says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AppError {
    /// At most 64 visible ASCII characters; [`UNKNOWN`] if there is nothing better.
    pub code: String,
    /// What the API says to people. Personal data: not for logs.
    pub messages: Vec<String>,
}

/// Every code we know, in the order of the contract.
pub fn all() -> &'static [Code] {
    &CODES
}

/// The status for `code`; 400 for one we don't know.
pub fn status(code: &str) -> StatusCode {
    INDEX.get(code).map_or(StatusCode::BAD_REQUEST, |code| code.status)
}

/// What `code` means, if we know it.
pub fn meaning(code: &str) -> Option<&'static str> {
    INDEX.get(code).map(|code| code.meaning)
}

/// Whether the same request may succeed later, with nothing changed but the time.
///
/// Not so the codes after which nobody knows how far the API got, such as `DB_INSERT`.
pub fn retryable(code: &str) -> bool {
    matches!(code, "PENDING" | "SESSION_MAXOUT" | "COGNITO")
}

/// Whether `code` says that the bearer is dead, on a route that judges it.
pub fn denies_token(code: &str) -> bool {
    matches!(code, "TOKEN" | "SESSION")
}

impl AppError {
    /// Reads a 499, whatever it looks like (contract section 7.1).
    pub fn read(headers: &HeaderMap, body: &[u8]) -> Self {
        let json: Value = serde_json::from_slice(body).unwrap_or_default();
        let in_type = json.get("type").and_then(Value::as_str);
        let in_header = headers.get(ERROR_CODE).and_then(|code| code.to_str().ok());
        let named = [in_type, in_header].into_iter().flatten().find(|code| !code.is_empty());
        let code = named.map(str::to_owned).or_else(|| first_error(body));
        let code = code.filter(|code| is_presentable(code));
        Self { code: code.unwrap_or_else(|| UNKNOWN.to_owned()), messages: messages(&json) }
    }
}

fn is_presentable(code: &str) -> bool {
    (1..=MAX_CODE).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_graphic())
}

fn messages(json: &Value) -> Vec<String> {
    let errors = json.get("errors").and_then(Value::as_object).into_iter().flatten();
    let texts = errors.flat_map(|(_, texts)| match texts {
        Value::Array(texts) => texts.as_slice(),
        text => std::slice::from_ref(text),
    });
    texts.filter_map(Value::as_str).take(MAX_MESSAGES).map(shorten).collect()
}

fn shorten(message: &str) -> String {
    let end = message.floor_char_boundary(MAX_MESSAGE);
    message.get(..end).unwrap_or(message).to_owned()
}

/// The first key of `errors` as it was written: a parsed [`Value`] has forgotten the order.
fn first_error(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Problem {
        errors: FirstKey,
    }
    serde_json::from_slice::<Problem>(body).ok()?.errors.0
}

struct FirstKey(Option<String>);

impl<'de> Deserialize<'de> for FirstKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;

        impl<'de> Visitor<'de> for Keys {
            type Value = FirstKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FirstKey, A::Error> {
                let first = map.next_entry::<String, IgnoredAny>()?.map(|(key, _)| key);
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(FirstKey(first))
            }
        }

        deserializer.deserialize_map(Keys)
    }
}

impl Code {
    fn from_record(record: &'static StringRecord) -> Option<Self> {
        let (name, meaning, status, reason) = record.deserialize(None).ok()?;
        let status = StatusCode::from_u16(status).ok()?;
        // The last row says what holds for all others: `status` does that.
        (name != "*").then_some(Self { name, meaning, status, reason })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(header: Option<&'static str>, body: &str) -> AppError {
        let mut headers = HeaderMap::new();
        if let Some(code) = header {
            headers.insert("Error-Code", HeaderValue::from_static(code));
        }
        AppError::read(&headers, body.as_bytes())
    }

    fn code(header: Option<&'static str>, body: &str) -> String {
        read(header, body).code
    }

    #[test]
    fn every_row_of_the_table_is_a_code() {
        // All but the heading and the row for everything else.
        assert_eq!(all().len(), TABLE.lines().count() - 2);
        assert_eq!(all().len(), 29);
        assert!(all().iter().all(|code| !code.meaning.is_empty() && !code.reason.is_empty()));
    }

    #[test]
    fn each_code_has_the_status_it_deserves() {
        let cases = [
            ("NOT_FOUND", 404),
            ("DUPLICATE", 409),
            ("SESSION_MAXOUT", 429),
            ("TRANSFER", 422),
            ("DB_INSERT", 502),
            ("Global", 400),
            ("DEFAULT", 400),
        ];

        for (code, expected) in cases {
            assert_eq!(status(code), expected, "{code}");
        }
    }

    #[test]
    fn a_code_that_is_not_listed_is_a_bad_request_without_meaning() {
        for code in ["BRAND_NEW", "not_found", "*", "", UNKNOWN] {
            assert_eq!(status(code), StatusCode::BAD_REQUEST, "{code}");
            assert_eq!(meaning(code), None, "{code}");
        }
        assert_eq!(meaning("ACCESS"), Some("The caller has no right to the addressed resource"));
    }

    #[test]
    fn only_what_passes_by_itself_is_retryable() {
        let retryable: Vec<_> =
            all().iter().map(|code| code.name).filter(|code| retryable(code)).collect();

        assert_eq!(retryable, ["SESSION_MAXOUT", "COGNITO", "PENDING"]);
    }

    #[test]
    fn only_token_and_session_deny_the_bearer() {
        let denying: Vec<_> =
            all().iter().map(|code| code.name).filter(|code| denies_token(code)).collect();

        assert_eq!(denying, ["TOKEN", "SESSION"]);
    }

    #[test]
    fn the_examples_of_the_contract_are_understood() {
        let error = read(
            Some("NOT_FOUND"),
            r#"{"type":"NOT_FOUND","status":499,"errors":{"NOT_FOUND":["No sync with this id."]}}"#,
        );

        assert_eq!(error.code, "NOT_FOUND");
        assert_eq!(error.messages, ["No sync with this id."]);
        assert_eq!(read(Some("TOKEN"), ""), AppError { code: "TOKEN".into(), messages: vec![] });
    }

    #[test]
    fn the_type_counts_before_the_header_before_the_first_key() {
        assert_eq!(code(Some("B"), r#"{"type":"A","errors":{"C":[]}}"#), "A");
        assert_eq!(code(Some("B"), r#"{"type":"","errors":{"C":[]}}"#), "B");
        assert_eq!(code(Some("B"), r#"{"type":7,"errors":{"C":[]}}"#), "B");
        assert_eq!(code(Some(""), r#"{"type":null,"errors":{"Z":[],"C":[]}}"#), "Z");
        assert_eq!(code(None, r#"{"errors":{}}"#), UNKNOWN);
    }

    #[test]
    fn a_body_that_is_missing_or_something_else_leaves_the_header() {
        for body in ["", "<html>", "[]", "7", "null", "\"TOKEN\"", r#"{"type":"#, r#"{"errors":3}"#]
        {
            assert_eq!(code(Some("TOKEN"), body), "TOKEN", "{body}");
            assert_eq!(code(None, body), UNKNOWN, "{body}");
        }
    }

    #[test]
    fn a_code_that_cannot_be_shown_is_unknown() {
        for absurd in ["A".repeat(65), "TWO WORDS".into(), "ZÜRICH".into(), "A\nB".into()] {
            assert_eq!(code(None, &json!({ "type": absurd }).to_string()), UNKNOWN, "{absurd}");
        }
        let longest = "A".repeat(64);
        assert_eq!(code(None, &json!({ "type": longest }).to_string()), longest);
    }

    #[test]
    fn messages_survive_any_shape_and_stay_few_and_short() {
        let odd = read(None, r#"{"errors":{"A":["one",2,null,"three"],"B":"four","C":{"D":[5]}}}"#);
        let many = json!({ "errors": { "A": vec!["ü".repeat(2000); 100] } });
        let many = read(None, &many.to_string());

        assert_eq!(odd.messages, ["one", "three", "four"]);
        assert_eq!(many.messages.len(), 32);
        assert!(many.messages.iter().all(|message| *message == "ü".repeat(512)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_give_a_presentable_code(body: Vec<u8>, header: Vec<u8>) {
            let mut headers = HeaderMap::new();
            if let Ok(header) = HeaderValue::from_bytes(&header) {
                headers.insert(ERROR_CODE, header);
            }

            let error = AppError::read(&headers, &body);

            prop_assert!(is_presentable(&error.code));
        }
    }
}
