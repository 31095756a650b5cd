//! Whatever takes too long has a name, and is cut off so that the caller notices.

use amove_gateway::emulator::{Fault, Host};
use http_body_util::BodyExt;
use tokio::{net::TcpListener, time::timeout};

use crate::support::{DEADLINE, Reply, TestGateway, USERINFO, request, until};

const INSERT: &str = "/api/v1/project/insert";
const SHORT: &str = "upstream.response_timeout = \"300ms\"\n";

/// Status, problem, the time that was over and the error of RFC 9209.
fn told(reply: &Reply) -> (u16, String, String, String) {
    let (status, problem) = reply.outcome();
    let timeout = reply.json()["timeout"].as_str().unwrap_or("none").to_owned();
    let proxy = reply.header("proxy-status").expect("a status");
    let error = proxy.strip_prefix("amove-gateway; error=").expect("an error").to_owned();
    (status, problem, timeout, error)
}

fn expected(
    status: u16,
    problem: &str,
    timeout: &str,
    error: &str,
) -> (u16, String, String, String) {
    (status, problem.into(), timeout.into(), error.into())
}

#[tokio::test]
async fn an_amove_that_does_not_begin_to_answer() {
    let gateway = TestGateway::with(SHORT).await.logged_in().await;
    gateway.amove.inject(Fault::Stall { count: 1, host: Some(Host::Main), route: None });

    let reply = gateway.get(USERINFO).await;

    let timeout = "response_header";
    assert_eq!(told(&reply), expected(504, "upstream-timeout", timeout, "http_response_timeout"));
}

#[tokio::test]
async fn an_amove_that_is_not_there_or_does_not_shake_hands() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("an address");
    let settings =
        format!("upstream.api_url = \"https://{address}\"\nupstream.connect_timeout = \"300ms\"\n");
    let gateway = TestGateway::with(&settings).await.logged_in().await;

    let reply = gateway.get(USERINFO).await;
    assert_eq!(told(&reply), expected(504, "upstream-timeout", "tls", "connection_timeout"));
    drop(silent);
    let reply = gateway.get(USERINFO).await;
    assert_eq!(told(&reply), expected(502, "upstream-unreachable", "none", "connection_refused"));
}

#[tokio::test]
async fn a_request_whose_body_does_not_go_on() {
    let gateway = TestGateway::with(SHORT).await.logged_in().await;
    // What is held before it is sent, and what streams.
    for (length, sent, reached) in [(100, 10, 0), (100 * 1024, 80 * 1024, 1)] {
        gateway.amove.forget_requests();
        let mut wire = gateway.wire().await;
        let head = format!(
            "POST {INSERT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        wire.write(head.as_bytes()).await;
        wire.write("x".repeat(sent).as_bytes()).await;

        let reply = wire.read().await;

        let timeout = "request_body_stall";
        assert_eq!(told(&reply), expected(408, "request-timeout", timeout, "http_request_error"));
        assert!(gateway.seen().len() <= reached);
    }
    let report = gateway.ask_operator("/readyz?verbose").await.json();
    assert_eq!(report["circuits"][0]["failures"], 0, "that is not Amove's fault");
}

#[tokio::test]
async fn an_answer_that_does_not_go_on_is_broken_off_and_the_record_says_so() {
    let gateway = TestGateway::with(SHORT).await.logged_in().await;
    let stalls = Fault::Drip { ms: 60_000, count: 1, host: Some(Host::Main), route: None };
    gateway.amove.inject(stalls.clone());
    let mut wire = gateway.wire().await;
    wire.write(format!("GET {USERINFO} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;

    let answer = String::from_utf8_lossy(&wire.read_to_end().await).into_owned();

    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(Reply::parse(answer.as_bytes()).is_none(), "it is not whole: {answer}");
    until("there is a record", async || {
        let reply = gateway.ask_operator("/-/audit?limit=1").await;
        reply.json()["records"][0]["outcome"] == "failed"
    })
    .await;
    gateway.amove.inject(stalls);
    let mut http2 = gateway.connect_http2().await;
    assert!(http2.try_call(request("GET", USERINFO, &[], "")).await.is_err());
    assert_eq!(gateway.get(USERINFO).await.status, 200);
}

#[tokio::test]
async fn an_answer_that_goes_on_slowly_takes_the_time_it_takes() {
    let settings = "upstream.response_timeout = \"1s\"";
    let gateway = TestGateway::with(settings).await.logged_in().await;
    gateway.amove.inject(Fault::Drip { ms: 6, count: 1, host: Some(Host::Main), route: None });
    let begin = std::time::Instant::now();

    let reply = gateway.get(USERINFO).await;

    assert_eq!((reply.status, reply.json()["username"].is_string()), (200, true));
    assert!(begin.elapsed().as_millis() > 1100, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn events_may_be_as_far_apart_as_they_like() {
    let settings = "upstream.response_timeout = \"200ms\"\nupstream.total_timeout = \"400ms\"";
    let gateway = TestGateway::with(settings).await.logged_in().await;
    gateway.amove.inject(Fault::Drip { ms: 700, count: 1, host: Some(Host::Main), route: None });
    let hub = request("GET", "/api/rm?id=x", &[("accept", "text/event-stream")], "");

    let mut response = gateway.connect().await.open(hub).await;

    for _ in 0..3 {
        let frame = timeout(DEADLINE, response.frame()).await.expect("a byte in time");
        frame.expect("more to come").expect("a body that does not break off");
    }
}

#[tokio::test]
async fn what_goes_on_for_ever_has_an_end() {
    let settings = "upstream.total_timeout = \"500ms\"";
    let gateway = TestGateway::with(settings).await.logged_in().await;
    // An answer that comes byte by byte.
    gateway.amove.inject(Fault::Drip { ms: 20, count: 1, host: Some(Host::Main), route: None });
    let mut http2 = gateway.connect_http2().await;
    let broken = timeout(DEADLINE, http2.try_call(request("GET", USERINFO, &[], "")));
    assert!(broken.await.expect("in time").is_err());

    // A request that does: it makes progress, so only all of its time can be over.
    let mut wire = gateway.wire().await;
    let length = 100 * 1024;
    let head = format!(
        "POST {INSERT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{}",
        "x".repeat(80 * 1024)
    );
    wire.write(head.as_bytes()).await;
    for _ in 0..40 {
        wire.write(b"x").await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }

    let reply = wire.read().await;

    assert_eq!(told(&reply), expected(408, "request-timeout", "total", "http_request_error"));
    let report = gateway.ask_operator("/readyz?verbose").await.json();
    assert_eq!(report["circuits"][0]["failures"], 0, "that is not Amove's fault");

    // And an Amove that is silent for all of that time.
    gateway.amove.inject(Fault::Stall { count: 1, host: Some(Host::Main), route: None });
    let reply = gateway.get(USERINFO).await;
    let error = "http_response_timeout";
    assert_eq!(told(&reply), expected(504, "upstream-timeout", "total", error));
}
