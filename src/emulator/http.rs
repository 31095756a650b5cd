//! Requests that were read, and answers to be written.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use serde_json::{Value, json};

pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A request whose body was read.
pub(super) struct Call<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
}

impl Call<'_> {
    /// A parameter of the query, decoded as far as identifiers need it.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        self.query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            key.eq_ignore_ascii_case(name)
                .then(|| value.replace('+', " ").replace("%20", " ").replace("%40", "@"))
        })
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(self.body).unwrap_or_default()
    }

    pub(super) fn bearer(&self) -> Option<&str> {
        self.headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Bytes,
}

impl Reply {
    pub(super) fn empty(status: u16) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    pub(super) fn with(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
        self
    }

    pub(super) fn text(status: u16, text: impl Into<Bytes>) -> Self {
        let reply = Self::empty(status).with(header::CONTENT_TYPE, "text/plain; charset=utf-8");
        Self { body: text.into(), ..reply }
    }

    pub(super) fn json(value: &Value) -> Self {
        Self::json_with(200, value)
    }

    pub(super) fn json_with(status: u16, value: &Value) -> Self {
        let reply =
            Self::empty(status).with(header::CONTENT_TYPE, "application/json; charset=utf-8");
        Self { body: value.to_string().into(), ..reply }
    }

    /// 499, the way every application error is told (contract section 7.1).
    pub(super) fn code(code: &str, message: &str) -> Self {
        let body = json!({ "type": code, "status": 499, "errors": { code: [message] } });
        Self::json_with(499, &body).with(HeaderName::from_static("error-code"), code)
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let body = Full::new(self.body).map_err(|never| match never {}).boxed_unsync();
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}
