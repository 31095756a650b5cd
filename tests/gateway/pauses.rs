//! Amove asks to be left alone, and is.

use std::time::{Duration, Instant};

use amove_gateway::emulator::{self, Fault, Host, PASSWORD};

use crate::support::{Reply, TestGateway, USERINFO, hash_of, until};

const PROJECTS: &str = "/api/v1/project/get_all";
/// A form that wants a request token, which the gateway puts in.
const FORM: &str = "/api/v1/desktop/resend_confirmation_email";

/// The next answer of `host` asks for a pause.
fn asks(status: u16, retry_after: u64, host: Host) -> Fault {
    let (body, retry_after) = (String::new(), Some(retry_after));
    Fault::Status { status, body, retry_after, count: 1, host: Some(host), route: None }
}

/// Two callers, each with a user of its own.
async fn with_two_identities(settings: &str) -> TestGateway {
    let (a, b) = (hash_of("key-a"), hash_of("key-b"));
    let (user, role) = (emulator::USERNAME, emulator::USER_TYPE);
    let settings = format!(
        "[identities.main]\ndefault = true\n\
         [identities.other]\nusername = \"{user}\"\npassword = \"{PASSWORD}\"\nuser_type = {role}\n\
         [callers.a]\napi_key_hash = \"{a}\"\n\
         [callers.b]\napi_key_hash = \"{b}\"\nidentity = \"other\"\n{settings}"
    );
    let gateway = TestGateway::without_mfa(&settings).await.logged_in().await;
    until("both are signed in", async || gateway.amove.stats().logins == 2).await;
    gateway
}

async fn get_as(gateway: &TestGateway, key: &str, path: &str) -> Reply {
    gateway.get_with(path, &[("x-api-key", key)]).await
}

fn seconds_left(reply: &Reply) -> u64 {
    reply.header("retry-after").expect("a time").parse().expect("seconds")
}

/// The value of one line of `/metrics`.
async fn metric(gateway: &TestGateway, name: &str) -> Option<f64> {
    let reply = gateway.ask_operator("/metrics").await;
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok())
}

#[tokio::test]
async fn after_a_429_nothing_more_is_sent_as_that_identity() {
    let gateway = with_two_identities("").await;
    gateway.amove.inject(asks(429, 30, Host::Main));

    let told = get_as(&gateway, "key-a", USERINFO).await;
    let held: Vec<_> = [
        get_as(&gateway, "key-a", USERINFO).await,
        get_as(&gateway, "key-a", PROJECTS).await,
        gateway.send("POST", PROJECTS, &[("x-api-key", "key-a")], "{}").await,
    ]
    .into();
    let other = get_as(&gateway, "key-b", USERINFO).await;

    // The answer itself goes to its caller as it came.
    assert_eq!(
        (told.outcome(), told.header("retry-after")),
        ((429, "no problem".into()), Some("30"))
    );
    for reply in &held {
        assert_eq!(reply.outcome(), (429, "quota-exceeded".into()));
        assert!((20..=30).contains(&seconds_left(reply)), "{reply:?}");
        assert_eq!(reply.header("proxy-status"), Some("amove-gateway; error=http_request_denied"));
        let detail = reply.json()["detail"].to_string();
        assert!(detail.contains("Amove has asked"), "{detail}");
    }
    assert_eq!(other.status, 200);
    assert_eq!(gateway.seen().len(), 2);
}

#[tokio::test]
async fn after_a_503_nothing_is_sent_to_that_host() {
    for mode in ["problem", "passthrough"] {
        let gateway = with_two_identities(&format!("[errors]\nmode = \"{mode}\"\n")).await;
        gateway.amove.inject(asks(503, 30, Host::Main));

        let told = get_as(&gateway, "key-a", USERINFO).await;
        let held =
            [get_as(&gateway, "key-a", USERINFO).await, get_as(&gateway, "key-b", PROJECTS).await];

        assert_eq!((told.status, told.header("retry-after")), (503, Some("30")), "{mode}");
        for reply in &held {
            assert_eq!(reply.outcome(), (503, "upstream-paused".into()), "{mode}");
            assert!((20..=30).contains(&seconds_left(reply)), "{reply:?}");
            let status = "amove-gateway; error=destination_unavailable";
            assert_eq!(reply.header("proxy-status"), Some(status));
        }
        assert_eq!(gateway.seen().len(), 1, "{mode}");
    }
}

#[tokio::test]
async fn when_the_pause_is_over_all_goes_on() {
    let gateway = TestGateway::start().await.logged_in().await;
    gateway.amove.inject(asks(503, 1, Host::Main));
    let begin = Instant::now();
    assert_eq!(gateway.get(USERINFO).await.status, 503);

    until("it goes on", async || gateway.get(USERINFO).await.status == 200).await;

    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert_eq!(gateway.seen().len(), 2, "nothing was sent in between");
}

#[tokio::test]
async fn what_asks_for_nothing_stops_nobody() {
    let gateway = TestGateway::start().await.logged_in().await;
    let answer = |head: &str| Fault::Raw {
        text: format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\n\r\n"),
        count: 1,
        host: Some(Host::Main),
        route: None,
    };
    for (head, status) in [
        ("429 Too Many Requests", 429),
        ("429 Too Many Requests\r\nretry-after: 0", 429),
        ("429 Too Many Requests\r\nretry-after: soon", 429),
        ("429 Too Many Requests\r\nretry-after: -30", 429),
        ("503 Service Unavailable\r\nretry-after: Mon, 01 Jan 2001 00:00:00 GMT", 503),
        ("503 Service Unavailable\r\nretry-after: 30, 40", 503),
        ("502 Bad Gateway\r\nretry-after: 30", 502),
        ("200 OK\r\nretry-after: 30", 200),
    ] {
        gateway.amove.inject(answer(head));

        assert_eq!(gateway.get(USERINFO).await.status, status, "{head}");
        assert_eq!(gateway.get(USERINFO).await.status, 200, "after {head}");
    }
}

