//! The pools over real sockets, with names that mean what a test says.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use futures_util::{FutureExt, future::join_all};
use http_body_util::{BodyExt, Full};
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, advance, pause, resume, timeout},
};

use super::*;
use crate::{
    config::{BaseUrl, Http2},
    message::Body,
};

const AGE: Duration = Duration::from_secs(300);

/// Hosts at several addresses, all at one port: each tells its number.
struct Hosts {
    port: u16,
    /// Where each connection went, in their order. Connections outlive those who accept them.
    accepted: Arc<Mutex<Vec<u8>>>,
    /// Requests that have come over HTTP/2.
    asked: Arc<AtomicUsize>,
    servers: JoinSet<()>,
}

/// How a host answers.
#[derive(Clone)]
enum Manner {
    /// With HTTP/1.1 and these fields.
    Http1(&'static str),
    /// With HTTP/2, as soon as there is a permit.
    Http2(Arc<Semaphore>),
}

fn ip(number: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, number).into()
}

impl Hosts {
    async fn start(numbers: &[u8], manner: &Manner) -> Self {
        let (mut port, mut servers) = (0, JoinSet::new());
        let accepted = Arc::<Mutex<Vec<u8>>>::default();
        let asked = Arc::<AtomicUsize>::default();
        for number in numbers {
            let listener = TcpListener::bind((ip(*number), port)).await.unwrap();
            port = listener.local_addr().unwrap().port();
            let (number, accepted, manner) = (*number, Arc::clone(&accepted), manner.clone());
            let asked = Arc::clone(&asked);
            servers.spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    accepted.lock().unwrap().push(number);
                    tokio::spawn(serve(stream, number, manner.clone(), Arc::clone(&asked)));
                }
            });
        }
        Self { port, accepted, asked, servers }
    }

    /// Where connections have gone since this was last asked.
    fn accepted(&self) -> Vec<u8> {
        std::mem::take(&mut *self.accepted.lock().unwrap())
    }
}

async fn serve(mut stream: TcpStream, number: u8, manner: Manner, asked: Arc<AtomicUsize>) {
    match manner {
        Manner::Http1(fields) => {
            let mut bytes = Vec::new();
            while let Ok(1..) = stream.read_buf(&mut bytes).await {
                if bytes.ends_with(b"\r\n\r\n") {
                    bytes.clear();
                    let answer =
                        format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n{fields}\r\n{number}");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    if fields.contains("close") {
                        return;
                    }
                }
            }
        }
        Manner::Http2(free) => {
            let answer = service_fn(move |_| {
                let free = Arc::clone(&free);
                asked.fetch_add(1, Relaxed);
                async move {
                    free.acquire().await.unwrap().forget();
                    Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from(
                        number.to_string(),
                    ))))
                }
            });
            let server = http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), answer).await;
        }
    }
}

/// What a name means.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<Vec<u8>>>);

impl Names {
    fn say(&self, numbers: &[u8]) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = numbers.to_vec();
    }

    /// The way to them; without any number nobody knows the name.
    fn way(&self, port: u16, http2: Http2, age: Option<Duration>) -> Upstream {
        let names = self.clone();
        let resolve: Resolve = Arc::new(move |_, port| {
            let numbers = names.0.lock().unwrap().clone();
            let found = if numbers.is_empty() {
                Err(io::Error::other("no such name"))
            } else {
                Ok(numbers.into_iter().map(|it| SocketAddr::new(ip(it), port)).collect())
            };
            async { found }.boxed()
        });
        let url = BaseUrl { tls: false, host: "a.test".into(), port };
        let config = config::Upstream {
            api_url: url.clone(),
            auth_url: url,
            ca_file: None,
            http2,
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(60),
            total_timeout: None,
            max_connections: 64,
            max_connection_age: age,
            adaptive: false,
            max_waiting: 0,
            max_wait: Duration::ZERO,
            retry_budget: 0.0,
            breaker_failures: 0,
            breaker_cooldown: Duration::from_secs(5),
        };
        Upstream::resolved_by(&config, &resolve).unwrap()
    }
}

fn request() -> Request {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = http::Uri::from_static("/");
    request
}

/// Which host has answered.
async fn ask(way: &Upstream) -> u8 {
    let response = way.send(Host::Api, request()).await.unwrap();
    let body = response.into_inner().into_body().collect().await.unwrap();
    std::str::from_utf8(&body.to_bytes()).unwrap().parse().unwrap()
}

/// Several at once.
async fn crowd(way: &Upstream, size: usize) -> Vec<u8> {
    let mut hosts = join_all((0..size).map(|_| ask(way))).await;
    hosts.sort_unstable();
    hosts
}

/// Time goes by while nothing else happens.
async fn later(time: Duration) {
    pause();
    advance(time).await;
    resume();
}

fn standing(way: &Upstream) -> Standing {
    let [api, _] = way.sites().standings(Instant::now());
    api
}

