//! What each event changes.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{
    Action, DENIALS, DENIALS_PERIOD, Down, Ending, Event, FOLLOWED, Failed, GRACE, Held, Machine,
    Moment, Phase, STORE_PAUSE, Seen, Sharing, Store, WRITE_PAUSE, due::Why, later,
};
use crate::{
    config::StoreError,
    session::{
        backoff,
        login::Fingerprint,
        store::{Entry, Failure, MAX_RETIRED, Note, Put, Retired, Stored},
        token::Service,
    },
};

impl Machine {
    pub(super) fn take(&mut self, event: Event, at: Moment) {
        match event {
            Event::Tick => {}
            Event::Credentials(read) => self.credentials(read),
            Event::Looked(Ok(seen)) => self.looked(seen, at),
            Event::Looked(Err(reason)) => self.store_failed(&reason, at),
            Event::Granted(entry) => self.granted(entry, at),
            Event::Taken => self.follow(at),
            Event::Unclaimed(reason) => self.unclaimed(&reason, at),
            Event::Challenged => {
                if let Phase::LoggingIn { challenged, .. } = &mut self.phase {
                    *challenged = true;
                }
            }
            Event::LoggedIn(stored) => self.logged_in(stored, at),
            Event::LoginFailed(failed) => self.login_failed(failed, at),
            Event::Written(outcome) => self.written(outcome, at),
            Event::Denied(generation) => self.denied(generation, at.now),
            Event::Doubted(generation) => self.doubted(generation),
            Event::Refresh(ticket) => self.asked.refresh = Some(ticket),
            Event::Revoke(ticket) => self.asked.revoke = Some(ticket),
            Event::Shutdown => {
                self.asked.shutdown = true;
                self.finish_refresh();
                self.finish_revoke(false);
            }
        }
    }

    /// An expired token is out of force.
    pub(super) fn expire(&mut self, now: Timestamp) {
        if self.held.take_if(|held| now >= held.service.until).is_some() {
            self.asked.denied = false;
            self.actions.push(Action::Withdraw);
        }
    }

    fn credentials(&mut self, read: Result<Fingerprint, Arc<str>>) {
        let Ok(now) = read else {
            // An unreadable file takes nothing away from what was read before.
            if !matches!(self.credentials, Some(Ok(_))) {
                self.credentials = Some(read);
            }
            return;
        };
        if let Some(Ok(before)) = &self.credentials
            && *before != now
        {
            self.asked.rotation = self.held.is_some();
        }
        self.credentials = Some(Ok(now));
    }

    fn looked(&mut self, seen: Seen, at: Moment) {
        self.store.answers();
        self.store.members = seen.members;
        if let Phase::LoggingIn { .. } | Phase::Writing = self.phase {
            // We hold the right to write it: what we write replaces what is there.
            return;
        }
        let starting = self.phase == Phase::Starting;
        if starting {
            self.phase = Phase::Resting;
        }
        let Some(entry) = seen.entry else { return };
        self.store.seen = Some(seen.revision);
        self.take_over(entry, at);
        if starting {
            self.check_rotation();
        }
    }

    /// At the start, credentials may be others than those that a stored session was opened with.
    fn check_rotation(&mut self) {
        if let (Some(held), Some(Ok(credentials))) = (&self.held, &self.credentials) {
            self.asked.rotation = held.stored.secrets != *credentials;
        }
    }

    /// Makes the entry of the store ours.
    fn take_over(&mut self, mut entry: Entry, at: Moment) {
        let known = self.held.as_ref().map(|held| held.stored.id);
        self.latched = self.latched.take().filter(|note| !self.is_outdated(note, &entry));
        if entry.note.is_none() {
            entry.note = self.bar(at.now).filter(|note| !self.is_outdated(note, &entry)).cloned();
        }
        match &entry.session {
            Some(session) if known == Some(session.id) => {
                self.held.iter_mut().for_each(|held| held.sharing = Sharing::Everybodys);
            }
            // What we have is newer, and could not be written: it is the store that is behind.
            Some(session) if self.holds_newer_than(session) => {}
            Some(session) => {
                let service = Service::of(session, &self.identity, at.chance);
                let service = service.filter(|_| self.dead != Some(session.id));
                if let Some(service) = service.filter(|service| at.now < service.until) {
                    self.drop_unshared();
                    self.serve(session.clone(), service, Sharing::Everybodys, true);
                } else {
                    self.lose(&entry);
                }
            }
            None => self.lose(&entry),
        }
        self.entry = entry;
        self.latch();
    }

