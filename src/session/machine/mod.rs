//! What becomes of one identity's session: takes events and the time, gives actions, and does
//! nothing itself.
//!
//! ```text
//!            ┌────────────────────────── another gateway logs in ──┐
//!            ▼                                                     │
//!   starting ─▶ resting ─▶ claiming ─▶ logging in (challenge) ─▶ writing ─▶ resting …
//!                  │           │ refused, quota, transient: a note in the entry bars the next login
//!                  │           └▶ following
//!                  └▶ ended
//! ```
//!
//! The token in force is independent of all this: it serves until it expires, whatever the login
//! that shall replace it comes to.

mod due;
mod events;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    login::Fingerprint,
    status::State,
    store::{Entry, Failure, Note, Put, Retired, Revision, Stored},
    token::Service,
};
use crate::config::{Identity, StoreError};

/// Requests that were signed with a replaced token just before have arrived by then.
pub(super) const GRACE: Duration = Duration::from_secs(10);
/// Members of a fleet have followed by then.
pub(super) const FOLLOWED: Duration = Duration::from_secs(2);
/// Whoever retired a session ends it; if that one is gone, the others do, so much later.
const SWEEP_FOR_OTHERS: Duration = Duration::from_secs(15);
/// While another gateway logs in, we ask this often whether it is done or gone.
const FOLLOW: Duration = Duration::from_millis(250);
/// A store that could not be used is used again after this time.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// One that can be read but not written is not what its next look makes of it: a full disk.
const WRITE_PAUSE: Duration = Duration::from_secs(5);
/// Tokens that were denied although fresh may ask for so many logins at once; after that, for one
/// in each [`DENIALS_PERIOD`].
const DENIALS: u32 = 5;
const DENIALS_PERIOD: Duration = Duration::from_secs(15);

/// What happens.
#[derive(Debug)]
pub(super) enum Event {
    /// Time passes.
    Tick,
    /// The credentials are these now, or cannot be read, and why.
    Credentials(Result<Fingerprint, Arc<str>>),
    /// The store was looked at: it shows something new, or it cannot be used.
    Looked(Result<Seen, Arc<str>>),
    /// We may log in, and this is the entry as it stands.
    Granted(Entry),
    /// Another gateway is logging in.
    Taken,
    /// The store could not tell who may log in.
    Unclaimed(Arc<str>),
    /// The login waits for its second factor.
    Challenged,
    /// The login has brought a session.
    LoggedIn(Stored),
    /// The login has failed.
    LoginFailed(Failed),
    /// The entry was written, or not.
    Written(Result<Put, Arc<str>>),
    /// The API has denied the token of this generation.
    Denied(u64),
    /// The API has denied the fresh token of this generation, or nobody has found out whether that one
    /// helps.
    Doubted(u64),
    /// An operator wants another session: the request of this number.
    Refresh(u64),
    /// An operator wants the session to end: the request of this number.
    Revoke(u64),
    /// Nothing new is to be begun.
    Shutdown,
}

/// What a look at the store has shown.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) revision: Revision,
    /// `None`: nothing new.
    pub(super) entry: Option<Entry>,
    pub(super) members: usize,
}

/// How a login failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) failure: Failure,
    pub(super) reason: Arc<str>,
    /// The credentials that were tried.
    pub(super) tried: Fingerprint,
    /// How long the host wants to be left alone.
    pub(super) asked: Option<Duration>,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Action {
    /// Ask the store for the right to log in.
    Claim,
    /// Log in; with the right to, or without because the store cannot be used.
    LogIn,
    /// Write the entry, and give back the right to log in.
    Write(Entry),
    /// Give back the right to log in.
    GiveBack,
    /// Put this session in force.
    Serve {
        stored: Stored,
        generation: u64,
        service: Service,
        /// Whether somebody else opened it.
        adopted: bool,
    },
    /// Callers wait for the login rather than use the token: it seems to be dead.
    Suspect,
    /// Callers use the token again: there will be no other for now.
    Trust,
    /// No token is in force.
    Withdraw,
    /// End this session, after a while.
    LogOut { stored: Ending, after: Duration },
}

/// A session that is to be ended.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) id: Uuid,
    pub(super) jwt: secrecy::SecretString,
}

/// When it happens, and a random share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now: Timestamp,
    pub(super) chance: f64,
}

/// Why no login is tried.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Refusal {
    /// The last one failed, and time or other credentials have to come first.
    Failed { failure: Failure, reason: Arc<str>, until: Timestamp },
    /// The credentials cannot be read.
    Unreadable(Arc<str>),
    /// The store cannot be used, and we are to hold still until it can.
    Store { reason: Arc<str>, until: Timestamp },
}

