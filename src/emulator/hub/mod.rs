//! The real-time hub, as far as a proxy can tell it from a real one: SignalR in JSON, over a
//! WebSocket, server-sent events or long polling.

mod line;
mod talk;
mod websocket;

use std::{io, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{Method, StatusCode, header, request::Parts};
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::json;
use tokio_util::sync::CancellationToken;

pub(super) use self::line::Lines;
use super::{
    answer::{self, Outcome, Refusal, Reply},
    routes,
    world::World,
};

/// Between two reports of progress to whoever streams.
const PAUSE: Duration = Duration::from_millis(200);
const MOST_EVENTS: u32 = 1000;
/// How long a poll waits for news.
const POLL: Duration = Duration::from_secs(20);

/// Ends each message.
const END: char = '\u{1e}';

/// Whether this is for the hub, though the table has another method for its path.
pub(super) fn is_for(method: &Method, path: &str) -> bool {
    is_negotiation(method, path)
        || (matches!(*method, Method::POST | Method::DELETE) && is_at(path, "/api/rm"))
}

fn is_negotiation(method: &Method, path: &str) -> bool {
    *method == Method::POST && is_at(path, "/api/rm/negotiate")
}

fn is_at(path: &str, place: &str) -> bool {
    path.strip_suffix('/').unwrap_or(path).eq_ignore_ascii_case(place)
}

/// Answers what is for the hub, of a caller who may.
pub(super) fn answer(world: &World, parts: &Parts, body: &[u8]) -> Outcome {
    if is_negotiation(&parts.method, parts.uri.path()) {
        return Ok(negotiate(&world.hub.open()));
    }
    let query = routes::query(parts.uri.query().unwrap_or(""));
    let id = query.iter().find(|(name, _)| name == "id").map(|(_, id)| &**id);
    if parts.method == Method::POST {
        let line = id.and_then(|id| world.hub.find(id)).ok_or_else(unknown)?;
        line.hear(&String::from_utf8_lossy(body));
        return Ok(answer::empty());
    }
    if parts.method == Method::DELETE {
        id.filter(|id| world.hub.close(id)).ok_or_else(unknown)?;
        return Ok(answer::with_status(answer::empty(), StatusCode::ACCEPTED));
    }
    if parts.headers.contains_key(header::UPGRADE) {
        return websocket::answer(world.end.clone(), parts);
    }
    let accept = parts.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("text/event-stream")) {
        return Ok(events(world, id));
    }
    match id.and_then(|id| world.hub.find(id)) {
        Some(line) => Ok(poll(line, world.end.clone())),
        None => Ok(answer::json(&json!({}))),
    }
}

fn unknown() -> Refusal {
    Refusal::Plain(StatusCode::NOT_FOUND, "No Connection with that ID")
}

/// Says which transports there are.
fn negotiate(id: &str) -> Reply {
    let transports = ["WebSockets", "ServerSentEvents", "LongPolling"];
    let transports = transports.map(|it| json!({"transport": it, "transferFormats": ["Text"]}));
    answer::json(&json!({
        "negotiateVersion": 0,
        "connectionId": id,
        "availableTransports": transports,
    }))
}

/// What happens to all: some transfer goes on.
fn progress(percent: u32) -> String {
    json!({"type": 1, "target": "progress", "arguments": [{"percent": percent}]}).to_string()
}

/// One event after the other: what the connection `id` is told, and progress.
fn events(world: &World, id: Option<&str>) -> Reply {
    let line = id.and_then(|id| world.hub.find(id));
    let state = (0, line, world.end.clone());
    let events = stream::unfold(state, |(number, line, end)| async move {
        let told = async {
            match &line {
                Some(line) => line.told().await,
                None => std::future::pending().await,
            }
        };
        // Nothing comes before the answer to the greeting, if there is somebody to greet.
        let reports = line.as_ref().is_none_or(|line| line.is_greeted());
        let pause = if number == 0 { Duration::ZERO } else { PAUSE };
        let (message, number) = tokio::select! {
            biased;
            () = end.cancelled() => return None,
            message = told => (message, number),
            () = tokio::time::sleep(pause), if reports => (progress(number), number + 1),
        };
        let event = Bytes::from(format!("data: {message}{END}\r\n\r\n"));
        let frame: io::Result<_> = Ok(Frame::data(event));
        (number <= MOST_EVENTS).then_some((frame, (number, line, end)))
    });
    let mut reply = answer::stream("text/event-stream", StreamBody::new(events));
    answer::set(&mut reply, header::CACHE_CONTROL, "no-cache");
    reply
}

/// One answer with what there is to tell; the first says only that the connection is open.
fn poll(line: line::Shared, end: CancellationToken) -> Reply {
    if !line.was_polled() {
        return answer::text("");
    }
    let news = stream::once(async move {
        let message = tokio::select! {
            message = line.told() => format!("{message}{END}"),
            () = tokio::time::sleep(POLL) => String::new(),
            () = end.cancelled() => String::new(),
        };
        io::Result::Ok(Frame::data(Bytes::from(message)))
    });
    answer::stream("text/plain; charset=utf-8", StreamBody::new(news))
}
