//! Nothing takes effect twice, whatever happens to our token or to the way to Amove.

use std::collections::BTreeMap;

use amove_gateway::emulator::{DeadSession, Emulator, Fault, Host, Options, Seen, Stats};
use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http_body_util::Full;

use crate::{
    routes::{Row, rows_of},
    support::{ECHO, TestGateway, USERINFO, Wire, request},
};

/// Routes where a refusal says nothing about our token (contract section 4.7).
const JUDGE_SOMETHING_ELSE: [&str; 2] = [
    "/api/v1/desktop/onedrive_authorization_callback",
    "/api/v1/desktop/googledrive_authorization_callback",
];

/// A body with which many routes do something.
fn body_for(row: &Row) -> &'static str {
    let bulk = ["assign_sharedclouddrive", "assign_users", "import_users"];
    match &*row.body {
        "form" => "SAMLResponse=x",
        "json" if row.template.contains("/permission/") => "[]",
        "json" if bulk.iter().any(|end| row.template.ends_with(end)) => "[]",
        "json" => {
            r#"{"name":"n","username":"a@b.test","email":"a@b.test","title":"t","idToken":"i"}"#
        }
        _ => "",
    }
}

/// The request for the row at this place, which is its id.
fn request_for(at: usize, row: &Row) -> Request<Full<Bytes>> {
    let form = "application/x-www-form-urlencoded";
    let kind = if row.body == "form" { form } else { "application/json" };
    let headers = [("x-request-id", &*at.to_string()), ("content-type", kind)];
    request(&row.method, &row.path(), &headers, body_for(row))
}

/// What Amove saw of each request, by its id.
fn seen_by_id(gateway: &TestGateway) -> BTreeMap<usize, Vec<Seen>> {
    let mut seen: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for one in gateway.seen() {
        let id = one.header("x-request-id").and_then(|id| id.parse().ok()).expect("our id");
        seen.entry(id).or_default().push(one);
    }
    seen
}

#[tokio::test]
async fn whatever_shows_a_dead_session_each_route_is_replayed_as_the_catalogue_says() {
    let mut rows = rows_of("main");
    rows.retain(|row| row.auth == "bearer");
    for denial in [DeadSession::Plain, DeadSession::Session, DeadSession::Token] {
        let options = Options { mfa: false, dead_session: denial, ..Options::default() };
        let gateway = TestGateway::before(options, "").await.logged_in().await;
        gateway.amove.revoke_sessions();
        // All are sent before the first is denied: those that come later wait for the new token.
        for host in [Host::Main, Host::Auth] {
            let (ms, host) = (1500, Some(host));
            gateway.amove.inject(Fault::Latency { ms, count: None, host, route: None });
        }

        let calls = rows
            .iter()
            .enumerate()
            .map(async |(at, row)| gateway.connect().await.call(request_for(at, row)).await);
        let replies = join_all(calls).await;

        let seen = seen_by_id(&gateway);
        for (at, (row, reply)) in rows.iter().zip(&replies).enumerate() {
            let context = format!("{denial:?}, {row:?}: {reply:?}");
            let problem = reply.problem();
            let ours = problem.as_deref() == Some("upstream-auth");
            let tokens: Vec<_> = seen[&at].iter().map(|it| it.header("authorization")).collect();
            if JUDGE_SOMETHING_ELSE.contains(&&*row.template) {
                assert_eq!((tokens.len(), ours), (1, false), "{context}");
                assert_eq!(problem.is_none(), denial == DeadSession::Plain, "{context}");
                assert_eq!(reply.status, 401, "{context}");
            } else if row.is("one-shot") {
                assert_eq!((tokens.len(), ours, reply.status), (1, true, 502), "{context}");
            } else {
                assert_eq!(tokens.len(), 2, "{context}");
                assert_ne!(tokens[0], tokens[1], "{context}");
                assert!(reply.status < 500 && !ours, "{context}");
                assert_eq!(seen[&at][0].body, seen[&at][1].body, "{context}");
            }
        }
        let stats = gateway.amove.stats();
        assert_eq!((stats.logins, stats.failed_logins), (2, 0), "{denial:?}");
        assert!(stats.side_effects.len() > 30, "{denial:?}: most would prove nothing: {stats:?}");
        let twice = effects_told_twice(&stats);
        assert_eq!(twice, None, "{denial:?}");
    }
}

