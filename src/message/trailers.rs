//! What may stand behind a body.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Whether a field may follow a body: not one that would change how the message is framed, routed,
/// authenticated or read (RFC 9110, section 6.5.1).
pub fn may_trail(name: &[u8]) -> bool {
    let begins = |prefix: &str| {
        name.get(..prefix.len()).is_some_and(|front| front.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    !FORBIDDEN.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden.as_bytes()))
        && !FORBIDDEN_FAMILIES.iter().any(|family| begins(family))
}

/// The `Trailer` field of a message that goes on: of what `headers` announce, what `passes`.
pub fn announced(headers: &HeaderMap, passes: impl Fn(&str) -> bool) -> Option<HeaderValue> {
    if !headers.contains_key(header::TRAILER) {
        return None;
    }
    let names: Vec<_> = headers
        .get_all(header::TRAILER)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| may_trail(name.as_str().as_bytes()) && passes(name.as_str()))
        .collect();
    let names: Vec<_> = names.iter().map(HeaderName::as_str).collect();
    HeaderValue::try_from(names.join(", ")).ok().filter(|value| !value.is_empty())
}

const FORBIDDEN_FAMILIES: &[&str] = &["content-", "if-", "proxy-", "x-forwarded-"];

const FORBIDDEN: &[&str] = &[
    "age",
    "authorization",
    "cache-control",
    "connection",
    "cookie",
    "date",
    "expect",
    "expires",
    "forwarded",
    "host",
    "keep-alive",
    "location",
    "max-forwards",
    "pragma",
    "range",
    "retry-after",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "x-api-key",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(announces: &[&'static str], expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        for value in announces {
            headers.append(header::TRAILER, HeaderValue::from_static(value));
        }
        let announced = announced(&headers, |name| name != "x-own");
        assert_eq!(announced.as_ref().map(|it| it.to_str().unwrap()), expected, "{announces:?}");
    }

    #[test]
    fn what_may_not_follow_a_body_is_not_announced() {
        check(&[], None);
        check(&["X-Sum"], Some("x-sum"));
        check(&["X-Sum, x-b", "Server-Timing"], Some("x-sum, x-b, server-timing"));
        check(&["x-own"], None);
        check(&["Authorization, Set-Cookie, Content-Length, x forwarded, ,"], None);
        check(&["Host, X-Sum"], Some("x-sum"));
    }
}
