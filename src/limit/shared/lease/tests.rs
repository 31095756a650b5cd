//! Leases on one imagined Redis, by a clock that a test turns.

use proptest::prelude::*;

use super::{super::model::Model, *};
use crate::{config::Rate, limit::Scope};

fn terms(rate: u32, burst: u32) -> Terms {
    let rate = Rate { count: rate.try_into().unwrap(), per: Duration::from_secs(1) };
    Terms::new(Scope::Caller, rate, Some(burst.try_into().unwrap()))
}

/// Gateways that share a quota, and what is on its way between them and Redis.
struct Fleet {
    terms: Terms,
    start: Instant,
    /// Milliseconds that have passed.
    now: u64,
    redis: Model,
    gateways: Vec<Gateway>,
    /// How many milliseconds an answer takes.
    latency: u64,
    round_trips: u32,
}

struct Gateway {
    lease: Lease,
    waiting: u32,
    /// The answer that is on its way.
    asked: Option<(u64, Order, Answer)>,
    granted: u32,
    refused: u32,
}

impl Fleet {
    fn new(terms: Terms, members: usize, latency: u64) -> Self {
        let start = Instant::now();
        let gateway = || Gateway {
            lease: Lease::new(terms, start),
            waiting: 0,
            asked: None,
            granted: 0,
            refused: 0,
        };
        let gateways = std::iter::repeat_with(gateway).take(members).collect();
        Self { terms, start, now: 0, redis: Model::default(), gateways, latency, round_trips: 0 }
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_millis(self.now)
    }

    /// By Redis' clock.
    fn redis_now(&self) -> u64 {
        1_800_000_000_000_000 + self.now * 1000
    }

    fn members(&self) -> u32 {
        u32::try_from(self.gateways.len()).unwrap()
    }

    /// One more millisecond, in which each gateway gets so many requests.
    fn step(&mut self, load: impl Fn(usize) -> u32) {
        self.now += 1;
        let (instant, redis_now, members) = (self.instant(), self.redis_now(), self.members());
        for (at, gateway) in self.gateways.iter_mut().enumerate() {
            if let Some((_, order, answer)) = gateway.asked.take_if(|asked| asked.0 <= self.now) {
                gateway.lease.answered(instant, order, answer);
                let waiting = std::mem::take(&mut gateway.waiting);
                (0..waiting).for_each(|_| gateway.request(instant));
            }
            let look = self.now.is_multiple_of(50);
            if let Some(order) = look.then(|| gateway.lease.spare(instant)).flatten() {
                self.round_trips += 1;
                self.redis.take(redis_now, &self.terms, &order);
            }
            (0..load(at)).for_each(|_| gateway.request(instant));
            if gateway.asked.is_none() {
                let demand = Demand { all: gateway.waiting, least: gateway.waiting.min(1) };
                if let Some(order) = gateway.lease.order(instant, members, demand) {
                    self.round_trips += 1;
                    let answer = self.redis.take(redis_now, &self.terms, &order);
                    gateway.asked = Some((self.now + self.latency, order, answer));
                }
            }
        }
    }

    fn granted(&self) -> u32 {
        self.gateways.iter().map(|gateway| gateway.granted).sum()
    }

    fn held_at_most(&self) -> u32 {
        self.members() * (self.terms.burst.get() / (2 * self.members())).max(1)
    }
}

impl Gateway {
    fn request(&mut self, now: Instant) {
        match self.lease.take(now, 1) {
            Taken::Granted(_) => self.granted += 1,
            Taken::Refused(_) => self.refused += 1,
            Taken::Unknown => self.waiting += 1,
        }
    }
}

/// What a quota gives in so many milliseconds.
fn quota(terms: &Terms, ms: u64) -> f64 {
    let rate = ms as f64 / 1000.0 / terms.interval.as_secs_f64();
    f64::from(terms.burst.get()) + rate
}

