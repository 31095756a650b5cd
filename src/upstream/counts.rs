//! What is counted of the connections to one host.

use std::{
    sync::atomic::{
        AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
    time::Duration,
};

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Ending {
    /// It was as old as `upstream.max_connection_age` allows.
    Aged = 1,
    /// The name has no longer the address that it went to.
    Moved,
    /// Nobody needed it.
    Unused,
    /// The API closed it, or said that it would.
    Peer,
    /// The network broke it off.
    Broken,
    /// TLS could not be agreed upon.
    Handshake,
    /// It had become a tunnel, which has ended.
    Tunnel,
    /// Given up in the middle of an exchange, or with everything else of its configuration.
    Dropped,
}

impl Ending {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Aged,
        Self::Moved,
        Self::Unused,
        Self::Peer,
        Self::Broken,
        Self::Handshake,
        Self::Tunnel,
        Self::Dropped,
    ];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aged => "aged",
            Self::Moved => "moved",
            Self::Unused => "unused",
            Self::Peer => "peer",
            Self::Broken => "broken",
            Self::Handshake => "handshake",
            Self::Tunnel => "tunnel",
            Self::Dropped => "dropped",
        }
    }

    const fn place(self) -> usize {
        self as usize - 1
    }
}

/// What an attempt to connect failed at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// The name is looked up.
    Lookup,
    /// Somebody is called.
    Connect,
    /// Somebody is there, and shakes hands.
    Tls,
}

impl Step {
    /// All of them, in their order.
    pub const ALL: [Self; 3] = [Self::Lookup, Self::Connect, Self::Tls];

    /// Its name in errors, problems and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lookup => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
        }
    }
}

/// What has happened so far. It outlives a configuration.
#[derive(Debug, Default)]
pub(super) struct Counts {
    opened: AtomicU64,
    failed: [AtomicU64; Step::ALL.len()],
    closed: [AtomicU64; Ending::ALL.len()],
    /// How long those that are closed had been open, in milliseconds.
    lived: AtomicU64,
    lookups: [AtomicU64; 2],
    unprocessed: [AtomicU64; 2],
}

/// The same at one moment.
#[derive(Clone, Debug)]
pub struct Counted {
    /// Connections that were opened.
    pub opened: u64,
    /// Attempts to open one that failed, by what at.
    pub failed: [(Step, u64); Step::ALL.len()],
    /// Connections that were closed, by why.
    pub closed: [(Ending, u64); Ending::ALL.len()],
    /// How long those had been open, all together.
    pub lived: Duration,
    /// How often the name was looked up, and there was an answer.
    pub lookups_ok: u64,
    /// How often there was none.
    pub lookups_failed: u64,
    /// Requests that the API said it had not processed, and that were sent again.
    pub sent_again: u64,
    /// Those that were not: their body had gone, or they had been refused too often.
    pub given_up: u64,
}

impl Counts {
    pub(super) fn opened(&self) {
        self.opened.fetch_add(1, SeqCst);
    }

    pub(super) fn failed(&self, step: Step) {
        self.failed[step as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn closed(&self, ending: Ending, lived: Duration) {
        let lived = u64::try_from(lived.as_millis()).unwrap_or(u64::MAX);
        self.lived.fetch_add(lived, Relaxed);
        self.closed[ending.place()].fetch_add(1, SeqCst);
    }

    pub(super) fn looked_up(&self, is_answered: bool) {
        self.lookups[usize::from(is_answered)].fetch_add(1, Relaxed);
    }

    pub(super) fn unprocessed(&self, is_sent_again: bool) {
        self.unprocessed[usize::from(is_sent_again)].fetch_add(1, Relaxed);
    }

    pub(super) fn read(&self) -> Counted {
        // What is closed was opened before: read in this order, never more are closed than opened.
        let closed = Ending::ALL.map(|it| (it, self.closed[it.place()].load(SeqCst)));
        Counted {
            opened: self.opened.load(SeqCst),
            failed: Step::ALL.map(|it| (it, self.failed[it as usize].load(Relaxed))),
            closed,
            lived: Duration::from_millis(self.lived.load(Relaxed)),
            lookups_ok: self.lookups[1].load(Relaxed),
            lookups_failed: self.lookups[0].load(Relaxed),
            sent_again: self.unprocessed[1].load(Relaxed),
            given_up: self.unprocessed[0].load(Relaxed),
        }
    }
}

impl Counted {
    /// Connections that are open.
    pub fn open(&self) -> u64 {
        self.opened.saturating_sub(self.closed.iter().map(|(_, count)| count).sum())
    }
}
