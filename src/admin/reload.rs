//! Reloads: who asks for them, and what came of them.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use prometheus_client::{encoding::DescriptorEncoder, metrics::MetricType};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::metrics::encode_count;
use crate::config::{Changes, report::Report};

/// Reloads that may be waited for. More need not be: the next one reads what is there by then.
const WAITING: usize = 8;

/// What makes the gateway read its configuration again.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// SIGHUP.
    Signal,
    /// A file has changed.
    File,
    /// `POST /-/reload`.
    Operator,
}

impl Trigger {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::File => "file",
            Self::Operator => "operator",
        }
    }
}

/// Why a configuration did not come into force.
#[derive(Clone, Debug)]
pub enum Refused {
    /// There is something wrong with it.
    Invalid(Arc<Report>),
    /// What it describes cannot be set up: why.
    Unusable(String),
    /// The gateway is about to end.
    Ending,
}

impl Refused {
    /// In one line.
    pub fn first_line(&self) -> String {
        match self {
            Self::Invalid(report) => {
                let text = report.to_string();
                let line = text.lines().next().unwrap_or_default();
                line.trim_start_matches("error: ").to_owned()
            }
            Self::Unusable(reason) => reason.clone(),
            Self::Ending => "the gateway is about to end".to_owned(),
        }
    }
}

/// What came of a reload.
pub type Outcome = Result<Applied, Refused>;

/// What a new configuration has changed.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Applied {
    /// Settings, and sections that came or went, that are in force now.
    pub changed: Vec<String>,
    /// Settings that differ from what is in force, and wait for the next start.
    pub not_reloadable: Vec<String>,
}

impl From<&Changes> for Applied {
    fn from(changes: &Changes) -> Self {
        let names = |names: &mut dyn Iterator<Item = &str>| names.map(str::to_owned).collect();
        Self {
            changed: names(&mut changes.taken()),
            not_reloadable: names(&mut changes.at_start()),
        }
    }
}

/// A reload that somebody asks for.
#[derive(Debug)]
pub struct Wish {
    /// Why.
    pub trigger: Trigger,
    /// Who wants to know what came of it.
    pub answer: oneshot::Sender<Outcome>,
}

/// Takes wishes, and knows what came of them.
#[derive(Debug)]
pub struct Reloads {
    wishes: mpsc::Sender<Wish>,
    told: Mutex<Told>,
}

#[derive(Debug)]
struct Told {
    state: State,
    /// The configuration in force, as TOML without secrets.
    in_force: Arc<str>,
}

/// What came of reloads, for operators.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct State {
    /// Configurations that came into force since the start.
    pub applied: u64,
    /// Configurations that were refused since the start.
    pub refused: u64,
    /// What came of the last one, if there was one.
    pub last: Option<Last>,
    /// Settings that differ from what is in force, and wait for the next start.
    pub not_reloadable: Vec<String>,
}

/// One reload.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Last {
    /// When it was.
    pub at: Timestamp,
    /// What caused it.
    pub trigger: Trigger,
    /// What it changed; nothing if it was refused.
    pub changed: Vec<String>,
    /// Why it was refused, in one line, if it was.
    pub error: Option<String>,
}

impl Reloads {
    /// Passes wishes on to the receiver; what is `in_force` is TOML without secrets.
    pub fn new(in_force: String) -> (Arc<Self>, mpsc::Receiver<Wish>) {
        let (wishes, receiver) = mpsc::channel(WAITING);
        let told = Told { state: State::default(), in_force: in_force.into() };
        (Arc::new(Self { wishes, told: Mutex::new(told) }), receiver)
    }

    /// Asks for a reload. `None` if so many are waited for that one more makes no difference.
    pub fn ask(&self, trigger: Trigger) -> Option<oneshot::Receiver<Outcome>> {
        let (answer, outcome) = oneshot::channel();
        self.wishes.try_send(Wish { trigger, answer }).ok().map(|()| outcome)
    }

    /// A configuration has come into force, or not; `in_force` is the one that is now.
    pub fn tell(&self, at: Timestamp, trigger: Trigger, outcome: &Outcome, in_force: String) {
        let mut told = self.told();
        let state = &mut told.state;
        let (changed, error) = match outcome {
            Ok(Applied { changed, not_reloadable }) => {
                state.applied += 1;
                state.not_reloadable.clone_from(not_reloadable);
                (changed.clone(), None)
            }
            Err(refused) => {
                state.refused += 1;
                (Vec::new(), Some(refused.first_line()))
            }
        };
        state.last = Some(Last { at, trigger, changed, error });
        told.in_force = in_force.into();
    }

    /// What came of them so far.
    pub fn state(&self) -> State {
        self.told().state.clone()
    }

    /// The configuration in force, as TOML without secrets.
    pub fn in_force(&self) -> Arc<str> {
        Arc::clone(&self.told().in_force)
    }

    /// Nothing can panic while the lock is held.
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes down what came of reloads.
pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, state: &State) -> fmt::Result {
    let (name, help) =
        ("amove_gateway_reloads", "Configurations that were read again, by what came of it.");
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (result, count) in [("applied", state.applied), ("refused", state.refused)] {
        encode_count(&mut family, &[("result", result)], count)?;
    }
    let is_well = state.last.as_ref().is_none_or(|last| last.error.is_none());
    let pending = i64::try_from(state.not_reloadable.len()).unwrap_or(i64::MAX);
    for (name, help, value) in [
        (
            "amove_gateway_reload_ok",
            "Whether the last configuration that was read is in force.",
            i64::from(is_well),
        ),
        (
            "amove_gateway_reload_pending_settings",
            "Settings that wait for the next start.",
            pending,
        ),
    ] {
        encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
    }
    Ok(())
}
