//! Shared quotas on a real Redis.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use futures_util::future::join_all;
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use tokio::{
    runtime::Handle,
    time::{Instant, interval},
};
use tokio_util::sync::CancellationToken;

use super::{lease::Order, model::Model, *};
use crate::{
    amove::catalogue::{Catalogue, Route},
    config::{Rate, load::load_str},
    limit::{Limiter, Scope},
    redis::testing::RedisServer,
};

const ONE: NonZeroU32 = NonZeroU32::MIN;

fn terms(rate: u32, burst: u32) -> Terms {
    let rate = Rate { count: rate.try_into().unwrap(), per: Duration::from_secs(1) };
    Terms::new(Scope::Caller, rate, Some(burst.try_into().unwrap()))
}

/// So slow that nothing comes back during a test.
fn one_an_hour(burst: u32) -> Terms {
    Terms { interval: Duration::from_secs(60 * 60), ..terms(1, burst) }
}

fn store(redis: &RedisServer, on_error: QuotaStoreError) -> Arc<Store> {
    let store = Store::open(&redis.url().into(), None, on_error, Handle::current());
    Arc::new(store.expect("a store"))
}

/// As a request does.
async fn pass(quota: &Arc<SharedQuota>, weight: NonZeroU32) -> Decision {
    match quota.take(weight) {
        Some(decision) => decision,
        None => quota.wait(weight, Instant::now() + PATIENCE).await,
    }
}

