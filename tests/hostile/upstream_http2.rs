//! An API that speaks HTTP/2 and floods us, breaks rules, or says farewell.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use amove_gateway::emulator::{Emulator, Options};
use tokio::{net::TcpListener, time::sleep};

use crate::{
    frames::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PUSH_PROMISE,
        RST_STREAM, Raw, Reader, SETTINGS, WINDOW_UPDATE, block, frame, number, settings,
    },
    process_support::{self, Gateway, get},
};

const PATH: &str = "/api/v1/hostile/case";

/// What is sent instead of an answer.
type Misdeed = fn(stream: u32) -> Vec<u8>;

/// An answer to the request on `stream`.
fn answer(stream: u32, body: &[u8]) -> Vec<u8> {
    let head = frame(HEADERS, END_HEADERS, stream, &block(&[(":status", "200")]));
    [head, frame(DATA, END_STREAM, stream, body)].concat()
}

/// Waits for the next request; its stream.
async fn next_request(reader: &mut Reader) -> Option<u32> {
    loop {
        // It reads for as long as there is something: an idle connection is no failure.
        let frame = reader.read().await?;
        if frame.kind == HEADERS {
            return Some(frame.stream);
        }
    }
}

/// An API that is honest, but for the next request after a misdeed has been ordered.
struct Api {
    address: SocketAddr,
    next: Arc<Mutex<Option<Misdeed>>>,
}

impl Api {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let next = Arc::new(Mutex::new(None));
        let orders = Arc::clone(&next);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(Raw::over(stream), Arc::clone(&orders)));
            }
        });
        Self { address, next }
    }

    fn order(&self, misdeed: Misdeed) {
        *self.next.lock().expect("a lock") = Some(misdeed);
    }
}

async fn serve(mut raw: Raw, orders: Arc<Mutex<Option<Misdeed>>>) {
    raw.reader.skip_preface().await;
    raw.write(&[settings(&[]), frame(SETTINGS, ACK, 0, &[])].concat()).await;
    while let Some(stream) = next_request(&mut raw.reader).await {
        let misdeed = orders.lock().expect("a lock").take();
        let bytes = misdeed.map_or_else(|| answer(stream, b"honest"), |it| it(stream));
        if !raw.write(&bytes).await {
            return;
        }
    }
}

async fn gateway(address: SocketAddr) -> (Gateway, Emulator) {
    let auth = process_support::emulator(Options { mfa: false, ..Options::default() }).await;
    let api_url = format!("http://{address}");
    // The login host speaks HTTP/1.1, and the API does not: both are asked in what they speak.
    let settings = [
        ("AMOVE_GATEWAY_SERVER__WORKERS", "1"),
        ("AMOVE_GATEWAY_UPSTREAM__API_URL", &*api_url),
        ("AMOVE_GATEWAY_UPSTREAM__HTTP2", "always"),
        ("AMOVE_GATEWAY_UPSTREAM__RESPONSE_TIMEOUT", "2s"),
    ];
    let gateway = Gateway::ready(&auth, &settings).await;
    (gateway, auth)
}

