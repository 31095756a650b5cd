//! The task that keeps an identity signed in: tells the machine what happens, and does what it
//! decides.

use std::{
    future::pending,
    hash::{BuildHasher, RandomState},
    panic::AssertUnwindSafe,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::join_all};
use jiff::Timestamp;
use tokio::{
    select,
    task::{JoinError, JoinHandle},
    time::{Instant, sleep, sleep_until},
};
use tracing::{debug, error, info, warn};

use super::{
    Given, Keeper,
    credentials::{self, Watched},
    view::{Snapshot, View},
};
use crate::session::{
    Token,
    error::sentence,
    login::{self, Secrets},
    machine::{Action, Ending, Event, Failed, Machine, Moment, Seen},
    store::{self, Claim, Failure, LEASE, Lease, Left, Look, Put, Stored},
    token::Service,
};

/// The task looks around at least this often: clocks jump, machines sleep.
const LONGEST_REST: Duration = Duration::from_secs(10);
/// A shared store is looked at so often: the others follow within a second.
const LOOK_AT_STORE: Duration = Duration::from_millis(500);
/// While a login is fetched, callers wait so long at most before they use a suspect token.
const SUSPICION: Duration = Duration::from_secs(5);
/// Who was seen no longer ago than this is surely still there.
const SURELY_THERE: Duration = Duration::from_secs(1);

/// What came of something that was going on.
enum Done {
    Claim(Result<Claim, store::Error>),
    LogIn(Result<Stored, login::Error>, Arc<Secrets>, Option<Lease>),
    Write(Result<Put, store::Error>),
}

struct Run {
    keeper: Arc<Keeper>,
    /// What is configured, as far as it was taken note of.
    given: Arc<Given>,
    machine: Machine,
    credentials: Watched,
    /// At most one thing is going on.
    job: Option<JoinHandle<Done>>,
    /// Besides, the store is looked at, also while a login is under way: it tells that we live.
    look: Option<JoinHandle<Result<Look, store::Error>>>,
    lease: Option<Lease>,
    challenged: Arc<AtomicBool>,
    next_look: Instant,
    next_credentials: Instant,
    refreshes: u64,
    revocations: u64,
    stopping: bool,
    store_is_down: bool,
}

/// Keeps the identity signed in until it is told to stop; then leaves, and logs out what is ours.
pub(super) async fn run(keeper: Arc<Keeper>) {
    let given = keeper.given();
    let identity = given.identity.clone();
    let machine = Machine::new(identity, keeper.shared.on_error, keeper.slot.generation());
    let now = Instant::now();
    let mut run = Run {
        given,
        machine,
        credentials: Watched::default(),
        job: None,
        look: None,
        lease: None,
        challenged: Arc::default(),
        next_look: now,
        next_credentials: now,
        refreshes: 0,
        revocations: 0,
        stopping: false,
        store_is_down: false,
        keeper,
    };
    while !run.machine.has_ended() {
        for event in run.next().await {
            run.take(event);
        }
    }
    run.leave().await;
}

impl Run {
    /// Waits for something to happen.
    async fn next(&mut self) -> Vec<Event> {
        self.begin_look();
        let rest = self.rest();
        let (keeper, stopping) = (Arc::clone(&self.keeper), self.stopping);
        select! {
            biased;
            done = finished(&mut self.job) => vec![self.done(done)],
            looked = finished(&mut self.look) => vec![self.looked(looked)],
            () = keeper.stop.cancelled(), if !stopping => {
                self.stopping = true;
                vec![Event::Shutdown]
            }
            () = keeper.asked.wake.notified() => self.asked(),
            () = sleep_until(rest) => self.passed(),
        }
    }

    fn take(&mut self, event: Event) {
        let at = self.moment();
        let actions = self.machine.on(event, at);
        for action in actions {
            self.perform(action);
        }
        self.tell(at.now);
    }

    /// Tells those who wait, and operators. They see the token before they see that it has come.
    fn tell(&mut self, now: Timestamp) {
        let snapshot = Snapshot::of(&self.machine, now);
        self.tell_of_store(snapshot.store_error.as_deref());
        *self.keeper.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
        let view = View::of(&self.machine, now);
        self.keeper.view.send_if_modified(|before| {
            let changed = *before != view;
            *before = view;
            changed
        });
    }