async fn granted(quota: &Arc<SharedQuota>, requests: usize) -> usize {
    let all = join_all((0..requests).map(|_| pass(quota, ONE))).await;
    all.into_iter().filter(|decision| matches!(decision, Decision::Granted(_))).count()
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_script_does_what_the_model_does() {
    let Some(redis) = RedisServer::start() else { return };
    let store = store(&redis, QuotaStoreError::Local);
    let order = (0_u32..8, 0_u32..20, 0_u32..6, proptest::bool::ANY, 0_u64..3);
    let orders = proptest::collection::vec(order, 60);
    let mut runner = TestRunner::deterministic();

    for (rate, burst) in [(1000, 10), (333_333, 100), (7, 1), (3000, 40)] {
        let terms = terms(rate, burst);
        let mut model = Model::default();
        let mut since = 0;
        let key = format!("{rate}");
        for (needed, wanted, returned, is_late, pause) in
            orders.new_tree(&mut runner).expect("orders").current()
        {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let since_then = if is_late { since } else { 0 };
            let order = Order { needed, wanted, returned, since: since_then };

            let answer = store.take(&key, &terms, &order).await.expect("an answer");

            assert_eq!(answer, model.take(answer.now, &terms, &order), "{order:?}");
            if answer.taken > 0 {
                since = answer.now;
            }
        }
    }
}

#[tokio::test]
async fn a_quota_that_is_full_again_leaves_nothing_behind() {
    let Some(redis) = RedisServer::start() else { return };
    let store = store(&redis, QuotaStoreError::Local);
    let terms = terms(100, 10);
    let order = |wanted, returned, since| Order { needed: 1, wanted, returned, since };

    let taken = store.take("q", &terms, &order(10, 0, 0)).await.expect("an answer");
    let expires: i64 = redis::from_redis_value(redis.ask(&["PTTL", "q"])).expect("a number");
    assert!((1..=1100).contains(&expires), "{expires}");
    let back = store.take("q", &terms, &order(0, 10, taken.now)).await.expect("an answer");

    assert_eq!(back.ahead, Duration::ZERO);
    assert!(redis.keys().is_empty());
}

#[tokio::test]
async fn a_clock_that_was_put_back_and_rubbish_lock_nobody_out() {
    let Some(redis) = RedisServer::start() else { return };
    let store = store(&redis, QuotaStoreError::Local);
    let terms = terms(1000, 10);
    let order = Order { needed: 1, wanted: 1, ..Order::default() };

    let later = "9000000000000000";
    for state in [
        ["HSET", "q", "at", later, "ahead", "5000000", "full", later],
        ["HSET", "q", "at", "1", "ahead", "x", "full", "1"],
    ] {
        redis.ask(&state);
        assert_eq!(store.take("q", &terms, &order).await.expect("an answer").taken, 1);
    }
    redis.ask(&["HSET", "q", "at", later, "ahead", "900000000000000", "full", "1"]);
    assert_eq!(store.take("q", &terms, &order).await.expect("an answer").taken, 0);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(store.take("q", &terms, &order).await.expect("an answer").taken, 1);
}

#[tokio::test]
async fn who_names_a_quota_alike_and_makes_it_as_large_shares_it() {
    let Some(redis) = RedisServer::start() else { return };
    let store = |_| store(&redis, QuotaStoreError::Local);
    let quota = |name, burst| SharedQuota::new(&store(()), name, one_an_hour(burst));
    let quotas = [quota("billing", 2), quota("billing", 2), quota("billing", 3), quota("media", 2)];

    let mut counts = Vec::new();
    for quota in &quotas {
        counts.push(granted(quota, 5).await);
    }

    assert_eq!(counts, [2, 0, 3, 2]);
}

#[tokio::test]
async fn what_weighs_more_than_the_quota_takes_all_of_it() {
    let Some(redis) = RedisServer::start() else { return };
    let quota = SharedQuota::new(&store(&redis, QuotaStoreError::Local), "a", one_an_hour(10));

    let Decision::Granted(standing) = pass(&quota, NonZeroU32::new(3).unwrap()).await else {
        panic!("it is full")
    };
    assert_eq!((standing.remaining, standing.burst), (7, 10));
    let heavy = pass(&quota, NonZeroU32::new(50).unwrap()).await;
    let Decision::Refused { standing, retry_after } = heavy else { panic!("{heavy:?}") };

    assert_eq!(standing.remaining, 0);
    assert!(retry_after > Duration::from_secs(60 * 60 * 5 / 2), "{retry_after:?}");
    assert_eq!(granted(&quota, 20).await, 7);
}

#[tokio::test]
async fn members_know_how_many_they_are() {
    let Some(redis) = RedisServer::start() else { return };
    let stop = CancellationToken::new();
    let stores: Vec<_> = (0..3).map(|_| store(&redis, QuotaStoreError::Local)).collect();
    let keep = |store: &Arc<Store>| {
        let (store, stop) = (Arc::clone(store), stop.clone());
        tokio::spawn(async move { keep(&store, &Quotas::default(), stop).await })
    };
    let kept: Vec<_> = stores.iter().map(keep).collect();

    eventually("all are counted", || stores.iter().all(|store| store.members() == 3)).await;
    stop.cancel();
    join_all(kept).await;

    assert!(redis.keys().is_empty(), "{:?}", redis.keys());
}

#[tokio::test]
async fn without_a_store_it_is_a_matter_of_configuration_who_passes() {
    let Some(mut redis) = RedisServer::start() else { return };
    let quota = |on_error| SharedQuota::new(&store(&redis, on_error), "a", one_an_hour(5));
    let [local, allow, deny] =
        [QuotaStoreError::Local, QuotaStoreError::Allow, QuotaStoreError::Deny].map(quota);
    assert_eq!(granted(&local, 1).await, 1);
    redis.kill();

    let asked = |quota: &Arc<SharedQuota>| {
        let quota = Arc::clone(quota);
        async move { join_all((0..10).map(|_| pass(&quota, ONE))).await }
    };
    let (local, allow, deny) = (asked(&local).await, asked(&allow).await, asked(&deny).await);

    let passes = |decision: &&Decision| matches!(decision, Decision::Granted(_));
    assert_eq!(local.iter().filter(passes).count(), 4, "{local:?}");
    assert!(allow.iter().all(|decision| *decision == Decision::Unlimited), "{allow:?}");
    let unreachable = Decision::Unreachable { retry_after: LATER };
    assert!(deny.iter().all(|decision| *decision == unreachable), "{deny:?}");
}

#[tokio::test]
async fn one_that_hangs_costs_one_bounded_wait_and_one_that_is_back_is_used() {
    let Some(mut redis) = RedisServer::start() else { return };
    let store = store(&redis, QuotaStoreError::Local);
    let quota = SharedQuota::new(&store, "a", terms(1000, 1000));
    let stop = CancellationToken::new();
    let kept = {
        let (store, quotas, stop) = (Arc::clone(&store), Quotas::default(), stop.clone());
        quotas.keep(Arc::clone(&quota));
        tokio::spawn(async move { keep(&store, &quotas, stop).await })
    };
    assert_eq!(granted(&quota, 1).await, 1);
    redis.signal("STOP");

    let started = Instant::now();
    assert_eq!(granted(&quota, 20).await, 20);
    assert!(started.elapsed() < PATIENCE * 4, "{:?}", started.elapsed());
    eventually("it counts as away", || !store.is_up()).await;
    let (started, before) = (Instant::now(), store.status());
    assert_eq!(granted(&quota, 20).await, 20);
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
    assert_eq!(store.status().round_trips, before.round_trips);
    assert_eq!(before.error.as_deref(), Some("Redis does not answer"));

    redis.signal("CONT");
    redis.kill();
    redis.restart();
    eventually("it is found", || store.is_up()).await;
    assert_eq!(granted(&quota, 1).await, 1);
    assert!(store.status().error.is_none());
    stop.cancel();
    kept.await.expect("no panic");
}

/// A gateway's quotas in `redis`.
fn limiter(redis: &RedisServer, settings: &str) -> Arc<Limiter> {
    let text = format!(
        "[identities.main]\napi_token = \"t\"\n{settings}store = \"redis\"\nurl = \"{}\"\n",
        redis.url()
    );
    let config = load_str(&text, &[]).expect("a configuration").config;
    Arc::new(Limiter::new(&config, Handle::current()).expect("a limiter"))
}

#[tokio::test]
async fn a_request_takes_from_all_its_quotas_wherever_it_comes_in() {
    let Some(redis) = RedisServer::start() else { return };
    let settings = "[callers.a]\nrate = \"3/h\"\nburst = 3\n\
        [rate_limit.routes.\"GET user/*\"]\nrate = \"60/h\"\nburst = 2\n\
        [rate_limit]\nglobal = \"9/s\"\nper_identity = \"1000/s\"\n";
    let gateways = [limiter(&redis, settings), limiter(&redis, settings)];
    let is_route = |route: &&Route| route.template == "/api/v1/user/userinfo";
    let route = Catalogue::get().routes().iter().find(is_route);

    let mut told = Vec::new();
    for at in [0, 1, 1] {
        told.push(match gateways[at].pass(0, 0, route).await {
            Decision::Granted(standing) => (standing.scope, standing.remaining),
            Decision::Refused { standing, .. } => (standing.scope, 999),
            other => panic!("{other:?}"),
        });
    }

    assert_eq!(told, [(Scope::Caller, 2), (Scope::Caller, 1), (Scope::Route, 999)]);
    let keys = redis.keys();
    let expected =
        ["route:60000000000:2:GET user/*", "caller:1200000000000:3:a", "global:111111111:9:"];
    for key in expected {
        assert!(keys.contains(&format!("amove-gateway:limit:{key}")), "{keys:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_floods_makes_nobody_else_wait() {
    let Some(redis) = RedisServer::start() else { return };
    let settings = "[rate_limit]\nglobal = \"200/s\"\nmode = \"wait\"\nmax_wait = \"2s\"\n";
    let gateways = [limiter(&redis, settings), limiter(&redis, settings)];
    let (start, time) = (Instant::now(), Duration::from_secs(2));
    let flood = (0..200).map(|at| {
        let gateway = Arc::clone(&gateways[at % 2]);
        tokio::spawn(async move {
            let mut served = 0_u32;
            while start.elapsed() < time {
                served += u32::from(matches!(gateway.pass(0, 0, None).await, Decision::Granted(_)));
            }
            served
        })
    });
    let flood: Vec<_> = flood.collect();

    let (mut ticks, mut longest) = (interval(Duration::from_millis(50)), Duration::ZERO);
    while start.elapsed() < time {
        ticks.tick().await;
        let since = Instant::now();
        assert!(matches!(gateways[0].pass(1, 0, None).await, Decision::Granted(_)));
        longest = longest.max(since.elapsed());
    }
    let served: u32 = join_all(flood).await.into_iter().map(|it| it.expect("no panic")).sum();

    // In one line, it would wait behind a hundred others for a second.
    assert!(longest < Duration::from_millis(600), "{longest:?}");
    let quota = 200.0 * start.elapsed().as_secs_f64() + 200.0;
    assert!((quota * 0.8..quota * 1.05).contains(&f64::from(served + 40)), "{served} of {quota}");
}

#[test]
fn settings_that_cannot_work_are_told_at_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let open = |url: &str, ca_file: Option<&str>| {
        let (ca_file, runtime) = (ca_file.map(std::path::Path::new), runtime.handle().clone());
        Store::open(&url.into(), ca_file, QuotaStoreError::Local, runtime)
    };

    for url in ["http://:canary@redis.test", "rediss://:canary@redis.test/#insecure"] {
        let error = open(url, None).expect_err(url);
        assert!(matches!(error, OpenError::Url));
        assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    }
    let missing = open("rediss://redis.test", Some("/missing/ca.pem"));
    assert!(missing.expect_err("no file").to_string().contains("/missing/ca.pem"));
    let fine = open("redis://:canary@redis.test", None).expect("a store");
    assert!(!format!("{fine:?}").contains("canary"));
}

#[tokio::test]
async fn another_configuration_keeps_what_stays_and_gives_back_what_goes() {
    let Some(redis) = RedisServer::start() else { return };
    let settings = |rate: &str| {
        format!("[callers.a]\nrate = \"{rate}\"\nburst = 6\n[rate_limit]\nglobal = \"100/s\"\n")
    };
    let first = limiter(&redis, &settings("6/h"));
    let stop = CancellationToken::new();
    let kept = tokio::spawn(first.keep(stop.clone()));
    for _ in 0..6 {
        assert!(matches!(first.pass(0, 0, None).await, Decision::Granted(_)));
    }

    let text = |settings: &str| {
        let url = redis.url();
        let text = format!("[identities.main]\napi_token = \"t\"\n{settings}");
        load_str(
            &format!("{text}store = \"redis\"\nurl = \"{url}\"\non_store_error = \"deny\"\n"),
            &[],
        )
        .expect("a configuration")
        .config
    };
    let same = Arc::new(first.under(&text(&settings("6/h"))));
    assert!(matches!(same.pass(0, 0, None).await, Decision::Refused { .. }));
    let other = Arc::new(same.under(&text(&settings("7/h"))));
    other.take_over();
    assert!(matches!(other.pass(0, 0, None).await, Decision::Granted(_)));
    let shared = other.shared.as_ref().expect("it is shared");
    assert_eq!(shared.quotas.len(), 3);
    drop((first, same));

    eventually("the quota that nobody has is forgotten", || shared.quotas.len() == 2).await;
    stop.cancel();
    kept.await.expect("no panic");
    assert_eq!(shared.store.on_error(), QuotaStoreError::Deny);
}