/// Effects of more than one request, logins aside.
fn effects_told_twice(stats: &Stats) -> Option<(&String, &u64)> {
    let mut effects = stats.side_effects.iter();
    effects.find(|(route, count)| **count > 1 && !route.contains("/authentication/"))
}

/// What may befall the way to Amove.
fn mishaps(route: &str) -> [Fault; 4] {
    let (count, host, route) = (1, Some(Host::Main), Some(route.to_owned()));
    [
        Fault::Reset { count, acted: true, host, route: route.clone() },
        Fault::Reset { count, acted: false, host, route: route.clone() },
        Fault::Truncate { count, host, route: route.clone() },
        Fault::Stall { count, host, route },
    ]
}

#[tokio::test]
async fn what_costs_mails_or_works_once_reaches_amove_once_whatever_befalls_the_way() {
    let mut rows = rows_of("main");
    rows.retain(|row| ["costs", "mail", "one-shot"].iter().any(|tag| row.is(tag)));
    assert!(rows.iter().any(|row| row.template.ends_with("transfer/transfer")));
    for mishap in 0..4 {
        let settings = "upstream.response_timeout = \"1s\"";
        let gateway = TestGateway::without_mfa(settings).await.logged_in().await;
        for row in &rows {
            gateway.amove.inject(mishaps(&row.path())[mishap].clone());
        }

        let calls = rows.iter().enumerate().map(async |(at, row)| {
            // The body of the answer may break off.
            gateway.connect().await.open(request_for(at, row)).await.status()
        });
        let statuses = join_all(calls).await;

        let seen = seen_by_id(&gateway);
        for (at, row) in rows.iter().enumerate() {
            assert_eq!(seen[&at].len(), 1, "mishap {mishap}, {row:?}: {}", statuses[at]);
        }
        let stats = gateway.amove.stats();
        let twice = effects_told_twice(&stats);
        assert_eq!(twice, None, "mishap {mishap}");
        assert_eq!(stats.request_tokens_reused, 0, "mishap {mishap}");
    }
}

const INSERT: &str = "/api/v1/project/insert";

/// Writes a request whose body comes in chunks of these sizes.
async fn write_chunked(wire: &mut Wire, sizes: &[usize], trailers: &str) {
    let head = "Host: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked";
    wire.write(format!("POST {INSERT} HTTP/1.1\r\n{head}\r\n\r\n").as_bytes()).await;
    let body = json_of(sizes.iter().sum());
    let mut rest = &*body;
    for size in sizes {
        let (chunk, after) = rest.split_at(*size);
        wire.write(format!("{size:x}\r\n{chunk}\r\n").as_bytes()).await;
        rest = after;
    }
    wire.write(format!("0\r\n{trailers}\r\n").as_bytes()).await;
}

/// JSON of so many bytes.
fn json_of(bytes: usize) -> String {
    let frame = r#"{"name":""}"#.len();
    format!("{{\"name\":\"{}\"}}", "x".repeat(bytes - frame))
}

#[tokio::test]
async fn a_body_that_does_not_say_its_size_is_replayed_if_it_turns_out_small() {
    let gateway = TestGateway::without_mfa("").await.logged_in().await;
    let cases: [(&[usize], usize); 4] = [
        (&[20], 2),
        (&[20, 1000, 64 * 1024 - 1020], 2),
        (&[20, 1000, 64 * 1024 - 1019], 1),
        (&[100 * 1024], 1),
    ];
    for (sizes, attempts) in cases {
        gateway.amove.forget_requests();
        gateway.amove.revoke_sessions();
        let mut wire = gateway.wire().await;

        write_chunked(&mut wire, sizes, "").await;

        let reply = wire.read().await;
        assert_eq!(reply.status, if attempts == 2 { 200 } else { 502 }, "{sizes:?}: {reply:?}");
        let seen = gateway.seen();
        assert_eq!(seen.len(), attempts, "{sizes:?}");
        let size: usize = sizes.iter().sum();
        assert!(seen.iter().all(|seen| seen.body_length == size as u64), "{sizes:?}: {seen:?}");
    }
    assert_eq!(gateway.amove.stats().side_effects[&format!("POST {INSERT}")], 2);
}

