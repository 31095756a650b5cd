//! Log lines: pretty on a terminal, JSON otherwise, to standard error.

use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, IsTerminal},
    panic::{self, PanicHookInfo},
    sync::OnceLock,
};

use tracing::{Level, Metadata};
use tracing_subscriber::{EnvFilter, Registry, filter::filter_fn, fmt, prelude::*, reload};

use crate::config::{LogFormat, Telemetry};

/// What is logged, once logging has begun: there is one log in a process.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Begins to log as `config` says. A second call changes nothing.
pub fn start(config: &Telemetry) {
    let (filter, handle) = reload::Layer::new(EnvFilter::builder().parse_lossy(&config.log));
    let layer = fmt::layer().with_writer(io::stderr).with_target(false);
    let pretty = match config.log_format {
        LogFormat::Json => false,
        LogFormat::Pretty => true,
        LogFormat::Auto => io::stderr().is_terminal(),
    };
    let colour =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
    let layer = if pretty {
        layer.with_ansi(colour).boxed()
    } else {
        layer.json().flatten_event(true).boxed()
    };
    // It fails only where somebody logs already, as in tests that share a process.
    let started = tracing_subscriber::registry()
        .with(filter)
        .with(filter_fn(may_be_written))
        .with(layer)
        .try_init();
    if started.is_ok() {
        let _ = FILTER.set(handle);
        panic::set_hook(Box::new(tell));
    }
}

/// Tells of a panic like of everything else: in a line of the log.
fn tell(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    // Nothing unless `RUST_BACKTRACE` asks for it.
    let trace = Backtrace::capture();
    let trace = (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string());
    tracing::error!(
        place = panic.location().map(ToString::to_string),
        thread = thread.name(),
        reason = reason(panic.payload()),
        trace,
        "panic: the gateway has made a mistake"
    );
}

/// What a panic says, if that is in our source; what is put together may have anything in it.
fn reason(payload: &dyn Any) -> Option<&'static str> {
    payload.downcast_ref::<&'static str>().copied()
}

/// Logs what passes this filter from now on, as [`Telemetry::log`] has it.
pub fn set_filter(filter: &str) {
    let Some(handle) = FILTER.get() else { return };
    let filter = EnvFilter::builder().parse_lossy(filter);
    if let Err(error) = handle.reload(filter) {
        tracing::error!(error = error.to_string(), "the level of the log stays as it is");
    }
}

/// Whatever is asked for: at its lowest level, the TLS library writes down the certificates of
/// callers, and the tickets of sessions.
fn may_be_written(metadata: &Metadata<'_>) -> bool {
    *metadata.level() != Level::TRACE || !metadata.target().starts_with("rustls")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_was_put_together_is_told_of_a_panic() {
        let secret = "hunter2";

        assert_eq!(reason(&"the first one dies"), Some("the first one dies"));
        assert_eq!(reason(&format!("no digit in {secret}")), None);
    }
}
