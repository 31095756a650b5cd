//! What Amove's errors, and its failures, become on their way to the caller.

use std::collections::HashMap;

use amove_gateway::emulator::{Account, Fault, Host, Options};
use serde_json::json;

use crate::support::{ECHO, Reply, TestGateway, USERINFO};

/// The contract's table of codes, read without the gateway's help: code and status.
fn codes() -> Vec<(String, u16)> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/amove/error-codes.csv");
    let mut reader = csv::Reader::from_path(file).expect("the table of codes");
    let rows = reader.deserialize::<HashMap<String, String>>().map(|row| {
        let row = row.expect("a row");
        (row["code"].clone(), row["suggested_status"].parse().expect("a status"))
    });
    rows.filter(|(code, _)| code != "*").collect()
}

/// The main host answers like this, once.
fn raw(bytes: impl Into<String>) -> Fault {
    Fault::Raw { text: bytes.into(), count: 1, host: Some(Host::Main), route: None }
}

/// The main host answers with this status and body, once.
fn status(status: u16, body: &str) -> Fault {
    Fault::Status {
        status,
        body: body.into(),
        retry_after: None,
        count: 1,
        host: Some(Host::Main),
        route: None,
    }
}

async fn answer_to(gateway: &TestGateway, fault: Fault) -> Reply {
    gateway.amove.inject(fault);
    gateway.get(USERINFO).await
}

async fn fail(gateway: &TestGateway, code: &str) -> Reply {
    gateway.send("POST", &format!("/api/v1/emulator/fail?code={code}"), &[], "").await
}

