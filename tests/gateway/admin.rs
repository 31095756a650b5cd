//! The operators' edge: health, metrics, orders, and who may give them.

use std::collections::{BTreeMap, BTreeSet};

use amove_gateway::emulator::{self, Fault, Host, PASSWORD, TOTP_SECRET};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::{Http1, Reply, TestGateway, USERINFO, request, until};

const REFRESH: &str = "/-/token/refresh";
const REVOKE: &str = "/-/token/revoke";
const RELOAD: &str = "/-/reload";
const PROTECTED: [(&str, &str); 7] = [
    ("GET", "/-/status.json"),
    ("GET", "/-/audit"),
    ("GET", "/metrics"),
    ("POST", REFRESH),
    ("POST", REVOKE),
    ("GET", "/-/config"),
    ("POST", RELOAD),
];

fn text(reply: &Reply) -> &str {
    std::str::from_utf8(&reply.body).expect("text")
}

fn slow_logins(ms: u64) -> Fault {
    Fault::Latency { ms, count: None, host: Some(Host::Auth), route: None }
}

/// A second identity of the same user, with this name.
fn another(name: &str) -> String {
    format!(
        "[identities.main]\ndefault = true\n\
         [identities.'{name}']\nusername = \"{}\"\npassword = \"{PASSWORD}\"\nuser_type = {}\n",
        emulator::USERNAME,
        emulator::USER_TYPE,
    )
}

/// The samples of `/metrics`, by name and labels.
async fn metrics(gateway: &TestGateway) -> BTreeMap<String, f64> {
    let reply = gateway.ask_operator("/metrics").await;
    let samples = text(&reply).lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a value");
        (name.to_owned(), value.parse().expect("a number"))
    };
    samples.map(sample).collect()
}

#[tokio::test]
async fn a_refresh_is_one_login_and_the_old_token_serves_until_then() {
    let gateway = TestGateway::without_mfa("").await.logged_in().await;
    gateway.amove.inject(slow_logins(300));

    let (order, meanwhile) = tokio::join!(gateway.order(REFRESH), gateway.get(USERINFO));

    assert_eq!((order.status, meanwhile.status), (200, 200));
    let status = order.json();
    assert_eq!((&status["name"], &status["serving"]), (&"main".into(), &true.into()));
    assert_eq!(status["generation"], 2, "{status}");
    let stats = gateway.amove.stats();
    assert_eq!((stats.logins, stats.refused_bearers), (2, 0));
    assert_eq!(gateway.get(USERINFO).await.status, 200);
    let seen = gateway.seen();
    assert_ne!(seen[0].header("authorization"), seen[1].header("authorization"));
}

#[tokio::test]
async fn a_revoked_session_is_logged_out_and_nobody_notices() {
    let gateway = TestGateway::without_mfa("").await.logged_in().await;

    let order = gateway.order(REVOKE).await;

    assert_eq!(order.status, 200, "{order:?}");
    assert_eq!(order.json()["name"], "main");
    until("it is logged out", async || gateway.amove.stats().logouts == 1).await;
    assert_eq!(gateway.get(USERINFO).await.status, 200);
    let stats = gateway.amove.stats();
    assert_eq!((stats.logins, stats.refused_bearers), (2, 0));
}

#[tokio::test]
async fn an_order_is_about_the_identity_that_it_names() {
    let gateway = TestGateway::without_mfa(&another("a & b")).await.logged_in().await;
    until("both are signed in", async || gateway.amove.stats().logins == 2).await;

    let order = gateway.order(&format!("{REVOKE}?identity=a+%26%20b")).await;

    assert_eq!(order.status, 200, "{order:?}");
    assert_eq!(order.json()["name"], "a & b");
    until("it is logged out", async || gateway.amove.stats().logouts == 1).await;
    let status = gateway.ask_operator("/-/status.json").await.json();
    assert_eq!(status["identities"][0]["generation"], 1, "{status}");
}

