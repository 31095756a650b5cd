//! `status`: how a running gateway stands, on one screen.

use std::{fmt::Write, io};

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::{
    Failure, Global,
    operator::{Place, printable},
    paint::{Paint, paint},
    print,
};
use crate::{
    admin::{Circuit, Paused, ReloadState, Report, Slots},
    audit,
    limit::Status as Store,
    session::{CredentialsKind, State, Status},
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Prints the screen.
pub(super) fn run(arguments: &Arguments, global: &Global) -> Result<(), Failure> {
    let report = arguments.place.gateway(global)?.report()?;
    if arguments.json {
        return print(format!("{:#}\n", json!(report)));
    }
    let colour = global.colour(&io::stdout());
    print(format!("{}\n{}", gateway(&report, colour), identities(&report, colour)))
}

fn gateway(report: &Report, colour: bool) -> String {
    let up = span(report.started, report.now);
    let ready = match &report.reason {
        None => paint("yes", Paint::Green, colour),
        Some(reason) => paint(&format!("no: {}", printable(reason)), Paint::Red, colour),
    };
    let mut text = String::new();
    line(&mut text, "gateway", &format!("version {}, up {up}", report.version));
    line(&mut text, "started", &format!("{:.0}", report.started));
    line(&mut text, "listening", &report.listening.join(", "));
    line(&mut text, "ready", &ready);
    let refused: u64 = report.limits.refused.values().sum();
    if refused > 0 || report.limits.waiting > 0 {
        let waiting = report.limits.waiting;
        line(&mut text, "quotas", &format!("{refused} requests refused, {waiting} waiting"));
    }
    match &report.quota_store {
        None => {}
        Some(Store { error: Some(error), .. }) => {
            line(&mut text, "quota store", &paint(&printable(error), Paint::Red, colour));
        }
        Some(Store { members, .. }) => {
            line(&mut text, "quota store", &format!("shared by {members} gateway(s)"));
        }
    }
    for pause in &report.pauses {
        line(&mut text, "paused", &paint(&paused(pause, report.now), Paint::Yellow, colour));
    }
    for circuit in report.circuits.iter().filter(|it| it.state != "closed") {
        line(&mut text, "circuit", &paint(&self::circuit(circuit, report.now), Paint::Red, colour));
    }
    for slots in report.slots.iter().filter(|it| it.congested) {
        line(&mut text, "overload", &paint(&overload(slots), Paint::Yellow, colour));
    }
    if let Some(state) = &report.reload {
        reload(&mut text, state, report.now, colour);
    }
    for (task, count) in report.tasks.iter().filter(|(_, count)| **count > 0) {
        let told = format!("{} died {count} time(s), and was started again", printable(task));
        line(&mut text, "task", &paint(&told, Paint::Red, colour));
    }
    line(&mut text, "audit", &audit(&report.audit, colour));
    if let Some(state) = &report.audit.central {
        line(&mut text, "  central", &central(state, colour));
    }
    text
}

/// What came of the last reload, if there was one.
fn reload(text: &mut String, state: &ReloadState, now: Timestamp, colour: bool) {
    let Some(last) = &state.last else { return };
    let told = match &last.error {
        None => format!("reloaded {}, {} changed", moment(Some(last.at), now), last.changed.len()),
        Some(error) => {
            let told = format!("refused {}: {}", moment(Some(last.at), now), printable(error));
            paint(&told, Paint::Red, colour)
        }
    };
    line(text, "configuration", &told);
    if !state.not_reloadable.is_empty() {
        let names = printable(&state.not_reloadable.join(", "));
        line(text, "  at restart", &paint(&names, Paint::Yellow, colour));
    }
}

fn audit(state: &audit::State, colour: bool) -> String {
    let mut text = format!("{} records", state.seq);
    if state.lost > 0 {
        text += &paint(&format!(", {} lost", state.lost), Paint::Red, colour);
    }
    match &state.failure {
        Some(reason) => {
            text +=
                &paint(&format!(", cannot be written: {}", printable(reason)), Paint::Red, colour);
        }
        None if state.waits => text += ", waits until the predecessor leaves the store",
        None if state.stuck => text += &paint(", kept in the journal", Paint::Yellow, colour),
        None => {}
    }
    text
}

/// Whom Amove wants to send nothing, and until when.
fn paused(pause: &Paused, now: Timestamp) -> String {
    let whom = pause.identity.as_deref().map_or_else(|| "everybody".to_owned(), printable);
    let (host, reason) = (printable(&pause.host), printable(&pause.reason));
    format!("{whom} at Amove's {host} host ({reason}), ends {}", moment(Some(pause.until), now))
}

/// Which host fails, and how long it is left alone.
fn circuit(circuit: &Circuit, now: Timestamp) -> String {
    let (host, refused) = (printable(&circuit.host), circuit.refused);
    let goes_on = match circuit.until {
        Some(until) => format!("left alone, tried again {}", moment(Some(until), now)),
        None => "tried again".to_owned(),
    };
    format!("Amove's {host} host keeps failing: {goes_on}; {refused} requests refused")
}

/// Which host has too much to do, and who waits.
fn overload(slots: &Slots) -> String {
    let host = printable(&slots.host);
    let (waiting, turned_away): (usize, u64) =
        (slots.waiting.values().sum(), slots.turned_away.values().sum());
    let limit = slots.limit;
    format!(
        "Amove's {host} host bears {limit} requests at once; {waiting} waiting, {turned_away} turned \
         away so far"
    )
}

fn central(state: &audit::central::State, colour: bool) -> String {
    let mut text = match state.behind {
        0 => "up to date".to_owned(),
        behind => format!("{behind} records behind, {} s", state.behind_seconds),
    };
    if let Some(reason) = &state.failure {
        text += &paint(&format!(", {}", printable(reason)), Paint::Yellow, colour);
    }
    if state.refused + state.missing > 0 {
        let lost = format!(", {} will never arrive", state.refused + state.missing);
        text += &paint(&lost, Paint::Red, colour);
    }
    text
}

/// How the identities of `report` stand.
pub(super) fn identities(report: &Report, colour: bool) -> String {
    let screens: Vec<_> =
        report.identities.iter().map(|status| identity(status, report.now, colour)).collect();
    screens.join("\n")
}

fn identity(status: &Status, now: Timestamp, colour: bool) -> String {
    let paint_of = match status.state {
        State::Valid | State::Renewing => Paint::Green,
        State::Latched | State::Ended => Paint::Red,
        State::None | State::LoggingIn | State::Challenged | State::BackingOff | State::Quota => {
            Paint::Yellow
        }
    };
    let serving = if status.serving { ", serving" } else { ", not serving" };
    let mut text = String::new();
    line(&mut text, "identity", &printable(&status.name));
    let state = paint(status.state.name(), paint_of, colour);
    line(&mut text, "  state", &format!("{state}{serving}"));
    line(&mut text, "  token", &token(status, now));
    line(&mut text, "  expires", &moment(status.expires, now));
    line(&mut text, "  renews", &moment(status.renews, now));
    line(&mut text, "  members", &members(status.members));
    if let Some(error) = &status.store_error {
        line(&mut text, "  store", &paint(&printable(error), Paint::Red, colour));
    }
    let failure = status.failure.as_deref().map_or_else(|| "none".into(), printable);
    line(&mut text, "  last failure", &failure);
    if status.retries.is_some() {
        line(&mut text, "  next login", &moment(status.retries, now));
    }
    counts(&mut text, status);
    text
}

fn token(status: &Status, now: Timestamp) -> String {
    let issued = status.issued.map(|issued| format!(", issued {} ago", span(issued, now)));
    let factor = match (status.credentials, status.second_factor) {
        (CredentialsKind::ApiToken, _) => ", an API token",
        (CredentialsKind::Password, Some(true)) => ", with a second factor",
        (CredentialsKind::Password, Some(false) | None) => "",
    };
    format!("number {}{}{factor}", status.generation, issued.unwrap_or_default())
}

fn members(members: usize) -> String {
    match members {
        0 | 1 => "this gateway alone".to_owned(),
        members => format!("{members} gateways share the session"),
    }
}

fn counts(text: &mut String, status: &Status) {
    let counts = &status.counts;
    let logins = format!(
        "{} ok, {} refused, {} over the session limit, {} failed",
        counts.logins_ok, counts.logins_refused, counts.logins_quota, counts.logins_failed
    );
    line(text, "  logins", &logins);
    let logouts = format!("{} ok, {} failed", counts.logouts_ok, counts.logouts_failed);
    line(text, "  logouts", &logouts);
    let others = format!(
        "{} tokens denied, {} sessions taken over, {} store errors, {} keeper restarts",
        counts.denials, counts.adoptions, counts.store_errors, counts.keeper_restarts
    );
    line(text, "  also", &others);
}

fn line(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "{name:14} {value}");
}

