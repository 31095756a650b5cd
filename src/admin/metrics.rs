//! `/metrics`: what happens, as OpenMetrics.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use http::StatusCode;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet, text},
    metrics::{MetricType, gauge::ConstGauge, info::Info},
    registry::Registry,
};

use super::{Status, held_back, network, reload, reply};
use crate::{
    audit, limit,
    message::Response,
    session::{self, Counts, State},
};

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Reads a number that comes and goes.
type Gauge = fn(&session::Status) -> Option<i64>;

/// Reads a number that only grows.
type Count = fn(&Counts) -> u64;

/// Reads a number of the store of quotas.
type OfStore<T> = fn(&limit::Status) -> T;

/// One way to end, and how many ended that way.
type Outcome = (&'static str, Count);

/// What there is one number of for each identity; none if it does not apply.
#[rustfmt::skip] // a table reads in columns
const GAUGES: [(&str, &str, Gauge); 6] = [
    ("amove_gateway_session_serving",                       "Whether there is a token that may be sent.",                                   |it| Some(it.serving.into())),
    ("amove_gateway_session_generation",                    "How many tokens there have been.",                                             |it| i64::try_from(it.generation).ok()),
    ("amove_gateway_session_expires_timestamp_seconds",     "When the token in force expires; absent if there is none or it does not say.", |it| Some(it.expires?.as_second())),
    ("amove_gateway_session_members",                       "How many gateways share the session, this one included.",                      |it| i64::try_from(it.members).ok()),
    ("amove_gateway_session_store_up",                      "Whether the session store can be used.",                                       |it| Some(it.store_error.is_none().into())),
    ("amove_gateway_session_keeper_seen_timestamp_seconds", "When the task that keeps the identity signed in was last at work.",            |it| Some(it.keeper_seen.as_second())),
];

/// What is counted for each identity.
#[rustfmt::skip] // a table reads in columns
const COUNTERS: [(&str, &str, Count); 4] = [
    ("amove_gateway_session_keeper_restarts", "Times that the task which keeps the identity signed in had to be started again.",    |it| it.keeper_restarts),
    ("amove_gateway_session_denials",         "Requests whose token the API denied.",                                               |it| it.denials),
    ("amove_gateway_session_adoptions",       "Sessions of other gateways, or of an earlier run, that were taken over.",            |it| it.adoptions),
    ("amove_gateway_session_store_errors",    "Times that the session store could not be used.",                                    |it| it.store_errors),
];

/// What there is one number of for the store of quotas, if there is one.
#[rustfmt::skip] // a table reads in columns
const STORE_GAUGES: [(&str, &str, OfStore<i64>); 2] = [
    ("amove_gateway_limit_store_up",      "Whether the store of quotas can be asked.",                     |it| it.error.is_none().into()),
    ("amove_gateway_limit_store_members", "How many gateways share the quotas, this one included.",        |it| it.members.into()),
];

/// What is counted for the store of quotas.
#[rustfmt::skip] // a table reads in columns
const STORE_COUNTERS: [(&str, &str, OfStore<u64>); 3] = [
    ("amove_gateway_limit_store_errors",      "Times that the store of quotas could not be asked.",          |it| it.errors),
    ("amove_gateway_limit_store_round_trips", "Times that the store of quotas was asked.",                   |it| it.round_trips),
    ("amove_gateway_limit_store_turned_away", "Requests that found too many others waiting for that store.", |it| it.turned_away),
];

/// What is counted for each identity, by how it ended.
#[rustfmt::skip] // a table reads in columns
const OUTCOMES: [(&str, &str, &[Outcome]); 2] = [
    ("amove_gateway_session_logins",  "Logins that were tried.", &[
        ("ok",      |it| it.logins_ok),
        ("refused", |it| it.logins_refused),
        ("quota",   |it| it.logins_quota),
        ("failed",  |it| it.logins_failed),
    ]),
    ("amove_gateway_session_logouts", "Sessions that were to be ended.", &[
        ("ok",      |it| it.logouts_ok),
        ("failed",  |it| it.logouts_failed),
    ]),
];

/// The metrics of one gateway.
#[derive(Debug)]
pub(super) struct Metrics(Registry);

impl Metrics {
    /// Those that can be read off `status`, at each scrape anew.
    pub(super) fn of(status: &Arc<Status>) -> Self {
        // The full stop of these sentences comes from the library, as does `_info`.
        let mut registry = Registry::default();
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("amove_gateway_build", "Which gateway it is", version);
        let started = ConstGauge::new(status.started.as_second());
        let help = "When the gateway started";
        registry.register("amove_gateway_start_time_seconds", help, started);
        registry.register_collector(Box::new(Facts(Arc::clone(status))));
        Self(registry)
    }

    /// All of them now.
    pub(super) fn scrape(&self) -> Response {
        let mut body = String::new();
        match text::encode(&mut body, &self.0) {
            Ok(()) => reply::new(StatusCode::OK, CONTENT_TYPE, body),
            // Writing to memory does not fail.
            Err(fmt::Error) => {
                reply::text(StatusCode::INTERNAL_SERVER_ERROR, "The metrics cannot be written.")
            }
        }
    }
}

/// Reads what is not counted on purpose, but known anyway.
#[derive(Debug)]
struct Facts(Arc<Status>);

impl Collector for Facts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let shared = self.0.shared.load();
        let identities = shared.sessions.status();
        states(&mut encoder, &identities)?;
        for (name, help, value) in GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for identity in &identities {
                if let Some(value) = value(identity) {
                    family.encode_family(&[of(identity)])?.encode_gauge(&value)?;
                }
            }
        }
        for (name, help, count) in COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for identity in &identities {
                encode_count(&mut family, &[of(identity)], count(&identity.counts))?;
            }
        }
        for (name, help, outcomes) in OUTCOMES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for identity in &identities {
                for (result, count) in outcomes {
                    let labels = [of(identity), ("result", *result)];
                    encode_count(&mut family, &labels, count(&identity.counts))?;
                }
            }
        }
        if let Some(store) = shared.limiter.store() {
            for (name, help, value) in STORE_GAUGES {
                let mut gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                gauge.encode_gauge(&value(&store))?;
            }
            for (name, help, count) in STORE_COUNTERS {
                let counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
                encode_plain(counter, count(&store))?;
            }
        }
        if let Some(expires) = &self.0.certificate_expires {
            let (name, help) = (
                "amove_gateway_tls_certificate_expires_timestamp_seconds",
                "When the certificate that callers see expires.",
            );
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            let expires = expires.borrow().as_second();
            family.encode_family(&[("role", "server")])?.encode_gauge(&expires)?;
        }
        tunnels(&mut encoder, self.0.tunnels.load(Ordering::Relaxed))?;
        held_back::encode(&mut encoder, &shared)?;
        network::encode(&mut encoder, &shared.sites)?;
        if let Some(reloads) = &self.0.reloads {
            reload::encode(&mut encoder, &reloads.state())?;
        }
        audit(&mut encoder, &shared.trail.state())?;
        let (name, help) =
            ("amove_gateway_task_restarts", "Background tasks that died and were started again.");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (task, count) in self.0.tasks.read() {
            encode_count(&mut family, &[("task", task)], count)?;
        }
        Ok(())
    }
}

