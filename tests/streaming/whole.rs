//! Large bodies flow without being kept; slow and idle clients do not hold the gateway up.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use crate::process_support::{Gateway, call, emulator, eventually, get, request, soon};
use amove_gateway::emulator::{Emulator, Fault, Host, Options};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{
    body::Frame,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const MIB: u64 = 1024 * 1024;
const LARGE: u64 = 256 * MIB;
const USERINFO: &str = "/api/v1/user/userinfo";

/// The most memory that the gateway has ever used, in bytes.
fn peak(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.process.pid()))
        .expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

/// Downloads so many bytes; their hash.
async fn download(gateway: &Gateway, bytes: u64) -> blake3::Hash {
    let stream = TcpStream::connect(gateway.address).await.expect("a connection");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let target = format!("/api/v1/emulator/blob?bytes={bytes}");
    let request: Request<Full<Bytes>> = request("GET", &target);
    let mut body = sender.send_request(request).await.expect("an answer").into_body();
    let mut hash = blake3::Hasher::new();
    while let Some(frame) = body.frame().await {
        hash.update(&frame.expect("a whole body").into_data().expect("data"));
    }
    hash.finalize()
}

/// Uploads so many bytes, with their size or in chunks; what the other side says they were.
async fn upload(gateway: &Gateway, bytes: u64, with_length: bool) -> (Value, blake3::Hash) {
    let stream = TcpStream::connect(gateway.address).await.expect("a connection");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let piece = |number: u64| vec![u8::try_from(number % 251).expect("a byte"); 64 * 1024];
    let pieces = bytes / (64 * 1024);
    let mut hash = blake3::Hasher::new();
    for number in 0..pieces {
        hash.update(&piece(number));
    }
    let frames = futures_util::stream::unfold(0, move |number| async move {
        let frame = Frame::data(Bytes::from(piece(number)));
        (number < pieces).then_some((Ok::<_, Infallible>(frame), number + 1))
    });
    let mut request = Request::post("/api/v1/emulator/sink")
        .header("host", "x")
        .body(StreamBody::new(Box::pin(frames)));
    if with_length && let Ok(request) = &mut request {
        request.headers_mut().insert("content-length", bytes.into());
    }
    let answer = sender.send_request(request.expect("a request")).await;
    let answer = answer.expect("an answer").into_body().collect().await.expect("a body");
    (serde_json::from_slice(&answer.to_bytes()).expect("JSON"), hash.finalize())
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_flow_both_ways_in_little_memory() {
    let emulator = emulator(Options::default()).await;
    let settings = [("AMOVE_GATEWAY_SERVER__MAX_BODY_BYTES", "0")];
    let gateway = Gateway::ready(&emulator, &settings).await;
    // The first of everything needs memory for good.
    download(&gateway, MIB).await;
    upload(&gateway, MIB, true).await;
    upload(&gateway, MIB, false).await;
    let before = peak(&gateway);

    let mut expected = blake3::Hasher::new();
    for _ in 0..LARGE / MIB {
        expected.update(&[0; 1024 * 1024]);
    }
    assert_eq!(download(&gateway, LARGE).await, expected.finalize());
    for with_length in [true, false] {
        let (seen, hash) = upload(&gateway, LARGE, with_length).await;
        assert_eq!(seen["bytes"], LARGE, "{seen}");
        assert_eq!(seen["blake3"], hash.to_hex().as_str(), "{seen}");
    }

    let grown = peak(&gateway).saturating_sub(before);
    assert!(grown < 8 * MIB, "{} KiB", grown / 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_beyond_the_limit_is_refused_whether_announced_or_not() {
    let emulator = emulator(Options::default()).await;
    let settings = [("AMOVE_GATEWAY_SERVER__MAX_BODY_BYTES", "64KiB")];
    let gateway = Gateway::ready(&emulator, &settings).await;
    let body = |bytes: usize| {
        let request = Request::post("/api/v1/emulator/sink").header("host", "x");
        request.body(Full::from(vec![0; bytes])).expect("a request")
    };

    let fits = call(gateway.address, body(64 * 1024)).await.expect("an answer");
    assert_eq!(fits.status(), 200);
    let announced = call(gateway.address, body(64 * 1024 + 1)).await.expect("an answer");
    assert_eq!(announced.status(), 413);
    let mut stream = TcpStream::connect(gateway.address).await.expect("a connection");
    let head =
        "POST /api/v1/emulator/sink HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("a head");
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    let _ = stream.write_all((chunk.repeat(3) + "0\r\n\r\n").as_bytes()).await;
    let mut answer = [0; 12];
    soon("an answer", stream.read_exact(&mut answer)).await.expect("an answer");
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 413");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_drips_its_head_is_told_that_it_is_too_slow() {
    let emulator = emulator(Options::default()).await;
    let settings = [("AMOVE_GATEWAY_SERVER__HEADER_TIMEOUT", "500ms")];
    let gateway = Gateway::ready(&emulator, &settings).await;
    let stream = TcpStream::connect(gateway.address).await.expect("a connection");
    let (mut reader, mut writer) = stream.into_split();

    let drips = async {
        writer.write_all(b"GET / HTTP/1.1\r\nx-slow: ").await.expect("a beginning");
        loop {
            let _ = writer.write_all(b"x").await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        _ = soon("an answer", reader.read_to_end(&mut answer)) => {}
        () = drips => {}
    }

    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(get(gateway.address, USERINFO).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_without_a_word() {
    let emulator = emulator(Options::default()).await;
    let settings = [("AMOVE_GATEWAY_SERVER__IDLE_TIMEOUT", "500ms")];
    let gateway = Gateway::ready(&emulator, &settings).await;
    let mut stream = TcpStream::connect(gateway.address).await.expect("a connection");
    let head = format!("GET {USERINFO} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("a request");

    let mut all = Vec::new();
    soon("the end", stream.read_to_end(&mut all)).await.expect("a clean end");

    let all = String::from_utf8_lossy(&all);
    assert!(all.starts_with("HTTP/1.1 200 "), "{all}");
    assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{all}");
}

/// Asks on a connection that stays open; whether an answer began within `patience`.
async fn asks(stream: &mut TcpStream, patience: Duration) -> bool {
    let mut first = [0; 12];
    matches!(timeout(patience, stream.read_exact(&mut first)).await, Ok(Ok(_)))
        && first.starts_with(b"HTTP/1.1 200")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_too_many_waits_until_another_ends() {
    let emulator = emulator(Options::default()).await;
    let settings = [("AMOVE_GATEWAY_SERVER__MAX_CONNECTIONS", "3")];
    let gateway = Gateway::ready(&emulator, &settings).await;
    let mut connections = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(gateway.address).await.expect("a connection");
        let head = format!("GET {USERINFO} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("a request");
        connections.push(stream);
        if connections.len() < 4 {
            let last = connections.last_mut().expect("a connection");
            assert!(asks(last, Duration::from_secs(10)).await, "there is room");
        }
    }
    let mut last = connections.pop().expect("a connection");

    assert!(!asks(&mut last, Duration::from_millis(300)).await, "there is no room");
    connections.remove(0);
    assert!(asks(&mut last, Duration::from_secs(10)).await, "there is room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_by_prior_knowledge_carries_a_hundred_requests_at_once() {
    let emulator = emulator(Options::default()).await;
    let gateway = Gateway::ready(&emulator, &[]).await;
    emulator.inject(Fault::Latency { ms: 500, count: None, host: Some(Host::Main), route: None });
    let stream = TcpStream::connect(gateway.address).await.expect("a connection");
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);

    let begun = Instant::now();
    let answers = join_all((0..100).map(|_| {
        let mut sender = sender.clone();
        async move {
            let request = Request::get(format!("http://gateway.test{USERINFO}"));
            let request = request.body(Full::<Bytes>::default()).expect("a request");
            let answer = sender.send_request(request).await.expect("an answer");
            let (parts, body) = answer.into_parts();
            body.collect().await.expect("a body");
            parts.status
        }
    }));
    let answers = soon("all answers", answers).await;

    assert_eq!(answers, [StatusCode::OK; 100]);
    // One after the other it would be 50 seconds.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// Connections that are open at the emulator's API host.
fn connections(emulator: &Emulator) -> usize {
    let url = emulator.api_url();
    let port: u16 = url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let own = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").expect("a table of connections");
    let is_open = |line: &&str| {
        let columns: Vec<_> = line.split_whitespace().collect();
        columns.get(1).is_some_and(|local| local.ends_with(&own)) && columns.get(3) == Some(&"01")
    };
    table.lines().filter(is_open).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_client_leaves_nothing_is_fetched_for_it_any_more() {
    let emulator = emulator(Options::default()).await;
    let gateway = Gateway::ready(&emulator, &[]).await;
    for (target, fault) in [
        ("/api/v1/emulator/blob?bytes=1000000000000", None),
        (USERINFO, Some(Fault::Stall { count: 1, host: Some(Host::Main), route: None })),
    ] {
        let is_answered = fault.is_none();
        fault.into_iter().for_each(|fault| emulator.inject(fault));
        let mut stream = TcpStream::connect(gateway.address).await.expect("a connection");
        let head = format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("a request");
        if is_answered {
            stream.read_exact(&mut [0; 100_000]).await.expect("some of the answer");
        }
        let is_there = async || emulator.requests().iter().any(|seen| seen.target == target);
        eventually("the request is under way", is_there).await;
        assert_eq!(connections(&emulator), 1, "{target}");

        drop(stream);

        let left = Instant::now();
        eventually("the connection upstream ends", async || connections(&emulator) == 0).await;
        assert!(left.elapsed() < Duration::from_secs(3), "{target}: {:?}", left.elapsed());
    }
    assert_eq!(get(gateway.address, USERINFO).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_seen_to_be_broken() {
    let emulator = emulator(Options::default()).await;
    let gateway = Gateway::ready(&emulator, &[]).await;
    let truncate =
        || emulator.inject(Fault::Truncate { count: 1, host: Some(Host::Main), route: None });

    truncate();
    let broken = call(gateway.address, request("GET", USERINFO)).await;
    assert!(broken.is_err(), "{broken:?}");

    truncate();
    let stream = TcpStream::connect(gateway.address).await.expect("a connection");
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    let ask = || {
        let request = Request::get(format!("http://gateway.test{USERINFO}"));
        request.body(Full::<Bytes>::default()).expect("a request")
    };
    let answer = soon("an answer", sender.send_request(ask())).await.expect("a head");
    assert!(soon("the end", answer.into_body().collect()).await.is_err());
    // Only the stream was broken, not the connection.
    let answer = soon("an answer", sender.send_request(ask())).await.expect("a head");
    assert_eq!(answer.status(), 200);
}
