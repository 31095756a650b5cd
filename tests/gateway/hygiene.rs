//! What must not cross the gateway, in either direction.

use amove_gateway::emulator::{Fault, Host, PASSWORD, TOTP_SECRET};

use crate::support::{ECHO, Reply, TestGateway, USERINFO, hash_of, request};

fn raw(bytes: impl Into<String>) -> Fault {
    Fault::Raw { text: bytes.into(), count: 1, host: Some(Host::Main), route: None }
}

/// Header fields of callers that are nobody's business behind the gateway.
const PRIVATE: [(&str, &str); 30] = [
    ("authorization", "Bearer canary"),
    ("x-api-key", "canary"),
    ("cookie", "canary=1"),
    ("cookie2", "canary"),
    ("proxy-authorization", "Basic canary"),
    ("proxy-connection", "canary"),
    ("proxy-anything", "canary"),
    ("forwarded", "for=canary"),
    ("x-forwarded-for", "canary"),
    ("x-forwarded-host", "canary"),
    ("x-forwarded-proto", "canary"),
    ("x-forwarded-anything", "canary"),
    ("x-real-ip", "canary"),
    ("x-client-ip", "canary"),
    ("true-client-ip", "canary"),
    ("client-cert", "canary"),
    ("te", "canary"),
    ("trailer", "canary"),
    ("keep-alive", "canary"),
    ("http2-settings", "canary"),
    ("via", "1.1 canary"),
    ("x-http-method", "canary"),
    ("x-http-method-override", "canary"),
    ("x-method-override", "canary"),
    ("x-original-url", "/canary"),
    ("x-rewrite-url", "/canary"),
    ("x-original-host", "canary"),
    ("x-host", "canary"),
    ("traceparent", "canary"),
    ("baggage", "canary"),
];

#[tokio::test]
async fn what_describes_the_caller_never_reaches_amove() {
    let gateway = TestGateway::start().await.logged_in().await;
    for (name, value) in PRIVATE {
        gateway.amove.forget_requests();

        let reply = gateway.get_with(ECHO, &[(name, value)]).await;

        assert_eq!(reply.status, 200, "{name}: {reply:?}");
        let seen = gateway.the_one_seen();
        let leaked = seen.headers.iter().any(|(_, value)| value.contains("canary"));
        assert!(!leaked, "{name} reaches Amove: {seen:#?}");
        let bearer = seen.header("authorization").expect("our bearer");
        assert!(bearer.starts_with("Bearer ") && bearer.len() > 100);
        assert!(!String::from_utf8_lossy(&reply.body).contains("canary"));
    }
}

#[tokio::test]
async fn what_describes_the_content_reaches_amove() {
    let gateway = TestGateway::start().await.logged_in().await;
    let fields = [
        ("accept", "application/json"),
        ("accept-language", "de"),
        ("content-type", "application/json; charset=utf-8"),
        ("user-agent", "billing/1.0"),
        ("x-signalr-user-agent", "Microsoft SignalR/8.0"),
        ("if-none-match", "\"x\""),
        ("idempotency-key", "k"),
    ];

    let reply = gateway.send("POST", ECHO, &fields, "{\"a\":1}").await;

    assert_eq!(reply.json()["body"], "{\"a\":1}");
    let seen = gateway.the_one_seen();
    for (name, value) in fields {
        assert_eq!(seen.header(name), Some(value));
    }
    let authority = gateway.amove.api_url();
    assert_eq!(seen.header("host"), authority.strip_prefix("http://"));
}

#[tokio::test]
async fn naming_a_field_in_connection_removes_the_callers_but_never_ours() {
    let gateway = TestGateway::start().await.logged_in().await;
    let target = format!("GET {ECHO} HTTP/1.1\r\nHost: x\r\n");
    let connection = "Connection: close, authorization, X-Own, host, via, x-request-id\r\n";

    let answer = gateway.raw(format!("{target}{connection}X-Own: canary\r\n\r\n").as_bytes()).await;

    assert_eq!(Reply::parse(&answer).map(|reply| reply.status), Some(200));
    let seen = gateway.the_one_seen();
    assert_eq!(seen.header("x-own"), None);
    for name in ["authorization", "host", "via", "x-request-id"] {
        assert!(seen.header(name).is_some(), "{name} was removed: {seen:#?}");
    }
    assert!(!seen.headers.iter().any(|(_, value)| value.contains("x-own")));
}

#[tokio::test]
async fn a_post_without_a_body_says_so() {
    let gateway = TestGateway::start().await.logged_in().await;

    let reply = gateway.send("POST", "/api/v1/user/generate_mfa_token", &[], "").await;

    assert_eq!(reply.status, 200);
    let seen = gateway.the_one_seen();
    assert_eq!(seen.header("content-length"), Some("0"));
    assert_eq!(seen.header("transfer-encoding"), None);
}

#[tokio::test]
async fn http2_hides_nothing_from_the_same_rules() {
    let gateway = TestGateway::start().await.logged_in().await;
    let headers = [("cookie", "canary"), ("x-forwarded-for", "canary"), ("x-own", "kept")];

    let reply = gateway.connect_http2().await.call(request("GET", ECHO, &headers, "")).await;

    assert_eq!(reply.status, 200);
    let seen = gateway.the_one_seen();
    assert!(!seen.headers.iter().any(|(_, value)| value.contains("canary")), "{seen:#?}");
    assert_eq!(seen.header("x-own"), Some("kept"));
    assert!(seen.header("authorization").is_some());
}

