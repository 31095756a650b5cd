//! Who may ask for more than health: holders of the token, and no web page but our own.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts, uri::Authority};
use hyper::body::Incoming;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use tokio::time::timeout;

use super::{PATIENCE, reply::Refusal};
use crate::{
    config::secret::Secret,
    message::{Body, Held},
};

/// The largest body of an order. None is needed.
const BODY: usize = 4 * 1024;

/// What a web page can make a browser send without asking us first.
const FORMS: [&str; 2] = ["application/x-www-form-urlencoded", "text/plain"];

/// Guards one listener.
#[derive(Debug)]
pub(super) struct Guard {
    /// What operators must present; read again each time, since its file may change.
    pub(super) token: Option<Secret>,
    /// Whether only this machine reaches the listener. Any web page that is open on it does, too.
    pub(super) is_loopback: bool,
}

impl Guard {
    /// Lets a request pass that comes from an operator.
    pub(super) fn admit(&self, head: &Parts) -> Result<(), Refusal> {
        if self.is_loopback {
            meant_for_us(head)?;
        }
        let Some(token) = &self.token else { return Ok(()) };
        let token = token.read().map_err(|error| {
            tracing::error!(error = error.to_string(), "the admin token cannot be read");
            let sentence = "The gateway cannot read its `server.admin_token_file`; see its log.";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, sentence)
        })?;
        if shows(&head.headers, &token) { Ok(()) } else { Err(stranger()) }
    }
}

/// Refuses names that somebody else's DNS has made point to this machine.
fn meant_for_us(head: &Parts) -> Result<(), Refusal> {
    let named = head.headers.get_all(header::HOST).iter().map(HeaderValue::as_bytes);
    let named = named.chain(head.uri.authority().map(|authority| authority.as_str().as_bytes()));
    for host in named.filter(|host| !host.is_empty()) {
        if !Authority::try_from(host).is_ok_and(|host| is_this_machine(host.host())) {
            let sentence = "This listener is called by an IP address or as `localhost` only.";
            return Err(Refusal::new(StatusCode::FORBIDDEN, sentence));
        }
    }
    Ok(())
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

fn shows(headers: &HeaderMap, token: &SecretString) -> bool {
    let presented = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let presented = presented.and_then(|value| value.strip_prefix(b"Bearer "));
    presented.is_some_and(|it| it.ct_eq(token.expose_secret().as_bytes()).into())
}

fn stranger() -> Refusal {
    let sentence = "Send the token of `server.admin_token_file` as bearer.";
    Refusal::new(StatusCode::UNAUTHORIZED, sentence)
        .header(header::WWW_AUTHENTICATE, r#"Bearer realm="amove-gateway admin""#)
}

/// Lets an order pass that no foreign web page can have sent.
pub(super) fn admit_order(head: &Parts) -> Result<(), Refusal> {
    let site = head.headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let is_foreign = site.is_some_and(|site| !matches!(site, b"same-origin" | b"none"));
    let host = head.headers.get(header::HOST).and_then(authority);
    let is_ours = |origin| host.is_some() && origin_authority(origin) == host;
    if is_foreign || !head.headers.get_all(header::ORIGIN).iter().all(is_ours) {
        let sentence = "An order is not taken from a web page of another origin.";
        return Err(Refusal::new(StatusCode::FORBIDDEN, sentence));
    }
    if head.headers.get_all(header::CONTENT_TYPE).iter().any(is_form) {
        let sentence = "An order is not taken from a form: send no body, or JSON.";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence));
    }
    Ok(())
}

fn authority(value: &HeaderValue) -> Option<Authority> {
    Authority::try_from(value.as_bytes()).ok()
}

/// Where a page comes from; `None` if it does not say, as with `null`.
fn origin_authority(origin: &HeaderValue) -> Option<Authority> {
    let (_, authority) = origin.to_str().ok()?.split_once("://")?;
    authority.parse().ok()
}

fn is_form(kind: &HeaderValue) -> bool {
    // What cannot be read is none of the forms that a browser sends.
    let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    let kind = kind.trim().to_ascii_lowercase();
    FORMS.contains(&&*kind) || kind.starts_with("multipart/")
}

/// Takes the body in, as far as one is acceptable at all.
pub(super) async fn discard(body: Incoming) -> Result<(), Refusal> {
    let broken = || Refusal::new(StatusCode::BAD_REQUEST, "The body broke off.");
    match timeout(PATIENCE, Body::from(body).hold(BODY)).await {
        Ok(Ok(Held::Whole(..))) => Ok(()),
        Ok(Ok(Held::TooLong(_))) => {
            let sentence = "An order needs no body, and has one of at most 4 KiB.";
            Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, sentence))
        }
        Ok(Err(_)) => Err(broken()),
        Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "The body is too slow.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::post("/-/token/refresh");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn status(outcome: Result<(), Refusal>) -> u16 {
        outcome
            .err()
            .map_or(200, |refusal| crate::message::Response::from(refusal).status().as_u16())
    }

    #[test]
    fn only_addresses_and_localhost_mean_this_machine() {
        for (host, expected) in [
            ("127.0.0.1:9090", 200),
            ("[::1]:9090", 200),
            ("192.0.2.1", 200),
            ("LocalHost:1", 200),
            ("", 200),
            ("evil.test:9090", 403),
            ("localhost.evil.test", 403),
            ("127.0.0.1.evil.test", 403),
            ("not a host", 403),
        ] {
            assert_eq!(status(meant_for_us(&head(&[("host", host)]))), expected, "{host}");
        }
        let two = head(&[("host", "localhost"), ("host", "evil.test")]);
        assert_eq!(status(meant_for_us(&two)), 403);
        assert_eq!(status(meant_for_us(&head(&[]))), 200);
    }

    #[test]
    fn orders_come_from_tools_and_from_our_own_pages() {
        for (fields, expected) in [
            (&[][..], 200),
            (&[("origin", "http://gw:9090")], 200),
            (&[("origin", "https://GW:9090")], 200),
            (&[("origin", "http://gw:9091")], 403),
            (&[("origin", "http://evil.test")], 403),
            (&[("origin", "null")], 403),
            (&[("origin", "http://gw:9090"), ("origin", "http://evil.test")], 403),
            (&[("sec-fetch-site", "same-origin")], 200),
            (&[("sec-fetch-site", "none")], 200),
            (&[("sec-fetch-site", "same-site")], 403),
            (&[("sec-fetch-site", "cross-site")], 403),
            (&[("content-type", "application/json")], 200),
            (&[("content-type", "text/plain;charset=UTF-8")], 415),
            (&[("content-type", "Application/X-WWW-Form-Urlencoded")], 415),
            (&[("content-type", "multipart/form-data; boundary=x")], 415),
        ] {
            let mut all = vec![("host", "gw:9090")];
            all.extend(fields);
            assert_eq!(status(admit_order(&head(&all))), expected, "{fields:?}");
        }
        assert_eq!(status(admit_order(&head(&[("origin", "http://gw")]))), 403, "no host");
    }
}
