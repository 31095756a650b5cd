//! Messages that can be read in more than one way, or not at all, from either side.

use amove_gateway::emulator::{Fault, Host};
use tokio::net::TcpListener;

use crate::support::{ECHO, Reply, TestGateway, USERINFO, request};

/// What a smuggler hopes for: that this is taken for a request of its own.
const SMUGGLED: &str = "GET /api/v1/emulator/echo?smuggled HTTP/1.1\r\nHost: x\r\n\r\n";

/// A route whose body is looked at before anything is sent.
const INSERT: &str = "/api/v1/project/insert";

/// How many answers are in `bytes`.
fn answers(bytes: &[u8]) -> usize {
    String::from_utf8_lossy(bytes).matches("\r\nx-request-id: ").count()
}

/// Sends `bytes`, which must be refused with `status`, and be the connection's last.
async fn check_refused(gateway: &TestGateway, bytes: &[u8], status: u16) {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    let mut sent = bytes.to_owned();
    sent.extend_from_slice(SMUGGLED.as_bytes());

    let answer = gateway.raw(&sent).await;

    let text = String::from_utf8_lossy(&answer);
    let reply = Reply::parse(&answer).unwrap_or_else(|| panic!("{shown:?} is answered {text:?}"));
    assert_eq!(reply.status, status, "{shown:?}: {reply:?}");
    assert!(reply.problem().is_some(), "{shown:?}: {reply:?}");
    assert!(reply.header("x-request-id").is_some(), "{shown:?}: {reply:?}");
    assert_eq!(answers(&answer), 1, "{shown:?}: {text}");
    assert_eq!(gateway.seen().len(), 0, "{shown:?} reaches Amove: {:#?}", gateway.seen());
}

async fn check_all_refused(cases: impl IntoIterator<Item = String>) {
    let gateway = TestGateway::start().await.logged_in().await;
    for case in cases {
        check_refused(&gateway, case.as_bytes(), 400).await;
    }
    assert_eq!(gateway.get(USERINFO).await.status, 200, "others are served as before");
}

