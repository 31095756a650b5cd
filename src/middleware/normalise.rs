//! Turns a 499 into an honest problem.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{Answer, Middleware, Next};
use crate::{
    amove::codes::{self, AppError},
    config::{self, ErrorMode},
    exchange::Exchange,
    message::{Held, Request},
    problem::{Kind, Problem},
};

/// Amove's private status for every error of its own (contract section 7).
const APPLICATION_ERROR: u16 = 499;

/// The body of an error is read up to this size; what is larger is not read for its code.
const ERROR_BODY: usize = 64 * 1024;

const ERROR_CODE: HeaderName = HeaderName::from_static("error-code");

/// Stands directly above the wire, so that every other layer sees honest statuses.
#[derive(Debug)]
pub struct Normalise {
    mode: ErrorMode,
    overrides: BTreeMap<String, StatusCode>,
}

impl Normalise {
    /// Translates as `config` says.
    pub fn new(config: &config::Errors) -> Self {
        Self { mode: config.mode, overrides: config.status.clone() }
    }

    fn problem(&self, error: AppError, headers: &HeaderMap) -> Problem {
        let code = error.code;
        let status = self.overrides.get(&code).copied().unwrap_or_else(|| codes::status(&code));
        let mut problem = Problem::new(Kind::UpstreamError, detail(&code))
            .with_status(status)
            .received(received(APPLICATION_ERROR))
            .member("messages", error.messages)
            .member("upstream_status", APPLICATION_ERROR)
            .member("retryable", codes::retryable(&code));
        if let Ok(value) = HeaderValue::try_from(&code) {
            problem.add_header(ERROR_CODE, value);
        }
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110 section 15.5.2 wants a challenge; it names whose credentials are meant.
            let challenge = HeaderValue::from_static(r#"Bearer realm="amove""#);
            problem.add_header(header::WWW_AUTHENTICATE, challenge);
        }
        keep_retry_after(problem.member("code", code), headers)
    }
}

impl Middleware for Normalise {
    async fn handle<N: Next>(
        &self,
        exchange: &Arc<Exchange>,
        request: Request,
        next: &N,
    ) -> Answer {
        let response = next.run(exchange, request).await?;
        if response.status().as_u16() == APPLICATION_ERROR {
            let (parts, body) = response.into_inner().into_parts();
            let held = body.hold(ERROR_BODY).await.map_err(|error| {
                failure(StatusCode::BAD_GATEWAY, received(APPLICATION_ERROR)).caused_by(error)
            })?;
            let (bytes, body) = match held {
                Held::Whole(bytes, _) => (bytes.clone(), bytes.into()),
                Held::TooLong(body) => (bytes::Bytes::new(), body),
            };
            let error = AppError::read(&parts.headers, &bytes);
            exchange.reported(&error.code);
            return match self.mode {
                ErrorMode::Problem => Err(self.problem(error, &parts.headers)),
                ErrorMode::Passthrough => Ok(http::Response::from_parts(parts, body).into()),
            };
        }
        if self.mode == ErrorMode::Problem && response.status().is_server_error() {
            // A crash of the API, or an error page of something between us and it.
            let answered = match response.status() {
                status @ (StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT) => status,
                _ => StatusCode::BAD_GATEWAY,
            };
            let problem = failure(answered, response.status());
            return Err(keep_retry_after(problem, response.headers()));
        }
        Ok(response)
    }
}

/// What a code means, as a sentence; of those that are not in the official list, nobody knows.
fn detail(code: &str) -> Cow<'static, str> {
    match codes::meaning(code).filter(|meaning| !meaning.starts_with("NOT IN")) {
        Some(meaning) => format!("{meaning}.").into(),
        None => "Amove reported an error of its own.".into(),
    }
}

fn failure(answered: StatusCode, received: StatusCode) -> Problem {
    Problem::new(
        Kind::UpstreamFailure,
        "Amove failed without saying why; whether the request took effect is not known.",
    )
    .with_status(answered)
    .received(received)
    .member("upstream_status", received.as_u16())
}

