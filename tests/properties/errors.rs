//! Errors of the API: whatever a 499 looks like, the caller reads a problem that is documented.

use std::{collections::BTreeMap, sync::Arc};

use amove_gateway::{
    amove::codes,
    config::{ErrorMode, Errors},
    exchange::{Arrival, Exchange},
    message::{Body, Peer, Request, Response},
    middleware::{Answer, Middleware, Next, normalise::Normalise},
    problem::Kind,
};
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;
use proptest::{prelude::*, sample::select, test_runner::TestCaseResult};
use serde_json::Value;

use crate::corpus::{check, explore, seeds};

/// Pieces of errors.
const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "\\",
    "\\u0000",
    "\\ud800",
    "\\u003cscript\\u003e",
    "null",
    "\"type\":",
    "\"errors\":",
    "\"title\":",
    "\"status\":",
    "499",
    "1e999",
    "-0",
    "\"TOKEN\"",
    "NOT_FOUND",
    "Global",
    "<script>alert(1)</script>",
    "<!--",
    "\r\n",
    "\r\nSet-Cookie: a=b\r\n\r\n",
    "error-code: ",
    "retry-after: ",
    "99999999999999999999",
    "\u{feff}",
    "\u{2028}",
    "é",
    "\0",
];

/// What the API says.
#[derive(Clone, Debug)]
struct Said {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Said {
    /// Lines of fields, an empty one, and the body.
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(2).position(|window| window == b"\n\n");
        let (head, body) = end.map_or((&b""[..], bytes), |at| (&bytes[..at], &bytes[at + 2..]));
        let mut headers = HeaderMap::new();
        for line in head.split(|byte| *byte == b'\n') {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            {
                headers.append(name, value);
            }
        }
        Self { status: 499, headers, body: body.to_vec() }
    }
}

struct Api(Said);

impl Next for Api {
    async fn run(&self, _: &Arc<Exchange>, _: Request) -> Answer {
        let mut response = Response::new(Body::from(Bytes::from(self.0.body.clone())));
        *response.status_mut() = StatusCode::from_u16(self.0.status).expect("a status");
        *response.headers_mut() = self.0.headers.clone();
        Ok(response)
    }
}

/// What the layer makes of it, and the code that the record is told.
fn normalised(said: &Said, mode: ErrorMode) -> (Answer, Option<String>) {
    let arrival = Arrival { peer: Peer::Unix { uid: None }, origin: "unix".into(), refusal: None };
    let exchange = Exchange::open(&Method::GET, &HeaderMap::new(), arrival);
    let status = BTreeMap::from([("DUPLICATE".to_owned(), StatusCode::UNPROCESSABLE_ENTITY)]);
    let layer = Normalise::new(&Errors { mode, status });
    let answer =
        layer.handle(&exchange, Request::new(Body::empty()), &Api(said.clone())).now_or_never();
    (answer.expect("it waits for nothing"), exchange.attempts().code)
}

fn read(response: Response) -> (StatusCode, HeaderMap, Bytes) {
    let (parts, body) = response.into_inner().into_parts();
    let body = body.collect().now_or_never().expect("it is in memory").expect("it is whole");
    (parts.status, parts.headers, body.to_bytes())
}

fn is_presentable(code: &str) -> bool {
    (1..=64).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_graphic())
}