#[test]
fn a_flood_gets_the_quota_and_costs_few_round_trips() {
    for (rate, burst, members, latency) in
        [(200, 200, 4, 1), (200, 10, 4, 1), (1000, 100, 8, 2), (5000, 5000, 3, 5), (20, 1, 4, 1)]
    {
        let terms = terms(rate, burst);
        let mut fleet = Fleet::new(terms, members, latency);

        (0..10_000).for_each(|_| fleet.step(|_| 5));

        let (granted, quota) = (f64::from(fleet.granted()), quota(&terms, 10_000));
        let case = format!("{rate}/s, burst {burst}, {members} gateways: {granted} of {quota}");
        assert!(granted <= quota + f64::from(fleet.held_at_most()), "{case}");
        assert!(granted >= quota * 0.95, "{case}");
        let requests = 10_000 * 5 * fleet.members();
        assert!(fleet.round_trips * 10 <= requests, "{case}: {} round trips", fleet.round_trips);
    }
}

#[test]
fn one_gateway_gets_what_the_others_do_not_use() {
    for (rate, burst) in [(200, 200), (200, 20), (2000, 100)] {
        let terms = terms(rate, burst);
        let mut fleet = Fleet::new(terms, 4, 1);

        // First all of them a little, then one of them everything.
        (0..1_000).for_each(|_| fleet.step(|_| 1));
        let before = fleet.granted();
        (0..10_000).for_each(|_| fleet.step(|at| if at == 2 { 5 } else { 0 }));

        let granted = f64::from(fleet.granted() - before);
        assert!(granted >= f64::from(rate) * 10.0 * 0.95, "{rate}/s, burst {burst}: {granted}");
    }
}

#[test]
fn steady_traffic_within_the_quota_seldom_waits() {
    let mut fleet = Fleet::new(terms(1000, 1000), 2, 1);
    let mut waited = 0;

    for _ in 0..5_000 {
        fleet.step(|at| u32::from(at == 0));
        waited += fleet.gateways[0].waiting;
    }

    assert_eq!(fleet.gateways[0].refused, 0);
    assert!(waited <= 100, "{waited}");
    assert!(fleet.round_trips <= 500, "{}", fleet.round_trips);
}

#[test]
fn a_single_request_takes_nothing_in_advance_and_is_remembered() {
    let mut fleet = Fleet::new(terms(10, 10), 2, 1);

    fleet.step(|at| u32::from(at == 0));
    (0..300).for_each(|_| fleet.step(|_| 0));

    assert_eq!((fleet.granted(), fleet.round_trips), (1, 1));
}

#[test]
fn what_is_not_used_is_given_back_within_200_ms() {
    let terms = terms(1000, 1000);
    let mut fleet = Fleet::new(terms, 2, 1);
    (0..400).for_each(|_| fleet.step(|at| if at == 0 { 2 } else { 0 }));
    assert!(fleet.gateways[0].lease.held > 0);

    (0..200).for_each(|_| fleet.step(|_| 0));

    assert_eq!(fleet.gateways[0].lease.held, 0);
    let now = fleet.redis_now();
    let left =
        fleet.redis.take(now, &terms, &Order { wanted: 2000, needed: 1, ..Order::default() });
    let expected = 1000 - fleet.granted() + 600;
    assert!(left.taken.abs_diff(expected) <= 1, "{left:?} {expected}");
}

#[test]
fn that_it_is_used_up_is_believed_for_a_while() {
    let terms = terms(1, 2);
    let now = Instant::now();
    let mut lease = Lease::new(terms, now);
    let order = lease.order(now, 1, Demand { all: 2, least: 1 }).unwrap();
    let answer = |taken, ahead| Answer { taken, ahead: Duration::from_millis(ahead), now: 0 };
    lease.answered(now, order, answer(2, 2000));

    let at = |ms| now + Duration::from_millis(ms);
    assert_eq!([lease.take(now, 1), lease.take(now, 1)], [Taken::Granted(1), Taken::Granted(0)]);
    assert_eq!(lease.take(at(100), 1), Taken::Refused(Duration::from_millis(900)));
    assert_eq!(lease.take(at(100), 2), Taken::Refused(Duration::from_millis(1900)));
    // Somebody may have given something back.
    assert_eq!(lease.take(at(250), 1), Taken::Unknown);
}

