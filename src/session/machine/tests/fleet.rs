//! Fleets in which anything happens in any order: what must never be, never is, and in the end all
//! share one session and nothing is left open.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

const MEMBERS: usize = 3;
const RIGHT: &str = "right";
const WRONG: &str = "wrong";

/// Something that happens.
#[derive(Clone, Debug)]
enum Happening {
    /// What a member has under way comes to its end.
    Finish(usize),
    Look(usize),
    Pass(u16),
    Deny(usize),
    Doubt(usize),
    /// The API forgets all sessions.
    RevokeAll,
    StoreDown(bool),
    /// The store can be read, and not written.
    Full(bool),
    /// The store forgets everything.
    Flush,
    /// The next logins fail in this way.
    Fail(Option<Failure>),
    /// The configured password.
    Password(usize, bool),
    Refresh(usize),
    Revoke(usize),
    Crash(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    let member = 0..MEMBERS;
    let failure = prop_oneof![
        Just(None),
        Just(Some(Failure::Quota)),
        Just(Some(Failure::Transient)),
        Just(Some(Failure::RequestToken)),
    ];
    prop_oneof![
        12 => member.clone().prop_map(Happening::Finish),
        6 => member.clone().prop_map(Happening::Look),
        6 => (0_u16..900).prop_map(Happening::Pass),
        3 => member.clone().prop_map(Happening::Deny),
        1 => member.clone().prop_map(Happening::Doubt),
        1 => Just(Happening::RevokeAll),
        1 => any::<bool>().prop_map(Happening::StoreDown),
        1 => any::<bool>().prop_map(Happening::Full),
        1 => Just(Happening::Flush),
        2 => failure.prop_map(Happening::Fail),
        1 => (member.clone(), any::<bool>()).prop_map(|(at, right)| Happening::Password(at, right)),
        1 => member.clone().prop_map(Happening::Refresh),
        1 => member.clone().prop_map(Happening::Revoke),
        1 => member.prop_map(Happening::Crash),
    ]
}

/// What a member has under way.
#[derive(Debug)]
enum Job {
    Claim,
    LogIn,
    Write(Box<Entry>),
}

struct Member {
    machine: Machine,
    job: Option<Job>,
    leased: bool,
    password: &'static str,
    generation: u64,
    /// Passwords that were refused, and may not be tried again.
    refused: HashSet<&'static str>,
    /// Sessions it knows of that the store does not: a crash leaves them open.
    own: HashSet<Uuid>,
    tickets: u64,
}

struct Fleet {
    seconds: f64,
    on_error: StoreError,
    members: Vec<Member>,
    entry: Entry,
    revision: u64,
    lease: Option<usize>,
    down: bool,
    full: bool,
    failure: Option<Failure>,
    /// Sessions that are open at the API, and until when they live.
    open: HashMap<Uuid, Timestamp>,
    /// Sessions whose only keeper has crashed: nobody can end them.
    orphans: HashSet<Uuid>,
}

impl Fleet {
    fn new(on_error: StoreError) -> Self {
        let mut fleet = Self {
            seconds: 0.0,
            on_error,
            members: Vec::new(),
            entry: Entry::default(),
            revision: 1,
            lease: None,
            down: false,
            full: false,
            failure: None,
            open: HashMap::new(),
            orphans: HashSet::new(),
        };
        for at in 0..MEMBERS {
            let member = fleet.born(RIGHT);
            fleet.members.push(member);
            fleet.tell(at, Event::Credentials(Ok(password(RIGHT))));
        }
        fleet
    }

    fn born(&self, password: &'static str) -> Member {
        Member {
            machine: Machine::new(identity(), self.on_error, 0),
            job: None,
            leased: false,
            password,
            generation: 0,
            refused: HashSet::new(),
            own: HashSet::new(),
            tickets: 0,
        }
    }

    fn now(&self) -> Timestamp {
        time(self.seconds)
    }

    /// Tells a member, and does what it decides.
    fn tell(&mut self, at: usize, event: Event) {
        let told = format!("{event:?}");
        let moment = Moment { now: self.now(), chance: 0.3 };
        let actions = self.members[at].machine.on(event, moment);
        for action in actions {
            self.perform(at, action, &told);
        }
        self.check_waiting(at, &told);
    }

