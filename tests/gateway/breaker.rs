//! A host that keeps failing is left alone, and found again when it is well.

use std::time::Duration;

use amove_gateway::emulator::{Fault, Host};
use futures_util::future::join_all;

use crate::support::{TestGateway, USERINFO, until};

const THREE: &str = "upstream.breaker_failures = 3\nupstream.retry_budget = 0\n";
/// A form that wants a request token, which the gateway puts in.
const FORM: &str = "/api/v1/desktop/resend_confirmation_email";

fn settings(cooldown: &str) -> String {
    format!("{THREE}upstream.breaker_cooldown = \"{cooldown}\"\n")
}

fn failing(status: u16, count: u64, host: Host) -> Fault {
    let body = String::new();
    Fault::Status { status, body, retry_after: None, count, host: Some(host), route: None }
}

/// What `/metrics` says of the circuit to the main host.
async fn metric(gateway: &TestGateway, name: &str) -> f64 {
    let reply = gateway.ask_operator("/metrics").await;
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    let name = format!("amove_gateway_circuit_{name} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok());
    value.unwrap_or_else(|| panic!("{name}: {text}"))
}

async fn state(gateway: &TestGateway) -> String {
    let report = gateway.ask_operator("/readyz?verbose").await;
    assert_eq!(report.status, 200, "whether Amove is well says nothing about the gateway");
    report.json()["circuits"][0]["state"].as_str().expect("a state").to_owned()
}

#[tokio::test]
async fn after_so_many_failures_nothing_more_is_sent() {
    let host = Some(Host::Main);
    let mishaps = [
        (failing(500, 3, Host::Main), 502),
        (failing(503, 3, Host::Main), 503),
        (Fault::Reset { count: 3, acted: false, host, route: None }, 502),
        (Fault::Stall { count: 3, host, route: None }, 504),
    ];
    for mode in ["problem", "passthrough"] {
        for (mishap, status) in &mishaps {
            let settings = settings("1h") + "upstream.response_timeout = \"250ms\"\n";
            let settings = format!("{settings}errors.mode = \"{mode}\"\n");
            let gateway = TestGateway::without_mfa(&settings).await.logged_in().await;
            gateway.amove.inject(mishap.clone());

            for _ in 0..3 {
                assert_eq!(state(&gateway).await, "closed");
                let told = gateway.get(USERINFO).await.status;
                assert!(told == *status || (mode, told) == ("passthrough", 500), "{told}");
            }
            let refused = gateway.get(USERINFO).await;

            assert_eq!(refused.outcome(), (503, "circuit-open".into()), "{mishap:?}");
            let left: u64 = refused.header("retry-after").expect("a time").parse().expect("it");
            assert!((3000..=3600).contains(&left), "{left}");
            let proxy = "amove-gateway; error=destination_unavailable";
            assert_eq!(refused.header("proxy-status"), Some(proxy));
            assert_eq!((gateway.seen().len(), state(&gateway).await), (3, "open".into()));
        }
    }
}

#[tokio::test]
async fn what_is_an_answer_does_not_count() {
    let gateway = TestGateway::with(&settings("1h")).await.logged_in().await;

    for _ in 0..2 {
        gateway.amove.inject(failing(500, 2, Host::Main));
        for _ in 0..2 {
            assert_eq!(gateway.get(USERINFO).await.status, 502);
        }
        gateway.amove.inject(Fault::code("NOT_FOUND", 1));
        assert_eq!(gateway.get(USERINFO).await.status, 404);
    }
    gateway.amove.inject(failing(400, 9, Host::Main));
    for _ in 0..9 {
        assert_eq!(gateway.get(USERINFO).await.status, 400);
    }

    assert_eq!(state(&gateway).await, "closed");
}

#[tokio::test]
async fn one_request_at_a_time_finds_out_and_then_all_goes_on() {
    let gateway = TestGateway::with(&settings("300ms")).await.logged_in().await;
    gateway.amove.inject(failing(500, 4, Host::Main));
    for _ in 0..3 {
        gateway.get(USERINFO).await;
    }
    until("it is time to find out", async || state(&gateway).await == "half_open").await;
    let failed = gateway.get(USERINFO).await;
    assert_eq!((failed.status, state(&gateway).await), (502, "open".into()), "it was not yet well");
    until("it is time again", async || state(&gateway).await == "half_open").await;
    gateway.amove.forget_requests();
    gateway.amove.inject(Fault::latency(Duration::from_millis(300)));

    let replies = join_all((0..10).map(|_| gateway.get(USERINFO))).await;

    let served = replies.iter().filter(|reply| reply.status == 200).count();
    let refused = replies.iter().filter(|reply| reply.status == 503).count();
    assert_eq!((served, refused, gateway.seen().len()), (1, 9, 1));
    assert_eq!(gateway.get(USERINFO).await.status, 200);
    assert_eq!(state(&gateway).await, "closed");
    assert_eq!(metric(&gateway, "opened_total{host=\"api\"}").await, 2.0);
    assert!(metric(&gateway, "refused_total{host=\"api\"}").await >= 9.0);
    assert_eq!(metric(&gateway, "state{host=\"api\",state=\"closed\"}").await, 1.0);
    assert_eq!(metric(&gateway, "state{host=\"api\",state=\"open\"}").await, 0.0);
}

#[tokio::test]
async fn a_probe_whose_caller_leaves_is_followed_by_the_next() {
    let gateway = TestGateway::with(&settings("300ms")).await.logged_in().await;
    gateway.amove.inject(failing(500, 3, Host::Main));
    for _ in 0..3 {
        gateway.get(USERINFO).await;
    }
    until("it is time to find out", async || state(&gateway).await == "half_open").await;
    gateway.amove.inject(Fault::Stall { count: 1, host: Some(Host::Main), route: None });
    let mut wire = gateway.wire().await;
    wire.write(format!("GET {USERINFO} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
    until("the probe is sent", async || gateway.seen().len() == 4).await;
    assert_eq!(gateway.get(USERINFO).await.outcome(), (503, "circuit-open".into()));

    drop(wire);

    until("the next one finds out", async || gateway.get(USERINFO).await.status == 200).await;
}

#[tokio::test]
async fn logins_go_on_and_forms_do_not_while_the_auth_host_fails() {
    let gateway = TestGateway::without_mfa(&settings("1h")).await.logged_in().await;
    gateway.amove.inject(failing(500, 3, Host::Auth));
    for _ in 0..3 {
        let told = gateway.post(FORM, "{\"email\":\"a@b.test\"}").await;
        assert_eq!(told.outcome(), (503, "session-unavailable".into()));
    }

    let refused = gateway.post(FORM, "{\"email\":\"a@b.test\"}").await;
    gateway.amove.revoke_sessions();
    let served = gateway.get(USERINFO).await;

    assert_eq!(refused.outcome(), (503, "circuit-open".into()));
    assert_eq!(served.status, 200, "it logged in, and the other host is well");
    assert_eq!(gateway.amove.stats().logins, 2);
}

#[tokio::test]
async fn it_can_be_switched_off() {
    let settings = "upstream.breaker_failures = 0\nupstream.retry_budget = 0\n";
    let gateway = TestGateway::with(settings).await.logged_in().await;
    gateway.amove.inject(failing(500, 30, Host::Main));

    for _ in 0..30 {
        assert_eq!(gateway.get(USERINFO).await.status, 502);
    }

    assert_eq!(gateway.seen().len(), 30);
}