#[test]
fn an_answer_that_comes_after_the_look_at_the_clock_refuses_nothing() {
    let (terms, before) = (terms(1000, 1000), Instant::now());
    let mut lease = Lease::new(terms, before);
    let order = lease.order(before, 1, Demand { all: 1, least: 1 }).expect("an order");
    let answer = Answer { taken: order.wanted, ahead: Duration::from_millis(1), now: 1 };
    let after = before + Duration::from_millis(5);
    lease.answered(after, order, answer);
    assert_eq!(lease.take(after, 1), Taken::Granted(999));

    assert_eq!(lease.take(before, 1), Taken::Unknown);
}

#[test]
fn weights_are_taken_whole_or_not_at_all() {
    let terms = terms(1, 10);
    let now = Instant::now();
    let mut lease = Lease::new(terms, now);
    let order = lease.order(now, 1, Demand { all: 5, least: 5 }).unwrap();
    assert_eq!((order.needed, order.wanted), (5, 5));

    lease.answered(now, order, Answer { taken: 5, ahead: Duration::from_secs(5), now: 0 });

    assert_eq!(lease.take(now, 3), Taken::Granted(7));
    assert_eq!(lease.take(now, 5), Taken::Unknown);
    let order = lease.order(now, 1, Demand { all: 5, least: 5 }).unwrap();
    // What is missing, and as much again as has just been used.
    assert_eq!((order.needed, order.wanted), (3, 6));
}

#[test]
fn without_a_store_each_gives_out_its_share() {
    let terms = terms(100, 40);
    let now = Instant::now();
    let one = NonZeroU32::MIN;
    let give = |lease: &mut Lease, now, members| {
        (0..1000)
            .filter(|_| matches!(lease.take_alone(now, members, one), Taken::Granted(_)))
            .count()
    };

    let mut unheard = Lease::new(terms, now);
    assert_eq!(give(&mut unheard, now, 4), 10);
    assert_eq!(give(&mut unheard, now + Duration::from_secs(1), 4), 10);
    let per_second: usize =
        (1..=1000).map(|ms| give(&mut unheard, now + Duration::from_millis(1000 + ms), 4)).sum();
    assert_eq!(per_second, 25);

    // One that was used up does not begin anew.
    let mut used_up = Lease::new(terms, now);
    let order = Order { needed: 1, wanted: 40, ..Order::default() };
    used_up.answered(now, order, Answer { taken: 0, ahead: Duration::from_millis(400), now: 0 });
    assert_eq!(give(&mut used_up, now, 4), 0);
    // Nobody's share is less than one.
    assert_eq!(give(&mut Lease::new(terms, now), now, 1000), 1);
    let heavy = NonZeroU32::new(40).unwrap();
    assert!(matches!(Lease::new(terms, now).take_alone(now, 4, heavy), Taken::Granted(0)));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever comes where, and however long answers take.
    #[test]
    fn never_more_passes_than_is_said(
        rate in 1_u32..3000,
        burst in 1_u32..300,
        members in 1_usize..6,
        latency in 0_u64..40,
        loads in proptest::collection::vec((0_usize..6, 0_u32..20, 1_u64..300), 1..20),
    ) {
        let terms = terms(rate, burst);
        let mut fleet = Fleet::new(terms, members, latency);
        let mut seen = vec![(0, 0)];
        for (at, count, ms) in loads {
            for _ in 0..ms {
                fleet.step(|gateway| if gateway == at || at == 5 { count } else { 0 });
            }
            seen.push((fleet.now, fleet.granted()));
        }

        for (from, before) in &seen {
            for (to, after) in seen.iter().filter(|(to, _)| to >= from) {
                // What was asked for by those who waited is let pass when the answer comes.
                let most = quota(&terms, to - from + latency) + f64::from(fleet.held_at_most());
                prop_assert!(f64::from(after - before) <= most + 1.0, "{before} to {after}: {most}");
            }
        }
    }
}
