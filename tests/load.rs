//! An API that can do only so much, and callers who want more: the real program between them.
#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use amove_gateway::emulator::{Emulator, Options};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use process_support::{Gateway, emulator, eventually, get, request};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, sleep_until},
};

mod process_support;

const READ: &str = "/api/v1/user/userinfo";
const WRITE: &str = "/api/v1/desktop/create_folder";
const EVENTS: &str = "/api/v1/user/events";

/// How many requests the API serves at once, and how long one takes.
const SERVERS: usize = 4;
const TAKES: Duration = Duration::from_millis(40);

/// Each test wants the machine for itself.
static MACHINE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Serves a few requests at once, in the order in which they came.
struct Api {
    free: Semaphore,
    takes: Duration,
    connections: AtomicUsize,
    most_connections: AtomicUsize,
    served: AtomicU64,
}

impl Api {
    async fn start(servers: usize, takes: Duration) -> (Arc<Self>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let api = Arc::new(Self {
            free: Semaphore::new(servers),
            takes,
            connections: AtomicUsize::new(0),
            most_connections: AtomicUsize::new(0),
            served: AtomicU64::new(0),
        });
        let own = Arc::clone(&api);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let api = Arc::clone(&own);
                tokio::spawn(async move {
                    let open = api.connections.fetch_add(1, SeqCst) + 1;
                    api.most_connections.fetch_max(open, SeqCst);
                    api.serve(stream).await;
                    api.connections.fetch_sub(1, SeqCst);
                });
            }
        });
        (api, address)
    }

    async fn serve(&self, mut stream: TcpStream) {
        let mut head = Vec::new();
        loop {
            match stream.read_buf(&mut head).await {
                Ok(0) | Err(_) => return,
                Ok(_) if !head.ends_with(b"\r\n\r\n") => continue,
                Ok(_) => {}
            }
            let streams = String::from_utf8_lossy(&head).contains(EVENTS);
            head.clear();
            let place = self.free.acquire().await.expect("it stays open");
            if !self.takes.is_zero() {
                sleep(self.takes).await;
            }
            drop(place);
            self.served.fetch_add(1, SeqCst);
            let answer: &[u8] = if streams {
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                  Transfer-Encoding: chunked\r\n\r\n6\r\ndata: \r\n"
            } else {
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
            };
            if stream.write_all(answer).await.is_err() {
                return;
            }
        }
    }
}

/// How a request ended.
#[derive(Clone, Debug)]
struct Ended {
    after: Duration,
    at: Instant,
    path: &'static str,
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

/// Callers who keep their connections.
struct Callers {
    address: SocketAddr,
    idle: Mutex<Vec<http1::SendRequest<Full<Bytes>>>>,
}

impl Callers {
    fn of(gateway: &Gateway) -> Arc<Self> {
        Arc::new(Self { address: gateway.address, idle: Mutex::default() })
    }