#[tokio::test]
async fn every_code_of_amove_becomes_a_problem_with_the_status_it_deserves() {
    let gateway = TestGateway::start().await.logged_in().await;
    let codes = codes();
    assert_eq!(codes.len(), 29);
    for (code, status) in codes {
        if matches!(&*code, "TOKEN" | "SESSION") {
            continue;
        }
        let reply = fail(&gateway, &code).await;

        assert_eq!(reply.outcome(), (status, "upstream-error".into()), "{code}");
        let problem = reply.json();
        assert_eq!(problem["code"], code);
        assert_eq!(problem["messages"].as_array().map(Vec::len), Some(1));
        assert_eq!(problem["upstream_status"], 499);
        let passes = matches!(&*code, "PENDING" | "SESSION_MAXOUT" | "COGNITO");
        assert_eq!(problem["retryable"], passes, "{code}");
        assert_eq!(reply.header("error-code"), Some(&*code));
        assert_eq!(reply.header("proxy-status"), Some("amove-gateway; received-status=499"));
        assert_eq!(reply.header("www-authenticate").is_some(), status == 401, "{code}");
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
}

#[tokio::test]
async fn codes_that_mean_a_dead_token_are_the_gateways_own_trouble() {
    for code in ["TOKEN", "SESSION"] {
        let gateway = TestGateway::without_mfa("").await.logged_in().await;
        let path = format!("/api/v1/emulator/fail?code={code}");

        // A GET that nobody knows is safe to replay, a POST is not.
        let replayed = gateway.get(&path).await;
        assert_eq!(replayed.outcome(), (502, "upstream-auth".into()), "{code}");
        assert_eq!(gateway.seen().len(), 2);
        let once = gateway.send("POST", &path, &[], "").await;
        assert_eq!(once.outcome(), (502, "upstream-auth".into()), "{code}");
        assert_eq!(gateway.seen().len(), 3);
    }
}

#[tokio::test]
async fn the_same_codes_are_the_callers_trouble_where_no_bearer_is_judged() {
    let gateway = TestGateway::start().await.logged_in().await;

    let reply = gateway.get("/api/v1/user/signupinfo?token=wrong").await;

    assert_eq!(reply.outcome(), (401, "upstream-error".into()));
    assert_eq!(reply.json()["code"], "TOKEN");
    assert!(reply.header("www-authenticate").is_some());
    assert_eq!(gateway.seen().len(), 1);
    assert_eq!(gateway.amove.stats().logins, 1);
}

#[tokio::test]
async fn a_code_that_nobody_has_heard_of_is_a_400_and_keeps_its_name() {
    let gateway = TestGateway::start().await.logged_in().await;

    let reply = fail(&gateway, "BRAND_NEW").await;

    assert_eq!(reply.outcome(), (400, "upstream-error".into()));
    assert_eq!(reply.json()["code"], "BRAND_NEW");
    assert_eq!(reply.header("error-code"), Some("BRAND_NEW"));
}

#[tokio::test]
async fn a_499_is_understood_whatever_it_looks_like() {
    let gateway = TestGateway::start().await.logged_in().await;
    let cases = [
        // Nothing but the header field.
        ("error-code: DUPLICATE\r\n", "", 409, "DUPLICATE"),
        // A web page beside it.
        ("error-code: ACCESS\r\ncontent-type: text/html\r\n", "<html>499</html>", 403, "ACCESS"),
        // Nothing of use at all.
        ("", "", 400, "unknown"),
        ("", "<html>499</html>", 400, "unknown"),
        // Only the body.
        ("", r#"{"type":"SYNC","errors":{"SYNC":["a","b"]}}"#, 422, "SYNC"),
        ("", r#"{"errors":{"COST":["a"]}}"#, 422, "COST"),
        // A code that no header field could carry.
        ("", r#"{"type":"A\r\nB: c"}"#, 400, "unknown"),
    ];
    for (fields, body, status, code) in cases {
        let length = body.len();
        let fault =
            raw(format!("HTTP/1.1 499 x\r\n{fields}content-length: {length}\r\n\r\n{body}"));

        let reply = answer_to(&gateway, fault).await;

        assert_eq!(reply.outcome(), (status, "upstream-error".into()), "{fields}{body}");
        let problem = reply.json();
        assert_eq!(problem["code"], code, "{fields}{body}");
        assert_eq!(reply.header("error-code"), Some(code), "{fields}{body}");
        assert!(problem["messages"].is_array(), "{problem}");
        assert_eq!(problem["upstream_status"], 499);
    }
}

#[tokio::test]
async fn operators_may_choose_another_status() {
    let gateway = TestGateway::with("errors.status.DUPLICATE = 422\nerrors.status.NEW_ONE = 418")
        .await
        .logged_in()
        .await;

    assert_eq!(fail(&gateway, "DUPLICATE").await.outcome(), (422, "upstream-error".into()));
    assert_eq!(fail(&gateway, "NEW_ONE").await.outcome(), (418, "upstream-error".into()));
    assert_eq!(fail(&gateway, "NOT_FOUND").await.status, 404);
}

#[tokio::test]
async fn errors_can_be_passed_through_untouched() {
    let gateway = TestGateway::with("errors.mode = \"passthrough\"").await.logged_in().await;

    let reply = fail(&gateway, "DUPLICATE").await;

    assert_eq!((reply.status, reply.problem()), (499, None));
    assert_eq!(reply.header("error-code"), Some("DUPLICATE"));
    let error = reply.json();
    assert_eq!((&error["type"], &error["status"]), (&json!("DUPLICATE"), &json!(499)));
    assert!(error["errors"]["DUPLICATE"][0].is_string(), "{error}");
    let crash = answer_to(&gateway, status(500, "")).await;
    assert_eq!((crash.status, crash.body.len(), crash.problem()), (500, 0, None));
}

#[tokio::test]
async fn dead_tokens_are_replaced_where_errors_pass_through_too() {
    let settings = "errors.mode = \"passthrough\"";
    let gateway = TestGateway::without_mfa(settings).await.logged_in().await;
    gateway.amove.inject(Fault::Code {
        code: "SESSION".into(),
        count: 1,
        host: Some(Host::Main),
        route: None,
    });

    assert_eq!(gateway.get(USERINFO).await.status, 200);
    assert_eq!(gateway.amove.stats().logins, 2);
}

#[tokio::test]
async fn a_crash_of_amove_is_a_bad_gateway() {
    let gateway = TestGateway::start().await.logged_in().await;
    for (upstream, body, expected) in [
        (500, "", 502),
        (500, "stack trace", 502),
        (501, "", 502),
        (502, "<html>", 502),
        (503, "", 503),
        (504, "", 504),
    ] {
        let reply = answer_to(&gateway, status(upstream, body)).await;

        assert_eq!(reply.outcome(), (expected, "upstream-failure".into()), "{upstream}");
        assert_eq!(reply.json()["upstream_status"], upstream);
        let received = format!("amove-gateway; received-status={upstream}");
        assert_eq!(reply.header("proxy-status"), Some(&*received));
        assert!(!String::from_utf8_lossy(&reply.body).contains("stack trace"));
    }
}

#[tokio::test]
async fn when_amove_says_when_to_come_back_callers_hear_it() {
    for (answered, expected, problem) in [
        ("503 Busy", 503, Some("upstream-failure")),
        ("499 x\r\nerror-code: PENDING", 409, Some("upstream-error")),
        ("429 Slow", 429, None),
    ] {
        // Amove is left alone afterwards.
        let gateway = TestGateway::start().await.logged_in().await;
        let head = format!("HTTP/1.1 {answered}\r\nretry-after: 17\r\ncontent-length: 0\r\n\r\n");

        let reply = answer_to(&gateway, raw(&head)).await;

        assert_eq!((reply.status, reply.header("retry-after")), (expected, Some("17")));
        assert_eq!(reply.problem().as_deref(), problem, "{answered}");
    }
}

#[tokio::test]
async fn honest_statuses_of_amove_stay_as_they_are() {
    let guest = Account { owner: false, ..Account::default() };
    let options = Options { accounts: vec![guest], subscribed: false, ..Options::default() };
    let gateway = TestGateway::before(options, "").await.logged_in().await;
    let subscription = r#"{"subscriptionType":2}"#;
    let update = gateway.send("PUT", "/api/v1/user/update_subscription", &[], subscription).await;
    let user = r#"[{"user":{"username":"x@corp.test","email":"x@corp.test"},"userGroups":[]}]"#;
    let bought = gateway.post("/api/v1/usergroup/import_users", user).await;
    let unknown = gateway.get("/api/v1/fastrLicense/info/unknown").await;
    let activation = r#"{"licenseKey":"nobody","machineId":"m","machineName":"n"}"#;
    let bound = gateway.post("/api/v1/fastrLicense/activate", activation).await;

    assert_eq!((update.status, update.body.is_empty()), (400, false));
    assert_eq!(bought.status, 402);
    assert_eq!(unknown.status, 404);
    assert_eq!((bound.status, bound.json()["success"].as_bool()), (400, Some(false)));
    for reply in [update, bought, unknown, bound] {
        assert_eq!((reply.problem(), reply.header("proxy-status")), (None, None));
        assert!(reply.header("x-request-id").is_some());
    }
    for odd in [405, 409, 418, 451, 498] {
        let reply = answer_to(&gateway, status(odd, "so it is")).await;
        assert_eq!((reply.status, &*reply.body), (odd, &b"so it is"[..]));
    }
}

#[tokio::test]
async fn a_request_keeps_its_id_everywhere() {
    let gateway = TestGateway::start().await.logged_in().await;
    let long = "x".repeat(128);
    for id in ["my-id", "~!@{}", &*long] {
        gateway.amove.forget_requests();
        let reply = gateway.get_with(USERINFO, &[("x-request-id", id)]).await;
        assert_eq!(reply.header("x-request-id"), Some(id));
        assert_eq!(gateway.the_one_seen().header("x-request-id"), Some(id));
    }
    let refused = gateway.get_with("/api//x", &[("x-request-id", "mine")]).await;
    assert_eq!(refused.json()["request_id"], "mine");
}

#[tokio::test]
async fn a_request_without_a_usable_id_gets_one() {
    let gateway = TestGateway::start().await.logged_in().await;
    let long = "x".repeat(129);
    let mut ids = Vec::new();
    for given in [
        &[][..],
        &[("x-request-id", "two words")],
        &[("x-request-id", &*long)],
        &[("x-request-id", "")],
    ] {
        gateway.amove.forget_requests();
        let reply = gateway.get_with(USERINFO, given).await;
        let id = reply.header("x-request-id").expect("an id").to_owned();
        let version = uuid::Uuid::parse_str(&id).expect("a UUID").get_version_num();
        assert_eq!(version, 7);
        assert_eq!(gateway.the_one_seen().header("x-request-id"), Some(&*id));
        ids.push(id);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4, "no two requests have the same");
}

#[tokio::test]
async fn the_gateway_names_itself_both_ways() {
    let gateway = TestGateway::start().await.logged_in().await;

    let reply = gateway.get_with(USERINFO, &[("via", "1.1 nginx")]).await;

    assert_eq!(reply.header("via"), Some("1.1 amove-gateway"));
    let via = gateway.the_one_seen().header("via").map(str::to_owned);
    assert!(via.is_some_and(|via| via.ends_with("1.1 amove-gateway")));
}

#[tokio::test]
async fn a_request_that_comes_round_again_is_stopped() {
    let gateway = TestGateway::start().await.logged_in().await;
    for via in ["1.1 amove-gateway", "1.0 fred, 1.1 Amove-Gateway (comment)", "2 x,2 amove-gateway"]
    {
        let reply = gateway.get_with(ECHO, &[("via", via)]).await;
        assert_eq!(reply.outcome(), (508, "loop-detected".into()), "{via}");
    }
    assert_eq!(gateway.seen().len(), 0);
    assert_eq!(gateway.get_with(ECHO, &[("via", "1.1 amove-gateway-2")]).await.status, 200);
}