    fn holds_newer_than(&self, session: &Stored) -> bool {
        self.held.as_ref().is_some_and(|held| {
            held.sharing != Sharing::Everybodys
                && held.stored.issued > session.issued
                && self.dead != Some(held.stored.id)
        })
    }

    /// Our credentials were refused, here or by another gateway's login.
    fn latch(&mut self) {
        let refused = |note: &&Note| note.failure == Failure::Refused;
        let credentials = self.credentials.as_ref().and_then(|it| it.as_ref().ok());
        let ours = |note: &&Note| credentials == Some(&note.tried);
        if let Some(note) = self.entry.note.as_ref().filter(refused).filter(ours) {
            self.latched = Some(note.clone());
        }
    }

    /// Whether the same credentials have opened a session since. Otherwise a failure that the store
    /// does not know of, because it was away or was emptied, still stands.
    fn is_outdated(&self, note: &Note, entry: &Entry) -> bool {
        let Some(session) = &entry.session else { return false };
        let held = self.held.as_ref().map(|held| held.stored.id);
        let known = self.entry.session.as_ref().map(|session| session.id);
        let is_new = ![held, known].contains(&Some(session.id));
        is_new && session.secrets == note.tried
    }

    /// The store does not have our session: because it was ended, or because the store was emptied.
    fn lose(&mut self, entry: &Entry) {
        let Some(held) = &mut self.held else { return };
        if entry.retired.iter().any(|retired| retired.id == held.stored.id) {
            self.held = None;
            self.asked.denied = false;
            self.actions.push(Action::Withdraw);
        } else {
            held.sharing = Sharing::Unsure;
        }
    }

    /// Our own session is replaced by one that everybody will follow to.
    fn drop_unshared(&mut self) {
        let unshared = |held: &mut Held| held.sharing != Sharing::Everybodys;
        if let Some(held) = self.held.take_if(unshared) {
            self.actions.push(Action::LogOut { stored: Ending::from(held.stored), after: GRACE });
        }
    }

    fn serve(&mut self, stored: Stored, service: Service, sharing: Sharing, adopted: bool) {
        self.generation += 1;
        let generation = self.generation;
        self.actions.push(Action::Serve { stored: stored.clone(), generation, service, adopted });
        self.held = Some(Held { stored, generation, service, sharing });
        self.asked.denied = false;
        self.asked.rotation = false;
    }

    fn granted(&mut self, entry: Entry, at: Moment) {
        self.phase = Phase::Resting;
        self.store.answers();
        self.take_over(entry, at);
        match self.due(at.now).filter(|_| !self.asked.shutdown) {
            None => self.actions.push(Action::GiveBack),
            Some(Why::Revoke) => self.withdraw(at.now),
            Some(Why::Share) => self.share(at.now),
            Some(Why::Sweep) => self.sweep(at.now),
            Some(Why::Denied) if !self.pays_for_denial(at.now) => {
                self.actions.push(Action::GiveBack);
            }
            Some(Why::Refresh | Why::Empty | Why::Denied | Why::Rotation | Why::Renewal) => {
                self.log_in(true);
            }
        }
    }

    /// A route that denies every token must not cause a login for each request.
    fn pays_for_denial(&mut self, now: Timestamp) -> bool {
        let base = self.entry.denials_paid.map_or(now, |paid| paid.max(now));
        let base = base.min(later(now, DENIALS_PERIOD * DENIALS));
        let paid = later(base, DENIALS_PERIOD * self.doubts);
        let allowed = later(now, DENIALS_PERIOD * DENIALS);
        if paid > allowed {
            let over = paid.duration_since(allowed).unsigned_abs();
            self.denials_held = Some(later(now, over));
            self.forget_denial();
            return false;
        }
        self.entry.denials_paid = Some(paid);
        self.doubts = 0;
        true
    }

    /// No other token will come of it for now.
    pub(super) fn forget_denial(&mut self) {
        self.asked.denied = false;
        self.dead = None;
        self.actions.push(Action::Trust);
    }

    fn log_in(&mut self, leased: bool) {
        self.phase = Phase::LoggingIn { leased, challenged: false };
        self.actions.push(Action::LogIn);
    }

