//! Paths that some reader on the way could take for other ones.

use crate::case::{Case, check_all};

#[tokio::test(flavor = "multi_thread")]
async fn paths() {
    let mut cases = Vec::new();
    for path in [
        // Dot segments.
        "/.",
        "/..",
        "/api/v1/./hostile/case",
        "/api/v1/../v1/hostile/case",
        "/api/v1/hostile/..",
        "/api/v1/hostile/../../../etc/passwd",
        "/api/v1/hostile/.",
        "/api/v1/.../case",
        "/api/v1/%2e/case",
        "/api/v1/%2e%2e/case",
        "/api/v1/%2E%2E/case",
        "/api/v1/.%2e/case",
        "/api/v1/%2e./case",
        "/api/v1/%2e%2e%2f/case",
        "/api/v1/..;/case",
        "/api/v1/..;a=b/case",
        "/api/v1/.;/case",
        "/api/v1/;/case",
        "/api/v1/..%3b/case",
        "/api/v1/%2e%2e;/case",
        "/api/v1/..%00/case",
        "/api/v1/..%20/case",
        "/api/v1/..%09/case",
        "/api/v1/..%0d%0a/case",
        "/api/v1/..%5c/case",
        "/api/v1/..%255c/case",
        "/api/v1/..%c0%af/case",
        "/api/v1/..%ef%bc%8f/case",
        "/api/v1/%ef%bc%8e%ef%bc%8e/case",
        "/api/v1/%u002e%u002e/case",
        "/api/v1/..%u2215case",
        "/api/v1/.%0a./case",
        // Slashes.
        "//",
        "//evil/api/v1/hostile/case",
        "/api//v1/hostile/case",
        "/api/v1//hostile/case",
        "/api/v1/hostile//case",
        "/api/v1/hostile/case//",
        "/api/v1/hostile%2fcase",
        "/api/v1/hostile%2Fcase",
        "/api%2fv1%2fhostile%2fcase",
        "/%2fapi/v1/hostile/case",
        "/api/v1/hostile%5ccase",
        "/api/v1/hostile%5Ccase",
        // Parameters.
        "/api/v1/hostile;a/case",
        "/api/v1/hostile;/case",
        "/api/v1/hostile/case;a=b",
        "/api/v1/hostile/case;",
        "/api/v1/hostile/case%3ba",
        "/api;a/v1/hostile/case",
        // Encoded twice, or badly.
        "/api/v1/%252e%252e/case",
        "/api/v1/%25%32%65/case",
        "/api/v1/hostile%252fcase",
        "/api/v1/hostile/%25",
        "/api/v1/hostile/%2525",
        "/api/v1/hostile/%",
        "/api/v1/hostile/%2",
        "/api/v1/hostile/%zz",
        "/api/v1/hostile/%%41",
        "/api/v1/hostile/%u0041",
        "/api/v1/hostile/%3f",
        "/api/v1/hostile/%23",
        "/api/v1/hostile/case%20",
        "/api/v1/hostile/%20case",
        "/api/v1/hostile/case.",
        "/api/v1/hostile/case%2e",
        // Control characters.
        "/api/v1/hostile/%00",
        "/api/v1/hostile/case%00.html",
        "/api/v1/hostile/%01",
        "/api/v1/hostile/%09",
        "/api/v1/hostile/%0a",
        "/api/v1/hostile/%0d",
        "/api/v1/hostile/a%0d%0aHost:%20evil",
        "/api/v1/hostile/%7f",
        "/api/v1/hostile/%c2%85",
        // UTF-8, overlong, cut off, surrogates, beyond the end, look-alikes.
        "/api/v1/hostile/%c0%80",
        "/api/v1/hostile/%c0%ae%c0%ae",
        "/api/v1/hostile/%c1%9c",
        "/api/v1/hostile/%e0%80%ae",
        "/api/v1/hostile/%e0%80%af",
        "/api/v1/hostile/%f0%80%80%af",
        "/api/v1/hostile/%ff",
        "/api/v1/hostile/%fe%ff",
        "/api/v1/hostile/%80",
        "/api/v1/hostile/%c3",
        "/api/v1/hostile/%e2%82",
        "/api/v1/hostile/%ed%a0%80",
        "/api/v1/hostile/%f4%90%80%80",
        "/api/v1/hostile/%e2%88%95case",
        "/api/v1/hostile/%ef%bb%bf",
        // Versions and managed routes.
        "/api/v01/hostile/case",
        "/api/v1.0/hostile/case",
        "/api/%76%31%2e0/hostile/case",
    ] {
        let bytes = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        cases.push(Case::declined(400, path, bytes));
        let absolute = format!("GET http://x{path} HTTP/1.1\r\nHost: x\r\n\r\n");
        cases.push(Case::declined(400, format!("http://x{path}"), absolute));
    }
    for path in [
        "/api/authentication/login",
        "/API/Authentication/Login",
        "/api/authentication/login/",
        "/api/%61uthentication/login",
        "/api/v1/authentication/login",
        "/api/v1/%41UTHENTICATION/request_token",
    ] {
        let bytes = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        cases.push(Case::declined(403, path, bytes));
    }
    for path in [
        "/api/v1/hostile\\case",
        "/api/v1\\..\\hostile/case",
        "/api/v1/hostile/a b",
        "/api/v1/hostile/\0",
        "/api/v1/hostile/\u{1}",
        "/api/v1/hostile/\u{7f}",
        "/api/v1/hostile/\u{e9}",
        "/api/v1/hostile/<a>",
        "/api/v1/hostile/\"a\"",
        "/api/v1/hostile/{a}",
        "/api/v1/hostile/a^b",
        "/api/v1/hostile/a`b",
        "/api/v1/hostile/a#b",
    ] {
        let bytes = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        cases.push(Case::refused(path, bytes));
    }
    for path in [
        "/api/v1/hostile/a%20b",
        "/api/v1/hostile/case/%C3%A9",
        "/api/v1/hostile/..a",
        "/api/v1/hostile/a..b",
        "/api/v1/hostile/.a",
        "/api/v1/hostile/a,b",
        "/api/v1/hostile/a:b@c",
        "/api/v1/hostile/a!$&'()*+=~",
        "/api/v1/hostile/%41",
        "/api/v1/hostile/case/",
        "/API/V1/Hostile/Case",
        "/api/v1/hostile/case?a=../../b//c;d",
    ] {
        let bytes = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        cases.push(Case::forwarded(path, bytes, ("GET", path, "")));
    }
    check_all(cases).await;
}
