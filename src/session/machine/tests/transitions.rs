//! Every transition, one by one.

use super::*;

/// A machine and what it has done so far.
struct Sample {
    machine: Machine,
    done: Vec<Action>,
    revision: u64,
}

const RIGHT: &str = "right";

impl Sample {
    fn new() -> Self {
        Self::with(StoreError::Local)
    }

    fn with(on_error: StoreError) -> Self {
        let machine = Machine::new(identity(), on_error, 0);
        let mut sample = Self { machine, done: Vec::new(), revision: 1 };
        sample.on(0.0, Event::Credentials(Ok(password(RIGHT))), &[]);
        sample
    }

    /// One that has looked at an empty store and asks for the right to log in.
    fn claiming() -> Self {
        let mut sample = Self::new();
        sample.on(0.0, seen(1, Entry::default(), 1), &["claim"]);
        sample
    }

    fn logging_in() -> Self {
        let mut sample = Self::claiming();
        sample.on(0.0, Event::Granted(Entry::default()), &["log in"]);
        sample
    }

    /// One with a session since the beginning.
    fn valid() -> Self {
        let mut sample = Self::logging_in();
        sample.on(0.0, Event::LoggedIn(session(password(RIGHT), 0.0)), &["serve", "write"]);
        sample.written(0.0, &[]);
        sample
    }

    /// Tells it what happens, and expects it to do this.
    #[track_caller]
    fn on(&mut self, seconds: f64, event: Event, expected: &[&str]) {
        let told = format!("{event:?} at {seconds} s");
        self.done = self.machine.on(event, at(seconds));
        assert_eq!(words(&self.done), expected, "{told}");
    }

    #[track_caller]
    fn written(&mut self, seconds: f64, expected: &[&str]) {
        self.revision += 1;
        self.on(seconds, Event::Written(Ok(Put::Done(Revision(self.revision)))), expected);
    }

    /// The entry that it has just written.
    fn entry(&self) -> Entry {
        let entry = self.done.iter().find_map(|action| match action {
            Action::Write(entry) => Some(entry.clone()),
            _ => None,
        });
        entry.expect("it writes")
    }

    #[track_caller]
    fn is(&self, seconds: f64, state: State) {
        assert_eq!(self.machine.state(time(seconds)), state);
    }
}

fn down() -> Arc<str> {
    "the store is down".into()
}

#[test]
fn from_nothing_to_a_session() {
    let mut sample = Sample::new();
    sample.is(0.0, State::None);
    sample.on(0.0, seen(1, Entry::default(), 1), &["claim"]);
    sample.is(0.0, State::LoggingIn);
    sample.on(0.0, Event::Granted(Entry::default()), &["log in"]);
    sample.is(0.0, State::LoggingIn);
    sample.on(1.0, Event::Challenged, &[]);
    sample.is(1.0, State::Challenged);
    sample.on(2.0, Event::LoggedIn(session(password(RIGHT), 2.0)), &["serve", "write"]);
    sample.is(2.0, State::Valid);
    sample.written(2.0, &[]);
    sample.is(2.0, State::Valid);
    assert_eq!(sample.machine.generation(), 1);
}

#[test]
fn a_session_of_the_store_needs_no_login() {
    let mut sample = Sample::new();
    let entry = Entry { session: Some(session(password(RIGHT), 0.0)), ..Entry::default() };

    sample.on(10.0, seen(1, entry, 2), &["adopt"]);

    sample.is(10.0, State::Valid);
}

#[test]
fn a_session_of_the_store_that_other_credentials_opened_is_used_until_ours_are_proved() {
    let mut sample = Sample::new();
    let entry = Entry { session: Some(session(password("old"), 0.0)), ..Entry::default() };
    sample.on(10.0, seen(1, entry.clone(), 1), &["adopt", "claim"]);
    sample.on(10.0, Event::Granted(entry), &["log in"]);
    sample.is(10.0, State::Renewing);

    sample.on(11.0, failed(Failure::Refused, password(RIGHT)), &["trust", "write"]);
    sample.written(11.0, &[]);

    sample.is(11.0, State::Latched);
    sample.on(60.0, Event::Tick, &[]);
}

#[test]
fn an_expired_session_of_the_store_is_no_use() {
    let mut sample = Sample::new();
    let entry = Entry { session: Some(session(password(RIGHT), 0.0)), ..Entry::default() };

    sample.on(3600.0, seen(1, entry, 1), &["claim"]);
}

