//! Requests behind requests, other protocols behind requests, and what is too large.

use crate::{
    case::{Case, PATH, SMUGGLED, check_all},
    target::{Client, Target},
};

fn get(fields: &str) -> String {
    format!("GET {PATH} HTTP/1.1\r\nHost: x\r\n{fields}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn one_behind_the_other() {
    let good = get("");
    let bad = get("A : b\r\n");
    let post = format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    let chunked = format!(
        "POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    );
    let (one, with_body) = (("GET", PATH, ""), ("POST", PATH, "hello"));
    let close = get("Connection: close\r\n");
    let cases = vec![
        Case::pipelined("two good ones", good.repeat(2), &[one, one]),
        Case::pipelined("ten good ones", good.repeat(10), &[one; 10]),
        Case::pipelined(
            "behind a length",
            format!("{post}{good}{post}"),
            &[with_body, one, with_body],
        ),
        Case::pipelined(
            "behind chunks",
            format!("{chunked}{good}{chunked}"),
            &[with_body, one, with_body],
        ),
        Case::pipelined("behind an empty line", format!("{good}\r\n{good}"), &[one, one]),
        Case::pipelined(
            "behind an empty line and a body",
            format!("{post}\r\n{good}"),
            &[with_body, one],
        ),
        Case::refused("good behind bad", format!("{bad}{good}")),
        Case::refused_after(1, "bad behind good", format!("{good}{bad}")),
        Case::refused_after(2, "bad in the middle", format!("{good}{post}{bad}{good}")),
        Case::refused_after(1, "two empty lines behind good", format!("{good}\r\n\r\n{good}")),
        Case::refused_after(1, "a bare LF behind good", format!("{good}\n{good}")),
        Case::refused_after(1, "more than its length", post.replace("hello", "hello, world")),
        Case::refused_after(1, "more than its chunks", format!("{chunked}@")),
        Case::refused_after(1, "NUL behind good", format!("{good}\0")),
        Case::refused_after(
            1,
            "a preface behind good",
            format!("{good}PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ),
        Case::refused_after(1, "TLS behind good", format!("{good}\u{16}\u{3}\u{1}\0\r\n")),
        Case::refused_after(
            1,
            "two lengths behind good",
            format!("{good}{}", get("Content-Length: 1\r\nContent-Length: 2\r\n")),
        ),
        Case::forwarded("behind the last one", format!("{close}{SMUGGLED}"), one).and_ends(),
        Case::forwarded("nonsense behind the last one", format!("{close}\0\0\0"), one).and_ends(),
    ];
    check_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_protocols() {
    let mut cases = Vec::new();
    for (fields, more) in [
        (
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
            "",
        ),
        ("Connection: Upgrade\r\nUpgrade: h2c\r\n", ""),
        (
            "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            "",
        ),
        ("Connection: upgrade\r\nUpgrade: TLS/1.2\r\n", ""),
        ("Connection: upgrade\r\nUpgrade: h2c, websocket\r\n", ""),
        ("Connection: upgrade\r\nUpgrade: \r\n", ""),
        ("Upgrade: h2c\r\n", ""),
        ("Upgrade: websocket\r\nContent-Length: 5\r\nConnection: upgrade\r\n", "hello"),
    ] {
        let bytes = format!("{}{more}", get(fields));
        cases.push(Case::forwarded(fields, bytes, ("GET", PATH, more)));
    }
    // Nothing that follows a request for another protocol is in that protocol.
    let h2c = get("Connection: Upgrade\r\nUpgrade: h2c\r\n");
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0";
    cases.push(Case::refused_after(1, "the preface behind h2c", format!("{h2c}{preface}")));
    cases.push(Case::refused_after(
        1,
        "a frame behind websocket",
        format!("{}\u{1}\u{5}hello", get("Connection: upgrade\r\nUpgrade: websocket\r\n")),
    ));
    cases.push(Case::pipelined(
        "a request behind h2c",
        format!("{h2c}{}", get("")),
        &[("GET", PATH, ""); 2],
    ));
    check_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large() {
    let long = |size| "y".repeat(size);
    let fields = |count: usize| (0..count).map(|it| format!("A{it}: b\r\n")).collect::<String>();
    let line = |target: String| format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
    let cases = vec![
        Case::refused_with(&[431], "one large field", get(&format!("A: {}\r\n", long(40_000)))),
        Case::refused_with(&[431], "one endless field", get(&format!("A: {}\r\n", long(600_000)))),
        Case::refused_with(&[431], "one large name", get(&format!("{}: a\r\n", long(40_000)))),
        Case::refused_with(
            &[431],
            "a field that never ends",
            format!("GET {PATH} HTTP/1.1\r\nA: {}", long(100_000)),
        ),
        Case::refused_with(&[431], "many fields", get(&fields(200))),
        Case::refused_with(&[431], "very many fields", get(&fields(20_000))),
        Case::refused_with(
            &[431],
            "many large fields",
            get(&format!("A: {}\r\n", long(1000)).repeat(50)),
        ),
        Case::refused_with(&[414], "a long path", line(format!("/{}", long(10_000)))),
        Case::refused_with(&[414], "a long query", line(format!("{PATH}?{}", long(10_000)))),
        Case::refused_with(&[414], "a long URL", line(format!("http://x/{}", long(10_000)))),
        Case::refused_with(
            &[400, 414],
            "a long method",
            format!("{} {PATH} HTTP/1.1\r\nHost: x\r\n\r\n", "M".repeat(10_000)),
        ),
        Case::refused_with(
            &[400, 414],
            "a long version",
            format!("GET {PATH} HTTP/1.1{}\r\nHost: x\r\n\r\n", "1".repeat(10_000)),
        ),
        Case::forwarded("a fair number of fields", get(&fields(90)), ("GET", PATH, "")),
        Case::forwarded(
            "a fairly large field",
            get(&format!("A: {}\r\n", long(20_000))),
            ("GET", PATH, ""),
        ),
    ];
    check_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_the_api_is_used_again_after_an_answer_without_a_body() {
    let target = Target::start().await;
    let mut client = Client::to(target.gateway.address).await;
    for _ in 0..10 {
        client.write(format!("HEAD {PATH} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
        assert_eq!(client.reply(true).await.expect("an answer").status, 200);
    }

    let received = target.backend.take();

    assert_eq!(received.len(), 10);
    assert!(received.iter().all(|it| it.connection == received[0].connection), "{received:?}");
}
