//! Requests of HTTP/2 that become other requests when they are written down in HTTP/1.1.

use crate::{
    case::{PATH, SMUGGLED, dishonest, is_clean},
    frames::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Raw, block, frame, get},
    target::Target,
};

type Fields = Vec<(&'static str, &'static str)>;

struct Case {
    name: String,
    bytes: Vec<u8>,
    /// Method and body it must arrive with; `None`: it must not arrive.
    arrives: Option<(&'static str, &'static str)>,
}

fn usual() -> Fields {
    get(PATH).to_vec()
}

/// A request whose fields are `usual`, changed by `edit`, with a body if there is one.
fn case(
    name: &str,
    edit: impl FnOnce(&mut Fields),
    body: Option<&str>,
    arrives: Option<(&'static str, &'static str)>,
) -> Case {
    let mut fields = usual();
    edit(&mut fields);
    let end = if body.is_some() { 0 } else { END_STREAM };
    let mut bytes = frame(HEADERS, END_HEADERS | end, 1, &block(&fields));
    if let Some(body) = body {
        bytes.extend(frame(DATA, END_STREAM, 1, body.as_bytes()));
    }
    Case { name: name.into(), bytes, arrives }
}

/// One more field, and it is refused.
fn refused(name: &'static str, value: &'static str) -> Case {
    case(&format!("{name:?}: {value:?}"), |fields| fields.push((name, value)), None, None)
}

/// A pseudo field with another value, and it is refused.
fn instead(name: &'static str, value: &'static str) -> Case {
    let edit = |fields: &mut Fields| {
        fields.iter_mut().filter(|field| field.0 == name).for_each(|field| field.1 = value);
    };
    case(&format!("{name} = {value:?}"), edit, None, None)
}