fn closed(way: &Upstream) -> Vec<(&'static str, u64)> {
    let closed = standing(way).counted.closed.into_iter();
    closed.filter(|(_, count)| *count > 0).map(|(ending, count)| (ending.name(), count)).collect()
}

/// Waits until `condition` holds.
async fn eventually(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(Duration::from_secs(20), waiting).await.unwrap();
}

#[tokio::test]
async fn load_is_spread_over_all_addresses() {
    let hosts = Hosts::start(&[2, 3, 4], &Manner::Http1("")).await;
    let names = Names::default();
    names.say(&[2, 3, 4]);
    let way = names.way(hosts.port, Http2::Never, None);

    assert_eq!(crowd(&way, 6).await, [2, 2, 3, 3, 4, 4]);
    assert_eq!(crowd(&way, 6).await, [2, 2, 3, 3, 4, 4]);

    assert_eq!(hosts.accepted().len(), 6, "connections are used again");
    let standing = standing(&way);
    assert_eq!((standing.counted.open(), standing.counted.lookups_ok), (6, 1));
    // Workers go on where others have stopped.
    let sibling = way.sibling();
    assert_eq!(crowd(&sibling, 3).await, [2, 3, 4]);
}

#[tokio::test]
async fn where_nobody_listens_another_address_serves() {
    let mut hosts = Hosts::start(&[2, 3], &Manner::Http1("")).await;
    let names = Names::default();
    names.say(&[4, 2, 3, 5]);
    let way = names.way(hosts.port, Http2::Never, None);

    for _ in 0..3 {
        assert!(crowd(&way, 4).await.into_iter().all(|it| it == 2 || it == 3));
    }
    let avoided = standing(&way).known.addresses;
    assert_eq!(avoided.iter().filter(|(_, avoided)| *avoided).count(), 2);

    hosts.servers.shutdown().await;
    let sibling = way.sibling();
    let error = timeout(Duration::from_secs(4), sibling.send(Host::Api, request())).await;
    let error = error.unwrap().unwrap_err();
    assert!(matches!(error, Error::Connect { .. }) && error.is_hang_up(), "{error:?}");
    assert_eq!(standing(&way).counted.failed[Step::Connect as usize].1, 1);
}

#[tokio::test]
async fn a_connection_to_an_address_that_is_gone_is_not_used_again() {
    for (http2, manner) in [
        (Http2::Never, Manner::Http1("")),
        (Http2::Always, Manner::Http2(Arc::new(Semaphore::new(99)))),
    ] {
        let hosts = Hosts::start(&[2, 3], &manner).await;
        let names = Names::default();
        names.say(&[2]);
        let way = names.way(hosts.port, http2, None);
        assert_eq!((ask(&way).await, ask(&way).await), (2, 2));

        names.say(&[3]);
        later(Duration::from_secs(11)).await;
        assert_eq!(ask(&way).await, 2, "nobody has asked for the name yet");
        // Another worker needs a connection.
        assert_eq!(ask(&way.sibling()).await, 3);

        assert_eq!(ask(&way).await, 3);
        assert_eq!(closed(&way).iter().find(|it| it.0 == "moved"), Some(&("moved", 1)));
        // A resolver that is gone changes nothing.
        names.say(&[]);
        later(Duration::from_secs(11)).await;
        assert_eq!(crowd(&way, 9).await, [3; 9]);
        let known = standing(&way).known;
        assert_eq!(known.addresses.len(), 1);
        assert_eq!(known.failure.is_some(), standing(&way).counted.lookups_failed > 0);
    }
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_an_error_that_names_it() {
    let names = Names::default();
    let way = names.way(1, Http2::Never, None);

    let error = way.send(Host::Api, request()).await.unwrap_err();

    assert_eq!(error.to_string(), "cannot resolve a.test:1");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "no such name");
    let counted = standing(&way).counted;
    assert_eq!((counted.failed[0].1, counted.lookups_failed, counted.open()), (1, 1, 0));
}

#[tokio::test]
async fn an_old_connection_is_closed_when_it_is_put_aside_or_taken() {
    let hosts = Hosts::start(&[2], &Manner::Http1("")).await;
    let names = Names::default();
    names.say(&[2]);
    let way = names.way(hosts.port, Http2::Never, Some(Duration::from_secs(20)));
    for _ in 0..4 {
        ask(&way).await;
    }
    assert_eq!(hosts.accepted().len(), 1);

    // It lies aside, and is too old when it is taken.
    later(Duration::from_secs(20)).await;
    ask(&way).await;
    assert_eq!((hosts.accepted().len(), closed(&way)), (1, vec![("aged", 1)]));

    // It is in use when it becomes too old: the answer is whole.
    let answer = way.send(Host::Api, request()).await.unwrap();
    later(Duration::from_secs(20)).await;
    assert_eq!(answer.into_inner().into_body().collect().await.unwrap().to_bytes(), "2");
    assert_eq!((hosts.accepted().len(), closed(&way)), (0, vec![("aged", 2)]));
    assert_eq!(standing(&way).counted.open(), 0);
}