    /// Without the store, everybody is on its own.
    pub(super) fn without_store(&mut self, why: Why, reason: &Arc<str>, at: Moment) {
        self.phase = Phase::Resting;
        let shared = self.held.as_ref().is_some_and(|held| held.sharing == Sharing::Everybodys);
        match why {
            Why::Empty | Why::Denied if self.may_log_in_alone() => {
                if why == Why::Denied && !self.pays_for_denial(at.now) {
                    return;
                }
                self.log_in(false);
            }
            Why::Refresh | Why::Rotation | Why::Renewal if !shared && self.may_log_in_alone() => {
                self.log_in(false);
            }
            Why::Revoke if !shared => {
                self.drop_unshared_now();
                self.finish_revoke(true);
            }
            Why::Revoke => self.finish_revoke(false),
            Why::Refresh => self.finish_refresh(),
            Why::Denied => {
                self.denials_held = self.store.down.as_ref().map(|down| down.until);
                self.forget_denial();
            }
            Why::Empty | Why::Rotation | Why::Renewal | Why::Share | Why::Sweep => {
                self.store_failed(reason, at);
            }
        }
    }

    pub(super) fn may_log_in_alone(&self) -> bool {
        self.on_error == StoreError::Local
    }

    fn drop_unshared_now(&mut self) {
        if let Some(held) = self.held.take() {
            let stored = Ending::from(held.stored);
            self.actions.push(Action::Withdraw);
            self.actions.push(Action::LogOut { stored, after: Duration::ZERO });
        }
    }

    fn unclaimed(&mut self, reason: &Arc<str>, at: Moment) {
        self.phase = Phase::Resting;
        self.store_failed(reason, at);
    }

    fn store_failed(&mut self, reason: &Arc<str>, at: Moment) {
        self.store.fails(reason, STORE_PAUSE, false, at);
        if self.phase == Phase::Starting {
            self.phase = Phase::Resting;
        }
    }

    fn logged_in(&mut self, stored: Stored, at: Moment) {
        let Phase::LoggingIn { leased, .. } = self.phase else { return };
        let Some(service) = Service::of(&stored, &self.identity, at.chance) else {
            return self.login_failed(Failed::expired(stored.secrets), at);
        };
        if leased {
            if let Some(old) = self.entry.session.take() {
                self.retire(Retired { id: old.id, jwt: old.jwt, from: later(at.now, GRACE) });
            }
            self.drop_unshared();
            self.entry.session = Some(stored.clone());
            self.phase = Phase::Writing;
        } else {
            self.drop_unshared();
            self.phase = Phase::Resting;
        }
        let foreign =
            |note: &Note| note.failure == Failure::Refused && note.tried != stored.secrets;
        self.entry.note = self.entry.note.take().filter(foreign);
        self.latched = self.latched.take().filter(foreign);
        self.serve(stored, service, Sharing::Ours, false);
        self.finish_refresh();
        if leased {
            self.actions.push(Action::Write(self.entry.clone()));
        }
    }

    fn login_failed(&mut self, failed: Failed, at: Moment) {
        let Phase::LoggingIn { leased, .. } = self.phase else { return };
        let failures = self.entry.note.as_ref().map_or(0, |note| note.failures);
        let failures = failures.saturating_add(1);
        let pause = match failed.failure {
            Failure::Quota => backoff::quota(failures, at.chance),
            Failure::Refused => Duration::ZERO,
            Failure::RequestToken | Failure::Transient => backoff::transient(failures, at.chance),
        };
        let pause = pause.max(failed.asked.unwrap_or_default().min(backoff::CAP));
        if failed.failure == Failure::Quota {
            // What waits to be ended stands in the way of what is to come.
            self.entry.retired.iter_mut().for_each(|it| it.from = it.from.min(at.now));
        }
        self.entry.note = Some(Note {
            failure: failed.failure,
            reason: failed.reason,
            tried: failed.tried,
            until: later(at.now, pause),
            failures,
        });
        self.latch();
        self.asked.denied = false;
        self.asked.rotation = false;
        self.finish_refresh();
        self.actions.push(Action::Trust);
        if leased {
            self.phase = Phase::Writing;
            self.actions.push(Action::Write(self.entry.clone()));
        } else {
            self.phase = Phase::Resting;
        }
    }

    fn written(&mut self, outcome: Result<Put, Arc<str>>, at: Moment) {
        self.phase = Phase::Resting;
        let written = self.entry.session.as_ref().map(|session| session.id);
        let held = self.held.as_mut().filter(|held| written == Some(held.stored.id));
        match outcome {
            Ok(Put::Done(revision)) => {
                held.into_iter().for_each(|held| held.sharing = Sharing::Everybodys);
                self.store.down = None;
                self.store.seen = Some(revision);
            }
            Ok(Put::LeaseLost) => self.store.seen = None,
            Err(reason) => {
                let new = held.filter(|held| held.sharing == Sharing::Ours);
                new.into_iter().for_each(|held| held.sharing = Sharing::Unsure);
                self.store.seen = None;
                self.store.fails(&reason, WRITE_PAUSE, true, at);
            }
        }
    }

