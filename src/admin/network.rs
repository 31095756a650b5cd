//! How the connections to the API fare, as metrics and in the status.

use std::{fmt, time::Duration};

use jiff::{SignedDuration, Timestamp};
use prometheus_client::{
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::metrics::encode_count;
use crate::upstream::{Counted, Sites, Standing};

/// Reads numbers that only grow, by a label.
type Labelled = fn(&Counted) -> Vec<(&'static str, u64)>;

/// What is counted, by what came of it or why.
#[rustfmt::skip] // a table reads in columns
const LABELLED: [(&str, &str, &str, Labelled); 4] = [
    ("amove_gateway_upstream_connections_failed", "Connections to the API that could not be opened, by what they failed at.",      "step",   |it| it.failed.iter().map(|(step, count)| (step.name(), *count)).collect()),
    ("amove_gateway_upstream_connections_closed", "Connections to the API that were closed, by why.",                              "reason", |it| it.closed.iter().map(|(ending, count)| (ending.name(), *count)).collect()),
    ("amove_gateway_upstream_lookups",            "Times that the name of the host was looked up.",                                "result", |it| vec![("ok", it.lookups_ok), ("failed", it.lookups_failed)]),
    ("amove_gateway_upstream_unprocessed",        "Requests that the API said it had not processed, by what became of them.",      "result", |it| vec![("sent_again", it.sent_again), ("given_up", it.given_up)]),
];

/// How the connections to one host stand.
#[derive(Debug, Deserialize, Serialize)]
pub struct Network {
    /// To which host: `api` or `auth`.
    pub host: String,
    /// Its name and port.
    pub name: String,
    /// Where new connections go.
    pub addresses: Vec<Address>,
    /// When the name was last resolved; `None`: it needs not be, or has not been.
    pub resolved: Option<Timestamp>,
    /// Why it could not be when it was last tried.
    pub failure: Option<String>,
    /// Connections that are open.
    pub connections: u64,
}

/// One address of a host.
#[derive(Debug, Deserialize, Serialize)]
pub struct Address {
    /// The address and the port.
    pub address: String,
    /// Whether others are tried before it, since nobody was there.
    pub avoided: bool,
}

/// How all of them stand; the gateway's clock says `now`.
pub(super) fn report(sites: &Sites, now: Timestamp) -> Vec<Network> {
    let ago = |age: Duration| {
        let age = SignedDuration::try_from(age).unwrap_or_default();
        now.checked_sub(age).unwrap_or(now)
    };
    let network = |standing: Standing| Network {
        host: standing.host.name().to_owned(),
        name: standing.authority.to_string(),
        addresses: (standing.known.addresses.into_iter())
            .map(|(address, avoided)| Address { address: address.to_string(), avoided })
            .collect(),
        resolved: standing.known.age.map(ago),
        failure: standing.known.failure,
        connections: standing.counted.open(),
    };
    sites.standings(Instant::now()).map(network).into()
}

/// Writes down what is known of the connections over `sites`.
pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, sites: &Sites) -> fmt::Result {
    let standings = sites.standings(Instant::now());
    let (name, help) =
        ("amove_gateway_upstream_connections_opened", "Connections to the API that were opened.");
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for standing in &standings {
        encode_count(&mut family, &[of(standing)], standing.counted.opened)?;
    }
    for (name, help, label, counts) in LABELLED {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for standing in &standings {
            for (value, count) in counts(&standing.counted) {
                encode_count(&mut family, &[of(standing), (label, value)], count)?;
            }
        }
    }
    let (name, help) = (
        "amove_gateway_upstream_connections_closed_age_seconds",
        "How old the connections were that are closed, all together.",
    );
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for standing in &standings {
        let lived = standing.counted.lived.as_secs_f64();
        family
            .encode_family(&[of(standing)])?
            .encode_counter::<NoLabelSet, f64, f64>(&lived, None)?;
    }
    gauges(encoder, &standings)
}

fn gauges(encoder: &mut DescriptorEncoder<'_>, standings: &[Standing]) -> fmt::Result {
    let (name, help) =
        ("amove_gateway_upstream_connections", "Connections to the API that are open.");
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for standing in standings {
        gauge(&mut family, standing, standing.counted.open())?;
    }
    let (name, help) =
        ("amove_gateway_upstream_addresses", "Addresses of the host that are known.");
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for standing in standings {
        for (state, avoided) in [("good", false), ("avoided", true)] {
            let count = standing.known.addresses.iter().filter(|it| it.1 == avoided).count();
            let labels = [of(standing), ("state", state)];
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            family.encode_family(&labels)?.encode_gauge(&count)?;
        }
    }
    let (name, help) =
        ("amove_gateway_upstream_lookup_age_seconds", "How old the known addresses are.");
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for standing in standings {
        if let Some(age) = standing.known.age {
            family.encode_family(&[of(standing)])?.encode_gauge(&age.as_secs_f64())?;
        }
    }
    Ok(())
}

fn gauge(family: &mut MetricEncoder<'_>, standing: &Standing, value: u64) -> fmt::Result {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    family.encode_family(&[of(standing)])?.encode_gauge(&value)
}

fn of(standing: &Standing) -> (&'static str, &'static str) {
    ("host", standing.host.name())
}
