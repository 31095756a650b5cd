//! What operators may know of the gateway at the moment they ask.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    ReloadState, Reloads,
    network::{self, Network},
};
use crate::{
    audit,
    circuit::{Circuits, Standing},
    limit::{self, Limiter},
    pause::{InForce, Pauses},
    session::{self, State},
    slots::{self, Priority},
    stack::Shared,
    supervise::Register,
};

/// Where everything that operators may know is found.
#[derive(Debug)]
pub struct Status {
    /// What the workers share, under the configuration in force.
    pub shared: Arc<ArcSwap<Shared>>,
    /// What came of reloads, if the configuration can be read again.
    pub reloads: Option<Arc<Reloads>>,
    /// Cancelled when the gateway begins to drain.
    pub draining: CancellationToken,
    /// When the gateway started.
    pub started: Timestamp,
    /// When the certificate that callers see ends, if they see one.
    pub certificate_expires: Option<watch::Receiver<Timestamp>>,
    /// Where callers reach it.
    pub listening: Vec<String>,
    /// What is supervised.
    pub tasks: Arc<Register>,
    /// How many connections of callers have switched protocols and are open.
    pub tunnels: Arc<AtomicUsize>,
}

/// All of it at one moment. Holds no secret.
#[derive(Debug, Deserialize, Serialize)]
pub struct Report {
    /// Which gateway it is.
    pub version: String,
    /// The moment, by the gateway's clock.
    pub now: Timestamp,
    /// When the gateway started.
    pub started: Timestamp,
    /// Where callers reach it.
    pub listening: Vec<String>,
    /// Whether a call would be served.
    pub ready: bool,
    /// Why it would not be, in a few words.
    pub reason: Option<String>,
    /// Whether the gateway is about to end.
    pub draining: bool,
    /// How each identity stands; the default one comes first.
    pub identities: Vec<session::Status>,
    /// What the quotas hold back.
    pub limits: Limits,
    /// How the store of quotas fares, if a fleet shares them.
    #[serde(default)]
    pub quota_store: Option<limit::Status>,
    /// Whom the API wants to send nothing at the moment.
    pub pauses: Vec<Paused>,
    /// How the circuit to each host stands.
    #[serde(default)]
    pub circuits: Vec<Circuit>,
    /// How the connections to each host stand.
    #[serde(default)]
    pub upstream: Vec<Network>,
    /// How much each host bears, and who waits for it.
    #[serde(default)]
    pub slots: Vec<Slots>,
    /// How the audit log fares.
    pub audit: audit::State,
    /// What came of reloads, if the configuration can be read again.
    #[serde(default)]
    pub reload: Option<ReloadState>,
    /// How often each background task has died and was started again.
    #[serde(default)]
    pub tasks: BTreeMap<String, u64>,
}

/// What the quotas hold back.
#[derive(Debug, Deserialize, Serialize)]
pub struct Limits {
    /// Requests that were over a quota, by whose it is.
    pub refused: BTreeMap<String, u64>,
    /// Requests that wait for one.
    pub waiting: usize,
}

/// Somebody whom the API wants to send nothing at the moment.
#[derive(Debug, Deserialize, Serialize)]
pub struct Paused {
    /// To which host: `api` or `auth`.
    pub host: String,
    /// As whom; `None`: as anybody.
    pub identity: Option<String>,
    /// Why: `quota` or `unavailable`.
    pub reason: String,
    /// Until when, as far as it is believed.
    pub until: Timestamp,
}

/// How the circuit to one host stands.
#[derive(Debug, Deserialize, Serialize)]
pub struct Circuit {
    /// To which host: `api` or `auth`.
    pub host: String,
    /// `closed`, `open` (nothing is sent) or `half_open` (one request at a time finds out).
    pub state: String,
    /// Requests in a row that failed while it is closed.
    pub failures: usize,
    /// How long it stays open at least.
    pub until: Option<Timestamp>,
    /// How often it has opened.
    pub opened: u64,
    /// Requests that it has refused.
    pub refused: u64,
}

/// How much one host bears, and who waits for it.
#[derive(Debug, Deserialize, Serialize)]
pub struct Slots {
    /// Which host: `api` or `auth`.
    pub host: String,
    /// How many requests may be under way.
    pub limit: usize,
    /// How many are.
    pub under_way: usize,
    /// How many of them, and of those that were answered, hold a connection.
    pub open: usize,
    /// Whether the host has more to do than it can.
    pub congested: bool,
    /// How many wait: `write` and `read`.
    pub waiting: BTreeMap<String, usize>,
    /// How many were turned away: `write` and `read`.
    pub turned_away: BTreeMap<String, u64>,
}

