//! Refuses what can be read in more than one way, what is too large, and what goes in circles.

use std::sync::Arc;

use http::{HeaderMap, Method, Uri, Version, header};

use super::{Answer, Middleware, Next};
use crate::{
    config,
    exchange::Exchange,
    message::Request,
    problem::{Kind, PSEUDONYM, Problem},
};

/// The first look at a request, before anybody asks who sent it.
#[derive(Debug)]
pub struct Admit {
    max_body_bytes: Option<u64>,
}

impl Admit {
    /// Admits what fits `config`.
    pub fn new(config: &config::Server) -> Self {
        Self { max_body_bytes: config.max_body_bytes }
    }
}

impl Middleware for Admit {
    async fn handle<N: Next>(
        &self,
        exchange: &Arc<Exchange>,
        request: Request,
        next: &N,
    ) -> Answer {
        if let Some(refusal) = exchange.take_refusal() {
            return Err(refusal);
        }
        check_head(&request)?;
        let Some(limit) = self.max_body_bytes else { return next.run(exchange, request).await };
        if http_body::Body::size_hint(request.body()).lower() > limit {
            return Err(too_large(limit));
        }
        next.run(exchange, request.map_body(|body| body.limited(limit))).await
    }
}

/// The body has more bytes than `limit`.
pub(super) fn too_large(limit: u64) -> Problem {
    Problem::new(Kind::TooLarge, "The request's body is larger than the gateway accepts.")
        .member("limit_bytes", limit)
}

/// What the listener cannot see, or cannot see in HTTP/2.
fn check_head(request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    // Some servers do not care how a method is spelt.
    let is = |method: Method| request.method().as_str().eq_ignore_ascii_case(method.as_str());
    if is(Method::CONNECT) || is(Method::TRACE) {
        return Err(Problem::new(
            Kind::MethodRefused,
            "The gateway relays neither CONNECT nor TRACE.",
        ));
    }
    // `-` and `_` are one character to a server that puts fields into its environment.
    if headers.keys().any(|name| name.as_str().contains('_')) {
        return Err(malformed("A header field name contains an underscore."));
    }
    if headers
        .get_all(header::EXPECT)
        .iter()
        .any(|it| !it.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        return Err(Problem::new(
            Kind::ExpectationFailed,
            "The only expectation that can be met is `100-continue`.",
        ));
    }
    if request.version() == Version::HTTP_2 {
        check_uri(request.uri())?;
        if disagrees_with_authority(request) {
            return Err(malformed("The request names two different hosts."));
        }
    }
    if has_been_here(headers) {
        return Err(Problem::new(
            Kind::LoopDetected,
            "The request has come through this gateway before: an upstream URL points back to it.",
        ));
    }
    Ok(())
}

/// What the listener asks of a URL and of `Host` in HTTP/1.
fn check_uri(uri: &Uri) -> Result<(), Problem> {
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(malformed("The scheme of the request is neither http nor https."));
    }
    let is_plain = uri.authority().is_none_or(|authority| {
        let port = authority.port().map_or(0, |port| ":".len() + port.as_str().len());
        authority.as_str().len() == authority.host().len() + port
    });
    if is_plain {
        return Ok(());
    }
    Err(malformed("The authority of the request must be a host, and optionally a port."))
}

fn disagrees_with_authority(request: &Request) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let Some(authority) = request.uri().authority() else { return hosts.count() > 1 };
    hosts.any(|host| !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()))
}

fn has_been_here(headers: &HeaderMap) -> bool {
    let hops = headers.get_all(header::VIA).iter().filter_map(|via| via.to_str().ok());
    hops.flat_map(|via| via.split(',')).any(|hop| {
        hop.split_whitespace().nth(1).is_some_and(|by| by.eq_ignore_ascii_case(PSEUDONYM))
    })
}

fn malformed(detail: &'static str) -> Problem {
    Problem::new(Kind::Malformed, detail)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::middleware::testing::{api, exchange, request};

    async fn check(edit: impl FnOnce(&mut Request), expected: Result<StatusCode, Kind>) {
        let admit = Admit { max_body_bytes: Some(4) };
        let mut request = request();
        edit(&mut request);

        let answer = admit.handle(&exchange(), request, &api(StatusCode::OK)).await;

        assert_eq!(answer.map(|a| a.status()).map_err(|problem| problem.kind()), expected);
    }

    fn with(name: &'static str, value: &'static str) -> impl FnOnce(&mut Request) {
        move |request| {
            request.headers_mut().append(name, http::HeaderValue::from_static(value));
        }
    }

    #[tokio::test]
    async fn only_what_can_be_read_in_one_way_is_admitted() {
        check(|_| (), Ok(StatusCode::OK)).await;
        check(with("x_forwarded_for", "1"), Err(Kind::Malformed)).await;
        check(with("expect", "100-Continue"), Ok(StatusCode::OK)).await;
        check(with("expect", "the-unexpected"), Err(Kind::ExpectationFailed)).await;
        check(|r| *r.method_mut() = Method::TRACE, Err(Kind::MethodRefused)).await;
        let odd = Method::from_bytes(b"Trace").unwrap();
        check(|r| *r.method_mut() = odd, Err(Kind::MethodRefused)).await;
        let two = |r: &mut Request| {
            with("expect", "100-continue")(r);
            with("expect", "more")(r);
        };
        check(two, Err(Kind::ExpectationFailed)).await;
        check(|r| *r.body_mut() = bytes::Bytes::from("12345").into(), Err(Kind::TooLarge)).await;
    }

    #[tokio::test]
    async fn in_http2_the_authority_is_a_host_and_a_port() {
        for (uri, expected) in [
            ("http://a/", Ok(StatusCode::OK)),
            ("https://[::1]:80/", Ok(StatusCode::OK)),
            ("http://u@a/", Err(Kind::Malformed)),
            ("http://a:/", Err(Kind::Malformed)),
            ("http://a:b/", Err(Kind::Malformed)),
            ("ftp://a/", Err(Kind::Malformed)),
            ("/", Err(Kind::Malformed)),
        ] {
            let edit = |request: &mut Request| {
                *request.version_mut() = Version::HTTP_2;
                *request.uri_mut() = uri.parse().unwrap();
            };
            check(edit, expected).await;
        }
    }

    #[tokio::test]
    async fn a_request_that_has_been_here_is_a_loop() {
        check(with("via", "1.0 fred, 1.1 example.com"), Ok(StatusCode::OK)).await;
        check(with("via", "1.0 fred, 1.1 Amove-Gateway (x)"), Err(Kind::LoopDetected)).await;
    }
}