    async fn call(&self, path: &'static str) -> Ended {
        let begin = Instant::now();
        let method = if path == WRITE { "POST" } else { "GET" };
        let request: Request<Full<Bytes>> = request(method, path);
        let idle = self.idle.lock().expect("a lock").pop();
        let mut sender = match idle {
            Some(sender) => sender,
            None => {
                let stream = TcpStream::connect(self.address).await.expect("a connection");
                let (sender, connection) =
                    http1::handshake(TokioIo::new(stream)).await.expect("a connection");
                tokio::spawn(connection);
                sender
            }
        };
        let response = sender.send_request(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("all of it").to_bytes();
        self.idle.lock().expect("a lock").push(sender);
        let (after, status) = (begin.elapsed(), parts.status.as_u16());
        Ended { after, at: Instant::now(), path, status, headers: parts.headers, body }
    }

    /// So many requests a second, whether they are answered or not; each tenth is a write.
    async fn open_loop(self: &Arc<Self>, rate: u32, time: Duration) -> Vec<Ended> {
        let begin = tokio::time::Instant::now();
        let mut calls = JoinSet::new();
        for number in 0..(rate as f64 * time.as_secs_f64()) as u32 {
            sleep_until(begin + Duration::from_secs(1) * number / rate).await;
            let callers = Arc::clone(self);
            let path = if number % 10 == 0 { WRITE } else { READ };
            calls.spawn(async move { callers.call(path).await });
        }
        calls.join_all().await
    }

    /// So many callers, each of whom sends one request after the other.
    async fn closed_loop(&self, callers: usize, each: usize) -> Vec<Ended> {
        let caller = async || {
            let mut ended = Vec::new();
            for _ in 0..each {
                ended.push(self.call(READ).await);
            }
            ended
        };
        join_all((0..callers).map(|_| caller())).await.concat()
    }
}

fn served(ended: &[Ended]) -> Vec<&Ended> {
    ended.iter().filter(|it| it.status == 200).collect()
}

fn p99(ended: &[Ended]) -> Duration {
    let mut times: Vec<_> = served(ended).iter().map(|it| it.after).collect();
    times.sort();
    times[(times.len() * 99 / 100).min(times.len() - 1)]
}

/// A gateway in front of `api`, and whoever logs it in.
async fn gateway(api: SocketAddr, settings: &[(&str, &str)]) -> (Gateway, Emulator) {
    let auth = emulator(Options { mfa: false, ..Options::default() }).await;
    let api = format!("http://{api}");
    let mut all = vec![
        ("AMOVE_GATEWAY_UPSTREAM__API_URL", &*api),
        ("AMOVE_GATEWAY_SERVER__WORKERS", "2"),
        ("AMOVE_GATEWAY_AUDIT__STDOUT", "true"),
    ];
    all.extend(settings);
    (Gateway::ready(&auth, &all).await, auth)
}

/// What a metric says, all its labels together.
async fn metric(gateway: &Gateway, name: &str) -> f64 {
    let text = get(gateway.admin, "/metrics").await.into_body();
    let text = String::from_utf8_lossy(&text).into_owned();
    let of_it =
        |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let values = text.lines().filter(of_it).filter_map(|line| line.rsplit(' ').next());
    values.filter_map(|value| value.parse::<f64>().ok()).sum()
}

#[tokio::test]
async fn five_times_too_much_costs_neither_throughput_nor_patience() {
    let _alone = MACHINE.lock().await;
    let (api, address) = Api::start(SERVERS, TAKES).await;
    let (gateway, _auth) = gateway(address, &[]).await;
    let callers = Callers::of(&gateway);
    let unloaded = p99(&callers.closed_loop(1, 30).await);
    let begin = Instant::now();
    let at_peak = callers.closed_loop(6, 40).await.len() as f64;
    let peak = at_peak / begin.elapsed().as_secs_f64();
    let rate = (SERVERS as f64 / TAKES.as_secs_f64() * 5.0) as u32;
    let warm = callers.open_loop(rate, Duration::from_secs(1)).await;

    let begin = Instant::now();
    let time = Duration::from_secs(5);
    let ended = callers.open_loop(rate, time).await;

    let in_time: Vec<_> = ended.iter().filter(|it| it.at < begin + time).cloned().collect();
    let goodput = served(&in_time).len() as f64 / time.as_secs_f64();
    let slowest = p99(&ended);
    let share = |path| {
        let of: Vec<_> = ended.iter().filter(|it| it.path == path).cloned().collect();
        served(&of).len() as f64 / of.len() as f64
    };
    let (writes, reads) = (share(WRITE), share(READ));
    eprintln!(
        "unloaded p99 {unloaded:?}, peak {peak:.1}/s; at {rate}/s goodput {goodput:.1}/s, p99 {slowest:?}, \
         served {writes:.2} of the writes and {reads:.2} of the reads"
    );
    assert!(goodput >= 0.75 * peak, "{goodput} of {peak}");
    assert!(slowest <= unloaded * 3 + Duration::from_millis(200), "{slowest:?} of {unloaded:?}");
    assert!(writes > 0.8 && reads < 0.4, "{writes} {reads}");
    let mut refused = 0;
    for refusal in ended.iter().chain(&warm).filter(|it| it.status != 200) {
        assert_eq!(refusal.status, 503);
        assert_eq!(refusal.headers["retry-after"], "1");
        let proxy = "amove-gateway; error=connection_limit_reached";
        assert_eq!(refusal.headers["proxy-status"], proxy);
        let problem: Value = serde_json::from_slice(&refusal.body).expect("a problem");
        assert_eq!(problem["type"], "urn:amove-gateway:problem:overloaded");
        refused += 1;
    }

    // Each is counted, and each has a record that says so.
    assert_eq!(metric(&gateway, "amove_gateway_slots_turned_away_total").await as usize, refused);
    assert_eq!(metric(&gateway, "amove_gateway_slots_under_way").await, 0.0);
    let all = 30 + 240 + warm.len() + ended.len();
    let intents = ended.iter().chain(&warm).filter(|it| it.path == WRITE).count();
    eventually("all records are there", async || {
        metric(&gateway, "amove_gateway_audit_records_total").await as usize >= all + intents
    })
    .await;
    assert_eq!(metric(&gateway, "amove_gateway_audit_records_total").await as usize, all + intents);
    assert_eq!(metric(&gateway, "amove_gateway_audit_records_lost_total").await, 0.0);
    assert_eq!(api.served.load(SeqCst) as usize, all - refused, "what is refused was not sent");
    let lines = gateway.process.stdout();
    let mut records = lines.lines().filter_map(|it| serde_json::from_str::<Value>(it).ok());
    let shed = records.find(|it| it["status"] == 503).expect("a record");
    assert!(
        shed["rule"].as_str().is_some_and(|rule| rule.starts_with("upstream.max_wait")),
        "{shed}"
    );
    assert_eq!((&shed["outcome"], &shed["attempts"]), (&"failed".into(), &0.into()));
}

#[tokio::test]
async fn many_callers_of_an_api_that_is_well_are_all_served() {
    let _alone = MACHINE.lock().await;
    let (_api, address) = Api::start(1000, Duration::ZERO).await;
    let (gateway, _auth) = gateway(address, &[]).await;
    let callers = Callers::of(&gateway);

    let ended = callers.closed_loop(64, 50).await;

    assert_eq!(served(&ended).len(), 64 * 50);
    assert_eq!(metric(&gateway, "amove_gateway_slots_turned_away_total").await, 0.0);
}

#[tokio::test]
async fn streams_that_last_keep_nobody_from_being_answered() {
    let _alone = MACHINE.lock().await;
    let (_api, address) = Api::start(1000, Duration::ZERO).await;
    let (gateway, _auth) = gateway(address, &[]).await;
    let mut streams = Vec::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(gateway.address).await.expect("a connection");
        let head = format!("GET {EVENTS} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("room");
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).await.expect("an answer");
        assert_eq!(&begin, b"HTTP/1.1 200");
        streams.push(stream);
    }