impl Status {
    /// How things stand now.
    pub fn report(&self) -> Report {
        let shared = self.shared.load();
        let (identities, now) = (shared.sessions.status(), shared.clock.now());
        let draining = self.draining.is_cancelled();
        let audit = shared.trail.state();
        let readiness = readiness(draining, audit.refuses, &identities);
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now,
            started: self.started,
            listening: self.listening.clone(),
            ready: readiness.is_ok(),
            reason: readiness.err().map(str::to_owned),
            draining,
            limits: limits(&shared.limiter),
            pauses: paused(&shared.pauses, &identities, now),
            circuits: circuits(&shared.circuits, now),
            upstream: network::report(&shared.sites, now),
            slots: shared.slots.standings().map(slots).into(),
            identities,
            quota_store: shared.limiter.store(),
            audit,
            reload: self.reloads.as_ref().map(|reloads| reloads.state()),
            tasks: self
                .tasks
                .read()
                .into_iter()
                .map(|(name, count)| (name.into(), count))
                .collect(),
        }
    }
}

fn limits(limiter: &Limiter) -> Limits {
    let refused = limiter.refusals().read();
    Limits {
        refused: refused.map(|(scope, refused)| (scope.to_owned(), refused)).collect(),
        waiting: limiter.queue().waiting(),
    }
}

fn paused(pauses: &Pauses, identities: &[session::Status], now: Timestamp) -> Vec<Paused> {
    let paused = |pause: InForce| Paused {
        host: pause.host.name().to_owned(),
        identity: (pause.identity).and_then(|at| Some(identities.get(at)?.name.to_string())),
        reason: pause.reason.name().to_owned(),
        until: after(now, pause.left),
    };
    pauses.in_force(Instant::now()).into_iter().map(paused).collect()
}

fn circuits(circuits: &Circuits, now: Timestamp) -> Vec<Circuit> {
    let circuit = |standing: Standing| Circuit {
        host: standing.host.name().to_owned(),
        state: standing.position.name().to_owned(),
        failures: standing.failures,
        until: standing.left.map(|left| after(now, left)),
        opened: standing.opened,
        refused: standing.refused,
    };
    circuits.standings(Instant::now()).map(circuit).into()
}

fn slots(standing: slots::Standing) -> Slots {
    let named = Priority::ALL.map(|priority| priority.name().to_owned());
    let turned_away = standing.turned_away.map(|causes| causes.iter().sum());
    Slots {
        host: standing.host.name().to_owned(),
        limit: standing.limit,
        under_way: standing.under_way,
        open: standing.open,
        congested: standing.is_congested,
        waiting: named.clone().into_iter().zip(standing.waiting).collect(),
        turned_away: named.into_iter().zip(turned_away).collect(),
    }
}

fn after(now: Timestamp, time: Duration) -> Timestamp {
    let time = SignedDuration::try_from(time).unwrap_or_default();
    now.checked_add(time).unwrap_or(now)
}

/// Whether a call would be served: one identity at least has a token. If not, why: first what
/// only people can change, then what takes longest.
fn readiness(
    draining: bool,
    unrecorded: bool,
    identities: &[session::Status],
) -> Result<(), &'static str> {
    if draining {
        return Err("draining");
    }
    if unrecorded {
        return Err("the audit log cannot be written");
    }
    if identities.iter().any(|identity| identity.serving) {
        return Ok(());
    }
    let reasons = [
        (State::Latched, "credentials refused"),
        (State::Quota, "session limit reached"),
        (State::BackingOff, "Amove's login is unavailable"),
    ];
    let holds = |state: State| identities.iter().any(|identity| identity.state == state);
    let reason = reasons.into_iter().find(|(state, _)| holds(*state));
    Err(reason.map_or("no session with Amove", |(_, reason)| reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Counts, CredentialsKind};

    fn identity(state: State, serving: bool) -> session::Status {
        session::Status {
            name: "main".into(),
            credentials: CredentialsKind::Password,
            state,
            serving,
            generation: 0,
            issued: None,
            expires: None,
            renews: None,
            second_factor: None,
            failure: None,
            retries: None,
            members: 0,
            store_error: None,
            counts: Counts::default(),
            keeper_seen: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn each_way_of_not_being_ready_has_a_reason_of_its_own() {
        let check = |states: &[(State, bool)], expected: Result<(), &str>| {
            let identities: Vec<_> =
                states.iter().map(|(state, serving)| identity(*state, *serving)).collect();
            assert_eq!(readiness(false, false, &identities), expected, "{states:?}");
        };

        check(&[(State::Valid, true)], Ok(()));
        check(&[(State::Latched, false), (State::BackingOff, true)], Ok(()));
        check(&[(State::Latched, false)], Err("credentials refused"));
        check(&[(State::Quota, false)], Err("session limit reached"));
        check(&[(State::BackingOff, false)], Err("Amove's login is unavailable"));
        check(&[(State::BackingOff, false), (State::Latched, false)], Err("credentials refused"));
        for state in [State::None, State::LoggingIn, State::Challenged] {
            check(&[(state, false)], Err("no session with Amove"));
        }
        assert_eq!(readiness(true, false, &[identity(State::Valid, true)]), Err("draining"));
    }
}
