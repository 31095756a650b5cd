//! What becomes of a request, and how its quota stands then.

use std::{num::NonZeroU32, time::Duration};

use crate::config::Rate;

/// What became of one request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    /// Nothing limits it.
    Unlimited,
    /// It was within the quota.
    Granted(Standing),
    /// It was not.
    Refused {
        /// How the quota stands.
        standing: Standing,
        /// When the next request may come.
        retry_after: Duration,
    },
    /// The store of quotas cannot be asked, and nobody passes without it.
    Unreachable {
        /// When to ask again.
        retry_after: Duration,
    },
}

/// How a quota stands after a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Standing {
    /// Whose quota it is.
    pub scope: Scope,
    /// Requests that may come at once.
    pub burst: u32,
    /// In which time an empty quota fills up.
    pub window: Duration,
    /// Requests that may come now.
    pub remaining: u32,
    /// When there is room for one more than now.
    pub next: Duration,
}

/// Whose quota it is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Scope {
    /// Some routes'.
    Route,
    /// One caller's.
    Caller,
    /// All callers' that share an identity.
    Identity,
    /// All callers' together.
    Global,
}

impl Scope {
    /// Its name in header fields.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Caller => "caller",
            Self::Identity => "identity",
            Self::Global => "global",
        }
    }
}

/// How large a quota is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Terms {
    pub(super) scope: Scope,
    /// Requests that may come at once.
    pub(super) burst: NonZeroU32,
    /// The time in which one request is given back.
    pub(super) interval: Duration,
}

impl Terms {
    /// Without a `burst`, as many may come at once as `rate` allows in a second.
    pub(super) fn new(scope: Scope, rate: Rate, burst: Option<NonZeroU32>) -> Self {
        let interval = (rate.per / rate.count.get()).max(Duration::from_nanos(1));
        let a_second_of_it = Duration::from_secs(1).as_nanos() / interval.as_nanos();
        let burst = burst
            .or_else(|| NonZeroU32::new(u32::try_from(a_second_of_it).unwrap_or(u32::MAX)))
            .unwrap_or(NonZeroU32::MIN);
        Self { scope, burst, interval }
    }

    /// What a request of that weight takes: what weighs more than the whole quota takes all of it.
    #[inline]
    pub(super) fn share(&self, weight: NonZeroU32) -> NonZeroU32 {
        weight.min(self.burst)
    }

    /// In which time an empty quota fills up.
    #[inline]
    pub(super) fn window(&self) -> Duration {
        self.interval.saturating_mul(self.burst.get())
    }

    /// It was within the quota, of which so much remains; what was heard of it and what was held of it
    /// may be a moment apart, and together more than there is.
    #[inline]
    pub(super) fn granted(&self, remaining: u32) -> Decision {
        Decision::Granted(self.at(remaining.min(self.burst.get())))
    }

    /// It was not: so long has the next one to wait.
    pub(super) fn refused(&self, wait: Duration) -> Decision {
        let standing = Standing { next: wait, ..self.at(0) };
        Decision::Refused { standing, retry_after: wait }
    }

    #[inline]
    fn at(&self, remaining: u32) -> Standing {
        let (scope, burst, window) = (self.scope, self.burst.get(), self.window());
        Standing { scope, burst, window, remaining, next: self.interval }
    }
}
