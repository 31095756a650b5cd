//! Paths: what the gateway takes one for is the same however it is spelt.

use amove_gateway::amove::{
    catalogue::{Catalogue, Lookup},
    paths::{self, Form, Place},
};
use http::Method;
use proptest::{prelude::*, sample::select, test_runner::TestCaseResult};

use crate::corpus::{Input, check, explore, lines, mutants};

/// Pieces that some reader makes something of.
pub(crate) const WORDS: &[&str] = &[
    "/",
    "//",
    "/.",
    "/..",
    "/./",
    "/../",
    "/...",
    "%2e",
    "%2E%2e",
    "..;",
    ";",
    "%3b",
    "%2f",
    "%2F",
    "\\",
    "%5c",
    "%5C",
    "%25",
    "%252e",
    "%252f",
    "%00",
    "%0a",
    "%0d%0a",
    "%09",
    "%20",
    " ",
    "+",
    "?",
    "#",
    "%3f",
    "%23",
    "%",
    "%u002e",
    "%u2215",
    "%c0%ae",
    "%c0%af",
    "%e0%80%af",
    "%ed%a0%80",
    "%ff",
    "%ef%bc%8f",
    "%ef%bc%8e",
    "%e2%88%95",
    "%e2%84%aa",
    "%c4%b0",
    "%c4%b1",
    "%c5%bf",
    "%cc%81",
    "api",
    "API",
    "%61pi",
    "v1",
    "V1",
    "v%31",
    "v01",
    "v1.0",
    "v2",
    "rm",
    "authentication",
    "user",
    "userinfo",
    "delete_user",
    "reset_password",
    "fastrsettings",
    "get_all",
    "negotiate",
    "~",
    "*",
    "é",
    "ſ",
    "K",
    "İ",
    ":",
    "@",
    "{userId}",
];

/// What `path` is taken for, if it is not refused.
fn read(path: &str) -> Option<Place<'_>> {
    paths::read(path).ok()
}

/// A path whose key is `key`, written with nothing but what needs no thought.
fn written(place: &Place<'_>) -> String {
    let prefix = match place.form {
        Form::Versioned => "/api/v1/",
        Form::Legacy | Form::AuthManaged => "/api/",
        Form::Hub | Form::Other => "",
    };
    let mut path = prefix.to_owned();
    for byte in place.key.bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' => path.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => path.push(char::from(byte)),
            byte => path.push_str(&format!("%{byte:02x}")),
        }
    }
    path
}

fn holds(input: &[u8]) -> TestCaseResult {
    let Ok(path) = std::str::from_utf8(input) else { return Ok(()) };
    let Some(place) = read(path) else { return Ok(()) };
    let Place { key, form } = &place;

    // Nothing is left that anybody could take for something else.
    prop_assert_eq!(&key.to_lowercase(), key);
    prop_assert!(!key.contains(['%', '\\', ';', '?', '#']) && !key.chars().any(char::is_control));
    prop_assert!(key.is_empty() || **key == *"/" || !key.ends_with('/'), "{key}");
    let mut names = key.strip_prefix('/').unwrap_or(key).split('/');
    let has_names = names.all(|name| !name.is_empty() && name.trim_end_matches('.') == name);
    prop_assert!(has_names || **key == *"/", "{key}");

    // What it was taken for is taken for the same.
    let plain = written(&place);
    prop_assert_eq!(read(&plain), Some(place.clone()), "{}", plain);

    // A legacy path and its successor are the same, and the successor needs no other.
    if *form == Form::Legacy {
        let successor = paths::successor(path);
        let moved = read(&successor).map(|place| (place.form, place.key.into_owned()));
        prop_assert_eq!(moved, Some((Form::Versioned, key.clone().into_owned())), "{}", successor);
    }
    Ok(())
}

#[test]
fn a_path_is_taken_for_one_thing() {
    explore(8_000, lines("paths"), WORDS, holds);
}

#[test]
fn so_is_any_text() {
    check(4_000, &"/?\\PC{0,40}", |text| holds(text.as_bytes()));
    let word = select(WORDS);
    check(8_000, &prop::collection::vec(word, 0..12), |words| holds(words.concat().as_bytes()));
}

/// Changes that mean nothing to the API's router.
#[derive(Clone, Debug)]
struct Spelling {
    escapes: Vec<bool>,
    cases: Vec<bool>,
    slash: bool,
}

fn spellings() -> impl Strategy<Value = Spelling> {
    let flags = || prop::collection::vec(any::<bool>(), 1..24);
    (flags(), flags(), any::<bool>()).prop_map(|(escapes, cases, slash)| Spelling {
        escapes,
        cases,
        slash,
    })
}

impl Spelling {
    /// `path`, spelt otherwise.
    fn of(&self, path: &str) -> String {
        let mut spelt = String::new();
        let (escapes, mut cases) = (self.escapes.iter().cycle(), self.cases.iter().cycle());
        let mut left = path.chars();
        let mut escapes = escapes;
        while let Some(letter) = left.next() {
            if letter == '%' {
                // An escape stays one.
                spelt.push('%');
                spelt.extend(left.by_ref().take(2));
                continue;
            }
            let letter = match cases.next() {
                Some(true) => letter.to_ascii_uppercase(),
                _ => letter.to_ascii_lowercase(),
            };
            match escapes.next() {
                Some(true) if letter.is_ascii_alphanumeric() || letter == '_' => {
                    spelt.push_str(&format!("%{:02X}", u32::from(letter)));
                }
                _ => spelt.push(letter),
            }
        }
        if self.slash && !spelt.ends_with('/') {
            spelt.push('/');
        }
        spelt
    }
}

/// Any path that is not refused, with a path that is the same to the API's router.
pub(crate) fn pairs() -> impl Strategy<Value = (String, String)> {
    let text = |Input(bytes): Input| String::from_utf8(bytes).ok();
    let paths = mutants(lines("paths"), WORDS);
    let paths = paths
        .prop_filter_map("ambiguous", move |input| text(input).filter(|path| read(path).is_some()));
    (paths, spellings()).prop_map(|(path, spelling)| {
        let other = spelling.of(&path);
        (path, other)
    })
}

#[test]
fn however_a_path_is_spelt_it_is_the_same() {
    check(1_000, &pairs(), |(path, other)| {
        let place = read(&path);

        prop_assert_eq!(read(&other), place.clone(), "{}", other);
        let key = place.expect("a path that is not refused").key;
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
            let lower = method.as_str().to_lowercase();
            let lower = Method::from_bytes(lower.as_bytes()).expect("a method");
            let found = |method| match Catalogue::get().find(method, &key) {
                Lookup::Found(route) => Some(route.index),
                Lookup::OtherMethod(_) | Lookup::Unknown => None,
            };
            prop_assert_eq!(found(&method), found(&lower), "{} {}", method, key);
        }
        Ok(())
    });
}
