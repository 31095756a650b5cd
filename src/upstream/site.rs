//! What all pools of connections to one host share: its addresses, and what was counted.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{
    addresses::{Addresses, Known, Resolve},
    counts::{Counted, Counts},
    life::aged,
};
use crate::{
    amove::host::Host,
    config::{self, BaseUrl},
};

/// One host of the API, as the network sees it.
pub(super) struct Site {
    pub(super) base: BaseUrl,
    /// Host and port, as `Host` and `:authority` want them.
    pub(super) authority: Arc<str>,
    pub(super) addresses: Arc<Addresses>,
    pub(super) counts: Arc<Counts>,
    /// The longest age of a connection; `None`: any.
    longest: Option<Duration>,
    seed: u64,
    connections: AtomicU64,
    /// More than these are not kept open.
    limit: usize,
    /// Those that are being opened.
    dialling: AtomicUsize,
    reserves: Mutex<Vec<Weak<dyn Reserve>>>,
}

/// Has connections put aside.
pub(super) trait Reserve: Send + Sync {
    /// Closes the one that was unused longest; whether there was one.
    fn give_up(&self) -> bool;
}

/// A connection that is being opened.
#[must_use]
pub(super) struct Dialling<'a>(&'a Site);

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        self.0.dialling.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Site {
    pub(super) fn new(base: &BaseUrl, config: &config::Upstream, resolve: &Resolve) -> Arc<Self> {
        let counts = Arc::<Counts>::default();
        let addresses = Addresses::new(base, Arc::clone(resolve), Arc::clone(&counts));
        Self::over(base, config, addresses, counts)
    }

    /// The same under `config`: what was counted stays, and so do the addresses if `base` does.
    pub(super) fn under(&self, base: &BaseUrl, config: &config::Upstream) -> Arc<Self> {
        let addresses = if *base == self.base {
            Arc::clone(&self.addresses)
        } else {
            Addresses::new(base, self.addresses.resolve(), Arc::clone(&self.counts))
        };
        Self::over(base, config, addresses, Arc::clone(&self.counts))
    }

    fn over(
        base: &BaseUrl,
        config: &config::Upstream,
        addresses: Arc<Addresses>,
        counts: Arc<Counts>,
    ) -> Arc<Self> {
        Arc::new(Self {
            base: base.clone(),
            authority: authority(base),
            addresses,
            counts,
            longest: config.max_connection_age,
            seed: RandomState::new().hash_one(()),
            connections: AtomicU64::new(0),
            limit: config.max_connections,
            dialling: AtomicUsize::new(0),
            reserves: Mutex::default(),
        })
    }

    /// How old the next connection may become.
    pub(super) fn next_age(&self) -> Option<Duration> {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        Some(aged(self.longest?, self.seed, number))
    }

    /// Gives connections up when others are wanted.
    pub(super) fn enlist(&self, reserve: Weak<dyn Reserve>) {
        let mut reserves = self.lock();
        reserves.retain(|other| other.strong_count() > 0);
        reserves.push(reserve);
    }

    /// One more is being opened. Where that is one too many, some worker has put one aside that it
    /// does not need: there are never more in use.
    pub(super) fn dialling(&self) -> Dialling<'_> {
        let others = self.dialling.fetch_add(1, Ordering::SeqCst) as u64;
        if self.counts.read().open() + others >= self.limit as u64 {
            let reserves = self.lock().clone();
            let mut reserves = reserves.iter().filter_map(Weak::upgrade);
            let _ = reserves.any(|reserve| reserve.give_up());
        }
        Dialling(self)
    }

    /// How it stands.
    fn standing(&self, host: Host, now: Instant) -> Standing {
        Standing {
            host,
            authority: Arc::clone(&self.authority),
            known: self.addresses.known(now),
            counted: self.counts.read(),
        }
    }

    /// Nothing can panic while this lock is held.
    fn lock(&self) -> MutexGuard<'_, Vec<Weak<dyn Reserve>>> {
        self.reserves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site").field("host", &self.authority).finish_non_exhaustive()
    }
}

/// Host and port, the port left out where it is the scheme's own.
fn authority(base: &BaseUrl) -> Arc<str> {
    let host =
        if base.host.contains(':') { format!("[{}]", base.host) } else { base.host.to_string() };
    let own = if base.tls { 443 } else { 80 };
    if base.port == own { host.into() } else { format!("{host}:{}", base.port).into() }
}

/// Both hosts of the API, as the network sees them. All workers share them.
#[derive(Clone, Debug)]
pub struct Sites(pub(super) [Arc<Site>; Host::ALL.len()]);

/// How the connections to one host stand.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Which host.
    pub host: Host,
    /// Its name and port.
    pub authority: Arc<str>,
    /// Its addresses.
    pub known: Known,
    /// What has happened so far.
    pub counted: Counted,
}

impl Sites {
    /// How they stand.
    pub fn standings(&self, now: Instant) -> [Standing; Host::ALL.len()] {
        Host::ALL.map(|host| self.0[host as usize].standing(host, now))
    }
}
