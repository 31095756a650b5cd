//! Writes down that a request begins which may change something, or last.

use std::sync::Arc;

use super::{Answer, Middleware, Next, audit::audit_unavailable};
use crate::{
    amove::{catalogue::Effect, tags::Tags},
    exchange::Exchange,
    message::Request,
};

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
        // What nobody knows may do anything. Only the hub is upgraded, or streams events.
        let is_announced = route.is_none_or(|route| {
            route.effect != Effect::Read || route.tags.contains(Tags::REALTIME)
        });
        if is_announced {
            exchange.announce().await.map_err(|_| audit_unavailable())?;
        }
        next.run(exchange, request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amove::catalogue::Catalogue;

    #[test]
    fn what_only_reads_and_lasts_is_the_hub() {
        // The store finds the outcomes of exactly these by their ids (`Record::ends_announced`).
        let lasting = Catalogue::get()
            .routes()
            .iter()
            .filter(|route| route.effect == Effect::Read && route.tags.contains(Tags::REALTIME));
        assert!(lasting.map(|route| route.template).eq(["/api/rm"]));
    }
}
