//! Keeps one identity signed in: where its callers ask, and the task that does what the machine
//! decides.

mod credentials;
mod log_out;
mod run;
mod view;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::view::{Snapshot, View};
use super::{
    Error, Token,
    counts::Counters,
    login::Means,
    skew::Skew,
    slot::Slot,
    status::{CredentialsKind, Status},
    steps::Steps,
    store::{Binding, Shelf},
};
use crate::{
    clock::Clock,
    config::{Identity, StoreError},
    supervise::supervise,
    upstream::Upstream,
};

/// A login takes no longer: half a minute of calls, a code or two that have to be waited for.
const PATIENCE: Duration = Duration::from_secs(90);
/// Who waits looks up so often: a token may serve again without anything having happened.
const LOOK_UP: Duration = Duration::from_millis(500);

/// What the keepers of all identities share, whatever the configuration.
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) skew: Skew,
    pub(super) runtime: Handle,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    pub(super) on_error: StoreError,
}

/// What a keeper works with, as it is configured at the moment.
pub(super) struct Given {
    pub(super) identity: Identity,
    pub(super) upstream: Upstream,
}

/// Keeps one identity signed in.
pub(super) struct Keeper {
    name: Arc<str>,
    /// Whose session it is: one of another user is another keeper's.
    binding: Binding,
    given: ArcSwap<Given>,
    shared: Arc<Shared>,
    /// Cancelled when the identity, or the gateway, has come to its end.
    stop: CancellationToken,
    shelf: Arc<Shelf>,
    slot: Slot,
    steps: Steps,
    counters: Counters,
    /// What is asked of the task.
    asked: Asked,
    /// What the task tells those who wait.
    view: watch::Sender<View>,
    /// What the task tells operators.
    snapshot: Mutex<Snapshot>,
}

/// What is asked of the task. It gathers here, so there is no queue that could grow.
#[derive(Debug, Default)]
struct Asked {
    wake: Notify,
    /// The latest generation whose token was denied since; 0: none.
    denied: AtomicU64,
    /// The latest generation whose token was doubted since; 0: none.
    doubted: AtomicU64,
    refreshes: AtomicU64,
    revocations: AtomicU64,
}

impl Keeper {
    pub(super) fn new(given: Given, binding: Binding, shelf: Shelf, shared: Arc<Shared>) -> Self {
        let shelf = Arc::new(shelf);
        let snapshot = Mutex::new(Snapshot::at(shared.clock.now()));
        Self {
            name: Arc::clone(&given.identity.name),
            binding,
            given: ArcSwap::from_pointee(given),
            steps: Steps::new(Arc::clone(&shelf)),
            shelf,
            stop: shared.stop.child_token(),
            shared,
            slot: Slot::default(),
            counters: Counters::default(),
            asked: Asked::default(),
            view: watch::Sender::new(View::default()),
            snapshot,
        }
    }

    /// Who is kept signed in.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether it is the session of that user, at that host, that is kept.
    pub(super) fn is_of(&self, binding: &Binding) -> bool {
        self.binding == *binding
    }

    /// Goes on with what is configured now. Other credentials are proved by a login; until that has
    /// come to something, the session in force serves.
    pub(super) fn follow(&self, given: Given) {
        self.given.store(Arc::new(given));
        self.asked.wake.notify_one();
    }

    /// Ends it: logs out as at the end of the gateway.
    pub(super) fn end(&self) {
        self.stop.cancel();
    }

    fn given(&self) -> Arc<Given> {
        self.given.load_full()
    }

    fn means<'a>(&'a self, given: &'a Given) -> Means<'a> {
        let Shared { clock, skew, .. } = &*self.shared;
        Means { upstream: &given.upstream, clock, skew }
    }

    /// Begins to keep the identity signed in, in the background.
    pub(super) fn start(self: &Arc<Self>) {
        let Shared { runtime, tasks, .. } = &*self.shared;
        let (keeper, died) = (Arc::clone(self), Arc::clone(self));
        let keep = move || run::run(Arc::clone(&keeper));
        let died = move || died.died();
        tasks.spawn_on(supervise(runtime.clone(), self.stop.clone(), keep, died), runtime);
    }

    fn died(&self) {
        tracing::error!(identity = %self.name, "the task that keeps an identity signed in has died; starting it again");
        self.counters.keeper_restarts.add();
    }

