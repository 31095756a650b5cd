//! The operators' edge: health, metrics, the state of the gateway, the audit log, and orders to the
//! gateway and its sessions.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{HeaderValue, header};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tower::{ServiceBuilder, service_fn};
use tower_http::{catch_panic::CatchPanicLayer, set_header::SetResponseHeaderLayer};

use self::desk::Desk;
pub use self::{
    reload::{Applied, Last, Outcome, Refused, Reloads, State as ReloadState, Trigger, Wish},
    status::{Circuit, Limits, Paused, Report, Slots, Status},
};
use crate::config::secret::Secret;

mod audit;
mod desk;
mod guard;
mod held_back;
mod metrics;
mod network;
mod orders;
mod reload;
mod reply;
mod status;

/// Connections at once: operators and probes are few.
const CONNECTIONS: usize = 64;

/// A request that comes more slowly is given up. Answers take no time, but for those to orders.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a listener shows.
#[derive(Clone, Debug)]
pub enum Scope {
    /// Health and metrics, to anybody.
    Health,
    /// Everything; what is not health wants the token, if there is one.
    All(Option<Secret>),
}

/// Serves `scope` on `listener` until `stop` is cancelled.
pub async fn serve(
    listener: Arc<TcpListener>,
    status: Arc<Status>,
    scope: Scope,
    stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let is_loopback =
        listener.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
    let desk = Arc::new(Desk::new(status, scope, is_loopback, stop.clone()));
    let mut connections = JoinSet::new();
    loop {
        // Finished connections are let go of while waiting for the next.
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let desk = Arc::clone(&desk);
        let service = ServiceBuilder::new()
            .layer(CatchPanicLayer::new())
            .layer(SetResponseHeaderLayer::overriding(
                header::CACHE_CONTROL,
                HeaderValue::from_static("no-store"),
            ))
            .service(service_fn(move |request| {
                let desk = Arc::clone(&desk);
                async move { Ok::<_, Infallible>(desk.answer(request).await.into_inner()) }
            }));
        connections.spawn(async move {
            let _permit = permit;
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
            if let Err(error) = served.await {
                tracing::debug!(error = error.to_string(), "admin connection ended");
            }
        });
    }
}
