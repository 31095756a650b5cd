//! What a fault makes of a call and of its answer.

use std::{io, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{StatusCode, header, response::Parts};
use http_body::Frame;
use http_body_util::{BodyExt, Either, StreamBody};

use super::{
    answer::{self, Outcome, Refusal, Reply},
    auth,
    faults::Fault,
    wire::{Break, Saboteur},
    world::World,
};

/// What a fault answers before the call takes effect; `None`: nothing yet.
pub(super) async fn before(
    world: &World,
    saboteur: &Saboteur,
    fault: Option<&Fault>,
) -> Option<Outcome> {
    let say = |text: &str| saboteur.order(Break::Say(Bytes::copy_from_slice(text.as_bytes())));
    match fault? {
        Fault::Unauthorized { .. } => {
            return Some(Err(Refusal::DeadSession(world.options.dead_session)));
        }
        Fault::DeadSession { how, .. } => return Some(Err(Refusal::DeadSession(*how))),
        Fault::Code { code, .. } => return Some(Err(Refusal::code(code, ""))),
        Fault::Status { status, body, retry_after, .. } => {
            return Some(Ok(with_status(*status, body, *retry_after)));
        }
        Fault::Stall { .. } => {
            world.end.cancelled().await;
            saboteur.order(Break::Reset);
        }
        Fault::Reset { acted: false, .. } => saboteur.order(Break::Reset),
        Fault::Garbage { .. } => say("\u{7}\0this is not HTTP\r\n\r\n"),
        Fault::Raw { text, .. } => say(text),
        Fault::Unsolicited101 { .. } => say(concat!(
            "HTTP/1.1 101 Switching Protocols\r\n",
            "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\nunasked"
        )),
        Fault::Reset { acted: true, .. }
        | Fault::Truncate { .. }
        | Fault::Drip { .. }
        | Fault::MalformedLogin { .. }
        | Fault::Latency { .. }
        | Fault::AuthDown { .. }
        | Fault::ClockSkew { .. }
        | Fault::RevokeSessions => return None,
    }
    Some(Ok(answer::empty()))
}

/// What a fault makes of the answer, once the call has taken effect.
pub(super) async fn after(
    saboteur: &Saboteur,
    fault: Option<&Fault>,
    reply: Reply,
) -> io::Result<Reply> {
    match fault {
        Some(Fault::Reset { acted: true, .. }) => saboteur.order(Break::Reset),
        Some(Fault::MalformedLogin { kind, .. }) => return Ok(auth::malformed(*kind, reply)),
        Some(Fault::Truncate { .. }) => return truncated(reply).await,
        Some(Fault::Drip { ms, .. }) => return dripping(reply, Duration::from_millis(*ms)).await,
        _ => {}
    }
    Ok(reply)
}

fn with_status(status: u16, body: &str, retry_after: Option<u64>) -> Reply {
    let mut reply = if body.is_empty() { answer::empty() } else { answer::text(body) };
    if body.trim_start().starts_with('<') {
        answer::set(&mut reply, header::CONTENT_TYPE, "text/html");
    }
    if let Some(seconds) = retry_after {
        answer::set(&mut reply, header::RETRY_AFTER, &seconds.to_string());
    }
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer::with_status(reply, status)
}

/// One thing that happens while a body is sent.
enum Step {
    Send(Bytes),
    Wait(Duration),
    Break,
}

async fn truncated(reply: Reply) -> io::Result<Reply> {
    let (parts, content) = taken_apart(reply).await?;
    let half = content.slice(..content.len() / 2);
    // The pause lets the connection send what it has.
    let steps = [Step::Send(half), Step::Wait(Duration::ZERO), Step::Break];
    Ok(sent(parts, content.len().max(2), stream::iter(steps)))
}

async fn dripping(reply: Reply, pause: Duration) -> io::Result<Reply> {
    let (parts, content) = taken_apart(reply).await?;
    let length = content.len();
    let steps = (0..length).flat_map(move |at| {
        let byte = content.slice(at..=at);
        [Step::Wait(pause), Step::Send(byte)]
    });
    Ok(sent(parts, length, stream::iter(steps)))
}

/// The head and the body of an answer; of a stream, the beginning will do.
async fn taken_apart(reply: Reply) -> io::Result<(Parts, Bytes)> {
    let (parts, mut body) = reply.into_parts();
    let frame = match &mut body {
        Either::Left(whole) => whole.frame().await.and_then(Result::ok),
        Either::Right(stream) => stream.frame().await.transpose()?,
    };
    Ok((parts, frame.and_then(|frame| frame.into_data().ok()).unwrap_or_default()))
}

fn sent(parts: Parts, length: usize, steps: impl Stream<Item = Step> + Send + 'static) -> Reply {
    let frames = steps.filter_map(|step| async {
        match step {
            Step::Send(bytes) => Some(Ok(Frame::data(bytes))),
            Step::Wait(pause) => {
                tokio::time::sleep(pause).await;
                tokio::task::yield_now().await;
                None
            }
            Step::Break => Some(Err(io::ErrorKind::ConnectionReset.into())),
        }
    });
    let body = StreamBody::new(frames).boxed_unsync();
    let mut reply = Reply::from_parts(parts, Either::Right(body));
    answer::set(&mut reply, header::CONTENT_LENGTH, &length.to_string());
    reply
}
