//! Quotas that several gateways share: the real program, and a real Redis that comes and goes.
#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use amove_gateway::emulator::{Emulator, Options};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use process_support::{Gateway, emulator, eventually, get, redis::Redis, request};
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinSet, time::sleep};

mod process_support;

const USERINFO: &str = "/api/v1/user/userinfo";
const RATE: f64 = 200.0;
const BURST: f64 = 200.0;

const STORE: &str = "AMOVE_GATEWAY_RATE_LIMIT__STORE";
const URL: &str = "AMOVE_GATEWAY_RATE_LIMIT__URL";
const ON_ERROR: &str = "AMOVE_GATEWAY_RATE_LIMIT__ON_STORE_ERROR";
const QUOTA: &str = "AMOVE_GATEWAY_CALLERS__LOCAL__RATE";
const WORKERS: &str = "AMOVE_GATEWAY_SERVER__WORKERS";

/// An answer: when it came, how long it took, and its status.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Instant,
    took: Duration,
    status: u16,
}

async fn amove() -> Emulator {
    emulator(Options { mfa: false, max_sessions: 50, ..Options::default() }).await
}

/// Gateways that share the quota of one caller, and know each other.
async fn fleet(redis: &Redis, amove: &Emulator, on_errors: &[&str]) -> Vec<Gateway> {
    let url = redis.url();
    let starting = on_errors.iter().map(|on_error| {
        let settings = [
            (STORE, "redis"),
            (URL, &*url),
            (ON_ERROR, on_error),
            (QUOTA, "200/s"),
            (WORKERS, "1"),
        ];
        let settings = settings.map(|(name, value)| (name, value.to_owned()));
        async move {
            let settings = settings.each_ref().map(|(name, value)| (*name, &**value));
            Gateway::ready(amove, &settings).await
        }
    });
    let fleet = futures_util::future::join_all(starting).await;
    for gateway in &fleet {
        eventually("all know each other", async || {
            store(gateway).await["members"] == on_errors.len()
        })
        .await;
    }
    fleet
}

/// How a gateway's store of quotas fares.
async fn store(gateway: &Gateway) -> Value {
    let answer = get(gateway.admin, "/readyz?verbose").await;
    assert_eq!(answer.status(), 200);
    let report: Value = serde_json::from_slice(answer.body()).expect("JSON");
    report["quota_store"].clone()
}

/// A sample of `/metrics`.
async fn metric(gateway: &Gateway, name: &str) -> f64 {
    let metrics = get(gateway.admin, "/metrics").await;
    let text = String::from_utf8_lossy(metrics.body()).into_owned();
    let sample = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    sample.expect(name).parse().expect("a number")
}

/// Far more requests than are within the quota, over some connections to each gateway.
async fn flood(gateways: &[&Gateway], time: Duration) -> Vec<Seen> {
    let end = Instant::now() + time;
    let mut callers = JoinSet::new();
    for gateway in gateways {
        for _ in 0..16 / gateways.len() {
            callers.spawn(call_until(gateway.address, end));
        }
    }
    let mut seen: Vec<_> = callers.join_all().await.into_iter().flatten().collect();
    seen.sort_by_key(|seen| seen.at);
    seen
}

async fn call_until(address: SocketAddr, end: Instant) -> Vec<Seen> {
    let stream = TcpStream::connect(address).await.expect("somebody listens");
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.expect("a connection");
    tokio::spawn(connection);
    let mut seen = Vec::new();
    while Instant::now() < end {
        let started = Instant::now();
        let answer = sender.send_request(request("GET", USERINFO)).await.expect("an answer");
        let status = answer.status().as_u16();
        answer.into_body().collect().await.expect("a body");
        let at = Instant::now();
        seen.push(Seen { at, took: at - started, status });
        sleep(Duration::from_millis(4)).await;
    }
    seen
}

/// How many were granted from one moment to another; nobody was told anything but yes or no.
fn granted(seen: &[Seen], from: Instant, to: Instant) -> f64 {
    let other = seen.iter().find(|seen| ![200, 429].contains(&seen.status));
    assert!(other.is_none(), "{other:?}");
    let granted = seen.iter().filter(|seen| seen.status == 200 && (from..to).contains(&seen.at));
    granted.count() as f64
}

