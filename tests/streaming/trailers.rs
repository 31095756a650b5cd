//! What follows a body passes, if it is announced and harmless.

use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt, StreamBody};
use hyper::{body::Frame, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::process_support::{Gateway, between::Between, emulator, soon};

const HEAD: &str =
    "POST /api/v1/emulator/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_both_ways() {
    let between = Between::start(&[]).await;
    let announce = "Connection: TE\r\nTE: trailers\r\n\
        Trailer: X-Sum, X-Forwarded-For\r\nTrailer: X-More\r\n";
    let mut caller = between
        .caller(&format!(
            "{HEAD}{announce}\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\nX-Not: 3\r\n\r\n"
        ))
        .await;

    let (mut api, asked) = between.api().await;
    assert!(asked.contains("\r\ntrailer: x-sum, x-more\r\n"), "{asked}");
    api.hears("2\r\nhi\r\n0\r\nx-sum: 1\r\nx-more: 2\r\n\r\n").await;
    api.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Set-Cookie\r\n\r\n")
        .await;
    api.say("2\r\nok\r\n0\r\nX-Sum: 4\r\nSet-Cookie: a=b\r\n\r\n").await;
    let answer = caller.head().await;
    assert!(answer.contains("\r\ntrailer: x-sum\r\n"), "{answer}");
    caller.hears("2\r\nok\r\n0\r\nx-sum: 4\r\n\r\n").await;
    assert_eq!(between.record("", "outcome").await["outcome"], "ok");

    // What is announced nowhere, or not wanted, is dropped, and the connections go on.
    caller.say(&format!("{HEAD}\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n")).await;
    let asked = api.head().await;
    assert!(!asked.contains("trailer"), "{asked}");
    api.hears("2\r\nhi\r\n0\r\n\r\n").await;
    api.say(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 4\r\n\r\n",
    )
    .await;
    caller.head().await;
    caller.hears("2\r\nok\r\n0\r\n\r\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_kept_for_a_replay_keeps_its_trailers() {
    let between = Between::start(&[]).await;
    let head = HEAD.replace("POST /api/v1/emulator/echo", "GET /api/v1/user/userinfo");
    let body = "2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n";
    let _caller = between.caller(&format!("{head}Trailer: X-Sum\r\n\r\n{body}")).await;

    let (mut api, _) = between.api().await;
    api.hears(body).await;
    api.say("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").await;
    api.head().await;
    api.hears(body).await;
}

/// In HTTP/2 they need no announcement, so that each one is looked at.
#[tokio::test(flavor = "multi_thread")]
async fn in_http2_trailers_are_as_harmless_as_in_http1() {
    let emulator = emulator(Default::default()).await;
    let settings = [("AMOVE_GATEWAY_UPSTREAM__HTTP2", "always")];
    let gateway = Gateway::ready(&emulator, &settings).await;
    let stream = TcpStream::connect(gateway.address).await.expect("a connection");
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    let mut trailers = HeaderMap::new();
    for name in ["x-sum", "authorization", "x-forwarded-for", "cookie", "x-http-method", "host"] {
        trailers.insert(name, HeaderValue::from_static("1"));
    }
    let frames = [Frame::data(bytes::Bytes::from("hi")), Frame::trailers(trailers)];
    let frames = futures_util::stream::iter(frames.map(Ok::<_, std::io::Error>));
    let request = Request::post("http://x/api/v1/emulator/echo").body(StreamBody::new(frames));

    let answer = soon("an answer", sender.send_request(request.expect("a request"))).await;

    let body = answer.expect("an answer").into_body().collect().await.expect("a body").to_bytes();
    let echo: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(echo["trailers"], serde_json::json!([["x-sum", "1"]]), "{echo}");
}
