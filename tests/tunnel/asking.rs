//! Who asks for a WebSocket, where, and what becomes of it.

use amove_gateway::emulator::Host;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use crate::{
    process_support::{get, soon},
    support::{ASK, Between, MOMENT, SWITCH},
};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_websocket_is_asked_for_with_goes_up_with_our_token() {
    let between = Between::start(&[]).await;
    let mut caller = between.caller(&format!("{ASK}Cookie: c\r\nX-Api-Key: k\r\n\r\n")).await;

    let (mut api, asked) = between.api().await;
    api.say(SWITCH).await;
    let answered = caller.head().await;

    assert!(asked.starts_with("get /api/rm?id=1 "), "{asked}");
    for field in [
        "connection: upgrade\r\n",
        "upgrade: websocket\r\n",
        "sec-websocket-version: 13\r\n",
        "sec-websocket-protocol: a\r\n",
        "sec-websocket-key: dghlihnhbxbszsbub25jzq==\r\n",
        "authorization: bearer ",
        "via: 1.1 amove-gateway\r\n",
    ] {
        assert_eq!(asked.matches(&format!("\r\n{field}")).count(), 1, "{field}: {asked}");
    }
    for field in ["cookie", "x-api-key", "keep-alive"] {
        assert!(!asked.contains(field), "{field}: {asked}");
    }
    assert!(answered.starts_with("HTTP/1.1 101 "), "{answered}");
    for field in ["connection: upgrade", "upgrade: websocket", "x-request-id: "] {
        assert_eq!(answered.matches(&format!("\r\n{field}")).count(), 1, "{field}: {answered}");
    }
    assert!(answered.contains("\r\nsec-websocket-accept: s3pplmbi"), "{answered}");
    for field in ["content-length", "transfer-encoding"] {
        assert!(!answered.contains(field), "{field}: {answered}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_up_before_the_api_has_switched_and_little_is_kept() {
    let between = Between::start(&[]).await;
    let mut caller = between.caller(&format!("{ASK}\r\nearly")).await;
    let (mut api, _) = between.api().await;
    api.hears_nothing().await;
    // Sooner or later nobody takes it any more.
    let flood = "x".repeat(32 * 1024 * 1024);
    let mut sent = 0;
    while let Ok(written) = timeout(MOMENT, caller.stream.write(&flood.as_bytes()[sent..])).await {
        sent += written.expect("an open connection");
        assert!(sent < flood.len(), "all of it is taken");
    }
    api.hears_nothing().await;

    api.say(&format!("{SWITCH}hello")).await;

    caller.head().await;
    caller.hears("hello").await;
    api.hears("early").await;
    api.hears(&flood[..sent]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_other_answer_is_a_normal_one_and_the_connection_goes_on_in_http() {
    let between = Between::start(&[]).await;
    let next = "GET /api/v1/user/userinfo HTTP/1.1\r\nHost: x\r\n\r\n";
    // More than is ever read of it, so that who merely closes resets the connection.
    let bad = format!("BAD\n\n{}", "x".repeat(200_000));
    let mut caller = between.caller(&format!("{ASK}\r\n{next}{bad}")).await;
    let (mut api, _) = between.api().await;

    api.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno").await;
    let declined = caller.head().await;
    caller.hears("no").await;
    let asked = api.head().await;
    api.say("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes").await;
    let answered = caller.head().await;
    caller.hears("yes").await;

    assert!(declined.starts_with("HTTP/1.1 200 "), "{declined}");
    assert!(asked.starts_with("get /api/v1/user/userinfo "), "{asked}");
    assert!(!asked.contains("upgrade"), "{asked}");
    assert!(answered.starts_with("HTTP/1.1 200 "), "{answered}");
    let refused = caller.rest().await.expect("an answer");
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    assert_eq!(between.hub_record("outcome").await["status"], 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_token_is_renewed_once_and_the_same_is_asked_again() {
    for (denial, switches) in [
        ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 499 \r\nerror-code: SESSION\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", false),
    ] {
        let between = Between::start(&[]).await;
        let mut caller = between.caller(&format!("{ASK}\r\nearly")).await;
        let (mut api, first) = between.api().await;
        api.say(denial).await;
        let second = api.head().await;
        let token = |head: &str| {
            let (_, rest) = head.split_once("authorization: ").expect("a token");
            rest.split_once("\r\n").expect("a line").0.to_owned()
        };
        let without = |head: &str| head.replace(&token(head), "");
        assert_eq!(without(&first), without(&second));
        assert_eq!(between.auth.stats().logins, 2);
        if switches {
            api.say(SWITCH).await;
            let answer = caller.head().await;
            assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
            api.hears("early").await;
            api.say("late").await;
            caller.hears("late").await;
            drop((caller, api));
            let record = between.hub_record("outcome").await;
            assert_eq!((&record["attempts"], &record["replay"]), (&2.into(), &"done".into()));
        } else {
            api.say(denial).await;
            let answer = caller.head().await;
            assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
            assert!(between.is_quiet().await);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_was_not_asked_for_or_is_another_one_is_a_problem() {
    let between = Between::start(&[]).await;
    let elsewhere = ASK.replace("/api/rm", "/api/v1/user/userinfo");
    let unknown = ASK.replace("/api/rm", "/api/v1/rm");
    let post = format!("{}Content-Length: 0\r\n", ASK.replace("GET ", "POST "));
    let h2c = ASK.replace("Upgrade: websocket", "Upgrade: h2c");
    let silent = ASK.replace(", Upgrade", "");
    let body = format!("{ASK}Content-Length: 2\r\n");
    for (ask, body) in
        [(&elsewhere, ""), (&unknown, ""), (&post, ""), (&h2c, ""), (&silent, ""), (&body, "hi")]
    {
        let mut caller = between.caller(&format!("{ask}\r\n{body}")).await;
        let (mut api, asked) = between.api().await;
        api.hears(body).await;
        api.say(&format!("{SWITCH}evil")).await;
        let answer = caller.head().await;

        assert!(!asked.contains("\r\nupgrade:") && !asked.contains("\r\nconnection:"), "{asked}");
        assert!(answer.starts_with("HTTP/1.1 502 "), "{ask}: {answer}");
        assert_eq!(api.rest().await.expect("a clean end"), "", "{ask}");
    }
    for switch in [
        SWITCH.replace("Upgrade: websocket", "Upgrade: h2c"),
        SWITCH.replace("Upgrade: websocket", "Upgrade: websocket, h2c"),
        SWITCH.replace("Connection: Upgrade", "Connection: close"),
    ] {
        let mut caller = between.caller(&format!("{ASK}\r\n")).await;
        let (mut api, _) = between.api().await;
        api.say(&switch).await;
        let answer = caller.head().await;

        assert!(answer.starts_with("HTTP/1.1 502 "), "{switch}: {answer}");
        assert!(api.rest().await.is_ok_and(|rest| rest.is_empty()), "{switch}");
    }
    between.has_tunnels(0).await;
}

/// RFC 8441 is not offered; a client is told so at the beginning of each connection.
#[tokio::test(flavor = "multi_thread")]
async fn in_http2_there_is_no_websocket() {
    let between = Between::start(&[]).await;
    let stream = TcpStream::connect(between.gateway.address).await.expect("a connection");
    let (mut sender, mut connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2");
    let request = http::Request::get("http://x/api/rm").header("sec-websocket-version", "13");
    let request = request.body(Full::<bytes::Bytes>::default()).expect("a request");
    let answer = sender.send_request(request);
    let both = async {
        tokio::select! {
            ended = &mut connection => panic!("{ended:?}"),
            (mut api, asked) = between.api() => {
                assert!(!asked.contains("upgrade"), "{asked}");
                api.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            }
        }
        tokio::select! {
            ended = &mut connection => panic!("{ended:?}"),
            answer = answer => answer.expect("an answer").status(),
        }
    };

    assert_eq!(soon("an answer", both).await, 200);
    assert!(!connection.is_extended_connect_protocol_enabled());
    assert_eq!(get(between.gateway.admin, "/livez").await.status(), 200);
    assert!(between.auth.requests().iter().all(|seen| seen.host == Host::Auth));
}
