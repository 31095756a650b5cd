//! TLS towards callers: handshakes, and what they are made with.

mod client;
mod handshake;
mod looks;
mod renewal;

use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::ServerConfig;
use tokio::sync::watch;

pub(super) use self::handshake::{Socket, Stream, secure};
pub use self::renewal::Renewal;
use crate::config::{self, tls::Unusable};

/// What new connections are served with; a handshake that is under way keeps what it began with.
#[derive(Debug)]
pub struct Tls {
    current: ArcSwap<ServerConfig>,
    expires: watch::Sender<Timestamp>,
}

impl Tls {
    /// Reads the files that `config` names; they are taken over again while the renewal runs.
    ///
    /// # Errors
    ///
    /// [`Unusable`]: what is wrong with the files.
    pub fn open(config: &config::Tls) -> Result<(Arc<Self>, Renewal), Unusable> {
        let files = config.look()?;
        let material = config.assemble(&files)?;
        let tls = Arc::new(Self {
            current: ArcSwap::new(Arc::clone(&material.server)),
            expires: watch::Sender::new(material.expires),
        });
        let renewal = Renewal::new(config.clone(), Arc::clone(&tls), &files, material);
        Ok((tls, renewal))
    }

    /// When the certificate in use ends.
    pub fn expires(&self) -> watch::Receiver<Timestamp> {
        self.expires.subscribe()
    }
}