fn memory(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.process.pid()))
        .expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn bomb() -> Vec<u8> {
    let mut bomb = block(&[(":status", "200")]);
    bomb.push(0x40);
    number(&mut bomb, 1);
    bomb.push(b'a');
    number(&mut bomb, 4000);
    bomb.extend([b'b'; 4000]);
    bomb.extend([0x80 | 62; 10_000]);
    bomb
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_it_does_the_next_request_goes_elsewhere() {
    let misdeeds: [(&str, Misdeed); 13] = [
        ("calm down", |_| frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 11])),
        ("nonsense", |_| b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".repeat(1000)),
        ("a block without end", |stream| {
            let field = block(&[("a", &"b".repeat(1000))]);
            let first = frame(HEADERS, 0, stream, &block(&[(":status", "200")]));
            [first, frame(CONTINUATION, 0, stream, &field).repeat(5000)].concat()
        }),
        ("a bomb of fields", |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &bomb())),
        ("a push", |stream| {
            let promise = [&[0, 0, 0, 2][..], &block(&[(":method", "GET")])].concat();
            frame(PUSH_PROMISE, END_HEADERS, stream, &promise)
        }),
        ("a window beyond its end", |_| {
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]).repeat(2)
        }),
        ("a stream we never opened", |_| answer(99, b"poison")),
        ("half a setting", |_| frame(SETTINGS, 0, 0, &[0; 5])),
        ("data before a head", |stream| frame(DATA, END_STREAM, stream, b"poison")),
        ("data of nothing", |stream| {
            let head = frame(HEADERS, END_HEADERS, stream, &block(&[(":status", "200")]));
            [head, frame(DATA, 0, stream, &[]).repeat(100_000)].concat()
        }),
        ("interim answers", |stream| {
            frame(HEADERS, END_HEADERS, stream, &block(&[(":status", "103")])).repeat(100_000)
        }),
        ("101", |stream| frame(HEADERS, END_HEADERS, stream, &block(&[(":status", "101")]))),
        ("a line within a field", |stream| {
            let fields = block(&[(":status", "200"), ("a", "b\r\nevil: c")]);
            frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields)
        }),
    ];
    let api = Api::start().await;
    let (gateway, _auth) = gateway(api.address).await;
    for (name, misdeed) in misdeeds {
        assert_eq!(get(gateway.address, PATH).await.body(), "honest", "before {name}");
        api.order(misdeed);
        let before = memory(&gateway);

        let answer = process_support::call(gateway.address, process_support::request("GET", PATH));
        // It may break off, if it has begun.
        if let Ok(answer) = answer.await {
            let is_bad = matches!(answer.status().as_u16(), 502..=504);
            assert!(
                is_bad && !answer.body().windows(6).any(|it| it == b"poison"),
                "{name}: {answer:?}"
            );
        }
        let honest = get(gateway.address, PATH).await;

        assert_eq!(honest.body(), "honest", "{name}: {honest:?}");
        let grown = memory(&gateway).saturating_sub(before);
        eprintln!("{name}: {grown} KiB");
        assert!(grown < 32 * 1024, "{name}: {grown} KiB");
    }
}

/// Frames that want nothing, while an answer is awaited.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_ahead_of_an_answer_costs_time_and_no_memory() {
    let floods: [(&str, Misdeed); 4] = [
        ("PING", |stream| {
            [frame(PING, 0, 0, &[0; 8]).repeat(50_000), answer(stream, b"x")].concat()
        }),
        ("SETTINGS", |stream| [settings(&[]).repeat(50_000), answer(stream, b"x")].concat()),
        ("WINDOW_UPDATE", |stream| {
            [frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(50_000), answer(stream, b"x")]
                .concat()
        }),
        ("RST_STREAM", |stream| {
            [frame(RST_STREAM, 0, stream, &[0, 0, 0, 7]).repeat(50_000), answer(stream, b"x")]
                .concat()
        }),
    ];
    let api = Api::start().await;
    let (gateway, _auth) = gateway(api.address).await;
    for (name, misdeed) in floods {
        api.order(misdeed);
        let before = memory(&gateway);

        let first = get(gateway.address, PATH).await;
        let second = get(gateway.address, PATH).await;

        let grown = memory(&gateway).saturating_sub(before);
        eprintln!("{name}: {grown} KiB, {} and {}", first.status(), second.status());
        assert_eq!(second.body(), "honest", "{name}: {second:?}");
        assert!(grown < 32 * 1024, "{name}: {grown} KiB");
        assert!(name == "RST_STREAM" || first.status() == 200, "{name}: {first:?}");
    }
}

