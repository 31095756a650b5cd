//! One process: assembles the gateway, waits, reloads, drains.

mod reload;
mod watch;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{net::TcpListener, runtime::Handle, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::reload::Reloader;
use crate::{
    admin::{self, Reloads, Trigger},
    audit::{self, Trail},
    caller::{self, Callers, jwt::Verifier},
    circuit::Circuits,
    clock::Clock,
    config::{
        Config, Listen,
        load::{Loaded, Sources},
        secret, tls,
    },
    limit::{self, Limiter},
    policy::Policy,
    server::{BindError, Bound, Server, Tls},
    session::{self, Sessions},
    slots::Slots,
    stack::{Own, Shared, stack},
    upstream::{self, Upstream},
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
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Why a gateway cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The way to the API cannot be prepared.
    #[error(transparent)]
    Upstream(#[from] upstream::Error),
    /// The certificate, or what goes with it, cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::Unusable),
    /// The way to the issuer of callers' tokens cannot be prepared.
    #[error(transparent)]
    Issuer(#[from] caller::jwt::KeysError),
    /// A secret cannot be read.
    #[error(transparent)]
    Secret(#[from] secret::Error),
    /// Nothing can be written down.
    #[error(transparent)]
    Audit(#[from] audit::OpenError),
    /// There is nowhere to keep sessions.
    #[error(transparent)]
    Sessions(#[from] session::OpenError),
    /// There is nowhere to share quotas.
    #[error(transparent)]
    Quotas(#[from] limit::OpenError),
    /// The system has no thread or no event queue for us.
    #[error("the system refuses what a gateway needs")]
    System(#[from] std::io::Error),
}

impl App {
    /// Starts the gateway that `config` describes. Logs in behind the scenes: requests that come
    /// before there is a session wait for it.
    ///
    /// # Errors
    ///
    /// See [`Error`]. Refused credentials are none: the gateway stays up and says so.
    pub async fn start(config: &Config, clock: Clock) -> Result<Self, Error> {
        Self::assemble(config, None, clock).await
    }

    /// The same, and reads the configuration again from its sources when that is asked for, or when
    /// a file changes.
    ///
    /// # Errors
    ///
    /// See [`App::start`].
    pub async fn start_from(loaded: Loaded, sources: Sources, clock: Clock) -> Result<Self, Error> {
        let config = loaded.config.clone();
        Self::assemble(&config, Some((loaded, sources)), clock).await
    }

    async fn assemble(
        config: &Config,
        origin: Option<(Loaded, Sources)>,
        clock: Clock,
    ) -> Result<Self, Error> {
        // What may fail comes first, so that nobody logs in for nothing.
        let bound = Bound::new(&config.server.listen, config.server.workers)?;
        let tls = config.server.tls.as_ref().map(Tls::open).transpose()?;
        let (tls, renewal) = tls.unzip();
        let certificate_expires = tls.as_deref().map(Tls::expires);
        let callers = Arc::new(Callers::new(config, &clock)?);
        let mut desks = Vec::new();
        for (listen, scope) in desks_of(config)? {
            desks.push((listener(&listen).await?, scope));
        }
        // The workers share the connections, and the sessions have a few of their own.
        let upstream = Upstream::new(&config.upstream)?;
        let limiter = Arc::new(Limiter::new(config, Handle::current())?);
        let (trail, writer) = Trail::open(&config.audit, &clock)?;
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
            clock: clock.clone(),
        };
        let own = || Own { scribe: trail.scribe(), upstream: upstream.sibling() };
        let own: Vec<_> = (0..config.server.workers).map(|_| own()).collect();
        let gateways = own.iter().map(|own| stack(config, &shared, own)).collect();
        let server = Server::start(&config.server, bound, tls, gateways)?;
        shared.sessions.start();

        let (draining, stop) = (CancellationToken::new(), CancellationToken::new());
        let tasks = TaskTracker::new();
        tasks.spawn(shared.limiter.keep(stop.clone()));
        let issuer = Issuer::keep(&shared.callers, &tasks, &stop);
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
                tasks: tasks.clone(),
                stop: stop.clone(),
                reloads: Arc::clone(&reloads),
            };
            let draining = draining.clone();
            (reloads, tokio::spawn(reloader.run(wishes, draining)))
        });
        let status = Arc::new(admin::Status {
            shared: Arc::clone(&shared),
            reloads: reloads.as_ref().map(|(reloads, _)| Arc::clone(reloads)),
            draining: draining.clone(),
            started: clock.now(),
            certificate_expires,
            listening: server.addresses().iter().map(Listen::to_string).collect(),
            tunnels: server.tunnels(),
        });
        let mut addresses = Vec::new();
        if let Some(renewal) = renewal {
            tasks.spawn(renewal.run(clock, stop.clone()));
        }
        for (listener, scope) in desks {
            addresses.extend(listener.local_addr());
            tasks.spawn(admin::serve(listener, Arc::clone(&status), scope, stop.clone()));
        }
        Ok(Self {
            server,
            shared,
            reloads,
            writer,
            shipper: trail.ship(),
            admin: addresses,
            draining,
            stop,
            tasks,
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

    /// Ends: is no longer ready, finishes what is under way, logs out, writes the last records
    /// and ships them.
    pub async fn drain(self) {
        self.draining.cancel();
        if let Some((_, reloader)) = self.reloads {
            // What it has begun is in force before the rest ends.
            let _ = reloader.await;
        }
        let cut = self.server.drain().await;
        if cut > 0 {
            tracing::warn!(connections = cut, "drain ran out of time: connections were cut");
        }
        self.shared.load_full().sessions.shutdown(LOGOUT).await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
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
    /// Starts the task that `callers` need; it ends with this, or with `stop`.
    fn keep(callers: &Callers, tasks: &TaskTracker, stop: &CancellationToken) -> Self {
        let (verifier, stop) = (callers.verifier().cloned(), stop.child_token());
        if let Some(verifier) = &verifier {
            tasks.spawn(Arc::clone(verifier).keep(stop.clone()));
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

async fn listener(address: &Listen) -> Result<TcpListener, BindError> {
    let bound = match address {
        Listen::Tcp(address) => TcpListener::bind(address).await,
        Listen::Unix(_) => Err(std::io::Error::other("operators are served over TCP only")),
    };
    bound.map_err(|source| BindError { address: address.to_string(), source })
}

/// What operators can look at, and where.
fn desks_of(config: &Config) -> Result<Vec<(Listen, admin::Scope)>, secret::Error> {
    let token = &config.server.admin_token;
    // Read again for each request; here it only has to be there.
    token.as_ref().map(secret::Secret::read).transpose()?;
    let admin = config.server.admin_listen.iter().cloned();
    let health = config.server.health_listen.iter().cloned();
    let admin = admin.map(|listen| (listen, admin::Scope::All(token.clone())));
    Ok(admin.chain(health.map(|listen| (listen, admin::Scope::Health))).collect())
}
