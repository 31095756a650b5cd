//! The guard between a stream and hyper.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::super::{Guard, Handle, Overdue, Patience, Phase, Protocol, REFUSED, Refusal, Ticks};

const GET: &[u8] = b"GET /good HTTP/1.1\r\nHost: a\r\n\r\n";
const CHUNKED: &[u8] = b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
const UPGRADE: &[u8] =
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
const PATIENCE: Patience = Patience { header: 10, idle: 75 };

/// A client, and hyper behind a guard at the other end.
struct Served {
    client: DuplexStream,
    ticks: Arc<Ticks>,
    handle: Handle,
    /// What the service has seen.
    seen: Arc<Mutex<Vec<String>>>,
    polls: Arc<AtomicUsize>,
}

fn serve() -> Served {
    let (client, server) = tokio::io::duplex(8 * 1024);
    let ticks = Arc::new(Ticks::default());
    let handle = Handle::new(ticks.clone());
    let (seen, polls) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
    let connection = connection(server, handle.clone(), Arc::clone(&seen));
    let counter = Arc::clone(&polls);
    tokio::spawn(async move {
        let mut connection = pin!(connection);
        poll_fn(|cx| {
            counter.fetch_add(1, Ordering::Relaxed);
            connection.as_mut().poll(cx)
        })
        .await;
    });
    Served { client, ticks, handle, seen, polls }
}

async fn connection<S>(stream: S, handle: Handle, seen: Arc<Mutex<Vec<String>>>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let guard = Guard::new(stream, 32 * 1024, handle.clone());
    let Ok(sniffed) = guard.sniff().await else { return };
    let service = service_fn(move |request| answer(request, handle.clone(), Arc::clone(&seen)));
    let result = match sniffed.protocol {
        Protocol::Http1 => {
            hyper::server::conn::http1::Builder::new()
                .serve_connection(sniffed.guard, service)
                .with_upgrades()
                .await
        }
        Protocol::Http2 => {
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(sniffed.guard, service)
                .await
        }
    };
    // What hyper thinks of the end is tested by what the client sees.
    drop(result);
}

async fn answer(
    mut request: Request<Incoming>,
    handle: Handle,
    seen: Arc<Mutex<Vec<String>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let note = |text: String| seen.lock().unwrap().push(text);
    let mut response = Response::new(Full::default());
    if request.method().as_str() == REFUSED {
        let verdict = handle.take_verdict().expect("a refusal has a reason");
        note(format!("refused: {verdict:?}"));
        *response.status_mut() = verdict.status();
        *response.body_mut() = Full::from(verdict.to_string());
        return Ok(response);
    }
    handle.opened();
    note(format!("{} {}", request.method(), request.uri()));
    if request.uri() == "/early" {
        *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
    } else if request.uri() == "/ws" {
        let upgrade = hyper::upgrade::on(&mut request);
        handle.upgraded();
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgrade.await.expect("an upgrade"));
            let mut buffer = [0; 64];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                stream.write_all(&buffer[..read]).await.expect("an echo");
            }
        });
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    } else if let Err(error) = request.into_body().collect().await {
        note(format!("broken: {:?}", Refusal::behind(&error)));
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
    handle.closed();
    Ok(response)
}

impl Served {
    async fn send(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).await.expect("the server reads");
    }

    /// All that the server sends until it closes.
    async fn rest(&mut self) -> String {
        let mut text = Vec::new();
        let read = self.client.read_to_end(&mut text);
        within(read).await.expect("the server closes");
        String::from_utf8(text).expect("text")
    }

    /// One answer without a body.
    async fn answer(&mut self) -> String {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            text.push(within(self.client.read_u8()).await.expect("an answer"));
        }
        String::from_utf8(text).expect("text")
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// Lets the server work until it has nothing more to do.
    async fn settle(&self) {
        settle().await;
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("it hangs")
}

async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_good_request_is_served() {
    let mut served = serve();

    served.send(GET).await;

    assert!(served.answer().await.starts_with("HTTP/1.1 200"));
    assert_eq!(served.seen(), ["GET /good"]);
}