#[tokio::test]
async fn an_order_that_is_not_understood_is_not_carried_out() {
    let gateway = TestGateway::without_mfa(&another("other")).await.logged_in().await;
    until("both are signed in", async || gateway.amove.stats().logins == 2).await;

    for (query, status, told) in [
        ("identity=maine", 404, "there are: main, other."),
        ("identity=", 404, "there are: main, other."),
        ("identiy=main", 400, "identity=NAME"),
        ("identity=main&identity=other", 400, "identity=NAME"),
    ] {
        for order in [REFRESH, REVOKE] {
            let reply = gateway.order(&format!("{order}?{query}")).await;
            assert_eq!(reply.status, status, "{query}");
            assert!(text(&reply).contains(told), "{query}: {reply:?}");
        }
    }
    for (method, path, allowed) in [
        ("GET", REFRESH, "POST"),
        ("PUT", REVOKE, "POST"),
        ("POST", "/livez", "GET, HEAD"),
        ("DELETE", "/-/status.json", "GET, HEAD"),
    ] {
        let reply = gateway.operate(request(method, path, &[], "")).await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some(allowed)), "{path}");
    }
    let stats = gateway.amove.stats();
    assert_eq!((stats.logins, stats.logouts), (2, 0));
}

#[tokio::test]
async fn refused_credentials_are_told_and_an_order_tries_them_once() {
    let gateway = TestGateway::with("identities.main.password = \"pw-canary\"").await;
    until("the login is refused", async || gateway.amove.stats().failed_logins == 1).await;
    until("it is told", async || {
        text(&gateway.ask_operator("/readyz").await) == "credentials refused\n"
    })
    .await;

    let order = gateway.order(REFRESH).await;

    assert_eq!(order.outcome(), (502, "upstream-auth".into()));
    let problem = order.json();
    assert_eq!(problem["identity"], "main");
    assert!(problem["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{problem}");
    assert!(!text(&order).contains("canary"));
    assert_eq!(gateway.amove.stats().failed_logins, 2);
}

#[tokio::test]
async fn an_order_that_must_wait_says_for_how_long() {
    let amove = TestGateway::without_mfa("").await.drain().await;
    amove.inject(Fault::AuthDown { on: true });
    let gateway = TestGateway::in_front_of(amove, "").await;
    until("it is told", async || {
        text(&gateway.ask_operator("/readyz").await) == "Amove's login is unavailable\n"
    })
    .await;

    let order = gateway.order(REFRESH).await;

    assert_eq!(order.outcome(), (503, "session-unavailable".into()));
    assert!(order.header("retry-after").is_some(), "{order:?}");
    let verbose = gateway.ask_operator("/readyz?verbose").await;
    assert_eq!((verbose.status, verbose.json()["ready"].as_bool()), (503, Some(false)));
    assert_eq!(verbose.json()["identities"][0]["name"], "main");
}

#[tokio::test]
async fn whoever_gave_an_order_may_leave() {
    let gateway = TestGateway::without_mfa("").await.logged_in().await;
    gateway.amove.inject(slow_logins(300));
    let mut operator = TcpStream::connect(gateway.admin_addresses()[0]).await.expect("a listener");
    let order = format!("POST {REFRESH} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    operator.write_all(order.as_bytes()).await.expect("an order");
    until("a login is under way", async || {
        gateway.amove.requests().iter().any(|seen| seen.host == Host::Auth)
    })
    .await;

    drop(operator);

    until("there is a new token", async || {
        let status = gateway.ask_operator("/-/status.json").await.json();
        status["identities"][0]["generation"] == 2
    })
    .await;
}

#[tokio::test]
async fn the_session_of_an_api_token_is_not_ours_to_end() {
    let gateway = TestGateway::with("identities.main.api_token = \"t0ken\"").await;

    let order = gateway.order(REVOKE).await;

    assert_eq!(order.status, 409, "{order:?}");
    assert!(text(&order).contains("API token"), "{order:?}");
}

#[tokio::test]
async fn web_pages_give_no_orders() {
    let gateway = TestGateway::without_mfa("").await.logged_in().await;
    let large = "x".repeat(5000);

    for (headers, body, status) in [
        (&[("origin", "http://evil.test")][..], "", 403),
        (&[("origin", "null")], "", 403),
        (&[("sec-fetch-site", "cross-site")], "", 403),
        (&[("sec-fetch-site", "same-site")], "", 403),
        (&[("content-type", "application/x-www-form-urlencoded")], "a=b", 415),
        (&[("content-type", "multipart/form-data; boundary=x")], "--x--", 415),
        (&[("content-type", "text/plain")], "{}", 415),
        (&[], &*large, 413),
    ] {
        for order in [REFRESH, REVOKE, RELOAD] {
            let reply = gateway.operate(request("POST", order, headers, body.to_owned())).await;
            assert_eq!(reply.status, status, "{order} {headers:?}");
        }
    }
    let stats = gateway.amove.stats();
    assert_eq!((stats.logins, stats.logouts), (1, 0));
    let own = format!("http://{}", gateway.admin_addresses()[0]);
    let headers = [("origin", &*own), ("sec-fetch-site", "same-origin")];
    let reply = gateway.operate(request("POST", REFRESH, &headers, "{}")).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn a_name_that_was_made_to_point_here_is_told_nothing_but_health() {
    let gateway = TestGateway::without_mfa("").await.logged_in().await;

    for (method, path) in PROTECTED.into_iter().chain([("GET", "/nothing")]) {
        let headers = [("host", "rebound.test:9090")];
        let reply = gateway.operate(request(method, path, &headers, "")).await;
        assert_eq!(reply.status, 403, "{path}");
    }
    for path in ["/livez", "/readyz", "/healthz"] {
        let reply = gateway.operate(request("GET", path, &[("host", "rebound.test")], "")).await;
        assert_eq!(reply.status, 200, "{path}");
    }
    let local = request("GET", "/-/status.json", &[("host", "localhost:9090")], "");
    assert_eq!(gateway.operate(local).await.status, 200);
    assert_eq!(gateway.amove.stats().logins, 1);
}

#[tokio::test]
async fn what_is_not_health_wants_the_token_if_there_is_one() {
    let settings = "server.admin_token = \"adm1n\"";
    let gateway = TestGateway::without_mfa(settings).await.logged_in().await;

    for path in ["/livez", "/readyz", "/healthz?verbose"] {
        assert_eq!(gateway.ask_operator(path).await.status, 200, "{path}");
    }
    for (method, path) in PROTECTED {
        for authorization in ["", "Bearer wrong", "Bearer adm1n2", "Bearer ", "adm1n"] {
            let headers = [("authorization", authorization)];
            let reply = gateway.operate(request(method, path, &headers, "")).await;
            assert_eq!(reply.status, 401, "{path} {authorization}");
            assert!(reply.header("www-authenticate").is_some_and(|it| it.starts_with("Bearer")));
        }
        let headers = [("authorization", "Bearer adm1n")];
        let reply = gateway.operate(request(method, path, &headers, "")).await;
        // This one has a configuration that came from nowhere.
        let expected = match path {
            "/-/config" => 404,
            RELOAD => 409,
            _ => 200,
        };
        assert_eq!(reply.status, expected, "{path}");
    }
}

#[tokio::test]
async fn a_changed_token_file_is_read_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("token");
    std::fs::write(&file, "old\n").expect("a file");
    let settings = format!("server.admin_token_file = \"{}\"", file.display());
    let gateway = TestGateway::without_mfa(&settings).await;
    let ask = async |token: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", &*bearer)];
        gateway.operate(request("GET", "/-/status.json", &headers, "")).await.status
    };
    assert_eq!((ask("old").await, ask("new").await), (200, 401));

    std::fs::write(&file, "new\n").expect("a file");
    assert_eq!((ask("old").await, ask("new").await), (401, 200));

    std::fs::remove_file(&file).expect("a file");
    assert_eq!((ask("old").await, ask("new").await), (503, 503));
}

#[tokio::test]
async fn probes_and_scrapers_see_health_and_metrics_only() {
    let settings = "server.health_listen = \"127.0.0.1:0\"\nserver.admin_token = \"adm1n\"";
    let gateway = TestGateway::without_mfa(settings).await.logged_in().await;
    let probes = gateway.admin_addresses()[1];

    for (method, path, status) in [
        ("GET", "/livez", 200),
        ("GET", "/readyz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/-/status.json", 404),
        ("POST", REFRESH, 404),
        ("POST", REVOKE, 404),
    ] {
        let reply = Http1::to(probes).await.call(request(method, path, &[], "")).await;
        assert_eq!(reply.status, status, "{path}");
    }
}

#[tokio::test]
async fn the_metrics_tell_what_happens() {
    let gateway = TestGateway::without_mfa("").await.logged_in().await;

    let before = metrics(&gateway).await;
    gateway.amove.revoke_sessions();
    assert_eq!(gateway.get(USERINFO).await.status, 200);
    let after = metrics(&gateway).await;

    let of = |name: &str| format!("amove_gateway_session_{name}{{identity=\"main\"}}");
    let logins = "amove_gateway_session_logins_total{identity=\"main\",result=\"ok\"}";
    for (metrics, tokens) in [(&before, 1.0), (&after, 2.0)] {
        assert_eq!(metrics[&of("serving")], 1.0);
        assert_eq!(metrics[&of("generation")], tokens);
        assert_eq!(metrics[logins], tokens);
        let states: Vec<_> =
            metrics.iter().filter(|(name, _)| name.contains("session_state{")).collect();
        assert_eq!(states.len(), 9);
        assert_eq!(states.iter().map(|(_, value)| **value).sum::<f64>(), 1.0);
        let valid = "amove_gateway_session_state{identity=\"main\",state=\"valid\"}";
        assert_eq!(metrics[valid], 1.0);
    }
    for task in ["worker", "audit", "operators", "quotas"] {
        let name = format!("amove_gateway_task_restarts_total{{task=\"{task}\"}}");
        assert_eq!(after[&name], 0.0, "{name}");
    }
    assert_eq!(after[&of("denials_total")] - before[&of("denials_total")], 1.0);
    for name in ["expires_timestamp_seconds", "keeper_seen_timestamp_seconds"] {
        assert!(after[&of(name)] > 1_700_000_000.0, "{name}");
    }
    assert_eq!((after[&of("members")], after[&of("store_up")]), (1.0, 1.0));
    for name in ["keeper_restarts_total", "adoptions_total", "store_errors_total"] {
        assert_eq!(after[&of(name)], 0.0, "{name}");
    }
    for (event, results) in
        [("logins", &["refused", "quota", "failed"][..]), ("logouts", &["ok", "failed"])]
    {
        for result in results {
            let name = format!(
                "amove_gateway_session_{event}_total{{identity=\"main\",result=\"{result}\"}}"
            );
            assert!(after.contains_key(&name), "{name}");
        }
    }
    assert_eq!(after["amove_gateway_audit_records_lost_total"], 0.0);
    assert!(after["amove_gateway_start_time_seconds"] > 1_700_000_000.0);
    let version = format!("amove_gateway_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(after[&version], 1.0);
}

#[tokio::test]
async fn refusals_are_counted_by_whose_quota_it_was() {
    let gateway = TestGateway::with(
        "[callers.local]\nmax_concurrent = 2\nrate = \"3/h\"\nburst = 3\n\
         [rate_limit.routes.\"GET project/*\"]\nrate = \"1/h\"\nburst = 1\n",
    );
    let gateway = gateway.await.logged_in().await;
    let projects = "/api/v1/project/get_all";
    let stall = |count| Fault::Stall { count, host: Some(Host::Main), route: None };
    let refused = |scope: &str| format!("amove_gateway_limit_refused_total{{scope=\"{scope}\"}}");

    assert_eq!(gateway.get(projects).await.status, 200);
    assert_eq!(gateway.get(projects).await.status, 429);
    gateway.amove.inject(stall(2));
    let mut held = Vec::new();
    for sent in 1..=2 {
        let mut wire = gateway.wire().await;
        wire.write(format!("GET {USERINFO} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await;
        until("it is under way", async || gateway.seen().len() == 1 + sent).await;
        held.push(wire);
    }
    for _ in 0..3 {
        assert_eq!(gateway.get(USERINFO).await.status, 429);
    }
    drop(held);
    until("they have ended", async || {
        gateway.get(USERINFO).await.status == 429
            && metrics(&gateway).await[&refused("caller")] > 0.0
    })
    .await;

    let metrics = metrics(&gateway).await;
    assert_eq!(metrics[&refused("route")], 1.0);
    assert_eq!(metrics[&refused("caller")], 1.0);
    assert!(metrics[&refused("concurrent")] >= 3.0);
    assert_eq!((metrics[&refused("identity")], metrics[&refused("global")]), (0.0, 0.0));
    let scopes = metrics.keys().filter(|name| name.contains("limit_refused"));
    assert_eq!(scopes.count(), 5);
    let status = gateway.ask_operator("/-/status.json").await.json();
    assert_eq!(status["limits"]["refused"]["route"], 1, "{status}");
    assert_eq!(status["limits"]["waiting"], 0, "{status}");
}

#[tokio::test]
async fn requests_that_wait_are_counted_by_what_comes_of_it() {
    let settings = "[rate_limit]\nglobal = \"2/s\"\nmode = \"wait\"\nmax_wait = \"1100ms\"\n";
    let gateway = TestGateway::with(settings).await.logged_in().await;

    // Two may come at once, and about two more while the others wait.
    let calls = futures_util::future::join_all((0..10).map(|_| gateway.get(USERINFO)));
    let (replies, ()) = tokio::join!(calls, async {
        until("some wait", async || metrics(&gateway).await["amove_gateway_limit_waiting"] > 0.0)
            .await;
    });

    let served = replies.iter().filter(|reply| reply.status == 200).count();
    let refused = replies.iter().filter(|reply| reply.status == 429).count();
    assert_eq!(served + refused, 10);
    // Those who gave up are noticed when it is their turn.
    until("nobody waits", async || metrics(&gateway).await["amove_gateway_limit_waiting"] == 0.0)
        .await;
    let metrics = metrics(&gateway).await;
    let of =
        |result: &str| metrics[&format!("amove_gateway_limit_waits_total{{result=\"{result}\"}}")];
    assert!(of("granted") >= 1.0 && of("in_vain") >= 1.0, "{metrics:?}");
    assert_eq!(of("no_room"), 0.0);
    let over = metrics["amove_gateway_limit_refused_total{scope=\"global\"}"];
    assert_eq!(over, f64::from(u32::try_from(refused).expect("ten at most")));
}

#[tokio::test]
async fn the_metrics_are_what_their_content_type_says() {
    let gateway = TestGateway::without_mfa(&another("a \"b\" \\")).await.logged_in().await;

    let reply = gateway.ask_operator("/metrics").await;

    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(reply.header("content-type"), Some(kind));
    let lines: Vec<_> = text(&reply).lines().collect();
    assert_eq!(lines.iter().filter(|line| **line == "# EOF").count(), 1);
    assert_eq!(lines.last(), Some(&"# EOF"));
    let (mut families, mut samples) = (BTreeSet::new(), BTreeSet::new());
    let mut family = "";
    for line in &lines[..lines.len() - 1] {
        match *line.splitn(4, ' ').collect::<Vec<_>>().as_slice() {
            ["#", "HELP", name, help] => {
                assert!(families.insert(name), "{name} is told once");
                assert!(help.ends_with('.') && !help.ends_with(".."), "{line}");
                family = name;
            }
            ["#", "TYPE", name, kind] => {
                assert_eq!(name, family);
                assert!(matches!(kind, "gauge" | "counter" | "info"), "{line}");
            }
            _ => {
                assert!(line.starts_with(family) && !family.is_empty(), "{line} after {family}");
                let (labels, value) = line.rsplit_once(' ').expect("a value");
                assert!(value.parse::<f64>().is_ok(), "{line}");
                assert!(samples.insert(labels), "{line} is told once");
            }
        }
    }
    assert!(text(&reply).contains(r#"{identity="a \"b\" \\"}"#));
}

#[tokio::test]
async fn no_secret_is_told_to_operators() {
    let settings = "server.admin_token = \"adm1n\"";
    let gateway = TestGateway::without_mfa(settings).await.logged_in().await;
    assert_eq!(gateway.get(USERINFO).await.status, 200);

    let mut said = Vec::new();
    for (method, path) in PROTECTED.into_iter().chain([("GET", "/readyz?verbose"), ("GET", "/x")]) {
        for authorization in ["", "Bearer wr0ng", "Bearer adm1n"] {
            let headers = [("authorization", authorization)];
            said.push(gateway.operate(request(method, path, &headers, "")).await);
        }
    }

    for reply in said {
        let text = format!("{:?} {}", reply.headers, text(&reply));
        for secret in [PASSWORD, TOTP_SECRET, "adm1n", "wr0ng", "eyJ", "rt-"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
}