fn holds(said: &Said) -> TestCaseResult {
    let (answer, recorded) = normalised(said, ErrorMode::Problem);
    let (passed, _) = normalised(said, ErrorMode::Passthrough);

    // Who wants them as they are gets them byte for byte.
    let (status, _, body) = read(passed.expect("it passes"));
    prop_assert_eq!((status.as_u16(), &body[..]), (said.status, &said.body[..]));

    let problem = match answer {
        Ok(response) => {
            let (status, headers, body) = read(response);
            prop_assert!(said.status != 499 && said.status < 500);
            prop_assert_eq!((status.as_u16(), &body[..]), (said.status, &said.body[..]));
            prop_assert_eq!(&headers, &said.headers);
            return Ok(());
        }
        Err(problem) => problem,
    };
    let expected = if said.status == 499 { Kind::UpstreamError } else { Kind::UpstreamFailure };
    prop_assert_eq!(problem.kind(), expected);
    let status = problem.status();
    let (sent, headers, body) = read(problem.into_response(&HeaderValue::from_static("id")));

    // The head says what is documented, and nothing of the API's but what may be repeated.
    prop_assert_eq!(sent, status);
    prop_assert!(status.is_client_error() || status.is_server_error());
    prop_assert_eq!(&headers["content-type"], "application/problem+json");
    prop_assert_eq!(&headers["cache-control"], "no-store");
    let proxied = format!("amove-gateway; received-status={}", said.status);
    prop_assert_eq!(&headers["proxy-status"], &proxied[..]);
    for name in headers.keys() {
        let ours = [
            "content-type",
            "cache-control",
            "proxy-status",
            "error-code",
            "www-authenticate",
            "retry-after",
        ];
        prop_assert!(ours.contains(&name.as_str()), "{name}");
    }
    prop_assert_eq!(headers.get("retry-after"), said.headers.get("retry-after"));

    // The body is a JSON object of bounded size, each of its members what it is documented to be.
    let document: Value = serde_json::from_slice(&body).expect("JSON");
    let members = document.as_object().expect("an object");
    prop_assert_eq!(&members["status"], status.as_u16());
    prop_assert_eq!(&members["upstream_status"], said.status);
    prop_assert_eq!(&members["request_id"], "id");
    prop_assert!(members["title"].is_string() && members["detail"].is_string());
    let kind = format!("urn:amove-gateway:problem:{}", expected.name());
    prop_assert_eq!(members["type"].as_str(), Some(&kind[..]));
    if said.status != 499 {
        prop_assert_eq!(members.len(), 6);
        return Ok(());
    }
    prop_assert_eq!(members.len(), 9, "{:?}", members);
    let code = members["code"].as_str().expect("a text");
    prop_assert!(is_presentable(code), "{code}");
    prop_assert_eq!(recorded.as_deref(), Some(code));
    prop_assert_eq!(&headers["error-code"], code);
    let own =
        if code == "DUPLICATE" { StatusCode::UNPROCESSABLE_ENTITY } else { codes::status(code) };
    prop_assert_eq!(status, own);
    prop_assert_eq!(members["retryable"].as_bool(), Some(codes::retryable(code)));
    prop_assert_eq!(headers.contains_key("www-authenticate"), status == StatusCode::UNAUTHORIZED);
    let messages = members["messages"].as_array().expect("a list");
    prop_assert!(messages.len() <= 32);
    let texts = messages.iter().map(|message| message.as_str().expect("a text"));
    let sum: usize = texts.map(|text| text.len()).inspect(|length| assert!(*length <= 1024)).sum();
    // A letter takes at most six times its bytes in JSON.
    prop_assert!(body.len() <= 1024 + 6 * sum, "{} bytes", body.len());

    // What says its code clearly is understood, by whoever reads it.
    if let Ok(Value::Object(json)) = serde_json::from_slice(&said.body)
        && let Some(Value::String(named)) = json.get("type")
        && is_presentable(named)
        && said.body.len() <= 64 * 1024
    {
        prop_assert_eq!(code, named);
    }
    Ok(())
}

#[test]
fn a_499_is_a_documented_problem() {
    explore(3_000, seeds("errors"), WORDS, |bytes| holds(&Said::parse(bytes)));
}

/// JSON that is nearly an error.
fn documents() -> impl Strategy<Value = Value> {
    let name = || {
        let known = vec!["type", "errors", "title", "status", "TOKEN", "NOT_FOUND", "DUPLICATE"];
        prop_oneof![select(known).prop_map(str::to_owned), "\\PC{0,8}", "[A-Z_]{60,70}"]
    };
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        name().prop_map(Value::from),
        "\\PC{0,2000}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 40, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..40).prop_map(Value::from),
            prop::collection::vec((name(), inner), 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

#[test]
fn so_is_anything_that_is_json_and_any_other_error() {
    let status = prop_oneof![3 => Just(499_u16), 1 => 200_u16..600];
    let code = prop::option::of(prop::collection::vec(any::<u8>(), 0..70));
    let asked = (status, code, documents(), any::<bool>());
    check(150, &asked, |(status, code, document, is_error)| {
        let document = if is_error {
            serde_json::json!({ "type": document, "errors": document })
        } else {
            document
        };
        let mut headers = HeaderMap::new();
        let code = code.and_then(|code| HeaderValue::from_bytes(&code).ok());
        headers.extend(code.map(|code| (HeaderName::from_static("error-code"), code)));
        holds(&Said { status, headers, body: document.to_string().into_bytes() })
    });
}
