//! What is accepted.

use super::{super::Inspector, Message, inspect};

fn message(begin: usize, head: usize, end: usize) -> Message {
    Message { begin, head, end: Some(end) }
}

/// `head` and `body` are one request, however they are split.
fn check(head: &str, body: &str) {
    let stream = format!("{head}{body}");
    let each = (1..stream.len()).collect::<Vec<_>>();
    for cuts in [&[][..], &each] {
        let found = inspect(stream.as_bytes(), cuts);
        assert_eq!(found.refusal, None, "{stream:?}");
        assert_eq!(found.messages, [message(0, head.len(), stream.len())], "{stream:?}");
        assert_eq!(found.partial, 0, "{stream:?}");
    }
}

#[test]
fn requests_without_a_body() {
    for line in [
        "GET / HTTP/1.1",
        "GET /api/v1/user/userinfo HTTP/1.1",
        "GET /api/v1/a/b?c=d&e=f%20g HTTP/1.1",
        "GET /?a={b}|c[d]^`\\ HTTP/1.1",
        "GET /a[1]|b HTTP/1.1",
        "GET /?? HTTP/1.1",
        "GET //a//b/../c HTTP/1.1",
        "GET /~user/!$&'()*+,;=:@-._ HTTP/1.1",
        "DELETE /a HTTP/1.1",
        "M-SEARCH /a HTTP/1.1",
        "get / HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "OPTIONS / HTTP/1.1",
        "HEAD / HTTP/1.0",
        "GET http://a/ HTTP/1.1",
        "GET HTTP://A/x?y HTTP/1.1",
        "GET https://a HTTP/1.1",
        "GET http://a?x=/y HTTP/1.0",
    ] {
        check(&format!("{line}\r\nHost: a\r\n\r\n"), "");
    }
}

#[test]
fn hosts_of_all_kinds() {
    for host in [
        "a",
        "a:80",
        "A.b-c.example",
        "my_service:8080",
        "127.0.0.1",
        "127.0.0.1:65535",
        "[::1]",
        "[::1]:8080",
        "[2001:db8::1]",
        "[::ffff:1.2.3.4]",
    ] {
        check(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), "");
        check(&format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"), "");
    }
    check("GET / HTTP/1.0\r\n\r\n", "");
    check("GET http://a/ HTTP/1.0\r\n\r\n", "");
}

#[test]
fn fields_of_all_kinds() {
    for field in [
        "X:",
        "X: ",
        "X:1",
        "X: \t 1 \t ",
        "X: a\tb",
        "X: caf\u{e9}",
        "X: a:b:c",
        "!#$%&'*+-.^`|~0: 1",
        "Connection: Upgrade\r\nUpgrade: websocket",
        "Expect: 100-continue",
        "Content-Length: 0",
        "Content-Length: 000",
    ] {
        check(&format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"), "");
    }
    check(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(99)), "");
    check(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(8 * 1024 - 1)), "");
}

#[test]
fn bodies_with_a_length() {
    check("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", "hello");
    check("POST / HTTP/1.1\r\nHost: a\r\ncontent-length:0005\r\n\r\n", "\r\n\r\n\n");
    check("POST / HTTP/1.0\r\nContent-Length: 3 \r\n\r\n", "abc");
    check("GET / HTTP/1.1\r\nContent-Length: 1\r\nHost: a\r\n\r\n", "x");
}

#[test]
fn chunked_bodies() {
    for body in [
        "0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
        "0000000000000005\r\nhello\r\n0000000000000000\r\n\r\n",
        "A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
        "5;a\r\nhello\r\n0;b=c\r\n\r\n",
        "5;a=\"b; \\\" c\"\r\nhello\r\n0\r\n\r\n",
        "5; a=b;c\t=\td\r\nhello\r\n0\r\n\r\n",
        "4\r\n\r\n\r\n\r\n0\r\n\r\n",
        "0\r\nX-Checksum: 1\r\nServer-Timing: a\r\n\r\n",
    ] {
        check("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", body);
        check("POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING:  Chunked \r\n\r\n", body);
    }
}

#[test]
fn the_largest_length_is_understood_and_waited_for() {
    let stream = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\nxyz";

    let found = inspect(stream, &[]);

    assert_eq!(found.refusal, None);
    assert_eq!(found.messages[0].end, None);
}

#[test]
fn one_after_the_other_on_one_connection() {
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let stream = format!("{get}{head}2\r\nhi\r\n0\r\n\r\n\r\n{get}");
    let (second, third) = (get.len(), stream.len() - get.len());

    for cut in 0..stream.len() {
        let found = inspect(stream.as_bytes(), &[cut]);

        assert_eq!(found.refusal, None, "cut at {cut}");
        assert_eq!(
            found.messages,
            [
                message(0, get.len(), get.len()),
                message(second, head.len(), third - 2),
                message(third, get.len(), stream.len()),
            ],
            "cut at {cut}"
        );
    }
}

#[test]
fn an_incomplete_head_is_nothing_yet() {
    let stream = b"GET / HTTP/1.1\r\nHost: a\r\n\r";

    let found = inspect(stream, &[]);

    assert_eq!((found.messages.len(), found.refusal, found.partial), (0, None, stream.len()));
}

#[test]
fn another_protocol_is_asked_for_request_by_request_and_not_by_http_1_0() {
    let mut inspector = Inspector::new(1024);
    let wanted = [
        ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nUpgrade: websocket\r\n\r\n", false),
    ];

    for (stream, expected) in wanted {
        inspector.feed(stream.as_bytes()).expect("a good head");

        assert_eq!(inspector.wants_upgrade(), expected, "{stream:?}");
    }
}
