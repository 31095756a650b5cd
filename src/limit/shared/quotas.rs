//! All quotas that are shared: looked through for what is not used, and forgotten when nobody has
//! them any more.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{SharedQuota, Store};

/// How often leases are looked through for what is not used.
const TICK: Duration = Duration::from_millis(50);

/// The quotas of all limiters of a gateway.
#[derive(Clone, Debug, Default)]
pub(in crate::limit) struct Quotas(Arc<Mutex<Vec<Arc<SharedQuota>>>>);

impl Quotas {
    /// Looks after `quota` as long as somebody has it besides.
    pub(in crate::limit) fn keep(&self, quota: Arc<SharedQuota>) -> Arc<SharedQuota> {
        self.change(|quotas| quotas.push(Arc::clone(&quota)));
        quota
    }

    /// Gives back what is not used: all of it, where nobody has the quota any more.
    fn look_through(&self, store: &Store) {
        self.change(|quotas| {
            quotas.retain(|quota| {
                // Nobody else can get it from here.
                let is_gone = Arc::strong_count(quota) == 1;
                let order = {
                    let lease = &mut quota.lock().lease;
                    if is_gone { lease.let_go(0) } else { lease.spare(Instant::now()) }
                };
                if let Some(order) = order {
                    let quota = Arc::clone(quota);
                    store.runtime.spawn(async move { quota.give_back(order).await });
                }
                !is_gone
            });
        });
    }

    /// Gives everything back.
    async fn let_go(&self) {
        let quotas = self.change(std::mem::take);
        let rest = quotas.iter().map(|quota| async {
            let order = quota.lock().lease.let_go(0);
            if let Some(order) = order {
                quota.give_back(order).await;
            }
        });
        join_all(rest).await;
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.change(|quotas| quotas.len())
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<Arc<SharedQuota>>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Keeps `quotas` in order until `stop` is cancelled: gives back what is not used, and everything at
/// the end.
pub(in crate::limit) async fn keep(store: &Store, quotas: &Quotas, stop: CancellationToken) {
    let look = async {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            quotas.look_through(store);
        }
    };
    tokio::select! {
        () = look => {}
        () = store.attend() => {}
        () = stop.cancelled() => {}
    }
    quotas.let_go().await;
    if store.is_up() {
        store.leave().await;
    }
}
