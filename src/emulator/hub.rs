//! The real-time hub, as far as a proxy can tell it from a real one.

use std::{io, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, header};
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::json;

use super::{
    answer::{self, Reply},
    users::random,
    world::World,
};

const PAUSE: Duration = Duration::from_millis(200);
const MOST_EVENTS: u32 = 1000;

/// Whether this is the handshake of the hub.
pub(super) fn is_negotiation(method: &Method, path: &str) -> bool {
    let path = path.strip_suffix('/').unwrap_or(path);
    method == Method::POST && path.eq_ignore_ascii_case("/api/rm/negotiate")
}

/// Says which transports there are.
pub(super) fn negotiate() -> Reply {
    let transport = |name| json!({"transport": name, "transferFormats": ["Text"]});
    answer::json(&json!({
        "negotiateVersion": 0,
        "connectionId": random(),
        "availableTransports": [transport("ServerSentEvents"), transport("LongPolling")],
    }))
}

/// Events for whoever reads a stream, and an empty poll for all others.
pub(super) fn answer(world: &World, headers: &HeaderMap) -> Reply {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    if !accept.is_some_and(|accept| accept.contains("text/event-stream")) {
        return answer::json(&json!({}));
    }
    let end = world.end.clone();
    let events = stream::unfold((0, end), |(number, end)| async move {
        if number > 0 {
            tokio::select! {
                () = end.cancelled() => return None,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
        let event = json!({"type": 1, "target": "progress", "arguments": [{"percent": number}]});
        // SignalR ends each message with a record separator.
        let event = Bytes::from(format!("data: {event}\u{1e}\r\n\r\n"));
        let frame: io::Result<_> = Ok(Frame::data(event));
        (number < MOST_EVENTS).then_some((frame, (number + 1, end)))
    });
    let mut reply = answer::stream("text/event-stream", StreamBody::new(events));
    answer::set(&mut reply, header::CACHE_CONTROL, "no-cache");
    reply
}