    fn denied(&mut self, generation: u64, now: Timestamp) {
        self.denials_seen = self.denials_seen.max(generation);
        let Some(held) = self.held.as_ref().filter(|held| held.generation == generation) else {
            return;
        };
        if self.denials_held.is_some_and(|until| now < until) || self.bar(now).is_some() {
            return;
        }
        self.denials_held = None;
        self.dead = Some(held.stored.id);
        self.asked.denied = true;
        self.actions.push(Action::Suspect);
    }

    /// More than can ever be paid for is not taken down.
    fn doubted(&mut self, generation: u64) {
        if generation > self.doubted {
            self.doubted = generation;
            self.doubts = (self.doubts + 1).min(DENIALS);
        }
    }

    /// An operator has ended the session.
    fn withdraw(&mut self, now: Timestamp) {
        let after = if self.store.members > 1 { FOLLOWED } else { Duration::ZERO };
        if let Some(old) = self.entry.session.take() {
            // Not left to a sweep, which would have to wait for the next login to be over.
            self.ended_here.push(old.id);
            let stored = Ending { id: old.id, jwt: old.jwt.clone() };
            self.actions.push(Action::LogOut { stored, after });
            self.retire(Retired { id: old.id, jwt: old.jwt, from: later(now, after) });
        }
        self.drop_unshared();
        if self.held.take().is_some() {
            self.actions.push(Action::Withdraw);
        }
        self.asked.denied = false;
        self.finish_revoke(true);
        self.phase = Phase::Writing;
        self.actions.push(Action::Write(self.entry.clone()));
    }

    /// Our own session becomes everybody's.
    fn share(&mut self, now: Timestamp) {
        if let Some(old) = self.entry.session.take() {
            self.retire(Retired { id: old.id, jwt: old.jwt, from: later(now, GRACE) });
        }
        self.entry.session = self.held.as_ref().map(|held| held.stored.clone());
        self.phase = Phase::Writing;
        self.actions.push(Action::Write(self.entry.clone()));
    }

    /// Sessions that nobody uses any more are ended.
    fn sweep(&mut self, now: Timestamp) {
        let retired = std::mem::take(&mut self.entry.retired);
        for it in retired {
            if now >= self.swept_at(&it) { self.end(it) } else { self.entry.retired.push(it) }
        }
        self.phase = Phase::Writing;
        self.actions.push(Action::Write(self.entry.clone()));
    }

    fn retire(&mut self, retired: Retired) {
        self.retired_here.push(retired.id);
        for ids in [&mut self.retired_here, &mut self.ended_here] {
            let surplus = ids.len().saturating_sub(MAX_RETIRED);
            ids.drain(..surplus);
        }
        self.entry.retired.push(retired);
        if self.entry.retired.len() > MAX_RETIRED {
            let oldest = self.entry.retired.remove(0);
            self.end(oldest);
        }
    }

    fn end(&mut self, retired: Retired) {
        self.retired_here.retain(|id| *id != retired.id);
        if self.ended_here.contains(&retired.id) {
            return;
        }
        self.ended_here.push(retired.id);
        let stored = Ending::from(retired);
        self.actions.push(Action::LogOut { stored, after: Duration::ZERO });
    }

    pub(super) fn finish_refresh(&mut self) {
        if let Some(ticket) = self.asked.refresh.take() {
            self.tickets.refreshed = ticket;
        }
    }

    fn finish_revoke(&mut self, done: bool) {
        if let Some(ticket) = self.asked.revoke.take() {
            self.tickets.revoked = ticket;
            self.tickets.revoke_failed = !done;
        }
    }
}

impl Store {
    /// It has answered. One that could not be written stays suspect until it is.
    fn answers(&mut self) {
        self.down.take_if(|down| !down.is_full);
    }

    fn fails(&mut self, reason: &Arc<str>, pause: Duration, is_full: bool, at: Moment) {
        let pause = pause.mul_f64(1.0 + at.chance.clamp(0.0, 1.0));
        self.down = Some(Down { reason: Arc::clone(reason), until: later(at.now, pause), is_full });
    }
}