fn keep_retry_after(mut problem: Problem, headers: &HeaderMap) -> Problem {
    if let Some(pause) = headers.get(header::RETRY_AFTER) {
        problem.add_header(header::RETRY_AFTER, pause.clone());
    }
    problem
}

/// A status that came over the wire, so it is one.
fn received(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::Value;

    use super::*;
    use crate::{
        message::{Body, Response},
        middleware::testing::{answering, exchange, request},
    };

    fn normalise(mode: ErrorMode) -> Normalise {
        let overrides =
            BTreeMap::from([("DUPLICATE".to_owned(), StatusCode::UNPROCESSABLE_ENTITY)]);
        Normalise { mode, overrides }
    }

    async fn answer(mode: ErrorMode, status: u16, body: &'static str) -> (Answer, Arc<Exchange>) {
        let exchange = exchange();
        let api = answering(move |_| {
            let mut response = Response::new(Body::from(bytes::Bytes::from(body)));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response.headers_mut().insert("retry-after", HeaderValue::from_static("20"));
            Ok(response)
        });
        (normalise(mode).handle(&exchange, request(), &api).await, exchange)
    }

    const NOT_FOUND: &str =
        r#"{"type":"NOT_FOUND","status":499,"errors":{"NOT_FOUND":["No sync with this id."]}}"#;

    #[tokio::test]
    async fn a_499_becomes_the_status_its_code_deserves() {
        let (answer, exchange) = answer(ErrorMode::Problem, 499, NOT_FOUND).await;

        let problem = answer.unwrap_err();
        assert_eq!(
            (problem.kind(), problem.status()),
            (Kind::UpstreamError, StatusCode::NOT_FOUND)
        );
        assert_eq!(exchange.attempts().code.as_deref(), Some("NOT_FOUND"));
        let response = problem.into_response(&HeaderValue::from_static("id"));
        assert_eq!(response.headers()["error-code"], "NOT_FOUND");
        assert_eq!(response.headers()["proxy-status"], "amove-gateway; received-status=499");
        let body = response.into_inner().into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["code"], "NOT_FOUND");
        assert_eq!(body["messages"][0], "No sync with this id.");
        assert_eq!(body["upstream_status"], 499);
        assert_eq!(body["retryable"], false);
    }

    #[tokio::test]
    async fn overrides_win_and_unknown_codes_pass_through_as_400() {
        let duplicate = answer(ErrorMode::Problem, 499, r#"{"type":"DUPLICATE"}"#).await.0;
        let unknown = answer(ErrorMode::Problem, 499, r#"{"type":"NEW_ONE"}"#).await.0;

        assert_eq!(duplicate.unwrap_err().status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(unknown.unwrap_err().status(), StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn an_error_that_is_passed_through_is_still_known() {
        let (answer, exchange) = answer(ErrorMode::Passthrough, 499, NOT_FOUND).await;

        let response = answer.unwrap();
        assert_eq!(response.status().as_u16(), 499);
        assert_eq!(
            response.into_inner().into_body().collect().await.unwrap().to_bytes(),
            NOT_FOUND
        );
        assert_eq!(exchange.attempts().code.as_deref(), Some("NOT_FOUND"));
    }

    #[tokio::test]
    async fn a_crash_and_an_error_page_become_problems_and_other_errors_stay() {
        let crash = answer(ErrorMode::Problem, 500, "").await.0.unwrap_err();
        let page = answer(ErrorMode::Problem, 503, "<html>").await.0.unwrap_err();
        let plain = answer(ErrorMode::Problem, 400, "Only the owner.").await.0.unwrap();

        assert_eq!(
            (crash.kind(), crash.status()),
            (Kind::UpstreamFailure, StatusCode::BAD_GATEWAY)
        );
        assert_eq!(page.status(), StatusCode::SERVICE_UNAVAILABLE);
        let page = page.into_response(&HeaderValue::from_static("id"));
        assert_eq!(page.headers()["retry-after"], "20");
        assert_eq!(plain.status(), StatusCode::BAD_REQUEST);
    }
}
