//! Where does the body end? Lengths, encodings, chunks, trailers, expectations.

use crate::case::{Case, PATH, SMUGGLED, check_all};

/// A POST with these fields and this body.
fn post(fields: &str, body: &str) -> String {
    format!("POST {PATH} HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n{body}")
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked", body)
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_and_encodings() {
    let mut cases = Vec::new();
    // Each with a body that ends in one place for one reader, and in another for another.
    for fields in [
        // CL.TE and TE.CL.
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        "Content-Length: 0\r\nX: y\r\ntransfer-encoding: CHUNKED",
        // TE.TE: each of these is a chunked body to somebody.
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunkedx",
        "Transfer-Encoding: chunke",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: cow",
        "Transfer-Encoding: chunked, cow",
        "Transfer-Encoding: cow, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked;q=0.5",
        "Transfer-Encoding: chunked; a=b",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: 'chunked'",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: chun ked",
        "Transfer-Encoding:",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding: chunked\u{b}",
        "Transfer-Encoding: \u{c}chunked",
        "Transfer-Encoding: chunked\0",
        "Transfer-Encoding: \0chunked",
        "Transfer-Encoding: \u{a0}chunked",
        "Transfer-Encoding: \u{feff}chunked",
        "Transfer-Encoding:\nchunked",
        "Transfer-Encoding:\rchunked",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding:\r\n\tchunked",
        "Transfer-Encoding\r\n : chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        " Transfer-Encoding: chunked",
        "\tTransfer-Encoding: chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        "Transfer-Encoding\0: chunked",
        "Transfer-Encoding\u{b}: chunked",
        "Transfer-Encoding",
        "Transfer-Encoding chunked",
        "Transfer_Encoding: chunked",
        "Transfer Encoding: chunked",
        "Transfer-Encoding;: chunked",
        "\"Transfer-Encoding\": chunked",
        "X: y\nTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "X: y\u{0}\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow",
        "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\ntransfer-encoding: identity",
        "Transfer-Encoding: identity\r\nContent-Length: 5",
        // CL.CL.
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 0\r\ncontent-length: 5",
        "Content-Length: 5, 6",
        "Content-Length: 5, 5",
        "Content-Length: 5,",
        "Content-Length: ,5",
        // One length that is none.
        "Content-Length:",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: -0",
        "Content-Length: 0x5",
        "Content-Length: 5h",
        "Content-Length: 5 5",
        "Content-Length: 5\t5",
        "Content-Length: 5.0",
        "Content-Length: 5e0",
        "Content-Length: \"5\"",
        "Content-Length: five",
        "Content-Length: 5;a",
        "Content-Length: 5\0",
        "Content-Length: \u{b}5",
        "Content-Length: \u{665}",
        "Content-Length: 9223372036854775808",
        "Content-Length: 18446744073709551615",
        "Content-Length: 18446744073709551616",
        "Content-Length: 18446744073709551621",
        "Content-Length: 99999999999999999999999999999999",
        "Content-Length : 5",
        "Content-Length\t: 5",
        "Content_Length: 5",
        "Content-Length\0: 5",
        "X: y\r\n Content-Length: 5",
        "Content-Length:\r\n 5",
    ] {
        cases.push(Case::refused(fields, post(fields, "0\r\n\r\n")));
    }
    let old = format!("POST {PATH} HTTP/1.0\r\nHost: x\r\n");
    cases.push(Case::refused(
        "an encoding in HTTP/1.0",
        format!("{old}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ));
    cases.push(Case::refused(
        "an encoding in HTTP/1.0 that keeps alive",
        format!("{old}Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ));
    for (fields, body) in [
        ("Content-Length: 5", "hello"),
        ("Content-Length:5", "hello"),
        ("content-length: \t 5 \t ", "hello"),
        ("Content-Length: 00005", "hello"),
        ("Content-Length: 0", ""),
        ("Content-Length: 000", ""),
        ("X: Content-Length: 9", ""),
        ("X: Transfer-Encoding: chunked", ""),
        ("XTransfer-Encoding: chunked", ""),
        ("Transfer-EncodingX: chunked", ""),
        ("TE: chunked", ""),
        ("Connection: Content-Length\r\nContent-Length: 5", "hello"),
        ("Connection: Transfer-Encoding\r\nContent-Length: 5", "hello"),
        ("Content-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n"),
    ] {
        cases.push(Case::forwarded(fields, post(fields, body), ("POST", PATH, body)));
    }
    for field in [
        "Transfer-Encoding: chunked",
        "transfer-encoding:chunked",
        "TRANSFER-ENCODING: CHUNKED",
        "Transfer-Encoding: \t Chunked \t ",
        "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked",
    ] {
        let bytes = post(field, "5\r\nhello\r\n0\r\n\r\n");
        cases.push(Case::forwarded(field, bytes, ("POST", PATH, "hello")));
    }
    check_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_and_trailers() {
    let mut cases = Vec::new();
    for body in [
        // Sizes.
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "-0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "\t5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\t\r\nhello\r\n0\r\n\r\n",
        "5\u{b}\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "0X5\r\nhello\r\n0\r\n\r\n",
        "5h\r\nhello\r\n0\r\n\r\n",
        "5_0\r\nhello\r\n0\r\n\r\n",
        "5,0\r\nhello\r\n0\r\n\r\n",
        "5.\r\nhello\r\n0\r\n\r\n",
        "\"5\"\r\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "\u{665}\r\nhello\r\n0\r\n\r\n",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "10000000000000000\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffffffffffffffffffff5\r\nhello\r\n0\r\n\r\n",
        // Line ends.
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\rhello\r\n0\r\n\r\n",
        "5\r\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\r\nhello\r\r\n0\r\n\r\n",
        "5\r\nhello\r\n\r\n0\r\n\r\n",
        "5\r\nhelloo\r\n0\r\n\r\n",
        "5\r\nhell\r\n0\r\n\r\n",
        "0\n\n",
        "0\n\r\n",
        "0\r\n\n",
        "0\r\r\n",
        "0\r\n\r\r\n",
        // Extensions.
        "5;\r\nhello\r\n0\r\n\r\n",
        "5;a \r\nhello\r\n0\r\n\r\n",
        "5 ;a\r\nhello\r\n0\r\n\r\n",
        "5;\nhello\r\n0\r\n\r\n",
        "5;a\nhello\r\n0\r\n\r\n",
        "5;a\n\r\nhello\r\n0\r\n\r\n",
        "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
        "5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n",
        "5;\rhello\r\n0\r\n\r\n",
        "5;\r\r\nhello\r\n0\r\n\r\n",
        "5;a\0\r\nhello\r\n0\r\n\r\n",
        "5;\u{e9}\r\nhello\r\n0\r\n\r\n",
        "5;a=\"b\r\nhello\r\n0\r\n\r\n",
        "5;a=\"\\\"\r\nhello\r\n0\r\n\r\n",
        "0;\n\r\n",
        // Trailers.
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\nContent-Length: 70\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\nHost: evil\r\n\r\n",
        "0\r\nAuthorization: Bearer evil\r\n\r\n",
        "0\r\nCookie: a=b\r\n\r\n",
        "0\r\nX-Api-Key: a\r\n\r\n",
        "0\r\nX-Forwarded-For: a\r\n\r\n",
        "0\r\nForwarded: for=a\r\n\r\n",
        "0\r\nContent-Type: text/plain\r\n\r\n",
        "0\r\nConnection: X\r\n\r\n",
        "0\r\nTrailer: X\r\n\r\n",
        "0\r\nExpect: 100-continue\r\n\r\n",
        "0\r\nVia: 1.1 a\r\n\r\n",
        "0\r\nX_A: b\r\n\r\n",
        "0\r\nX : b\r\n\r\n",
        "0\r\nX\r\n\r\n",
        "0\r\n: b\r\n\r\n",
        "0\r\n X: b\r\n\r\n",
        "0\r\nX: a\r\n b\r\n\r\n",
        "0\r\nX: a\nContent-Length: 5\r\n\r\n",
        "0\r\nX: a\rb\r\n\r\n",
        "0\r\nX: a\0b\r\n\r\n",
        "0\r\nGET /api/v1/hostile/smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        cases.push(Case::refused(body, chunked(body)));
    }
    for (body, expected) in [
        ("0\r\n\r\n", ""),
        ("000\r\n\r\n", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("0000000000000005\r\nhello\r\n0\r\n\r\n", "hello"),
        ("2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", "hello"),
        ("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789"),
        ("5;a\r\nhello\r\n0;b=c\r\n\r\n", "hello"),
        ("5;a=\"0\"\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5; a=b\r\nhello\r\n0\r\n\r\n", "hello"),
        ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n"),
        ("5\r\n0\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n"),
    ] {
        cases.push(Case::forwarded(body, chunked(body), ("POST", PATH, expected)));
    }
    let request = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    cases.push(Case::forwarded(
        "a request in a chunk",
        chunked(&request),
        ("POST", PATH, SMUGGLED),
    ));
    cases.push(Case::refused(
        "an endless extension",
        chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(400))),
    ));
    cases.push(Case::refused(
        "too many extensions",
        chunked(&(format!("1;{}\r\nx\r\n", "a".repeat(200)).repeat(60) + "0\r\n\r\n")),
    ));
    cases.push(Case::refused("an endless size", chunked(&"0".repeat(2000))));
    cases.push(Case::refused_with(
        &[431, 400],
        "a trailer that is too large",
        chunked(&format!("0\r\nX: {}\r\n\r\n", "y".repeat(9000))),
    ));
    cases.push(Case::refused_with(
        &[431, 400],
        "too many trailers",
        chunked(&format!("0\r\n{}\r\n", "X: y\r\n".repeat(200))),
    ));
    cases.push(Case::refused(
        "a bad chunk behind a good one",
        chunked("5\r\nhello\r\n5\nhello\r\n0\r\n\r\n"),
    ));
    // More than what is kept for a replay: its beginning is on its way before its end is here.
    let large = format!("20000\r\n{}\r\n", "x".repeat(0x20000));
    for end in ["5\nhello\r\n0\r\n\r\n", "-5\r\nhello\r\n0\r\n\r\n", "0\r\nHost: x\r\n\r\n"] {
        let name = format!("{end} behind a large chunk");
        cases.push(Case::refused(name, chunked(&format!("{large}{end}"))));
    }
    cases.push(Case::forwarded(
        "a large chunk and a harmless trailer",
        chunked(&format!("{large}0\r\nX-Sum: 1\r\n\r\n")),
        ("POST", PATH, &"x".repeat(0x20000)),
    ));
    cases.push(Case::refused(
        "a bad trailer behind a good chunk",
        chunked("5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n"),
    ));
    check_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_nobody_expects_or_that_never_come() {
    let mut cases = Vec::new();
    // 0.CL: who does not look for a body here finds a request.
    for method in ["GET", "DELETE", "OPTIONS", "PUT", "PATCH", "HEAD", "PROPFIND"] {
        let head = format!("{method} {PATH} HTTP/1.1\r\nHost: x\r\n");
        let length = SMUGGLED.len();
        cases.push(Case::forwarded(
            format!("{method} with a length"),
            format!("{head}Content-Length: {length}\r\n\r\n{SMUGGLED}"),
            (method, PATH, SMUGGLED),
        ));
        cases.push(Case::forwarded(
            format!("{method} with chunks"),
            format!(
                "{head}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"
            ),
            (method, PATH, SMUGGLED),
        ));
    }
    // CL.0: who answers without reading the body finds a request afterwards.
    for path in ["/api/v1/a%2fb", "/api/v1//a", "/api/v1/a;b"] {
        let length = SMUGGLED.len();
        for (what, fields, body) in [
            ("a length", format!("Content-Length: {length}"), SMUGGLED.to_owned()),
            (
                "chunks",
                "Transfer-Encoding: chunked".to_owned(),
                format!("{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"),
            ),
        ] {
            let bytes = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n{body}");
            cases.push(Case::declined(400, format!("{path} with {what}"), bytes));
        }
    }
    // Pauses: the end of a body that comes late.
    let late = post(&format!("Content-Length: {}", SMUGGLED.len()), SMUGGLED);
    let cut = late.len() - SMUGGLED.len();
    for cuts in [vec![cut], vec![cut, cut + 10], vec![10, cut - 2, cut + 20]] {
        let name = format!("pauses at {cuts:?}");
        let case = Case::forwarded(name, late.as_str(), ("POST", PATH, SMUGGLED));
        cases.push(case.with_pauses_at(&cuts));
    }
    // Expectations.
    for expectation in ["100-continue", "100-CONTINUE", "  100-continue  "] {
        let with = |more: &str, body| post(&format!("Expect: {expectation}\r\n{more}"), body);
        for (bytes, body) in [
            (with("Content-Length: 5", "hello"), "hello"),
            (with("Content-Length: 0", ""), ""),
            (with("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"), "hello"),
        ] {
            cases.push(Case::forwarded(bytes.clone(), bytes, ("POST", PATH, body)));
        }
        let get = format!("GET {PATH} HTTP/1.1\r\nHost: x\r\nExpect: {expectation}\r\n\r\n");
        cases.push(Case::forwarded("GET with an expectation", get, ("GET", PATH, "")));
    }
    for expectation in [
        "200-ok",
        "100-continue, 100-continue",
        "100-continue, x",
        "x100-continue",
        "100",
        "",
        "y 100-continue",
        "100-continue;a",
    ] {
        let bytes = post(&format!("Expect: {expectation}\r\nContent-Length: 5"), "hello");
        cases.push(Case::declined(417, format!("Expect: {expectation}"), bytes));
    }
    let smuggling = post(&format!("Expect: x\r\nContent-Length: {}", SMUGGLED.len()), SMUGGLED);
    cases.push(Case::declined(417, "a request behind an expectation", smuggling));
    for two in ["Expect: 100-continue\r\nExpect: x", "Expect: x\r\nExpect: 100-continue"] {
        let bytes = post(&format!("{two}\r\nContent-Length: 5"), "hello");
        cases.push(Case::declined(417, two, bytes));
    }
    // What breaks off.
    for (name, bytes) in [
        ("shorter than its length", post("Content-Length: 10", "hello")),
        ("no body at all", post("Content-Length: 10", "")),
        ("no chunk", chunked("")),
        ("half a size", chunked("1")),
        ("no last chunk", chunked("5\r\nhello\r\n")),
        ("half a chunk", chunked("5\r\nhel")),
        ("no end of a chunk", chunked("5\r\nhello")),
        ("half an end of a chunk", chunked("5\r\nhello\r")),
        ("half a last chunk", chunked("5\r\nhello\r\n0\r\n")),
        ("an unfinished trailer", chunked("5\r\nhello\r\n0\r\nX: y")),
        ("an unfinished trailer section", chunked("5\r\nhello\r\n0\r\nX: y\r\n")),
        ("a large body without its end", chunked(&format!("20000\r\n{}\r\n", "x".repeat(0x20000)))),
        (
            "a large body with half an end",
            chunked(&format!("20001\r\n{}\r\n0\r\n\r\n", "x".repeat(0x20000))),
        ),
        ("a chunk of 8 EiB", chunked("7fffffffffffffff\r\nhello")),
        ("an unfinished head", format!("POST {PATH} HTTP/1.1\r\nHost: x\r\n")),
        ("an unfinished line", format!("POST {PATH} HTTP/1.1\r\nHost: x")),
        ("half a request line", "POST /api".to_owned()),
        ("nothing", String::new()),
        ("an empty line", "\r\n".to_owned()),
    ] {
        cases.push(Case::lost(name, bytes));
    }
    for length in [9_223_372_036_854_775_807_u64, 1 << 62] {
        let bytes = post(&format!("Content-Length: {length}"), "hello");
        cases.push(Case::declined(413, format!("a body of {length} bytes"), bytes));
    }
    check_all(cases).await;
}
