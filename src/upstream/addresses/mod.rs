//! The addresses of one host: looked up again, and remembered while nobody answers.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt, Shared};
use tokio::time::{Instant, timeout};

use super::{counts::Counts, order::order};
use crate::config::BaseUrl;

/// How long an answer is good for new connections: many are opened at once, and each look-up
/// occupies a thread.
const FRESH: Duration = Duration::from_secs(10);
/// How soon it is asked again after nobody answered, if there are former addresses.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a new answer is waited for, if there are former addresses.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long an address is avoided at which nobody was there.
const AVOID: Duration = Duration::from_secs(30);
/// A name has no more addresses that matter.
const MOST: usize = 32;

/// Asks for the addresses of a host at a port.
pub(super) type Resolve =
    Arc<dyn Fn(Arc<str>, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// Asks the system, as everything else on this machine does: `/etc/hosts`, `nsswitch.conf` and the
/// order of RFC 6724 are its business.
pub(super) fn system() -> Resolve {
    Arc::new(|host, port| {
        async move { Ok(tokio::net::lookup_host((&*host, port)).await?.collect()) }.boxed()
    })
}

/// What came of a look-up. All who wait for it get the same.
type Answer = Result<Arc<[SocketAddr]>, Arc<io::Error>>;

/// The addresses of one host. All workers share them.
pub(super) struct Addresses {
    host: Arc<str>,
    port: u16,
    resolve: Resolve,
    counts: Arc<Counts>,
    state: Mutex<State>,
    /// How often they have changed: all that a request asks while they have not.
    generation: AtomicU64,
}

#[derive(Default)]
struct State {
    /// The last answer, however old. Empty: there was none.
    list: Arc<[SocketAddr]>,
    answered: Option<Instant>,
    /// From when on it is asked again; `None`: now.
    fresh_until: Option<Instant>,
    /// Why nobody answered when it was last asked.
    failure: Option<Arc<io::Error>>,
    looking: Option<Shared<BoxFuture<'static, Answer>>>,
    /// Until when an address is avoided; only those of `list` are here.
    avoided: Vec<(SocketAddr, Instant)>,
    turn: usize,
}

/// The addresses at one moment.
#[derive(Clone, Debug)]
pub struct Known {
    /// Each address, and whether it is avoided for a while.
    pub addresses: Vec<(SocketAddr, bool)>,
    /// How old the answer is; `None`: nobody was asked, or nobody has answered yet.
    pub age: Option<Duration>,
    /// Why nobody answered when it was last asked.
    pub failure: Option<String>,
}

impl Addresses {
    pub(super) fn new(base: &BaseUrl, resolve: Resolve, counts: Arc<Counts>) -> Arc<Self> {
        let mut state = State::default();
        // An address needs no look-up, and never changes.
        let fixed = base.host.parse::<IpAddr>().ok();
        state.list = fixed.map(|ip| SocketAddr::new(ip, base.port)).into_iter().collect();
        Arc::new(Self {
            host: Arc::clone(&base.host),
            port: base.port,
            resolve,
            counts,
            state: Mutex::new(state),
            generation: AtomicU64::new(0),
        })
    }

    /// Who is asked.
    pub(super) fn resolve(&self) -> Resolve {
        Arc::clone(&self.resolve)
    }

    /// Those to try, in this order; another order each time.
    ///
    /// # Errors
    ///
    /// Nobody knows any, and never has.
    pub(super) async fn next(self: &Arc<Self>) -> Result<Vec<SocketAddr>, Arc<io::Error>> {
        let list = self.list().await?;
        let now = Instant::now();
        let mut state = self.lock();
        state.turn = state.turn.wrapping_add(1);
        state.avoided.retain(|(_, until)| *until > now);
        Ok(order(&list, state.turn, |it| state.avoids(it)))
    }

    async fn list(self: &Arc<Self>) -> Answer {
        let (known, looking) = {
            let mut state = self.lock();
            let is_fixed = state.answered.is_none() && !state.list.is_empty();
            if is_fixed || state.fresh_until.is_some_and(|until| Instant::now() < until) {
                return Ok(Arc::clone(&state.list));
            }
            (Arc::clone(&state.list), self.look_up(&mut state))
        };
        if known.is_empty() {
            return looking.await;
        }
        // Without an answer the former one serves: a resolver that is gone must not stop us.
        let answer = timeout(PATIENCE, looking).await;
        Ok(answer.ok().and_then(Result::ok).unwrap_or(known))
    }

    /// One look-up at a time: all wait for it, and it goes on when they have given up.
    fn look_up(self: &Arc<Self>, state: &mut State) -> Shared<BoxFuture<'static, Answer>> {
        if let Some(looking) = state.looking.as_ref().filter(|it| it.peek().is_none()) {
            return looking.clone();
        }
        let addresses = Arc::clone(self);
        let looking = tokio::spawn(async move {
            let answer = (addresses.resolve)(Arc::clone(&addresses.host), addresses.port).await;
            addresses.learn(answer)
        });
        // It fails if the runtime ends, with which everything ends that waits for it.
        let looking = looking.map(|it| it.unwrap_or_else(|error| Err(Arc::new(error.into()))));
        let looking = looking.boxed().shared();
        state.looking = Some(looking.clone());
        looking
    }

    fn learn(&self, answer: io::Result<Vec<SocketAddr>>) -> Answer {
        let now = Instant::now();
        let answer = answer.and_then(|found| {
            let mut list = Vec::new();
            for address in found {
                if list.len() < MOST && !list.contains(&address) {
                    list.push(address);
                }
            }
            if list.is_empty() {
                Err(io::Error::other("the name has no address"))
            } else {
                Ok(list)
            }
        });
        self.counts.looked_up(answer.is_ok());
        let mut state = self.lock();
        match answer {
            Ok(list) => {
                if state.failure.take().is_some() {
                    tracing::info!(host = &*self.host, "name is resolved again");
                }
                let is_other = !is_same(&list, &state.list);
                if is_other && !state.list.is_empty() {
                    let addresses = format!("{list:?}");
                    tracing::info!(host = &*self.host, addresses, "name has other addresses");
                }
                state.avoided.retain(|(address, _)| list.contains(address));
                state.list = list.into();
                state.answered = Some(now);
                state.fresh_until = Some(now + FRESH);
                if is_other {
                    self.generation.fetch_add(1, Ordering::Release);
                }
                Ok(Arc::clone(&state.list))
            }
            Err(error) => {
                let has_former = !state.list.is_empty();
                if state.failure.is_none() {
                    let error = error.to_string();
                    tracing::warn!(host = &*self.host, error, has_former, "name is not resolved");
                }
                let error = Arc::new(error);
                state.failure = Some(Arc::clone(&error));
                state.fresh_until = has_former.then(|| now + AGAIN);
                Err(error)
            }
        }
    }

    /// Nobody was there, or somebody else came first: others are tried before it for a while.
    pub(super) fn avoid(&self, address: SocketAddr) {
        let until = Instant::now() + AVOID;
        let mut state = self.lock();
        state.avoided.retain(|(avoided, _)| *avoided != address);
        if state.list.contains(&address) {
            state.avoided.push((address, until));
        }
    }

    /// Somebody is there.
    pub(super) fn praise(&self, address: SocketAddr) {
        self.lock().avoided.retain(|(avoided, _)| *avoided != address);
    }

    /// Nobody was there at any of them: perhaps there are others by now.
    pub(super) fn doubt(&self) {
        let soon = Instant::now() + AGAIN;
        let mut state = self.lock();
        state.fresh_until = state.fresh_until.map(|until| until.min(soon));
    }

    /// Changes whenever the addresses do.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether the name has this address, by the last answer.
    pub(super) fn contain(&self, address: &SocketAddr) -> bool {
        self.lock().list.contains(address)
    }

    pub(super) fn known(&self, now: Instant) -> Known {
        let state = self.lock();
        let avoids = |it: &SocketAddr| {
            state.avoided.iter().any(|(avoided, until)| avoided == it && *until > now)
        };
        Known {
            addresses: state.list.iter().map(|it| (*it, avoids(it))).collect(),
            age: state.answered.map(|answered| now.duration_since(answered)),
            failure: state.failure.as_ref().map(ToString::to_string),
        }
    }

    /// Nothing can panic while this lock is held.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn avoids(&self, address: &SocketAddr) -> bool {
        self.avoided.iter().any(|(avoided, _)| avoided == address)
    }
}

/// Whether these are the same, in whatever order: resolvers turn them round.
fn is_same(some: &[SocketAddr], others: &[SocketAddr]) -> bool {
    some.len() == others.len() && some.iter().all(|it| others.contains(it))
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Addresses").field("host", &self.host).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
