//! Who may call, and how much.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use amove_gateway::emulator::{Fault, Host};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    task::JoinSet,
};

use crate::support::{Reply, TestGateway, USERINFO, hash_of, request};

/// Two callers with keys; `settings` go below those of the second.
async fn with_two_callers(settings: &str) -> TestGateway {
    let (billing, reports) = (hash_of("billing-key"), hash_of("reports-key"));
    let settings = format!(
        "[callers.billing]\napi_key_hash = \"{billing}\"\n\
         [callers.reports]\napi_key_hash = \"{reports}\"\n{settings}"
    );
    TestGateway::with(&settings).await.logged_in().await
}

async fn get_as(gateway: &TestGateway, key: &str) -> Reply {
    gateway.get_with(USERINFO, &[("x-api-key", key)]).await
}

#[tokio::test]
async fn a_key_is_presented_by_itself_or_as_bearer() {
    let gateway = with_two_callers("").await;

    assert_eq!(get_as(&gateway, "billing-key").await.status, 200);
    assert_eq!(get_as(&gateway, "reports-key").await.status, 200);
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let value = format!("{scheme} billing-key");
        let reply = gateway.get_with(USERINFO, &[("authorization", &*value)]).await;
        assert_eq!(reply.status, 200, "{scheme}");
    }
}

#[tokio::test]
async fn a_caller_may_have_two_keys_while_one_replaces_the_other() {
    let (old, new) = (hash_of("old-key"), hash_of("new-key"));
    let settings = format!("[callers.billing]\napi_key_hash = [\"{old}\", \"{new}\"]\n");
    let gateway = TestGateway::with(&settings).await.logged_in().await;

    for (key, status) in [("old-key", 200), ("new-key", 200), ("other-key", 401)] {
        assert_eq!(get_as(&gateway, key).await.status, status, "{key}");
    }
}

#[tokio::test]
async fn on_a_unix_listener_the_system_tells_who_calls() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gateway.sock");
    let uid = std::os::unix::fs::MetadataExt::uid(&folder.path().metadata().expect("metadata"));
    let known = hash_of("key");
    for (configured, key, status) in [
        (uid, None, 200),
        (uid, Some("wrong"), 200),
        (uid + 1, None, 401),
        (uid + 1, Some("wrong"), 401),
        (uid + 1, Some("key"), 200),
    ] {
        let settings = format!(
            "server.listen = [\"127.0.0.1:0\", \"unix:{}\"]\n\
             [callers.cron]\nunix_uid = {configured}\n[callers.other]\napi_key_hash = \"{known}\"\n",
            path.display()
        );
        let gateway = TestGateway::with(&settings).await.logged_in().await;
        let mut stream = UnixStream::connect(&path).await.expect("a connection");
        let key = key.map_or_else(String::new, |key| format!("X-Api-Key: {key}\r\n"));
        let request =
            format!("GET {USERINFO} HTTP/1.1\r\nHost: x\r\n{key}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");

        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{configured} {key}: {answer}");
        // Over the network nobody is that user.
        assert_eq!(gateway.get(USERINFO).await.status, 401);
        gateway.drain().await;
    }
}

#[tokio::test]
async fn a_stranger_is_told_what_is_missing_and_gets_no_further() {
    let gateway = with_two_callers("").await;
    let strangers: [&[(&str, &str)]; 12] = [
        &[],
        &[("x-api-key", "wrong")],
        &[("x-api-key", "")],
        &[("x-api-key", "billing-key ,")],
        &[("x-api-key", "BILLING-KEY")],
        &[("authorization", "Bearer wrong")],
        &[("authorization", "Bearer ")],
        &[("authorization", "Bearer")],
        &[("authorization", "billing-key")],
        &[("authorization", "Basic YmlsbGluZy1rZXk6")],
        &[("cookie", "x-api-key=billing-key")],
        &[("proxy-authorization", "Bearer billing-key")],
    ];
    for headers in strangers {
        let reply = gateway.get_with(USERINFO, headers).await;

        assert_eq!(reply.outcome(), (401, "unauthenticated".into()), "{headers:?}");
        let challenge = reply.header("www-authenticate");
        assert_eq!(challenge, Some("Bearer realm=\"amove-gateway\""), "{headers:?}");
    }
    assert_eq!(gateway.amove.requests().len(), 0);
}

