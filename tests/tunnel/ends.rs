//! How tunnels end, and what they hold until then.

use std::time::{Duration, Instant};

use tokio::{io::AsyncReadExt, time::sleep};

use crate::{
    process_support::get,
    support::{Between, MOMENT},
};

/// A second, and what a busy machine adds to it.
const PROMPT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn who_breaks_off_takes_the_other_along() {
    let between = Between::start(&[]).await;
    let (caller, mut api) = between.tunnel().await;
    let begun = Instant::now();
    caller.reset();
    drop(api.rest().await);
    assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
    assert_eq!(between.hub_record("outcome").await["outcome"], "client_closed");

    let between = Between::start(&[]).await;
    let (mut caller, mut api) = between.tunnel().await;
    api.say("half a mess").await;
    caller.hears("half a mess").await;
    let begun = Instant::now();
    api.reset();
    drop(caller.rest().await);
    assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
    assert_eq!(between.hub_record("outcome").await["outcome"], "failed");
    between.has_tunnels(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_leaves_before_the_switch_is_not_switched() {
    let between = Between::start(&[]).await;
    let caller = between.caller(&format!("{}\r\n", crate::support::ASK)).await;
    let (mut api, _) = between.api().await;

    drop(caller);

    assert_eq!(api.rest().await.expect("a clean end"), "");
    let record = between.hub_record("outcome").await;
    assert_eq!((&record["outcome"], record["status"].as_u64()), (&"client_closed".into(), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_is_under_way_until_it_ends() {
    let between = Between::start(&[("AMOVE_GATEWAY_CALLERS__LOCAL__MAX_CONCURRENT", "1")]).await;
    let (mut caller, mut api) = between.tunnel().await;

    let another = get(between.gateway.address, "/api/v1/user/userinfo").await;
    assert_eq!(another.status(), 429);

    api.finish().await;
    caller.rest().await.expect("a clean end");
    drop(caller);
    between.hub_record("outcome").await;
    let asks = get(between.gateway.address, "/api/v1/user/userinfo");
    let answers = async {
        let (mut api, _) = between.api().await;
        api.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    };
    let (answer, ()) = tokio::join!(asks, answers);
    assert_eq!(answer.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_counts_as_a_connection_to_the_api() {
    let between = Between::start(&[
        ("AMOVE_GATEWAY_SERVER__WORKERS", "1"),
        ("AMOVE_GATEWAY_UPSTREAM__MAX_CONNECTIONS", "1"),
        ("AMOVE_GATEWAY_UPSTREAM__CONNECT_TIMEOUT", "300ms"),
    ])
    .await;
    let (caller, api) = between.tunnel().await;

    let another = get(between.gateway.address, "/api/v1/user/userinfo").await;

    assert_eq!(another.status(), 503);
    drop((caller, api));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_may_be_used_until_the_drain_has_run_out_of_time() {
    let mut between = Between::start(&[("AMOVE_GATEWAY_SERVER__DRAIN_TIMEOUT", "2s")]).await;
    let (mut caller, mut api) = between.tunnel().await;
    let begun = Instant::now();

    between.gateway.process.signal("TERM");
    sleep(MOMENT).await;
    caller.say("still").await;
    api.hears("still").await;
    assert_eq!(caller.rest().await.expect("a clean end"), "");
    assert_eq!(api.rest().await.expect("a clean end"), "");

    assert!(begun.elapsed() > Duration::from_millis(1900), "{:?}", begun.elapsed());
    assert_eq!(between.gateway.process.exit_code().await, Some(0));
    assert!(!between.gateway.process.stderr().contains("connections were cut"));
    let record = between.hub_record("outcome").await;
    assert_eq!((&record["outcome"], &record["bytes_in"]), (&"ok".into(), &5.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_in_which_nobody_says_anything_is_closed() {
    let between = Between::start(&[("AMOVE_GATEWAY_SERVER__IDLE_TIMEOUT", "2s")]).await;
    let (mut caller, mut api) = between.tunnel().await;
    let begun = Instant::now();

    // Whoever says it: it is the other direction's, too.
    while begun.elapsed() < Duration::from_secs(5) {
        api.say(".").await;
        caller.hears(".").await;
        sleep(Duration::from_millis(100)).await;
    }
    let begun = Instant::now();
    assert!(caller.stream.read_u8().await.is_err());
    assert_eq!(api.rest().await.expect("a clean end"), "");

    assert!(begun.elapsed() > Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(between.hub_record("outcome").await["outcome"], "ok");
}
