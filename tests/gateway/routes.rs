//! Every documented route, its legacy form, and the paths that look like one.

use std::collections::HashMap;

use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::time::timeout;

use crate::support::{DEADLINE, Reply, TestGateway, USERINFO, request};

/// A row of the contract's table, read without the gateway's help.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) host: String,
    pub(crate) method: String,
    pub(crate) template: String,
    pub(crate) auth: String,
    pub(crate) body: String,
    /// Between blanks.
    tags: String,
}

impl Row {
    /// Whether it has this tag.
    pub(crate) fn is(&self, tag: &str) -> bool {
        self.tags.split(' ').any(|own| own == tag)
    }

    /// Its path, each parameter filled in.
    pub(crate) fn path(&self) -> String {
        let fill = |segment: &str| {
            if segment.starts_with('{') { "a1B-2".into() } else { segment.to_owned() }
        };
        self.template.split('/').map(fill).collect::<Vec<_>>().join("/")
    }

    /// Its path without a version; the hub never had one.
    fn legacy_path(&self) -> Option<String> {
        self.path().strip_prefix("/api/v1/").map(|rest| format!("/api/{rest}"))
    }

    async fn call(&self, gateway: &TestGateway, path: &str) -> Reply {
        let (kind, body) = match &*self.body {
            "json" => ("application/json", r#"{"own":"kept"}"#),
            "form" => ("application/x-www-form-urlencoded", "SAMLResponse=x"),
            _ => return gateway.send(&self.method, path, &[], "").await,
        };
        gateway.send(&self.method, path, &[("content-type", kind)], body).await
    }
}

fn rows() -> Vec<Row> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/amove/routes.csv");
    let mut reader = csv::Reader::from_path(file).expect("the table of routes");
    let rows = reader.deserialize::<HashMap<String, String>>().map(|row| {
        let row = row.expect("a row");
        let tags = row["notes"].split("tags=").nth(1).and_then(|rest| rest.split(';').next());
        Row {
            tags: tags.expect("tags").to_owned(),
            host: row["host"].clone(),
            method: row["method"].clone(),
            template: row["path"].clone(),
            auth: row["auth"].clone(),
            body: row["request_body"].clone(),
        }
    });
    rows.collect()
}

pub(crate) fn rows_of(host: &str) -> Vec<Row> {
    rows().into_iter().filter(|row| row.host == host).collect()
}

/// What Amove must have seen of a call of `row`.
fn check_arrival(gateway: &TestGateway, row: &Row, target: &str) {
    let seen = gateway.the_one_seen();
    assert_eq!((&*seen.method, &*seen.target), (&*row.method, target));
    let bearer = seen.header("authorization").is_some_and(|it| it.starts_with("Bearer "));
    assert_eq!(bearer, row.auth == "bearer", "{row:?}");
    gateway.amove.forget_requests();
}

#[test]
fn the_table_has_every_documented_endpoint() {
    assert_eq!((rows_of("main").len(), rows_of("auth").len()), (168, 6));
}

#[tokio::test]
async fn every_documented_route_arrives_byte_for_byte_and_signed_in_where_it_must_be() {
    let gateway = TestGateway::start().await.logged_in().await;
    for row in rows_of("main") {
        let target = row.path() + "?a=%2F&b=c";

        let reply = row.call(&gateway, &target).await;

        check_arrival(&gateway, &row, &target);
        assert!(reply.status < 500, "{row:?}: {reply:?}");
        assert_eq!(reply.header("deprecation"), None, "{row:?}");
    }
    let stats = gateway.amove.stats();
    assert_eq!(
        (stats.stray_bearers, stats.request_tokens_reused, stats.refused_bearers),
        (0, 0, 0)
    );
    assert_eq!((stats.logins, stats.failed_logins), (1, 0));
}

#[tokio::test]
async fn every_documented_route_is_reached_by_its_legacy_path_and_says_so() {
    let gateway = TestGateway::with("legacy.sunset = \"2027-06-30\"").await.logged_in().await;
    for row in rows_of("main") {
        let Some(legacy) = row.legacy_path() else { continue };

        let reply = row.call(&gateway, &format!("{legacy}?a=%2F&b=c")).await;

        check_arrival(&gateway, &row, &format!("{}?a=%2F&b=c", row.path()));
        assert_eq!(reply.header("deprecation"), Some("@1767225600"), "{row:?}");
        let successor = format!("<{}>; rel=\"successor-version\"", row.path());
        assert_eq!(reply.header("link"), Some(&*successor), "{row:?}");
        assert_eq!(reply.header("sunset"), Some("Wed, 30 Jun 2027 00:00:00 GMT"), "{row:?}");
    }
    let stats = gateway.amove.stats();
    assert_eq!(
        (stats.stray_bearers, stats.request_tokens_reused, stats.refused_bearers),
        (0, 0, 0)
    );
}