fn with_body(fields: &'static [(&str, &str)], body: &str, arrives: bool) -> Case {
    let name = format!("{fields:?} with {body:?}");
    let edit = |all: &mut Fields| {
        all[0].1 = "POST";
        all.extend(fields);
    };
    case(&name, edit, Some(body), arrives.then_some(("POST", "hello")))
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        // What ends a line or a field in HTTP/1.1.
        ("a", "b\r\nc: d"),
        ("a", "b\nc: d"),
        ("a", "b\rc: d"),
        ("a", "b\r\n\r\nGET /api/v1/hostile/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("a", "b\0"),
        ("a", "b\u{7f}"),
        ("a\r\nb", "c"),
        ("a\nb", "c"),
        ("a: b\r\nc", "d"),
        ("a:", "b"),
        (":a", "b"),
        ("a b", "c"),
        ("a ", "b"),
        (" a", "b"),
        ("", "a"),
        ("A", "b"),
        ("Content-Length", "5"),
        ("a_b", "c"),
        ("content_length", "5"),
        ("a(", "b"),
        ("\u{e9}", "a"),
        // What belongs to a connection of HTTP/1.1.
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("connection", "keep-alive"),
        ("connection", "close"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        // Lengths.
        ("content-length", "5"),
        ("content-length", "+0"),
        ("content-length", "-1"),
        ("content-length", "a"),
        ("content-length", "0, 0"),
        ("content-length", "99999999999999999999"),
        // Hosts.
        ("host", "evil"),
        ("host", "x, evil"),
        ("host", ""),
        // Pseudo fields where they do not belong.
        (":path", "/api/v1/hostile/smuggled"),
        (":method", "POST"),
        (":authority", "evil"),
        (":scheme", "https"),
        (":status", "200"),
        (":protocol", "websocket"),
        (":evil", "a"),
        // What is too large.
        ("expect", "x"),
    ]
    .into_iter()
    .map(|(name, value)| refused(name, value))
    .collect();
    cases.extend(
        [
            (":path", ""),
            (":path", "*"),
            (":path", "api/v1/hostile/case"),
            (":path", "http://evil/api/v1/hostile/case"),
            (":path", "/api/v1/hostile/case HTTP/1.1\r\nHost: evil\r\n\r\n"),
            (":path", "/api/v1/hostile/case HTTP/1.1"),
            (":path", "/api/v1/hostile/a b"),
            (":path", "/api/v1/hostile/a\tb"),
            (":path", "/api/v1/hostile/a\0b"),
            (":path", "/api/v1/hostile/a\r\nb"),
            (":path", "/api/v1/hostile/\u{e9}"),
            (":path", "/api/v1/hostile/a\\b"),
            (":path", "/api/v1/hostile/a%2fb"),
            (":path", "/api/v1/hostile/../smuggled"),
            (":path", "/api/v1/hostile/%2e%2e/smuggled"),
            (":path", "/api/v1//hostile/case"),
            (":path", "/api/v1/hostile/case;a"),
            (":method", ""),
            (":method", "GET /api/v1/hostile/smuggled HTTP/1.1\r\nHost: x\r\n\r\nGET"),
            (":method", "GET /api/v1/hostile/smuggled"),
            (":method", "GET\r\n"),
            (":method", "G@T"),
            (":method", "CONNECT"),
            (":method", "TRACE"),
            (":method", "trace"),
            (":method", "REFUSED"),
            (":scheme", ""),
            (":scheme", "ftp"),
            (":scheme", "http://evil/"),
            (":scheme", "http\r\n"),
            (":authority", "x\r\nevil"),
            (":authority", "x/evil"),
            (":authority", "evil@x"),
            (":authority", "x evil"),
            (":authority", "x?evil"),
            (":authority", "x:y"),
        ]
        .map(|(name, value)| instead(name, value)),
    );
    for missing in [":method", ":scheme", ":path"] {
        let edit = |fields: &mut Fields| fields.retain(|(name, _)| *name != missing);
        cases.push(case(&format!("no {missing}"), edit, None, None));
    }
    cases.push(case(
        "a pseudo field behind others",
        |fields| fields.insert(1, ("a", "b")),
        None,
        None,
    ));
    let two =
        |fields: &mut Fields| fields.extend([("content-length", "0"), ("content-length", "5")]);
    cases.push(case("two lengths", two, None, None));
    let connect = |fields: &mut Fields| {
        fields[0].1 = "CONNECT";
        fields.push((":protocol", "websocket"));
    };
    cases.push(case("an extended CONNECT", connect, None, None));
    // Bodies.
    cases.extend([
        with_body(&[], "hello", true),
        with_body(&[("content-length", "5")], "hello", true),
        with_body(&[("content-length", "4")], "hello", false),
        with_body(&[("content-length", "6")], "hello", false),
        with_body(&[("content-length", "0")], SMUGGLED, false),
        with_body(&[("content-length", "5"), ("content-length", "6")], "hello", false),
        with_body(&[("transfer-encoding", "chunked")], "0\r\n\r\nGET /smuggled", false),
        with_body(&[("te", "trailers")], "hello", true),
        with_body(&[("cookie", "a"), ("cookie", "b")], "hello", true),
        with_body(&[("host", "x")], "hello", true),
        with_body(&[("expect", "100-continue")], "hello", true),
    ]);
    let get_with_body = |fields: &mut Fields| fields.push(("content-length", "5"));
    cases.push(case("GET with a body", get_with_body, Some("hello"), Some(("GET", "hello"))));
    // Trailers.
    let post = |fields: &mut Fields| fields[0].1 = "POST";
    let whole = Some(("POST", "hello"));
    for (name, value, arrives) in [
        // A pseudo field is dropped there, as any other one is.
        (":path", "/", whole),
        ("x-sum", "1", whole),
        ("A", "b", None),
        ("a", "b\r\nc", None),
        ("connection", "a", None),
    ] {
        let mut case = case(&format!("a trailer {name}: {value:?}"), post, Some("hello"), arrives);
        // The end of the data was the end of the stream: take it back.
        let at = case.bytes.len() - "hello".len() - 5;
        case.bytes[at] = 0;
        case.bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[(name, value)])));
        cases.push(case);
    }
    // Frames that break the order of things.
    let whole = block(&usual());
    for (name, bytes) in [
        ("data without a request", frame(DATA, END_STREAM, 1, b"hello")),
        ("an even stream", frame(HEADERS, END_HEADERS | END_STREAM, 2, &whole)),
        ("stream 0", frame(HEADERS, END_HEADERS | END_STREAM, 0, &whole)),
        ("a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, &whole)),
        ("a block that is no HPACK", frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 40])),
        ("an index of nothing", frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x80])),
        (
            "padding larger than the frame",
            frame(HEADERS, END_HEADERS | END_STREAM | 8, 1, &[255, 0]),
        ),
        ("a frame larger than allowed", frame(DATA, 0, 1, &[0; 20_000])),
        (
            "a request within a block",
            [frame(HEADERS, END_STREAM, 1, &whole), frame(HEADERS, END_HEADERS, 3, &whole)]
                .concat(),
        ),
        ("HTTP/1.1 behind the preface", SMUGGLED.as_bytes().to_vec()),
    ] {
        cases.push(Case { name: name.into(), bytes, arrives: None });
    }
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_others_in_http1() {
    let target = Target::start().await;
    let mut unsafe_ones = Vec::new();
    let cases = cases();
    for case in &cases {
        if let Err(what) = check(&target, case).await {
            unsafe_ones.push(format!("{}: {what}", case.name));
        }
    }
    eprintln!("{} requests of HTTP/2, {} unsafe", cases.len(), unsafe_ones.len());
    assert!(unsafe_ones.is_empty(), "{}:\n{}", unsafe_ones.len(), unsafe_ones.join("\n"));
}

async fn check(target: &Target, case: &Case) -> Result<(), String> {
    target.backend.take();
    let mut raw = Raw::to(target.gateway.address, &[]).await;
    raw.write(&case.bytes).await;
    let (data, reason) = raw.reader.answer(1).await;
    let text = String::from_utf8_lossy(&data).into_owned();

    let received = target.backend.take();
    let requests = dishonest(&received);
    match (case.arrives, &requests[..]) {
        (None, []) => {
            let is_refused = reason.is_some() || text.contains("urn:amove-gateway:problem:");
            if !is_refused && !text.is_empty() {
                return Err(format!("answered {text:?}"));
            }
        }
        (Some((method, body)), [one]) if one.method == method && one.body == body.as_bytes() => {
            is_clean(target, one)?;
            if reason.is_some() || text != PATH {
                return Err(format!("answered {text:?}, {reason:?}"));
            }
        }
        (_, other) => {
            return Err(format!("the API receives {other:?}; answered {text:?} {reason:?}"));
        }
    }
    if received.iter().any(|it| it.what.shown().contains("garbage")) {
        return Err(format!("the API receives {received:?}"));
    }
    target.serves().await
}