/// What is going on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// The store has not been looked at yet.
    Starting,
    Resting,
    Claiming,
    /// Another gateway is logging in; we ask again at this time.
    Following(Timestamp),
    LoggingIn {
        leased: bool,
        challenged: bool,
    },
    /// What a login came to is being written.
    Writing,
    Ended,
}

/// The session in force.
#[derive(Debug)]
struct Held {
    stored: Stored,
    generation: u64,
    service: Service,
    sharing: Sharing,
}

/// Who may use a session besides us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Sharing {
    /// Nobody: the store does not have it.
    Ours,
    /// The others: the store has it.
    Everybodys,
    /// It was written without an answer, or the store was emptied.
    Unsure,
}

/// What was asked for and is not done yet.
#[derive(Debug, Default)]
struct Asked {
    /// The token in force was denied.
    denied: bool,
    /// The credentials have changed: a login has to prove them.
    rotation: bool,
    refresh: Option<u64>,
    revoke: Option<u64>,
    shutdown: bool,
}

/// What is known about the store.
#[derive(Debug, Default)]
struct Store {
    down: Option<Down>,
    seen: Option<Revision>,
    members: usize,
}

/// A store that could not be used.
#[derive(Clone, Debug)]
struct Down {
    reason: Arc<str>,
    /// Until when we leave it alone.
    until: Timestamp,
    /// It could not be written: that it can be read says nothing.
    is_full: bool,
}

/// What the operators' requests came to: the last numbers that are done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Tickets {
    pub(super) refreshed: u64,
    pub(super) revoked: u64,
    /// Whether the last revocation could not be carried out.
    pub(super) revoke_failed: bool,
}

/// One identity's session.
#[derive(Debug)]
pub(super) struct Machine {
    identity: Identity,
    on_error: StoreError,
    phase: Phase,
    held: Option<Held>,
    /// How many sessions have been put in force.
    generation: u64,
    /// The entry as we last saw or made it.
    entry: Entry,
    credentials: Option<Result<Fingerprint, Arc<str>>>,
    asked: Asked,
    store: Store,
    tickets: Tickets,
    /// How our credentials were refused. Kept apart from the entry, whose note may be about others'.
    latched: Option<Note>,
    /// The session that the API has denied last.
    dead: Option<Uuid>,
    /// Sessions that we have retired, so that we end them.
    retired_here: Vec<Uuid>,
    /// Sessions whose end is under way or done, although the entry may still name them.
    ended_here: Vec<Uuid>,
    /// Logins for denied tokens that are still to be paid for, and up to which generation that is
    /// known: many requests doubt the same token.
    doubts: u32,
    doubted: u64,
    /// No login for a denied token before this time.
    denials_held: Option<Timestamp>,
    /// Denials up to this generation have been looked at.
    denials_seen: u64,
    actions: Vec<Action>,
}

impl Machine {
    /// Nothing is in force. `generation` is the last that there has been.
    pub(super) fn new(identity: Identity, on_error: StoreError, generation: u64) -> Self {
        Self {
            identity,
            on_error,
            phase: Phase::Starting,
            held: None,
            generation,
            entry: Entry::default(),
            credentials: None,
            asked: Asked::default(),
            store: Store { members: 1, ..Store::default() },
            tickets: Tickets::default(),
            latched: None,
            dead: None,
            retired_here: Vec::new(),
            ended_here: Vec::new(),
            doubts: 0,
            doubted: 0,
            denials_held: None,
            denials_seen: 0,
            actions: Vec::new(),
        }
    }

    /// The identity is configured so now; what is in force stays as it is.
    pub(super) fn configure(&mut self, identity: Identity) {
        self.identity = identity;
    }

    /// Takes an event; gives what is to be done about it, in this order.
    pub(super) fn on(&mut self, event: Event, at: Moment) -> Vec<Action> {
        self.expire(at.now);
        self.take(event, at);
        self.advance(at);
        std::mem::take(&mut self.actions)
    }

    /// When something is due, if nothing happens before.
    pub(super) fn wakes(&self, now: Timestamp) -> Option<Timestamp> {
        let held = self.held.as_ref();
        let service = held.map(|held| [held.service.renew_at, held.service.until]);
        let barred = match self.refusal(now) {
            Some(Refusal::Failed { until, .. } | Refusal::Store { until, .. }) => Some(until),
            Some(Refusal::Unreadable(_)) | None => None,
        };
        let following = match self.phase {
            Phase::Following(again) => Some(again),
            _ => None,
        };
        let swept = self.entry.retired.iter().map(|retired| self.swept_at(retired));
        let store = self.store.down.as_ref().map(|down| down.until);
        let times = service.into_iter().flatten().chain(barred).chain(following);
        times.chain(store).chain(swept).filter(|time| *time > now).min()
    }