    /// The token in force, if it may be sent. Takes no lock.
    pub(super) fn current(&self) -> Option<Arc<Token>> {
        let now = self.shared.clock.now();
        self.slot.token().filter(|token| token.serves(now) && token.is_trusted(now))
    }

    /// The token in force, or that of the one login.
    pub(super) async fn token(&self) -> Result<Arc<Token>, Error> {
        if let Some(token) = self.current() {
            return Ok(token);
        }
        self.asked.wake.notify_one();
        self.wait(|view| match self.current() {
            Some(token) => Some(Ok(token)),
            None => self.failure(view).map(Err),
        })
        .await
    }

    /// A token newer than `stale`, which the API has denied.
    pub(super) async fn renew(&self, stale: &Token) -> Result<Arc<Token>, Error> {
        self.counters.denials.add();
        let denied = stale.generation();
        if self.slot.generation() == denied {
            self.asked.denied.fetch_max(denied, SeqCst);
            self.asked.wake.notify_one();
        }
        self.wait(|view| {
            if self.slot.generation() > denied
                && let Some(token) = self.current()
            {
                return Some(Ok(token));
            }
            let is_settled = self.slot.generation() > denied || view.denials_seen >= denied;
            let failure = is_settled.then(|| self.failure(view)).flatten();
            let held = || self.denials_held(view).filter(|_| is_settled && !view.pending);
            failure.or_else(held).map(Err)
        })
        .await
    }

    /// This token was fresh and was denied as well, or nobody has found out whether it helps.
    pub(super) fn doubt(&self, fresh: &Token) {
        self.asked.doubted.fetch_max(fresh.generation(), SeqCst);
        self.asked.wake.notify_one();
    }

    /// Another token, whatever stands in the way.
    pub(super) async fn refresh(&self) -> Result<Arc<Token>, Error> {
        let before = self.slot.generation();
        let ticket = self.asked.refreshes.fetch_add(1, SeqCst) + 1;
        self.asked.wake.notify_one();
        self.wait(|view| {
            let done = view.ended || view.tickets.refreshed >= ticket;
            let token = || self.current().filter(|token| token.generation() > before);
            done.then(|| token().ok_or_else(|| self.why_not(view)))
        })
        .await
    }

    /// Ends the session in force.
    pub(super) async fn revoke(&self) -> Result<(), Error> {
        let ticket = self.asked.revocations.fetch_add(1, SeqCst) + 1;
        self.asked.wake.notify_one();
        self.wait(|view| {
            let done = view.ended || view.tickets.revoked >= ticket;
            let failed = view.ended || view.tickets.revoke_failed;
            done.then(|| if failed { Err(self.why_not(view)) } else { Ok(()) })
        })
        .await
    }

    /// How things stand.
    pub(super) fn status(&self) -> Status {
        let now = self.shared.clock.now();
        let token = self.slot.token().filter(|token| token.serves(now));
        let token = token.as_deref();
        let snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Status {
            name: self.name.to_string(),
            credentials: CredentialsKind::Password,
            state: snapshot.state,
            serving: token.is_some(),
            generation: self.slot.generation(),
            issued: token.map(Token::issued),
            expires: token.and_then(Token::expires),
            renews: token.map(Token::renew_at),
            second_factor: token.map(Token::second_factor),
            failure: snapshot.failure,
            retries: snapshot.retries,
            members: snapshot.members,
            store_error: snapshot.store_error,
            counts: self.counters.read(),
            keeper_seen: snapshot.seen,
        }
    }

    /// Waits until the task's view lets `decide` come to an end.
    async fn wait<T>(
        &self,
        mut decide: impl FnMut(&View) -> Option<Result<T, Error>>,
    ) -> Result<T, Error> {
        let deadline = Instant::now() + PATIENCE;
        let mut view = self.view.subscribe();
        loop {
            let decided = decide(&view.borrow_and_update());
            if let Some(outcome) = decided {
                return outcome;
            }
            let news = async {
                tokio::select! {
                    _ = view.changed() => {}
                    () = sleep(LOOK_UP) => {}
                }
            };
            if timeout_at(deadline, news).await.is_err() {
                return Err(self.broken_off());
            }
        }
    }
}