#[test]
fn a_token_is_replaced_before_it_expires() {
    let mut sample = Sample::valid();
    let old = sample.machine.entry.clone();
    sample.on(2000.0, Event::Tick, &[]);
    sample.on(2900.0, Event::Tick, &["claim"]);
    sample.is(2900.0, State::Renewing);
    sample.on(2900.0, Event::Granted(old), &["log in"]);

    sample.on(2901.0, Event::LoggedIn(session(password(RIGHT), 2901.0)), &["serve", "write"]);

    assert_eq!(sample.entry().retired.len(), 1);
    sample.written(2901.0, &[]);
    sample.is(2901.0, State::Valid);
    // The old session is ended a little later, under a lease.
    sample.on(2905.0, Event::Tick, &[]);
    sample.on(2912.0, Event::Tick, &["claim"]);
    let entry = sample.machine.entry.clone();
    sample.on(2912.0, Event::Granted(entry), &["log out", "write"]);
    assert!(sample.entry().retired.is_empty());
}

#[test]
fn what_another_gateway_has_retired_is_ended_by_us_only_if_it_does_not() {
    let mut sample = Sample::new();
    let old = session(password(RIGHT), 0.0);
    let retired = vec![Retired { id: old.id, jwt: old.jwt, from: time(20.0) }];
    let entry =
        Entry { session: Some(session(password(RIGHT), 10.0)), retired, ..Entry::default() };
    sample.on(15.0, seen(1, entry, 2), &["adopt"]);

    sample.on(34.0, Event::Tick, &[]);
    sample.on(36.0, Event::Tick, &["claim"]);
}

#[test]
fn a_renewal_that_fails_takes_nothing_away() {
    for failure in [Failure::Refused, Failure::Quota, Failure::RequestToken, Failure::Transient] {
        let mut sample = Sample::valid();
        sample.on(2900.0, Event::Tick, &["claim"]);
        let entry = sample.machine.entry.clone();
        sample.on(2900.0, Event::Granted(entry), &["log in"]);

        sample.on(2901.0, failed(failure, password(RIGHT)), &["trust", "write"]);
        sample.written(2901.0, &[]);

        assert_ne!(sample.machine.state(time(2901.0)), State::Valid, "{failure:?}");
        assert!(sample.machine.held.is_some(), "{failure:?}");
        // An expired one is never kept.
        let done = sample.machine.on(Event::Tick, at(3601.0));
        assert_eq!(words(&done)[0], "withdraw", "{failure:?}");
    }
}

#[test]
fn refused_credentials_are_tried_again_only_when_they_change_or_somebody_says_so() {
    let mut sample = Sample::logging_in();
    sample.on(1.0, failed(Failure::Refused, password(RIGHT)), &["trust", "write"]);
    sample.written(1.0, &[]);
    sample.is(1.0, State::Latched);
    for hour in 1..100 {
        sample.on(f64::from(hour) * 3600.0, Event::Tick, &[]);
    }
    sample.on(400_000.0, Event::Credentials(Ok(password(RIGHT))), &[]);

    let mut told = Sample::logging_in();
    told.on(1.0, failed(Failure::Refused, password(RIGHT)), &["trust", "write"]);
    told.written(1.0, &[]);
    told.on(2.0, Event::Refresh(1), &["claim"]);
    let entry = told.machine.entry.clone();
    told.on(2.0, Event::Granted(entry), &["log in"]);

    sample.on(400_001.0, Event::Credentials(Ok(password("new"))), &["claim"]);
}

#[test]
fn after_a_transient_failure_time_has_to_pass() {
    let mut sample = Sample::logging_in();
    sample.on(0.0, failed(Failure::Transient, password(RIGHT)), &["trust", "write"]);
    sample.written(0.0, &[]);
    sample.is(0.5, State::BackingOff);

    sample.on(1.9, Event::Tick, &[]);
    sample.on(2.1, Event::Tick, &["claim"]);
}

#[test]
fn the_host_is_left_alone_as_long_as_it_asks_but_not_for_ever() {
    for (asked, early, late) in [(120, 119.0, 121.0), (86_400, 299.0, 301.0)] {
        let mut sample = Sample::logging_in();
        let failed = Failed {
            failure: Failure::Transient,
            reason: "a reason".into(),
            tried: password(RIGHT),
            asked: Some(Duration::from_secs(asked)),
        };
        sample.on(0.0, Event::LoginFailed(failed), &["trust", "write"]);
        sample.written(0.0, &[]);

        sample.on(early, Event::Tick, &[]);
        sample.on(late, Event::Tick, &["claim"]);
    }
}