    fn perform(&mut self, at: usize, action: Action, told: &str) {
        let (now, down) = (self.now(), self.down);
        let member = &mut self.members[at];
        match action {
            Action::Claim => {
                assert!(member.job.is_none() && !member.leased, "two things at once: {told}");
                member.job = Some(Job::Claim);
            }
            Action::LogIn => {
                assert!(member.job.is_none(), "two things at once: {told}");
                let alone = self.on_error == StoreError::Local;
                assert!(member.leased || alone, "a login without the right to: {told}");
                assert!(!member.refused.contains(member.password), "tried again: {told}");
                member.job = Some(Job::LogIn);
            }
            Action::Write(entry) => {
                assert!(member.job.is_none() && member.leased, "a write without a lease: {told}");
                assert!(entry.retired.len() <= crate::session::store::MAX_RETIRED);
                member.job = Some(Job::Write(Box::new(entry)));
            }
            Action::GiveBack => {
                assert!(std::mem::take(&mut member.leased), "nothing to give back: {told}");
                if self.lease == Some(at) && !down {
                    self.lease = None;
                }
            }
            Action::Serve { stored, generation, service, .. } => {
                assert!(generation > member.generation, "generations grow: {told}");
                assert!(now < service.until, "an expired token is never served: {told}");
                assert!(stored.expires.is_none_or(|expires| now < expires));
                member.generation = generation;
            }
            Action::LogOut { stored, .. } => {
                let held = member.machine.held.as_ref().map(|held| held.stored.id);
                assert_ne!(held, Some(stored.id), "the session in force is ended: {told}");
                member.own.remove(&stored.id);
                self.open.remove(&stored.id);
            }
            Action::Suspect | Action::Trust | Action::Withdraw => {}
        }
    }

    /// Whoever asks for a token gets one, or a reason, or something will come of waiting.
    fn check_waiting(&self, at: usize, told: &str) {
        let machine = &self.members[at].machine;
        let is_served = machine.held.is_some() || machine.refusal(self.now()).is_some();
        let writes = matches!(self.members[at].job, Some(Job::Write(_)));
        assert!(is_served || machine.is_pending() || writes, "nobody is served: {told}");
    }

    fn finish(&mut self, at: usize) {
        let down: Arc<str> = "down".into();
        let Some(job) = self.members[at].job.take() else { return };
        let event = match job {
            Job::Claim if self.down => Event::Unclaimed(down),
            Job::Claim if self.lease.is_some_and(|holder| holder != at) => Event::Taken,
            Job::Claim => {
                self.lease = Some(at);
                self.members[at].leased = true;
                Event::Granted(self.entry.clone())
            }
            Job::LogIn => self.logged_in(at),
            Job::Write(_) if self.down || self.full => {
                self.members[at].leased = false;
                // The lease ends by itself.
                self.lease = self.lease.filter(|holder| *holder != at);
                Event::Written(Err(down))
            }
            Job::Write(entry) => self.written(at, *entry),
        };
        self.tell(at, event);
    }

    fn logged_in(&mut self, at: usize) -> Event {
        let seconds = self.seconds;
        let member = &mut self.members[at];
        let tried = password(member.password);
        if member.password != RIGHT {
            member.refused.insert(member.password);
            return failed(Failure::Refused, tried);
        }
        if let Some(failure) = self.failure {
            return failed(failure, tried);
        }
        let stored = session(tried, seconds);
        member.own.insert(stored.id);
        self.open.insert(stored.id, stored.expires.expect("readable"));
        Event::LoggedIn(stored)
    }

    fn written(&mut self, at: usize, entry: Entry) -> Event {
        self.members[at].leased = false;
        if self.lease != Some(at) {
            return Event::Written(Ok(Put::LeaseLost));
        }
        self.lease = None;
        let kept = entry.session.iter().map(|it| it.id).chain(entry.retired.iter().map(|it| it.id));
        for id in kept {
            self.members.iter_mut().for_each(|member| {
                member.own.remove(&id);
            });
        }
        self.entry = entry;
        self.revision += 1;
        Event::Written(Ok(Put::Done(Revision(self.revision))))
    }

