//! Listens for one of the two hosts.

use std::{io, sync::Arc};

use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::{
    desk,
    routes::Host,
    wire::{Saboteur, Stream, Wire},
    world::World,
};

/// Large enough that a fast sender is not slowed down.
const WINDOW: u32 = 1024 * 1024;
/// Requests are remembered with their headers, so these have to be bounded.
const MAX_HEADERS: u16 = u16::MAX;

/// Accepts connections until the world ends.
pub(super) async fn listen(
    world: Arc<World>,
    host: Host,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    tasks: TaskTracker,
) {
    let end = world.end.clone();
    loop {
        let accepted = tokio::select! {
            () = end.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((tcp, _)) = accepted else {
            // Out of file descriptors, most likely: give others time to end.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        let connection = connection(Arc::clone(&world), host, tcp, tls.clone());
        let end = end.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = end.cancelled() => {}
                // How a connection ends is its client's affair.
                _ = connection => {}
            }
        });
    }
}

async fn connection(
    world: Arc<World>,
    host: Host,
    tcp: TcpStream,
    tls: Option<TlsAcceptor>,
) -> io::Result<()> {
    world.stats.connections.add(1);
    if host == Host::Auth && world.auth_is_down() {
        return tcp.set_zero_linger();
    }
    tcp.set_nodelay(true)?;
    let saboteur = Arc::new(Saboteur::default());
    let (wire, http2) = match tls {
        Some(tls) => {
            let stream = tls.accept(tcp).await?;
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            (Wire::new(Stream::Tls(Box::new(stream)), Arc::clone(&saboteur)), http2)
        }
        None => {
            let mut wire = Wire::new(Stream::Plain(tcp), Arc::clone(&saboteur));
            let http2 = world.options.http2 && wire.is_http2().await?;
            (wire, http2)
        }
    };
    speak(world, host, saboteur, wire, http2).await
}

async fn speak(
    world: Arc<World>,
    host: Host,
    saboteur: Arc<Saboteur>,
    wire: Wire,
    http2: bool,
) -> io::Result<()> {
    let wire = TokioIo::new(wire);
    let service = service_fn(move |request| {
        let (world, saboteur) = (Arc::clone(&world), Arc::clone(&saboteur));
        async move { desk::answer(world, host, &saboteur, request).await }
    });
    let served = if http2 {
        let mut server = http2::Builder::new(TokioExecutor::new());
        server.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW);
        server.max_header_list_size(MAX_HEADERS.into());
        server.timer(TokioTimer::new()).auto_date_header(false);
        server.serve_connection(wire, service).await
    } else {
        let mut server = http1::Builder::new();
        server.max_header_size(MAX_HEADERS.into());
        server.timer(TokioTimer::new()).header_read_timeout(None).auto_date_header(false);
        server.serve_connection(wire, service).with_upgrades().await
    };
    served.map_err(io::Error::other)
}