#[test]
fn at_the_session_limit_pauses_are_long_and_what_is_retired_is_ended_at_once() {
    let mut sample = Sample::claiming();
    let old = session(password(RIGHT), 0.0);
    let retired = vec![Retired { id: old.id, jwt: old.jwt, from: time(1000.0) }];
    sample.on(0.0, Event::Granted(Entry { retired, ..Entry::default() }), &["log in"]);
    sample.on(0.0, failed(Failure::Quota, password(RIGHT)), &["trust", "write"]);
    sample.is(1.0, State::Quota);

    sample.written(0.0, &["claim"]);
    let entry = sample.machine.entry.clone();
    sample.on(0.0, Event::Granted(entry), &["log out", "write"]);
    sample.written(0.0, &[]);
    sample.on(29.0, Event::Tick, &[]);
    sample.on(46.0, Event::Tick, &["claim"]);
}

#[test]
fn a_denied_token_is_replaced_once_however_often_it_is_denied() {
    let mut sample = Sample::valid();
    sample.on(5.0, Event::Denied(1), &["suspect", "claim"]);
    sample.on(5.0, Event::Denied(1), &["suspect"]);
    let entry = sample.machine.entry.clone();
    sample.on(5.0, Event::Granted(entry), &["log in"]);
    sample.on(6.0, Event::LoggedIn(session(password(RIGHT), 6.0)), &["serve", "write"]);
    sample.written(6.0, &[]);

    // Late news of the old generation.
    sample.on(7.0, Event::Denied(1), &[]);
    sample.is(7.0, State::Valid);
}

#[test]
fn a_token_that_another_gateway_has_replaced_needs_no_login() {
    let mut sample = Sample::valid();
    sample.on(5.0, Event::Denied(1), &["suspect", "claim"]);
    let entry = Entry { session: Some(session(password(RIGHT), 5.0)), ..Entry::default() };

    sample.on(5.0, Event::Granted(entry), &["adopt", "give back"]);

    sample.is(5.0, State::Valid);
}

#[test]
fn fresh_tokens_that_are_denied_cost_a_few_logins_and_then_one_in_a_while() {
    let mut sample = Sample::valid();
    let mut logins = 0;
    for _ in 0..20 {
        let generation = sample.machine.generation();
        sample.machine.on(Event::Doubted(generation), at(1.0));
        let done = sample.machine.on(Event::Denied(generation), at(1.0));
        if !words(&done).contains(&"claim") {
            continue;
        }
        let entry = sample.machine.entry.clone();
        let done = sample.machine.on(Event::Granted(entry), at(1.0));
        if words(&done).contains(&"log in") {
            logins += 1;
            sample.machine.on(Event::LoggedIn(session(password(RIGHT), 1.0)), at(1.0));
            sample.written(1.0, &[]);
        }
    }

    assert_eq!(logins, DENIALS);
    let generation = sample.machine.generation();
    assert!(sample.machine.denials().1.is_some_and(|held| held > time(1.0)));
    sample.on(30.0, Event::Denied(generation), &["suspect", "claim"]);
}

#[test]
fn however_many_requests_doubt_a_token_the_next_denial_is_paid_for() {
    let mut sample = Sample::valid();
    for generation in [1, 1, 1, 1, 1, 1, 1, 1, 1] {
        sample.on(1.0, Event::Doubted(generation), &[]);
    }
    sample.on(2.0, Event::Denied(1), &["suspect", "claim"]);
    let entry = sample.machine.entry.clone();

    let done = sample.machine.on(Event::Granted(entry), at(2.0));

    assert!(words(&done).contains(&"log in"));
    assert!(sample.machine.denials().1.is_none());
}

#[test]
fn whatever_was_doubted_there_is_a_login_in_the_end() {
    let mut sample = Sample::valid();
    // Tokens of others that came and went without a login of ours.
    for generation in 1..50 {
        sample.on(1.0, Event::Doubted(generation), &[]);
    }
    let log_in = |sample: &mut Sample, seconds| {
        sample.machine.on(Event::Denied(1), at(seconds));
        let entry = sample.machine.entry.clone();
        words(&sample.machine.on(Event::Granted(entry), at(seconds))).contains(&"log in")
    };

    assert!(log_in(&mut sample, 2.0));
}

