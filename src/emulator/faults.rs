//! What goes wrong, in the order it was ordered.

use serde::{Deserialize, Serialize};

/// One of the two hosts.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HostName {
    /// The main host.
    Api,
    /// The auth host.
    Auth,
}

/// Something that goes wrong. Without `count` it goes wrong until faults are cleared; without
/// `host`, on both.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Answers later.
    Latency {
        /// By how much.
        ms: u64,
        /// How often.
        count: Option<u32>,
        /// Where.
        host: Option<HostName>,
    },
    /// Denies the tokens of the next requests.
    Unauthorized {
        /// Of how many.
        count: u32,
    },
    /// Answers 499.
    Code {
        /// With this code.
        code: String,
        /// How often.
        count: Option<u32>,
        /// Where.
        host: Option<HostName>,
        /// Only for targets that contain this.
        route: Option<String>,
    },
    /// Answers with another status.
    Status {
        /// Which.
        status: u16,
        /// And this body.
        #[serde(default)]
        body: String,
        /// How often.
        count: Option<u32>,
        /// Where.
        host: Option<HostName>,
    },
    /// Resets the connection instead of answering.
    Reset {
        /// How often.
        count: Option<u32>,
        /// Where.
        host: Option<HostName>,
    },
    /// Breaks the answer's body off in the middle.
    Truncate {
        /// How often.
        count: Option<u32>,
        /// Where.
        host: Option<HostName>,
    },
    /// Never answers.
    Stall {
        /// How often.
        count: Option<u32>,
        /// Where.
        host: Option<HostName>,
    },
    /// Answers with these very bytes, and ends the connection.
    Raw {
        /// The bytes.
        bytes: String,
        /// How often.
        count: Option<u32>,
        /// Where.
        host: Option<HostName>,
    },
    /// Answers logins with what is no answer.
    MalformedLogin {
        /// What is wrong with it.
        kind: Malformation,
        /// How often.
        count: Option<u32>,
    },
    /// The auth host resets every connection.
    AuthDown {
        /// Begins or ends it.
        on: bool,
    },
    /// Amove's clock is ahead, or behind.
    ClockSkew {
        /// By so many seconds.
        seconds: i64,
    },
    /// All sessions end, once.
    RevokeSessions,
}

/// What can be wrong with the answer to a login.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Malformation {
    /// A web page.
    Html,
    /// Nothing.
    Empty,
    /// JSON that breaks off.
    Broken,
    /// No token where one belongs.
    NoToken,
    /// A challenge that nobody knows.
    UnknownChallenge,
}

/// All that is ordered.
#[derive(Default)]
pub(super) struct Faults {
    ordered: Vec<Fault>,
    pub(super) clock_skew: i64,
    auth_down: bool,
}

/// How many may be waiting.
const WAITING: usize = 256;

impl Faults {
    pub(super) fn order(&mut self, fault: Fault) {
        match fault {
            Fault::AuthDown { on } => self.auth_down = on,
            Fault::ClockSkew { seconds } => self.clock_skew = seconds,
            fault if self.ordered.len() < WAITING => self.ordered.push(fault),
            _ => {}
        }
    }

    /// How long to wait before answering, in milliseconds.
    pub(super) fn latency(&mut self, host: HostName) -> Option<u64> {
        let found =
            self.next(|fault| matches!(fault, Fault::Latency { host: at, .. } if here(*at, host)))?;
        if let Fault::Latency { ms, .. } = found { Some(ms) } else { None }
    }

    /// What to do instead of answering a request for `target`, if anything.
    pub(super) fn instead(&mut self, host: HostName, target: &str) -> Option<Fault> {
        if self.auth_down && host == HostName::Auth {
            return Some(Fault::Reset { count: None, host: None });
        }
        self.next(|fault| match fault {
            Fault::Code { host: at, route, .. } => {
                here(*at, host)
                    && route.as_ref().is_none_or(|route| target.contains(route.as_str()))
            }
            Fault::Status { host: at, .. }
            | Fault::Reset { host: at, .. }
            | Fault::Truncate { host: at, .. }
            | Fault::Stall { host: at, .. }
            | Fault::Raw { host: at, .. } => here(*at, host),
            _ => false,
        })
    }

    /// Whether the next token is to be denied.
    pub(super) fn denies(&mut self) -> bool {
        self.next(|fault| matches!(fault, Fault::Unauthorized { .. })).is_some()
    }

    /// What is wrong with the answer to the next login.
    pub(super) fn malformed_login(&mut self) -> Option<Malformation> {
        match self.next(|fault| matches!(fault, Fault::MalformedLogin { .. }))? {
            Fault::MalformedLogin { kind, .. } => Some(kind),
            _ => None,
        }
    }

    /// The first fault that is `wanted`, used once.
    fn next(&mut self, wanted: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let at = self.ordered.iter().position(|fault| !fault.is_used_up() && wanted(fault))?;
        let fault = self.ordered.get_mut(at)?;
        let found = fault.clone();
        fault.use_once();
        self.ordered.retain(|fault| !fault.is_used_up());
        Some(found)
    }
}

/// A fault without a host is everywhere.
fn here(at: Option<HostName>, host: HostName) -> bool {
    at.is_none_or(|at| at == host)
}

impl Fault {
    fn count(&mut self) -> Option<&mut u32> {
        match self {
            Self::Unauthorized { count } => Some(count),
            Self::Latency { count, .. }
            | Self::Code { count, .. }
            | Self::Status { count, .. }
            | Self::Reset { count, .. }
            | Self::Truncate { count, .. }
            | Self::Stall { count, .. }
            | Self::Raw { count, .. }
            | Self::MalformedLogin { count, .. } => count.as_mut(),
            Self::AuthDown { .. } | Self::ClockSkew { .. } | Self::RevokeSessions => None,
        }
    }

    fn use_once(&mut self) {
        if let Some(count) = self.count() {
            *count = count.saturating_sub(1);
        }
    }

    fn is_used_up(&self) -> bool {
        self.clone().count().is_some_and(|count| *count == 0)
    }
}
