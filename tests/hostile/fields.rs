//! Header fields that others may read differently, or that are meant for us alone.

use crate::case::{Case, PATH, check_all};

fn get(fields: &str) -> String {
    format!("GET {PATH} HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_values() {
    let mut cases = Vec::new();
    for fields in [
        "A: b\nC: d",
        "A: b\rC: d",
        "A: b\n",
        "A: b\r",
        "A: b\n\nGET /api/v1/hostile/smuggled HTTP/1.1",
        "A: b\r\r",
        "A\n: b",
        "A\r: b",
        "\nA: b",
        "\rA: b",
        "A: b\0",
        "A: \0",
        "A: b\0c",
        "A\0: b",
        "\0A: b",
        "A: b\u{1}",
        "A: b\u{7}c",
        "A: b\u{8}c",
        "A: b\u{b}c",
        "A: b\u{c}c",
        "A: b\u{1b}[2Jc",
        "A: b\u{7f}c",
        "A: b\r\n c",
        "A: b\r\n\tc",
        "A: b\r\n ",
        "A:\r\n b",
        " A: b",
        "\tA: b",
        "A : b",
        "A\t: b",
        "A \t: b",
        "A B: c",
        ": b",
        ":",
        "::",
        "A",
        "A b",
        "A;b",
        "A=b",
        "A_B: c",
        "_A: b",
        "A_: b",
        "Content_Length: 5",
        "X_Forwarded_For: a",
        "A(: b",
        "A): b",
        "A<b>: c",
        "A@b: c",
        "A,b: c",
        "A;b: c",
        "A\\b: c",
        "A\"b\": c",
        "A/b: c",
        "A[b]: c",
        "A?b: c",
        "A=b: c",
        "{A}: c",
        "\u{e9}: b",
        "A\u{e9}: b",
        "A\u{b}: b",
        "A\u{7f}: b",
        "\u{feff}A: b",
        "A\u{200b}: b",
    ] {
        cases.push(Case::refused(fields, get(fields)));
    }
    for fields in [
        "A:",
        "A: ",
        "A:b",
        "A:    b   ",
        "A: b\tc",
        "A: b:c:d",
        "A: \u{e9}",
        "!#$%&'*+-.^`|~0: b",
        "A: b\r\nA: c",
        "A: \" ",
        "A: HTTP/1.1 200 OK",
        "A: %0d%0aB: c",
        "A: \\r\\nB: c",
    ] {
        cases.push(Case::forwarded(fields, get(fields), ("GET", PATH, "")));
    }
    check_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_for_the_api() {
    let mut cases = Vec::new();
    // The judge of the cases looks whether any of it arrives, or takes ours away.
    for fields in [
        "Connection: Authorization",
        "Connection: Host",
        "Connection: authorization, host, content-length, via",
        "Connection: X-Request-Id, Via",
        "Connection: keep-alive\r\nKeep-Alive: timeout=5",
        "Connection: ,,,",
        "Connection: \u{e9}",
        "Proxy-Connection: keep-alive",
        "Proxy-Authorization: Basic a",
        "TE: trailers",
        "TE: trailers, deflate;q=0.5",
        "Trailer: Authorization",
        "Upgrade: h2c",
        "Cookie: session=a",
        "Authorization: Basic a",
        "Authorization: Bearer a\r\nAuthorization: Bearer b",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Host: evil\r\nX-Forwarded-Proto: https",
        "Forwarded: for=127.0.0.1",
    ] {
        cases.push(Case::forwarded(fields, get(fields), ("GET", PATH, "")));
    }
    for wish in ["close", "CLOSE", "keep-alive, close", "close, X"] {
        let fields = format!("Connection: {wish}");
        let case = Case::forwarded(fields.clone(), get(&fields), ("GET", PATH, ""));
        cases.push(case.and_ends());
    }
    check_all(cases).await;
}
