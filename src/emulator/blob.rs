//! Large and endless bodies, both ways: routes that nobody has documented, for tests.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, header, request::Parts};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::json;

use super::{
    World,
    http::{Body, Call, Reply},
};

const BLOB: &str = "/api/v1/emulator/blob";
const SINK: &str = "/api/v1/emulator/sink";
const HUB: &str = "/api/rm";

/// The content of a blob, again and again.
static CHUNK: [u8; 64 * 1024] = [b'x'; 64 * 1024];

/// Whether `path` is one of these.
pub(super) fn is_for(path: &str) -> bool {
    matches!(path, BLOB | SINK | HUB)
}

/// Answers without ever holding a body in memory.
pub(super) async fn answer(world: &World, parts: &Parts, body: Incoming) -> Response<Body> {
    let call = Call {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        headers: &parts.headers,
        body: &[],
    };
    let now = world.now();
    let admitted = world.state().admit(&world.options, &call, now);
    if let Err(denied) = admitted {
        return denied.into_response();
    }
    match (call.method, call.path) {
        ("GET", BLOB) => {
            blob(call.parameter("bytes").and_then(|it| it.parse().ok()).unwrap_or_default())
        }
        ("POST", SINK) => sink(body).await,
        ("GET", HUB) => hub(&call),
        _ => Reply::empty(405).into_response(),
    }
}

/// So many bytes.
fn blob(bytes: u64) -> Response<Body> {
    let frames = futures_util::stream::unfold(bytes, async |left| {
        let size = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK.len());
        let chunk = CHUNK.get(..size).filter(|chunk| !chunk.is_empty())?;
        Some((Ok(Frame::data(Bytes::from_static(chunk))), left - size as u64))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_LENGTH, bytes.into());
    response
}

/// Reads everything and tells what it was.
async fn sink(mut body: Incoming) -> Response<Body> {
    let (mut bytes, mut hash) = (0, blake3::Hasher::new());
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Reply::empty(400).into_response() };
        if let Ok(data) = frame.into_data() {
            bytes += data.len();
            hash.update(&data);
        }
    }
    let hash = hash.finalize().to_hex();
    Reply::json(&json!({ "bytes": bytes, "blake3": hash.as_str() })).into_response()
}

/// The hub: server-sent events to those who ask for them, an empty poll to others.
fn hub(call: &Call<'_>) -> Response<Body> {
    let accepts = call.headers.get(header::ACCEPT).and_then(|it| it.to_str().ok());
    if !accepts.is_some_and(|it| it.contains("text/event-stream")) {
        return Reply::json(&json!({})).into_response();
    }
    let events = futures_util::stream::unfold(0_u32, async |number| {
        if number > 0 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let event = format!("data: {{\"type\":6,\"number\":{number}}}\n\n");
        let frame = Ok::<_, Infallible>(Frame::data(Bytes::from(event)));
        (number < 1000).then_some((frame, number + 1))
    });
    let body = StreamBody::new(events).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
