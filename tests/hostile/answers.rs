//! Answers of the API that are ambiguous, malformed, or not asked for: the caller gets a problem
//! or a connection that breaks, and the next caller its own answer.

use std::time::Duration;

use crate::{
    backend::{Script, What},
    case::PATH,
    target::{Client, Target},
};

/// What the next caller must not be given.
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

/// What the caller must be given.
#[derive(Clone, Copy, Debug)]
enum Seen {
    /// 502, and nothing of what the API said.
    BadGateway,
    /// A beginning, and an end that shows that it is not all.
    Broken,
    /// This body, with 200.
    Whole(&'static str),
    /// One of these statuses.
    Status(&'static [u16]),
}

async fn check_all(cases: Vec<(String, Script, Seen)>) {
    let target = Target::start().await;
    let mut unsafe_ones = Vec::new();
    for (name, script, seen) in &cases {
        if let Err(what) = check(&target, script, *seen).await {
            let shown: String = name.chars().take(300).collect();
            unsafe_ones.push(format!("{shown:?}: {what}"));
        }
    }
    eprintln!("{} answers, {} unsafe", cases.len(), unsafe_ones.len());
    assert!(unsafe_ones.is_empty(), "{}:\n{}", unsafe_ones.len(), unsafe_ones.join("\n"));
}

async fn check(target: &Target, script: &Script, seen: Seen) -> Result<(), String> {
    target.backend.take();
    target.backend.script(script.clone());
    let mut client = Client::to(target.gateway.address).await;
    let request = if script.early {
        // All of it comes only after the answer.
        format!(
            "POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n{}",
            "x".repeat(100_000)
        )
    } else {
        format!("GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n")
    };
    client.write(request.as_bytes()).await;
    let reply = client.reply(false).await;
    let shown = (&reply, String::from_utf8_lossy(&client.bytes).into_owned());
    let as_expected = match (seen, &reply) {
        (Seen::BadGateway, Some(reply)) => {
            reply.status == 502 && reply.head.contains("application/problem+json")
        }
        (Seen::Broken, None) => true,
        (Seen::Whole(body), Some(reply)) => reply.status == 200 && reply.body == body.as_bytes(),
        (Seen::Status(statuses), Some(reply)) => statuses.contains(&reply.status),
        _ => false,
    };
    if !as_expected {
        return Err(format!("the caller sees {shown:?}, not {seen:?}"));
    }
    if let Some(reply) = &reply
        && (reply.head.contains("evil") || reply.body.windows(6).any(|it| it == b"poison"))
    {
        return Err(format!("the caller sees {shown:?}"));
    }
    drop(client);
    for _ in 0..2 {
        target.serves().await?;
    }
    let received = target.backend.take();
    let odd = received.iter().find(|it| matches!(it.what, What::Garbage(_)));
    odd.map_or(Ok(()), |it| Err(format!("the API receives {it:?}")))
}

/// An answer of these bytes, behind which the connection stays open.
fn open(bytes: impl Into<Vec<u8>>) -> Script {
    Script { pieces: vec![(Duration::ZERO, bytes.into())], early: false, closes: false }
}

/// An answer of these bytes, behind which the connection ends.
fn closed(bytes: impl Into<Vec<u8>>) -> Script {
    Script { closes: true, ..open(bytes) }
}

fn ok(rest: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{rest}")
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_ambiguous_or_malformed() {
    let mut cases = Vec::new();
    for head in [
        // Lengths.
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
        "Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "Content-Length: 2, 3\r\n\r\nabc",
        "Content-Length:\r\n\r\nabc",
        "Content-Length: x\r\n\r\nabc",
        "Content-Length: -1\r\n\r\nabc",
        "Content-Length: +2\r\n\r\nab",
        "Content-Length: 0x2\r\n\r\nab",
        "Content-Length: 2 2\r\n\r\nab",
        "Content-Length: 99999999999999999999\r\n\r\nab",
        "Transfer-Encoding: gzip\r\n\r\nabc",
        "Transfer-Encoding: identity\r\n\r\nabc",
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked;a\r\n\r\n0\r\n\r\n",
        // Fields.
        "Content-Length : 0\r\n\r\n",
        "Evil: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        "Evil: a\r\n Content-Length: 5\r\n\r\n",
        " Evil: a\r\nContent-Length: 0\r\n\r\n",
        "Evil: a\0b\r\nContent-Length: 0\r\n\r\n",
        "Evil: a\rb\r\nContent-Length: 0\r\n\r\n",
        "Evil: a\u{7f}\r\nContent-Length: 0\r\n\r\n",
        "Evil: a\u{8}\r\nContent-Length: 0\r\n\r\n",
        "Evil\0: a\r\nContent-Length: 0\r\n\r\n",
        "Evil : a\r\nContent-Length: 0\r\n\r\n",
        "Ev il: a\r\nContent-Length: 0\r\n\r\n",
        ": evil\r\nContent-Length: 0\r\n\r\n",
        "Evil\r\nContent-Length: 0\r\n\r\n",
        "Evil(: a\r\nContent-Length: 0\r\n\r\n",
    ] {
        cases.push((head.into(), open(ok(head)), Seen::BadGateway));
    }
    for answer in [
        "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 +20 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200\0 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1\t200 OK\r\nContent-Length: 0\r\n\r\n",
        " HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
        "http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "ICY 200 OK\r\nContent-Length: 0\r\n\r\n",
        "200 OK\r\nContent-Length: 0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "\0\0\0\0",
        "\u{16}\u{3}\u{1}\0\0",
        "<html>evil</html>\r\n\r\n",
        // Protocols that nobody asked for.
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\u{1}\u{5}evil!",
    ] {
        cases.push((answer.into(), open(answer), Seen::BadGateway));
        cases.push((format!("{answer}, closed"), closed(answer), Seen::BadGateway));
    }
    // What ends before its head does.
    for answer in ["", "H", "HTTP/1.1", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Le"] {
        cases.push((format!("cut: {answer}"), closed(answer), Seen::BadGateway));
    }
    // A line may end with LF alone (RFC 9112, section 2.2): it is read in that one way, and nobody
    // behind us has to.
    for answer in [
        "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        "HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nA: b\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\nhello",
    ] {
        cases.push((answer.into(), open(answer), Seen::Whole("hello")));
        let more = format!("{answer}{POISON}");
        cases.push((more.clone(), open(more), Seen::Whole("hello")));
    }
    // Floods.
    let field = |size: usize| format!("Evil: {}\r\n", "y".repeat(size));
    for (name, bytes) in [
        ("a huge field", ok(&format!("{}Content-Length: 0\r\n\r\n", field(2_000_000)))),
        ("a head that never ends", ok(&field(1000).repeat(2000))),
        ("too many fields", ok(&format!("{}\r\n", "Evil: a\r\n".repeat(1000)))),
        ("a huge reason", format!("HTTP/1.1 200 {}\r\n\r\n", "y".repeat(2_000_000))),
    ] {
        cases.push((name.into(), open(bytes), Seen::BadGateway));
    }
    check_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_break_a_rule() {
    let mut cases = Vec::new();
    for body in [
        "g\r\n",
        "-1\r\na",
        "+1\r\na\r\n0\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "1\r\na0\r\n\r\n",
        "1\r\na\n0\r\n\r\n",
        "1\na\n0\n\n",
        "1;\nevil\r\na\r\n0\r\n\r\n",
        "fffffffffffffffff\r\na",
        "10000000000000001\r\na\r\n0\r\n\r\n",
        "\r\n",
        "\0\r\n",
    ] {
        let answer = ok(&format!("Transfer-Encoding: chunked\r\n\r\n{body}"));
        cases.push((body.into(), open(answer.clone()), Seen::Broken));
        let late = vec![
            (Duration::ZERO, ok("Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n").into_bytes()),
            (Duration::from_millis(5), body.into()),
        ];
        let script = Script { pieces: late, early: false, closes: false };
        cases.push((format!("{body}, later"), script, Seen::Broken));
    }
    for answer in [
        "Content-Length: 10\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y",
    ] {
        cases.push((format!("cut: {answer}"), closed(ok(answer)), Seen::Broken));
    }
    for (answer, body) in [
        ("Content-Length: 5\r\n\r\nhello", "hello"),
        ("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("Transfer-Encoding: Chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n", "hello"),
    ] {
        cases.push((answer.into(), open(ok(answer)), Seen::Whole(body)));
    }
    cases.push(("until the end".into(), closed(ok("\r\nhello")), Seen::Whole("hello")));
    check_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_one_answer() {
    let whole = ok("Content-Length: 5\r\n\r\nhello");
    let chunked = ok("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    let mut cases = Vec::new();
    for (name, answer) in [("a length", &whole), ("chunks", &chunked)] {
        for (what, extra) in [
            ("another answer", POISON),
            ("half an answer", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npoison"),
            ("a head", "HTTP/1.1 200 OK\r\n"),
            ("an empty line", "\r\n"),
            ("bytes", "poison"),
            ("NUL", "\0"),
            ("101", "HTTP/1.1 101 Switching Protocols\r\n\r\n"),
            ("100", "HTTP/1.1 100 Continue\r\n\r\n"),
            ("408", "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"),
        ] {
            let at_once = format!("{answer}{extra}");
            cases.push((
                format!("{what} behind {name}"),
                open(at_once.clone()),
                Seen::Whole("hello"),
            ));
            cases.push((
                format!("{what} behind {name}, and the end"),
                closed(at_once),
                Seen::Whole("hello"),
            ));
        }
    }
    for (answer, status) in [
        ("HTTP/1.1 204 No Content\r\n\r\n", &[204]),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", &[304]),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\n", &[204]),
    ] {
        cases.push((answer.into(), open(answer), Seen::Status(status)));
        for extra in ["poison", POISON] {
            let bytes = format!("{answer}{extra}");
            cases.push((bytes.clone(), open(bytes), Seen::Status(status)));
        }
    }
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </evil>\r\n\r\n";
    cases.push((
        "two interim answers".into(),
        open(format!("{interim}{whole}")),
        Seen::Whole("hello"),
    ));
    cases.push((
        "102".into(),
        open(format!("HTTP/1.1 102 Processing\r\n\r\n{whole}")),
        Seen::Whole("hello"),
    ));
    check_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_come_before_their_request_is_complete() {
    let early = |bytes: &str, closes| Script {
        pieces: vec![(Duration::ZERO, bytes.into())],
        early: true,
        closes,
    };
    let refusal = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nhello";
    let cases = vec![
        ("413".into(), early(refusal, false), Seen::Status(&[413])),
        // Whoever closes with something unread resets the connection, which may overtake the answer.
        ("413, and the end".into(), early(refusal, true), Seen::Status(&[413, 502])),
        ("200".into(), early(&ok("Content-Length: 5\r\n\r\nhello"), false), Seen::Whole("hello")),
        (
            "413 and poison".into(),
            early(&format!("{refusal}{POISON}"), false),
            Seen::Status(&[413]),
        ),
        ("garbage".into(), early("\0\0\0\0", false), Seen::BadGateway),
        ("101".into(), early("HTTP/1.1 101 Switching Protocols\r\n\r\n", false), Seen::BadGateway),
    ];
    check_all(cases).await;
}

/// Interim answers without end are no answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_interim_answers_holds_nobody_up() {
    let target = Target::start().await;
    let interim = "HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n".repeat(1000);
    let pieces = (0..200).map(|_| (Duration::ZERO, interim.clone().into_bytes())).collect();
    target.backend.script(Script { pieces, early: false, closes: true });
    let mut client = Client::to(target.gateway.address).await;
    client.write(format!("GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;

    for _ in 0..20 {
        target.serves().await.expect("others are served meanwhile");
    }

    let reply = client.reply(false).await.expect("an answer");
    assert_eq!(reply.status, 502, "{reply:?}");
}
