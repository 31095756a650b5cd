//! Sessions of the real program: fleets, restarts, outages and rotation.
#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use amove_gateway::emulator::{self, Emulator, Fault, Options};
use process_support::{Gateway, emulator, eventually, get, redis::Redis};
use serde_json::Value;
use tokio::task::JoinSet;

mod process_support;

const USERINFO: &str = "/api/v1/user/userinfo";
const KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

const KIND: &str = "AMOVE_GATEWAY_SESSION_STORE__KIND";
const PATH: &str = "AMOVE_GATEWAY_SESSION_STORE__PATH";
const URL: &str = "AMOVE_GATEWAY_SESSION_STORE__URL";
const SEALING_KEY: &str = "AMOVE_GATEWAY_SESSION_STORE__ENCRYPTION_KEY";
const ON_ERROR: &str = "AMOVE_GATEWAY_SESSION_STORE__ON_ERROR";

async fn amove(token_ttl: Duration) -> Emulator {
    emulator(Options { mfa: false, token_ttl, max_sessions: 50, ..Options::default() }).await
}

async fn identity(gateway: &Gateway) -> Value {
    let status = get(gateway.admin, "/-/status.json").await;
    let status: Value = serde_json::from_slice(status.body()).expect("JSON");
    status["identities"][0].clone()
}

async fn stop(gateway: &mut Gateway) {
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.exit_code().await, Some(0), "{}", gateway.process.stderr());
}