/// A farewell names the last request that will be answered: those up to it are waited for, and what
/// comes later goes over a new connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_farewell_lets_what_is_under_way_finish() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (said, has_said) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let mut said = Some(said);
        while let Ok((stream, _)) = listener.accept().await {
            let said = said.take();
            tokio::spawn(async move {
                let mut raw = Raw::over(stream);
                raw.reader.skip_preface().await;
                raw.write(&[settings(&[]), frame(SETTINGS, ACK, 0, &[])].concat()).await;
                let Some(said) = said else {
                    while let Some(stream) = next_request(&mut raw.reader).await {
                        raw.write(&answer(stream, b"new")).await;
                    }
                    return;
                };
                let mut streams = Vec::new();
                for _ in 0..3 {
                    streams.extend(next_request(&mut raw.reader).await);
                }
                let last = *streams.last().expect("a request");
                let goodbye = [&last.to_be_bytes()[..], &[0; 4]].concat();
                raw.write(&frame(GOAWAY, 0, 0, &goodbye)).await;
                let _ = said.send(());
                // The answers come only after another request has gone elsewhere.
                sleep(Duration::from_millis(500)).await;
                for stream in streams {
                    raw.write(&answer(stream, b"old")).await;
                }
                while raw.reader.read().await.is_some() {}
            });
        }
    });
    let (gateway, _auth) = gateway(address).await;
    let under_way = futures_util::future::join_all((0..3).map(|_| get(gateway.address, PATH)));
    let later = async {
        has_said.await.expect("a farewell");
        sleep(Duration::from_millis(50)).await;
        get(gateway.address, PATH).await
    };

    let (under_way, later) = tokio::join!(under_way, later);

    for answer in under_way {
        assert_eq!((answer.status().as_u16(), &**answer.body()), (200, &b"old"[..]));
    }
    assert_eq!((later.status().as_u16(), &**later.body()), (200, &b"new"[..]));
}

/// What an API has received, in its order: on which connection, and the body.
type Seen = Arc<Mutex<Vec<(usize, Vec<u8>)>>>;

/// What is written when a request has come: on which connection, in which stream, and the how many
/// of them it is there.
type Reaction = fn(connection: usize, stream: u32, number: usize) -> Vec<u8>;

/// An API that reads whole requests and reacts to each; on its first connection it does so as soon
/// as there are `enough` bytes of one.
async fn reacting(enough: usize, reaction: Reaction) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let seen = Seen::default();
    let shared = Arc::clone(&seen);
    tokio::spawn(async move {
        let mut connections = 0;
        while let Ok((stream, _)) = listener.accept().await {
            connections += 1;
            let enough = if connections == 1 { enough } else { usize::MAX };
            let shared = Arc::clone(&shared);
            tokio::spawn(react(Raw::over(stream), connections, enough, reaction, shared));
        }
    });
    (address, seen)
}

async fn react(mut raw: Raw, connection: usize, enough: usize, reaction: Reaction, seen: Seen) {
    raw.reader.skip_preface().await;
    // Windows that let everything through.
    let windows = [settings(&[(4, 1 << 20)]), frame(WINDOW_UPDATE, 0, 0, &[0, 0x10, 0, 0])];
    raw.write(&[&windows.concat()[..], &frame(SETTINGS, ACK, 0, &[])].concat()).await;
    let (mut number, mut bodies) = (0, std::collections::BTreeMap::<u32, Vec<u8>>::new());
    while let Some(frame) = raw.reader.read().await {
        match frame.kind {
            HEADERS => drop(bodies.insert(frame.stream, Vec::new())),
            DATA => bodies.entry(frame.stream).or_default().extend(&frame.payload),
            _ => continue,
        }
        let is_whole = frame.flags & END_STREAM != 0;
        let is_large = bodies.get(&frame.stream).is_some_and(|body| body.len() >= enough);
        if is_whole || is_large {
            let body = bodies.remove(&frame.stream).unwrap_or_default();
            seen.lock().expect("a lock").push((connection, body));
            number += 1;
            raw.write(&reaction(connection, frame.stream, number)).await;
        }
    }
}

fn goodbye(last: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[&last.to_be_bytes()[..], &[0; 4]].concat())
}

fn refusal(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &[0, 0, 0, 7])
}

async fn post(gateway: &Gateway, body: &[u8]) -> http::Response<bytes::Bytes> {
    let mut request = process_support::request("POST", PATH);
    *request.body_mut() = bytes::Bytes::copy_from_slice(body).into();
    process_support::call(gateway.address, request).await.expect("an answer")
}

async fn counted(gateway: &Gateway, result: &str) -> bool {
    let metrics = get(gateway.admin, "/metrics").await;
    let text = String::from_utf8_lossy(metrics.body()).into_owned();
    let line = "amove_gateway_upstream_unprocessed_total{host=\"api\",result=";
    text.contains(&format!("{line}{result}"))
}

