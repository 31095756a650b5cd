//! What may be called, and by which rule not.

use crate::{
    routes::{Row, rows_of},
    support::{GUARDED, Reply, TestGateway, USERINFO, hash_of},
};

/// Every way in which a path may be written that the API would understand, or that we might.
fn spellings(row: &Row) -> Vec<String> {
    let path = row.path();
    let Some(action) = path.strip_prefix("/api/v1/") else { return vec![path] };
    let encoded: String = action
        .chars()
        .map(|letter| match letter {
            'a'..='z' => format!("%{:02x}", letter as u32),
            'A'..='Z' => format!("%{:02X}", letter as u32),
            _ => letter.to_string(),
        })
        .collect();
    let first = action.split('/').next().unwrap_or_default();
    let rest = action.get(first.len()..).unwrap_or_default();
    vec![
        path.clone(),
        format!("/api/{action}"),
        path.to_uppercase(),
        format!("/API/{}", action.to_uppercase()),
        format!("{path}/"),
        format!("/api/{action}/"),
        path.replacen("/v1/", "//v1//", 1),
        format!("/api/v1//{action}"),
        format!("//api/v1/{action}"),
        format!("/api/v1/{encoded}"),
        format!("/api/{encoded}"),
        format!("/%61pi/v1/{action}"),
        format!("/api/%76%31/{action}"),
        format!("{path};a=b"),
        format!("/api/v1/{first};a=b{rest}"),
        format!("/api/v1/v1/{action}"),
        format!("/api/v1/api/v1/{action}"),
        format!("/api/v1/./{action}"),
        format!("/api/v1/x/../{action}"),
        format!("/api/v1/x/%2e%2e/{action}"),
        format!("/api/v1/{first}%2f{}", rest.trim_start_matches('/')),
        format!("/api/v1/{first}%5c{}", rest.trim_start_matches('/')),
        format!("{path}/anything/below"),
        format!("{path}%20"),
        format!("{path}%00"),
        format!("{path}."),
        format!("{path}?x=/api/v1/user/userinfo"),
    ]
}

#[tokio::test]
async fn what_turns_the_identity_against_itself_is_reached_in_no_spelling() {
    let gateway = TestGateway::with(GUARDED).await.logged_in().await;
    let mut guarded = rows_of("main");
    guarded.extend(rows_of("auth"));
    guarded.retain(|row| row.is("self") || row.is("session"));
    assert!(guarded.len() >= 12, "{guarded:?}");

    for row in &guarded {
        let lower = row.method.to_lowercase();
        for path in spellings(row) {
            for method in [&*row.method, &*lower, "PATCH", "HEAD"] {
                let headers = [("content-type", "application/json")];
                let body = if method == "HEAD" { "" } else { "{}" };
                let reply = gateway.send(method, &path, &headers, body).await;
                // Not each is refused for the same reason, but each is refused here.
                let seen = gateway.seen();
                let reached: Vec<_> = seen.iter().map(|it| &*it.target).collect();
                let is_another = reached.iter().all(|it| is_another_route(it, row));
                assert!(is_another, "{method} {path}: {reply:?}");
                gateway.amove.forget_requests();
            }
        }
    }
    let stats = gateway.amove.stats();
    assert_eq!((stats.logins, stats.live_sessions), (1, 1), "{stats:?}");
    // Its own login is the gateway's.
    let foreign = stats.side_effects.keys().filter(|route| !route.contains("/authentication/"));
    assert_eq!(foreign.count(), 0, "{stats:?}");
}