#[test]
fn denials_without_doubt_are_not_limited() {
    let mut sample = Sample::valid();
    for generation in 1..50 {
        sample.machine.on(Event::Denied(generation), at(1.0));
        let entry = sample.machine.entry.clone();
        let done = sample.machine.on(Event::Granted(entry), at(1.0));
        assert!(words(&done).contains(&"log in"), "{generation}");
        sample.machine.on(Event::LoggedIn(session(password(RIGHT), 1.0)), at(1.0));
        sample.revision += 1;
        sample.machine.on(Event::Written(Ok(Put::Done(Revision(sample.revision)))), at(1.0));
    }
}

#[test]
fn while_another_gateway_logs_in_we_follow() {
    let mut sample = Sample::claiming();
    sample.on(0.0, Event::Taken, &[]);
    sample.is(0.0, State::LoggingIn);
    assert!(sample.machine.is_pending());
    sample.on(0.3, Event::Tick, &["claim"]);
    sample.on(0.3, Event::Taken, &[]);
    let entry = Entry { session: Some(session(password(RIGHT), 0.4)), ..Entry::default() };

    sample.on(0.5, seen(2, entry, 2), &["adopt"]);

    sample.is(0.5, State::Valid);
}

#[test]
fn the_failure_of_the_gateway_that_logs_in_is_everybodys() {
    let mut sample = Sample::claiming();
    sample.on(0.0, Event::Taken, &[]);
    let note = Note {
        failure: Failure::Refused,
        reason: "401".into(),
        tried: password(RIGHT),
        until: time(0.4),
        failures: 1,
    };

    sample.on(0.5, seen(2, Entry { note: Some(note), ..Entry::default() }, 2), &[]);

    sample.is(0.5, State::Latched);
    assert!(!sample.machine.is_pending());
    sample.on(100.0, Event::Tick, &[]);
}

#[test]
fn without_the_store_the_token_serves_on_and_then_everybody_is_on_its_own() {
    let mut sample = Sample::valid();
    sample.on(2900.0, Event::Tick, &["claim"]);
    sample.on(2901.0, Event::Unclaimed(down()), &[]);
    sample.is(2901.0, State::Valid);
    sample.on(3000.0, Event::Tick, &["claim"]);
    sample.on(3001.0, Event::Unclaimed(down()), &[]);
    let done = sample.machine.on(Event::Tick, at(3600.5));
    assert_eq!(words(&done), ["withdraw", "claim"]);

    sample.on(3601.0, Event::Unclaimed(down()), &["log in"]);

    sample.on(3602.0, Event::LoggedIn(session(password(RIGHT), 3602.0)), &["serve"]);
    sample.is(3602.0, State::Valid);
    // It is nobody else's, so it is given to the store when that is back.
    let lost = Entry::default();
    sample.on(3700.0, seen(9, lost.clone(), 2), &["claim"]);
    sample.on(3700.0, Event::Granted(lost), &["write"]);
    assert!(sample.entry().session.is_some());
}

#[test]
fn without_the_store_nobody_logs_in_where_that_is_wanted() {
    let mut sample = Sample::with(StoreError::Hold);
    sample.on(0.0, Event::Looked(Err(down())), &[]);
    assert!(matches!(sample.machine.refusal(time(0.1)), Some(Refusal::Store { .. })));
    assert!(!sample.machine.is_pending());
    sample.is(0.1, State::BackingOff);
    sample.on(2.0, Event::Tick, &["claim"]);
    sample.on(3.0, Event::Unclaimed(down()), &[]);
    let entry = Entry { session: Some(session(password(RIGHT), 0.0)), ..Entry::default() };

    sample.on(10.0, seen(3, entry, 2), &["adopt"]);
}

#[test]
fn who_has_logged_in_alone_joins_the_others_and_ends_its_own_session() {
    let mut sample = Sample::new();
    sample.on(0.0, Event::Looked(Err(down())), &["log in"]);
    sample.on(1.0, Event::LoggedIn(session(password(RIGHT), 1.0)), &["serve"]);
    let entry = Entry { session: Some(session(password(RIGHT), 1.5)), ..Entry::default() };

    sample.on(10.0, seen(3, entry, 2), &["log out", "adopt"]);
}

