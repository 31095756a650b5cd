//! Who gets something from which quota, by a clock that the test turns.

use governor::clock::FakeRelativeClock;

use super::*;
use crate::config::load::load_str;

const TWO_CALLERS: &str = "[identities.main]\napi_token = \"t\"\n\
    [callers.a]\nrate = \"60/m\"\nburst = 2\n\
    [callers.b]\napi_key_hash = \"blake3:1111111111111111111111111111111111111111111111111111111111111111\"\n\
    [rate_limit]\nglobal = \"3/s\"\n";

impl Limiter<FakeRelativeClock> {
    fn take(&self, caller: usize, identity: usize, route: Option<&Route>) -> Decision {
        self.go_on(&mut Claim::new(caller, identity, route)).expect("it is known")
    }
}

fn limiter(clock: &FakeRelativeClock) -> Limiter<FakeRelativeClock> {
    Limiter::build(&load_str(TWO_CALLERS, &[]).unwrap().config, clock, None, None)
}

#[test]
fn a_quota_is_used_up_and_comes_back_one_by_one() {
    let clock = FakeRelativeClock::default();
    let limiter = limiter(&clock);
    let remaining = || match limiter.take(0, 0, None) {
        Decision::Granted(standing) => Ok(standing.remaining),
        Decision::Refused { retry_after, standing } => Err((standing.scope, retry_after)),
        Decision::Unlimited | Decision::Unreachable { .. } => panic!("there is a quota"),
    };

    assert_eq!([remaining(), remaining()], [Ok(1), Ok(0)]);
    assert_eq!(remaining(), Err((Scope::Caller, Duration::from_secs(1))));
    clock.advance(Duration::from_secs(1));
    assert_eq!(remaining(), Ok(0));
    assert!(remaining().is_err());
}

#[test]
fn the_quota_of_all_limits_those_who_have_none_of_their_own() {
    let limiter = limiter(&FakeRelativeClock::default());

    let granted =
        (0..10).filter(|_| matches!(limiter.take(1, 0, None), Decision::Granted(_))).count();

    assert_eq!(granted, 3);
    let refused = limiter.take(1, 0, None);
    assert!(
        matches!(refused, Decision::Refused { standing, .. } if standing.scope == Scope::Global)
    );
}

#[test]
fn who_is_over_its_own_quota_takes_nothing_from_the_others() {
    let limiter = limiter(&FakeRelativeClock::default());
    let hasty =
        (0..10).filter(|_| matches!(limiter.take(0, 0, None), Decision::Granted(_))).count();

    let other = limiter.take(1, 0, None);

    assert_eq!(hasty, 2);
    assert!(matches!(other, Decision::Granted(standing) if standing.remaining == 0));
}

fn route(key: &str) -> &'static Route {
    let is_it = |route: &&Route| route.template == format!("/api/v1/{key}");
    Catalogue::get().routes().iter().find(is_it).expect("a route")
}

fn granted(limiter: &Limiter<FakeRelativeClock>, route: &Route) -> (usize, Option<Scope>) {
    let mut refused = None;
    let granted = (0..100)
        .take_while(|_| match limiter.take(0, 0, Some(route)) {
            Decision::Refused { standing, .. } => {
                refused = Some(standing.scope);
                false
            }
            _ => true,
        })
        .count();
    (granted, refused)
}

#[test]
fn routes_and_identities_have_quotas_of_their_own_and_some_calls_weigh_more() {
    let text = "[identities.main]\napi_token = \"t\"\n\
        [callers.a]\nrate = \"60/m\"\nburst = 20\n\
        [rate_limit]\nper_identity = \"30/s\"\n\
        [rate_limit.routes.\"POST transfer/*\"]\nrate = \"3/m\"\nburst = 3\n\
        [rate_limit.routes.\"@destructive\"]\nweight = 5\n";
    let config = load_str(text, &[]).unwrap().config;
    let limiter = || Limiter::build(&config, &FakeRelativeClock::default(), None, None);

    assert_eq!(granted(&limiter(), route("transfer/transfer")), (3, Some(Scope::Route)));
    assert_eq!(granted(&limiter(), route("project/get_all")), (20, Some(Scope::Caller)));
    assert_eq!(granted(&limiter(), route("project/delete")), (4, Some(Scope::Caller)));
}

#[test]
fn a_caller_has_so_many_requests_under_way_and_no_more() {
    let text = "[identities.main]\napi_token = \"t\"\n[callers.a]\nmax_concurrent = 2\n";
    let limiter = Limiter::build(
        &load_str(text, &[]).unwrap().config,
        &FakeRelativeClock::default(),
        None,
        None,
    );

    let (first, second) = (limiter.enter(0).unwrap(), limiter.enter(0).unwrap());
    assert!(limiter.enter(0).is_none());
    drop(first);
    assert!(limiter.enter(0).is_some());
    drop(second);
    assert!(limiter.enter(7).is_some_and(|permit| permit.is_none()));
}

#[test]
fn over_a_minute_a_quota_is_exact() {
    let text = "[identities.main]\napi_token = \"t\"\n[callers.a]\nrate = \"50/s\"\nburst = 10\n";
    let clock = FakeRelativeClock::default();
    let limiter = Limiter::build(&load_str(text, &[]).unwrap().config, &clock, None, None);
    let mut granted = 0;
    for _ in 0..60_000 {
        clock.advance(Duration::from_millis(1));
        granted += usize::from(matches!(limiter.take(0, 0, None), Decision::Granted(_)));
    }

    // 50 in each second, and what may come at once at the beginning.
    assert!((2970..=3040).contains(&granted), "{granted}");
}

#[test]
fn what_stays_is_as_full_as_it_was_and_what_is_new_is_full() {
    let clock = FakeRelativeClock::default();
    let config = |text: &str| {
        let text = format!("[identities.main]\napi_token = \"t\"\n{text}");
        load_str(&text, &[]).unwrap().config
    };
    let hash = |digit| format!("api_key_hash = \"blake3:{}\"\n", "1".repeat(63) + digit);
    let caller = |name: &str, digit, rate: &str| {
        format!("[callers.{name}]\n{}rate = \"{rate}\"\nmax_concurrent = 1\n", hash(digit))
    };
    let (a, b) = (caller("a", "1", "2/s"), caller("b", "2", "3/s"));
    let before = Limiter::build(&config(&format!("{a}{b}")), &clock, None, None);
    let granted = |limiter: &Limiter<_>, caller| {
        let is_granted = |_: &_| matches!(limiter.take(caller, 0, None), Decision::Granted(_));
        (0..10).filter(is_granted).count()
    };
    assert_eq!((granted(&before, 0), granted(&before, 1)), (2, 3));
    let under_way = before.enter(1).unwrap().unwrap();
    before.refusals().too_many_under_way();

    let wider = caller("a", "1", "4/s");
    let after = Limiter::build(
        &config(&format!("{}{b}{wider}", caller("c", "3", "2/s"))),
        &clock,
        None,
        Some(&before),
    );

    // Under the new configuration, `b` stands second again, `a` third.
    assert_eq!([0, 1, 2].map(|caller| granted(&after, caller)), [2, 0, 4]);
    assert!(after.enter(1).is_none() && after.enter(0).is_some());
    drop(under_way);
    assert!(after.enter(1).is_some());
    assert_eq!(after.refusals().read().last(), Some(("concurrent", 1)));
    clock.advance(Duration::from_secs(1));
    assert_eq!((granted(&before, 1), granted(&after, 1)), (3, 0), "it is one quota");
}