/// Whether the API would take `target` for something else than `row`: what it was sent has the
/// words of the row neither in order nor at all, once letters and encoding are evened out.
fn is_another_route(target: &str, row: &Row) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    let decoded = percent_decoded(path).to_lowercase();
    let words: Vec<_> = decoded.split('/').filter(|word| !word.is_empty()).collect();
    let own = row.path().to_lowercase();
    let own: Vec<_> = own.split('/').filter(|word| !word.is_empty()).collect();
    let action = own.get(2..).unwrap_or_default();
    let plain = words.strip_prefix(&["api", "v1"]).or_else(|| words.strip_prefix(&["api"]));
    plain.is_none_or(|words| words != action)
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::new(), 0);
    while let Some(byte) = bytes.get(at) {
        let hex = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (byte, hex) {
            (b'%', Some(value)) => {
                decoded.push(value);
                at += 3;
            }
            _ => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Two callers with rules of their own.
async fn with_rules(billing: &str, reports: &str) -> TestGateway {
    let (billing_key, reports_key) = (hash_of("billing-key"), hash_of("reports-key"));
    let settings = format!(
        "[callers.billing]\napi_key_hash = \"{billing_key}\"\n{billing}\n\
         [callers.reports]\napi_key_hash = \"{reports_key}\"\n{reports}\n[policy]\nguarded = true\n"
    );
    TestGateway::with(&settings).await.logged_in().await
}

async fn call_as(gateway: &TestGateway, key: &str, method: &str, path: &str) -> Reply {
    gateway.send(method, path, &[("x-api-key", key)], "").await
}

#[tokio::test]
async fn each_caller_has_rules_of_its_own() {
    let gateway = with_rules(
        "allow = [\"GET user/*\", \"* project/*\"]\ndeny = [\"DELETE *\"]",
        "deny = [\"@costs\", \"@destructive\"]",
    )
    .await;
    for (key, method, path, rule) in [
        ("billing-key", "GET", USERINFO, None),
        ("billing-key", "GET", "/API/User/UserInfo/", None),
        ("billing-key", "GET", "/api/v1/project/get_all", None),
        ("billing-key", "GET", "/api/v1/sync/get", Some("callers.billing.allow")),
        ("billing-key", "DELETE", "/api/v1/project/delete", Some("callers.billing.deny: DELETE *")),
        ("billing-key", "delete", "/api/project/%64elete", Some("callers.billing.deny: DELETE *")),
        ("reports-key", "GET", "/api/v1/sync/get", None),
        ("reports-key", "POST", "/api/v1/transfer/transfer", Some("callers.reports.deny: @costs")),
        (
            "reports-key",
            "DELETE",
            "/api/v1/sync/delete",
            Some("callers.reports.deny: @destructive"),
        ),
        ("reports-key", "GET", "/api/v1/apitoken/get_all", Some("policy.deny_tags: self")),
    ] {
        let reply = call_as(&gateway, key, method, path).await;

        let denied = reply.problem().as_deref() == Some("policy-denied");
        assert_eq!(denied, rule.is_some(), "{key} {method} {path}: {reply:?}");
        if let Some(rule) = rule {
            assert_eq!((reply.status, &reply.json()["rule"]), (403, &rule.into()), "{path}");
        }
    }
}

#[tokio::test]
async fn who_is_allowed_a_guarded_route_by_its_name_reaches_that_one() {
    let named = "allow = [\"* *\", \"GET apitoken/get_all\"]";
    let gateway = with_rules(named, "allow = [\"* *\", \"* apitoken/*\", \"@self\"]").await;
    let path = "/api/v1/apitoken/get_all";

    assert_eq!(call_as(&gateway, "billing-key", "GET", path).await.status, 200);
    assert_eq!(call_as(&gateway, "reports-key", "GET", path).await.status, 403);
    let other = "/api/v1/apitoken/delete";
    assert_eq!(call_as(&gateway, "billing-key", "DELETE", other).await.status, 403);
}

#[tokio::test]
async fn a_forbidden_request_uses_up_no_quota() {
    let gateway = with_rules("rate = \"1/h\"\nburst = 1\ndeny = [\"* sync/*\"]", "").await;

    for _ in 0..5 {
        let denied = call_as(&gateway, "billing-key", "GET", "/api/v1/sync/get").await;
        assert_eq!(denied.status, 403);
    }

    assert_eq!(call_as(&gateway, "billing-key", "GET", USERINFO).await.status, 200);
    assert_eq!(call_as(&gateway, "billing-key", "GET", USERINFO).await.status, 429);
}
