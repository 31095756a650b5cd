//! Patterns over the catalogue, as rules and quotas are written: `GET project/*`, `@costs`.

use std::{fmt, str::FromStr};

use http::Method;

use super::{
    catalogue::{Catalogue, Route},
    paths,
    tags::{Tags, UnknownTag},
};

/// What precedes the routes of the API; a pattern may be written with or without it.
const BASE: &str = "/api/v1/";

/// Some routes: a method and a path, or a tag.
///
/// | written | means |
/// |---|---|
/// | `* *` | everything |
/// | `GET project/*` | every GET below `/api/v1/project/` |
/// | `* user/reset_password` | that path, whatever the method |
/// | `@costs`, `DELETE @costs` | every route with that tag |
///
/// Letters are compared without their case, as the API does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RoutePattern {
    text: Box<str>,
    /// `None`: any.
    method: Option<Method>,
    which: Which,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Which {
    All,
    Tagged(Tags),
    /// Up to and with the last slash.
    Below(Box<str>),
    Exactly(Box<str>),
}

/// Why a pattern means nothing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// It has not two words.
    #[error(
        "expected a method (or *) and a path such as \"GET project/*\", or a tag such as \"@costs\""
    )]
    Form,
    /// The first word is no method.
    #[error("`{0}` is not a method: expected GET, POST, PUT, DELETE, another one, or *")]
    Method(String),
    /// The second word is no path.
    #[error(
        "`{0}` is not a path of the API: expected resource/action, resource/* or *, without query or parameters of its own"
    )]
    Path(String),
    /// There is no such tag.
    #[error(transparent)]
    Tag(#[from] UnknownTag),
    /// No route of the catalogue is meant.
    #[error("no documented route is meant by this{}", .nearest.as_ref().map(|it| format!("; did you mean `{it}`?")).unwrap_or_default())]
    Nothing {
        /// The most similar route.
        nearest: Option<String>,
    },
}

impl RoutePattern {
    /// Whether it means `route`, by any of its methods.
    pub fn matches(&self, route: &Route) -> bool {
        route.methods().iter().any(|method| self.matches_by(route, method))
    }

    /// Whether it means `route` where it is asked for by `method`.
    pub fn matches_by(&self, route: &Route, method: &Method) -> bool {
        self.method.as_ref().is_none_or(|own| own == method)
            && self.which.matches(&key_of(route), route.tags)
    }

    /// Whether it means what is asked for by `method` and `key`, which [`paths::read`] made, and
    /// which is no route of the catalogue. `tags` are those of its neighbours.
    pub fn matches_unknown(&self, method: &Method, key: &str, tags: Tags) -> bool {
        let same = |own: &Method| own.as_str().eq_ignore_ascii_case(method.as_str());
        self.method.as_ref().is_none_or(same) && self.which.matches(key, tags)
    }

    /// Whether it means one path and writes it out: only that opens what is guarded.
    pub fn names_a_route(&self) -> bool {
        matches!(self.which, Which::Exactly(_))
    }
}

impl Which {
    fn matches(&self, key: &str, tags: Tags) -> bool {
        match self {
            Self::All => true,
            Self::Tagged(wanted) => tags.contains(*wanted),
            Self::Below(prefix) => key.starts_with(&**prefix),
            Self::Exactly(own) => key == &**own,
        }
    }
}

impl FromStr for RoutePattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let words: Vec<_> = text.split_whitespace().collect();
        let (method, path) = match *words {
            [tag] if tag.starts_with('@') => ("*", tag),
            [method, path] => (method, path),
            _ => return Err(Error::Form),
        };
        let method = match method {
            "*" => None,
            word => Some(method_of(word).ok_or_else(|| Error::Method(word.to_owned()))?),
        };
        let which = match path.strip_prefix('@') {
            Some(tag) => Which::Tagged(tag.parse()?),
            None => path_of(path).ok_or_else(|| Error::Path(path.to_owned()))?,
        };
        let pattern = Self { text: words.join(" ").into(), method, which };
        if Catalogue::get().routes().iter().any(|route| pattern.matches(route)) {
            return Ok(pattern);
        }
        Err(Error::Nothing { nearest: pattern.nearest() })
    }
}