#[test]
fn who_has_logged_in_alone_and_last_gives_its_session_to_the_others() {
    let mut sample = Sample::new();
    sample.on(0.0, Event::Looked(Err(down())), &["log in"]);
    sample.on(1.0, Event::LoggedIn(session(password(RIGHT), 1.0)), &["serve"]);
    let entry = Entry { session: Some(session(password(RIGHT), 0.5)), ..Entry::default() };

    sample.on(10.0, seen(3, entry.clone(), 2), &["claim"]);
    sample.on(10.0, Event::Granted(entry), &["write"]);

    assert_eq!(sample.entry().retired.len(), 1);
}

#[test]
fn a_store_that_can_be_read_but_not_written_brings_no_old_session_back_and_costs_no_login() {
    let mut sample = Sample::valid();
    let old = sample.machine.entry.clone();
    sample.on(2900.0, Event::Tick, &["claim"]);
    sample.on(2900.0, Event::Granted(old.clone()), &["log in"]);
    sample.on(2901.0, Event::LoggedIn(session(password(RIGHT), 2901.0)), &["serve", "write"]);
    sample.on(2901.0, Event::Written(Err("the disk is full".into())), &[]);

    // It is tried to be written again and again, and that is all.
    let mut writes = 0;
    for second in 2902..3500 {
        let now = f64::from(second);
        for event in [seen(2, old.clone(), 1), Event::Tick] {
            if words(&sample.machine.on(event, at(now))) != ["claim"] {
                continue;
            }
            sample.on(now, Event::Granted(old.clone()), &["write"]);
            sample.on(now, Event::Written(Err("the disk is full".into())), &[]);
            writes += 1;
        }
        assert_eq!(sample.machine.generation(), 2);
        assert!(sample.machine.store_error().is_some());
    }
    assert!((50..150).contains(&writes), "{writes}");

    let done = sample.machine.on(Event::Tick, at(3520.0));
    assert_eq!(words(&done), ["claim"]);
    sample.on(3520.0, Event::Granted(old), &["write"]);
    assert_eq!(sample.entry().retired.len(), 1);
    sample.written(3520.0, &[]);
    assert!(sample.machine.store_error().is_none());
}

#[test]
fn a_store_that_was_emptied_is_given_the_session_again() {
    let mut sample = Sample::valid();
    sample.on(10.0, seen(99, Entry::default(), 3), &["claim"]);
    sample.is(10.0, State::Renewing);

    sample.on(10.0, Event::Granted(Entry::default()), &["write"]);

    assert!(sample.entry().session.is_some());
    sample.written(10.0, &[]);
    sample.is(10.0, State::Valid);
}

#[test]
fn a_lease_that_was_lost_makes_us_look_what_the_others_have() {
    let mut sample = Sample::logging_in();
    sample.on(50.0, Event::LoggedIn(session(password(RIGHT), 50.0)), &["serve", "write"]);
    sample.on(50.0, Event::Written(Ok(Put::LeaseLost)), &["claim"]);
    let entry = Entry { session: Some(session(password(RIGHT), 51.0)), ..Entry::default() };

    sample.on(50.0, Event::Granted(entry), &["log out", "adopt", "give back"]);
}

#[test]
fn an_operator_ends_the_session_and_the_next_one_is_opened() {
    let mut sample = Sample::valid();
    sample.on(5.0, Event::Revoke(1), &["claim"]);
    let entry = sample.machine.entry.clone();
    sample.on(5.0, Event::Granted(entry), &["log out", "withdraw", "write"]);
    assert_eq!(sample.machine.tickets().revoked, 1);
    assert!(sample.entry().session.is_none());
    sample.written(5.0, &["claim"]);

    let entry = sample.machine.entry.clone();
    sample.on(5.0, Event::Granted(entry), &["log in"]);
    sample.on(35.0, Event::LoggedIn(session(password(RIGHT), 35.0)), &["serve", "write"]);
    sample.written(35.0, &["claim"]);
    // It is not ended twice.
    let entry = sample.machine.entry.clone();
    sample.on(35.0, Event::Granted(entry), &["write"]);
    assert!(sample.entry().retired.is_empty());
}

