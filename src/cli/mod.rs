//! The verbs and their arguments.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::config::{
    Config, LogFormat, duration_of,
    load::{self, Loaded, Sources},
};

mod audit;
mod check;
mod config;
mod emulator;
mod healthcheck;
mod key;
mod login;
mod operator;
mod paint;
mod routes;
mod run;
mod sandbox;
mod shell;
mod status;
mod token;

/// The one door through which a company's internal services reach the Amove API.
///
/// A service calls the gateway as if Amove needed no login. The gateway logs in with the service
/// credentials, keeps one session alive, moves deprecated paths to /api/v1, limits each caller,
/// turns Amove's private status 499 into standard problem details, and records every call.
#[derive(Debug, Parser)]
#[command(name = "amove-gateway", version, subcommand_required = false, max_term_width = 100)]
#[command(after_help = "Try it without any configuration:  amove-gateway sandbox")]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// What every verb understands.
#[derive(Clone, Debug, Args)]
struct Global {
    /// Read this configuration file; may be given several times, the later wins
    #[arg(
        long = "config",
        short = 'c',
        global = true,
        value_name = "FILE",
        env = "AMOVE_GATEWAY_CONFIG",
        value_delimiter = ','
    )]
    files: Vec<PathBuf>,
    /// How log lines look
    #[arg(long, global = true, value_enum, env = "AMOVE_GATEWAY_LOG_FORMAT")]
    log_format: Option<Format>,
    /// When to use colour; NO_COLOR is respected
    #[arg(long, global = true, value_enum, default_value = "auto", env = "AMOVE_GATEWAY_COLOR")]
    color: Colour,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Pretty on a terminal, JSON otherwise
    Auto,
    /// One JSON object a line
    Json,
    /// For people
    Pretty,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Colour {
    /// On a terminal
    Auto,
    /// In any case
    Always,
    /// In no case
    Never,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the gateway in the foreground
    Run(run::Arguments),
    /// Try it: an emulated Amove, a gateway and sample traffic on loopback; nothing to configure
    Sandbox(sandbox::Arguments),
    /// Run the emulated Amove alone
    Emulator(emulator::Arguments),
    /// Validate the configuration and print what it means
    Check(check::Arguments),
    /// Log in once and tell how it went; never shows the token
    Login(login::Arguments),
    /// How a running gateway stands, on one screen
    Status(status::Arguments),
    /// The session tokens of a running gateway: show, replace or revoke them
    #[command(subcommand)]
    Token(token::Verb),
    /// The audit log: search, follow, export, prove
    #[command(subcommand)]
    Audit(audit::Verb),
    /// Keys of callers
    #[command(subcommand)]
    Key(key::Verb),
    /// The routes of the Amove API
    #[command(subcommand)]
    Routes(routes::Verb),
    /// The configuration
    #[command(subcommand)]
    Config(config::Verb),
    /// Exit 0 when a running gateway is ready; for containers
    Healthcheck(healthcheck::Arguments),
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

/// What a process says to the one who started it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
enum Exit {
    Other = 1,
    Usage = 2,
    Broken = 65,
    Unreachable = 69,
    Internal = 70,
    Io = 74,
    Refused = 77,
    Config = 78,
}

/// Why a verb did not succeed: what to print, and what to exit with.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    /// Printed to standard error as it is; nothing is printed if it is empty.
    message: String,
}

impl Failure {
    fn new(exit: Exit, message: impl Display) -> Self {
        Self { exit, message: format!("error: {message}") }
    }

    /// `what` happened, and why: `error` with all its causes.
    fn caused(exit: Exit, what: &str, error: &dyn std::error::Error) -> Self {
        let mut message = format!("{what}: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            let line = error.to_string();
            if !message.ends_with(&line) {
                message.push_str(": ");
                message.push_str(&line);
            }
            cause = error.source();
        }
        Self::new(exit, message)
    }
}

impl From<io::Error> for Failure {
    /// Of verbs that print and cannot.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // Whoever reads has seen enough, as `head` does.
            io::ErrorKind::BrokenPipe => Self { exit: Exit::Io, message: String::new() },
            _ => Self::new(Exit::Io, format!("cannot write the output: {error}")),
        }
    }
}

/// Runs the verb that the command line names.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let Some(verb) = cli.verb else { return no_verb() };
    match run(verb, &cli.global) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                let _ = writeln!(io::stderr(), "{}", failure.message.trim_end());
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn run(verb: Verb, global: &Global) -> Result<(), Failure> {
    match verb {
        Verb::Run(arguments) => run::run(&arguments, global),
        Verb::Sandbox(arguments) => sandbox::run(&arguments, global),
        Verb::Emulator(arguments) => emulator::run(&arguments, global),
        Verb::Check(arguments) => check::run(&arguments, global),
        Verb::Login(arguments) => login::run(&arguments, global),
        Verb::Status(arguments) => status::run(&arguments, global),
        Verb::Token(verb) => token::run(&verb, global),
        Verb::Audit(verb) => audit::run(&verb, global),
        Verb::Key(verb) => key::run(&verb),
        Verb::Routes(verb) => routes::run(&verb, global),
        Verb::Config(verb) => config::run(&verb, global),
        Verb::Healthcheck(arguments) => healthcheck::run(&arguments, global),
        Verb::Completions { shell } => shell::completions(shell, &mut Cli::command()),
        Verb::Man => shell::man(Cli::command()),
    }
}

/// A gateway must not start by accident.
fn no_verb() -> ExitCode {
    let _ = write!(io::stderr(), "{}", Cli::command().render_help());
    ExitCode::from(Exit::Usage as u8)
}

impl Global {
    /// Where the configuration of this process comes from.
    fn sources(&self) -> Sources {
        Sources::from_process(self.files.clone())
    }

    /// The configuration of this process.
    fn load(&self) -> Result<Loaded, Failure> {
        let mut loaded = load::load(&self.sources()).map_err(|report| Failure {
            exit: Exit::Config,
            message: report.render(self.colour(&io::stderr())),
        })?;
        self.apply(&mut loaded.config);
        Ok(loaded)
    }

    fn apply(&self, config: &mut Config) {
        match self.log_format {
            Some(Format::Auto) => config.telemetry.log_format = LogFormat::Auto,
            Some(Format::Json) => config.telemetry.log_format = LogFormat::Json,
            Some(Format::Pretty) => config.telemetry.log_format = LogFormat::Pretty,
            None => {}
        }
    }

    /// Whether to use colour on `stream`.
    fn colour(&self, stream: &impl IsTerminal) -> bool {
        match self.color {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => {
                let unwanted = std::env::var_os("NO_COLOR").is_some_and(|it| !it.is_empty());
                !unwanted && stream.is_terminal()
            }
        }
    }
}

/// The runtime of verbs that talk to somebody.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    (tokio::runtime::Builder::new_current_thread().enable_all().build())
        .map_err(|error| Failure::new(Exit::Internal, format!("cannot start: {error}")))
}

/// A duration as the configuration writes it.
fn duration(text: &str) -> Result<Duration, String> {
    duration_of(text).ok_or_else(|| "expected a duration such as 90s, 5m or 1h".to_owned())
}

/// Prints `text` to standard output.
fn print(text: impl Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    write!(out, "{text}")?;
    Ok(out.flush()?)
}
