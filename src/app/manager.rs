//! Tells the service manager how we are (`sd_notify`), if there is one that listens.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{Report, Status},
    server::Pulse,
    session::State,
    supervise::{Deaths, supervise_here},
};

/// How often it is looked what there is to tell.
const LOOK: Duration = Duration::from_secs(1);
/// A start is over after this time, ready or not.
const STARTS_WITHIN: Duration = Duration::from_secs(20);
/// What may wait for a manager that is slow.
const WAITING: usize = 16;

/// The way to the service manager. Whoever tells it something does not wait for it.
#[derive(Clone, Debug)]
pub(super) struct Manager(Option<Arc<Ear>>);

#[derive(Debug)]
struct Ear {
    lines: SyncSender<String>,
    /// It knows that the start is over.
    has_started: AtomicBool,
}

impl Manager {
    /// The one that `NOTIFY_SOCKET` names, if it is set; `deaths` are those of the thread that tells it.
    ///
    /// # Errors
    ///
    /// The system's, when it has no thread for us.
    pub(super) fn of_environment(deaths: Deaths) -> io::Result<Self> {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Ok(Self::none());
        }
        let (lines, told) = sync_channel::<String>(WAITING);
        // Its socket may be full, and nobody here is to wait for it.
        std::thread::Builder::new().name("notify".into()).spawn(move || {
            supervise_here::<io::Error>(&deaths, || {
                pass_on(&told);
                Ok(())
            });
        })?;
        Ok(Self(Some(Arc::new(Ear { lines, has_started: AtomicBool::new(false) }))))
    }

    /// Nobody.
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// The configuration is about to be read again.
    pub(super) fn reloading(&self) {
        let Some(ear) = self.0.as_ref().filter(|ear| ear.has_started.load(Relaxed)) else { return };
        // It wants to know whether this is about its own signal, or about an earlier one.
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            ear.tell(&[NotifyState::Reloading, now]);
        }
    }

    /// That is over, whatever came of it.
    pub(super) fn reloaded(&self) {
        let ear = self.0.as_ref().filter(|ear| ear.has_started.load(Relaxed));
        ear.into_iter().for_each(|ear| ear.tell(&[NotifyState::Ready]));
    }

    /// The gateway is about to end.
    pub(super) fn stopping(&self) {
        let said = [NotifyState::Stopping, NotifyState::Status("draining")];
        self.0.iter().for_each(|ear| ear.tell(&said));
    }

    /// Tells it how we are until `stop` is cancelled; and that we live, as long as all workers turn.
    pub(super) async fn keep(self, status: Arc<Status>, pulse: Pulse, stop: CancellationToken) {
        let Some(ear) = self.0 else { return };
        let watchdog = sd_notify::watchdog_enabled().filter(|within| !within.is_zero());
        let look = watchdog.map_or(LOOK, |within| (within / 3).clamp(TICK, LOOK));
        let mut telling = Telling::new(ear, pulse, watchdog);
        let mut ticks = interval(look);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            telling.look(&status);
        }
    }
}

/// Passes on what there is to tell, as long as anybody may tell anything.
fn pass_on(told: &Receiver<String>) {
    let mut is_deaf = false;
    for line in told {
        let sent = sd_notify::notify(&[NotifyState::Custom(&line)]);
        if let (Err(error), false) = (&sent, is_deaf) {
            let reason = error.to_string();
            tracing::warn!(reason, "the service manager cannot be told");
        }
        is_deaf = sent.is_err();
    }
}

/// The finest look: workers turn no oftener.
const TICK: Duration = Duration::from_millis(250);

impl Ear {
    /// What does not fit is not told: a manager that takes nothing will notice that by itself.
    fn tell(&self, states: &[NotifyState<'_>]) {
        let lines: Vec<_> = states.iter().map(NotifyState::to_string).collect();
        if self.lines.try_send(lines.join("\n")).is_err() {
            tracing::debug!("the service manager takes nothing");
        }
    }
}

/// Whether the start is over: a request would be served, or it is known why not. A start that does not
/// end is killed and made again, and so are the logins, until the account is locked.
fn is_over(report: &Report) -> bool {
    let has_tried = |state| matches!(state, State::Latched | State::Quota | State::BackingOff);
    report.ready || report.identities.iter().all(|identity| has_tried(identity.state))
}

/// What has been told so far.
struct Telling {
    ear: Arc<Ear>,
    pulse: Pulse,
    watchdog: Option<Duration>,
    begun: Instant,
    status: String,
    hangs: bool,
}

impl Telling {
    fn new(ear: Arc<Ear>, pulse: Pulse, watchdog: Option<Duration>) -> Self {
        let begun = Instant::now();
        Self { ear, pulse, watchdog, begun, status: String::new(), hangs: false }
    }

    fn look(&mut self, status: &Status) {
        let report = status.report();
        let reason = report.reason.as_deref();
        let text = reason.map_or_else(|| "ready".to_owned(), |why| format!("not ready: {why}"));
        let starts = !self.ear.has_started.load(Relaxed) && !report.draining;
        let is_over = is_over(&report) || self.begun.elapsed() >= STARTS_WITHIN;
        if starts && is_over {
            self.ear.has_started.store(true, Relaxed);
            self.ear.tell(&[NotifyState::Ready, NotifyState::Status(&text)]);
        } else if text != self.status && !report.draining {
            self.ear.tell(&[NotifyState::Status(&text)]);
        }
        self.status = text;
        if let Some(within) = self.watchdog {
            self.feed(within, report.draining);
        }
    }

    /// Who ends has an end of its time in any case, and its workers go before it.
    fn feed(&mut self, within: Duration, draining: bool) {
        let hung = self.pulse.hung(within / 2);
        if draining || hung.is_empty() {
            self.ear.tell(&[NotifyState::Watchdog]);
            self.hangs = false;
        } else if !std::mem::replace(&mut self.hangs, true) {
            tracing::error!(workers = ?hung, "workers do not turn: the service manager is not told that all is well");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::server::wire::Ticks;

    fn telling(pulse: Pulse) -> (Telling, Receiver<String>) {
        let (lines, told) = sync_channel(WAITING);
        let ear = Arc::new(Ear { lines, has_started: AtomicBool::new(true) });
        (Telling::new(ear, pulse, Some(Duration::from_secs(30))), told)
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_hangs_lets_the_watchdog_lapse_until_it_turns_again() {
        let workers: [Arc<Ticks>; 2] = Default::default();
        let (mut telling, told) = telling(Pulse::of(workers.iter().cloned()));
        let within = Duration::from_secs(30);
        let mut pings = async |seconds: u64, turning: &[Arc<Ticks>]| {
            for _ in 0..seconds {
                advance(Duration::from_secs(1)).await;
                turning.iter().for_each(|ticks| ticks.advance());
                telling.feed(within, false);
            }
            told.try_iter().filter(|line| line == "WATCHDOG=1").count()
        };

        assert_eq!(pings(10, &workers).await, 10);
        assert_eq!(pings(16, &workers[..1]).await, 14, "it is patient for half of the time");
        assert_eq!(pings(10, &workers[..1]).await, 0);
        assert_eq!(pings(3, &workers).await, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_ends_is_not_hung() {
        let workers: [Arc<Ticks>; 1] = Default::default();
        let (mut telling, told) = telling(Pulse::of(workers.iter().cloned()));
        advance(Duration::from_secs(60)).await;

        telling.feed(Duration::from_secs(30), true);

        assert_eq!(told.try_iter().count(), 1);
    }
}