#[tokio::test(start_paused = true)]
async fn of_a_bad_request_the_service_sees_the_verdict_and_nothing_else() {
    let mut served = serve();

    served.send(b"GET / HTTP/1.1\r\nHost: a\r\nX_Y: 1\r\n\r\n").await;
    served.client.shutdown().await.expect("half closed");
    let answer = served.rest().await;

    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(answer.contains("underscore"), "{answer}");
    assert_eq!(served.seen(), ["refused: FieldNameUnderscore"]);
    assert_eq!(served.handle.phase(), Phase::Closing);
}

#[tokio::test(start_paused = true)]
async fn a_bad_head_is_refused_before_it_is_complete() {
    let mut served = serve();

    served.send(b"GET / HTTP/1.1\nHost").await;
    served.client.shutdown().await.expect("half closed");

    assert!(served.rest().await.starts_with("HTTP/1.1 400"));
    assert_eq!(served.seen(), ["refused: BareLf"]);
}

#[tokio::test(start_paused = true)]
async fn nobody_can_pretend_to_be_the_guard() {
    let mut served = serve();

    served.send(b"REFUSED / HTTP/1.1\r\nHost: refused.invalid\r\n\r\n").await;
    served.client.shutdown().await.expect("half closed");

    assert!(served.rest().await.starts_with("HTTP/1.1 400"));
    assert_eq!(served.seen(), ["refused: ReservedMethod"]);
}

#[tokio::test(start_paused = true)]
async fn good_requests_ahead_of_a_bad_one_are_answered_first() {
    let mut served = serve();

    let bad = b"GET /bad HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\nGET /more HTTP/1.1\r\n\r\n";
    served.send(&[GET, GET, bad].concat()).await;
    served.client.shutdown().await.expect("half closed");
    let answers = served.rest().await;

    assert_eq!(answers.matches("HTTP/1.1 200").count(), 2, "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 400").count(), 1, "{answers}");
    assert_eq!(served.seen(), ["GET /good", "GET /good", "refused: HostRepeated"]);
}

#[tokio::test(start_paused = true)]
async fn a_bad_chunk_that_arrives_with_its_head_spoils_the_whole_message() {
    let mut served = serve();

    served.send(&[CHUNKED, b"2\r\nhi\r\n5;\nx\r\n"].concat()).await;
    served.client.shutdown().await.expect("half closed");

    assert!(served.rest().await.starts_with("HTTP/1.1 400"));
    assert_eq!(served.seen(), ["refused: BareLf"]);
}