    fn tell_of_store(&mut self, error: Option<&str>) {
        let identity = &self.keeper.name;
        match error {
            Some(reason) if !self.store_is_down => {
                warn!(%identity, reason, "the session store cannot be used");
            }
            None if self.store_is_down => info!(%identity, "the session store can be used again"),
            _ => {}
        }
        self.store_is_down = error.is_some();
    }

    fn moment(&self) -> Moment {
        Moment { now: self.keeper.shared.clock.now(), chance: chance() }
    }

    /// Until when there is nothing to do.
    fn rest(&self) -> Instant {
        let now = self.keeper.shared.clock.now();
        let machine = self.machine.wakes(now).map(|time| time.duration_since(now).unsigned_abs());
        let rest = Instant::now() + machine.unwrap_or(LONGEST_REST).min(LONGEST_REST);
        let credentials = self.credentials.settled().is_none()
            || self.credentials.may_change(&self.given.identity);
        let rest = if credentials { rest.min(self.next_credentials) } else { rest };
        // A look that is under way ends by itself.
        let looks = self.look.is_none() && self.wants_look();
        if looks { rest.min(self.next_look) } else { rest }
    }

    /// What nobody else writes need be read only once.
    fn wants_look(&self) -> bool {
        !self.stopping && (self.machine.seen().is_none() || self.keeper.shelf.is_shared())
    }

    fn passed(&mut self) -> Vec<Event> {
        let mut events = vec![Event::Tick];
        if Instant::now() >= self.next_credentials {
            self.next_credentials = Instant::now() + credentials::LOOK;
            let changed = self.credentials.look(&self.given.identity);
            events.extend(changed.map(Event::Credentials));
        }
        events
    }

    /// What callers and operators have asked for since.
    fn asked(&mut self) -> Vec<Event> {
        let mut events = vec![Event::Tick];
        events.extend(self.follow());
        let asked = &self.keeper.asked;
        let doubted = asked.doubted.swap(0, SeqCst);
        events.extend((doubted > 0).then_some(Event::Doubted(doubted)));
        let latest = |seen: &mut u64, now: u64| (now > std::mem::replace(seen, now)).then_some(now);
        let denied = asked.denied.swap(0, SeqCst);
        events.extend((denied > 0).then_some(Event::Denied(denied)));
        let refresh = latest(&mut self.refreshes, asked.refreshes.load(SeqCst));
        events.extend(refresh.map(Event::Refresh));
        let revoke = latest(&mut self.revocations, asked.revocations.load(SeqCst));
        events.extend(revoke.map(Event::Revoke));
        if self.challenged.swap(false, SeqCst) {
            events.push(Event::Challenged);
        }
        events
    }

    /// Takes note of what is configured now; gives what that changes about the credentials.
    fn follow(&mut self) -> Option<Event> {
        let given = self.keeper.given();
        if Arc::ptr_eq(&given, &self.given) {
            return None;
        }
        let before = std::mem::replace(&mut self.given, given);
        let identity = &self.given.identity;
        self.machine.configure(identity.clone());
        self.credentials.configured(identity, &before.identity).map(Event::Credentials)
    }

    fn begin_look(&mut self) {
        if self.look.is_some() || Instant::now() < self.next_look || !self.wants_look() {
            return;
        }
        // The credentials come first, so that a stored session can be compared with them.
        if self.credentials.settled().is_none()
            && let Some(read) = self.credentials.look(&self.given.identity)
        {
            self.take(Event::Credentials(read));
        }
        self.next_look = Instant::now() + LOOK_AT_STORE;
        let (shelf, known) = (Arc::clone(&self.keeper.shelf), self.machine.seen());
        self.look = Some(tokio::spawn(async move { shelf.look(known).await }));
    }

    fn looked(&mut self, looked: Result<Result<Look, store::Error>, JoinError>) -> Event {
        self.next_look = Instant::now() + LOOK_AT_STORE;
        let looked = looked.map_err(|_| broken());
        let looked = looked.and_then(|looked| looked.map_err(|error| self.store_failed(&error)));
        let seen =
            |look: Look| Seen { revision: look.revision, entry: look.entry, members: look.members };
        Event::Looked(looked.map(seen))
    }