/// A write that came after the last one which is served goes over a new connection, whole; the one
/// before it is answered where it was sent, and nothing is done twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_not_processed_is_sent_again() {
    let (address, seen) =
        reacting(usize::MAX, |connection, stream, number| match (connection, number) {
            (1, 1 | 2) => Vec::new(),
            // The last one that is served is the first one.
            (1, _) => [goodbye(1), answer(1, b"old")].concat(),
            _ => answer(stream, b"new"),
        })
        .await;
    let (gateway, _auth) = gateway(address).await;
    let bodies = [&b"one"[..], b"two", b"three"];

    let answers = futures_util::future::join_all(bodies.map(|it| post(&gateway, it))).await;
    let later = post(&gateway, b"four").await;

    assert!(answers.iter().all(|answer| answer.status() == 200), "{answers:?}");
    let of = |body: &[u8]| answers.iter().filter(|answer| **answer.body() == *body).count();
    assert_eq!((of(b"old"), of(b"new"), &**later.body()), (1, 2, &b"new"[..]));
    let mut seen = seen.lock().expect("a lock").clone();
    let again = seen.split_off(3);
    for (connection, body) in &seen {
        // The first one is served, the others come again.
        let comes_again = again.iter().any(|(_, later)| later == body);
        assert_eq!((*connection, comes_again), (1, *body != seen[0].1), "{seen:?} {again:?}");
    }
    assert!(again.len() == 3 && again.iter().all(|it| it.0 == 2), "{again:?}");
    assert!(counted(&gateway, "\"sent_again\"} 2").await);
}

/// A request that is refused is sent again over the same connection, but not for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_refused_is_sent_again_but_not_for_ever() {
    let (address, seen) = reacting(usize::MAX, |_, stream, number| match number {
        1 | 4.. => refusal(stream),
        _ => answer(stream, b"done"),
    })
    .await;
    let (gateway, _auth) = gateway(address).await;

    assert_eq!(post(&gateway, b"first").await.body(), "done");
    assert_eq!(post(&gateway, b"second").await.body(), "done");
    let refused = post(&gateway, b"third").await;

    let text = String::from_utf8_lossy(refused.body());
    assert_eq!(refused.status(), 502, "{text}");
    assert!(text.contains("did not process the request; nothing of it took effect"), "{text}");
    let seen = seen.lock().expect("a lock").clone();
    let expected = [&b"first"[..], b"first", b"second", b"third", b"third", b"third"];
    assert_eq!(seen, expected.map(|body| (1, body.to_vec())));
    assert!(counted(&gateway, "\"sent_again\"} 3").await);
    assert!(counted(&gateway, "\"given_up\"} 1").await);
}

/// A streamed write is sent again as long as not much of it has gone; else who has sent it is told
/// that nothing took effect.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_streamed_write_that_was_not_processed_the_beginning_is_kept() {
    let reaction: Reaction = |connection, stream, _| match connection {
        1 => goodbye(0),
        _ => answer(stream, b"new"),
    };
    for (body, farewell_after, is_kept) in [(40_000, 10_000, true), (400_000, 200_000, false)] {
        let (address, seen) = reacting(farewell_after, reaction).await;
        let (gateway, _auth) = gateway(address).await;
        let body = vec![b'x'; body];

        let streamed = post(&gateway, &body).await;
        let next = post(&gateway, b"next").await;

        assert_eq!(next.body(), "new");
        let seen = seen.lock().expect("a lock").clone();
        if is_kept {
            assert_eq!((streamed.status().as_u16(), &**streamed.body()), (200, &b"new"[..]));
            let again = seen.iter().find(|(connection, _)| *connection == 2);
            assert!(again.is_some_and(|(_, again)| *again == body));
        } else {
            let text = String::from_utf8_lossy(streamed.body());
            assert_eq!(streamed.status(), 502, "{text}");
            assert!(text.contains("nothing of it took effect"), "{text}");
            assert_eq!(seen.iter().filter(|it| it.0 == 2).count(), 1, "it is not sent again");
        }
    }
}
