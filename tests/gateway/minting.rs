//! Request tokens: fresh ones for who brings none, and no byte of theirs touched.

use amove_gateway::emulator::{Fault, Host};
use bytes::Bytes;

use crate::{
    routes::{Row, rows_of},
    support::{Reply, TestGateway},
};

const SIGNUP: &str = "/api/v1/desktop/signup";

/// The routes that want a request token.
fn rows() -> Vec<Row> {
    let mut rows = rows_of("main");
    rows.retain(|row| row.auth == "request_token");
    assert_eq!(rows.len(), 5);
    rows
}

/// What Amove saw of a request with `body`, and how it was answered.
async fn arrives_as(gateway: &TestGateway, path: &str, body: &str) -> (String, Reply) {
    gateway.amove.forget_requests();
    let reply = gateway.post(path, body.to_owned()).await;
    let seen = gateway.the_one_seen();
    assert_eq!(seen.header("content-length"), Some(&*seen.body.len().to_string()), "{body}");
    assert_eq!(seen.header("authorization"), None);
    (String::from_utf8(seen.body).expect("text"), reply)
}

/// The token within `text`, which was minted.
fn token_in(text: &str) -> &str {
    let token = text.split("\"requestToken\"").nth(1).and_then(|rest| rest.split('"').nth(1));
    token.expect("a token")
}