#[tokio::test]
async fn without_a_buffer_only_what_has_no_body_is_replayed() {
    let settings = "identities.main.replay_buffer = \"0B\"";
    let gateway = TestGateway::without_mfa(settings).await.logged_in().await;
    for (method, path, body, attempts) in [
        ("GET", USERINFO, "", 2),
        ("POST", "/api/v1/user/generate_mfa_token", "", 2),
        ("POST", INSERT, r#"{"name":"x"}"#, 1),
    ] {
        gateway.amove.forget_requests();
        gateway.amove.inject(Fault::Unauthorized { count: 1 });

        let reply = gateway.send(method, path, &[], body).await;

        assert_eq!(reply.status, if attempts == 2 { 200 } else { 502 }, "{path}: {reply:?}");
        assert_eq!(gateway.seen().len(), attempts, "{path}");
    }
}

#[tokio::test]
async fn a_caller_is_told_why_its_request_was_not_replayed() {
    let settings = "identities.main.replay_buffer = \"10B\"";
    let gateway = TestGateway::without_mfa(settings).await.logged_in().await;
    for (path, body, told) in [
        (INSERT, r#"{"name":"too long"}"#, "too large to keep"),
        (ECHO, "{}", "works once"),
        ("/api/v1/desktop/box_authorization_callback", "{}", "works once"),
    ] {
        gateway.amove.inject(Fault::Unauthorized { count: 1 });

        let reply = gateway.post(path, body).await;

        assert_eq!(reply.outcome(), (502, "upstream-auth".into()), "{path}");
        let detail = reply.json()["detail"].to_string();
        assert!(detail.contains(told), "{path}: {detail}");
        let both = detail.contains("too large") && detail.contains("works once");
        assert!(!both, "{path}: {detail}");
    }
}

#[tokio::test]
async fn a_head_is_replayed_like_a_get() {
    let gateway = TestGateway::without_mfa("").await.logged_in().await;
    gateway.amove.inject(Fault::Unauthorized { count: 1 });

    let reply = gateway.send("HEAD", ECHO, &[], "").await;

    assert_eq!((reply.status, gateway.seen().len()), (200, 2), "{reply:?}");
}

#[tokio::test]
async fn a_body_that_breaks_off_before_it_is_whole_is_never_sent() {
    let gateway = TestGateway::without_mfa("").await.logged_in().await;
    let mut wire = gateway.wire().await;
    let head = "Host: x\r\nContent-Type: application/json\r\nContent-Length: 20";
    wire.write(format!("POST {INSERT} HTTP/1.1\r\n{head}\r\n\r\n{{\"na").as_bytes()).await;

    drop(wire);

    assert_eq!(gateway.get(USERINFO).await.status, 200);
    assert_eq!(gateway.the_one_seen().target, USERINFO);
}

#[tokio::test]
async fn who_waits_for_a_100_gets_one_only_if_there_is_a_session() {
    let gateway = TestGateway::without_mfa("").await.logged_in().await;
    gateway.amove.inject(Fault::Unauthorized { count: 1 });
    let body = r#"{"name":"x"}"#;
    let length = body.len();
    let head = format!(
        "POST {INSERT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
    );

    let mut wire = gateway.wire().await;
    wire.write(head.as_bytes()).await;
    assert_eq!(wire.read().await.status, 100);
    wire.write(body.as_bytes()).await;
    assert_eq!(wire.read().await.status, 200);
    assert_eq!(gateway.seen().len(), 2);

    let amove = Emulator::start(Options::default()).await.expect("an emulator");
    amove.inject(Fault::AuthDown { on: true });
    let gateway = TestGateway::in_front_of(amove, "").await;
    let mut wire = gateway.wire().await;
    wire.write(head.as_bytes()).await;
    assert_eq!(wire.read().await.status, 503, "nobody sends a body for nothing");
}

#[tokio::test]
async fn what_follows_a_body_is_replayed_with_it() {
    let settings = "upstream.http2 = \"always\"";
    let gateway = TestGateway::without_mfa(settings).await.logged_in().await;
    gateway.amove.inject(Fault::Unauthorized { count: 1 });
    let head = format!("GET {ECHO} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n");
    let mut wire = gateway.wire().await;

    wire.write(format!("{head}\r\n2\r\nab\r\n0\r\nX-Sum: 3\r\n\r\n").as_bytes()).await;

    let reply = wire.read().await;
    assert_eq!(gateway.seen().len(), 2);
    assert_eq!(reply.json()["trailers"], serde_json::json!([["x-sum", "3"]]), "{reply:?}");
}
