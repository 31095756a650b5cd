//! A body goes up when somebody wants it: `Expect: 100-continue`, and answers that come before.

use crate::process_support::between::Between;

/// A route whose body is not kept for a replay, so that only the API can want it.
const UPLOAD: &str = "/api/v1/emulator/sink";

fn head(fields: &str) -> String {
    format!("POST {UPLOAD} HTTP/1.1\r\nHost: x\r\n{fields}\r\n")
}

const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_is_told_to_continue_when_the_api_is_ready_and_not_before() {
    let between = Between::start(&[]).await;
    let waits = head("Expect: 100-continue\r\nContent-Length: 5\r\n");
    let mut caller = between.caller(&waits).await;
    let (mut api, asked) = between.api().await;
    assert_eq!(asked.matches("\r\nexpect: 100-continue\r\n").count(), 1, "{asked}");
    caller.hears_nothing().await;

    api.say(CONTINUE).await;
    caller.hears(CONTINUE).await;
    caller.say("hello").await;
    api.hears("hello").await;
    api.say(OK).await;
    assert!(caller.head().await.starts_with("HTTP/1.1 200 "));
    caller.hears("ok").await;

    // The connections are fit for more.
    caller.say(&head("Content-Length: 2\r\n")).await;
    let asked = api.head().await;
    assert!(!asked.contains("expect"), "{asked}");
    caller.say("hi").await;
    api.hears("hi").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_waits_is_not_asked_for_a_body_that_nobody_wants() {
    let between = Between::start(&[]).await;
    let waits = head("Expect: 100-continue\r\nContent-Length: 5\r\n");
    let mut caller = between.caller(&waits).await;
    let (mut api, _) = between.api().await;

    api.say("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;

    let answer = caller.head().await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    // Whether the body still comes is not known: neither connection is used again.
    assert_eq!(caller.rest().await.expect("a clean end"), "no");
    assert_eq!(api.rest().await.expect("a clean end"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_says_nothing_gets_the_body_all_the_same() {
    let between = Between::start(&[]).await;
    let waits = head("Expect: 100-continue\r\nContent-Length: 5\r\n");
    let mut caller = between.caller(&waits).await;
    let (mut api, _) = between.api().await;

    caller.hears(CONTINUE).await;
    caller.say("hello").await;

    api.hears("hello").await;
    api.say(OK).await;
    assert!(caller.head().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_is_not_told_to_continue() {
    let between = Between::start(&[("AMOVE_GATEWAY_SERVER__MAX_BODY_BYTES", "4KiB")]).await;
    for (head, status) in [
        (head("Expect: 100-continue\r\nContent-Length: 5000\r\n"), "413"),
        (head("Expect: 100-continue\r\nContent-Length: 5\r\nVia: 1.1 amove-gateway\r\n"), "508"),
        (
            head("Expect: 100-continue\r\nContent-Length: 5\r\n").replace("emulator/", "%2e%2e/"),
            "400",
        ),
    ] {
        let mut caller = between.caller(&head).await;
        let answer = caller.head().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    assert!(between.is_quiet().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_passes_while_the_body_is_still_coming() {
    let between = Between::start(&[]).await;
    for fields in ["Content-Length: 1000000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut caller = between.caller(&head(fields)).await;
        caller.say("5\r\nhello\r\n").await;
        let (mut api, _) = between.api().await;

        api.say("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno").await;

        let answer = caller.head().await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        // What is left of the body is not waited for, on either side.
        assert_eq!(caller.rest().await.expect("a clean end"), "no", "{fields}");
        drop(api.rest().await);
    }
    let record = between.record("", "outcome").await;
    assert_eq!((&record["status"], &record["outcome"]), (&413.into(), &"upstream_error".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_may_begin_before_the_body_has_ended_and_go_on_with_it() {
    let between = Between::start(&[]).await;
    let mut caller = between.caller(&head("Transfer-Encoding: chunked\r\n")).await;
    caller.say("3\r\none\r\n").await;
    let (mut api, _) = between.api().await;
    api.hears("3\r\none\r\n").await;

    api.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nONE\r\n").await;
    assert!(caller.head().await.starts_with("HTTP/1.1 200 "));
    caller.hears("3\r\nONE\r\n").await;
    for (up, down) in [("two", "TWO"), ("six", "SIX")] {
        caller.say(&format!("3\r\n{up}\r\n")).await;
        api.hears(&format!("3\r\n{up}\r\n")).await;
        api.say(&format!("3\r\n{down}\r\n")).await;
        caller.hears(&format!("3\r\n{down}\r\n")).await;
    }
    caller.say("0\r\n\r\n").await;
    api.hears("0\r\n\r\n").await;
    api.say("0\r\n\r\n").await;
    caller.hears("0\r\n\r\n").await;
}