#[tokio::test]
async fn every_stranger_is_told_the_same() {
    let gateway = with_two_callers("").await;
    let text = |reply: Reply| {
        let mut problem = reply.json();
        problem["request_id"].take();
        problem.to_string()
    };

    let missing = text(gateway.get(USERINFO).await);
    let wrong = text(get_as(&gateway, "wrong").await);

    assert_eq!(missing, wrong);
}

#[tokio::test]
async fn who_presents_two_keys_presents_none() {
    let gateway = with_two_callers("").await;
    let pairs = [
        [("x-api-key", "billing-key"), ("x-api-key", "reports-key")],
        [("x-api-key", "billing-key"), ("x-api-key", "billing-key")],
        [("x-api-key", "billing-key"), ("authorization", "Bearer billing-key")],
        [("authorization", "Bearer billing-key"), ("authorization", "Bearer reports-key")],
    ];
    for pair in pairs {
        let reply = gateway.get_with(USERINFO, &pair).await;
        assert_eq!(reply.outcome(), (401, "unauthenticated".into()), "{pair:?}");
    }
    assert_eq!(gateway.seen().len(), 0);
}

#[tokio::test]
async fn one_caller_may_come_without_a_key() {
    let gateway = with_two_callers("[callers.local]\nrate = \"2/h\"\nburst = 2\n").await;

    assert_eq!(gateway.get(USERINFO).await.status, 200);
    assert_eq!(get_as(&gateway, "billing-key").await.status, 200);
    // A wrong key is not better than none.
    assert_eq!(get_as(&gateway, "wrong").await.outcome(), (401, "unauthenticated".into()));
    assert_eq!(gateway.get(USERINFO).await.status, 200);
    assert_eq!(gateway.get(USERINFO).await.outcome(), (429, "quota-exceeded".into()));
}

#[tokio::test]
async fn where_nobody_is_named_everyone_on_this_machine_may_call() {
    let gateway = TestGateway::start().await.logged_in().await;

    assert_eq!(gateway.get(USERINFO).await.status, 200);
    // What they present means nothing to us.
    assert_eq!(get_as(&gateway, "anything").await.status, 200);
}

/// The parts of a structured header `"name";a=1;b=2`.
fn parse(field: &str) -> (String, Vec<(String, u64)>) {
    let mut parts = field.split(';');
    let name = parts.next().expect("a name");
    let name = name.strip_prefix('"').and_then(|it| it.strip_suffix('"')).expect("a string");
    let parameters = parts.map(|part| {
        let (key, value) = part.split_once('=').expect("a parameter");
        (key.to_owned(), value.parse().expect("a number"))
    });
    (name.to_owned(), parameters.collect())
}

fn parameters(reply: &Reply, name: &str) -> (String, Vec<(String, u64)>) {
    parse(reply.header(name).unwrap_or_else(|| panic!("{name} is missing: {reply:?}")))
}

