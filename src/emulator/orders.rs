//! The faults that are still to happen, in the order they were ordered.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{faults::Fault, routes::Host};

/// Bounds what the control endpoint can make the emulator remember.
const MOST: usize = 1024;

/// The faults that are still to happen.
#[derive(Debug, Default)]
pub(super) struct Orders {
    ordered: Mutex<Vec<Fault>>,
    /// How many there are, so that a call need not lock to learn that there is none.
    armed: AtomicUsize,
}

impl Orders {
    /// Orders one more; whether there was room for it.
    pub(super) fn order(&self, mut fault: Fault) -> bool {
        if fault.count().is_some_and(|count| *count == 0) {
            return true;
        }
        let mut ordered = self.ordered.lock().unwrap_or_else(PoisonError::into_inner);
        if ordered.len() >= MOST {
            return false;
        }
        ordered.push(fault);
        self.armed.store(ordered.len(), Ordering::Release);
        true
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        self.ordered.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.armed.store(0, Ordering::Release);
    }

    /// What befalls this call: how much later it is answered, and what goes wrong.
    pub(super) fn befall(&self, call: &Target<'_>) -> (Duration, Option<Fault>) {
        if self.armed.load(Ordering::Acquire) == 0 {
            return (Duration::ZERO, None);
        }
        let (mut latency, mut befallen) = (Duration::ZERO, None);
        let mut ordered = self.ordered.lock().unwrap_or_else(PoisonError::into_inner);
        for fault in ordered.iter_mut().filter(|fault| fault.concerns(call)) {
            match fault {
                Fault::Latency { ms, .. } => {
                    latency = latency.saturating_add(Duration::from_millis(*ms));
                }
                _ if befallen.is_some() => continue,
                _ => befallen = Some(fault.clone()),
            }
            if let Some(count) = fault.count() {
                *count -= 1;
            }
        }
        ordered.retain_mut(|fault| fault.count().is_none_or(|count| *count > 0));
        self.armed.store(ordered.len(), Ordering::Release);
        (latency, befallen)
    }
}

/// What a fault may concern.
pub(super) struct Target<'a> {
    pub(super) host: Host,
    pub(super) path: &'a str,
    /// Whether it wants a bearer.
    pub(super) bearer: bool,
}

impl Target<'_> {
    fn ends_with(&self, ending: &str) -> bool {
        let path = self.path.trim_end_matches('/').to_ascii_lowercase();
        path.ends_with(&ending.to_ascii_lowercase())
    }
}

impl Fault {
    /// How often it is still to happen; `None`: always.
    fn count(&mut self) -> Option<&mut u64> {
        match self {
            Self::Latency { count, .. } => count.as_mut(),
            Self::Unauthorized { count }
            | Self::DeadSession { count, .. }
            | Self::Code { count, .. }
            | Self::Status { count, .. }
            | Self::Reset { count, .. }
            | Self::Truncate { count, .. }
            | Self::Drip { count, .. }
            | Self::Stall { count, .. }
            | Self::Garbage { count, .. }
            | Self::Raw { count, .. }
            | Self::Unsolicited101 { count }
            | Self::MalformedLogin { count, .. } => Some(count),
            Self::AuthDown { .. } | Self::ClockSkew { .. } | Self::RevokeSessions => None,
        }
    }

    fn concerns(&self, call: &Target<'_>) -> bool {
        let (host, route) = match self {
            Self::Unauthorized { .. } | Self::DeadSession { .. } => {
                return call.bearer;
            }
            Self::MalformedLogin { .. } => (&Some(Host::Auth), Some("authentication/login")),
            Self::Latency { host, route, .. }
            | Self::Code { host, route, .. }
            | Self::Status { host, route, .. }
            | Self::Reset { host, route, .. }
            | Self::Truncate { host, route, .. }
            | Self::Drip { host, route, .. }
            | Self::Stall { host, route, .. }
            | Self::Raw { host, route, .. } => (host, route.as_deref()),
            Self::Garbage { host, .. } => (host, None),
            Self::Unsolicited101 { .. } => (&Some(Host::Main), None),
            Self::AuthDown { .. } | Self::ClockSkew { .. } | Self::RevokeSessions => return false,
        };
        host.is_none_or(|host| host == call.host) && route.is_none_or(|route| call.ends_with(route))
    }
}
