//! What operators are answered with: text, JSON, or why not.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::message::Response;

/// Why a request is not carried out: a sentence for whoever sent it.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    sentence: Cow<'static, str>,
    header: Option<(HeaderName, &'static str)>,
}

impl Refusal {
    /// Refuses with this status, and says why.
    pub(super) fn new(status: StatusCode, sentence: impl Into<Cow<'static, str>>) -> Self {
        Self { status, sentence: sentence.into(), header: None }
    }

    /// The request would do with another method.
    pub(super) fn method(allowed: &'static str) -> Self {
        let sentence = format!("This answers {allowed} only.");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, sentence).header(header::ALLOW, allowed)
    }

    /// Adds a header field.
    #[must_use]
    pub(super) fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        let mut response = text(refusal.status, &refusal.sentence);
        if let Some((name, value)) = refusal.header {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// One line for people.
pub(super) fn text(status: StatusCode, line: &str) -> Response {
    new(status, "text/plain; charset=utf-8", format!("{line}\n"))
}

/// JSON that people can read too.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    // Structs with named fields and maps with string keys can always be written as JSON.
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    new(status, "application/json", text + "\n")
}

/// A body of this kind.
pub(super) fn new(status: StatusCode, kind: &'static str, body: String) -> Response {
    let mut response = Response::new(Bytes::from(body).into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
