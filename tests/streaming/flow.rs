//! No more is taken than somebody takes on, and what is there passes at once.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::process_support::{
    Gateway,
    between::{Between, Peer},
    emulator, soon,
};

const MIB: usize = 1024 * 1024;
const LARGE: usize = 64 * MIB;

fn peak(gateway: &Gateway) -> usize {
    let pid = gateway.process.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

/// Writes zeroes until nobody takes more; how many.
async fn write_until_stuck(peer: &mut Peer) -> usize {
    let (mut written, piece) = (0, vec![0; 64 * 1024]);
    while let Ok(some) = timeout(Duration::from_secs(1), peer.stream.write(&piece)).await {
        written += some.expect("an open connection");
        assert!(written < LARGE, "all of it is taken, and nobody reads");
    }
    written
}

/// Writes the rest of what is large, while the other side reads all of it.
async fn pass_on(from: &mut Peer, to: &mut Peer, stuck: usize) {
    let (rest, mut buffer, mut seen) = (vec![0; LARGE - stuck], vec![0; 64 * 1024], 0);
    let reads = async {
        while seen < LARGE {
            let read = to.stream.read(&mut buffer).await.expect("more");
            assert!(read > 0, "the end after {seen} bytes");
            seen += read;
        }
    };
    let writes = async { from.stream.write_all(&rest).await.expect("somebody who reads") };
    soon("all of it", async { tokio::join!(reads, writes) }).await;
    assert_eq!(seen, LARGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_slows_the_other_down_and_costs_no_memory() {
    let between = Between::start(&[("AMOVE_GATEWAY_SERVER__MAX_BODY_BYTES", "0")]).await;
    let head = format!(
        "POST /api/v1/emulator/sink HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGE}\r\n\r\n"
    );
    let mut caller = between.caller(&head).await;
    let (mut api, _) = between.api().await;
    let before = peak(&between.gateway);

    let stuck = write_until_stuck(&mut caller).await;
    pass_on(&mut caller, &mut api, stuck).await;
    api.say(&format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n")).await;
    let stuck = write_until_stuck(&mut api).await;
    caller.head().await;
    pass_on(&mut api, &mut caller, stuck).await;

    let grown = peak(&between.gateway) - before;
    assert!(grown < 8 * MIB, "{} KiB", grown / 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_there_at_once() {
    let between = Between::start(&[]).await;
    let head = "GET /api/rm HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n";
    let mut caller = between.caller(head).await;
    let (mut api, _) = between.api().await;
    api.say(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    )
    .await;
    // The head alone is there, too.
    let answer = caller.head().await;
    assert!(answer.contains("\r\ncontent-type: text/event-stream\r\n"), "{answer}");
    assert!(answer.contains("\r\ncache-control: no-store\r\n"), "{answer}");

    let mut slowest = Duration::ZERO;
    for number in 0..100 {
        let event = format!("9\r\ndata: {number:02}\n\r\n");
        let begun = Instant::now();
        api.say(&event).await;
        caller.hears(&event).await;
        slowest = slowest.max(begun.elapsed());
    }

    // Whatever waits for more would wait for ever here; this is for what waits for a timer.
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    assert_eq!(between.record("/api/rm", "intent").await["status"], serde_json::Value::Null);
    api.say("0\r\n\r\n").await;
    caller.hears("0\r\n\r\n").await;
    assert_eq!(between.record("/api/rm", "outcome").await["outcome"], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn signalr_falls_back_to_events_and_to_polling() {
    let emulator = emulator(Default::default()).await;
    let gateway = Gateway::ready(&emulator, &[]).await;
    let caller =
        async || Peer { stream: TcpStream::connect(gateway.address).await.expect("a connection") };
    let post = async |target: &str, body: &str| {
        let length = body.len();
        let mut peer = caller().await;
        peer.say(&format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
        .await;
        assert!(peer.head().await.starts_with("HTTP/1.1 200 "));
        peer.rest().await.expect("a whole answer")
    };
    let hello = "{\"protocol\":\"json\",\"version\":1}\u{1e}";
    let negotiate = async || {
        let answer = post("/api/rm/negotiate", "").await;
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        format!("/api/rm?id={}", answer["connectionId"].as_str().expect("an id"))
    };

    let target = negotiate().await;
    let mut events = caller().await;
    events
        .say(&format!("GET {target} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"))
        .await;
    events.head().await;
    post(&target, hello).await;
    events.hears("D\r\ndata: {}\u{1e}\r\n\r\n\r\n").await;

    let target = negotiate().await;
    let poll = async || {
        let mut peer = caller().await;
        peer.say(&format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
        peer.head().await;
        peer.rest().await.expect("a whole answer")
    };
    assert_eq!(poll().await, "");
    post(&target, hello).await;
    assert!(poll().await.contains("{}\u{1e}"));
    let (news, _) = tokio::join!(poll(), post(&target, "{\"type\":6}\u{1e}"));
    assert!(news.contains("{\"type\":6}\u{1e}"), "{news}");
}

/// Hyper leaves it out unless it is told not to.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_of_a_get_goes_up_too() {
    let between = Between::start(&[("AMOVE_GATEWAY_IDENTITIES__MAIN__REPLAY_BUFFER", "4B")]).await;
    let head =
        "GET /api/v1/user/userinfo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let _caller = between.caller(&format!("{head}5\r\nhello\r\n0\r\n\r\n")).await;

    let (mut api, asked) = between.api().await;

    assert_eq!(asked.matches("transfer-encoding: chunked").count(), 1, "{asked}");
    api.hears("5\r\nhello\r\n0\r\n\r\n").await;
}
