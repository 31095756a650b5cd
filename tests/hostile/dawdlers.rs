//! Clients that begin something and do not go on with it.

use std::time::{Duration, Instant};

use crate::{
    case::PATH,
    frames::{Raw, request},
    process_support::eventually,
    target::{Client, Target},
};

const LARGE: &str = "/api/v1/hostile/case?blob=100000000";

/// A gateway that has little patience, and few connections to the API.
async fn impatient() -> Target {
    Target::with(&[
        ("AMOVE_GATEWAY_SERVER__IDLE_TIMEOUT", "1s"),
        ("AMOVE_GATEWAY_SERVER__HEADER_TIMEOUT", "1s"),
        ("AMOVE_GATEWAY_UPSTREAM__RESPONSE_TIMEOUT", "500ms"),
        ("AMOVE_GATEWAY_UPSTREAM__MAX_CONNECTIONS", "8"),
        ("AMOVE_GATEWAY_UPSTREAM__MAX_WAIT", "200ms"),
    ])
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let target = impatient().await;
    for method in ["GET", "POST"] {
        for field in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
            let mut client = Client::to(target.gateway.address).await;
            let head = format!("{method} {PATH} HTTP/1.1\r\nHost: x\r\n{field}\r\n\r\n");
            client.write(head.as_bytes()).await;

            let reply = client.reply(false).await.expect("an answer");

            let is_timeout = matches!(reply.status, 408 | 504);
            assert!(is_timeout, "{method} with {field}: {reply:?}");
            assert!(client.ends().await, "{method} with {field}");
        }
    }
    target.serves().await.expect("others are served");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_takes_give_their_connections_back() {
    let target = impatient().await;
    let mut http1 = Vec::new();
    for _ in 0..8 {
        let mut client = Client::to(target.gateway.address).await;
        client.write(format!("GET {LARGE} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
        http1.push(client);
    }
    eventually("none is left for others", async || target.serves().await.is_err()).await;
    eventually("they are given back", async || target.serves().await.is_ok()).await;
    drop(http1);

    let mut http2 = Raw::to(target.gateway.address, &[(4, 0)]).await;
    let requests: Vec<u8> = (0..8).flat_map(|at| request(2 * at + 1, LARGE)).collect();
    http2.write(&requests).await;
    eventually("none is left for others", async || target.serves().await.is_err()).await;
    eventually("they are given back", async || target.serves().await.is_ok()).await;
}

/// Whoever takes a little now and then is not sent away.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_gets_its_answer() {
    let target = impatient().await;
    let mut client = Client::to(target.gateway.address).await;
    let path = "/api/v1/hostile/case?blob=12000000";
    client.write(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
    let begun = Instant::now();

    let received = client.takes_slowly(12_000_000, 1_000_000, Duration::from_millis(250)).await;

    assert_eq!(received, 12_000_000, "after {:?}", begun.elapsed());
    assert!(begun.elapsed() > Duration::from_secs(2), "slower than the gateway is patient");
}
