//! Opens connections: looks the name up, calls its addresses, shakes hands.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{
    Error,
    counts::{Ending, Step},
    life::{Life, Socket},
    race::{Race, race},
    site::Site,
    tls::{Stream, Tls},
};

/// What is to be spoken.
#[derive(Clone, Copy, Debug)]
pub(super) enum Speaks {
    /// What the configuration and the host agree upon.
    Any,
    /// HTTP/1.1, whatever else the host speaks: only there are protocols switched.
    Http1,
}

/// Opens connections to one host.
#[derive(Clone, Debug)]
pub(super) struct Dialler {
    pub(super) site: Arc<Site>,
    pub(super) tls: Tls,
    /// How long all of it may take.
    pub(super) within: Duration,
}

impl Dialler {
    /// A new connection, over which nothing has been said yet.
    ///
    /// # Errors
    ///
    /// [`Error::Lookup`], [`Error::Connect`] and [`Error::ConnectTimeout`].
    pub(super) async fn dial(&self, speaks: Speaks) -> Result<Stream, Error> {
        let end = Instant::now() + self.within;
        let looked_up = timeout_at(end, self.site.addresses.next()).await;
        let Ok(looked_up) = looked_up else { return Err(self.too_slow(Step::Lookup)) };
        let addresses = looked_up.map_err(|source| {
            self.site.counts.failed(Step::Lookup);
            Error::Lookup { host: Arc::clone(&self.site.authority), source }
        })?;
        let called = {
            let _counted = self.site.dialling();
            self.call(addresses, end).await
        };
        let (address, socket) = called?;
        let life = Arc::clone(&socket.life);
        let shaken = match speaks {
            Speaks::Any => timeout_at(end, self.tls.wrap(&self.site.base, socket)).await,
            Speaks::Http1 => timeout_at(end, self.tls.wrap_http1(&self.site.base, socket)).await,
        };
        if let Ok(Ok(stream)) = shaken {
            self.site.addresses.praise(address);
            return Ok(stream);
        }
        life.end(Ending::Handshake);
        self.site.addresses.avoid(address);
        Err(shaken.map_or_else(
            |_| self.too_slow(Step::Tls),
            |failed| self.failed(Step::Tls, failed.err()),
        ))
    }

    async fn call(
        &self,
        addresses: Vec<SocketAddr>,
        end: Instant,
    ) -> Result<(SocketAddr, Socket), Error> {
        let Race { outcome, losers } = race(addresses, end, open).await;
        for loser in losers {
            self.site.addresses.avoid(loser);
        }
        match outcome {
            Some(Ok((address, tcp))) => {
                let life = Life::begin(&self.site, address);
                Ok((address, Socket { tcp, life }))
            }
            Some(Err(error)) => {
                self.site.addresses.doubt();
                Err(self.failed(Step::Connect, Some(error)))
            }
            None => {
                self.site.addresses.doubt();
                Err(self.too_slow(Step::Connect))
            }
        }
    }

    fn failed(&self, step: Step, error: Option<io::Error>) -> Error {
        self.site.counts.failed(step);
        let source = error.unwrap_or_else(|| io::ErrorKind::Other.into());
        Error::Connect { host: Arc::clone(&self.site.authority), source }
    }

    fn too_slow(&self, step: Step) -> Error {
        self.site.counts.failed(step);
        let host = Arc::clone(&self.site.authority);
        Error::ConnectTimeout { host, within: self.within, step }
    }
}

async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}
