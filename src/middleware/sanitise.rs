//! Takes away what a caller must not tell the API.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method, Version, header};
use http_body::Body as _;

use super::{Answer, Middleware, Next};
use crate::{
    exchange::Exchange,
    message::{Request, Response, announced, may_trail},
};

/// Stands above every layer that adds a field, so that no caller can have ours removed by naming
/// it in `Connection`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sanitise;

impl Middleware for Sanitise {
    async fn handle<N: Next>(
        &self,
        exchange: &Arc<Exchange>,
        mut request: Request,
        next: &N,
    ) -> Answer {
        if asks_for_websocket(&request) {
            exchange.set_asks_for_websocket();
        }
        if request.headers().contains_key(header::EXPECT) && request.version() == Version::HTTP_11 {
            exchange.set_waits_to_send();
        }
        remove_named_by_connection(request.headers_mut());
        // Only behind a body of no certain size there may be something.
        let has_end = request.body().size_hint().exact().is_none();
        let trailer = if has_end { announced(request.headers(), may_go_up) } else { None };
        remove(request.headers_mut(), |name| !may_go_up(name));
        if has_end {
            request = request.map_body(|body| body.trailed(may_trail_up));
        }
        if let Some(trailer) = trailer {
            request.headers_mut().insert(header::TRAILER, trailer);
        }
        next.run(exchange, request).await
    }
}

/// Takes away from an answer what was meant for us (RFC 9110 section 7.6.1).
pub(super) fn sanitise_answer(mut response: Response) -> Response {
    let headers = response.headers_mut();
    remove_named_by_connection(headers);
    let trailer = announced(headers, may_come_down);
    remove(headers, |name| !may_come_down(name));
    if let Some(trailer) = trailer {
        headers.insert(header::TRAILER, trailer);
    }
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    response.map_body(|body| body.trailed(may_trail_down))
}

fn may_go_up(name: &str) -> bool {
    !is_hop_by_hop(name) && !belongs_to_the_caller(name) && !overrides_the_request(name)
}

fn may_trail_up(name: &str) -> bool {
    may_go_up(name) && may_trail(name.as_bytes())
}

/// A cookie would be the service identity's, and callers' cookies do not go up again.
fn may_come_down(name: &str) -> bool {
    !is_hop_by_hop(name) && !matches!(name, "set-cookie" | "alt-svc" | "x-request-id")
}

fn may_trail_down(name: &str) -> bool {
    may_come_down(name) && may_trail(name.as_bytes())
}

/// Whether it asks to go on in WebSocket, and in nothing else (RFC 6455, section 4.1).
fn asks_for_websocket(request: &Request) -> bool {
    let headers = request.headers();
    // Nearly all requests end here.
    if !headers.contains_key(header::CONNECTION) || request.version() != Version::HTTP_11 {
        return false;
    }
    let mut protocols = headers.get_all(header::UPGRADE).iter();
    let is_websocket =
        protocols.next().is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"websocket"));
    is_websocket
        && protocols.next().is_none()
        && options(headers).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
        && request.method() == Method::GET
        && request.body().is_end_stream()
}

/// What `Connection` says, one by one.
fn options(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
}

fn remove_named_by_connection(headers: &mut HeaderMap) {
    if !headers.contains_key(header::CONNECTION) {
        return;
    }
    let named: Vec<HeaderName> = options(headers)
        // The usual options are no fields, or fields that go anyway.
        .filter(|name| !name.eq_ignore_ascii_case(b"keep-alive"))
        .filter(|name| !name.eq_ignore_ascii_case(b"close"))
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
}

fn remove(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    // Most requests have none or one of these, so the list seldom allocates twice.
    let unwanted: Vec<HeaderName> =
        headers.keys().filter(|name| unwanted(name.as_str())).cloned().collect();
    for name in unwanted {
        headers.remove(name);
    }
}

/// Meant for the next hop only, or framing: messages are framed anew.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
            | "expect"
    ) || name.starts_with("proxy-")
}