    fn done(&mut self, done: Result<Done, JoinError>) -> Event {
        match done {
            Ok(Done::Claim(Ok(Claim::Mine(lease, entry)))) => {
                self.lease = Some(lease);
                Event::Granted(*entry)
            }
            Ok(Done::Claim(Ok(Claim::Others))) => Event::Taken,
            Ok(Done::Claim(Err(error))) => Event::Unclaimed(self.store_failed(&error)),
            Ok(Done::LogIn(outcome, secrets, lease)) => {
                self.lease = lease;
                self.logged_in(outcome, &secrets)
            }
            Ok(Done::Write(outcome)) => {
                Event::Written(outcome.map_err(|error| self.store_failed(&error)))
            }
            // Whatever it was, we do not know what came of it.
            Err(_) => self.machine.broken(broken()),
        }
    }

    fn logged_in(&self, outcome: Result<Stored, login::Error>, secrets: &Secrets) -> Event {
        let Keeper { name: identity, counters, .. } = &*self.keeper;
        let error = match outcome {
            Ok(stored) => {
                counters.logins_ok.add();
                return Event::LoggedIn(stored);
            }
            Err(error) => error,
        };
        let (failure, reason) = (error.failure(), sentence(&error));
        match failure {
            Failure::Refused => {
                counters.logins_refused.add();
                error!(%identity, reason, "login refused; waiting for other credentials");
            }
            Failure::Quota => {
                counters.logins_quota.add();
                warn!(%identity, reason, "login failed: too many sessions; trying again later");
            }
            Failure::RequestToken | Failure::Transient => {
                counters.logins_failed.add();
                warn!(%identity, reason, "login failed; trying again");
            }
        }
        let (reason, tried, asked) = (reason.into(), secrets.fingerprint(), error.retry_after());
        Event::LoginFailed(Failed { failure, reason, tried, asked })
    }

    fn store_failed(&self, error: &store::Error) -> Arc<str> {
        self.keeper.counters.store_errors.add();
        error.to_string().into()
    }

    fn perform(&mut self, action: Action) {
        let keeper = Arc::clone(&self.keeper);
        match action {
            Action::Claim => {
                let claim = async move { Done::Claim(keeper.shelf.claim().await) };
                self.job = Some(tokio::spawn(claim));
            }
            Action::LogIn => self.log_in(),
            Action::Write(entry) => {
                let lease = self.lease.take();
                let write = async move {
                    let Some(lease) = lease else { return Done::Write(Ok(Put::LeaseLost)) };
                    Done::Write(keeper.shelf.put(lease, &entry).await)
                };
                self.job = Some(tokio::spawn(write));
            }
            Action::GiveBack => {
                if let Some(lease) = self.lease.take() {
                    tokio::spawn(async move { keeper.shelf.give_back(lease).await });
                }
            }
            Action::Serve { stored, generation, service, adopted } => {
                self.serve(&stored, generation, service, adopted);
            }
            Action::Suspect => {
                let until = self.moment().now.checked_add(SUSPICION).unwrap_or(Timestamp::MAX);
                keeper.slot.token().iter().for_each(|token| token.suspect(until));
            }
            Action::Trust => keeper.slot.token().iter().for_each(|token| token.trust()),
            Action::Withdraw => drop(keeper.slot.take()),
            Action::LogOut { stored, after } => keeper.log_out_later(stored, after),
        }
    }

    fn serve(&self, stored: &Stored, generation: u64, service: Service, adopted: bool) {
        let identity = &self.keeper.name;
        let token = match Token::of_session(stored, generation, service) {
            Ok(token) => token,
            Err(error) => {
                error!(%identity, reason = sentence(&error), "session is no use");
                self.keeper.asked.denied.fetch_max(generation, SeqCst);
                self.keeper.asked.wake.notify_one();
                return;
            }
        };
        let expires = token.expires().map(tracing::field::display);
        if adopted {
            self.keeper.counters.adoptions.add();
            info!(%identity, generation, expires, session = %stored.id, "session taken over");
        } else {
            info!(%identity, generation, expires, session = %stored.id, "signed in");
        }
        self.keeper.slot.put(Arc::new(token));
    }