#[tokio::test]
async fn redirects_are_the_callers_to_follow() {
    let gateway = TestGateway::start().await.logged_in().await;
    let form = [("content-type", "application/x-www-form-urlencoded")];

    let reply =
        gateway.send("POST", "/api/v1/sso/saml_acs", &form, "SAMLResponse=signed-by-them").await;

    assert_eq!(reply.status, 302);
    let location = reply.header("location").expect("a location");
    assert!(location.starts_with("https://app.corp.test/sso?jwt="), "{location}");
    assert_eq!(gateway.seen().len(), 1);
}

#[tokio::test]
async fn what_amove_means_for_the_gateway_stays_here() {
    let gateway = TestGateway::start().await.logged_in().await;
    gateway.amove.inject(raw(
        "HTTP/1.1 200 OK\r\nset-cookie: session=canary\r\nalt-svc: h3=\"canary:443\"\r\n\
         connection: close, x-hop\r\nx-hop: canary\r\nkeep-alive: timeout=canary\r\n\
         proxy-authenticate: canary\r\nx-request-id: canary\r\nx-own: kept\r\n\
         content-length: 2\r\n\r\n{}",
    ));

    let reply = gateway.get(USERINFO).await;

    assert_eq!((reply.status, &*reply.body), (200, &b"{}"[..]));
    assert_eq!(reply.header("x-own"), Some("kept"));
    assert!(!format!("{reply:?}").contains("canary"), "{reply:?}");
}

#[tokio::test]
async fn answers_are_not_to_be_stored_unless_amove_says_otherwise() {
    let gateway = TestGateway::start().await.logged_in().await;

    assert_eq!(gateway.get(USERINFO).await.header("cache-control"), Some("no-store"));
    assert_eq!(gateway.get("/api//x").await.header("cache-control"), Some("no-store"));
    gateway.amove.inject(raw(
        "HTTP/1.1 200 OK\r\ncache-control: private, max-age=5\r\ncontent-length: 0\r\n\r\n",
    ));
    let own = gateway.get(USERINFO).await;
    assert_eq!(own.header("cache-control"), Some("private, max-age=5"));
}

/// Everything that callers and operators are told in the course of a rough day.
async fn everything_said(gateway: &TestGateway, key: &str) -> Vec<Reply> {
    let key = [("x-api-key", key)];
    let mut replies = Vec::new();
    let paths = [
        USERINFO,
        "/api/user/userinfo",
        "/api//x",
        "/api/authentication/login",
        "/api/v1/emulator/fail?code=TOTP",
        "/api/v1/emulator/fail?code=TOKEN",
        "/api/v1/cloudaccount/get_all",
        "/api/v1/brand/new",
        "/api/rm",
    ];
    for path in paths {
        replies.push(gateway.get_with(path, &key).await);
        replies.push(gateway.send("POST", path, &key, "{}").await);
    }
    replies.push(gateway.get_with(USERINFO, &[("x-api-key", "wrong-canary")]).await);
    let faults = [
        Fault::Unauthorized { count: 2 },
        Fault::Reset { count: 1, acted: false, host: Some(Host::Main), route: None },
        raw("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n"),
    ];
    for fault in faults {
        gateway.amove.inject(fault);
        replies.push(gateway.get_with(USERINFO, &key).await);
    }
    for path in
        ["/readyz?verbose", "/healthz?verbose", "/-/status.json", "/metrics", "/livez", "/nothing"]
    {
        replies.push(gateway.ask_operator(path).await);
    }
    replies
}

#[tokio::test]
async fn nobody_is_ever_told_a_secret() {
    let key = "caller-key-canary";
    let settings = format!("callers.billing.api_key_hash = \"{}\"", hash_of(key));
    let gateway = TestGateway::without_mfa(&settings).await.logged_in().await;

    let said = everything_said(&gateway, key).await;

    let mut secrets: Vec<String> =
        [PASSWORD, TOTP_SECRET, key, "wrong-canary"].map(str::to_owned).into();
    let bearers = gateway.amove.requests().into_iter().filter_map(|seen| {
        seen.header("authorization").and_then(|it| it.strip_prefix("Bearer ")).map(str::to_owned)
    });
    secrets.extend(bearers);
    assert!(secrets.len() > 5, "tokens were in use");
    for reply in said {
        let text = format!("{:?} {}", reply.headers, String::from_utf8_lossy(&reply.body));
        let told = secrets.iter().find(|secret| text.contains(&**secret));
        assert_eq!(told, None, "{text}");
    }
}

#[tokio::test]
async fn a_refused_password_is_not_told_either() {
    let gateway = TestGateway::with("identities.main.password = \"pw-canary\"").await;

    let mut said = vec![gateway.get(USERINFO).await];
    for path in ["/readyz?verbose", "/-/status.json"] {
        said.push(gateway.ask_operator(path).await);
    }

    assert_eq!(said[0].outcome(), (502, "upstream-auth".into()));
    for reply in said {
        let text = format!("{:?} {}", reply.headers, String::from_utf8_lossy(&reply.body));
        assert!(!text.contains("canary") && !text.contains(TOTP_SECRET), "{text}");
    }
}

#[tokio::test]
async fn a_key_in_a_query_is_a_query_and_nothing_else() {
    let settings = format!("callers.billing.api_key_hash = \"{}\"", hash_of("key-canary"));
    let gateway = TestGateway::with(&settings).await.logged_in().await;

    let reply =
        gateway.get(&format!("{USERINFO}?api_key=key-canary&access_token=key-canary")).await;

    assert_eq!(reply.outcome(), (401, "unauthenticated".into()));
    assert_eq!(gateway.seen().len(), 0);
}