#[tokio::test]
async fn bodies_whose_end_can_be_seen_in_two_places_are_refused() {
    let fields = [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5, 6",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: 5a",
        "Content-Length:",
        "Content-Length: 99999999999999999999",
        "Content-Length: 18446744073709551621",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding:\x0bchunked",
        "Transfer-Encoding:",
        "Transfer-Encoding : chunked",
        "Transfer_Encoding: chunked",
    ];
    let post = |fields| format!("POST {INSERT} HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n0\r\n\r\n");
    check_all_refused(fields.map(post)).await;
    let old =
        format!("POST {INSERT} HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    check_all_refused([old]).await;
}

#[tokio::test]
async fn chunks_that_can_be_read_in_two_ways_are_refused() {
    let bodies = [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
        "5;\rx\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5_\r\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\n",
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\nbad name: x\r\n\r\n",
        "0\r\nname\r\n\r\n",
    ];
    let post = |body| {
        format!("POST {INSERT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
    };
    check_all_refused(bodies.map(post)).await;
}

#[tokio::test]
async fn heads_that_can_be_read_in_two_ways_are_refused() {
    let get = |rest: &str| format!("GET {USERINFO} {rest}");
    check_all_refused([
        // Line ends.
        get("HTTP/1.1\nHost: x\n\n"),
        get("HTTP/1.1\r\nHost: x\n\r\n"),
        get("HTTP/1.1\r\nHost: x\r\nA: b\rC: d\r\n\r\n"),
        get("HTTP/1.1\r\nHost: x\r\nA: b\nC: d\r\n\r\n"),
        // Folded lines.
        get("HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n"),
        get("HTTP/1.1\r\nHost: x\r\nA: b\r\n\tc\r\n\r\n"),
        get("HTTP/1.1\r\n Host: x\r\n\r\n"),
        // Names and values.
        get("HTTP/1.1\r\nHost: x\r\nX_Forwarded_For: y\r\n\r\n"),
        get("HTTP/1.1\r\nHost: x\r\n_: y\r\n\r\n"),
        get("HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n"),
        get("HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n"),
        get("HTTP/1.1\r\nHost: x\r\nA\r\n\r\n"),
        get("HTTP/1.1\r\nHost: x\r\nA(: b\r\n\r\n"),
        get("HTTP/1.1\r\nHost: x\r\nA\0: b\r\n\r\n"),
        get("HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n"),
        get("HTTP/1.1\r\nHost: x\r\nA: b\x07c\r\n\r\n"),
        get("HTTP/1.1\r\nHost: x\r\nA: b\x7fc\r\n\r\n"),
        // Hosts.
        get("HTTP/1.1\r\n\r\n"),
        get("HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n"),
        get("HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"),
        get("HTTP/1.1\r\nHost: x, y\r\n\r\n"),
        get("HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        get("HTTP/1.1\r\nHost: u@x\r\n\r\n"),
        get("HTTP/1.1\r\nHost: x:y\r\n\r\n"),
        // Request lines.
        get("HTTP/1.2\r\nHost: x\r\n\r\n"),
        get("HTTP/3.0\r\nHost: x\r\n\r\n"),
        get("HTTP/0.9\r\nHost: x\r\n\r\n"),
        get("http/1.1\r\nHost: x\r\n\r\n"),
        get(" HTTP/1.1\r\nHost: x\r\n\r\n"),
        get("x HTTP/1.1\r\nHost: x\r\n\r\n"),
        get("\r\nHost: x\r\n\r\n"),
        format!(" GET {USERINFO} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET\t{USERINFO}\tHTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("G@T {USERINFO} HTTP/1.1\r\nHost: x\r\n\r\n"),
        "GET\r\n\r\n".to_owned(),
        // Something else altogether: TLS, SSH, a proxy's greeting.
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\r\n\r\n".to_owned(),
        "SSH-2.0-OpenSSH_9.6\r\n".to_owned(),
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n".to_owned(),
    ])
    .await;
}

#[tokio::test]
async fn targets_that_lead_elsewhere_are_refused() {
    let with_host = |line: &str| format!("{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    check_all_refused(
        [
            "GET http://evil/api/v1/user/userinfo",
            "GET https://evil/api/v1/user/userinfo",
            "GET http://x:81/api/v1/user/userinfo",
            "GET http://u@x/api/v1/user/userinfo",
            "GET http://x@evil/api/v1/user/userinfo",
            "GET ftp://x/api/v1/user/userinfo",
            "GET api/v1/user/userinfo",
            "GET ?x",
            "GET *",
            "GET /api/v1/user/userinfo#x",
            "GET /api/v1/user/\u{e9}",
            "GET /api/v1/user/a\\b",
        ]
        .map(with_host),
    )
    .await;
}

#[tokio::test]
async fn an_absolute_target_that_names_this_host_is_as_good_as_a_path() {
    let gateway = TestGateway::start().await.logged_in().await;
    let mut wire = gateway.wire().await;

    wire.write(format!("GET http://x{USERINFO}?a=%2F HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
        .await;

    assert_eq!(wire.read().await.status, 200);
    assert_eq!(gateway.the_one_seen().target, format!("{USERINFO}?a=%2F"));
}

/// Paths that some reader on the way could take for other ones.
const PATHS: [&str; 44] = [
    "/api/v1/./user/userinfo",
    "/api/v1/../v1/user/userinfo",
    "/api/v1/user/..",
    "/api/v1/user/.",
    "/api/v1/%2e/user/userinfo",
    "/api/v1/%2e%2e/user/userinfo",
    "/api/v1/%2E%2E/user/userinfo",
    "/api/v1/.%2e/user/userinfo",
    "/api/v1/%2e./user/userinfo",
    "/api/v1/.../user/userinfo",
    "/api/v1/..;/user/userinfo",
    "/api/v1/..%3b/user/userinfo",
    "/api/v1/user/userinfo;x=1",
    "/api/v1/user/userinfo%3Bx",
    "/api/v1;x/user/userinfo",
    "/api/v1/user%2fuserinfo",
    "/api/v1/user%2Fuserinfo",
    "/api/v1/user%5cuserinfo",
    "/api/v1/user%5Cuserinfo",
    "/api/v1/..%5c/user/userinfo",
    "/api/v1/..%2f/user/userinfo",
    "/api/v1//user/userinfo",
    "//api/v1/user/userinfo",
    "/api/v1/user//userinfo",
    "/api/v1/user/userinfo//",
    "/api/v1/%252e%252e/user/userinfo",
    "/api/v1/user%252fuserinfo",
    "/api/v1/user/%25",
    "/api/v1/user/%u002e",
    "/api/v1/user/%",
    "/api/v1/user/%4",
    "/api/v1/user/%zz",
    "/api/v1/user/%c0%ae%c0%ae",
    "/api/v1/user/%c0%af",
    "/api/v1/user/%e0%80%af",
    "/api/v1/user/%ff",
    "/api/v1/user/%ed%a0%80",
    "/api/v1/user/%00",
    "/api/v1/user/%0d%0a",
    "/api/v1/user/%3f",
    "/api/v1/user/%23",
    "/api/v1/user/userinfo%20",
    "/api/v1/user/userinfo.",
    "/api/v01/user/userinfo",
];

#[tokio::test]
async fn paths_that_can_be_read_in_two_ways_are_refused_over_both_protocols() {
    let gateway = TestGateway::start().await.logged_in().await;
    let (mut http1, mut http2) = (gateway.wire().await, gateway.connect_http2().await);
    for path in PATHS {
        // The request itself is well framed: its connection goes on.
        http1.write(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
        let reply = http1.read().await;
        assert_eq!(reply.outcome(), (400, "malformed".into()), "{path}");

        let reply = http2.call(request("GET", path, &[], "")).await;
        assert_eq!(reply.outcome(), (400, "malformed".into()), "{path} over HTTP/2");

        assert_eq!(gateway.seen().len(), 0, "{path}");
    }
    let harmless =
        ["/api/v1/user/a%20b", "/api/v1/user/x/%C3%A9", "/api/v1/user/a.b", "/api/v1/user/..a"];
    for path in harmless {
        assert_eq!(gateway.get(path).await.status, 404, "{path} is Amove's to judge");
    }
}

#[tokio::test]
async fn http2_does_not_let_through_what_http1_does_not() {
    let gateway = TestGateway::start().await.logged_in().await;
    let mut http2 = gateway.connect_http2().await;
    let cases = [
        ("x_forwarded_for", "y", (400, "malformed")),
        ("host", "elsewhere", (400, "malformed")),
        ("expect", "the-unexpected", (417, "expectation-failed")),
        ("via", "2 amove-gateway", (508, "loop-detected")),
    ];
    for (name, value, (status, problem)) in cases {
        let reply = http2.call(request("GET", USERINFO, &[(name, value)], "")).await;
        assert_eq!(reply.outcome(), (status, problem.into()), "{name}");
    }
    let trace = http2.call(request("TRACE", USERINFO, &[], "")).await;
    assert_eq!(trace.outcome(), (501, "method-refused".into()));
    assert_eq!(gateway.seen().len(), 0);
}

#[tokio::test]
async fn methods_that_are_no_calls_are_refused() {
    let gateway = TestGateway::start().await.logged_in().await;

    assert_eq!(gateway.send("TRACE", USERINFO, &[], "").await.outcome().0, 501);
    let connect = gateway.raw(b"CONNECT evil:443 HTTP/1.1\r\nHost: evil:443\r\n\r\n").await;
    let connect = Reply::parse(&connect).expect("an answer");
    assert!((400..=501).contains(&connect.status) && connect.problem().is_some(), "{connect:?}");
    let refused = gateway.raw(b"REFUSED / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(Reply::parse(&refused).map(|reply| reply.status), Some(400));
    assert_eq!(gateway.seen().len(), 0);
}

#[tokio::test]
async fn nobody_gets_another_protocol_by_asking_for_it() {
    let gateway = TestGateway::start().await.logged_in().await;
    let wishes = [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Connection: Upgrade\r\nUpgrade: TLS/1.3",
        "Upgrade: h2c",
    ];
    for wish in wishes {
        gateway.amove.forget_requests();
        let mut wire = gateway.wire().await;
        wire.write(format!("GET {USERINFO} HTTP/1.1\r\nHost: x\r\n{wish}\r\n\r\n").as_bytes())
            .await;

        let reply = wire.read().await;

        assert!(reply.status == 200 || reply.status >= 400, "{wish}: {reply:?}");
        for seen in gateway.seen() {
            assert_eq!(seen.header("upgrade").or(seen.header("http2-settings")), None);
        }
    }
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let gateway = TestGateway::start().await.logged_in().await;
    let large = "y".repeat(33 * 1024);
    let many: String = (0..101).map(|n| format!("A{n}: b\r\n")).collect();
    let long = "z".repeat(9 * 1024);

    let get =
        |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    check_refused(&gateway, get(USERINFO, &format!("A: {large}\r\n")).as_bytes(), 431).await;
    check_refused(&gateway, get(USERINFO, &many).as_bytes(), 431).await;
    check_refused(&gateway, get(&format!("/{long}"), "").as_bytes(), 414).await;
    check_refused(&gateway, get(&format!("{USERINFO}?{long}"), "").as_bytes(), 414).await;
}

#[tokio::test]
async fn bodies_that_are_too_large_are_refused() {
    let gateway = TestGateway::with("server.max_body_bytes = \"1KiB\"").await.logged_in().await;
    let post = format!("POST {INSERT} HTTP/1.1\r\nHost: x\r\n");
    let announced = format!("{post}Content-Length: 1025\r\n\r\n");
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    let chunked = format!("{post}Transfer-Encoding: chunked\r\n\r\n{chunk}1\r\nx\r\n0\r\n\r\n");

    for (what, bytes) in [("announced", announced), ("chunked", chunked)] {
        let mut wire = gateway.wire().await;
        wire.write(bytes.as_bytes()).await;
        assert_eq!(wire.read().await.outcome(), (413, "too-large".into()), "{what}");
    }
    for size in [1024, 1025] {
        let mut http2 = gateway.connect_http2().await;
        let reply = http2.call(request("POST", ECHO, &[], vec![b'x'; size])).await;
        assert_eq!(reply.status, if size > 1024 { 413 } else { 200 });
    }
    assert_eq!(gateway.seen().len(), 1);
}

#[tokio::test]
async fn a_body_that_breaks_a_rule_later_on_never_arrives_whole() {
    let gateway = TestGateway::start().await.logged_in().await;
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let head = format!(
        "POST {INSERT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    );

    let answer = gateway
        .raw(format!("{head}{chunk}{chunk}5\nhello\r\n0\r\n\r\n{SMUGGLED}").as_bytes())
        .await;

    let reply = Reply::parse(&answer).expect("an answer");
    assert_eq!((reply.outcome(), answers(&answer)), ((400, "malformed".into()), 1));
    assert!(!gateway.amove.stats().side_effects.contains_key("POST /api/v1/project/insert"));
    assert!(!gateway.seen().iter().any(|seen| seen.target.contains("smuggled")));
}

#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_is_timed_out() {
    let gateway = TestGateway::with("server.header_timeout = \"200ms\"").await.logged_in().await;

    let answer = gateway.raw(format!("GET {USERINFO} HTTP/1.1\r\nHost: x\r\nA:").as_bytes()).await;

    let reply = Reply::parse(&answer).expect("an answer");
    assert_eq!(reply.outcome(), (408, "request-timeout".into()));
    assert_eq!(reply.json()["timeout"], "request_header");
    assert_eq!(gateway.seen().len(), 0);
}

#[tokio::test]
async fn requests_before_a_malformed_one_are_answered_first() {
    let gateway = TestGateway::start().await.logged_in().await;
    let good = format!("GET {USERINFO} HTTP/1.1\r\nHost: x\r\n\r\n");
    let bad = format!("GET {USERINFO} HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n");

    let answer = gateway.raw(format!("{good}{good}{bad}{SMUGGLED}").as_bytes()).await;

    let text = String::from_utf8_lossy(&answer);
    let statuses: Vec<_> = text.split("HTTP/1.1 ").skip(1).map(|rest| &rest[..3]).collect();
    assert_eq!(statuses, ["200", "200", "400"]);
    assert_eq!(gateway.seen().len(), 2);
}

/// The main host answers the next request with these bytes.
async fn answered_with(gateway: &TestGateway, bytes: &str) -> Reply {
    gateway.amove.inject(Fault::Raw {
        text: bytes.into(),
        count: 1,
        host: Some(Host::Main),
        route: None,
    });
    gateway.get_with(USERINFO, &[("x-request-id", "mine")]).await
}

#[tokio::test]
async fn answers_of_amove_that_can_be_read_in_two_ways_are_not_passed_on() {
    let gateway = TestGateway::with("upstream.retry_budget = 0").await.logged_in().await;
    let ok = |rest: &str| format!("HTTP/1.1 200 OK\r\n{rest}");
    let answers = [
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
            .into(),
        "HTTP/1.1 101 Switching Protocols\r\n\r\n".into(),
        ok("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ok("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n"),
        ok("Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc"),
        ok("Content-Length: 2, 3\r\n\r\nabc"),
        ok("Content-Length: x\r\n\r\nabc"),
        ok("Content-Length: -1\r\n\r\nabc"),
        ok("Transfer-Encoding: gzip\r\n\r\nabc"),
        ok("Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
        ok("Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
        ok("A: b\0c\r\nContent-Length: 0\r\n\r\n"),
        ok("A b\r\nContent-Length: 0\r\n\r\n"),
        ok("Content-Length : 0\r\n\r\n"),
        ok("A: b\r\n Content-Length: 5\r\n\r\n"),
        ok("A: b\rC: d\r\nContent-Length: 0\r\n\r\n"),
        ok("Content-Length: +2\r\n\r\nabc"),
        ok("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n".into(),
        "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n".into(),
        "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n".into(),
        "ICY 200 OK\r\n\r\n".into(),
        "This is not HTTP at all.\r\n\r\n".into(),
        "\0\0\0\0".into(),
        "HTTP/1.1 200 OK\r\nContent-Le".into(),
        "HTTP/1.1".into(),
    ];
    for answer in answers {
        let reply = answered_with(&gateway, &answer).await;

        assert_eq!(reply.status, 502, "{answer:?}: {reply:?}");
        let problem = reply.problem().unwrap_or_else(|| panic!("{answer:?}: {reply:?}"));
        assert!(problem.starts_with("upstream-"), "{answer:?}: {problem}");
        assert_eq!(reply.header("x-request-id"), Some("mine"));
        assert_eq!(gateway.get(USERINFO).await.status, 200, "after {answer:?}");
    }
}

#[tokio::test]
async fn a_body_that_amove_breaks_off_is_never_completed() {
    let gateway = TestGateway::start().await.logged_in().await;
    let raw = |bytes: &str| Fault::Raw {
        text: bytes.into(),
        count: 1,
        host: Some(Host::Main),
        route: None,
    };
    let faults = [
        Fault::Truncate { count: 1, host: Some(Host::Main), route: None },
        raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"),
        raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"),
        raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n"),
    ];
    for fault in faults {
        gateway.amove.inject(fault.clone());
        let mut wire = gateway.wire().await;
        wire.write(format!("GET {USERINFO} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
        let answer = String::from_utf8_lossy(&wire.read_to_end().await).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answers(answer.as_bytes()) == 1, "{answer}");
        let whole = Reply::parse(answer.as_bytes()).is_some_and(|reply| !reply.body.is_empty());
        assert!(!whole && !answer.ends_with("0\r\n\r\n"), "{fault:?}: {answer}");

        gateway.amove.inject(fault.clone());
        let mut http2 = gateway.connect_http2().await;
        let answer = http2.try_call(request("GET", USERINFO, &[], "")).await;
        assert!(answer.is_err(), "{fault:?} over HTTP/2: {answer:?}");
    }
    assert_eq!(gateway.get(USERINFO).await.status, 200);
}

#[tokio::test]
async fn a_reset_is_a_bad_gateway_and_silence_a_timeout() {
    let settings = "upstream.response_timeout = \"250ms\"\nupstream.retry_budget = 0";
    let gateway = TestGateway::with(settings).await.logged_in().await;
    let host = Some(Host::Main);
    let own = [("x-request-id", "mine")];

    gateway.amove.inject(Fault::Reset { count: 1, acted: false, host, route: None });
    let reset = gateway.get_with(USERINFO, &own).await;
    gateway.amove.inject(Fault::Stall { count: 1, host, route: None });
    let silence = gateway.get_with(USERINFO, &own).await;

    assert_eq!(reset.outcome(), (502, "upstream-unreachable".into()));
    assert_eq!(silence.outcome(), (504, "upstream-timeout".into()));
    assert_eq!(
        (reset.json()["request_id"].as_str(), silence.header("x-request-id")),
        (Some("mine"), Some("mine"))
    );
    assert_eq!(gateway.get(USERINFO).await.status, 200);
}

#[tokio::test]
async fn an_amove_that_is_not_there_is_a_bad_gateway_for_the_moment() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = nobody.local_addr().expect("an address");
    drop(nobody);
    let settings = format!("upstream.api_url = \"http://{address}\"");
    let gateway = TestGateway::with(&settings).await.logged_in().await;

    let reply = gateway.get(USERINFO).await;

    assert_eq!(reply.outcome(), (502, "upstream-unreachable".into()));
    assert!(reply.header("retry-after").is_some());
}
