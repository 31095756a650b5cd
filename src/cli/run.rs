//! `run`: the gateway, in the foreground.

use std::path::Path;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Exit, Failure, Global, runtime};
use crate::{
    admin::Trigger,
    app::{self, App, Heritage},
    clock::Clock,
    sockets::{succession::Predecessor, systemd},
    telemetry::log,
};

/// What `run` understands besides.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Take the place of the gateway that runs with the same audit log, if there is one: it serves
    /// until this one is ready, hands its sockets over, finishes and ends
    #[arg(long)]
    take_over: bool,
}

/// Runs until a signal ends it, or another process takes its place; another signal has it read its
/// configuration again.
pub(super) fn run(arguments: &Arguments, global: &Global) -> Result<(), Failure> {
    // First of all, as long as there is no other thread.
    let given = systemd::passed().map_err(|error| passed_for_nothing(&error))?;
    let loaded = global.load()?;
    let mut heritage = Heritage { given, predecessor: None };
    log::start(&loaded.config.telemetry);
    for warning in &loaded.warnings {
        tracing::warn!(warning, "configuration");
    }
    if arguments.take_over {
        take_over(&loaded.config.audit.store, &mut heritage)?;
    }
    runtime()?.block_on(async {
        let mut end = End::new()?;
        let mut hangup = signal(SignalKind::hangup()).map_err(deaf)?;
        let config = loaded.config.clone();
        let app = App::start_from(loaded, global.sources(), Clock::system(), heritage).await?;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            listen = ?app.addresses().iter().map(ToString::to_string).collect::<Vec<_>>(),
            admin = ?app.admin_addresses(),
            upstream = config.upstream.api_url.to_string(),
            workers = config.server.workers,
            "gateway started"
        );
        let signalled = loop {
            tokio::select! {
                reason = end.wait() => break Some(reason),
                () = app.succeeded() => break None,
                _ = hangup.recv() => app.reload(Trigger::Signal),
            }
        };
        let reason = signalled.unwrap_or("another process has taken its place");
        tracing::info!(reason, "gateway drains; a second signal ends it at once");
        let at_once = async {
            if signalled.is_none() {
                // Whoever has started the successor may tell us to end as well: we are about to.
                end.wait().await;
            }
            end.wait().await
        };
        tokio::select! {
            () = app.drain() => Ok::<_, Failure>(()),
            reason = at_once => {
                tracing::warn!(reason, "gateway ends at once");
                // What is still under way must not keep the process: no destructor is waited for.
                std::process::exit(Exit::Other as i32);
            }
        }
    })?;
    tracing::info!("gateway ended");
    Ok(())
}

/// Takes the sockets of the gateway that writes the audit log in `store`.
fn take_over(store: &Path, heritage: &mut Heritage) -> Result<(), Failure> {
    let found = Predecessor::find(store).map_err(|error| {
        let what = "the gateway that runs cannot be taken the place of";
        Failure::caused(Exit::Io, what, &error)
    })?;
    match found {
        Some((predecessor, sockets)) => {
            tracing::info!("gateway takes the place of the one that runs, once it is ready");
            heritage.given.extend(sockets);
            heritage.predecessor = Some(predecessor);
        }
        None => tracing::info!("no gateway runs whose place could be taken: this is a plain start"),
    }
    Ok(())
}

fn passed_for_nothing(error: &systemd::Error) -> Failure {
    Failure::caused(Exit::Config, "the gateway cannot start", error)
}

/// What ends a process.
pub(super) struct End {
    terminate: Signal,
    interrupt: Signal,
}

impl End {
    pub(super) fn new() -> Result<Self, Failure> {
        let signals = || Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?));
        let (terminate, interrupt) = signals().map_err(deaf)?;
        Ok(Self { terminate, interrupt })
    }

    /// Waits for a signal, and tells which.
    pub(super) async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

fn deaf(error: std::io::Error) -> Failure {
    Failure::new(Exit::Internal, format!("cannot listen for signals: {error}"))
}

impl From<app::Error> for Failure {
    fn from(error: app::Error) -> Self {
        let exit = match &error {
            app::Error::Bind(_) | app::Error::Audit(_) => Exit::Io,
            app::Error::NotReady(_) => Exit::Unreachable,
            app::Error::Upstream(_)
            | app::Error::Issuer(_)
            | app::Error::Tls(_)
            | app::Error::Secret(_)
            | app::Error::Sessions(_)
            | app::Error::Quotas(_)
            | app::Error::Unclaimed(_) => Exit::Config,
            app::Error::System(_) => Exit::Internal,
        };
        Self::caused(exit, "the gateway cannot start", &error)
    }
}
