//! Bytes both ways: all of them, in order, no more than somebody takes, each direction for itself.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{
    process_support::{call, request, soon},
    support::{Between, Peer},
};

const MIB: usize = 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn each_direction_ends_for_itself_and_the_record_tells_how_much_passed() {
    let between = Between::start(&[]).await;
    let (mut caller, mut api) = between.tunnel().await;
    let intent = between.hub_record("intent").await;
    between.has_tunnels(1).await;

    for number in 0..10 {
        caller.say(&format!("up {number}\0")).await;
        api.hears(&format!("up {number}\0")).await;
        api.say(&format!("down {number}\r\n")).await;
        caller.hears(&format!("down {number}\r\n")).await;
    }
    api.finish().await;
    assert_eq!(caller.rest().await.expect("a clean end"), "");
    caller.say("one more").await;
    api.hears("one more").await;
    caller.finish().await;
    assert_eq!(api.rest().await.expect("a clean end"), "");

    let record = between.hub_record("outcome").await;
    assert_eq!((&record["status"], &record["outcome"]), (&101.into(), &"ok".into()), "{record}");
    assert_eq!((&record["bytes_in"], &record["bytes_out"]), (&58.into(), &80.into()), "{record}");
    assert_eq!((&record["id"], &record["attempts"]), (&intent["id"], &1.into()));
    between.has_tunnels(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_has_said_all_still_hears_the_rest() {
    let between = Between::start(&[]).await;
    let (mut caller, mut api) = between.tunnel().await;

    caller.say("all").await;
    caller.finish().await;
    assert_eq!(api.rest().await.expect("a clean end"), "all");
    for number in 0..10 {
        api.say(&number.to_string()).await;
        caller.hears(&number.to_string()).await;
    }
    drop(api);
    assert_eq!(caller.rest().await.expect("a clean end"), "");

    assert_eq!(between.hub_record("outcome").await["outcome"], "client_closed");
}

/// Writes so many bytes that all differ from their neighbours, until nobody takes more; how many.
async fn write_until_stuck(peer: &mut Peer, most: usize) -> usize {
    let mut written = 0;
    while written < most {
        let piece = bytes(written, (most - written).min(64 * 1024));
        match timeout(Duration::from_secs(1), peer.stream.write(&piece)).await {
            Ok(some) => written += some.expect("an open connection"),
            Err(_) => break,
        }
    }
    written
}

fn bytes(from: usize, number: usize) -> Vec<u8> {
    (from..from + number).map(|at| u8::try_from(at % 251).expect("a byte")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_slows_the_other_down_and_costs_no_memory() {
    let between = Between::start(&[]).await;
    let (mut caller, mut api) = between.tunnel().await;
    let memory = || {
        let pid = between.gateway.process.pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
    };
    let before = memory();
    for downwards in [true, false] {
        let (from, to) = if downwards { (&mut api, &mut caller) } else { (&mut caller, &mut api) };
        let stuck = write_until_stuck(from, 64 * MIB).await;
        assert!(stuck < 64 * MIB, "all of it is taken, and nobody reads");

        let rest = bytes(stuck, 64 * MIB - stuck);
        let (mut seen, mut buffer) = (0, vec![0; 64 * 1024]);
        let reads = async {
            while seen < 64 * MIB {
                let read = to.stream.read(&mut buffer).await.expect("more");
                assert_eq!(buffer[..read], bytes(seen, read), "at {seen}");
                seen += read;
            }
        };
        let writes = async { from.stream.write_all(&rest).await.expect("somebody who reads") };
        soon("all of it", async { tokio::join!(reads, writes) }).await;
    }
    let grown = memory() - before;
    assert!(grown < 4 * MIB, "{} KiB", grown / 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_session_leaves_tunnels_as_they_are() {
    let between = Between::start(&[]).await;
    let (mut caller, mut api) = between.tunnel().await;

    let refreshed = call(between.gateway.admin, request("POST", "/-/token/refresh")).await;
    assert_eq!(refreshed.expect("an answer").status(), 200);
    assert_eq!(between.auth.stats().logins, 2);

    caller.say("still").await;
    api.hears("still").await;
    api.say("here").await;
    caller.hears("here").await;
}
