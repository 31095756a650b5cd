//! `run`: the gateway, in the foreground.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Exit, Failure, Global, runtime};
use crate::{
    admin::Trigger,
    app::{self, App},
    clock::Clock,
    telemetry::log,
};

/// Runs until a signal ends it; another one has it read its configuration again.
pub(super) fn run(global: &Global) -> Result<(), Failure> {
    let loaded = global.load()?;
    log::start(&loaded.config.telemetry);
    for warning in &loaded.warnings {
        tracing::warn!(warning, "configuration");
    }
    runtime()?.block_on(async {
        let mut end = End::new()?;
        let mut hangup = signal(SignalKind::hangup()).map_err(deaf)?;
        let config = loaded.config.clone();
        let app = App::start_from(loaded, global.sources(), Clock::system()).await?;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            listen = ?app.addresses().iter().map(ToString::to_string).collect::<Vec<_>>(),
            admin = ?app.admin_addresses(),
            upstream = config.upstream.api_url.to_string(),
            workers = config.server.workers,
            "gateway started"
        );
        let reason = loop {
            tokio::select! {
                reason = end.wait() => break reason,
                _ = hangup.recv() => app.reload(Trigger::Signal),
            }
        };
        tracing::info!(reason, "gateway drains; a second signal ends it at once");
        tokio::select! {
            () = app.drain() => Ok::<_, Failure>(()),
            reason = end.wait() => {
                tracing::warn!(reason, "gateway ends at once");
                // What is still under way must not keep the process: no destructor is waited for.
                std::process::exit(Exit::Other as i32);
            }
        }
    })?;
    tracing::info!("gateway ended");
    Ok(())
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
            app::Error::Upstream(_)
            | app::Error::Issuer(_)
            | app::Error::Tls(_)
            | app::Error::Secret(_)
            | app::Error::Sessions(_)
            | app::Error::Quotas(_) => Exit::Config,
            app::Error::System(_) => Exit::Internal,
        };
        Self::caused(exit, "the gateway cannot start", &error)
    }
}
