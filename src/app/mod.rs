//! One process: assembles the gateway, waits, reloads, drains.

mod desks;
mod error;
mod manager;
mod reload;
mod succession;
mod tasks;
mod watch;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{
    runtime::Handle,
    sync::{Mutex, watch as channel},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use self::{
    desks::{desk, desks_of, listeners},
    manager::Manager,
    reload::Reloader,
    succession::{Offer, Stage},
    tasks::Tasks,
};
pub use self::{error::Error, succession::Heritage};
use crate::{
    admin::{self, Reloads, Trigger},
    audit::{self, Trail},
    caller::{Callers, jwt::Verifier},
    circuit::Circuits,
    clock::Clock,
    config::{
        Config, Listen,
        load::{Loaded, Sources},
    },
    limit::Limiter,
    policy::Policy,
    server::{Bound, Files, Server, Tls},
    session::Sessions,
    slots::Slots,
    sockets::Passed,
    stack::{Own, Shared, stack},
    upstream::Upstream,
};

/// Logging out must not keep a process that was told to end.
const LOGOUT: Duration = Duration::from_secs(5);

/// A gateway at work.
#[derive(Debug)]
pub struct App {
    server: Server,
    shared: Arc<ArcSwap<Shared>>,
    reloads: Option<(Arc<Reloads>, JoinHandle<()>)>,
    writer: audit::Writer,
    shipper: Option<audit::central::Shipper>,
    admin: Vec<SocketAddr>,
    draining: CancellationToken,
    /// Ends the operators' edge; with the rest, at the latest.
    closing_desks: CancellationToken,
    tasks: Tasks,
    /// Who hands our sockets to a successor, and how far that one is.
    offer: Option<JoinHandle<()>>,
    successor: channel::Receiver<Stage>,
    manager: Manager,
}

impl App {
    /// Starts the gateway that `config` describes. Logs in behind the scenes: requests that come
    /// before there is a session wait for it.
    ///
    /// # Errors
    ///
    /// See [`Error`]. Refused credentials are none: the gateway stays up and says so.
    pub async fn start(config: &Config, clock: Clock) -> Result<Self, Error> {
        Self::assemble(config, None, clock, Heritage::default()).await
    }

    /// The same, and reads the configuration again from its sources when that is asked for, or when
    /// a file changes. Begins with its `heritage`: takes sockets over, and the place of a predecessor
    /// once it is ready itself.
    ///
    /// # Errors
    ///
    /// See [`App::start`].
    pub async fn start_from(
        loaded: Loaded,
        sources: Sources,
        clock: Clock,
        heritage: Heritage,
    ) -> Result<Self, Error> {
        let config = loaded.config.clone();
        Self::assemble(&config, Some((loaded, sources)), clock, heritage).await
    }

