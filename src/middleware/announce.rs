//! Writes down that a request begins which may change something, or last.

use std::sync::Arc;

use http::{HeaderMap, header};

use super::{Answer, Middleware, Next, audit::audit_unavailable};
use crate::{amove::catalogue::Effect, exchange::Exchange, message::Request};

/// Stands below everything that refuses: an intent means that the request has gone on. If we are
/// killed before it ends, the audit log says that it was started and its end is unknown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Announce;

impl Middleware for Announce {
    async fn handle<N: Next>(
        &self,
        exchange: &Arc<Exchange>,
        request: Request,
        next: &N,
    ) -> Answer {
        let route = exchange.destination()?.route;
        // What nobody knows may do anything.
        let acts = route.is_none_or(|route| route.effect != Effect::Read);
        if acts || may_last(request.headers()) {
            exchange.announce().await.map_err(|_| audit_unavailable())?;
        }
        next.run(exchange, request).await
    }
}

/// Whether an upgrade or an event stream is asked for.
fn may_last(headers: &HeaderMap) -> bool {
    let events = |value: &http::HeaderValue| {
        value.to_str().is_ok_and(|value| value.contains("text/event-stream"))
    };
    headers.contains_key(header::UPGRADE) || headers.get_all(header::ACCEPT).iter().any(events)
}
