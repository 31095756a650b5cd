//! How many requests are under way to each host of the API, who waits for a slot, and who is turned
//! away.
//!
//! ```text
//!           a slot is free                                answered              over
//!   enter ────────────────────────────────▶ under way ──────────────▶ open ──────────────▶
//!     │                                        ▲
//!     └───▶ waits ──── writes, then reads ─────┘
//!             └──────── too late, or no room ────▶ turned away
//! ```
//!
//! A request needs two things. Until it is answered it is *under way*: of these there are as many as
//! the host bears, which the limiter finds out. Until its last byte has come it is *open*, and holds
//! a connection: of these there are as many as `upstream.max_connections` says. So an answer that is
//! read slowly, a stream of events, or a WebSocket, costs a connection but keeps nobody from being
//! answered, and says nothing about how the host is. What waits by its nature (a long poll) is never
//! counted as under way.
//!
//! All workers share one number, because there is one API: as long as a slot is free, a request reads
//! and changes that number and nothing else. Only who has to wait takes a lock.

use std::{sync::Arc, time::Duration};

use crate::{
    amove::host::Host,
    config::{self, BaseUrl},
};

mod gate;
mod limiter;
mod pulse;
mod room;
#[cfg(test)]
mod tests;
mod turn;

pub use gate::Gate;
pub use room::Priority;
pub use turn::{Slot, Turn};

use gate::State;

/// The slots towards each host.
#[derive(Debug)]
pub struct Slots([Arc<Gate>; Host::ALL.len()]);

/// What a request wants.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Whose turn it is first.
    pub priority: Priority,
    /// The position of its route in the catalogue, if it is there.
    pub route: Option<usize>,
    /// It takes long by its nature: it is only open.
    pub lasts: bool,
}

/// Why a request was turned away.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// As many wait as may.
    NoRoom,
    /// It has waited for as long as it may.
    Late,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::NoRoom, Self::Late];

    /// Its name in reports and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoRoom => "no_room",
            Self::Late => "late",
        }
    }

    /// The setting that says so.
    pub const fn rule(self) -> &'static str {
        match self {
            Self::NoRoom => "upstream.max_waiting",
            Self::Late => "upstream.max_wait",
        }
    }
}

/// A request that was turned away. It was not sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TurnedAway {
    /// Why.
    pub cause: Cause,
    /// When there is a point in trying again.
    pub left: Duration,
}

/// How the slots towards a host stand, for those who look on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Standing {
    /// To which host.
    pub host: Host,
    /// How many requests may be under way.
    pub limit: usize,
    /// How many are.
    pub under_way: usize,
    /// How many of them, and of those that were answered, hold a connection.
    pub open: usize,
    /// Whether the host has more to do than it can.
    pub is_congested: bool,
    /// How many wait, by priority.
    pub waiting: [usize; Priority::ALL.len()],
    /// How many were turned away, by priority and cause.
    pub turned_away: [[u64; Cause::ALL.len()]; Priority::ALL.len()],
}

impl Slots {
    /// Those that `config` describes.
    pub fn new(config: &config::Upstream) -> Self {
        let gate = |host| Gate::new(base(config, host), config, State::new(), Arc::default());
        Self(Host::ALL.map(|host| Arc::new(gate(host))))
    }

    /// The same under another configuration. Of a host that is another one nothing is known.
    #[must_use]
    pub fn under(&self, config: &config::Upstream) -> Self {
        let under = |host| {
            let (before, base) = (self.to(host), base(config, host));
            let state = if *base == before.base { Arc::clone(&before.state) } else { State::new() };
            Arc::new(Gate::new(base, config, state, Arc::clone(&before.counters)))
        };
        Self(Host::ALL.map(under))
    }

    /// The same: each worker counts its own references to them.
    #[must_use]
    pub fn sibling(&self) -> Self {
        Self(Host::ALL.map(|host| Arc::new(Gate::clone(self.to(host)))))
    }

    /// Those to `host`.
    pub const fn to(&self, host: Host) -> &Arc<Gate> {
        &self.0[host as usize]
    }

    /// How they stand.
    pub fn standings(&self) -> [Standing; Host::ALL.len()] {
        Host::ALL.map(|host| self.to(host).standing(host))
    }
}

const fn base(config: &config::Upstream, host: Host) -> &BaseUrl {
    match host {
        Host::Api => &config.api_url,
        Host::Auth => &config.auth_url,
    }
}
