//! The way to the API: two hosts, and no other can be named.

use std::{io, sync::Arc, time::Duration};

use http::header;

pub use crate::amove::host::Host;
use crate::{
    config,
    message::{BoxError, Request, Response},
    slots::Slot,
};

mod addresses;
pub mod auth;
mod connection;
mod counts;
mod dial;
mod life;
mod order;
mod pool;
mod quiet;
mod race;
mod shared;
mod site;
mod switched;
#[cfg(test)]
mod tests;
mod tls;
pub mod trust;
mod unprocessed;
pub mod userinfo;

pub use addresses::Known;
pub use counts::{Counted, Ending, Step};
pub use pool::goes_on;
pub use site::{Sites, Standing};

use addresses::Resolve;
use pool::Pool;
use site::Site;

/// The way to both hosts of the API. Cloning it shares the connections.
#[derive(Clone, Debug)]
pub struct Upstream {
    api: Arc<Pool>,
    auth: Arc<Pool>,
    sites: Sites,
}

impl Upstream {
    /// Prepares the way that `config` describes; connects when it is first used.
    ///
    /// # Errors
    ///
    /// [`Error::Roots`] when `upstream.ca_file` or the system's trust roots cannot be used.
    pub fn new(config: &config::Upstream) -> Result<Self, Error> {
        Self::resolved_by(config, &addresses::system())
    }

    /// The same, but names are looked up by `resolve`.
    fn resolved_by(config: &config::Upstream, resolve: &Resolve) -> Result<Self, Error> {
        let site = |base| Site::new(base, config, resolve);
        Self::over(config, Sites([site(&config.api_url), site(&config.auth_url)]))
    }

    /// The way that another `config` describes, without any connection yet. What was counted stays,
    /// and so do the addresses of hosts that do.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn under(&self, config: &config::Upstream) -> Result<Self, Error> {
        let Sites([api, auth]) = &self.sites;
        let sites = [api.under(&config.api_url, config), auth.under(&config.auth_url, config)];
        Self::over(config, Sites(sites))
    }

    fn over(config: &config::Upstream, sites: Sites) -> Result<Self, Error> {
        let tls = tls::Tls::new(config).map_err(Error::Roots)?;
        let Sites([api, auth]) = &sites;
        let api = Pool::new(config, api, tls.clone());
        let auth = Pool::new(config, auth, tls);
        Ok(Self { api, auth, sites })
    }

    /// Both hosts, as the network sees them; siblings have the same.
    pub const fn sites(&self) -> &Sites {
        &self.sites
    }

    /// The same way with connections of its own: each worker has one.
    #[must_use]
    pub fn sibling(&self) -> Self {
        let (api, auth) = (self.api.sibling(), self.auth.sibling());
        Self { api, auth, sites: self.sites.clone() }
    }

    /// Sends `request`, whose URI is in origin form, to `host` and waits for the response's head.
    /// With an `Upgrade` field it may switch protocols, see [`crate::message::Body::into_tunnel`].
    ///
    /// One attempt: a request is sent again only if nothing of it was written, or if the host says
    /// that it has not processed it; then also if it is a write.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn send(&self, host: Host, request: Request) -> Result<Response, Error> {
        self.send_in(host, request, None).await
    }

    /// The same, in a slot that is held until the last byte of the response has come.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn send_in(
        &self,
        host: Host,
        request: Request,
        slot: Option<Slot>,
    ) -> Result<Response, Error> {
        let pool = match host {
            Host::Api => &self.api,
            Host::Auth => &self.auth,
        };
        let response = pool.send(request, slot).await?;
        unambiguous(&response)?;
        Ok(response)
    }
}

/// Why there was no response. Each level prints one line; the cause is the source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The trust roots cannot be used.
    #[error("cannot prepare TLS for the API")]
    Roots(#[source] BoxError),
    /// Nobody knows an address of the host.
    #[error("cannot resolve {host}")]
    Lookup {
        /// Host and port that were to be dialled.
        host: Arc<str>,
        /// What the resolver said.
        source: Arc<io::Error>,
    },
    /// No connection could be opened, or its TLS handshake failed.
    #[error("cannot connect to {host}")]
    Connect {
        /// Host and port that were dialled.
        host: Arc<str>,
        /// What the system or the handshake said.
        source: io::Error,
    },
    /// No connection was opened in time.
    #[error("no connection to {host} within {within:?} ({})", step.name())]
    ConnectTimeout {
        /// Host and port that were dialled.
        host: Arc<str>,
        /// `upstream.connect_timeout`.
        within: Duration,
        /// What took too long.
        step: Step,
    },
    /// The connection ended before there was a response, or what came was not HTTP.
    #[error("the API broke the connection off")]
    Broken(#[source] hyper::Error),
    /// The API says that it has not processed the request, and there is nothing left to send again,
    /// or it was said too often.
    #[error("the API did not process the request")]
    Unprocessed(#[source] hyper::Error),
    /// The request's own body broke off, so that the request was never complete.
    #[error("the request's body broke off")]
    RequestBody(#[source] hyper::Error),
    /// The response can be read in more than one way.
    #[error("the API's response is ambiguous: {0}")]
    Ambiguous(&'static str),
}

/// Nobody has asked for it.
const UNASKED: Error = Error::Ambiguous("it switches to a protocol that was not asked for");

impl Error {
    /// Whether there was nothing of an answer because nobody was there, or somebody hung up: what
    /// passes by itself. The request may have arrived.
    pub fn is_hang_up(&self) -> bool {
        match self {
            Self::Connect { source, .. } => is_hang_up(source),
            Self::Unprocessed(_) => true,
            Self::Broken(error) => {
                error.is_incomplete_message() || error.is_closed() || breaks_off(error)
            }
            _ => false,
        }
    }

    /// Whether time ran out, as opposed to an answer that was bad or refused.
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::ConnectTimeout { .. } => true,
            Self::Connect { source, .. } => source.kind() == io::ErrorKind::TimedOut,
            _ => false,
        }
    }
}

fn breaks_off(error: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(link) = cause {
        if link.downcast_ref().is_some_and(is_hang_up) {
            return true;
        }
        cause = link.source();
    }
    false
}

fn is_hang_up(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::BrokenPipe
            | Kind::UnexpectedEof
    )
}

/// Refuses what another reader might read differently (RFC 9112 section 6.3), and a switch of
/// protocols that nobody asked for.
fn unambiguous(response: &Response) -> Result<(), Error> {
    let headers = response.headers();
    if response.status().is_informational() && !response.body().is_switched() {
        return Err(UNASKED);
    }
    if headers.contains_key(header::TRANSFER_ENCODING)
        && headers.contains_key(header::CONTENT_LENGTH)
    {
        return Err(Error::Ambiguous("it has both Content-Length and Transfer-Encoding"));
    }
    if headers
        .get_all(header::TRANSFER_ENCODING)
        .iter()
        .any(|v| !v.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Err(Error::Ambiguous("its Transfer-Encoding is not `chunked`"));
    }
    Ok(())
}