    /// How it stands.
    pub(super) fn state(&self, now: Timestamp) -> State {
        let serving = self.held.as_ref().is_some_and(|held| now < held.service.until);
        match self.phase {
            Phase::Ended => State::Ended,
            Phase::LoggingIn { challenged: true, .. } => State::Challenged,
            Phase::Claiming | Phase::Following(_) | Phase::LoggingIn { .. } if serving => {
                State::Renewing
            }
            Phase::Claiming | Phase::Following(_) | Phase::LoggingIn { .. } => State::LoggingIn,
            Phase::Starting | Phase::Resting | Phase::Writing => match self.refusal(now) {
                Some(Refusal::Failed { failure: Failure::Refused, .. }) => State::Latched,
                Some(Refusal::Failed { failure: Failure::Quota, .. }) => State::Quota,
                Some(_) => State::BackingOff,
                None if serving => State::Valid,
                None => State::None,
            },
        }
    }

    /// Why no login is tried now, if none is.
    pub(super) fn refusal(&self, now: Timestamp) -> Option<Refusal> {
        if let Some(Err(reason)) = &self.credentials {
            return Some(Refusal::Unreadable(Arc::clone(reason)));
        }
        if let Some(note) = self.bar(now) {
            return Some(Refusal::Failed {
                failure: note.failure,
                reason: Arc::clone(&note.reason),
                until: note.until,
            });
        }
        match &self.store.down {
            Some(down)
                if self.held.is_none() && self.on_error == StoreError::Hold && now < down.until =>
            {
                Some(Refusal::Store { reason: Arc::clone(&down.reason), until: down.until })
            }
            _ => None,
        }
    }

    /// Whether a session may come of what is going on, so that it is worth waiting for.
    pub(super) fn is_pending(&self) -> bool {
        match self.phase {
            Phase::Starting | Phase::Claiming | Phase::Following(_) | Phase::LoggingIn { .. } => {
                true
            }
            Phase::Resting | Phase::Writing => self.asked.denied,
            Phase::Ended => false,
        }
    }

    /// What to make of it when what was going on has ended without an outcome.
    pub(super) fn broken(&self, reason: Arc<str>) -> Event {
        match (self.phase, &self.credentials) {
            (Phase::LoggingIn { .. }, Some(Ok(tried))) => Event::LoginFailed(Failed {
                failure: Failure::Transient,
                reason,
                tried: *tried,
                asked: None,
            }),
            (Phase::Claiming, _) => Event::Unclaimed(reason),
            (Phase::Writing, _) => Event::Written(Err(reason)),
            _ => Event::Tick,
        }
    }

    /// What the last login failed with, if it failed.
    pub(super) fn last_failure(&self) -> Option<&Arc<str>> {
        self.entry.note.as_ref().map(|note| &note.reason)
    }

    /// Whether everything has come to its end after [`Event::Shutdown`].
    pub(super) fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Takes the session in force, if nobody else can use it; or in any case, if there is nobody.
    pub(super) fn take_ours(&mut self, nobody_else: bool) -> Option<Ending> {
        let ours = |held: &mut Held| nobody_else || held.sharing == Sharing::Ours;
        self.held.take_if(ours).map(|held| Ending::from(held.stored))
    }

    /// How many sessions have been put in force.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The revision of the entry that we know.
    pub(super) fn seen(&self) -> Option<Revision> {
        self.store.seen
    }

    /// How many gateways share the session.
    pub(super) fn members(&self) -> usize {
        self.store.members
    }

    /// Why the store cannot be used, if it cannot.
    pub(super) fn store_error(&self) -> Option<&Arc<str>> {
        self.store.down.as_ref().map(|down| &down.reason)
    }

    /// What the operators' requests came to.
    pub(super) fn tickets(&self) -> Tickets {
        self.tickets
    }

    /// Denials up to this generation have been looked at; and no login comes of another one before
    /// that time.
    pub(super) fn denials(&self) -> (u64, Option<Timestamp>) {
        (self.denials_seen, self.denials_held)
    }
}

impl Failed {
    /// A token that had expired when it came.
    fn expired(tried: Fingerprint) -> Self {
        let reason = "the token had expired when it came".into();
        Self { failure: Failure::Transient, reason, tried, asked: None }
    }
}

impl From<Retired> for Ending {
    fn from(retired: Retired) -> Self {
        Self { id: retired.id, jwt: retired.jwt }
    }
}

impl From<Stored> for Ending {
    fn from(stored: Stored) -> Self {
        Self { id: stored.id, jwt: stored.jwt }
    }
}

/// `time`, and `by` more.
fn later(time: Timestamp, by: Duration) -> Timestamp {
    let by = jiff::SignedDuration::try_from(by).unwrap_or(jiff::SignedDuration::MAX);
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}