#[rustfmt::skip] // a table reads in columns
fn audit(encoder: &mut DescriptorEncoder<'_>, audit: &audit::State) -> fmt::Result {
    let counters = [
        ("amove_gateway_audit_records",       "Audit records that were put into the store.",                            audit.stored),
        ("amove_gateway_audit_records_lost",  "Audit records that could not be written.",                               audit.lost),
        ("amove_gateway_audit_lines_lost",    "Audit records that standard output did not take; the store has them.",   audit.lines_lost),
        ("amove_gateway_audit_torn_bytes",    "Bytes of unfinished audit records that were found after a crash.",       audit.torn),
    ];
    for (name, help, count) in counters {
        encode_plain(encoder.encode_descriptor(name, help, None, MetricType::Counter)?, count)?;
    }
    let gauges = [
        ("amove_gateway_audit_writable",      "Whether audit records can be written.",                                  i64::from(audit.failure.is_none())),
        ("amove_gateway_audit_store_up",      "Whether the audit store takes records; if not, the journal keeps them.", i64::from(!audit.stuck)),
        ("amove_gateway_audit_chain_records", "The number of the last record in the audit store.",                      i64::try_from(audit.seq).unwrap_or(i64::MAX)),
    ];
    for (name, help, value) in gauges {
        encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
    }
    audit.central.as_ref().map_or(Ok(()), |central| audit_central(encoder, central))
}

#[rustfmt::skip] // a table reads in columns
fn audit_central(encoder: &mut DescriptorEncoder<'_>, central: &audit::central::State) -> fmt::Result {
    let counters = [
        ("amove_gateway_audit_central_records", "Audit records that have arrived at the central store.",                                        central.shipped),
        ("amove_gateway_audit_central_refused", "Audit records that the central store does not take, or that cannot be read: they are only here.", central.refused),
        ("amove_gateway_audit_central_missing", "Audit records that were gone before they were shipped.",                                       central.missing),
        ("amove_gateway_audit_central_outages", "Times that the central store could not be used.",                                              central.outages),
    ];
    for (name, help, count) in counters {
        encode_plain(encoder.encode_descriptor(name, help, None, MetricType::Counter)?, count)?;
    }
    let number = |number| i64::try_from(number).unwrap_or(i64::MAX);
    let gauges = [
        ("amove_gateway_audit_central_up",             "Whether the central store can be used.",                                    i64::from(central.up)),
        ("amove_gateway_audit_central_behind_records", "Audit records that have not arrived at the central store.",                 number(central.behind)),
        ("amove_gateway_audit_central_behind_seconds", "How long ago the first of them was written.",                               number(central.behind_seconds)),
    ];
    for (name, help, value) in gauges {
        encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
    }
    Ok(())
}

fn tunnels(encoder: &mut DescriptorEncoder<'_>, open: usize) -> fmt::Result {
    let name = "amove_gateway_tunnels";
    let help = "WebSockets between callers and the API that are open.";
    let open = i64::try_from(open).unwrap_or(i64::MAX);
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&open)
}

fn states(encoder: &mut DescriptorEncoder<'_>, identities: &[session::Status]) -> fmt::Result {
    let (name, help) =
        ("amove_gateway_session_state", "How the identity stands: 1 for its present state.");
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for identity in identities {
        for state in State::ALL {
            let labels = [of(identity), ("state", state.name())];
            let is_present = i64::from(identity.state == state);
            family.encode_family(&labels)?.encode_gauge(&is_present)?;
        }
    }
    Ok(())
}

/// The label of what belongs to `identity`: as many values as the configuration names.
fn of(identity: &session::Status) -> (&'static str, &str) {
    ("identity", &identity.name)
}

pub(super) fn encode_count(
    family: &mut MetricEncoder<'_>,
    labels: &impl EncodeLabelSet,
    count: u64,
) -> fmt::Result {
    encode_plain(family.encode_family(labels)?, count)
}

fn encode_plain(mut metric: MetricEncoder<'_>, count: u64) -> fmt::Result {
    metric.encode_counter::<NoLabelSet, u64, u64>(&count, None)
}