    fn log_in(&mut self) {
        let keeper = Arc::clone(&self.keeper);
        // The machine asks for a login only with credentials that have been read.
        let Some(secrets) = self.credentials.settled() else { return };
        let (challenged, lease) = (Arc::clone(&self.challenged), self.lease.take());
        info!(identity = %keeper.name, "logging in");
        let log_in = async move {
            let says_so = || {
                challenged.store(true, SeqCst);
                keeper.asked.wake.notify_one();
            };
            let given = keeper.given();
            let means = keeper.means(&given);
            let login = login::login(&means, &secrets, &keeper.steps, says_so);
            // A panic must count as a failure like any other, or it would be tried in a loop.
            let login = AssertUnwindSafe(login).catch_unwind();
            let kept = keep(&keeper, lease.as_ref());
            let outcome = select! {
                outcome = login => outcome.unwrap_or(Err(login::Error::Panicked)),
                () = kept => Err(login::Error::Panicked),
            };
            Done::LogIn(outcome, secrets, lease)
        };
        self.job = Some(tokio::spawn(log_in));
    }

    /// Leaves those who share the session, and ends what nobody else uses.
    async fn leave(mut self) {
        let keeper = Arc::clone(&self.keeper);
        let logs_out = self.given.identity.logout_on_shutdown;
        let mut endings: Vec<Ending> = Vec::new();
        if logs_out || !keeper.shelf.is_fleet() {
            match self.left().await {
                Ok(Left::Nobody(entry)) => {
                    let session = entry.session.filter(|_| logs_out).map(Ending::from);
                    endings.extend(session);
                    endings.extend(entry.retired.into_iter().map(Ending::from));
                    let ours = self.machine.take_ours(true).filter(|_| logs_out);
                    let known = |ours: &Ending| endings.iter().any(|it| it.id == ours.id);
                    endings.extend(ours.filter(|ours| !known(ours)));
                }
                Ok(Left::Kept { retired }) => endings.extend(retired.into_iter().map(Ending::from)),
                Ok(Left::Others { .. }) => endings.extend(self.machine.take_ours(false)),
                Err(error) => {
                    let identity = &keeper.name;
                    warn!(%identity, reason = sentence(&error), "a shared session may stay open");
                    endings.extend(self.machine.take_ours(false));
                }
            }
        }
        drop(keeper.slot.take());
        join_all(endings.iter().map(|session| keeper.log_out(session))).await;
    }

    /// Who is left. One who was last seen a while ago may be gone, which will show.
    async fn left(&self) -> Result<Left, store::Error> {
        loop {
            match self.keeper.shelf.leave().await {
                Ok(Left::Others { seen }) if seen > SURELY_THERE && seen < store::MEMBER_GONE => {
                    debug!(identity = %self.keeper.name, ?seen, "waiting for the others");
                    sleep(LOOK_AT_STORE).await;
                }
                left => return left,
            }
        }
    }
}

/// Keeps the right to log in for as long as the login takes; never ends.
async fn keep(keeper: &Keeper, lease: Option<&Lease>) {
    let Some(lease) = lease else { return pending().await };
    loop {
        sleep(LEASE / 3).await;
        // If it is lost, what the login brings will not be written.
        if let Err(error) = keeper.shelf.renew(lease).await {
            debug!(identity = %keeper.name, reason = sentence(&error), "lease not renewed");
        }
    }
}

/// What came of it, once there is something and it has ended.
async fn finished<T>(job: &mut Option<JoinHandle<T>>) -> Result<T, JoinError> {
    let Some(handle) = job else { return pending().await };
    let outcome = handle.await;
    *job = None;
    outcome
}

fn broken() -> Arc<str> {
    "a fault of the gateway's own".into()
}

/// A random share. It spreads logins and keeps no secret, so the hasher's own seed is good enough.
fn chance() -> f64 {
    RandomState::new().hash_one(()) as f64 / u64::MAX as f64
}
