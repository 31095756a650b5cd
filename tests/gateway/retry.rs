//! What nobody answered is sent once more, where that is safe.

use amove_gateway::emulator::{Fault, Host};
use futures_util::future::join_all;

use crate::support::{TestGateway, USERINFO, until};

const LIST: &str = "/api/v1/desktop/list_objects";
const INSERT: &str = "/api/v1/project/insert";

fn resets(count: u64, acted: bool) -> Fault {
    Fault::Reset { count, acted, host: Some(Host::Main), route: None }
}

/// How often the last request was sent, by its record.
async fn attempts(gateway: &TestGateway) -> u64 {
    let mut attempts = None;
    until("there is a record", async || {
        let reply = gateway.ask_operator("/-/audit?limit=1").await;
        attempts = reply.json()["records"][0]["attempts"].as_u64();
        attempts.is_some_and(|attempts| attempts > 0)
    })
    .await;
    attempts.expect("a record")
}

async fn metric(gateway: &TestGateway, result: &str) -> f64 {
    let reply = gateway.ask_operator("/metrics").await;
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    let name = format!("amove_gateway_retries_total{{result=\"{result}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok());
    value.unwrap_or_else(|| panic!("{name}: {text}"))
}

#[tokio::test]
async fn a_read_whose_connection_is_reset_is_sent_again_body_and_all() {
    let gateway = TestGateway::without_mfa("").await.logged_in().await;

    gateway.amove.inject(resets(2, false));
    let read = gateway.get(USERINFO).await;
    assert_eq!((read.status, attempts(&gateway).await), (200, 3));
    gateway.amove.forget_requests();
    gateway.amove.inject(resets(1, true));
    let listed = gateway.post(LIST, "{\"bucket\":\"b\"}").await;

    let seen = gateway.seen();
    assert_eq!((seen.len(), &seen[0].body), (2, &seen[1].body), "{listed:?}");
    assert!(listed.status != 502, "{listed:?}");
    assert_eq!(metric(&gateway, "answered").await, 2.0);
    assert_eq!(metric(&gateway, "in_vain").await, 1.0);
}

#[tokio::test]
async fn what_is_not_answered_three_times_is_told() {
    let gateway = TestGateway::without_mfa("").await.logged_in().await;
    gateway.amove.inject(resets(3, false));

    let told = gateway.get(USERINFO).await;

    assert_eq!(told.outcome(), (502, "upstream-unreachable".into()));
    assert_eq!((gateway.seen().len(), attempts(&gateway).await), (3, 3));
}

#[tokio::test]
async fn a_write_is_sent_once_whether_it_took_effect_or_not() {
    let gateway = TestGateway::without_mfa("").await.logged_in().await;
    for acted in [true, false] {
        gateway.amove.forget_requests();
        gateway.amove.inject(resets(1, acted));

        let told = gateway.post(INSERT, "{\"name\":\"n\"}").await;

        assert_eq!(told.outcome(), (502, "upstream-unreachable".into()));
        assert_eq!(gateway.seen().len(), 1);
    }
}

#[tokio::test]
async fn an_answer_is_not_asked_for_again() {
    let gateway = TestGateway::without_mfa("").await.logged_in().await;
    for status in [502, 503, 504] {
        gateway.amove.forget_requests();
        gateway.amove.inject(Fault::status(status, 1));

        assert_eq!(gateway.get(USERINFO).await.status, status);
        assert_eq!(gateway.seen().len(), 1);
    }
}

#[tokio::test]
async fn repeats_are_few_where_everything_fails() {
    let settings = "upstream.breaker_failures = 0";
    let gateway = TestGateway::without_mfa(settings).await.logged_in().await;
    gateway.amove.inject(resets(10_000, false));

    join_all((0..100).map(|_| gateway.get(USERINFO))).await;

    // One in ten, and one a second (of ten): a busy machine may take another window for it.
    let sent = gateway.seen().len();
    assert!((110..=140).contains(&sent), "{sent}");
    assert!(metric(&gateway, "over_budget").await > 0.0);
}

#[tokio::test]
async fn it_can_be_switched_off() {
    let settings = "upstream.retry_budget = 0";
    let gateway = TestGateway::without_mfa(settings).await.logged_in().await;
    gateway.amove.inject(resets(1, false));

    assert_eq!(gateway.get(USERINFO).await.status, 502);
    assert_eq!(gateway.seen().len(), 1);
}
