//! Routes Amove does not have: they show what a proxy does to a message.

use std::{io, sync::Arc};

use bytes::Bytes;
use futures_util::stream;
use http::{Method, StatusCode, header, request::Parts};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use serde_json::json;

use super::{
    answer::{self, Outcome, Refusal},
    desk, routes,
    stats::{Arrived, fields, target},
    world::World,
};

const PREFIX: &str = "/api/v1/emulator/";
const CHUNK: usize = 64 * 1024;
/// An echo returns bodies up to this size.
const ECHOED: usize = 64 * 1024;

static ZEROES: [u8; CHUNK] = [0; CHUNK];

/// Whether `path` is one of these.
pub(super) fn is_one(path: &str) -> bool {
    path.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

/// Answers one of these, reading its body bit by bit.
pub(super) async fn answer(
    world: &World,
    parts: Parts,
    body: Incoming,
    read: Arc<Arrived>,
) -> Outcome {
    desk::holder(world, &parts.headers, None)?;
    let query = routes::query(parts.uri.query().unwrap_or(""));
    let value = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| &**value);
    let action = parts.uri.path().get(PREFIX.len()..).unwrap_or("").to_ascii_lowercase();
    match (&parts.method, action.as_str()) {
        (&Method::GET, "blob") => {
            let bytes = value("bytes").and_then(|bytes| bytes.parse().ok());
            Ok(blob(bytes.ok_or_else(|| Refusal::code("DEFAULT", "How many bytes?"))?))
        }
        (&Method::POST, "sink") => sink(body, &read).await,
        (_, "echo") => echo(&parts, body, &read).await,
        (_, "fail") => fail(value("code"), value("status"), value("body")),
        _ => Err(Refusal::Status(StatusCode::NOT_FOUND)),
    }
}

fn blob(bytes: u64) -> answer::Reply {
    let chunks = stream::unfold(bytes, |left| async move {
        let some = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let chunk = Bytes::from_static(ZEROES.get(..some)?);
        let frame: io::Result<_> = Ok(Frame::data(chunk));
        (some > 0).then_some((frame, left - some as u64))
    });
    let mut reply = answer::stream("application/octet-stream", StreamBody::new(chunks));
    answer::set(&mut reply, header::CONTENT_LENGTH, &bytes.to_string());
    reply
}

async fn sink(mut body: Incoming, read: &Arrived) -> Outcome {
    let mut hasher = blake3::Hasher::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = broken(frame)?.into_data() else { continue };
        read.add(&data);
        hasher.update(&data);
    }
    let hash = hasher.finalize().to_hex().to_string();
    Ok(answer::json(&json!({"bytes": read.length(), "blake3": hash})))
}

async fn echo(parts: &Parts, mut body: Incoming, read: &Arrived) -> Outcome {
    let (mut kept, mut trailers) = (Vec::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        match broken(frame)?.into_data() {
            Ok(data) => {
                read.add(&data);
                let room = ECHOED.saturating_sub(kept.len());
                kept.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
            }
            Err(frame) => trailers = frame.trailers_ref().map(fields).unwrap_or_default(),
        }
    }
    let complete = read.length() <= ECHOED as u64;
    let text = complete.then(|| String::from_utf8_lossy(&kept).into_owned());
    Ok(answer::json(&json!({
        "method": parts.method.as_str(),
        "target": target(&parts.uri),
        "version": format!("{:?}", parts.version),
        "headers": fields(&parts.headers),
        "body_length": read.length(),
        "body": text,
        "trailers": trailers,
    })))
}

fn broken(frame: hyper::Result<Frame<Bytes>>) -> Result<Frame<Bytes>, Refusal> {
    frame.map_err(|error| Refusal::code("DEFAULT", format!("The body broke off: {error}")))
}

fn fail(code: Option<&str>, status: Option<&str>, body: Option<&str>) -> Outcome {
    if let Some(code) = code {
        return Err(Refusal::code(code, ""));
    }
    let status = status.and_then(|status| StatusCode::from_bytes(status.as_bytes()).ok());
    let status = status.filter(|status| status.as_u16() >= 200);
    let status = status.ok_or_else(|| Refusal::code("DEFAULT", "Which code or status?"))?;
    let reply = body.map_or_else(answer::empty, answer::text);
    Ok(answer::with_status(reply, status))
}
