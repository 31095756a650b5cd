//! What all pools of connections to one host share: its addresses, and what was counted.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};

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
#[derive(Debug)]
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
    /// The exchanges that each pool has room for, and how many that were.
    pools: Mutex<Vec<(Weak<Semaphore>, usize)>>,
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
            pools: Mutex::default(),
        })
    }

    /// How old the next connection may become.
    pub(super) fn next_age(&self) -> Option<Duration> {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        Some(aged(self.longest?, self.seed, number))
    }

    /// A pool has room for so many exchanges.
    pub(super) fn enlist(&self, room: &Arc<Semaphore>, limit: usize) {
        let mut pools = self.lock();
        pools.retain(|(room, _)| room.strong_count() > 0);
        pools.push((Arc::downgrade(room), limit));
    }

    /// How it stands.
    fn standing(&self, host: Host, now: Instant) -> Standing {
        let used = |(room, limit): &(Weak<Semaphore>, usize)| {
            room.upgrade().map_or(0, |room| limit.saturating_sub(room.available_permits()))
        };
        Standing {
            host,
            authority: Arc::clone(&self.authority),
            known: self.addresses.known(now),
            in_use: self.lock().iter().map(used).sum(),
            counted: self.counts.read(),
        }
    }

    /// Nothing can panic while this lock is held.
    fn lock(&self) -> MutexGuard<'_, Vec<(Weak<Semaphore>, usize)>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// Exchanges that are under way.
    pub in_use: usize,
    /// What has happened so far.
    pub counted: Counted,
}

impl Sites {
    /// How they stand.
    pub fn standings(&self, now: Instant) -> [Standing; Host::ALL.len()] {
        Host::ALL.map(|host| self.0[host as usize].standing(host, now))
    }
}
