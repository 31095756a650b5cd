//! Connections: accepts, lets faults happen, and hands calls to the hosts.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    World, api, auth, blob, control,
    faults::{Fault, HostName},
    http::{Body, Call, Reply},
    routes::{self, Found},
    stats::Seen,
    wire::{Ending, Wire},
};

/// A body that an ordinary route reads; Amove takes no files.
const BODY: usize = 4 * 1024 * 1024;

/// What a listener works with.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) world: Arc<World>,
    pub(super) host: HostName,
    pub(super) tls: Option<TlsAcceptor>,
}

/// Serves every connection until `stop`.
pub(super) async fn accept(
    listener: TcpListener,
    desk: Desk,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (desk, stop) = (desk.clone(), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = connection(stream, desk) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn connection(stream: TcpStream, desk: Desk) {
    // Without it small answers wait for more to send, which only costs time.
    let _ = stream.set_nodelay(true);
    let (wire, ending) = Wire::new(stream);
    let Some(acceptor) = desk.tls.clone() else {
        let is_http2 = wire.speaks_http2().await;
        return serve(wire, is_http2, desk, ending).await;
    };
    if let Ok(stream) = acceptor.accept(wire).await {
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        serve(stream, is_http2, desk, ending).await;
    }
}

async fn serve<S>(stream: S, is_http2: bool, desk: Desk, ending: Ending)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (desk, ending) = (desk.clone(), ending.clone());
        async move { answer(request, &desk, &ending).await }
    });
    let io = TokioIo::new(stream);
    // How a connection ends is the client's business.
    let _ = if is_http2 {
        http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
    } else {
        http1::Builder::new().serve_connection(io, service).await
    };
}

/// What ends a connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("a fault that was ordered")]
struct Ordered;

async fn answer(
    request: Request<Incoming>,
    desk: &Desk,
    ending: &Ending,
) -> Result<Response<Body>, Ordered> {
    let (world, host) = (&*desk.world, desk.host);
    let (parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().map_or("/", |it| it.as_str()).to_owned();
    let is_control = target.starts_with(control::PREFIX);
    let seen = |body_bytes| Seen {
        host,
        method: parts.method.to_string(),
        target: target.clone(),
        headers: (parts.headers.iter())
            .map(|(name, value)| {
                (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            })
            .collect(),
        body_bytes,
    };
    if !is_control {
        let latency = world.state().faults.latency(host);
        if let Some(ms) = latency {
            sleep(Duration::from_millis(ms)).await;
        }
    }
    let fault = if is_control { None } else { world.state().faults.instead(host, &target) };
    if let Some(fault) = fault {
        world.state().book.note(seen(0));
        return spoil(fault, ending, world).await;
    }
    if host == HostName::Api && blob::is_for(parts.uri.path()) {
        world.state().book.note(seen(0));
        return Ok(blob::answer(world, &parts, body).await);
    }
    let Ok(body) =
        Limited::new(body, BODY).collect().await.map(http_body_util::Collected::to_bytes)
    else {
        // The client broke off, or sent far too much.
        world.state().book.note(seen(0));
        return Ok(Reply::empty(413).into_response());
    };
    let mut headers = parts.headers.clone();
    if parts.version == http::Version::HTTP_2 {
        // HTTP/2 frames every body by itself.
        headers.insert("x-http2", HeaderValue::from_static("1"));
    }
    let call = Call {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        headers: &headers,
        body: &body,
    };
    if !is_control {
        world.state().book.note(seen(body.len() as u64));
    }
    let reply = match host {
        HostName::Api => api::answer(world, &call),
        HostName::Auth => match routes::find(host, call.method, call.path) {
            Found::Row(_) => auth::answer(world, &call),
            Found::OtherMethod => Reply::empty(405),
            Found::Nothing => Reply::empty(404),
        },
    };
    Ok(dated(reply.into_response(), world))
}

/// Amove's own clock tells the date.
fn dated(mut response: Response<Body>, world: &World) -> Response<Body> {
    let now = std::time::UNIX_EPOCH + Duration::from_secs(world.now());
    if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(now)) {
        response.headers_mut().insert(header::DATE, date);
    }
    response
}

/// Does what was ordered instead of answering.
async fn spoil(fault: Fault, ending: &Ending, world: &World) -> Result<Response<Body>, Ordered> {
    match fault {
        Fault::Code { code, .. } => {
            Ok(dated(Reply::code(&code, "You asked for it.").into_response(), world))
        }
        Fault::Status { status, body, .. } => {
            Ok(dated(Reply::text(status, body).into_response(), world))
        }
        Fault::Truncate { .. } => {
            let half = stream::once(async { Ok(Frame::data(Bytes::from_static(b"{\"half\":"))) });
            // What is there is sent while the body is waited for, so it breaks off a moment later.
            let half = half.chain(stream::once(async {
                tokio::task::yield_now().await;
                Err(std::io::Error::other("a fault that was ordered"))
            }));
            let mut response = Response::new(StreamBody::new(half).boxed_unsync());
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("64"));
            Ok(response)
        }
        Fault::Stall { .. } => std::future::pending().await,
        Fault::Raw { bytes, .. } => {
            ending.say_instead(bytes);
            // Whatever is answered now, those bytes go out.
            Ok(Reply::empty(200).into_response())
        }
        _ => {
            ending.reset();
            Err(Ordered)
        }
    }
}