/// Credentials of the caller, and what it or a proxy says about where it is.
fn belongs_to_the_caller(name: &str) -> bool {
    matches!(
        name,
        "authorization"
            | "cookie"
            | "cookie2"
            | "x-api-key"
            | "host"
            | "content-length"
            | "forwarded"
            | "via"
            | "x-real-ip"
            | "x-client-ip"
            | "true-client-ip"
            | "client-cert"
            | "client-cert-chain"
            | "traceparent"
            | "tracestate"
            | "baggage"
    ) || name.starts_with("x-forwarded-")
}

/// What some servers take for another method or path than the one that was judged.
fn overrides_the_request(name: &str) -> bool {
    matches!(
        name,
        "x-http-method"
            | "x-http-method-override"
            | "x-method-override"
            | "x-original-url"
            | "x-original-uri"
            | "x-original-host"
            | "x-rewrite-url"
            | "x-host"
    )
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode};

    use super::*;
    use crate::{
        message::{Body, Response},
        middleware::testing::{answering, exchange, request},
    };

    /// The names that are left of `given`.
    async fn left_of(given: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut request = request();
        for (name, value) in given {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        let echo = answering(|request| {
            let mut response = Response::new(Body::empty());
            *response.headers_mut() = request.headers().clone();
            Ok(response)
        });

        let response = Sanitise.handle(&exchange(), request, &echo).await.unwrap();

        assert_eq!(response.status(), StatusCode::OK);
        response.headers().keys().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn what_describes_the_content_passes_and_what_describes_the_caller_does_not() {
        let given = [
            ("accept", "*/*"),
            ("content-type", "application/json"),
            ("authorization", "Bearer x"),
            ("cookie", "a=b"),
            ("x-api-key", "k"),
            ("forwarded", "for=1"),
            ("x-forwarded-for", "1"),
            ("x-forwarded-host", "h"),
            ("proxy-authorization", "x"),
            ("te", "trailers"),
            ("expect", "100-continue"),
            ("content-length", "0"),
            ("x-http-method-override", "DELETE"),
            ("x-original-url", "/admin"),
            ("x-own", "kept"),
        ];

        assert_eq!(left_of(&given).await, ["accept", "content-type", "x-own"]);
    }

    #[track_caller]
    fn check_asks(edit: impl FnOnce(&mut Request), expected: bool) {
        let mut request = request();
        for (name, value) in [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")] {
            request.headers_mut().append(name, HeaderValue::from_static(value));
        }
        edit(&mut request);

        assert_eq!(asks_for_websocket(&request), expected, "{request:?}");
    }

    #[test]
    fn a_websocket_is_asked_for_in_one_way_only() {
        let set = |name: &'static str, value: &'static str| {
            move |request: &mut Request| {
                request.headers_mut().insert(name, HeaderValue::from_static(value));
            }
        };
        check_asks(|_| (), true);
        check_asks(set("upgrade", "h2c"), false);
        check_asks(set("upgrade", "websocket, h2c"), false);
        check_asks(set("connection", "keep-alive"), false);
        check_asks(|it| drop(it.headers_mut().remove("connection")), false);
        let with_another = |request: &mut Request| {
            request.headers_mut().append("upgrade", HeaderValue::from_static("h2c"));
        };
        check_asks(with_another, false);
        check_asks(|it| *it.method_mut() = Method::POST, false);
        check_asks(|it| *it.version_mut() = Version::HTTP_10, false);
        check_asks(|it| *it.version_mut() = Version::HTTP_2, false);
        check_asks(|it| *it.body_mut() = bytes::Bytes::from("x").into(), false);
    }

    #[tokio::test]
    async fn what_connection_names_is_meant_for_us_only() {
        let given = [
            ("connection", "close, X-Secret , ,bad name"),
            ("connection", "x-other"),
            ("x-secret", "1"),
            ("x-other", "2"),
            ("x-own", "3"),
        ];

        assert_eq!(left_of(&given).await, ["x-own"]);
    }
}
