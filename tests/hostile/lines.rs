//! Request lines, versions and hosts.

use crate::case::{Case, PATH, check_all};

#[tokio::test(flavor = "multi_thread")]
async fn request_lines() {
    let mut cases = Vec::new();
    for line in [
        format!("GET  {PATH} HTTP/1.1"),
        format!("GET {PATH}  HTTP/1.1"),
        format!("GET {PATH} HTTP/1.1 "),
        format!(" GET {PATH} HTTP/1.1"),
        format!("\tGET {PATH} HTTP/1.1"),
        format!("GET\t{PATH} HTTP/1.1"),
        format!("GET {PATH}\tHTTP/1.1"),
        format!("GET\t{PATH}\tHTTP/1.1"),
        format!("GET\u{b}{PATH}\u{b}HTTP/1.1"),
        format!("GET\u{c}{PATH} HTTP/1.1"),
        format!("GET\u{a0}{PATH} HTTP/1.1"),
        format!("GET\0{PATH} HTTP/1.1"),
        format!("GET {PATH}\0 HTTP/1.1"),
        format!("GET {PATH} HTTP/1.1\0"),
        format!("GET {PATH} HTTP/1.1\r"),
        format!("GET {PATH}\r HTTP/1.1"),
        format!("GET {PATH}\n HTTP/1.1"),
        format!("GET {PATH} x HTTP/1.1"),
        format!("GET {PATH} HTTP/1.1 HTTP/1.1"),
        format!("\r\n\r\nGET {PATH} HTTP/1.1"),
        format!("\nGET {PATH} HTTP/1.1"),
        format!("\rGET {PATH} HTTP/1.1"),
        format!("\u{feff}GET {PATH} HTTP/1.1"),
        format!("\0GET {PATH} HTTP/1.1"),
        // Versions.
        format!("GET {PATH}"),
        format!("GET {PATH} "),
        format!("GET {PATH} HTTP"),
        format!("GET {PATH} HTTP/"),
        format!("GET {PATH} HTTP/1"),
        format!("GET {PATH} HTTP/1."),
        format!("GET {PATH} HTTP/.1"),
        format!("GET {PATH} HTTP/0.9"),
        format!("GET {PATH} HTTP/1.2"),
        format!("GET {PATH} HTTP/1.9"),
        format!("GET {PATH} HTTP/1.11"),
        format!("GET {PATH} HTTP/1.01"),
        format!("GET {PATH} HTTP/01.1"),
        format!("GET {PATH} HTTP/11.1"),
        format!("GET {PATH} HTTP/1,1"),
        format!("GET {PATH} HTTP/1.1.1"),
        format!("GET {PATH} HTTP/1.-1"),
        format!("GET {PATH} HTTP/2"),
        format!("GET {PATH} HTTP/2.0"),
        format!("GET {PATH} HTTP/3"),
        format!("GET {PATH} http/1.1"),
        format!("GET {PATH} Http/1.1"),
        format!("GET {PATH} HTTPS/1.1"),
        format!("GET {PATH} HTTP /1.1"),
        format!("GET {PATH} HTTP/ 1.1"),
        format!("GET {PATH} ICY/1.1"),
        // Prefaces that are none.
        "PRI * HTTP/2.0".into(),
        "PRI * HTTP/1.1".into(),
        format!("PRI {PATH} HTTP/2.0"),
        "PRI * HTTP/2.0\r\n\r\nXX".into(),
        // Methods.
        "GET".into(),
        format!("{PATH} HTTP/1.1"),
        format!("G@T {PATH} HTTP/1.1"),
        format!("G:T {PATH} HTTP/1.1"),
        format!("\"GET\" {PATH} HTTP/1.1"),
        format!("G(E)T {PATH} HTTP/1.1"),
        format!("G,T {PATH} HTTP/1.1"),
        format!("G\u{e9}T {PATH} HTTP/1.1"),
        format!("{} {PATH} HTTP/1.1", "M".repeat(100)),
        format!("REFUSED {PATH} HTTP/1.1"),
        "CONNECT x:443 HTTP/1.1".into(),
        format!("CONNECT {PATH} HTTP/1.1"),
        "CONNECT http://x/ HTTP/1.1".into(),
        // Targets.
        "GET HTTP/1.1".into(),
        "GET x HTTP/1.1".into(),
        "GET x:80 HTTP/1.1".into(),
        "GET * HTTP/1.1".into(),
        "GET ** HTTP/1.1".into(),
        "GET ?a HTTP/1.1".into(),
        "GET #a HTTP/1.1".into(),
        "GET api/v1/hostile/case HTTP/1.1".into(),
        "GET ../api/v1/hostile/case HTTP/1.1".into(),
        "GET \\api\\v1\\hostile\\case HTTP/1.1".into(),
        "GET @x/api/v1/hostile/case HTTP/1.1".into(),
        format!("GET {PATH}#fragment HTTP/1.1"),
        format!("GET {PATH}?a#fragment HTTP/1.1"),
        format!("GET {PATH}?a=\"b\" HTTP/1.1"),
        format!("GET {PATH}?a=<b> HTTP/1.1"),
        format!("GET {PATH}?a=\u{e9} HTTP/1.1"),
        format!("GET {PATH}?a=\u{1} HTTP/1.1"),
        format!("GET {PATH}?a=\u{7f} HTTP/1.1"),
        format!("GET http://evil{PATH} HTTP/1.1"),
        format!("GET https://evil{PATH} HTTP/1.1"),
        format!("GET http://x:80{PATH} HTTP/1.1"),
        format!("GET http://x.{PATH} HTTP/1.1"),
        format!("GET http://evil@x{PATH} HTTP/1.1"),
        format!("GET http://x@evil{PATH} HTTP/1.1"),
        format!("GET http://x:x@evil{PATH} HTTP/1.1"),
        format!("GET http://x#{PATH} HTTP/1.1"),
        format!("GET http://x\\@evil{PATH} HTTP/1.1"),
        format!("GET http://{PATH} HTTP/1.1"),
        format!("GET http:{PATH} HTTP/1.1"),
        format!("GET http:/x{PATH} HTTP/1.1"),
        format!("GET ftp://x{PATH} HTTP/1.1"),
        format!("GET file://{PATH} HTTP/1.1"),
        format!("GET ws://x{PATH} HTTP/1.1"),
        format!("GET unix:/run{PATH} HTTP/1.1"),
        "GET javascript:alert(1) HTTP/1.1".into(),
        // Other protocols.
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}".into(),
        "SSH-2.0-OpenSSH_9.6".into(),
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2".into(),
        "EHLO evil".into(),
        "*1\r\n$4\r\nPING".into(),
        "<policy-file-request/>".into(),
        "\r\n\r\n\0\r\nQUIT\n!\u{11}\0\u{c}".into(),
    ] {
        cases.push(Case::refused(line.clone(), format!("{line}\r\nHost: x\r\n\r\n")));
    }
    for (line, method, target) in [
        (format!("GET {PATH} HTTP/1.1"), "GET", PATH),
        (format!("\r\nGET {PATH} HTTP/1.1"), "GET", PATH),
        (format!("get {PATH} HTTP/1.1"), "get", PATH),
        (format!("GeT {PATH} HTTP/1.1"), "GeT", PATH),
        (format!("M-!#$%&'*+.^_`|~ {PATH} HTTP/1.1"), "M-!#$%&'*+.^_`|~", PATH),
        (format!("GET http://x{PATH} HTTP/1.1"), "GET", PATH),
        (format!("GET HTTP://X{PATH} HTTP/1.1"), "GET", PATH),
        (format!("GET https://x{PATH} HTTP/1.1"), "GET", PATH),
        (
            format!("GET {PATH}?a=/../b;c//d%2e%00 HTTP/1.1"),
            "GET",
            "/api/v1/hostile/case?a=/../b;c//d%2e%00",
        ),
        (format!("GET {PATH}? HTTP/1.1"), "GET", "/api/v1/hostile/case?"),
        (format!("GET {PATH}??a?b HTTP/1.1"), "GET", "/api/v1/hostile/case??a?b"),
        (format!("HEAD {PATH} HTTP/1.1"), "HEAD", PATH),
    ] {
        let bytes = format!("{line}\r\nHost: x\r\n\r\n");
        cases.push(Case::forwarded(line, bytes, (method, target, "")));
    }
    for method in ["TRACE", "trace"] {
        let bytes = format!("{method} {PATH} HTTP/1.1\r\nHost: x\r\n\r\n");
        cases.push(Case::declined(501, method, bytes));
    }
    check_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_and_old_versions() {
    let mut cases = Vec::new();
    for fields in [
        "",
        "X: Host: x\r\n",
        "Host: x\r\nHost: x\r\n",
        "Host: x\r\nHost: evil\r\n",
        "Host: evil\r\nhost: x\r\n",
        "Host: x, evil\r\n",
        "Host: x evil\r\n",
        "Host: x\tevil\r\n",
        "Host:\r\n",
        "Host: \r\n",
        "Host: :\r\n",
        "Host: :80\r\n",
        "Host: x:\r\n",
        "Host: x:y\r\n",
        "Host: x:80y\r\n",
        "Host: x:-1\r\n",
        "Host: x:+80\r\n",
        "Host: x:65536\r\n",
        "Host: x:99999999999\r\n",
        "Host: x:80:80\r\n",
        "Host: x:80, evil\r\n",
        "Host: x:80@evil\r\n",
        "Host: evil@x\r\n",
        "Host: x/\r\n",
        "Host: x/evil\r\n",
        "Host: x?evil\r\n",
        "Host: x#evil\r\n",
        "Host: x\\evil\r\n",
        "Host: http://x\r\n",
        "Host: %78\r\n",
        "Host: x%00evil\r\n",
        "Host: x\0evil\r\n",
        "Host: \"x\"\r\n",
        "Host: [::1\r\n",
        "Host: ::1\r\n",
        "Host: [::1]evil\r\n",
        "Host: [evil]\r\n",
        "Host: [::1%25eth0]\r\n",
        "Host: \u{e9}\r\n",
        "Host: x;evil\r\n",
        " Host: x\r\n",
        "Host : x\r\n",
        "Host\t: x\r\n",
        "Host: x\r\n evil\r\n",
        "Host: x\nHost: evil\r\n",
        "H\u{f6}st: x\r\n",
    ] {
        let bytes = format!("GET {PATH} HTTP/1.1\r\n{fields}\r\n");
        cases.push(Case::refused(format!("{fields:?}"), bytes));
    }
    for host in ["x", "X.Y-z", "x:1", "x_y:80", "127.0.0.1", "[::1]", "[::1]:80", "169.254.169.254"]
    {
        let bytes = format!("GET {PATH} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        cases.push(Case::forwarded(format!("Host: {host}"), bytes, ("GET", PATH, "")));
    }
    // HTTP/1.0 has no hosts, ends its connections, and may still have a body.
    for (fields, body) in [
        ("", ""),
        ("Host: x\r\n", ""),
        ("Content-Length: 5\r\n", "hello"),
        ("Connection: close\r\n", ""),
        ("Upgrade: h2c\r\nConnection: upgrade\r\n", ""),
    ] {
        let bytes = format!("POST {PATH} HTTP/1.0\r\n{fields}\r\n{body}");
        let case = Case::forwarded(format!("HTTP/1.0 {fields:?}"), bytes, ("POST", PATH, body));
        cases.push(case.and_ends());
    }
    for fields in ["Host: x\r\nHost: x\r\n", "Host: x/y\r\n", "Content-Length: 5, 5\r\n"] {
        let bytes = format!("POST {PATH} HTTP/1.0\r\n{fields}\r\n");
        cases.push(Case::refused(format!("HTTP/1.0 {fields:?}"), bytes));
    }
    let bytes = format!("GET http://evil{PATH} HTTP/1.0\r\nHost: x\r\n\r\n");
    cases.push(Case::refused("HTTP/1.0 with another authority", bytes));
    check_all(cases).await;
}
