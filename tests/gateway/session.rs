//! Our session with Amove: one for everybody, and nobody notices when it ends.

use amove_gateway::emulator::{
    DeadSession, Emulator, Fault, Host, Malformed, Options, Stats, Strings,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{ECHO, Reply, TestGateway, USERINFO, Wire, request, until};

/// An Amove without second factor and with this in its way.
async fn amove_with(faults: impl IntoIterator<Item = Fault>) -> Emulator {
    let amove =
        Emulator::start(Options { mfa: false, ..Options::default() }).await.expect("an emulator");
    faults.into_iter().for_each(|fault| amove.inject(fault));
    amove
}

/// Every call of the auth host takes a while.
fn slow_logins(ms: u64) -> Fault {
    Fault::Latency { ms, count: None, host: Some(Host::Auth), route: None }
}

/// Sends 1,000 requests at once, over both protocols and many connections.
async fn a_thousand_at_once(gateway: &TestGateway) -> Vec<Reply> {
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let mut connection = gateway.connect().await;
        calls.spawn(async move { connection.call(request("GET", USERINFO, &[], "")).await });
    }
    for _ in 0..9 {
        let connection = gateway.connect_http2().await;
        for _ in 0..100 {
            let mut connection = connection.clone();
            calls.spawn(async move { connection.call(request("GET", USERINFO, &[], "")).await });
        }
    }
    calls.join_all().await
}

fn assert_all_served(replies: &[Reply]) {
    assert_eq!(replies.len(), 1000);
    let failed: Vec<_> = replies.iter().filter(|reply| reply.status != 200).collect();
    assert!(failed.is_empty(), "{} failed, first {:?}", failed.len(), failed.first());
}

#[tokio::test]
async fn a_thousand_requests_on_a_cold_gateway_share_one_login() {
    let gateway = TestGateway::in_front_of(amove_with([slow_logins(300)]).await, "").await;

    assert_all_served(&a_thousand_at_once(&gateway).await);

    let stats = gateway.amove.stats();
    assert_eq!((stats.logins, stats.failed_logins, stats.refused_bearers), (1, 0, 0));
}

