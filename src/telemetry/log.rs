//! Log lines: pretty on a terminal, JSON otherwise, to standard error.

use std::io::{self, IsTerminal};

use tracing::{Level, Metadata};
use tracing_subscriber::{EnvFilter, filter::filter_fn, fmt, prelude::*};

use crate::config::{LogFormat, Telemetry};

/// Begins to log as `config` says. A second call changes nothing.
pub fn start(config: &Telemetry) {
    let filter = EnvFilter::builder().parse_lossy(&config.log);
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
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(filter_fn(may_be_written))
        .with(layer)
        .try_init();
}

/// Whatever is asked for: at its lowest level, the TLS library writes down the certificates of
/// callers, and the tickets of sessions.
fn may_be_written(metadata: &Metadata<'_>) -> bool {
    *metadata.level() != Level::TRACE || !metadata.target().starts_with("rustls")
}