/// A moment, seen from `now`.
fn moment(at: Option<Timestamp>, now: Timestamp) -> String {
    match at {
        None => "-".to_owned(),
        Some(at) if at > now => format!("in {}", span(now, at)),
        Some(at) => format!("{} ago", span(at, now)),
    }
}

/// How much time lies between, in its two largest units.
fn span(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.as_second().saturating_sub(from.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if days > 0 {
        format!("{days} d {} h", hours % 24)
    } else if hours > 0 {
        format!("{hours} h {} min", minutes % 60)
    } else if minutes >= 10 {
        format!("{minutes} min")
    } else if minutes > 0 {
        format!("{minutes} min {} s", seconds % 60)
    } else {
        format!("{seconds} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_told_in_its_two_largest_units() {
        let check = |seconds, expected: &str| {
            let to = Timestamp::from_second(seconds).unwrap();
            assert_eq!(span(Timestamp::UNIX_EPOCH, to), expected);
        };

        check(-5, "0 s");
        check(59, "59 s");
        check(61, "1 min 1 s");
        check(42 * 60 + 5, "42 min");
        check(3 * 3600 + 12 * 60, "3 h 12 min");
        check(2 * 86_400 + 4 * 3600 + 60, "2 d 4 h");
    }

    #[test]
    fn a_moment_is_ahead_or_past() {
        let at = |second| Timestamp::from_second(second).unwrap();

        assert_eq!(moment(Some(at(100)), at(40)), "in 1 min 0 s");
        assert_eq!(moment(Some(at(40)), at(100)), "1 min 0 s ago");
        assert_eq!(moment(None, at(0)), "-");
    }
}
