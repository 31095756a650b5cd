//! Finds the route; moves legacy paths.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Uri, header, uri::PathAndQuery};
use jiff::{civil::Date, tz::TimeZone};

use super::{Answer, Middleware, Next};
use crate::{
    amove::{
        catalogue::{Catalogue, Lookup},
        paths::{self, Form},
    },
    config::{self, LegacyMode},
    exchange::{Destination, Exchange},
    message::Request,
    problem::{Kind, Problem},
};

const DEPRECATION: HeaderName = HeaderName::from_static("deprecation");
const SUNSET: HeaderName = HeaderName::from_static("sunset");

/// Decides on a decoded, case-folded copy of the path; what is forwarded stays as it came.
#[derive(Debug)]
pub struct FindRoute {
    legacy: LegacyMode,
    /// `Deprecation` (RFC 9745) and `Sunset` (RFC 8594), ready to use.
    deprecation: Option<HeaderValue>,
    sunset: Option<HeaderValue>,
}

impl FindRoute {
    /// Moves legacy paths as `legacy` says.
    pub fn new(legacy: &config::Legacy) -> Self {
        let seconds =
            |date: Date| date.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp().as_second());
        let sunset = legacy.sunset.and_then(seconds).and_then(|at| u64::try_from(at).ok());
        Self {
            legacy: legacy.mode,
            deprecation: seconds(legacy.deprecated_since)
                .and_then(|at| HeaderValue::try_from(format!("@{at}")).ok()),
            sunset: sunset.and_then(|at| {
                let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(at);
                HeaderValue::try_from(httpdate::fmt_http_date(at)).ok()
            }),
        }
    }

    /// Tells the caller of a legacy path that `successor` is the path to use.
    fn mark(&self, successor: &str, mut add: impl FnMut(HeaderName, HeaderValue)) {
        if let Some(since) = &self.deprecation {
            add(DEPRECATION, since.clone());
        }
        if let Ok(link) = HeaderValue::try_from(format!("<{successor}>; rel=\"successor-version\""))
        {
            add(header::LINK, link);
        }
        if let Some(sunset) = &self.sunset {
            add(SUNSET, sunset.clone());
        }
    }
}

impl Middleware for FindRoute {
    async fn handle<N: Next>(
        &self,
        exchange: &Arc<Exchange>,
        mut request: Request,
        next: &N,
    ) -> Answer {
        let place = paths::read(request.uri().path()).map_err(|ambiguity| {
            Problem::new(Kind::Malformed, format!("The path is ambiguous: {ambiguity}."))
        })?;
        let route = match Catalogue::get().find(request.method(), &place.key) {
            Lookup::Found(route) => Some(route),
            Lookup::OtherMethod(_) | Lookup::Unknown => None,
        };
        let legacy = match place.form {
            Form::AuthManaged => return Err(auth_managed()),
            Form::Legacy if self.legacy == LegacyMode::Reject => {
                return Err(legacy_rejected(&paths::successor(request.uri().path())));
            }
            Form::Legacy => true,
            Form::Versioned | Form::Hub | Form::Other => false,
        };
        exchange.set_destination(Destination { route, legacy });
        if !legacy {
            return next.run(exchange, request).await;
        }

        let successor = paths::successor(request.uri().path());
        set_path(&mut request, &successor)?;
        let mut answer = next.run(exchange, request).await;
        match &mut answer {
            Ok(response) => self.mark(&successor, |name, value| {
                response.headers_mut().append(name, value);
            }),
            Err(problem) => self.mark(&successor, |name, value| problem.add_header(name, value)),
        }
        answer
    }
}

/// Replaces the path and leaves the query untouched.
fn set_path(request: &mut Request, path: &str) -> Result<(), Problem> {
    let target = match request.uri().query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let target = PathAndQuery::try_from(target).map_err(|error| {
        Problem::new(Kind::Internal, "The gateway has made a mistake.").caused_by(error)
    })?;
    *request.uri_mut() = Uri::from(target);
    Ok(())
}

fn auth_managed() -> Problem {
    Problem::new(
        Kind::AuthManaged,
        "The gateway logs in and out for you: call the API as if it needed no login.",
    )
}

fn legacy_rejected(successor: &str) -> Problem {
    Problem::new(
        Kind::LegacyRejected,
        "Paths without a version are switched off; use the successor.",
    )
    .member("successor", successor)
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};

    use super::*;
    use crate::{
        message::{Body, Response},
        middleware::testing::{answering, exchange, request_for},
    };

    fn find_route(legacy: LegacyMode) -> FindRoute {
        let legacy = config::Legacy {
            mode: legacy,
            deprecated_since: jiff::civil::date(2026, 1, 1),
            sunset: Some(jiff::civil::date(2027, 1, 1)),
        };
        FindRoute::new(&legacy)
    }

    /// What goes up for `target`, or the problem.
    async fn ask(layer: &FindRoute, method: Method, target: &str) -> Result<Response, Kind> {
        let echo = answering(|request| {
            let mut response = Response::new(Body::empty());
            let target = HeaderValue::try_from(request.uri().to_string()).unwrap();
            response.headers_mut().insert("target", target);
            Ok(response)
        });
        let answer = layer.handle(&exchange(), request_for(method, target), &echo).await;
        answer.map_err(|problem| problem.kind())
    }

    #[tokio::test]
    async fn a_versioned_path_goes_up_byte_for_byte() {
        let layer = find_route(LegacyMode::Rewrite);
        let target = "/API/v1/%75ser/UserInfo/?a=%2F..&b=//";

        let response = ask(&layer, Method::GET, target).await.unwrap();

        assert_eq!(response.headers()["target"], target);
        assert!(!response.headers().contains_key("deprecation"));
    }

    #[tokio::test]
    async fn a_legacy_path_is_moved_and_says_so() {
        let layer = find_route(LegacyMode::Rewrite);

        let response = ask(&layer, Method::GET, "/api/User/userinfo?x=%20").await.unwrap();

        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["target"], "/api/v1/User/userinfo?x=%20");
        assert_eq!(response.headers()["deprecation"], "@1767225600");
        assert_eq!(response.headers()["sunset"], "Fri, 01 Jan 2027 00:00:00 GMT");
        assert_eq!(
            response.headers()["link"],
            "</api/v1/User/userinfo>; rel=\"successor-version\""
        );
    }

    #[tokio::test]
    async fn what_must_not_pass_does_not() {
        let strict = find_route(LegacyMode::Reject);
        let get = |target| ask(&strict, Method::GET, target);

        assert_eq!(get("/api/user/userinfo").await.unwrap_err(), Kind::LegacyRejected);
        assert_eq!(get("/api/Authentication/login").await.unwrap_err(), Kind::AuthManaged);
        assert_eq!(get("/api/v1/user/%2e%2e/x").await.unwrap_err(), Kind::Malformed);
    }
}
