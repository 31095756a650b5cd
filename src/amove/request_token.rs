//! Puts a request token into a body that lacks one, and touches no other byte (contract section 8.4).

use std::{fmt, ops::Range};

use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor},
};
use serde_json::value::RawValue;

const MEMBER: &str = "requestToken";

/// Where a body lacks its token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Gap {
    /// What gives way to the token.
    place: Range<usize>,
    /// What stands between the place and the token.
    before: &'static str,
    /// What stands between the token and the rest.
    after: &'static str,
}

/// Why nobody can tell whether a token is there. Quotes nothing of the body.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unfit {
    /// UTF-8, no byte order mark, and nothing before or after it.
    #[error("it is not exactly one JSON object")]
    NoObject,
    /// Each reader might go by another one.
    #[error("it has more than one member `requestToken`")]
    Twice,
    /// Neither a token nor the lack of one.
    #[error("its member `requestToken` is neither a string nor null")]
    NoString,
}

/// Finds where `body` lacks its token; `None`: it has one.
///
/// # Errors
///
/// See [`Unfit`].
pub fn gap(body: &str) -> Result<Option<Gap>, Unfit> {
    // Values are skipped without recursion, so nesting does no harm.
    let members: Members<'_> = serde_json::from_str(body).map_err(|_| Unfit::NoObject)?;
    match members.tokens[..] {
        [] => {
            // Only blanks come before the brace of an object.
            let start = body.find('{').ok_or(Unfit::NoObject)? + 1;
            let after = if members.is_empty { "" } else { "," };
            Ok(Some(Gap { place: start..start, before: "\"requestToken\":", after }))
        }
        [vacant @ ("null" | "\"\"")] => {
            // A part of the body begins as far into it as the addresses are apart.
            let start = vacant.as_ptr().addr() - body.as_ptr().addr();
            Ok(Some(Gap { place: start..start + vacant.len(), before: "", after: "" }))
        }
        [value] if value.starts_with('"') => Ok(None),
        [_] => Err(Unfit::NoString),
        _ => Err(Unfit::Twice),
    }
}

impl Gap {
    /// `body` with `token` in the gap; wiped when it has been sent.
    pub fn fill(&self, body: &str, token: &SecretString) -> Zeroizing<Vec<u8>> {
        let token = quoted(token.expose_secret());
        let before = body.get(..self.place.start).unwrap_or_default();
        let rest = body.get(self.place.end..).unwrap_or_default();
        let parts = [before, self.before, &token, self.after, rest];
        // Room enough that the buffer does not move, which would leave a copy behind.
        let room = parts.iter().map(|part| part.len()).sum();
        let mut filled = Zeroizing::new(Vec::with_capacity(room));
        parts.iter().for_each(|part| filled.extend_from_slice(part.as_bytes()));
        filled
    }
}