#[tokio::test]
async fn legacy_paths_can_be_switched_off() {
    let gateway = TestGateway::with("legacy.mode = \"reject\"").await.logged_in().await;
    for row in rows_of("main") {
        let Some(legacy) = row.legacy_path() else { continue };

        let reply = row.call(&gateway, &legacy).await;

        assert_eq!(reply.outcome(), (410, "legacy-rejected".into()), "{row:?}");
        assert_eq!(reply.json()["successor"], row.path());
    }
    assert_eq!(gateway.seen().len(), 0);
    assert_eq!(gateway.get("/api/rm").await.status, 200);
    assert_eq!(gateway.get(USERINFO).await.status, 200);
}

#[tokio::test]
async fn problems_on_legacy_paths_name_the_successor_too() {
    let gateway = TestGateway::start().await.logged_in().await;

    let reply = gateway.send("DELETE", "/api/cloudaccount/delete?id=nobody", &[], "").await;

    assert_eq!(reply.outcome(), (400, "upstream-error".into()));
    assert_eq!(reply.header("deprecation"), Some("@1767225600"));
    assert_eq!(
        reply.header("link"),
        Some("</api/v1/cloudaccount/delete>; rel=\"successor-version\"")
    );
    assert_eq!(reply.header("sunset"), None);
}

#[tokio::test]
async fn logins_are_the_gateways_own_business() {
    let gateway = TestGateway::start().await.logged_in().await;
    for row in rows_of("auth") {
        for path in [row.path(), row.path().replace("/api/", "/api/v1/"), row.path().to_uppercase()]
        {
            let reply = row.call(&gateway, &path).await;
            assert_eq!(reply.outcome(), (403, "auth-managed".into()), "{path}");
        }
    }
    assert_eq!(gateway.amove.requests().len(), 0);
}

#[tokio::test]
async fn a_fresh_request_token_is_put_into_the_body_of_the_routes_that_want_one() {
    let gateway = TestGateway::start().await.logged_in().await;
    let rows: Vec<_> =
        rows_of("main").into_iter().filter(|row| row.auth == "request_token").collect();
    let before = gateway.amove.stats().request_tokens_minted;
    for row in &rows {
        let reply = row.call(&gateway, &row.path()).await;
        // The body is no form of theirs, but the token in it is good.
        assert_ne!(reply.header("error-code"), Some("TOKEN"), "{row:?}: {reply:?}");
    }
    let stats = gateway.amove.stats();
    assert_eq!(stats.request_tokens_minted - before, rows.len() as u64);
    assert_eq!(stats.request_tokens_reused, 0);
}

#[tokio::test]
async fn routes_that_want_a_request_token_can_be_denied() {
    let gateway =
        TestGateway::with("policy.request_token_routes = \"deny\"").await.logged_in().await;

    let reply = gateway.post("/api/v1/desktop/signup", "{}").await;

    assert_eq!(reply.outcome(), (403, "policy-denied".into()));
    assert_eq!(gateway.amove.requests().len(), 0);
}

/// Calls `path` and returns what Amove saw.
async fn arrives_as(gateway: &TestGateway, method: &str, path: &str) -> String {
    gateway.amove.forget_requests();
    let reply = gateway.send(method, path, &[], "").await;
    let seen = gateway.the_one_seen();
    let marked = reply.header("deprecation").is_some();
    assert_eq!(marked, seen.target != path, "{path}: marked as legacy if and only if moved");
    seen.target
}