    let ended = Callers::of(&gateway).closed_loop(1, 1).await;

    assert_eq!(ended[0].status, 200);
    assert_eq!(metric(&gateway, "amove_gateway_slots_open").await, 40.0);
    assert_eq!(metric(&gateway, "amove_gateway_slots_under_way").await, 0.0);
    drop(streams);
    eventually("their slots are free", async || {
        metric(&gateway, "amove_gateway_slots_open").await == 0.0
    })
    .await;
}

#[tokio::test]
async fn all_workers_together_keep_to_the_connections_there_may_be() {
    let _alone = MACHINE.lock().await;
    let (api, address) = Api::start(1000, Duration::from_millis(2)).await;
    let settings = [
        ("AMOVE_GATEWAY_UPSTREAM__MAX_CONNECTIONS", "3"),
        ("AMOVE_GATEWAY_UPSTREAM__MAX_WAIT", "30s"),
        ("AMOVE_GATEWAY_UPSTREAM__HTTP2", "never"),
    ];
    let (gateway, _auth) = gateway(address, &settings).await;

    let ended = Callers::of(&gateway).closed_loop(8, 40).await;

    let most = api.most_connections.load(SeqCst);
    eprintln!("{} served, {most} connections", served(&ended).len());
    // One that is closed may be gone a little later than the next one is there.
    assert!((1..=4).contains(&most), "{most}");
    assert!(served(&ended).len() > 80, "{}", served(&ended).len());
}