impl RoutePattern {
    fn nearest(&self) -> Option<String> {
        let (Which::Exactly(wanted) | Which::Below(wanted)) = &self.which else { return None };
        let routes = Catalogue::get().routes().iter();
        let distance = |key: &str| strsim::damerau_levenshtein(wanted, key);
        let nearest = routes.map(|route| (distance(&key_of(route)), route)).min_by_key(|it| it.0);
        let (distance, route) = nearest?;
        (distance <= wanted.len() / 3).then(|| format!("{} {}", route.method, key_of(route)))
    }
}

impl fmt::Display for RoutePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A route's template as patterns write it.
fn key_of(route: &Route) -> String {
    paths::read(route.template).map_or_else(|_| route.template.to_owned(), |place| place.key.into())
}

fn method_of(word: &str) -> Option<Method> {
    let is_word = word.bytes().all(|byte| byte.is_ascii_alphabetic());
    Method::from_bytes(word.to_ascii_uppercase().as_bytes()).ok().filter(|_| is_word)
}

fn path_of(path: &str) -> Option<Which> {
    if path == "*" {
        return Some(Which::All);
    }
    let path = path.to_ascii_lowercase();
    let path = path.strip_prefix(BASE).unwrap_or(&path);
    let (path, below) = match path.strip_suffix('*') {
        Some(prefix) => (prefix, true),
        None => (path, false),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_-{}".contains(&byte);
    let is_whole = !path.is_empty() && path.bytes().all(plain) && !path.contains("//");
    match (is_whole, below) {
        (true, true) if path.ends_with('/') => Some(Which::Below(path.into())),
        (true, false) if !path.ends_with('/') => Some(Which::Exactly(path.into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn meant(pattern: &str) -> Vec<String> {
        let pattern: RoutePattern = pattern.parse().expect(pattern);
        let routes = Catalogue::get().routes().iter();
        let meant = routes.filter(|route| pattern.matches(route));
        meant.map(|route| format!("{} {}", route.method, route.template)).collect()
    }

    #[test]
    fn a_pattern_means_what_it_says() {
        assert_eq!(meant("* *").len(), Catalogue::get().routes().len());
        assert_eq!(meant("GET user/userinfo"), ["GET /api/v1/user/userinfo"]);
        assert_eq!(meant("get /API/v1/User/UserInfo"), ["GET /api/v1/user/userinfo"]);
        assert_eq!(meant("* fastrLicense/info/{licenseKey}").len(), 1);
        assert_eq!(meant("* fastrlicense/info/*").len(), 1);
        assert!(meant("* project/*").iter().all(|it| it.contains("/project/")));
        assert!(meant("DELETE project/*").iter().all(|it| it.starts_with("DELETE ")));
        assert_eq!(meant("@costs").len(), 13);
        assert!(meant("DELETE @destructive").len() < meant("@destructive").len());
        assert_eq!(meant("* /api/rm").len(), 1);
        assert_eq!(meant("POST /api/rm").len(), 1);
    }

    #[test]
    fn what_means_nothing_is_refused_with_a_hint() {
        for (text, expected) in [
            ("", "expected a method"),
            ("GET", "expected a method"),
            ("GET user/userinfo now", "expected a method"),
            ("G=T user/userinfo", "is not a method"),
            ("GET user/userinfo?x=1", "is not a path"),
            ("GET user*", "is not a path"),
            ("GET user//userinfo", "is not a path"),
            ("GET user/", "is not a path"),
            ("@cost", "is not a tag"),
            ("GET user/userinof", "did you mean `GET user/userinfo`?"),
            ("GET nothing/*", "no documented route"),
        ] {
            let error = text.parse::<RoutePattern>().expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn only_a_path_that_is_written_out_names_a_route() {
        let names = |text: &str| text.parse::<RoutePattern>().expect(text).names_a_route();

        assert!(names("POST user/reset_password") && names("* user/reset_password"));
        assert!(!names("* *") && !names("POST user/*") && !names("@self"));
    }

    proptest! {
        #[test]
        fn whatever_is_written_there_is_an_answer(text in "\\PC{0,40}") {
            let _ = text.parse::<RoutePattern>();
        }
    }
}
