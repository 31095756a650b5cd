//! The admin API of the audit log: the filters of the verb, pages, and its limits.

use serde_json::Value;

use crate::support::{Http1, TestGateway, USERINFO, request, until};

/// A gateway that has so many records to search.
async fn with_records(count: usize) -> TestGateway {
    let gateway = TestGateway::without_mfa("").await.logged_in().await;
    let mut connection = gateway.connect().await;
    for number in 0..count {
        let path = if number % 4 == 3 { "/api/v1/sync/get?id=nobody" } else { USERINFO };
        let id = format!("r-{number}");
        connection.call(request("GET", path, &[("x-request-id", &id)], "")).await;
    }
    until("all are in the store", async || found(&gateway, "limit=1000").await.0.len() == count)
        .await;
    gateway
}

/// The records that `query` finds, and where the next page begins.
async fn found(gateway: &TestGateway, query: &str) -> (Vec<Value>, Option<u64>) {
    let reply = gateway.ask_operator(&format!("/-/audit?{query}")).await;
    assert_eq!(reply.status, 200, "{query}: {reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let mut answer = reply.json();
    let Value::Array(records) = answer["records"].take() else { panic!("{answer}") };
    (records, answer["next"].as_u64())
}

#[tokio::test]
async fn the_filters_of_the_verb_choose_and_the_newest_come_first() {
    let gateway = with_records(8).await;

    let (all, next) = found(&gateway, "").await;
    let (missing, _) = found(&gateway, "status=4xx&since=2h&caller=local&code=NOT_FOUND").await;
    let (one, _) = found(&gateway, "request_id=r-5").await;
    let (none, end) = found(&gateway, "until=2h").await;

    let ids: Vec<_> = all.iter().map(|it| it["request_id"].as_str().expect("an id")).collect();
    assert_eq!(ids, ["r-7", "r-6", "r-5", "r-4", "r-3", "r-2", "r-1", "r-0"]);
    assert_eq!((next, end), (None, None));
    assert_eq!(missing, [all[0].clone(), all[4].clone()]);
    assert_eq!(one, [all[2].clone()]);
    assert_eq!(none, Vec::<Value>::new());
    assert_eq!(all[0]["route"], "/api/v1/sync/get");
    assert!(!all[0].to_string().contains("nobody"), "{}", all[0]);
}

#[tokio::test]
async fn pages_show_every_record_once() {
    let gateway = with_records(23).await;
    let (all, _) = found(&gateway, "").await;
    let (mut pages, mut query) = (Vec::new(), "limit=5".to_owned());

    loop {
        let (page, next) = found(&gateway, &query).await;
        pages.push(page);
        let Some(next) = next else { break };
        query = format!("limit=5&before={next}");
    }

    assert_eq!(pages.len(), 5);
    assert_eq!(pages.concat(), all);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_a_sentence() {
    let gateway = TestGateway::without_mfa("").await;

    for (query, sentence) in [
        ("callr=x", "There is no filter \"callr\": expected one of caller, identity"),
        ("status=40x", "`status` cannot be \"40x\": expected 404, or 4xx."),
        ("since=yesterday", "`since` cannot be \"yesterday\": expected a time such as 2h (ago)"),
        ("outcome=fine", "`outcome` cannot be \"fine\": expected one of ok, "),
        ("intents=perhaps", "`intents` cannot be \"perhaps\": expected true or false."),
        ("before=x", "`before` cannot be \"x\": expected a number."),
        ("limit=0", "`limit` cannot be \"0\": expected a number from 1 to 1000."),
        ("limit=1001", "expected a number from 1 to 1000."),
        ("caller=a&caller=b", "Each filter is given once, and `caller` is not."),
    ] {
        let reply = gateway.ask_operator(&format!("/-/audit?{query}")).await;
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        assert_eq!(reply.status, 400, "{query}: {text}");
        assert!(text.contains(sentence), "{query}: {text}");
    }
    let admin = gateway.admin_addresses()[0];
    let reply = Http1::to(admin).await.call(request("POST", "/-/audit", &[], "")).await;
    assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, HEAD")));
}
