//! `/metrics`: what quotas, the API's own wishes and its failures hold back.

use std::fmt;

use prometheus_client::{encoding::DescriptorEncoder, metrics::MetricType};
use tokio::time::Instant;

use super::metrics::encode_count;
use crate::{
    circuit::{Circuits, Position},
    limit::Limiter,
    pause::Pauses,
    retry::Retries,
    slots::{Cause, Priority, Slots},
    stack::Shared,
};

/// Writes down what the parts of `shared` have counted.
pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, shared: &Shared) -> fmt::Result {
    limits(encoder, &shared.limiter)?;
    pauses(encoder, &shared.pauses)?;
    circuits(encoder, &shared.circuits)?;
    slots(encoder, &shared.slots)?;
    retries(encoder, &shared.retries)
}

fn limits(encoder: &mut DescriptorEncoder<'_>, limiter: &Limiter) -> fmt::Result {
    let (name, help) =
        ("amove_gateway_limit_refused", "Requests that were over a quota, by whose it is.");
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (scope, refused) in limiter.refusals().read() {
        encode_count(&mut family, &[("scope", scope)], refused)?;
    }
    let (queue, name) = (limiter.queue(), "amove_gateway_limit_waits");
    let help = "Requests that were to wait for a quota, by what came of it.";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    let results = [
        ("granted", queue.granted()),
        ("in_vain", queue.in_vain()),
        ("no_room", queue.turned_away()),
    ];
    for (result, waits) in results {
        encode_count(&mut family, &[("result", result)], waits)?;
    }
    let (name, help) = ("amove_gateway_limit_waiting", "Requests that wait for a quota.");
    gauge(encoder, name, help, queue.waiting())
}

fn pauses(encoder: &mut DescriptorEncoder<'_>, pauses: &Pauses) -> fmt::Result {
    let (name, help) =
        ("amove_gateway_pauses", "Times that Amove began to ask to be left alone (`Retry-After`).");
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for counts in pauses.counts() {
        let labels = [("host", counts.host.name()), ("reason", counts.reason.name())];
        encode_count(&mut family, &labels, counts.begun)?;
    }
    let (name, help) = (
        "amove_gateway_pause_requests",
        "Requests that Amove did not want yet, by what became of them.",
    );
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for counts in pauses.counts() {
        for (result, requests) in [("refused", counts.refused), ("waited", counts.waited)] {
            let (host, reason) = (counts.host.name(), counts.reason.name());
            let labels = [("host", host), ("reason", reason), ("result", result)];
            encode_count(&mut family, &labels, requests)?;
        }
    }
    let (name, help) =
        ("amove_gateway_pause_waiting", "Requests that wait for the end of a pause.");
    gauge(encoder, name, help, pauses.waiting())
}

fn circuits(encoder: &mut DescriptorEncoder<'_>, circuits: &Circuits) -> fmt::Result {
    let standings = circuits.standings(Instant::now());
    let (name, help) =
        ("amove_gateway_circuit_state", "How the circuit stands: 1 for its present state.");
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for standing in &standings {
        for position in Position::ALL {
            let labels = [("host", standing.host.name()), ("state", position.name())];
            let is_present = i64::from(standing.position == position);
            family.encode_family(&labels)?.encode_gauge(&is_present)?;
        }
    }
    let counters = [
        (
            "amove_gateway_circuit_opened",
            "Times that a host failed so often that it was left alone.",
            standings.map(|it| it.opened),
        ),
        (
            "amove_gateway_circuit_refused",
            "Requests that were refused while a host was left alone.",
            standings.map(|it| it.refused),
        ),
    ];
    for (name, help, counts) in counters {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (standing, count) in standings.iter().zip(counts) {
            encode_count(&mut family, &[("host", standing.host.name())], count)?;
        }
    }
    Ok(())
}

fn slots(encoder: &mut DescriptorEncoder<'_>, slots: &Slots) -> fmt::Result {
    let standings = slots.standings();
    let gauges = [
        (
            "amove_gateway_slots",
            "Requests that may be under way to a host at once.",
            standings.map(|it| it.limit),
        ),
        (
            "amove_gateway_slots_under_way",
            "Requests that are under way to a host: sent, and not answered.",
            standings.map(|it| it.under_way),
        ),
        (
            "amove_gateway_slots_open",
            "Requests that hold a connection to a host: until the last byte of the answer has come.",
            standings.map(|it| it.open),
        ),
    ];
    for (name, help, values) in gauges {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (standing, value) in standings.iter().zip(values) {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            family.encode_family(&[("host", standing.host.name())])?.encode_gauge(&value)?;
        }
    }
    let (name, help) =
        ("amove_gateway_slots_waiting", "Requests that wait until one may be under way.");
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for standing in &standings {
        for (priority, waiting) in Priority::ALL.into_iter().zip(standing.waiting) {
            let labels = [("host", standing.host.name()), ("priority", priority.name())];
            let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
            family.encode_family(&labels)?.encode_gauge(&waiting)?;
        }
    }
    let (name, help) = (
        "amove_gateway_slots_turned_away",
        "Requests that were turned away because a host has more to do than it can.",
    );
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for standing in &standings {
        for (priority, causes) in Priority::ALL.into_iter().zip(standing.turned_away) {
            for (cause, count) in Cause::ALL.into_iter().zip(causes) {
                let (host, priority) = (standing.host.name(), priority.name());
                let labels = [("host", host), ("priority", priority), ("cause", cause.name())];
                encode_count(&mut family, &labels, count)?;
            }
        }
    }
    Ok(())
}

fn retries(encoder: &mut DescriptorEncoder<'_>, retries: &Retries) -> fmt::Result {
    let (name, help) = (
        "amove_gateway_retries",
        "Reads that Amove left unanswered, by what came of sending them once more.",
    );
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (result, count) in retries.read() {
        encode_count(&mut family, &[("result", result.name())], count)?;
    }
    Ok(())
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: usize) -> fmt::Result {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
}
