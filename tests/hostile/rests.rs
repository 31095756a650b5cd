//! Connections that have given their buffers back, as nothing was asked for a while.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    case::PATH,
    target::{Client, Target},
};

/// Longer than a connection keeps its buffers.
const RESTS: Duration = Duration::from_millis(900);

async fn check(client: &mut Client, target: &Target, pieces: usize) {
    let (request, token) = target.honest();
    for piece in request.as_bytes().chunks(request.len().div_ceil(pieces)) {
        client.write(piece).await;
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(client.reply(false).await.expect("an answer").body, token.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_has_rested_goes_on() {
    let target = Target::start().await;
    let mut client = Client::to(target.gateway.address).await;
    check(&mut client, &target, 1).await;

    for pieces in [1, 10] {
        sleep(RESTS).await;
        check(&mut client, &target, pieces).await;
        check(&mut client, &target, pieces).await;
    }
    sleep(RESTS).await;
    let (one, first) = target.honest();
    let (two, second) = target.honest();
    let body = format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
    client.write(format!("{one}{body}{two}").as_bytes()).await;

    assert_eq!(client.reply(false).await.expect("an answer").body, first.as_bytes());
    assert_eq!(client.reply(false).await.expect("an answer").status, 200);
    assert_eq!(client.reply(false).await.expect("an answer").body, second.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_has_rested_is_guarded() {
    let target = Target::with(&[("AMOVE_GATEWAY_SERVER__HEADER_TIMEOUT", "1s")]).await;
    for (bytes, status) in
        [("GET / HTTP/1.1\r\nHost: x\r\nA b: c\r\n\r\n", 400), ("GET / HTTP/1.1\r\nA:", 408)]
    {
        let mut client = Client::to(target.gateway.address).await;
        check(&mut client, &target, 1).await;
        sleep(RESTS).await;

        client.write(bytes.as_bytes()).await;

        assert_eq!(client.reply(false).await.expect("an answer").status, status, "{bytes:?}");
        assert!(client.ends().await, "{bytes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_has_rested_ends_when_it_must() {
    let target = Target::with(&[("AMOVE_GATEWAY_SERVER__IDLE_TIMEOUT", "2s")]).await;
    let mut client = Client::to(target.gateway.address).await;
    check(&mut client, &target, 1).await;
    assert!(client.ends().await, "nothing was asked for too long");

    let mut client = Client::to(target.gateway.address).await;
    check(&mut client, &target, 1).await;
    sleep(RESTS).await;
    target.gateway.process.signal("TERM");
    assert!(client.ends().await, "the gateway ends");
}