    async fn assemble(
        config: &Config,
        origin: Option<(Loaded, Sources)>,
        clock: Clock,
        mut heritage: Heritage,
    ) -> Result<Self, Error> {
        // What may fail comes first, so that nobody logs in for nothing.
        let rival = heritage.rival(config.server.drain_timeout);
        let Heritage { given, predecessor } = &mut heritage;
        let mut bound = Bound::new(&config.server.listen, config.server.workers, given)?;
        let mut handles = bound.handles();
        let tls = config.server.tls.as_ref().map(Tls::open).transpose()?;
        let (tls, renewal) = tls.unzip();
        let certificate_expires = tls.as_deref().map(Tls::expires);
        let callers = Arc::new(Callers::new(config, &clock)?);
        let mut desks = Vec::new();
        for (role, listen, scope) in desks_of(config)? {
            for passed in listeners(role, &listen, given)? {
                handles.push(Passed { socket: passed.socket.try_clone()?, ..passed });
                desks.push((desk(passed.socket)?, scope.clone()));
            }
        }
        if let Some(address) = given.unclaimed() {
            return Err(Error::Unclaimed(address));
        }
        // The workers share the connections, and the sessions have a few of their own.
        let upstream = Upstream::new(&config.upstream)?;
        let limiter = Arc::new(Limiter::new(config, Handle::current())?);
        let (trail, writer) = Trail::open_beside(&config.audit, &clock, rival)?;
        let sessions = Sessions::new(
            &config.identities,
            &config.session_store,
            &config.upstream.auth_url,
            upstream.clone(),
            clock.clone(),
            Handle::current(),
        )?;
        let shared = Shared {
            trail: Arc::clone(&trail),
            callers,
            policy: Arc::new(Policy::new(config)),
            limiter,
            pauses: Arc::default(),
            retries: Arc::default(),
            circuits: Arc::new(Circuits::new(&config.upstream)),
            slots: Arc::new(Slots::new(&config.upstream)),
            sessions,
            sites: upstream.sites().clone(),
            clock: clock.clone(),
        };
        let own = || Own { scribe: trail.scribe(), upstream: upstream.sibling() };
        let own: Vec<_> = (0..config.server.workers).map(|_| own()).collect();
        let gateways = own.iter().map(|own| stack(config, &shared, own)).collect();
        if predecessor.is_some() {
            shared.sessions.start();
            if let Err(reason) = succession::ready(&shared.sessions).await {
                shared.sessions.shutdown(LOGOUT).await;
                writer.finish();
                return Err(Error::NotReady(reason));
            }
        }
        let tasks = Tasks::default();
        let server = Server::start(&config.server, bound, tls, gateways, tasks.register())?;
        if predecessor.is_none() {
            shared.sessions.start();
        }

        // Only a process has a manager.
        let manager = origin
            .as_ref()
            .map(|_| Manager::of_environment(tasks.register().of("service-manager")));
        let manager = manager.transpose()?;
        let manager = manager.unwrap_or(Manager::none());
        let (draining, stop) = (CancellationToken::new(), tasks.stop().clone());
        let closing_desks = stop.child_token();
        let (limiter, ends) = (Arc::clone(&shared.limiter), stop.clone());
        tasks.keep("quotas", move || limiter.keep(ends.clone()));
        let issuer = Issuer::keep(&shared.callers, &tasks);
        trail.deaths().for_each(|deaths| tasks.register().add(deaths));
        let shared = Arc::new(ArcSwap::from_pointee(shared));
        let reloads = origin.map(|(loaded, sources)| {
            let (reloads, wishes) = Reloads::new(loaded.show());
            let reloader = Reloader {
                sources,
                loaded,
                own,
                upstream,
                shared: Arc::clone(&shared),
                switch: server.switch(),
                issuer,
                manager: manager.clone(),
                tasks: tasks.clone(),
                reloads: Arc::clone(&reloads),
                wishes,
            };
            // Whoever comes next goes on with what is in force.
            let (reloader, draining) = (Arc::new(Mutex::new(reloader)), draining.clone());
            let end = draining.clone();
            let run = move || reload::run(Arc::clone(&reloader), end.clone());
            (reloads, tasks.keep_until(draining, "reload", run))
        });
        let status = Arc::new(admin::Status {
            shared: Arc::clone(&shared),
            reloads: reloads.as_ref().map(|(reloads, _)| Arc::clone(reloads)),
            draining: draining.clone(),
            started: clock.now(),
            certificate_expires,
            listening: server.addresses().iter().map(Listen::to_string).collect(),
            tasks: Arc::clone(tasks.register()),
            tunnels: server.tunnels(),
        });
        let told = (manager.clone(), Arc::clone(&status), server.pulse(), stop.clone());
        tasks.keep("service-manager", move || {
            let (manager, status, pulse, stop) = told.clone();
            manager.keep(status, pulse, stop)
        });
        let mut addresses = Vec::new();
        if let Some(renewal) = renewal {
            let renewal = Arc::new(Mutex::new(renewal));
            tasks.keep("tls-renewal", move || {
                let (renewal, clock, stop) = (Arc::clone(&renewal), clock.clone(), stop.clone());
                async move { renewal.lock().await.run(clock, stop).await }
            });
        }
        for (listener, scope) in desks {
            addresses.extend(listener.local_addr());
            let (listener, status) = (Arc::new(listener), Arc::clone(&status));
            let stop = closing_desks.clone();
            tasks.keep_until(stop.clone(), "operators", move || {
                let (listener, status) = (Arc::clone(&listener), Arc::clone(&status));
                admin::serve(listener, status, scope.clone(), stop.clone())
            });
        }
        let (stage, successor) = channel::channel(Stage::default());
        // Only a process can be followed by another one.
        let offer = reloads.is_some().then(|| Offer {
            folder: config.audit.store.clone(),
            trail: Arc::clone(&trail),
            sockets: handles.into(),
            stage,
            draining: draining.clone(),
        });
        let offer = offer.map(|offer| {
            let offer = Arc::new(offer);
            tasks.keep_until(draining.clone(), "succession", move || Arc::clone(&offer).keep())
        });
        if let Some(predecessor) = heritage.predecessor
            && let Err(error) = predecessor.release()
        {
            // It has ended by itself.
            tracing::debug!(error = error.to_string(), "predecessor not told");
        }
        Ok(Self {
            server,
            shared,
            reloads,
            writer,
            shipper: trail.ship(),
            admin: addresses,
            draining,
            closing_desks,
            tasks,
            offer,
            successor,
            manager,
        })
    }