#[tokio::test]
async fn who_brings_no_token_is_given_one_and_nothing_else_changes() {
    let gateway = TestGateway::start().await.logged_in().await;
    let before = gateway.amove.stats().request_tokens_minted;
    let cases = [
        ("", "{\"requestToken\":\"T\"}"),
        ("{}", "{\"requestToken\":\"T\"}"),
        (" {\n}\t", " {\"requestToken\":\"T\"\n}\t"),
        (
            r#"{ "email" : "a@b.test", "n": 1.10e+2, "n":12345678901234567890123, "é":"\u00e9" }"#,
            r#"{"requestToken":"T", "email" : "a@b.test", "n": 1.10e+2, "n":12345678901234567890123, "é":"\u00e9" }"#,
        ),
        (r#"{"a":[1, 2],"requestToken" :null }"#, r#"{"a":[1, 2],"requestToken" :"T" }"#),
        (r#"{"requestToken":"","z":0}"#, r#"{"requestToken":"T","z":0}"#),
    ];
    for row in rows() {
        for (body, expected) in cases {
            let (arrived, reply) = arrives_as(&gateway, &row.path(), body).await;

            let token = token_in(&arrived).to_owned();
            assert_eq!(arrived.replace(&token, "T"), expected, "{row:?}");
            // The body may be no form of theirs, but the token in it is good.
            assert_ne!(reply.header("error-code"), Some("TOKEN"), "{row:?}: {reply:?}");
            assert!(!String::from_utf8_lossy(&reply.body).contains(&token), "{reply:?}");
        }
    }
    let stats = gateway.amove.stats();
    assert_eq!(stats.request_tokens_minted - before, 5 * cases.len() as u64);
    assert_eq!(stats.request_tokens_reused, 0);
}

#[tokio::test]
async fn who_brings_a_token_keeps_it() {
    let gateway = TestGateway::start().await.logged_in().await;
    let before = gateway.amove.stats().request_tokens_minted;
    for row in rows() {
        for body in [
            r#"{ "requestToken" : "own", "email":"a@b.test" }"#,
            r#"{"email":"a@b.test","request\u0054oken":"own"}"#,
        ] {
            let (arrived, reply) = arrives_as(&gateway, &row.path(), body).await;

            assert_eq!(arrived, body);
            // Amove does not know it, and that is between the two of them.
            assert_eq!(reply.header("error-code"), Some("TOKEN"), "{reply:?}");
        }
    }
    let stats = gateway.amove.stats();
    assert_eq!((stats.request_tokens_minted - before, stats.logins), (0, 1));
}

#[tokio::test]
async fn what_nobody_can_complete_is_refused_and_no_token_is_minted_for_it() {
    let gateway = TestGateway::start().await.logged_in().await;
    let before = gateway.amove.stats().request_tokens_minted;
    let refused = async |headers: &[(&str, &str)], body: Bytes| {
        gateway.send("POST", SIGNUP, headers, body).await.outcome()
    };
    let json = ("content-type", "application/json");

    for body in [
        "[]",
        "null",
        "{",
        "{}{}",
        "x",
        "\u{feff}{}",
        "{\"requestToken\":1}",
        "{\"requestToken\":{}}",
        "{\"requestToken\":\"a\",\"requestToken\":\"a\"}",
        "{\"requestToken\":null,\"request\\u0054oken\":\"a\"}",
    ] {
        assert_eq!(refused(&[json], body.into()).await, (400, "malformed".into()), "{body}");
    }
    let latin = Bytes::from_static(b"{\"name\":\"\xe9\"}");
    assert_eq!(refused(&[json], latin).await, (400, "malformed".into()));
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(64 * 1024)).into();
    assert_eq!(refused(&[json], large).await, (413, "too-large".into()));
    let unsupported = (415, "unsupported-media".to_owned());
    assert_eq!(refused(&[("content-type", "text/plain")], "{}".into()).await, unsupported);
    assert_eq!(refused(&[json, ("content-encoding", "gzip")], "{}".into()).await, unsupported);

    assert_eq!(gateway.amove.requests().len(), 0);
    assert_eq!(gateway.amove.stats().request_tokens_minted, before);
}

#[tokio::test]
async fn a_media_type_is_kept_and_added_where_there_is_none() {
    let gateway = TestGateway::start().await.logged_in().await;
    let own = "Application/Json; charset=utf-8";

    gateway.send("POST", SIGNUP, &[("content-type", own)], "{}").await;
    gateway.raw(format!("POST {SIGNUP} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}").as_bytes()).await;

    let kinds: Vec<_> =
        gateway.seen().iter().map(|it| it.header("content-type").map(str::to_owned)).collect();
    assert_eq!(kinds, [Some(own.to_owned()), Some("application/json".to_owned())]);
}

#[tokio::test]
async fn a_token_that_amove_does_not_take_is_not_sent_again() {
    let gateway = TestGateway::start().await.logged_in().await;
    let before = gateway.amove.stats().request_tokens_minted;
    for code in ["TOKEN", "SESSION"] {
        gateway.amove.forget_requests();
        let (code, host) = (code.to_owned(), Some(Host::Main));
        gateway.amove.inject(Fault::Code { code: code.clone(), count: 1, host, route: None });

        let reply = gateway.post(SIGNUP, r#"{"email":"a@b.test"}"#).await;

        assert_eq!(reply.outcome(), (401, "upstream-error".into()), "{reply:?}");
        assert_eq!(reply.header("error-code"), Some(&*code));
        gateway.the_one_seen();
    }
    let stats = gateway.amove.stats();
    assert_eq!((stats.request_tokens_minted - before, stats.request_tokens_reused), (2, 0));
    assert_eq!(stats.logins, 1, "our session has nothing to do with it");
}

#[tokio::test]
async fn where_no_token_can_be_had_nothing_is_sent() {
    let gateway = TestGateway::start().await.logged_in().await;
    gateway.amove.inject(Fault::AuthDown { on: true });

    let reply = gateway.post(SIGNUP, "{}").await;

    assert_eq!(reply.outcome(), (503, "session-unavailable".into()));
    assert!(reply.header("retry-after").is_some());
    assert_eq!(gateway.seen().len(), 0);
}

#[tokio::test]
async fn where_minting_is_denied_the_rule_is_named() {
    let settings = "policy.request_token_routes = \"deny\"";
    let gateway = TestGateway::with(settings).await.logged_in().await;

    for row in rows() {
        for body in ["{}", r#"{"requestToken":"own"}"#] {
            let reply = gateway.post(&row.path(), body).await;

            assert_eq!(reply.outcome(), (403, "policy-denied".into()), "{row:?}");
            assert_eq!(reply.json()["rule"], settings);
        }
    }
    assert_eq!(gateway.amove.requests().len(), 0);
}