#[tokio::test]
async fn an_old_shared_connection_is_replaced_and_no_request_waits_or_fails() {
    let free = Arc::new(Semaphore::new(1));
    let hosts = Hosts::start(&[2, 3], &Manner::Http2(Arc::clone(&free))).await;
    let names = Names::default();
    names.say(&[2]);
    let way = names.way(hosts.port, Http2::Always, Some(AGE));
    ask(&way).await;
    let under_way: Vec<_> = (0..3)
        .map(|_| {
            let way = way.clone();
            tokio::spawn(async move { ask(&way).await })
        })
        .collect();
    eventually(|| hosts.asked.load(Relaxed) == 4).await;
    names.say(&[2, 3]);

    // The first request after that is still served by the old one, while another is opened.
    later(AGE).await;
    let first = tokio::spawn({
        let way = way.clone();
        async move { ask(&way).await }
    });
    eventually(|| hosts.accepted.lock().unwrap().len() == 2).await;
    let second = hosts.accepted()[1];
    eventually(|| standing(&way).counted.open() == 2).await;

    free.add_permits(4);
    for under_way in under_way {
        assert_eq!(under_way.await.unwrap(), 2);
    }
    assert_eq!(first.await.unwrap(), 2);
    // The old one ends with its last answer.
    eventually(|| standing(&way).counted.open() == 1).await;
    assert_eq!(closed(&way), [("aged", 1)]);
    free.add_permits(9);
    assert_eq!(crowd(&way, 9).await, [second; 9]);
    assert!(hosts.accepted().is_empty());
}

#[tokio::test]
async fn an_old_shared_connection_goes_on_while_nobody_answers_elsewhere() {
    let mut hosts = Hosts::start(&[2], &Manner::Http2(Arc::new(Semaphore::new(99)))).await;
    let names = Names::default();
    names.say(&[2]);
    let way = names.way(hosts.port, Http2::Always, Some(AGE));
    ask(&way).await;
    hosts.servers.shutdown().await;

    later(AGE).await;
    for tries in 1..=2 {
        for _ in 0..3 {
            assert_eq!(ask(&way).await, 2);
        }
        let failed = || standing(&way).counted.failed[Step::Connect as usize].1;
        eventually(|| failed() == tries).await;
        assert_eq!((standing(&way).counted.opened, closed(&way)), (1, vec![]));
        later(Duration::from_secs(10)).await;
    }
}

#[tokio::test]
async fn who_says_that_it_will_hang_up_is_believed() {
    let asked_twice = async |fields: &'static str, pause: u64| {
        let hosts = Hosts::start(&[2], &Manner::Http1(fields)).await;
        let names = Names::default();
        names.say(&[2]);
        let way = names.way(hosts.port, Http2::Never, None);
        ask(&way).await;
        later(Duration::from_secs(pause)).await;
        ask(&way).await;
        (hosts.accepted().len(), closed(&way).first().map(|it| it.0))
    };

    assert_eq!(asked_twice("", 49).await, (1, None));
    assert_eq!(asked_twice("", 51).await, (2, Some("unused")));
    let keep = "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n";
    assert_eq!(asked_twice(keep, 3).await, (1, None));
    assert_eq!(asked_twice(keep, 4).await, (2, Some("unused")));
    assert_eq!(asked_twice("Connection: close\r\n", 0).await, (2, Some("peer")));
}

#[tokio::test]
async fn a_reload_keeps_what_was_counted_and_the_addresses() {
    let hosts = Hosts::start(&[2], &Manner::Http1("")).await;
    let names = Names::default();
    names.say(&[2]);
    let way = names.way(hosts.port, Http2::Never, None);
    ask(&way).await;
    names.say(&[]);
    later(Duration::from_secs(60)).await;
    let mut config = config::Upstream {
        api_url: BaseUrl { tls: false, host: "a.test".into(), port: hosts.port },
        auth_url: BaseUrl { tls: false, host: "b.test".into(), port: 1 },
        ca_file: None,
        http2: Http2::Never,
        connect_timeout: Duration::from_secs(5),
        response_timeout: Duration::from_secs(60),
        total_timeout: None,
        max_connections: 1,
        max_connection_age: None,
        adaptive: false,
        max_waiting: 0,
        max_wait: Duration::ZERO,
        retry_budget: 0.0,
        breaker_failures: 0,
        breaker_cooldown: Duration::from_secs(5),
    };

    let next = way.under(&config).unwrap();
    drop(way);
    assert_eq!(ask(&next).await, 2, "nobody answers, but the address is known");

    let counted = standing(&next).counted;
    assert_eq!((counted.opened, counted.open(), counted.lookups_failed), (2, 1, 1));
    config.api_url.host = "c.test".into();
    let other = next.under(&config).unwrap();
    assert!(matches!(other.send(Host::Api, request()).await, Err(Error::Lookup { .. })));
}