#[tokio::test(start_paused = true)]
async fn a_bad_chunk_that_arrives_later_breaks_the_body() {
    let mut served = serve();

    served.send(&[CHUNKED, b"2\r\nhi\r\n"].concat()).await;
    served.settle().await;
    served.send(b"2 \r\nhi\r\n0\r\n\r\n").await;
    served.client.shutdown().await.expect("half closed");

    assert!(served.rest().await.starts_with("HTTP/1.1 400"));
    assert_eq!(served.seen(), ["POST /c", "broken: Some(ChunkExtension)"]);
    assert_eq!(served.handle.take_verdict(), Some(Refusal::ChunkExtension));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_in_the_middle_of_a_head_is_not_noticed() {
    let mut served = serve();

    served.send(b"GET / HTTP/1.1\r\nHost: a\r\n").await;
    served.client.shutdown().await.expect("half closed");

    assert_eq!(served.rest().await, "");
    assert_eq!(served.seen(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_a_refused_client_sends_on_is_dropped_without_haste() {
    let mut served = serve();

    served.send(b"GET / HTTP/9.9\r\n\r\n").await;
    served.send(&[b'x'; 16 * 1024]).await;
    served.settle().await;
    let polls = served.polls.load(Ordering::Relaxed);
    served.settle().await;

    assert_eq!(
        served.polls.load(Ordering::Relaxed),
        polls,
        "nothing happens, so nothing is polled"
    );
    assert_eq!(served.seen(), ["refused: Version"]);
    assert!(served.answer().await.starts_with("HTTP/1.1 400"));
}

#[tokio::test(start_paused = true)]
async fn a_refused_client_that_does_not_leave_is_left() {
    let mut served = serve();
    served.send(b"GET / HTTP/9.9\r\n\r\n").await;
    served.settle().await;
    for _ in 0..10 {
        served.ticks.advance();
    }

    let overdue = served.handle.overdue(served.ticks.now(), PATIENCE);
    served.handle.expire();
    served.settle().await;

    assert_eq!(overdue, Some(Overdue::Header));
    assert!(served.client.write_all(b"x").await.is_err(), "the connection is gone");
}

/// Sends `head` and a body much larger than what fits into the connection, and only then reads.
async fn upload(head: &str) -> String {
    let mut served = serve();
    served.send(head.as_bytes()).await;
    served.send(&[b'x'; 500_000]).await;
    served.rest().await
}

#[tokio::test(start_paused = true)]
async fn a_refused_client_may_finish_sending_before_it_reads_the_answer() {
    let answer = upload("POST / HTTP/1.1\r\nContent-Length: 500000\r\n\r\n").await;

    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn so_may_a_client_that_is_answered_ahead_of_its_body() {
    let answer = upload("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n").await;

    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn it_is_not_waited_for_longer_than_for_a_head() {
    let mut served = serve();
    served.send(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n").await;
    served.answer().await;
    served.settle().await;
    for _ in 0..10 {
        served.ticks.advance();
    }

    let overdue = served.handle.overdue(served.ticks.now(), PATIENCE);
    served.handle.expire();
    served.settle().await;

    assert_eq!(overdue, Some(Overdue::Header));
    assert!(served.client.write_all(b"x").await.is_err(), "the connection is gone");
}

#[tokio::test(start_paused = true)]
async fn hyper_understands_what_the_guard_accepts() {
    for line in [
        "GET /?a={b}|c[d]^`\\ HTTP/1.1",
        "GET /a[1]|b HTTP/1.1",
        "GET //a//b/../c;d HTTP/1.1",
        "GET /~user/!$&'()*+,;=:@-._%zz HTTP/1.1",
        "GET /?? HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET http://HOST/ HTTP/1.1",
        "GET https://HOST HTTP/1.1",
        "GET HTTP://HOST?x=/y HTTP/1.1",
        "M-!#$%&'*+-.^`|~ / HTTP/1.1",
    ] {
        for host in ["a", "my_service:80", "a-b.c~", "127.0.0.1:65535", "[::1]", "[2001:db8::1]:0"]
        {
            let mut served = serve();

            served
                .send(format!("{line}\r\nHost: HOST\r\n\r\n").replace("HOST", host).as_bytes())
                .await;

            let answer = served.answer().await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{line} {host}: {answer}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_takes_too_long_is_answered_with_408() {
    let mut served = serve();
    served.send(b"GET / HTTP/1.1\r\nHo").await;
    served.settle().await;
    for _ in 0..9 {
        served.ticks.advance();
        served.send(b"o").await;
        served.settle().await;
    }
    assert_eq!(served.handle.overdue(served.ticks.now(), PATIENCE), None);

    served.ticks.advance();
    let overdue = served.handle.overdue(served.ticks.now(), PATIENCE);
    served.handle.expire();
    served.settle().await;
    served.send(&[b'x'; 100_000]).await;

    assert_eq!(overdue, Some(Overdue::Header));
    assert!(served.rest().await.starts_with("HTTP/1.1 408"));
    assert_eq!(served.seen(), ["refused: HeadTimeout"]);
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_closed_silently() {
    for requests in [0, 1] {
        let mut served = serve();
        for _ in 0..requests {
            served.send(GET).await;
            served.answer().await;
        }
        served.settle().await;
        let expected = if requests == 0 { Phase::Fresh } else { Phase::Between };
        assert_eq!(served.handle.phase(), expected);

        served.handle.expire();

        assert_eq!(served.rest().await, "");
    }
}

#[test]
fn a_connection_with_an_open_exchange_is_never_overdue() {
    let ticks = Arc::new(Ticks::default());
    let handle = Handle::new(Arc::clone(&ticks));
    handle.enter(Phase::Between);
    handle.opened();
    for _ in 0..100 {
        ticks.advance();
    }
    assert_eq!(handle.overdue(ticks.now(), PATIENCE), None);

    handle.closed();
    assert_eq!(handle.overdue(ticks.now(), PATIENCE), None);

    for _ in 0..75 {
        ticks.advance();
    }
    assert_eq!(handle.overdue(ticks.now(), PATIENCE), Some(Overdue::Idle));
}

#[test]
fn whoever_takes_nothing_of_its_answers_is_overdue() {
    let ticks = Arc::new(Ticks::default());
    let handle = Handle::new(Arc::clone(&ticks));
    handle.enter(Phase::Http2);
    handle.opened();
    handle.opened();
    handle.offer(true);
    for _ in 0..100 {
        ticks.advance();
    }
    assert_eq!(handle.overdue(ticks.now(), PATIENCE), None, "one exchange waits for the API");

    handle.offer(true);
    assert_eq!(handle.overdue(ticks.now(), PATIENCE), Some(Overdue::Idle));

    handle.touch();
    assert_eq!(handle.overdue(ticks.now(), PATIENCE), None, "it has taken something");
}

#[test]
fn a_connection_is_quiet_when_all_is_answered_and_taken() {
    let ticks = Arc::new(Ticks::default());
    let handle = Handle::new(Arc::clone(&ticks));
    assert!(!handle.is_quiet(), "nothing was asked yet");
    handle.enter(Phase::Between);
    handle.opened();
    assert!(!handle.is_quiet(), "an exchange is open");
    handle.stuck(true);
    handle.closed();
    assert!(!handle.is_quiet(), "the client does not take the answer");

    handle.stuck(false);
    ticks.advance();

    assert_eq!((handle.is_quiet(), handle.quiet_for(ticks.now())), (true, 1));
    handle.enter(Phase::Head);
    assert_eq!(handle.quiet_for(ticks.now()), 0);
}

#[test]
fn the_clock_of_a_head_is_not_moved_by_what_we_send() {
    let ticks = Arc::new(Ticks::default());
    let handle = Handle::new(Arc::clone(&ticks));
    for (phase, expected) in [
        (Phase::Fresh, Some(Overdue::Header)),
        (Phase::Head, Some(Overdue::Header)),
        (Phase::Closing, Some(Overdue::Header)),
        (Phase::Between, None),
        (Phase::Http2, None),
    ] {
        handle.enter(phase);
        for _ in 0..100 {
            ticks.advance();
        }

        handle.touch();

        assert_eq!(handle.overdue(ticks.now(), PATIENCE), expected, "{phase:?}");
    }
}

#[test]
fn a_clock_that_was_read_too_early_makes_nobody_overdue() {
    let ticks = Arc::new(Ticks::default());
    let before = ticks.now();
    ticks.advance();

    let handle = Handle::new(Arc::clone(&ticks));

    assert_eq!(handle.overdue(before, PATIENCE), None);
}

#[test]
fn an_upgraded_connection_is_overdue_after_silence_of_both_sides() {
    let ticks = Arc::new(Ticks::default());
    let handle = Handle::new(Arc::clone(&ticks));
    handle.enter(Phase::Upgraded);
    for _ in 0..10 {
        for _ in 1..PATIENCE.idle {
            ticks.advance();
        }
        assert_eq!(handle.overdue(ticks.now(), PATIENCE), None);
        handle.touch();
    }

    for _ in 0..PATIENCE.idle {
        ticks.advance();
    }

    assert_eq!(handle.overdue(ticks.now(), PATIENCE), Some(Overdue::Idle));
}

#[tokio::test(start_paused = true)]
async fn expiry_does_not_touch_an_open_exchange() {
    let mut served = serve();
    served.send(&[CHUNKED, b"2\r\nhi\r\n"].concat()).await;
    served.settle().await;

    served.handle.expire();
    served.settle().await;
    served.send(b"0\r\n\r\n").await;

    assert!(served.answer().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(start_paused = true)]
async fn after_an_upgrade_everything_passes() {
    let mut served = serve();

    served.send(&[UPGRADE, b"\0early"].concat()).await;
    let answer = served.answer().await;
    served.send(b"later\n\n").await;
    let mut echo = [0; 13];
    within(served.client.read_exact(&mut echo)).await.expect("an echo");

    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert_eq!(&echo, b"\0earlylater\n\n");
    assert_eq!(served.handle.phase(), Phase::Upgraded);
}

#[tokio::test(start_paused = true)]
async fn after_a_declined_upgrade_requests_are_inspected_as_before() {
    let mut served = serve();
    let declined = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n";

    served.send(&[declined, GET, b"BAD\n\n"].concat()).await;
    served.client.shutdown().await.expect("half closed");
    let answers = served.rest().await;

    assert_eq!(served.seen(), ["GET /x", "GET /good", "refused: BareLf"]);
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 2, "{answers}");
}

#[tokio::test]
async fn an_upgrade_is_undecided_also_when_its_body_went_by_unseen() {
    let (mut client, server) = tokio::io::duplex(1024);
    let mut guard = TokioIo::new(Guard::new(server, 1024, Handle::new(Arc::default())));
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\nContent-Length: 100\r\n\r\n";
    let mut buffer = [0; 100];
    client.write_all(head).await.expect("sent");
    guard.read_exact(&mut buffer[..head.len()]).await.expect("a head");
    client.write_all(&[b'x'; 100]).await.expect("sent");
    guard.read_exact(&mut buffer).await.expect("a body");

    client.write_all(b"\n").await.expect("sent");
    let read = futures_util::poll!(pin!(guard.read(&mut buffer)));

    assert!(read.is_pending(), "neither handed over nor refused");
}

#[tokio::test(start_paused = true)]
async fn a_head_of_almost_the_largest_size_is_served() {
    let mut served = serve();
    let field = format!("X: {}\r\n", "1".repeat(1000));

    served
        .send(format!("GET /large HTTP/1.1\r\nHost: a\r\n{}\r\n", field.repeat(32)).as_bytes())
        .await;

    assert!(served.answer().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(start_paused = true)]
async fn an_idle_client_of_http2_is_left() {
    let served = serve();
    let io = TokioIo::new(served.client);
    let (sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), io)
            .await
            .expect("HTTP/2");
    let connection = tokio::spawn(connection);
    settle().await;

    served.handle.expire();

    within(connection).await.expect("a task").ok();
    assert!(sender.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_client_of_http2_is_served() {
    let served = serve();
    let io = TokioIo::new(served.client);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
    tokio::spawn(connection);

    let request = Request::get("http://a/two").body(Full::<Bytes>::default()).expect("a request");
    let response = within(sender.send_request(request)).await.expect("an answer");

    assert_eq!(response.status(), 200);
    assert_eq!(served.handle.phase(), Phase::Http2);
    assert_eq!(*served.seen.lock().unwrap(), ["GET http://a/two"]);
}

/// A guard whose client has sent `bytes` in pieces of `size` and has then closed.
async fn guard_of(bytes: Vec<u8>, size: usize) -> Guard<DuplexStream> {
    let (mut client, server) = tokio::io::duplex(size.max(1));
    tokio::spawn(async move {
        for piece in bytes.chunks(size) {
            client.write_all(piece).await.expect("the guard reads");
        }
    });
    Guard::new(server, 32 * 1024, Handle::new(Arc::default()))
}

/// What hyper sees of `stream`, which arrives at once.
pub(super) fn passed(stream: &[u8]) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let guard = guard_of(stream.to_vec(), stream.len().max(1)).await;
        let (mut guard, mut all) = (TokioIo::new(guard), Vec::new());
        let mut buffer = [0; 8192];
        settle().await;
        // After a refusal nothing comes, not even the end.
        while let Poll::Ready(Ok(read @ 1..)) = futures_util::poll!(pin!(guard.read(&mut buffer))) {
            all.extend_from_slice(&buffer[..read]);
        }
        all
    })
}

/// What the service sees of `stream`, which arrives at once.
pub(super) fn served(stream: &[u8]) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let mut served = serve();
        served.send(stream).await;
        settle().await;
        served.seen()
    })
}

/// Reads what hyper would see, `room` bytes at a time.
async fn drain(guard: Guard<DuplexStream>, room: usize) -> io::Result<Vec<u8>> {
    let mut guard = TokioIo::new(guard);
    let mut all = Vec::new();
    let mut buffer = vec![0; room];
    loop {
        match guard.read(&mut buffer).await? {
            0 => return Ok(all),
            read => all.extend_from_slice(&buffer[..read]),
        }
    }
}

#[tokio::test]
async fn whatever_is_good_passes_byte_for_byte() {
    let data = (0..1024 * 1024_u32).map(|at| (at % 251) as u8).collect::<Vec<_>>();
    let head = b"PUT /u HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n";
    let with_length = [head.as_slice(), data.as_slice(), GET].concat();
    let mut chunked = CHUNKED.to_vec();
    for (at, piece) in data[..100_000].chunks(777).enumerate() {
        let extension = if at % 7 == 0 { ";x=\"y\"" } else { "" };
        chunked.extend_from_slice(format!("{:x}{extension}\r\n", piece.len()).as_bytes());
        chunked.extend_from_slice(piece);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\nX-Sum: 1\r\n\r\n");
    chunked.extend_from_slice(GET);

    for stream in [with_length, chunked] {
        for (size, room) in [(1 << 20, 8192), (1000, 8192), (8192, 1000), (4096, 1 << 20), (7, 50)]
        {
            let passed = drain(guard_of(stream.clone(), size).await, room).await.expect("good");

            assert!(passed == stream, "pieces of {size} bytes into {room}");
        }
    }
}

#[tokio::test]
async fn an_empty_line_before_a_request_is_dropped() {
    let stream = [b"\r\n", GET, b"\r\n", GET].concat();

    for size in [1, 100] {
        let passed = drain(guard_of(stream.clone(), size).await, 4096).await.expect("good");

        assert_eq!(passed, [GET, GET].concat());
    }
}

#[tokio::test]
async fn a_head_is_handed_over_when_it_is_complete_and_not_before() {
    let (mut client, server) = tokio::io::duplex(1024);
    let mut guard = TokioIo::new(Guard::new(server, 1024, Handle::new(Arc::default())));
    let mut buffer = [0; 1024];
    for byte in &GET[..GET.len() - 1] {
        client.write_all(&[*byte]).await.expect("sent");
        let read = futures_util::poll!(pin!(guard.read(&mut buffer)));
        assert!(read.is_pending());
    }

    client.write_all(b"\n").await.expect("sent");

    assert_eq!(guard.read(&mut buffer).await.expect("a head"), GET.len());
}

#[tokio::test]
async fn the_preface_is_recognised_as_early_as_possible() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for (sent, protocol) in [
        ([preface, b"frames\0\n".as_slice()].concat(), Protocol::Http2),
        (b"PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), Protocol::Http1),
        (GET.to_vec(), Protocol::Http1),
        (Vec::new(), Protocol::Http1),
    ] {
        for size in [1, 3, 1000] {
            let sniffed = guard_of(sent.clone(), size).await.sniff().await.expect("sniffed");

            assert_eq!(sniffed.protocol, protocol);
            assert_eq!(drain(sniffed.guard, 10).await.expect("all"), sent, "nothing is lost");
        }
    }
}

#[tokio::test]
async fn a_client_that_waits_is_not_waited_for() {
    let (mut client, server) = tokio::io::duplex(64);
    client.write_all(b"PU").await.expect("sent");

    let guard = Guard::new(server, 1024, Handle::new(Arc::default()));
    let sniffed = within(guard.sniff()).await.expect("two bytes tell");

    assert_eq!(sniffed.protocol, Protocol::Http1);
}

#[tokio::test(start_paused = true)]
async fn expiry_ends_sniffing_too() {
    let (client, server) = tokio::io::duplex(64);
    let handle = Handle::new(Arc::default());
    let sniffing = tokio::spawn(Guard::new(server, 1024, handle.clone()).sniff());
    settle().await;

    handle.expire();
    let sniffed = within(sniffing).await.expect("a task").expect("sniffed");

    assert_eq!(drain(sniffed.guard, 10).await.expect("the end"), b"");
    drop(client);
}