#[tokio::test]
async fn a_used_up_quota_is_a_problem_that_says_when_there_is_more() {
    let gateway = with_two_callers("rate = \"60/h\"\nburst = 3\n").await;

    for remaining in [2, 1, 0] {
        let within = get_as(&gateway, "reports-key").await;
        assert_eq!(within.status, 200);
        let quota = ("caller".to_owned(), vec![("q".to_owned(), 3), ("w".to_owned(), 180)]);
        assert_eq!(parameters(&within, "ratelimit-policy"), quota);
        let left = ("caller".to_owned(), vec![("r".to_owned(), remaining), ("t".to_owned(), 60)]);
        assert_eq!(parameters(&within, "ratelimit"), left);
    }
    let beyond = get_as(&gateway, "reports-key").await;

    assert_eq!(beyond.outcome(), (429, "quota-exceeded".into()));
    let pause: u64 = beyond.header("retry-after").expect("a pause").parse().expect("seconds");
    assert!((1..=60).contains(&pause), "{pause}");
    let (name, left) = parameters(&beyond, "ratelimit");
    assert_eq!((&*name, &left[0]), ("caller", &("r".to_owned(), 0)));
    assert!(beyond.header("ratelimit-policy").is_some());
    assert_eq!(gateway.seen().len(), 3);
    // Each has a quota of its own, and some have none.
    let other = get_as(&gateway, "billing-key").await;
    assert_eq!((other.status, other.header("ratelimit")), (200, None));
}

#[tokio::test]
async fn strangers_use_up_nobodys_quota() {
    let gateway = with_two_callers("rate = \"1/h\"\n[rate_limit]\nglobal = \"2/h\"\n").await;

    for _ in 0..10 {
        assert_eq!(get_as(&gateway, "mallory").await.status, 401);
        assert_eq!(gateway.get(USERINFO).await.status, 401);
    }

    assert_eq!(get_as(&gateway, "reports-key").await.status, 200);
    assert_eq!(get_as(&gateway, "reports-key").await.status, 429);
}

#[tokio::test]
async fn a_refused_request_uses_up_nothing() {
    let gateway = with_two_callers("rate = \"1/h\"\n").await;
    let key = [("x-api-key", "reports-key")];

    assert_eq!(gateway.get_with("/api//x", &key).await.status, 400);
    assert_eq!(gateway.get_with("/api/authentication/login", &key).await.status, 403);
    assert_eq!(get_as(&gateway, "reports-key").await.status, 200);
}

#[tokio::test]
async fn quotas_can_be_told_the_old_way_or_not_at_all() {
    let quota = "rate = \"60/h\"\nburst = 1\n[rate_limit]\nheaders = ";
    let legacy = with_two_callers(&format!("{quota}\"legacy\"")).await;
    let off = with_two_callers(&format!("{quota}\"off\"")).await;

    for status in [200, 429] {
        let told = get_as(&legacy, "reports-key").await;
        assert_eq!(told.status, status);
        assert_eq!(told.header("x-ratelimit-limit"), Some("1"));
        assert_eq!(told.header("x-ratelimit-remaining"), Some("0"));
        assert!(told.header("x-ratelimit-reset").is_some());
        assert_eq!(told.header("ratelimit").or(told.header("ratelimit-policy")), None);

        let silent = get_as(&off, "reports-key").await;
        assert_eq!(silent.status, status);
        let names: Vec<_> = silent.headers.keys().map(|name| name.as_str()).collect();
        assert!(!names.iter().any(|name| name.contains("ratelimit")), "{names:?}");
        assert_eq!(silent.header("retry-after").is_some(), status == 429);
    }
}

#[tokio::test]
async fn all_callers_together_have_a_quota_too() {
    let gateway = with_two_callers("[rate_limit]\nglobal = \"1/h\"\n").await;

    let first = get_as(&gateway, "billing-key").await;
    let second = get_as(&gateway, "reports-key").await;

    assert_eq!((first.status, &*parameters(&first, "ratelimit").0), (200, "global"));
    assert_eq!(second.outcome(), (429, "quota-exceeded".into()));
    assert_eq!(parameters(&second, "ratelimit").0, "global");
    assert!(second.header("retry-after").is_some());
}

#[tokio::test]
async fn a_problem_on_the_way_tells_the_quota_as_well() {
    let gateway = with_two_callers("rate = \"60/h\"\nburst = 5\n").await;
    let key = [("x-api-key", "reports-key")];

    let reply = gateway.get_with("/api/v1/emulator/fail?code=DUPLICATE", &key).await;

    assert_eq!(reply.status, 409);
    assert_eq!(parameters(&reply, "ratelimit").1[0], ("r".to_owned(), 4));
}

