//! Reloads: a new configuration comes into force as a whole, or not at all.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::{
    sync::{Mutex, mpsc},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    Issuer,
    manager::Manager,
    tasks::Tasks,
    watch::{LOOK, Watch},
};
use crate::{
    admin::{Applied, Outcome, Refused, Reloads, Trigger, Wish},
    config::{
        Changes,
        load::{Loaded, Sources, load},
    },
    server::{Configured, Switch},
    stack::{Own, Shared, stack},
    supervise::blocking,
    telemetry::log,
    upstream::Upstream,
};

/// Reads the configuration again, and puts it in force.
#[derive(Debug)]
pub(super) struct Reloader {
    pub(super) sources: Sources,
    /// What is in force.
    pub(super) loaded: Loaded,
    pub(super) shared: Arc<ArcSwap<Shared>>,
    /// What each worker has of its own.
    pub(super) own: Vec<Own>,
    /// The way to the API; that of each worker is its sibling.
    pub(super) upstream: Upstream,
    pub(super) switch: Switch,
    pub(super) issuer: Issuer,
    pub(super) manager: Manager,
    pub(super) tasks: Tasks,
    pub(super) reloads: Arc<Reloads>,
    pub(super) wishes: mpsc::Receiver<Wish>,
}

/// Everything that a new configuration needs: from here on nothing can fail.
struct Prepared {
    loaded: Loaded,
    changes: Changes,
    shared: Shared,
    own: Vec<Own>,
    upstream: Upstream,
    tls: Option<Arc<Configured>>,
}

/// Has `reloader` do what is asked for, and look at the files, until the gateway drains.
pub(super) async fn run(reloader: Arc<Mutex<Reloader>>, draining: CancellationToken) {
    reloader.lock().await.run(draining).await;
}

impl Reloader {
    async fn run(&mut self, draining: CancellationToken) {
        // Who has died in the middle of a reload has left the service manager waiting.
        self.manager.reloaded();
        let mut watch = Watch::new(&self.sources.files, self.loaded.fingerprint());
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let wish = tokio::select! {
                biased;
                () = draining.cancelled() => return,
                wish = self.wishes.recv() => match wish {
                    Some(wish) => Some(wish),
                    None => return,
                },
                _ = ticks.tick() => None,
            };
            let looked = draining.run_until_cancelled(watch.look());
            let Some(has_changed) = looked.await else { return };
            let trigger = match &wish {
                Some(wish) => wish.trigger,
                None if has_changed => Trigger::File,
                None => continue,
            };
            // What is read now need not be read again until it changes.
            watch.takes();
            let sources = self.sources.clone();
            let reading = blocking(move || load(&sources));
            let Some(read) = draining.run_until_cancelled(reading).await else { return };
            let read = read.map_err(|report| Refused::Invalid(Arc::new(report)));
            let outcome = self.reload(trigger, read);
            if let Some(wish) = wish {
                // Whoever asked may have left.
                let _ = wish.answer.send(outcome);
            }
        }
    }

    /// The one place where a configuration that was read comes into force, or is refused.
    fn reload(&mut self, trigger: Trigger, read: Result<Loaded, Refused>) -> Outcome {
        self.manager.reloading();
        let outcome = read.and_then(|read| self.prepare(read)).map(|prepared| {
            let applied = Applied::from(&prepared.changes);
            self.put_in_force(prepared);
            applied
        });
        self.manager.reloaded();
        tell(trigger, &outcome);
        let now = self.shared.load().clock.now();
        self.reloads.tell(now, trigger, &outcome, self.loaded.show());
        outcome
    }

    /// Sets up what `read` describes; nothing of it is in force yet.
    fn prepare(&self, read: Loaded) -> Result<Prepared, Refused> {
        let (loaded, changes) = read.after(&self.loaded);
        let config = &loaded.config;
        let (upstream, own) = if changes.touch("upstream") {
            let upstream = self.upstream.under(&config.upstream);
            let upstream = upstream.map_err(|error| unusable(&error))?;
            let own = self
                .own
                .iter()
                .map(|own| Own { scribe: Arc::clone(&own.scribe), upstream: upstream.sibling() });
            let own = own.collect();
            (upstream, own)
        } else {
            (self.upstream.clone(), self.own.clone())
        };
        let tls = config.server.tls.as_ref().filter(|_| changes.touch("server.tls"));
        let tls = tls.map(Configured::read).transpose().map_err(|error| unusable(&error))?;
        let shared = self.shared.load().under(config, &changes, &upstream);
        let shared = shared.map_err(|error| unusable(&error))?;
        Ok(Prepared { loaded, changes, shared, own, upstream, tls })
    }

    /// From now on, requests are answered so.
    fn put_in_force(&mut self, prepared: Prepared) {
        let Prepared { loaded, shared, own, upstream, tls, .. } = prepared;
        let config = &loaded.config;
        // What requests will need is there before they come.
        shared.take_over(&self.shared.load());
        if !self.issuer.is_for(&shared.callers) {
            let issuer = Issuer::keep(&shared.callers, &self.tasks);
            std::mem::replace(&mut self.issuer, issuer).stop.cancel();
        }
        if let (Some(tls), Some(configured)) = (self.switch.tls(), tls) {
            tls.configure(configured);
        }
        let gateways = own.iter().map(|own| stack(config, &shared, own)).collect();
        self.switch.put_in_force(&config.server, gateways);
        self.shared.store(Arc::new(shared));
        log::set_filter(&config.telemetry.log);
        (self.loaded, self.own, self.upstream) = (loaded, own, upstream);
        for warning in &self.loaded.warnings {
            warn!(warning, "configuration");
        }
    }
}

/// Says in the log what came of it.
fn tell(trigger: Trigger, outcome: &Outcome) {
    let trigger = trigger.name();
    match outcome {
        Ok(Applied { changed, not_reloadable }) => {
            info!(trigger, changed = changed.join(", "), "configuration reloaded");
            if !not_reloadable.is_empty() {
                let settings = not_reloadable.join(", ");
                warn!(settings, "not reloadable: these settings wait for the next start");
            }
        }
        Err(Refused::Invalid(report)) => {
            let (errors, report) = (report.len(), report.to_string());
            error!(
                trigger,
                errors, report, "new configuration refused; the former one stays in force"
            );
        }
        Err(Refused::Unusable(reason)) => {
            error!(trigger, reason, "new configuration refused; the former one stays in force");
        }
        Err(Refused::Ending) => {}
    }
}

/// The error with all its causes.
fn unusable(error: &dyn std::error::Error) -> Refused {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let line = error.to_string();
        if !reason.ends_with(&line) {
            reason = format!("{reason}: {line}");
        }
        cause = error.source();
    }
    Refused::Unusable(reason)
}
