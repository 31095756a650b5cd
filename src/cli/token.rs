//! `token`: the session tokens of a running gateway; never shows one.

use clap::{Args, Subcommand};
use http::StatusCode;

use super::{Exit, Failure, Global, operator::Place, print, status};
use crate::session;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// How each identity stands: state, expiry, last failure, counts
    Status(Arguments),
    /// Log in now, whatever stands in the way; the old token serves until then
    Refresh(Arguments),
    /// End the session now; the next one is opened at once
    Revoke(Arguments),
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The identity; without it, all are shown, and orders are about the default one
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Asks or orders what `verb` says.
pub(super) fn run(verb: &Verb, global: &Global) -> Result<(), Failure> {
    match verb {
        Verb::Status(arguments) => show(arguments, global),
        Verb::Refresh(arguments) => order("/-/token/refresh", arguments, global),
        Verb::Revoke(arguments) => order("/-/token/revoke", arguments, global),
    }
}

fn show(arguments: &Arguments, global: &Global) -> Result<(), Failure> {
    let mut report = arguments.place.gateway(global)?.report()?;
    if let Some(wanted) = &arguments.identity {
        let known: Vec<_> = report.identities.iter().map(|it| it.name.clone()).collect();
        report.identities.retain(|identity| identity.name == *wanted);
        if report.identities.is_empty() {
            let known = known.join(", ");
            let message = format!("there is no identity `{wanted}`; there are: {known}");
            return Err(Failure::new(Exit::Usage, message));
        }
    }
    if arguments.json {
        return print(format!("{:#}\n", serde_json::json!(report.identities)));
    }
    print(status::identities(&report, colour(global)))
}

fn order(target: &str, arguments: &Arguments, global: &Global) -> Result<(), Failure> {
    let query = arguments.identity.as_ref().map(|name| {
        let name: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
        format!("?identity={name}")
    });
    let gateway = arguments.place.gateway(global)?;
    let reply = gateway.post(&format!("{target}{}", query.unwrap_or_default()))?;
    let identity: session::Status = gateway.read(&reply).map_err(|failure| match reply.status {
        StatusCode::NOT_FOUND => Failure { exit: Exit::Usage, ..failure },
        _ => failure,
    })?;
    if arguments.json {
        return print(format!("{:#}\n", serde_json::json!(identity)));
    }
    let mut report = gateway.report()?;
    report.identities.retain(|it| it.name == identity.name);
    print(status::identities(&report, colour(global)))
}

fn colour(global: &Global) -> bool {
    global.colour(&std::io::stdout())
}