#[tokio::test]
async fn a_caller_has_so_many_requests_under_way_and_no_more() {
    let key = hash_of("key");
    let settings = format!("[callers.a]\napi_key_hash = \"{key}\"\nmax_concurrent = 2\n");
    let gateway = TestGateway::with(&settings).await.logged_in().await;
    let slow = Fault::Latency { ms: 600, count: None, host: Some(Host::Main), route: None };
    gateway.amove.inject(slow);

    let calls = (0..6).map(|_| get_as(&gateway, "key"));
    let replies = futures_util::future::join_all(calls).await;

    let statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 2, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 4, "{statuses:?}");
    let refused = replies.iter().find(|reply| reply.status == 429).expect("a refusal");
    assert_eq!(refused.header("retry-after"), Some("1"));
    // Those that have ended make room.
    assert_eq!(get_as(&gateway, "key").await.status, 200);
}

#[tokio::test]
async fn a_route_may_have_a_quota_of_its_own_whatever_its_spelling() {
    let settings = "[rate_limit.routes.\"GET user/*\"]\nrate = \"2/h\"\nburst = 2\n";
    let gateway = TestGateway::with(settings).await.logged_in().await;

    let spellings = [USERINFO, "/API/User/UserInfo/", "/api/user/%75serinfo"];
    let mut statuses = Vec::new();
    for path in spellings {
        statuses.push(gateway.get(path).await.status);
    }

    assert_eq!(statuses, [200, 200, 429]);
    assert_eq!(gateway.get("/api/v1/project/get_all").await.status, 200);
}

/// Ten callers who share a quota and wait for it. One sends as fast as it can over many
/// connections, the others as much as is their share.
#[tokio::test(flavor = "multi_thread")]
async fn who_floods_makes_nobody_else_wait() {
    let (rate, share, seconds) = (200, 18_u32, 4_u32);
    let mut settings = format!(
        "[rate_limit]\nglobal = \"{rate}/s\"\nmode = \"wait\"\nmax_wait = \"1s\"\nheaders = \"off\"\n"
    );
    for caller in 0..10 {
        let hash = hash_of(&format!("key-{caller}"));
        settings += &format!("[callers.c{caller}]\napi_key_hash = \"{hash}\"\n");
    }
    let gateway = Arc::new(TestGateway::with(&settings).await.logged_in().await);
    // What may come at once is used up, so that from now on there is only what comes back.
    let all_at_once = (0..rate).map(|_| get_as(&gateway, "key-0"));
    futures_util::future::join_all(all_at_once).await;
    let end = Instant::now() + Duration::from_secs(seconds.into());
    let mut flood = JoinSet::new();
    for _ in 0..60 {
        let gateway = Arc::clone(&gateway);
        flood.spawn(async move {
            let mut connection = gateway.connect().await;
            while Instant::now() < end {
                let call = request("GET", USERINFO, &[("x-api-key", "key-0")], "");
                connection.call(call).await;
            }
        });
    }
    let mut honest = JoinSet::new();
    for caller in 1..10 {
        let gateway = Arc::clone(&gateway);
        honest.spawn(async move {
            let key = format!("key-{caller}");
            let mut connection = gateway.connect().await;
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / share);
            let (mut served, mut waits) = (0, Vec::new());
            while Instant::now() < end {
                ticks.tick().await;
                let since = Instant::now();
                let call = request("GET", USERINFO, &[("x-api-key", &*key)], "");
                served += u32::from(connection.call(call).await.status == 200);
                waits.push(since.elapsed());
            }
            (served, waits)
        });
    }

    let honest = honest.join_all().await;
    flood.join_all().await;

    for (served, waits) in honest {
        let mut waits = waits;
        waits.sort();
        let p99 = waits[waits.len() * 99 / 100];
        assert!(served >= share * seconds * 9 / 10, "{served} of {}", share * seconds);
        assert!(p99 < Duration::from_secs(1), "{p99:?}");
    }
}