#[tokio::test]
async fn a_date_says_it_too_by_amoves_own_clock() {
    let gateway = TestGateway::start().await.logged_in().await;
    gateway.amove.inject(Fault::raw(
        "HTTP/1.1 503 Service Unavailable\r\ndate: Mon, 01 Jan 2001 00:00:00 GMT\r\n\
         retry-after: Mon, 01 Jan 2001 00:00:40 GMT\r\ncontent-length: 0\r\n\r\n",
    ));

    assert_eq!(gateway.get(USERINFO).await.status, 503);
    let held = gateway.get(USERINFO).await;

    assert_eq!(held.outcome(), (503, "upstream-paused".into()));
    assert!((30..=40).contains(&seconds_left(&held)), "{held:?}");
}

#[tokio::test]
async fn who_asks_for_a_day_is_believed_for_a_minute() {
    let gateway = TestGateway::start().await.logged_in().await;
    gateway.amove.inject(asks(429, 86_400, Host::Main));

    assert_eq!(gateway.get(USERINFO).await.header("retry-after"), Some("86400"));
    let left = seconds_left(&gateway.get(USERINFO).await);

    assert!((45..=60).contains(&left), "{left}");
}

#[tokio::test]
async fn who_may_wait_waits_for_the_end_of_the_pause() {
    let settings = "rate_limit.mode = \"wait\"\nrate_limit.max_wait = \"10s\"";
    let gateway = TestGateway::with(settings).await.logged_in().await;
    gateway.amove.inject(asks(503, 3, Host::Main));
    let begin = Instant::now();
    assert_eq!(gateway.get(USERINFO).await.status, 503);

    let waiting = futures_util::future::join_all((0..20).map(|_| gateway.get(USERINFO)));
    let (replies, ()) = tokio::join!(waiting, async {
        let waiting = "amove_gateway_pause_waiting";
        until("some wait", async || metric(&gateway, waiting).await > Some(0.0)).await;
    });

    assert!(replies.iter().all(|reply| reply.status == 200), "{replies:?}");
    assert!(begin.elapsed() >= Duration::from_secs(3), "{:?}", begin.elapsed());
    assert_eq!(gateway.seen().len(), 21);
    let waited =
        "amove_gateway_pause_requests_total{host=\"api\",reason=\"unavailable\",result=\"waited\"}";
    assert_eq!(metric(&gateway, waited).await, Some(20.0));
    assert_eq!(metric(&gateway, "amove_gateway_pause_waiting").await, Some(0.0));
}

#[tokio::test]
async fn a_pause_longer_than_the_patience_is_not_waited_for() {
    let settings = "rate_limit.mode = \"wait\"\nrate_limit.max_wait = \"2s\"";
    let gateway = TestGateway::with(settings).await.logged_in().await;
    gateway.amove.inject(asks(503, 30, Host::Main));
    assert_eq!(gateway.get(USERINFO).await.status, 503);

    let held = gateway.get(USERINFO).await;

    assert_eq!(held.outcome(), (503, "upstream-paused".into()));
    assert!(seconds_left(&held) > 20, "{held:?}");
}

#[tokio::test]
async fn request_tokens_are_not_asked_for_during_a_pause_of_the_auth_host() {
    let gateway = TestGateway::start().await.logged_in().await;
    gateway.amove.inject(asks(503, 30, Host::Auth));

    let told = gateway.post(FORM, "{\"email\":\"a@b.test\"}").await;
    let held = gateway.post(FORM, "{\"email\":\"a@b.test\"}").await;

    assert_eq!((told.outcome(), seconds_left(&told)), ((503, "session-unavailable".into()), 30));
    assert_eq!(held.outcome(), (503, "upstream-paused".into()));
    let asked = gateway.amove.requests().into_iter().filter(|seen| seen.host == Host::Auth);
    assert_eq!(asked.count(), 1);
    assert_eq!(gateway.get(USERINFO).await.status, 200, "the other host is well");
}

#[tokio::test]
async fn pauses_and_what_they_held_back_are_counted() {
    let gateway = TestGateway::start().await.logged_in().await;
    gateway.amove.inject(asks(429, 30, Host::Main));

    for _ in 0..4 {
        assert_eq!(gateway.get(USERINFO).await.status, 429);
    }

    for (name, value) in [
        ("amove_gateway_pauses_total{host=\"api\",reason=\"quota\"}", 1.0),
        ("amove_gateway_pauses_total{host=\"api\",reason=\"unavailable\"}", 0.0),
        ("amove_gateway_pauses_total{host=\"auth\",reason=\"quota\"}", 0.0),
        (
            "amove_gateway_pause_requests_total{host=\"api\",reason=\"quota\",result=\"refused\"}",
            3.0,
        ),
        (
            "amove_gateway_pause_requests_total{host=\"api\",reason=\"quota\",result=\"waited\"}",
            0.0,
        ),
    ] {
        assert_eq!(metric(&gateway, name).await, Some(value), "{name}");
    }
}