#[test]
fn what_an_operator_has_ended_elsewhere_is_used_no_more() {
    let mut sample = Sample::valid();
    let held = sample.machine.held.as_ref().expect("a session").stored.clone();
    let retired = vec![Retired { id: held.id, jwt: held.jwt, from: time(7.0) }];

    sample.on(5.0, seen(9, Entry { retired, ..Entry::default() }, 2), &["withdraw", "claim"]);
}

#[test]
fn an_operators_wish_that_cannot_be_fulfilled_is_answered() {
    let mut sample = Sample::valid();
    sample.on(5.0, Event::Revoke(1), &["claim"]);
    sample.on(5.0, Event::Unclaimed(down()), &[]);
    let tickets = sample.machine.tickets();
    assert_eq!((tickets.revoked, tickets.revoke_failed), (1, true));

    sample.on(5.1, Event::Refresh(4), &[]);
    assert_eq!(sample.machine.tickets().refreshed, 4);
    sample.is(5.1, State::Valid);
}

#[test]
fn changed_credentials_are_proved_while_the_old_session_serves() {
    let mut sample = Sample::valid();
    sample.on(5.0, Event::Credentials(Ok(password("new"))), &["claim"]);
    let entry = sample.machine.entry.clone();
    sample.on(5.0, Event::Granted(entry), &["log in"]);
    sample.is(5.0, State::Renewing);

    sample.on(6.0, Event::LoggedIn(session(password("new"), 6.0)), &["serve", "write"]);

    assert_eq!(sample.entry().retired.len(), 1);
}

#[test]
fn credentials_that_cannot_be_read_take_nothing_away() {
    let mut sample = Sample::valid();

    sample.on(5.0, Event::Credentials(Err("no such file".into())), &[]);

    sample.is(5.0, State::Valid);
    sample.on(2900.0, Event::Tick, &["claim"]);
}

#[test]
fn without_credentials_there_is_nothing_to_wait_for() {
    let mut machine = Machine::new(identity(), StoreError::Local, 0);
    machine.on(Event::Credentials(Err("no such file".into())), at(0.0));
    machine.on(seen(1, Entry::default(), 1), at(0.0));

    assert!(matches!(machine.refusal(time(0.0)), Some(Refusal::Unreadable(_))));
    assert!(!machine.is_pending());
    let done = machine.on(Event::Credentials(Ok(password(RIGHT))), at(9.0));
    assert_eq!(words(&done), ["claim"]);
}

#[test]
fn a_shutdown_begins_nothing_and_finishes_what_is_under_way() {
    let mut resting = Sample::valid();
    resting.on(5.0, Event::Shutdown, &[]);
    assert!(resting.machine.has_ended());

    let mut claiming = Sample::claiming();
    claiming.on(5.0, Event::Shutdown, &[]);
    assert!(!claiming.machine.has_ended());
    claiming.on(5.0, Event::Granted(Entry::default()), &["give back"]);
    assert!(claiming.machine.has_ended());

    let mut logging_in = Sample::logging_in();
    logging_in.on(5.0, Event::Shutdown, &[]);
    logging_in.on(6.0, Event::LoggedIn(session(password(RIGHT), 6.0)), &["serve", "write"]);
    assert!(!logging_in.machine.has_ended());
    logging_in.written(6.0, &[]);
    assert!(logging_in.machine.has_ended());
    logging_in.is(6.0, State::Ended);
}

#[test]
fn a_task_that_broke_off_counts_as_a_failure() {
    for (sample, expected) in [
        (Sample::claiming(), &["log in"][..]),
        (Sample::logging_in(), &["trust", "write"]),
        (Sample::valid(), &[]),
    ] {
        let mut sample = sample;
        let event = sample.machine.broken("a fault".into());
        sample.on(1.0, event, expected);
    }
}

#[test]
fn a_clock_that_was_put_back_locks_nobody_out() {
    let mut sample = Sample::logging_in();
    sample.on(1_000_000.0, failed(Failure::Transient, password(RIGHT)), &["trust", "write"]);
    sample.written(1_000_000.0, &[]);

    sample.on(0.0, Event::Tick, &["claim"]);
}

#[test]
fn a_token_that_had_expired_when_it_came_is_a_failure() {
    let mut sample = Sample::logging_in();
    let mut late = session(password(RIGHT), 5.0);
    late.expires = Some(time(4.0));

    sample.on(5.0, Event::LoggedIn(late), &["trust", "write"]);

    sample.is(5.1, State::BackingOff);
}
