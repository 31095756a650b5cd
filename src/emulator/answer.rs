//! The shapes of Amove's answers.

use std::{collections::HashMap, io, sync::LazyLock};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, Either, Full, combinators::UnsyncBoxBody};
use hyper::ext::ReasonPhrase;
use serde_json::{Value, json};

use super::options::{DeadSession, Options, Problems};

const CODES: &str = include_str!("../amove/error-codes.csv");

/// What the emulator answers with.
pub(super) type Reply = http::Response<ReplyBody>;

/// Most answers are whole; a few are streams.
pub(super) type ReplyBody = Either<Full<Bytes>, UnsyncBoxBody<Bytes, io::Error>>;

/// Why a call is refused.
#[derive(Debug)]
pub(super) enum Refusal {
    /// 499 with this code and message.
    Code(String, String),
    /// The bearer is not, or no longer, good.
    DeadSession(DeadSession),
    /// Really this status, without a body.
    Status(StatusCode),
    /// Really this status, with a plain message.
    Plain(StatusCode, &'static str),
    /// Really this status, with JSON.
    Json(StatusCode, Value),
}

/// An answer, or why there is none.
pub(super) type Outcome = Result<Reply, Refusal>;

impl Refusal {
    /// 499 with `code`.
    pub(super) fn code(code: &str, message: impl Into<String>) -> Self {
        Self::Code(code.to_owned(), message.into())
    }

    /// The answer that says so.
    pub(super) fn reply(self, options: &Options) -> Reply {
        match self {
            Self::Code(code, message) => problem(&code, &message, options.problems),
            Self::DeadSession(how) => dead_session(how, options.problems),
            Self::Status(status) => with_status(empty(), status),
            Self::Plain(status, message) => with_status(text(message), status),
            Self::Json(status, value) => with_status(json(&value), status),
        }
    }
}

/// 200 and nothing else.
pub(super) fn empty() -> Reply {
    Reply::new(Either::Left(Full::default()))
}

/// 200 with a JSON document.
pub(super) fn json(value: &Value) -> Reply {
    whole("application/json; charset=utf-8", value.to_string())
}

/// 200 with plain text.
pub(super) fn text(text: impl Into<String>) -> Reply {
    whole("text/plain; charset=utf-8", text.into())
}

/// 200 with a string that is written as JSON.
pub(super) fn quoted(value: &str) -> Reply {
    json(&value.into())
}

/// 302 to `location`.
pub(super) fn redirect(location: &str) -> Reply {
    let mut reply = with_status(empty(), StatusCode::FOUND);
    set(&mut reply, header::LOCATION, location);
    reply
}

/// 200 with a body that comes bit by bit.
pub(super) fn stream<B>(content_type: &'static str, body: B) -> Reply
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Send + 'static,
{
    let mut reply = Reply::new(Either::Right(body.boxed_unsync()));
    set(&mut reply, header::CONTENT_TYPE, content_type);
    reply
}

/// The answer, with another status.
pub(super) fn with_status(mut reply: Reply, status: StatusCode) -> Reply {
    *reply.status_mut() = status;
    reply
}

/// Sets a header, if the value can be one.
pub(super) fn set(reply: &mut Reply, name: http::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
}

fn whole(content_type: &'static str, content: String) -> Reply {
    let mut reply = Reply::new(Either::Left(Full::from(content)));
    set(&mut reply, header::CONTENT_TYPE, content_type);
    reply
}

/// 499: Amove's one status for every application error.
fn problem(code: &str, message: &str, how: Problems) -> Reply {
    let message = if message.is_empty() { meaning(code) } else { message };
    let mut body = json!({"type": code, "status": 499, "errors": {code: [message]}});
    let mut reply = match how {
        Problems::Json => json(&body),
        Problems::ProblemJson => {
            body["title"] = "One or more validation errors occurred.".into();
            whole("application/problem+json; charset=utf-8", body.to_string())
        }
        Problems::Bare => empty(),
    };
    set(&mut reply, http::HeaderName::from_static("error-code"), code);
    // Nobody has given 499 a reason phrase, so there is none on the wire.
    reply.extensions_mut().insert(ReasonPhrase::from_static(b""));
    match StatusCode::from_u16(499) {
        Ok(status) => with_status(reply, status),
        Err(_) => reply,
    }
}

/// What the official list says about a code.
fn meaning(code: &str) -> &'static str {
    static MEANINGS: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
        let rows = csv::Reader::from_reader(CODES.as_bytes()).into_records();
        rows.flatten().filter_map(|row| Some((row.get(0)?.into(), row.get(1)?.into()))).collect()
    });
    MEANINGS.get(code).map_or("Something went wrong.", String::as_str)
}

fn dead_session(how: DeadSession, problems: Problems) -> Reply {
    let mut reply = match how {
        DeadSession::Session => return problem("SESSION", "The session has ended.", problems),
        DeadSession::Token => return problem("TOKEN", "The token is not valid.", problems),
        DeadSession::Plain | DeadSession::Challenge => empty(),
    };
    if how == DeadSession::Challenge {
        set(&mut reply, header::WWW_AUTHENTICATE, "Bearer error=\"invalid_token\"");
    }
    with_status(reply, StatusCode::UNAUTHORIZED)
}
