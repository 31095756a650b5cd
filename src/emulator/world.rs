//! Everything the emulated Amove knows.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use tokio_util::sync::CancellationToken;

use super::{
    answer::{self, Reply},
    faults::Fault,
    hub::Lines,
    options::{Options, Strings},
    orders::Orders,
    request_tokens::RequestTokens,
    resources::Store,
    sessions::Sessions,
    stats::{Counters, Memory, Stats},
};

/// Ten years: dates stay such that everybody can write them.
const MOST_SKEW: i64 = 10 * 365 * 24 * 3600;

/// Everything the emulated Amove knows.
pub(super) struct World {
    pub(super) options: Options,
    pub(super) stats: Counters,
    pub(super) memory: Memory,
    pub(super) faults: Orders,
    pub(super) request_tokens: RequestTokens,
    pub(super) sessions: Sessions,
    pub(super) store: Store,
    pub(super) hub: Lines,
    /// Cancelled when the emulator ends.
    pub(super) end: CancellationToken,
    auth_down: AtomicBool,
    /// How many seconds the clock is ahead.
    skew: AtomicI64,
    account_name: Mutex<String>,
    subscription: AtomicU64,
    /// Counts string answers, where they take turns.
    strings: AtomicU64,
}

impl World {
    /// A world in which nothing has happened yet.
    pub(super) fn new(options: Options) -> Self {
        Self {
            stats: Counters::default(),
            memory: Memory::new(options.remember),
            faults: Orders::default(),
            request_tokens: RequestTokens::default(),
            sessions: Sessions::new(&options.accounts),
            store: Store::seeded(&options),
            hub: Lines::default(),
            end: CancellationToken::new(),
            auth_down: AtomicBool::new(false),
            skew: AtomicI64::new(0),
            account_name: Mutex::new("Corp".to_owned()),
            subscription: AtomicU64::new(2),
            strings: AtomicU64::new(0),
            options,
        }
    }

    /// The time Amove believes in: for everything it tells.
    pub(super) fn now(&self) -> SystemTime {
        let skew = self.skew.load(Relaxed);
        let by = Duration::from_secs(skew.unsigned_abs());
        let now = self.age();
        let skewed = if skew < 0 { now.checked_sub(by) } else { now.checked_add(by) };
        skewed.unwrap_or(now)
    }

    /// The time by which things age; a wrong clock is wrong from the beginning.
    pub(super) fn age(&self) -> SystemTime {
        self.options.clock.now()
    }

    /// Whether the auth host is down.
    pub(super) fn auth_is_down(&self) -> bool {
        self.auth_down.load(Relaxed)
    }

    /// Lets `fault` happen: at once, or to the calls it concerns. Whether there was room for it.
    pub(super) fn inject(&self, fault: Fault) -> bool {
        match fault {
            Fault::AuthDown { on } => self.auth_down.store(on, Relaxed),
            Fault::ClockSkew { seconds } => {
                self.skew.store(seconds.clamp(-MOST_SKEW, MOST_SKEW), Relaxed);
            }
            Fault::RevokeSessions => self.sessions.revoke(),
            fault => return self.faults.order(fault),
        }
        true
    }

    /// Puts everything right again.
    pub(super) fn clear_faults(&self) {
        self.faults.clear();
        self.auth_down.store(false, Relaxed);
        self.skew.store(0, Relaxed);
    }

    /// What the company is called.
    pub(super) fn account_name(&self) -> String {
        self.account_name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Calls the company something else.
    pub(super) fn rename_account(&self, name: &str) {
        let mut account_name = self.account_name.lock().unwrap_or_else(PoisonError::into_inner);
        name.clone_into(&mut account_name);
    }

    /// The `AccountSubscriptionType`.
    pub(super) fn subscription(&self) -> u64 {
        self.subscription.load(Relaxed)
    }

    /// Changes the `AccountSubscriptionType`.
    pub(super) fn subscribe(&self, subscription: u64) {
        self.subscription.store(subscription, Relaxed);
    }

    /// 200 with a string, which may arrive with or without JSON quotes.
    pub(super) fn string(&self, value: &str) -> Reply {
        let quoted = match self.options.strings {
            Strings::Quoted => true,
            Strings::Bare => false,
            Strings::Alternate => self.strings.fetch_add(1, Relaxed).is_multiple_of(2),
        };
        if quoted { answer::quoted(value) } else { answer::text(value) }
    }

    /// What has happened so far.
    pub(super) fn stats(&self) -> Stats {
        self.stats.read(self.sessions.count(self))
    }
}