fn count(text: &str, what: &str) -> usize {
    text.lines().filter(|line| line.contains(what)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_shares_a_quota_however_the_load_is_spread() {
    let Some(redis) = Redis::start() else { return };
    let amove = amove().await;
    let fleet = fleet(&redis, &amove, &["local"; 4]).await;
    let all: Vec<_> = fleet.iter().collect();

    let began = Instant::now();
    let seen = flood(&all, Duration::from_secs(4)).await;
    let even = granted(&seen, began, Instant::now());
    let quota = RATE * began.elapsed().as_secs_f64() + BURST;
    eprintln!("all: {even} of {quota:.0}, {} asked", seen.len());
    assert!((quota * 0.95..=quota * 1.05).contains(&even), "{even} of {quota}");
    let mut round_trips = 0.0;
    for gateway in &fleet {
        round_trips += metric(gateway, "amove_gateway_limit_store_round_trips_total").await;
        assert!(metric(gateway, "amove_gateway_limit_store_up").await > 0.0);
    }
    eprintln!("{round_trips} round trips");
    assert!(round_trips < seen.len() as f64 / 2.0, "{round_trips} for {}", seen.len());

    // What the others held comes back within 200 ms, and one of them gets everything.
    let began = Instant::now();
    let seen = flood(&all[2..3], Duration::from_secs(4)).await;
    let uneven = granted(&seen, began, Instant::now());
    let quota = RATE * began.elapsed().as_secs_f64();
    eprintln!("one: {uneven} of {quota:.0}, {} asked", seen.len());
    assert!((quota * 0.95..=quota * 1.05 + BURST / 2.0).contains(&uneven), "{uneven} of {quota}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_crashes_and_comes_back_empty_costs_nobody_anything() {
    let Some(mut redis) = Redis::start() else { return };
    let amove = amove().await;
    let fleet = fleet(&redis, &amove, &["local"; 4]).await;
    let all: Vec<_> = fleet.iter().collect();
    let (began, second) = (Instant::now(), Duration::from_secs(1));

    let (seen, (killed, revived)) = tokio::join!(flood(&all, second * 9), async {
        sleep(second * 2).await;
        redis.kill();
        let killed = Instant::now();
        sleep(second * 3).await;
        redis.revive();
        (killed, Instant::now())
    });

    let ended = Instant::now();
    let all = granted(&seen, began, ended);
    // A burst at the beginning, one that the new Redis knows nothing of, and what was held.
    let most = RATE * (ended - began).as_secs_f64() + BURST * 2.5;
    let meanwhile =
        granted(&seen, killed + second, revived) / (revived - killed - second).as_secs_f64();
    let after = granted(&seen, revived + second * 2, ended);
    let after = after / (ended - revived - second * 2).as_secs_f64();
    eprintln!("{all} of {most:.0} at most; {meanwhile:.0}/s without Redis, {after:.0}/s after");
    assert!(all <= most, "{all} of {most}");
    assert!((RATE * 0.85..=RATE * 1.05).contains(&meanwhile), "{meanwhile}");
    assert!((RATE * 0.85..=RATE * 1.1).contains(&after), "{after}");
    for gateway in &fleet {
        let log = gateway.process.stderr();
        // Once, unless a busy machine keeps Redis from answering in time.
        let lost = count(&log, "the store of quotas cannot be used");
        assert!((1..=2).contains(&lost), "{log}");
        assert_eq!(count(&log, "the store of quotas is back"), lost, "{log}");
        assert!(metric(gateway, "amove_gateway_limit_store_errors_total").await > 0.0);
        assert!(store(gateway).await["error"].is_null());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_is_waited_for_once_and_then_settings_decide() {
    let Some(redis) = Redis::start() else { return };
    let amove = amove().await;
    let fleet = fleet(&redis, &amove, &["local", "allow", "deny"]).await;
    let [local, allow, deny] = &fleet[..] else { panic!("three gateways") };
    let (all, second) = (fleet.iter().collect::<Vec<_>>(), Duration::from_secs(1));

    let (seen, ()) = tokio::join!(flood(&all, second * 3), async {
        sleep(second / 2).await;
        redis.signal("STOP");
    });
    let granted = granted(&seen, seen[0].at, Instant::now());
    let longest = seen.iter().map(|seen| seen.took).max().expect("an answer");
    let slow = seen.iter().filter(|seen| seen.took > Duration::from_millis(200)).count();
    eprintln!("{granted} of {}; the longest took {longest:?}, {slow} were slow", seen.len());
    assert!(longest < second, "{longest:?}");
    // One wait for each connection, and some room for a busy machine.
    assert!(slow <= 16 + seen.len() / 20, "{slow} of {}", seen.len());
    assert!(store(local).await["error"].is_string());
    assert!(metric(local, "amove_gateway_limit_store_up").await < 1.0);

    let began = Instant::now();
    let seen = flood(&[local], second).await;
    let alone = self::granted(&seen, began, Instant::now());
    assert!(alone <= 1.1 * (RATE * began.elapsed().as_secs_f64() + BURST) / 3.0, "{alone}");
    let seen = flood(&[allow], second / 2).await;
    assert!(seen.iter().all(|seen| seen.status == 200));
    let refused = get(deny.address, USERINFO).await;
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["retry-after"]),
        (429, &"1".parse().expect("a value"))
    );
    let problem: Value = serde_json::from_slice(refused.body()).expect("JSON");
    assert_eq!(problem["type"], "urn:amove-gateway:problem:quota-exceeded");
    assert!(problem["detail"].as_str().expect("text").contains("store of quotas"), "{problem}");

    redis.signal("CONT");
    let back = Instant::now();
    eventually("deny lets pass again", async || get(deny.address, USERINFO).await.status() == 200)
        .await;
    eprintln!("back after {:?}", back.elapsed());
    assert!(back.elapsed() < second * 4, "{:?}", back.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_down_keeps_no_gateway_from_starting() {
    let amove = amove().await;
    let url = format!("redis://:canary@127.0.0.1:{}", process_support::free_port());
    let settings = [(STORE, "redis"), (URL, &*url), (QUOTA, "200/s")];
    let gateway = Gateway::ready(&amove, &settings).await;

    let answer = get(gateway.address, USERINFO).await;

    assert_eq!(answer.status(), 200);
    assert!(answer.headers().contains_key("ratelimit"), "{answer:?}");
    assert!(store(&gateway).await["error"].as_str().expect("text").contains("cannot be reached"));
    assert!(!gateway.process.stderr().contains("canary"));
}