    fn look(&mut self, at: usize) {
        if self.down {
            return self.tell(at, Event::Looked(Err("down".into())));
        }
        let revision = Revision(self.revision);
        let news = self.members[at].machine.seen() != Some(revision);
        let entry = news.then(|| self.entry.clone());
        let seen = Seen { revision, entry, members: MEMBERS };
        self.tell(at, Event::Looked(Ok(seen)));
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Finish(at) => self.finish(at),
            Happening::Look(at) => self.look(at),
            Happening::Pass(seconds) => {
                self.seconds += f64::from(seconds);
                (0..MEMBERS).for_each(|at| self.tell(at, Event::Tick));
            }
            Happening::Deny(at) => {
                let generation = self.members[at].machine.generation();
                self.tell(at, Event::Denied(generation));
            }
            Happening::Doubt(at) => {
                let generation = self.members[at].machine.generation();
                self.tell(at, Event::Doubted(generation));
            }
            Happening::RevokeAll => self.open.clear(),
            Happening::StoreDown(down) => self.down = down,
            Happening::Full(full) => self.full = full,
            Happening::Flush => {
                // What only the store knew of cannot be ended any more.
                self.orphans.extend(self.entry.retired.iter().map(|retired| retired.id));
                self.orphans.extend(self.entry.session.iter().map(|session| session.id));
                self.entry = Entry::default();
                self.revision += 1;
                self.lease = None;
            }
            Happening::Fail(failure) => self.failure = failure,
            Happening::Password(at, right) => {
                let password = if right { RIGHT } else { WRONG };
                let member = &mut self.members[at];
                if member.password != password {
                    member.refused.clear();
                    member.password = password;
                }
                self.tell(at, Event::Credentials(Ok(super::password(password))));
            }
            Happening::Refresh(at) => {
                self.members[at].refused.clear();
                self.members[at].tickets += 1;
                let ticket = self.members[at].tickets;
                self.tell(at, Event::Refresh(ticket));
            }
            Happening::Revoke(at) => {
                self.members[at].tickets += 1;
                let ticket = self.members[at].tickets;
                self.tell(at, Event::Revoke(ticket));
            }
            Happening::Crash(at) => {
                let password = self.members[at].password;
                let born = self.born(password);
                let gone = std::mem::replace(&mut self.members[at], born);
                self.orphans.extend(gone.own);
                self.lease = self.lease.filter(|holder| *holder != at);
                self.tell(at, Event::Credentials(Ok(super::password(password))));
            }
        }
    }

    /// All is well again for two hours: long enough for every pause.
    fn settle(&mut self) {
        (self.down, self.full) = (false, false);
        self.failure = None;
        for at in 0..MEMBERS {
            self.happen(Happening::Password(at, true));
            self.happen(Happening::Refresh(at));
        }
        for _ in 0..1440 {
            self.seconds += 5.0;
            for at in 0..MEMBERS {
                self.look(at);
                self.tell(at, Event::Tick);
                // Finished at once, one after the other.
                for _ in 0..4 {
                    self.finish(at);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_a_fleet_ends_up_with_one_session(
        happenings in prop::collection::vec(happening(), 0..150),
        local in any::<bool>(),
    ) {
        let mut fleet = Fleet::new(if local { StoreError::Local } else { StoreError::Hold });

        happenings.into_iter().for_each(|happening| fleet.happen(happening));
        fleet.settle();

        let held = |member: &Member| member.machine.held.as_ref().map(|held| held.stored.id);
        let shared = held(&fleet.members[0]);
        prop_assert!(shared.is_some(), "nobody is signed in: {:?}", fleet.members[0].machine);
        for member in &fleet.members {
            prop_assert_eq!(held(member), shared);
            prop_assert_eq!(member.machine.state(fleet.now()), State::Valid);
        }
        // What nobody can end any more, ends by itself.
        let now = fleet.now();
        let open = fleet.open.iter().filter(|(id, until)| **until > now && !fleet.orphans.contains(id));
        prop_assert!(open.clone().count() <= 1, "{:?} are open, {:?} is in force", open.collect::<Vec<_>>(), shared);
    }
}
