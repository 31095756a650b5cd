//! What is due: whether a login is wanted, and whether one may be tried.

use jiff::Timestamp;

use super::{Action, FOLLOW, Machine, Moment, Phase, SWEEP_FOR_OTHERS, Sharing, later};
use crate::session::{
    backoff::QUOTA_CAP,
    store::{Failure, Note, Retired},
};

/// Why the right to log in, and to write the entry, is wanted: the most urgent first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Why {
    /// The session is to end.
    Revoke,
    /// An operator wants another session.
    Refresh,
    /// There is no session.
    Empty,
    /// The API has denied the token.
    Denied,
    /// The credentials have changed.
    Rotation,
    /// The token expires soon.
    Renewal,
    /// The session is in no store.
    Share,
    /// A session that was replaced waits to be ended.
    Sweep,
}

impl Machine {
    /// Begins what is due, if nothing is going on.
    pub(super) fn advance(&mut self, at: Moment) {
        match self.phase {
            Phase::Resting => {}
            Phase::Following(again) if at.now >= again => self.phase = Phase::Resting,
            Phase::Following(_) if self.asked.shutdown || self.due(at.now).is_none() => {
                self.phase = Phase::Resting;
            }
            Phase::Starting if self.asked.shutdown => self.phase = Phase::Resting,
            Phase::Starting
            | Phase::Claiming
            | Phase::Following(_)
            | Phase::LoggingIn { .. }
            | Phase::Writing
            | Phase::Ended => return,
        }
        if self.phase != Phase::Resting {
            return;
        }
        if self.asked.shutdown {
            self.phase = Phase::Ended;
            return;
        }
        if let Some(Err(_)) = self.credentials {
            self.finish_refresh();
        }
        if self.asked.denied && self.bar(at.now).is_some() {
            self.forget_denial();
        }
        let mut settled = None;
        while let Some(why) = self.due(at.now).filter(|_| self.phase == Phase::Resting) {
            let down = self.store.down.clone().filter(|down| at.now < down.until);
            let Some(down) = down else {
                self.phase = Phase::Claiming;
                self.actions.push(Action::Claim);
                return;
            };
            // One thing may be settled without the store and leave another to do.
            if settled.replace(why) == Some(why) {
                return;
            }
            self.without_store(why, &down.reason, at);
        }
    }

    /// What is wanted most, unless something stands in the way.
    pub(super) fn due(&self, now: Timestamp) -> Option<Why> {
        if self.asked.revoke.is_some() {
            return Some(Why::Revoke);
        }
        let store_rests = self.store.down.as_ref().is_some_and(|down| now < down.until);
        let readable = matches!(self.credentials, Some(Ok(_)));
        let barred = self.bar(now).is_some();
        if readable && self.asked.refresh.is_some() {
            return Some(Why::Refresh);
        }
        if readable
            && !barred
            && let Some(why) = self.login_due(now, store_rests)
        {
            return Some(why);
        }
        if store_rests {
            return None;
        }
        if self.held.as_ref().is_some_and(|held| held.sharing != Sharing::Everybodys) {
            return Some(Why::Share);
        }
        self.entry.retired.iter().any(|retired| now >= self.swept_at(retired)).then_some(Why::Sweep)
    }

    fn login_due(&self, now: Timestamp, store_rests: bool) -> Option<Why> {
        let Some(held) = &self.held else {
            let hold = store_rests && !self.may_log_in_alone();
            return (!hold).then_some(Why::Empty);
        };
        if self.asked.denied {
            return Some(Why::Denied);
        }
        // These can wait until it is known what the others do; our own session is our own affair.
        let ours = held.sharing != Sharing::Everybodys;
        if store_rests && !(ours && self.may_log_in_alone()) {
            return None;
        }
        if self.asked.rotation {
            return Some(Why::Rotation);
        }
        (now >= held.service.renew_at).then_some(Why::Renewal)
    }

    /// The note that bars a login now.
    pub(super) fn bar(&self, now: Timestamp) -> Option<&Note> {
        let bars = |note: &&Note| match note.failure {
            Failure::Refused => {
                matches!(&self.credentials, Some(Ok(credentials)) if *credentials == note.tried)
            }
            // A time further ahead than any pause was set by a clock that has since been put right.
            Failure::Quota | Failure::RequestToken | Failure::Transient => {
                now < note.until && note.until <= later(now, QUOTA_CAP)
            }
        };
        self.latched.as_ref().filter(bars).or(self.entry.note.as_ref().filter(bars))
    }

    /// When a retired session is to be ended by us.
    pub(super) fn swept_at(&self, retired: &Retired) -> Timestamp {
        if self.retired_here.contains(&retired.id) || self.store.members <= 1 {
            return retired.from;
        }
        later(retired.from, SWEEP_FOR_OTHERS)
    }

    /// Another gateway is logging in.
    pub(super) fn follow(&mut self, at: Moment) {
        // Spread, so that not all ask at once when the other is done.
        let pause = FOLLOW.mul_f64(0.8 + 0.4 * at.chance.clamp(0.0, 1.0));
        self.phase = Phase::Following(later(at.now, pause));
    }
}
