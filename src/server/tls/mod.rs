//! TLS towards callers: handshakes, and what they are made with.

mod client;
mod handshake;
mod renewal;

use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::ServerConfig;
use tokio::sync::watch;

pub(super) use self::handshake::{Socket, Stream, secure};
pub use self::renewal::Renewal;
use crate::config::{
    self,
    looks::Fingerprint,
    tls::{Material, Unusable},
};

/// What new connections are served with; a handshake that is under way keeps what it began with.
#[derive(Debug)]
pub struct Tls {
    current: ArcSwap<ServerConfig>,
    expires: watch::Sender<Timestamp>,
    /// What the renewal is to look after, since it was configured anew.
    configured: watch::Sender<Option<Arc<Configured>>>,
}

/// Other files, read and found to go together.
#[derive(Debug)]
pub struct Configured {
    config: config::Tls,
    fingerprint: Fingerprint,
    material: Material,
}

impl Configured {
    /// Reads the files that `config` names.
    ///
    /// # Errors
    ///
    /// [`Unusable`]: what is wrong with the files.
    pub fn read(config: &config::Tls) -> Result<Arc<Self>, Unusable> {
        let files = config.look()?;
        let (material, fingerprint) = (config.assemble(&files)?, files.fingerprint());
        Ok(Arc::new(Self { config: config.clone(), fingerprint, material }))
    }
}

impl Tls {
    /// Reads the files that `config` names; they are taken over again while the renewal runs.
    ///
    /// # Errors
    ///
    /// [`Unusable`]: what is wrong with the files.
    pub fn open(config: &config::Tls) -> Result<(Arc<Self>, Renewal), Unusable> {
        let configured = Configured::read(config)?;
        let tls = Arc::new(Self {
            current: ArcSwap::new(Arc::clone(&configured.material.server)),
            expires: watch::Sender::new(configured.material.expires),
            configured: watch::Sender::new(None),
        });
        let renewal = Renewal::new(configured, Arc::clone(&tls));
        Ok((tls, renewal))
    }

    /// Serves new connections with other files, which the renewal looks after from now on.
    pub fn configure(&self, configured: Arc<Configured>) {
        // As long as this is lent, the renewal puts nothing in force.
        self.configured.send_modify(|now| {
            self.put_in_force(&configured.material);
            *now = Some(configured);
        });
    }

    fn put_in_force(&self, material: &Material) {
        self.current.store(Arc::clone(&material.server));
        self.expires.send_replace(material.expires);
    }

    /// When the certificate in use ends.
    pub fn expires(&self) -> watch::Receiver<Timestamp> {
        self.expires.subscribe()
    }
}