/// Gateways that share a session in `redis`, all started at once.
async fn fleet(size: usize, amove: &Emulator, redis: &Redis) -> Vec<Gateway> {
    let url = redis.url();
    let settings =
        [(KIND, "redis"), (URL, &*url), (SEALING_KEY, KEY), ("AMOVE_GATEWAY_SERVER__WORKERS", "1")];
    let starting = (0..size).map(|_| Gateway::start(amove, &settings));
    let gateways = futures_util::future::join_all(starting).await;
    for gateway in &gateways {
        eventually("the fleet is ready", async || {
            get(gateway.admin, "/readyz").await.status() == 200
        })
        .await;
    }
    gateways
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_gateways_share_one_login_survive_their_leader_and_leave_nothing_behind() {
    let Some(redis) = Redis::start() else { return };
    let amove = amove(Duration::from_secs(20)).await;
    let mut fleet = fleet(50, &amove, &redis).await;
    for gateway in &fleet {
        assert_eq!(get(gateway.address, USERINFO).await.status(), 200);
    }
    assert_eq!(amove.stats().logins, 1, "{:?}", amove.stats());
    eventually("all know each other", async || identity(&fleet[0]).await["members"] == 50).await;

    // Whoever has logged in is killed; somebody else renews.
    let mut leader = None;
    for (at, gateway) in fleet.iter().enumerate() {
        if identity(gateway).await["counts"]["logins_ok"] == 1 {
            leader = Some(at);
        }
    }
    let mut leader = fleet.swap_remove(leader.expect("somebody has logged in"));
    leader.process.signal("KILL");
    leader.process.ended().await;
    eventually("the session is renewed", async || amove.stats().logins == 2).await;
    let since = Instant::now();
    for gateway in &fleet {
        eventually("everybody follows", async || identity(gateway).await["generation"] == 2).await;
    }
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    for gateway in &fleet {
        assert_eq!(get(gateway.address, USERINFO).await.status(), 200);
    }

    for gateway in &fleet {
        gateway.process.signal("TERM");
    }
    for gateway in &mut fleet {
        assert_eq!(gateway.process.exit_code().await, Some(0));
    }
    let stats = amove.stats();
    assert_eq!((stats.logins, stats.live_sessions), (2, 0), "{stats:?}");
    assert_eq!(stats.refused_bearers, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_have_a_new_session_within_a_second() {
    let Some(redis) = Redis::start() else { return };
    let amove = amove(Duration::from_secs(3600)).await;
    let mut fleet = fleet(3, &amove, &redis).await;
    amove.revoke_sessions();

    assert_eq!(get(fleet[0].address, USERINFO).await.status(), 200);
    let since = Instant::now();
    for gateway in &fleet {
        eventually("everybody follows", async || identity(gateway).await["generation"] == 2).await;
    }

    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    // Whoever leaves first leaves the session to the others.
    stop(&mut fleet[0]).await;
    assert_eq!(get(fleet[1].address, USERINFO).await.status(), 200);
    assert_eq!((amove.stats().logins, amove.stats().refused_bearers), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_the_token_serves_on_and_the_fleet_meets_again() {
    let Some(mut redis) = Redis::start() else { return };
    let amove = amove(Duration::from_secs(8)).await;
    let fleet = fleet(3, &amove, &redis).await;
    assert_eq!(amove.stats().logins, 1);
    redis.kill();

    // The token lives for another while, and then everybody has one of its own.
    let end = Instant::now() + Duration::from_secs(12);
    while Instant::now() < end {
        for gateway in &fleet {
            assert_eq!(get(gateway.address, USERINFO).await.status(), 200);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!((4..=7).contains(&amove.stats().logins), "{:?}", amove.stats());
    assert!(identity(&fleet[0]).await["store_error"].is_string());

    redis.revive();
    for gateway in &fleet {
        eventually("the fleet meets again", async || {
            let identity = identity(gateway).await;
            identity["members"] == 3 && identity["store_error"].is_null()
        })
        .await;
    }
    assert_eq!(get(fleet[2].address, USERINFO).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_nobody_logs_in_alone_where_that_is_not_wanted() {
    let amove = amove(Duration::from_secs(3600)).await;
    let url = format!("redis://127.0.0.1:{}", process_support::free_port());
    let settings = [(KIND, "redis"), (URL, &*url), (SEALING_KEY, KEY), (ON_ERROR, "hold")];
    let gateway = Gateway::start(&amove, &settings).await;

    let answer = get(gateway.address, USERINFO).await;

    assert_eq!(answer.status(), 503, "{answer:?}");
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(amove.stats().logins, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_a_file_needs_no_login_and_the_file_gives_nothing_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sessions");
    let path = path.to_str().expect("text");
    let settings = [(KIND, "file"), (PATH, path), (SEALING_KEY, KEY)];
    let amove = emulator(Options::default()).await;
    let mut bearers = Vec::new();

    for signal in ["TERM", "KILL", "TERM"] {
        let mut gateway = Gateway::ready(&amove, &settings).await;
        amove.forget_requests();
        assert_eq!(get(gateway.address, USERINFO).await.status(), 200);
        bearers.extend(bearers_of(&amove));
        gateway.process.signal(signal);
        gateway.process.ended().await;
    }

    let stats = amove.stats();
    assert_eq!((stats.logins, stats.logouts, stats.live_sessions), (1, 0, 1), "{stats:?}");
    bearers.dedup();
    assert_eq!(bearers.len(), 1);
    for file in std::fs::read_dir(folder.path()).expect("a folder") {
        let file = file.expect("a file").path();
        assert_is_private(&file);
        let bytes = std::fs::read(&file).expect("a file");
        for secret in [&*bearers[0], emulator::PASSWORD, emulator::TOTP_SECRET, emulator::USERNAME]
        {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} in {}", file.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_written_costs_no_logins_and_brings_no_old_session_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sessions");
    let text = path.to_str().expect("text");
    let amove = amove(Duration::from_secs(10)).await;
    let settings = [(KIND, "file"), (PATH, text), (SEALING_KEY, KEY)];
    let gateway = Gateway::ready(&amove, &settings).await;
    // A folder where the new file is to be; the old one can be read.
    let beside = folder.path().join("sessions.new");

    eventually("the session is written", async || path.exists()).await;
    eventually("no more can be written", async || std::fs::create_dir(&beside).is_ok()).await;
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        assert_eq!(get(gateway.address, USERINFO).await.status(), 200);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let logins = amove.stats().logins;
    assert!((2..=4).contains(&logins), "{logins} logins in two lives of a token");
    assert!(!identity(&gateway).await["store_error"].is_null());

    std::fs::remove_dir(&beside).expect("it is gone");
    eventually("it is written", async || identity(&gateway).await["store_error"].is_null()).await;
    eventually("one session is left", async || amove.stats().live_sessions == 1).await;
}

fn bearers_of(amove: &Emulator) -> Vec<String> {
    let requests = amove.requests();
    let bearer = |value: &str| value.strip_prefix("Bearer ").map(str::to_owned);
    requests.iter().filter_map(|seen| seen.header("authorization").and_then(bearer)).collect()
}

fn assert_is_private(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(file).expect("a file").permissions().mode();
    assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", file.display());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_is_proved_before_the_old_session_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("password");
    std::fs::write(&file, emulator::PASSWORD).expect("a file");
    let amove = amove(Duration::from_secs(3600)).await;
    let path = file.to_str().expect("text");
    let settings = [("AMOVE_PASSWORD", ""), ("AMOVE_PASSWORD_FILE", path)];
    let gateway = Gateway::ready(&amove, &settings).await;

    // A file that is still being written counts for nothing, and a wrong one takes nothing away.
    std::fs::write(&file, "").expect("a file");
    std::fs::write(&file, "half a pass").expect("a file");
    eventually("it is refused", async || identity(&gateway).await["state"] == "latched").await;
    assert_eq!(get(gateway.address, USERINFO).await.status(), 200);
    assert_eq!((amove.stats().failed_logins, amove.stats().logouts), (1, 0));

    // The right one, written anew, ends the latch; the old session is ended after the new one.
    std::fs::write(&file, format!("{}\n", emulator::PASSWORD)).expect("a file");
    eventually("it is proved", async || identity(&gateway).await["generation"] == 2).await;
    eventually("the old session has ended", async || amove.stats().logouts == 1).await;
    assert_eq!(get(gateway.address, USERINFO).await.status(), 200);
    assert_eq!((amove.stats().logins, amove.stats().live_sessions), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_tried_once_however_many_ask() {
    let amove = amove(Duration::from_secs(3600)).await;
    let gateway = Gateway::start(&amove, &[("AMOVE_PASSWORD", "wrong")]).await;
    let end = Instant::now() + Duration::from_secs(3);
    let mut callers = JoinSet::new();
    for _ in 0..20 {
        let address = gateway.address;
        callers.spawn(async move {
            let mut asked = 0_u32;
            while Instant::now() < end {
                assert_eq!(get(address, USERINFO).await.status(), 502);
                asked += 1;
            }
            asked
        });
    }

    let asked: u32 = callers.join_all().await.into_iter().sum();

    assert!(asked > 1000, "only {asked} requests");
    let stats = amove.stats();
    assert_eq!((stats.failed_logins, stats.logins), (1, 0), "{stats:?}");
}

/// Steady reads over many lives of the token, while sessions are revoked and denials come late.
/// `AMOVE_GATEWAY_TEST_LIVES=120` makes it ten minutes.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_that_tokens_come_and_go() {
    let lives: u32 =
        std::env::var("AMOVE_GATEWAY_TEST_LIVES").map_or(Ok(5), |it| it.parse()).expect("a number");
    let ttl = Duration::from_secs(5);
    let amove = amove(ttl).await;
    let gateway = Gateway::ready(&amove, &[]).await;
    let end = Instant::now() + ttl * lives;
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let address = gateway.address;
        callers.spawn(async move {
            let mut failures = Vec::new();
            while Instant::now() < end {
                let answer = get(address, USERINFO).await;
                if answer.status() != 200 {
                    failures.push(String::from_utf8_lossy(answer.body()).into_owned());
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            failures
        });
    }

    let mut revocations = 0;
    while Instant::now() + ttl < end {
        let pause = 1500 + 700 * (revocations % 5);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        amove.inject(Fault::Latency {
            ms: 200,
            count: Some(4),
            host: None,
            route: Some("userinfo".into()),
        });
        amove.revoke_sessions();
        revocations += 1;
    }
    let failures: Vec<_> = callers.join_all().await.into_iter().flatten().collect();

    assert!(failures.is_empty(), "{} failures, first {}", failures.len(), failures[0]);
    let stats = amove.stats();
    let most = u64::from(lives) * 2 + revocations + 1;
    assert!(stats.logins <= most, "{} logins, {revocations} revocations", stats.logins);
    assert_eq!((stats.failed_logins, stats.request_tokens_reused), (0, 0));
}
