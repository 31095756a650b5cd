//! How a request ends that was not served: RFC 9457.

use std::{borrow::Cow, time::Duration};

use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::message::{BoxError, Response};

/// What we call ourselves in `Via` and `Proxy-Status`.
pub const PSEUDONYM: &str = "amove-gateway";

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// What went wrong. Callers rely on it, so a kind is never renamed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// The request can be read in more than one way, or not at all.
    Malformed,
    /// We do not know who is calling.
    Unauthenticated,
    /// The policy forbids it.
    PolicyDenied,
    /// Logins are our business.
    AuthManaged,
    /// The path has no version, and such paths are switched off.
    LegacyRejected,
    /// A method that is not relayed.
    MethodRefused,
    /// The head did not come in time.
    RequestTimeout,
    /// The body is larger than we accept.
    TooLarge,
    /// The target is longer than we accept.
    TargetTooLong,
    /// The body is written in something that the gateway would have to read, and cannot.
    UnsupportedMedia,
    /// An expectation other than `100-continue`.
    ExpectationFailed,
    /// The head is larger than we accept.
    HeadTooLarge,
    /// The caller has used up its quota.
    QuotaExceeded,
    /// The API reported an error of its own; the status depends on its code.
    UpstreamError,
    /// The API rejected our login.
    UpstreamAuth,
    /// The API failed without saying why.
    UpstreamFailure,
    /// The API could not be reached, or broke the connection off.
    UpstreamUnreachable,
    /// The API's answer can be read in more than one way.
    UpstreamMalformed,
    /// The API did not answer in time.
    UpstreamTimeout,
    /// We have no session with the API at the moment.
    SessionUnavailable,
    /// Nothing can be written down, and nothing may happen that is not.
    AuditUnavailable,
    /// The API wants to be left alone.
    UpstreamPaused,
    /// The API has failed so often that it is left alone.
    CircuitOpen,
    /// We have too much to do.
    Overloaded,
    /// A new configuration cannot be used; told to operators only.
    ConfigurationRefused,
    /// The request has been here before.
    LoopDetected,
    /// We made a mistake.
    Internal,
}

impl Kind {
    /// The table of all problems: status, type, title, and the error of RFC 9209.
    #[rustfmt::skip] // a table reads in columns
    const fn row(self) -> (StatusCode, &'static str, &'static str, &'static str) {
        use StatusCode as Http;
        match self {
            Self::Malformed           => (Http::BAD_REQUEST,                     "malformed",            "Malformed request",            "http_request_error"),
            Self::Unauthenticated     => (Http::UNAUTHORIZED,                    "unauthenticated",      "Caller not recognised",        "http_request_denied"),
            Self::PolicyDenied        => (Http::FORBIDDEN,                       "policy-denied",        "Not allowed",                  "http_request_denied"),
            Self::AuthManaged         => (Http::FORBIDDEN,                       "auth-managed",         "The gateway holds the session", "http_request_denied"),
            Self::LegacyRejected      => (Http::GONE,                            "legacy-rejected",      "Path without a version",       "http_request_denied"),
            Self::MethodRefused       => (Http::NOT_IMPLEMENTED,                 "method-refused",       "Method not relayed",           "http_request_denied"),
            Self::RequestTimeout      => (Http::REQUEST_TIMEOUT,                 "request-timeout",      "Request too slow",             "http_request_error"),
            Self::TooLarge            => (Http::PAYLOAD_TOO_LARGE,               "too-large",            "Request too large",            "http_request_denied"),
            Self::TargetTooLong       => (Http::URI_TOO_LONG,                    "target-too-long",      "Request target too long",      "http_request_denied"),
            Self::UnsupportedMedia    => (Http::UNSUPPORTED_MEDIA_TYPE,          "unsupported-media",    "Body cannot be read",          "http_request_denied"),
            Self::ExpectationFailed   => (Http::EXPECTATION_FAILED,              "expectation-failed",   "Expectation not supported",    "http_request_denied"),
            Self::HeadTooLarge        => (Http::REQUEST_HEADER_FIELDS_TOO_LARGE, "head-too-large",       "Request head too large",       "http_request_denied"),
            Self::QuotaExceeded       => (Http::TOO_MANY_REQUESTS,               "quota-exceeded",       "Quota used up",                "http_request_denied"),
            Self::UpstreamError       => (Http::BAD_REQUEST,                     "upstream-error",       "Amove reported an error",      ""),
            Self::UpstreamAuth        => (Http::BAD_GATEWAY,                     "upstream-auth",        "Amove refused our login",      "proxy_configuration_error"),
            Self::UpstreamFailure     => (Http::BAD_GATEWAY,                     "upstream-failure",     "Amove failed",                 ""),
            Self::UpstreamUnreachable => (Http::BAD_GATEWAY,                     "upstream-unreachable", "Amove unreachable",            "destination_unavailable"),
            Self::UpstreamMalformed   => (Http::BAD_GATEWAY,                     "upstream-malformed",   "Amove's answer is malformed",  "http_protocol_error"),
            Self::UpstreamTimeout     => (Http::GATEWAY_TIMEOUT,                 "upstream-timeout",     "Amove did not answer in time", "http_response_timeout"),
            Self::SessionUnavailable  => (Http::SERVICE_UNAVAILABLE,             "session-unavailable",  "No session with Amove",        "destination_unavailable"),
            Self::AuditUnavailable    => (Http::SERVICE_UNAVAILABLE,             "audit-unavailable",    "No audit log",                 "proxy_internal_error"),
            Self::UpstreamPaused      => (Http::SERVICE_UNAVAILABLE,             "upstream-paused",      "Amove asked for a pause",      "destination_unavailable"),
            Self::CircuitOpen         => (Http::SERVICE_UNAVAILABLE,             "circuit-open",         "Amove is failing",             "destination_unavailable"),
            Self::Overloaded          => (Http::SERVICE_UNAVAILABLE,             "overloaded",           "Too much to do",               "connection_limit_reached"),
            Self::ConfigurationRefused => (Http::UNPROCESSABLE_ENTITY,           "configuration-refused", "Configuration refused",      "proxy_configuration_error"),
            Self::LoopDetected        => (Http::LOOP_DETECTED,                   "loop-detected",        "Request goes in circles",      "proxy_loop_detected"),
            Self::Internal            => (Http::INTERNAL_SERVER_ERROR,           "internal",             "Gateway error",                "proxy_internal_error"),
        }
    }