/// A token as a JSON string: it consists of visible ASCII.
fn quoted(token: &str) -> Zeroizing<String> {
    let mut quoted = Zeroizing::new(String::with_capacity(2 * token.len() + 2));
    quoted.push('"');
    for letter in token.chars() {
        if matches!(letter, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    quoted.push('"');
    quoted
}

/// What matters of an object.
struct Members<'a> {
    is_empty: bool,
    /// The values of all members called [`MEMBER`], as they are written.
    tokens: Vec<&'a str>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Members { is_empty: true, tokens: Vec::new() };
        while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
            members.is_empty = false;
            if name == MEMBER {
                members.tokens.push(value.get());
            }
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;

    fn filled(body: &str) -> Result<String, Unfit> {
        let Some(gap) = gap(body)? else { return Ok(body.to_owned()) };
        let filled = gap.fill(body, &"T".into());
        Ok(String::from_utf8(filled.to_vec()).expect("text"))
    }

    #[track_caller]
    fn check(body: &str, expected: &str) {
        assert_eq!(filled(body).as_deref(), Ok(expected), "{body}");
    }

    #[track_caller]
    fn check_refused(body: &str, expected: Unfit) {
        assert_eq!(filled(body), Err(expected), "{body}");
    }

    #[test]
    fn a_token_is_put_right_after_the_brace_and_all_else_stays_as_it_was() {
        check("{}", r#"{"requestToken":"T"}"#);
        check(" \r\n\t{ \n} \n", " \r\n\t{\"requestToken\":\"T\" \n} \n");
        check(
            r#"{ "b" : 1.50e+00, "a":12345678901234567890123, "b":"\u00e9\/{" , "é":"\ud800"}"#,
            r#"{"requestToken":"T", "b" : 1.50e+00, "a":12345678901234567890123, "b":"\u00e9\/{" , "é":"\ud800"}"#,
        );
        // One that lies deeper, or is spelt otherwise, is another one.
        check(r#"{"x":{"requestToken":"a"}}"#, r#"{"requestToken":"T","x":{"requestToken":"a"}}"#);
        check(r#"{"requesttoken":"a"}"#, r#"{"requestToken":"T","requesttoken":"a"}"#);
    }

    #[test]
    fn what_stands_for_no_token_gives_way_to_one() {
        check(
            r#"{"a":1, "requestToken" : null , "b":2}"#,
            r#"{"a":1, "requestToken" : "T" , "b":2}"#,
        );
        check(r#"{"requestToken":""}"#, r#"{"requestToken":"T"}"#);
        check(r#"{"a":null,"request\u0054oken":""}"#, r#"{"a":null,"request\u0054oken":"T"}"#);
    }

    #[test]
    fn the_callers_own_token_is_left_alone() {
        for body in [
            r#"{ "requestToken":"own" }"#,
            r#"{"request\u0054oken":" ","a":null}"#,
            r#"{"requestToken":"\u0000"}"#,
        ] {
            check(body, body);
        }
    }

    #[test]
    fn what_can_be_read_in_more_than_one_way_is_refused() {
        for body in [
            "",
            " ",
            "[]",
            "null",
            "\"{}\"",
            "{",
            "{}}",
            "{}{}",
            "{} x",
            "{a:1}",
            "{\"a\":1,}",
            "{'a':1}",
            "{\"a\":01}",
            "{\"a\":\"\n\"}",
            "\u{feff}{}",
            "{\"\\ud800\":1}",
            "// x\n{}",
        ] {
            check_refused(body, Unfit::NoObject);
        }
        for value in ["1", "true", "[]", "{}", "[\"own\"]", "{\"requestToken\":\"own\"}"] {
            check_refused(&format!("{{\"requestToken\":{value}}}"), Unfit::NoString);
        }
        check_refused(r#"{"requestToken":null,"requestToken":"own"}"#, Unfit::Twice);
        check_refused(r#"{"requestToken":"own","request\u0054oken":"own"}"#, Unfit::Twice);
    }

    #[test]
    fn nesting_does_no_harm() {
        let nested = format!("{{\"a\":{}{}}}", "[".repeat(32_000), "]".repeat(32_000));

        let expected = nested.replacen('{', "{\"requestToken\":\"T\",", 1);

        check(&nested, &expected);
    }

    #[test]
    fn a_token_is_escaped() {
        let gap = gap("{}").expect("an object").expect("a gap");

        let filled = gap.fill("{}", &"\"a\\".into());

        assert_eq!(filled.as_slice(), br#"{"requestToken":"\"a\\"}"#);
    }

    /// Any object, written with blanks where they are allowed.
    fn objects() -> impl Strategy<Value = String> {
        let member = (".{0,8}|requestToken", any::<Option<i64>>(), "[ \n\t]{0,3}");
        prop::collection::vec(member, 0..6).prop_map(|members| {
            let members = members.into_iter().map(|(name, value, blank)| {
                let (name, value) = (Value::from(name), Value::from(value));
                format!("{blank}{name}{blank}:{blank}{value}{blank}")
            });
            format!("\n{{{}}} ", members.collect::<Vec<_>>().join(","))
        })
    }

    proptest! {
        #[test]
        fn the_token_is_added_and_nothing_else_changes(body in objects()) {
            let Ok(Some(gap)) = gap(&body) else { return Ok(()) };

            let after = filled(&body).expect("a gap");

            let mut expected: Map<String, Value> = serde_json::from_str(&body).expect("an object");
            expected.insert(MEMBER.into(), "T".into());
            prop_assert_eq!(serde_json::from_str::<Map<_, _>>(&after).expect("one still"), expected);
            prop_assert!(after.starts_with(&body[..gap.place.start]));
            prop_assert!(after.ends_with(&body[gap.place.end..]));
        }

        #[test]
        fn any_text_is_read_or_refused(body in "\\PC*") {
            let _ = filled(&body);
        }
    }
}
