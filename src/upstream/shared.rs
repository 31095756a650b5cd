//! The connection that all requests of a worker share, where the host speaks HTTP/2.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{Uri, Version, header, uri::PathAndQuery};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::Instant;

use super::{
    counts::Ending,
    life::Life,
    site::Site,
    tls::{Stream, socket},
};
use crate::message::{Body, Request};

/// How long the shared connection may be silent while answers are awaited, until it is asked
/// whether it still lives, and how long it has for its answer: else every request would wait for a
/// connection that is dead.
const ALIVE: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(10));

/// How long an aged connection goes on, until it is tried again to replace it.
const REPLACE_AGAIN: Duration = Duration::from_secs(10);

/// Where the connection is kept.
#[derive(Debug, Default)]
pub(super) struct Place(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    shared: Option<Shared>,
    /// How many there have been.
    number: u64,
}

#[derive(Debug)]
struct Shared {
    sender: SendRequest<Body>,
    life: Arc<Life>,
    /// No replacement is opened before.
    replace_after: Option<Instant>,
}

/// A share of the connection.
pub(super) struct Share {
    pub(super) sender: SendRequest<Body>,
    /// Which connection it is.
    pub(super) number: u64,
    /// It is old, and whoever holds this is the one to replace it.
    pub(super) wants_replacement: bool,
}

impl Place {
    /// A share of the connection, if there is one that takes requests.
    pub(super) fn share(&self, now: Instant) -> Option<Share> {
        let mut state = self.lock();
        let number = state.number;
        let shared = state.shared.as_mut()?;
        let ending = shared.sender.is_closed().then_some(Ending::Peer);
        let wants_replacement = match ending.or_else(|| shared.life.spent(now)) {
            None => false,
            // It goes on until another one is there.
            Some(Ending::Aged) => {
                let is_time = shared.replace_after.is_none_or(|after| after <= now);
                if is_time {
                    shared.replace_after = Some(now + REPLACE_AGAIN);
                }
                is_time
            }
            Some(ending) => {
                shared.life.end(ending);
                state.shared = None;
                return None;
            }
        };
        Some(Share { sender: shared.sender.clone(), number, wants_replacement })
    }

    /// Begins to speak HTTP/2 on `stream`, and puts it in the place of what was there.
    pub(super) async fn begin(&self, stream: Stream) -> Result<Share, hyper::Error> {
        let life = Arc::clone(&socket(&stream).life);
        let (sender, driver) = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(ALIVE.0)
            .keep_alive_timeout(ALIVE.1)
            .max_header_list_size(64 * 1024)
            .max_send_buf_size(64 * 1024)
            .max_pending_accept_reset_streams(20)
            .max_local_error_reset_streams(100)
            .adaptive_window(true)
            .handshake(TokioIo::new(stream))
            .await?;
        // Many exchanges share it, so none of them can drive it: it ends with its last sender.
        tokio::spawn(driver);
        Ok(self.put(sender, life))
    }

    /// Another connection: that before it ends with its last exchange.
    fn put(&self, sender: SendRequest<Body>, life: Arc<Life>) -> Share {
        let mut state = self.lock();
        state.number += 1;
        let share =
            Share { sender: sender.clone(), number: state.number, wants_replacement: false };
        let before = state.shared.replace(Shared { sender, life, replace_after: None });
        if let Some(before) = before {
            before.life.end(before.life.spent(Instant::now()).unwrap_or(Ending::Unused));
        }
        share
    }

    /// No other request goes over the connection of that number: it ends with its last exchange.
    pub(super) fn retire(&self, number: u64, ending: Ending) {
        let mut state = self.lock();
        if state.number == number
            && let Some(shared) = state.shared.take()
        {
            shared.life.end(ending);
        }
    }

    /// The host has changed its mind about HTTP/2.
    pub(super) fn empty(&self) {
        if let Some(before) = self.lock().shared.take() {
            before.life.end(Ending::Unused);
        }
    }

    /// Nothing can panic while this lock is held.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts scheme and authority into the URI, where HTTP/2 wants them.
pub(super) fn address(request: &mut Request, site: &Site) {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme =
        Some(if site.base.tls { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP });
    parts.authority = site.authority.parse().ok();
    parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    // Of whole and valid parts there is always a URI.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    let headers = request.headers_mut();
    headers.remove(header::HOST);
    headers.remove(header::TRANSFER_ENCODING);
    // There a body goes up when there is a window for it.
    headers.remove(header::EXPECT);
    *request.version_mut() = Version::HTTP_2;
}