    /// Where callers reach it, with the ports that the system chose.
    pub fn addresses(&self) -> &[Listen] {
        self.server.addresses()
    }

    /// Where operators reach it: the admin listener first.
    pub fn admin_addresses(&self) -> &[SocketAddr] {
        &self.admin
    }

    /// Has the configuration read again, if it has sources; what comes of it is told in the log.
    pub fn reload(&self, trigger: Trigger) {
        // If so many are waiting already, one of them reads what is there now.
        if let Some((reloads, _)) = &self.reloads {
            drop(reloads.ask(trigger));
        }
    }

    /// Waits until another process has taken its place; it should drain then.
    pub async fn succeeded(&self) {
        let mut successor = self.successor.clone();
        // Where nobody is awaited, nobody comes.
        if successor.wait_for(|stage| *stage == Stage::Serves).await.is_err() {
            std::future::pending().await
        }
    }

    /// Ends: is no longer ready, finishes what is under way, logs out, writes the last records
    /// and ships them.
    pub async fn drain(self) {
        self.draining.cancel();
        self.manager.stopping();
        if let Some(offer) = self.offer {
            // The sockets are the workers' alone, and end with them.
            let _ = offer.await;
        }
        let files = if *self.successor.borrow() == Stage::None {
            Files::Removed
        } else {
            // Operators are to find the successor where they have found us.
            self.closing_desks.cancel();
            Files::Left
        };
        if let Some((_, reloader)) = self.reloads {
            // What it has begun is in force before the rest ends.
            let _ = reloader.await;
        }
        let cut = self.server.drain(files).await;
        if cut > 0 {
            tracing::warn!(connections = cut, "drain ran out of time: connections were cut");
        }
        self.shared.load_full().sessions.shutdown(LOGOUT).await;
        self.tasks.end().await;
        self.writer.finish();
        if let Some(shipper) = self.shipper {
            shipper.finish().await;
        }
    }
}

/// The task that knows the keys of the issuer of callers' tokens, if there is one.
#[derive(Debug)]
struct Issuer {
    verifier: Option<Arc<Verifier>>,
    stop: CancellationToken,
}

impl Issuer {
    /// Starts the task that `callers` need; it ends with this, or with all `tasks`.
    fn keep(callers: &Callers, tasks: &Tasks) -> Self {
        let (verifier, stop) = (callers.verifier().cloned(), tasks.stop().child_token());
        if let Some(verifier) = &verifier {
            let (verifier, stop) = (Arc::clone(verifier), stop.clone());
            tasks.keep_until(stop.clone(), "issuer-keys", move || {
                Arc::clone(&verifier).keep(stop.clone())
            });
        }
        Self { verifier, stop }
    }

    /// Whether it is the one that `callers` need.
    fn is_for(&self, callers: &Callers) -> bool {
        match (&self.verifier, callers.verifier()) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}