    /// The last part of the problem's `type`.
    pub const fn name(self) -> &'static str {
        self.row().1
    }
}

/// Who is to blame for a problem.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Blame {
    /// The request may not pass.
    Denied,
    /// Nobody knows whose request it is.
    Stranger,
    /// The quota is used up.
    Quota,
    /// The API answered with an error.
    Api,
    /// It could not be served: the way to the API, our session or we ourselves failed.
    Service,
}

impl Kind {
    /// Who is to blame.
    pub const fn blame(self) -> Blame {
        match self {
            Self::Malformed
            | Self::PolicyDenied
            | Self::AuthManaged
            | Self::LegacyRejected
            | Self::MethodRefused
            | Self::RequestTimeout
            | Self::TooLarge
            | Self::TargetTooLong
            | Self::UnsupportedMedia
            | Self::ExpectationFailed
            | Self::HeadTooLarge
            | Self::LoopDetected => Blame::Denied,
            Self::Unauthenticated => Blame::Stranger,
            Self::QuotaExceeded => Blame::Quota,
            Self::UpstreamError | Self::UpstreamFailure => Blame::Api,
            Self::UpstreamAuth
            | Self::UpstreamUnreachable
            | Self::UpstreamMalformed
            | Self::UpstreamTimeout
            | Self::SessionUnavailable
            | Self::AuditUnavailable
            | Self::UpstreamPaused
            | Self::CircuitOpen
            | Self::Overloaded
            | Self::ConfigurationRefused
            | Self::Internal => Blame::Service,
        }
    }
}

/// A request that could not be served: what the caller reads, and what the log reads.
#[derive(Debug)]
pub struct Problem(Box<Content>);

#[derive(Debug)]
struct Content {
    kind: Kind,
    status: StatusCode,
    detail: Cow<'static, str>,
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
    received: Option<StatusCode>,
    /// The error of RFC 9209, where more is known than the kind says.
    error: Option<&'static str>,
    retry_after: Option<Duration>,
    source: Option<BoxError>,
}