#[tokio::test]
async fn the_traps_of_the_legacy_alias_are_avoided() {
    let gateway = TestGateway::start().await.logged_in().await;
    // Contract section 5; each number is a trap.
    let cases = [
        ("1", "GET", "/api/v1/x", "/api/v1/x"),
        ("1", "GET", "/api/v1/user", "/api/v1/user"),
        ("1", "GET", "/api/v2/user/userinfo", "/api/v2/user/userinfo"),
        ("1", "GET", "/api/V1/user/userinfo", "/api/V1/user/userinfo"),
        ("3", "GET", "/api/rm", "/api/rm"),
        ("3", "POST", "/api/rm/negotiate", "/api/rm/negotiate"),
        ("3", "POST", "/api/rm/negotiate?x=1", "/api/rm/negotiate?x=1"),
        ("4", "GET", "/api/fastrLicense/info/K-1", "/api/v1/fastrLicense/info/K-1"),
        ("4", "GET", "/api/fastrsettings/get_all/u%20x", "/api/v1/fastrsettings/get_all/u%20x"),
        ("5", "GET", "/api/sso/get_entraId", "/api/v1/sso/get_entraId"),
        ("5", "GET", "/api/fastrLicense/my-licenses", "/api/v1/fastrLicense/my-licenses"),
        (
            "5",
            "POST",
            "/api/permission/users_sharedclouddrive_permision",
            "/api/v1/permission/users_sharedclouddrive_permision",
        ),
        ("6", "GET", "/API/V1/User/UserInfo/", "/API/V1/User/UserInfo/"),
        ("6", "GET", "/Api/User/UserInfo/?q=%2f", "/Api/v1/User/UserInfo/?q=%2f"),
        (
            "7",
            "PUT",
            "/api/permission/users_project_permission",
            "/api/v1/permission/users_project_permission",
        ),
        (
            "7",
            "DELETE",
            "/api/permission/users_project_permission",
            "/api/v1/permission/users_project_permission",
        ),
    ];
    for (trap, method, path, expected) in cases {
        assert_eq!(arrives_as(&gateway, method, path).await, expected, "trap {trap}");
    }
}

#[tokio::test]
async fn one_path_with_three_methods_is_three_routes() {
    let gateway = TestGateway::with("policy.unknown_routes = \"deny\"").await.logged_in().await;
    let path = "/api/v1/permission/users_project_permission";

    for method in ["POST", "PUT", "DELETE"] {
        assert_ne!(gateway.send(method, path, &[], "").await.status, 403, "{method}");
    }
    assert_eq!(gateway.seen().len(), 3);
    assert_eq!(gateway.get(path).await.outcome(), (403, "policy-denied".into()));
    assert_eq!(gateway.seen().len(), 3);
}

#[tokio::test]
async fn unknown_routes_pass_signed_in_unless_they_are_denied() {
    let open = TestGateway::start().await.logged_in().await;
    let strict = TestGateway::with("policy.unknown_routes = \"deny\"").await.logged_in().await;
    let paths = ["/api/v1/brand/new", "/api/brand/new", "/elsewhere", "/"];

    for path in paths {
        assert_eq!(open.get(path).await.status, 404, "{path}");
        let denied = strict.get(path).await;
        assert_eq!(denied.outcome(), (403, "policy-denied".into()), "{path}");
        assert_eq!(denied.json()["rule"], "policy.unknown_routes");
    }
    let seen = open.seen();
    let targets: Vec<_> = seen.iter().map(|seen| &*seen.target).collect();
    assert_eq!(targets, ["/api/v1/brand/new", "/api/v1/brand/new", "/elsewhere", "/"]);
    assert!(seen.iter().all(|seen| seen.header("authorization").is_some()));
    assert_eq!(strict.seen().len(), 0);
    assert_eq!(strict.get("/API/v1/User/UserInfo/").await.status, 200);
}

#[tokio::test]
async fn the_hub_streams_events_before_they_end() {
    let gateway = TestGateway::start().await.logged_in().await;

    let mut connection = gateway.connect().await;
    let hub = request("GET", "/api/rm?id=x", &[("accept", "text/event-stream")], "");
    let mut response = connection.open(hub).await;
    // The emulator would go on for minutes.
    let mut text = String::new();
    while !text.contains("\"percent\":1") {
        let frame = timeout(DEADLINE, response.frame()).await.expect("an event in time");
        let frame = frame.expect("more to come").expect("a body that does not break off");
        text += &String::from_utf8_lossy(&frame.into_data().unwrap_or_else(|_| Bytes::new()));
    }

    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert!(text.starts_with("data: {"), "{text}");
    let seen = gateway.the_one_seen();
    assert_eq!(seen.target, "/api/rm?id=x");
    assert!(seen.header("authorization").is_some());
}

#[tokio::test]
async fn the_hub_answers_long_polls_and_handshakes() {
    let gateway = TestGateway::start().await.logged_in().await;

    let poll = gateway.get("/api/rm?id=x").await;
    let handshake = gateway.send("POST", "/api/rm/negotiate?negotiateVersion=1", &[], "").await;

    assert_eq!((poll.status, poll.json()), (200, json!({})));
    assert!(handshake.json()["connectionId"].is_string());
    assert_eq!(poll.header("deprecation").or(handshake.header("deprecation")), None);
    let seen = gateway.seen();
    assert_eq!(seen[1].target, "/api/rm/negotiate?negotiateVersion=1");
    assert!(seen.iter().all(|seen| seen.header("authorization").is_some()));
}