#[tokio::test]
async fn five_thousand_requests_on_two_hundred_connections_share_one_login_whoever_leaves() {
    let gateway = TestGateway::in_front_of(amove_with([slow_logins(300)]).await, "").await;
    let mut first: Wire = gateway.wire().await;
    first.write(format!("GET {USERINFO} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
    let mut calls = JoinSet::new();
    for _ in 0..200 {
        let mut connection = gateway.connect().await;
        calls.spawn(async move {
            let mut served = 0;
            for _ in 0..25 {
                let reply = connection.call(request("GET", USERINFO, &[], "")).await;
                served += usize::from(reply.status == 200);
            }
            served
        });
    }
    drop(first);

    let served: usize = calls.join_all().await.into_iter().sum();

    assert_eq!(served, 5000);
    let stats = gateway.amove.stats();
    assert_eq!((stats.logins, stats.failed_logins, stats.refused_bearers), (1, 0, 0));
}

#[tokio::test]
async fn a_thousand_requests_with_a_dead_token_share_one_login() {
    let gateway = TestGateway::in_front_of(amove_with([]).await, "").await.logged_in().await;
    gateway.amove.revoke_sessions();
    gateway.amove.inject(slow_logins(100));

    assert_all_served(&a_thousand_at_once(&gateway).await);

    let stats = gateway.amove.stats();
    assert_eq!((stats.logins, stats.failed_logins), (2, 0));
    assert!(stats.refused_bearers >= 1, "{stats:?}");
}

#[tokio::test]
async fn a_caller_that_leaves_takes_nobodys_login_along() {
    let gateway = TestGateway::in_front_of(amove_with([slow_logins(300)]).await, "").await;
    let mut first: Wire = gateway.wire().await;
    first.write(format!("GET {USERINFO} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
    until("a login is under way", async || !gateway.amove.requests().is_empty()).await;

    drop(first);

    assert_eq!(gateway.get(USERINFO).await.status, 200);
    assert_eq!(gateway.amove.stats().logins, 1);
}

#[tokio::test]
async fn a_caller_that_leaves_during_a_renewal_takes_nobodys_login_along() {
    let gateway = TestGateway::in_front_of(amove_with([]).await, "").await.logged_in().await;
    gateway.amove.revoke_sessions();
    gateway.amove.inject(slow_logins(300));
    let mut first: Wire = gateway.wire().await;
    first.write(format!("GET {USERINFO} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
    until("a login is under way", async || {
        gateway.amove.requests().iter().any(|seen| seen.host == Host::Auth)
    })
    .await;

    drop(first);

    assert_eq!(gateway.get(USERINFO).await.status, 200);
    assert_eq!(gateway.amove.stats().logins, 2);
}

#[tokio::test]
async fn however_a_dead_token_is_told_the_request_is_sent_again_with_a_new_one() {
    for denial in
        [DeadSession::Plain, DeadSession::Challenge, DeadSession::Session, DeadSession::Token]
    {
        let options = Options { mfa: false, dead_session: denial, ..Options::default() };
        let gateway = TestGateway::before(options, "").await.logged_in().await;
        gateway.amove.revoke_sessions();

        let reply = gateway.get(USERINFO).await;

        assert_eq!(reply.status, 200, "{denial:?}");
        assert_eq!(gateway.amove.stats().logins, 2, "{denial:?}");
        let seen = gateway.seen();
        let targets: Vec<_> = seen.iter().map(|seen| &*seen.target).collect();
        assert_eq!(targets, [USERINFO, USERINFO], "{denial:?}");
        assert_ne!(seen[0].header("authorization"), seen[1].header("authorization"));
        // The rest of the request is the same, its id included.
        assert_eq!(seen[0].header("x-request-id"), seen[1].header("x-request-id"));
        assert_eq!(seen[1].header("x-request-id"), reply.header("x-request-id"));
    }
}

/// JSON of `bytes` bytes whose content tells where it was cut.
fn json_of(bytes: usize) -> String {
    let frame = json!({ "name": "" }).to_string().len();
    let filling: String =
        (0..).flat_map(|n| format!("{n}é,").chars().collect::<Vec<_>>()).take(bytes).collect();
    let mut text = filling;
    while text.len() > bytes - frame {
        text.pop();
    }
    let pad = "x".repeat(bytes - frame - text.len());
    json!({ "name": text + &pad }).to_string()
}

#[tokio::test]
async fn a_body_is_replayed_byte_for_byte() {
    let gateway = TestGateway::without_mfa("").await.logged_in().await;
    for size in [20, 1000, 64 * 1024] {
        let body = json_of(size);
        assert_eq!(body.len(), size);
        gateway.amove.forget_requests();
        gateway.amove.inject(Fault::Unauthorized { count: 1 });

        let reply = gateway.post("/api/v1/project/insert", body.clone()).await;

        assert_eq!(reply.status, 200, "{reply:?}");
        let sent: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(reply.json()["name"], sent["name"], "the body of {size} bytes is whole");
        let sizes: Vec<_> = gateway.seen().iter().map(|seen| seen.body_length).collect();
        assert_eq!(sizes, [size as u64, size as u64]);
    }
    assert_eq!(gateway.amove.stats().side_effects["POST /api/v1/project/insert"], 3);
}

#[tokio::test]
async fn a_body_that_is_too_large_to_keep_is_not_replayed_and_the_caller_is_told() {
    let gateway = TestGateway::without_mfa("").await.logged_in().await;
    let body = json_of(1024 * 1024);
    gateway.amove.revoke_sessions();

    let refused = gateway.post("/api/v1/project/insert", body.clone()).await;

    assert_eq!(refused.outcome(), (502, "upstream-auth".into()));
    let problem = refused.json();
    assert_eq!(problem["retryable"], true);
    assert!(problem["detail"].as_str().is_some_and(|it| it.contains("too large to keep")));
    assert_eq!(gateway.seen().len(), 1);
    // The new session is there already: the caller's own repetition works.
    assert_eq!(gateway.post("/api/v1/project/insert", body).await.status, 200);
    let stats = gateway.amove.stats();
    assert_eq!((stats.logins, stats.side_effects["POST /api/v1/project/insert"]), (2, 1));
}

#[tokio::test]
async fn what_works_only_once_is_not_replayed() {
    let gateway = TestGateway::without_mfa("").await.logged_in().await;
    let once = [
        ("POST", "/api/v1/desktop/dropbox_authorization_callback"),
        ("POST", "/api/v1/desktop/box_authorization_callback"),
        ("GET", "/api/v1/sso/get_user_usergroups"),
        // Nobody knows what this does.
        ("POST", ECHO),
    ];
    for (logins, (method, path)) in (2..).zip(once) {
        gateway.amove.forget_requests();
        gateway.amove.revoke_sessions();

        let body = if method == "POST" { "{}" } else { "" };
        let reply = gateway.send(method, path, &[], body).await;

        assert_eq!(reply.outcome(), (502, "upstream-auth".into()), "{path}");
        assert_eq!(reply.json()["retryable"], true);
        assert_eq!(gateway.seen().len(), 1, "{path}");
        assert_eq!(gateway.amove.stats().logins, logins);
        // There is a new session now, whatever Amove says to the request itself.
        assert_ne!(gateway.send(method, path, &[], body).await.status, 502, "{path}");
    }
}

#[tokio::test]
async fn consent_that_was_refused_elsewhere_says_nothing_about_our_session() {
    let gateway = TestGateway::start().await.logged_in().await;
    let path = "/api/v1/desktop/onedrive_authorization_callback";

    let reply = gateway.post(path, r#"{"error":"access_denied"}"#).await;

    assert_eq!((reply.status, reply.problem()), (401, None));
    assert_eq!(reply.json()["error"], "access_denied");
    assert_eq!(gateway.the_one_seen().target, path);
    assert_eq!(gateway.amove.stats().logins, 1);
}

#[tokio::test]
async fn a_token_that_is_denied_twice_ends_in_a_problem_after_one_replay() {
    let gateway = TestGateway::without_mfa("").await.logged_in().await;
    gateway.amove.inject(Fault::Unauthorized { count: 2 });

    let reply = gateway.get(USERINFO).await;

    assert_eq!(reply.outcome(), (502, "upstream-auth".into()));
    assert_eq!(gateway.seen().len(), 2);
    assert_eq!(gateway.amove.stats().logins, 2);
    assert_eq!(gateway.get(USERINFO).await.status, 200);
}

#[tokio::test]
async fn a_route_that_denies_every_token_does_not_make_a_login_of_every_call() {
    let options = Options { mfa: false, max_sessions: 100, ..Options::default() };
    let gateway = TestGateway::before(options, "").await.logged_in().await;
    gateway.amove.inject(Fault::Unauthorized { count: 1000 });

    for _ in 0..30 {
        // Once too many fresh tokens were denied, there is none for a while.
        let outcome = gateway.get(USERINFO).await.outcome();
        let denied = (502, "upstream-auth".to_owned());
        let none = (503, "session-unavailable".to_owned());
        assert!(outcome == denied || outcome == none, "{outcome:?}");
    }

    assert!(gateway.seen().len() <= 60, "never more than one replay");
    let stats = gateway.amove.stats();
    assert!(stats.logins <= 7, "{stats:?}");
    // Who was denied so often is not logged out, and calls are served as soon as they can be.
    gateway.amove.clear_faults();
    until("calls are served again", async || gateway.get(USERINFO).await.status == 200).await;
}

#[tokio::test]
async fn a_wrong_password_is_tried_once() {
    let gateway = TestGateway::with("identities.main.password = \"wrong\"").await;

    for _ in 0..20 {
        let reply = gateway.get(USERINFO).await;
        assert_eq!(reply.outcome(), (502, "upstream-auth".into()));
    }

    let stats = gateway.amove.stats();
    assert_eq!((stats.failed_logins, stats.logins), (1, 0));
    assert_eq!(gateway.seen().len(), 0);
    assert_eq!(gateway.ask_operator("/readyz").await.status, 503);
    assert_eq!(gateway.ask_operator("/livez").await.status, 200);
    let status = gateway.ask_operator("/-/status.json").await.json();
    assert_eq!(status["identities"][0]["state"], "latched");
    // Routes that need no session go on working.
    let heartbeat = r#"{"licenseKey":"x","machineId":"y"}"#;
    assert_eq!(gateway.post("/api/v1/fastrLicense/validate", heartbeat).await.status, 200);
}

#[tokio::test]
async fn while_the_auth_host_is_down_callers_are_told_to_come_back() {
    let amove = amove_with([Fault::AuthDown { on: true }]).await;
    let gateway = TestGateway::in_front_of(amove, "").await;

    let reply = gateway.get(USERINFO).await;

    assert_eq!(reply.outcome(), (503, "session-unavailable".into()));
    let pause = reply.header("retry-after").and_then(|it| it.parse::<u64>().ok());
    assert!(pause.is_some_and(|seconds| seconds >= 1), "{reply:?}");
    assert_eq!(gateway.seen().len(), 0);
    assert_eq!(gateway.ask_operator("/readyz").await.status, 503);

    gateway.amove.inject(Fault::AuthDown { on: false });
    until("it recovers by itself", async || gateway.get(USERINFO).await.status == 200).await;
    assert_eq!(gateway.ask_operator("/readyz").await.status, 200);
}

#[tokio::test]
async fn an_auth_host_that_goes_down_does_no_harm_while_the_token_lives() {
    let gateway = TestGateway::start().await.logged_in().await;

    gateway.amove.inject(Fault::AuthDown { on: true });

    for _ in 0..10 {
        assert_eq!(gateway.get(USERINFO).await.status, 200);
    }
}

#[tokio::test]
async fn an_answer_to_a_login_that_makes_no_sense_is_survived() {
    let kinds = [Malformed::Html, Malformed::Empty, Malformed::HalfJson, Malformed::NoToken];
    for kind in kinds {
        let amove = amove_with([Fault::MalformedLogin { kind, count: 1 }]).await;
        let gateway = TestGateway::in_front_of(amove, "").await;

        let reply = gateway.get(USERINFO).await;

        assert_eq!(reply.outcome(), (503, "session-unavailable".into()), "{kind:?}");
        assert!(reply.header("retry-after").is_some());
        until("it recovers by itself", async || gateway.get(USERINFO).await.status == 200).await;
        assert!(gateway.amove.stats().logins <= 2, "{kind:?}");
    }
}

#[tokio::test]
async fn a_challenge_that_nobody_can_meet_is_tried_once() {
    let kind = Malformed::UnknownChallenge;
    let amove = amove_with([Fault::MalformedLogin { kind, count: 1000 }]).await;
    let gateway = TestGateway::in_front_of(amove, "").await;

    for _ in 0..5 {
        assert_eq!(gateway.get(USERINFO).await.outcome(), (502, "upstream-auth".into()));
    }

    assert_eq!(gateway.ask_operator("/readyz").await.status, 503);
    let logins = gateway.amove.requests();
    let logins = logins.iter().filter(|seen| seen.target.ends_with("/login")).count();
    assert_eq!(logins, 1);
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires() {
    let token_ttl = std::time::Duration::from_secs(5);
    let options = Options { mfa: false, token_ttl, ..Options::default() };
    let gateway = TestGateway::before(options, "").await.logged_in().await;

    until("a renewal", async || {
        assert_eq!(gateway.get(USERINFO).await.status, 200);
        gateway.amove.stats().logins >= 2
    })
    .await;

    let stats = gateway.amove.stats();
    assert_eq!((stats.refused_bearers, stats.failed_logins), (0, 0));
}

#[tokio::test]
async fn draining_logs_out() {
    let gateway = TestGateway::start().await.logged_in().await;
    assert_eq!(gateway.amove.stats().live_sessions, 1);

    let amove = gateway.drain().await;

    let Stats { logouts, live_sessions, request_tokens_reused, .. } = amove.stats();
    assert_eq!((logouts, live_sessions, request_tokens_reused), (1, 0, 0));
}

#[tokio::test]
async fn a_token_that_was_denied_is_logged_out_as_well() {
    let gateway = TestGateway::without_mfa("").await.logged_in().await;
    gateway.amove.inject(Fault::Unauthorized { count: 1 });
    assert_eq!(gateway.get(USERINFO).await.status, 200);
    assert_eq!(gateway.amove.stats().live_sessions, 2);

    let amove = gateway.drain().await;

    assert_eq!((amove.stats().logouts, amove.stats().live_sessions), (2, 0));
}

#[tokio::test]
async fn draining_leaves_the_session_alone_where_that_is_wanted() {
    let settings = "identities.main.logout_on_shutdown = false";
    let gateway = TestGateway::with(settings).await.logged_in().await;

    let amove = gateway.drain().await;

    assert_eq!((amove.stats().logouts, amove.stats().live_sessions), (0, 1));
}

#[tokio::test]
async fn a_user_with_too_many_sessions_is_not_ready() {
    let gateway = TestGateway::before(Options { max_sessions: 0, ..Options::default() }, "").await;

    for _ in 0..5 {
        let reply = gateway.get(USERINFO).await;
        assert_eq!(reply.outcome(), (503, "session-unavailable".into()));
        assert!(reply.header("retry-after").is_some());
    }

    assert_eq!(gateway.amove.stats().failed_logins, 1);
    assert_eq!(gateway.ask_operator("/readyz").await.status, 503);
    let status = gateway.ask_operator("/-/status.json").await.json();
    assert_eq!(status["identities"][0]["state"], "quota");
}

#[tokio::test]
async fn an_api_token_of_amove_needs_no_login() {
    let first = TestGateway::start().await.logged_in().await;
    let made = first
        .post(
            "/api/v1/apitoken/insert",
            r#"{"title":"gateway","isEncrypted":false,"expirationDate":"2099-01-01T00:00:00Z"}"#,
        )
        .await
        .json();
    let token = made["token"].as_str().expect("a token").to_owned();
    let amove = first.drain().await;
    amove.forget_requests();

    let settings = format!("identities.main.api_token = \"{token}\"");
    let gateway = TestGateway::in_front_of(amove, &settings).await;

    assert_eq!(gateway.get(USERINFO).await.status, 200);
    assert_eq!(gateway.ask_operator("/readyz").await.status, 200);
    assert_eq!(gateway.the_one_seen().header("authorization"), Some(&*format!("Bearer {token}")));
    assert!(gateway.amove.requests().iter().all(|seen| seen.host == Host::Main));

    // There is no other token to be had: a denial is final.
    gateway.amove.revoke_sessions();
    assert_eq!(gateway.get(USERINFO).await.outcome(), (502, "upstream-auth".into()));
    let amove = gateway.drain().await;
    assert_eq!((amove.stats().logins, amove.stats().logouts), (1, 1));
}

#[tokio::test]
async fn a_second_factor_is_used_where_it_is_asked_for_and_only_there() {
    let with = TestGateway::start().await;
    let without = TestGateway::without_mfa("").await;

    assert_eq!(with.get(USERINFO).await.status, 200);
    assert_eq!(without.get(USERINFO).await.status, 200);

    let counts = |stats: Stats| (stats.logins, stats.mfa_responses, stats.failed_logins);
    assert_eq!(counts(with.amove.stats()), (1, 1, 0));
    assert_eq!(counts(without.amove.stats()), (1, 0, 0));
}

#[tokio::test]
async fn a_second_factor_that_nobody_gave_us_is_not_guessed() {
    let wrong = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
    let gateway = TestGateway::with(&format!("identities.main.totp_secret = \"{wrong}\"")).await;

    // A refused code is tried once more, with the next one; nobody is to wait for that here.
    until("a code was refused", async || gateway.amove.stats().failed_logins == 1).await;

    assert_eq!(gateway.ask_operator("/readyz").await.status, 503);
    assert_eq!(gateway.amove.stats().logins, 0);
}

#[tokio::test]
async fn tokens_that_nobody_can_read_and_strings_without_quotes_work_as_well() {
    let options =
        Options { mfa: false, opaque_tokens: true, strings: Strings::Bare, ..Options::default() };
    let gateway = TestGateway::before(options, "").await.logged_in().await;

    assert_eq!(gateway.get(USERINFO).await.status, 200);
    gateway.amove.revoke_sessions();
    assert_eq!(gateway.get(USERINFO).await.status, 200);
    assert_eq!(gateway.amove.stats().logins, 2);
}

#[tokio::test]
async fn a_clock_that_is_an_hour_off_does_no_harm() {
    for seconds in [3600, -3600] {
        let amove = Emulator::start(Options::default()).await.expect("an emulator");
        amove.inject(Fault::ClockSkew { seconds });
        let gateway = TestGateway::in_front_of(amove, "").await;

        assert_eq!(gateway.get(USERINFO).await.status, 200, "{seconds}");
        let stats = gateway.amove.stats();
        assert_eq!((stats.logins, stats.refused_bearers), (1, 0), "{seconds}");
        assert_eq!(stats.failed_logins, 0, "{seconds}");
    }
}