impl Problem {
    /// A problem, with a sentence for the caller.
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Content {
            kind,
            status: kind.row().0,
            detail: detail.into(),
            members: Map::new(),
            headers: Vec::new(),
            received: None,
            error: None,
            retry_after: None,
            source: None,
        }))
    }

    /// The status, where the kind leaves it open.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    /// Tells the caller one thing more.
    #[must_use]
    pub fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.members.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a header field to the response.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.add_header(name, value);
        self
    }

    /// Adds a header field to the response of a problem that somebody else has found.
    pub fn add_header(&mut self, name: HeaderName, value: HeaderValue) {
        self.0.headers.push((name, value));
    }

    /// What the API answered, where it answered at all (RFC 9209 `received-status`).
    #[must_use]
    pub fn received(mut self, status: StatusCode) -> Self {
        self.0.received = Some(status);
        self
    }

    /// The error of RFC 9209 section 2.3, where more is known than the kind says.
    #[must_use]
    pub fn proxy_error(mut self, error: &'static str) -> Self {
        self.0.error = Some(error);
        self
    }

    /// Tells the caller when to come back.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.0.retry_after = Some(pause);
        self
    }

    /// Keeps the cause, for the log.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The status that the caller will see.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// Its cause, if it is of that type.
    pub fn cause<T: std::error::Error + 'static>(&self) -> Option<&T> {
        self.0.source.as_deref().and_then(|source| source.downcast_ref())
    }

    /// The chain of causes, outermost first, for the log.
    pub fn causes(&self) -> String {
        let Some(source) = &self.0.source else { return String::new() };
        let mut text = source.to_string();
        let mut cause = source.source();
        while let Some(error) = cause {
            let line = error.to_string();
            // Some libraries repeat their cause in their own text.
            if !text.ends_with(&line) {
                text.push_str(": ");
                text.push_str(&line);
            }
            cause = error.source();
        }
        text
    }

    /// The response that tells the caller, under the id of its request.
    pub fn into_response(self, request_id: &HeaderValue) -> Response {
        let content = *self.0;
        let (_, name, title, error) = content.kind.row();
        let body = Document {
            kind: format!("urn:amove-gateway:problem:{name}"),
            title,
            status: content.status.as_u16(),
            detail: &content.detail,
            members: &content.members,
            request_id: request_id.to_str().unwrap_or_default(),
        };
        // Strings, numbers and maps with string keys can always be written as JSON.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = Response::new(bytes::Bytes::from(body).into());
        *response.status_mut() = content.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let origin = match content.received {
            Some(status) => format!("{PSEUDONYM}; received-status={}", status.as_u16()),
            None => format!("{PSEUDONYM}; error={}", content.error.unwrap_or(error)),
        };
        if let Ok(origin) = HeaderValue::try_from(origin) {
            headers.insert(PROXY_STATUS, origin);
        }
        if let Some(pause) = content.retry_after {
            let seconds = pause.as_secs() + u64::from(pause.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, seconds.max(1).into());
        }
        for (name, value) in content.headers {
            headers.append(name, value);
        }
        response
    }
}

/// The JSON of RFC 9457 section 3.1, and our extension members.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(flatten)]
    members: &'a Map<String, Value>,
    request_id: &'a str,
}

/// The member of a problem that names the time that was over.
pub const TIMEOUT: &str = "timeout";

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    const ALL: [Kind; 27] = [
        Kind::Malformed,
        Kind::Unauthenticated,
        Kind::PolicyDenied,
        Kind::AuthManaged,
        Kind::LegacyRejected,
        Kind::MethodRefused,
        Kind::RequestTimeout,
        Kind::TooLarge,
        Kind::TargetTooLong,
        Kind::UnsupportedMedia,
        Kind::ExpectationFailed,
        Kind::HeadTooLarge,
        Kind::QuotaExceeded,
        Kind::UpstreamError,
        Kind::UpstreamAuth,
        Kind::UpstreamFailure,
        Kind::UpstreamUnreachable,
        Kind::UpstreamMalformed,
        Kind::UpstreamTimeout,
        Kind::SessionUnavailable,
        Kind::AuditUnavailable,
        Kind::UpstreamPaused,
        Kind::CircuitOpen,
        Kind::Overloaded,
        Kind::ConfigurationRefused,
        Kind::LoopDetected,
        Kind::Internal,
    ];

    #[test]
    fn the_readme_lists_every_problem_with_its_status() {
        let readme = include_str!("../README.md");
        let listed = readme.split("## Problems").nth(1).unwrap().split("\n## ").next().unwrap();
        let mut listed: Vec<_> = listed.lines().filter(|line| line.starts_with("| `")).collect();

        for kind in ALL {
            let status = match kind {
                Kind::UpstreamError => "by its code".to_owned(),
                _ => kind.row().0.as_u16().to_string(),
            };
            let row = format!("| `{}` | {status} |", kind.name());
            let count = listed.len();
            listed.retain(|line| !line.starts_with(&row));
            assert_eq!(listed.len(), count - 1, "{row}");
        }
        assert!(listed.is_empty(), "{listed:?}");
    }

    #[tokio::test]
    async fn a_problem_says_everything_that_the_caller_may_know_and_nothing_else() {
        let problem = Problem::new(Kind::UpstreamUnreachable, "Amove cannot be reached.")
            .retry_after(Duration::from_millis(1500))
            .caused_by("secret detail");

        assert_eq!(problem.causes(), "secret detail");
        let response = problem.into_response(&HeaderValue::from_static("id-1"));

        assert_eq!(response.status(), 502);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(
            response.headers()["proxy-status"],
            "amove-gateway; error=destination_unavailable"
        );
        let body = response.into_inner().into_body().collect().await.unwrap().to_bytes();
        assert_eq!(
            body,
            r#"{"type":"urn:amove-gateway:problem:upstream-unreachable","title":"Amove unreachable","status":502,"detail":"Amove cannot be reached.","request_id":"id-1"}"#
        );
    }
}
