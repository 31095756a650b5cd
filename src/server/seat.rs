//! A worker's place: its thread, on which the worker begins anew if it dies.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    live::Live,
    wire::Ticks,
    worker::{Edge, Listening, Worker},
};
use crate::{
    sockets::Socket,
    supervise::{Deaths, supervise_here},
};

/// What a worker is made of, as often as that has to be.
pub(super) struct Seat {
    pub(super) edge: Arc<Edge>,
    pub(super) live: Live,
    pub(super) ticks: Arc<Ticks>,
    /// Handles of its sockets: as long as they are here, connections come in.
    pub(super) sockets: Arc<Mutex<Vec<Socket>>>,
    pub(super) deaths: Deaths,
    /// Of those who accept its connections.
    pub(super) listeners: Deaths,
}

/// A worker that was started.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) thread: JoinHandle<()>,
    pub(super) ticks: Arc<Ticks>,
    /// Answered when the worker has drained; dropped when it has ended otherwise.
    pub(super) drained: oneshot::Receiver<()>,
    /// Ends the worker, drained or not.
    pub(super) stop: CancellationToken,
    sockets: Arc<Mutex<Vec<Socket>>>,
}

impl Running {
    /// From now on only the worker itself has its sockets: it closes them.
    pub(super) fn let_go(&self) {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Seat {
    /// Starts the worker with this number.
    pub(super) fn start(self, number: usize) -> io::Result<Running> {
        // What the system refuses is told at once.
        let mut first = Some(self.worker()?);
        let (drained, has_drained) = oneshot::channel();
        let stop = CancellationToken::new();
        let (ticks, sockets) = (Arc::clone(&self.ticks), Arc::clone(&self.sockets));
        let (deaths, stopping) = (self.deaths.clone(), stop.clone());
        let work = move || {
            if stopping.is_cancelled() {
                return Ok(());
            }
            first.take().map_or_else(|| self.worker(), Ok)?.run(&stopping)
        };
        let thread = std::thread::Builder::new().name(format!("worker-{number}"));
        let thread = thread.spawn(move || {
            supervise_here::<io::Error>(&deaths, work);
            // Nobody waits any more if the drain ran out of time.
            let _ = drained.send(());
        })?;
        Ok(Running { thread, ticks, drained: has_drained, stop, sockets })
    }

    fn worker(&self) -> io::Result<Worker> {
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let sockets = sockets.iter().map(Socket::try_clone).collect::<io::Result<Vec<_>>>()?;
        let ticks = Arc::clone(&self.ticks);
        let listening = Listening { sockets, deaths: self.listeners.clone() };
        Worker::new(Arc::clone(&self.edge), self.live.clone(), ticks, listening)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Write},
        net::{SocketAddr, TcpListener, TcpStream},
        os::fd::OwnedFd,
        sync::mpsc::{Receiver, channel},
        time::{Duration, Instant},
    };

    use super::*;
    use crate::{
        config,
        exchange::Exchange,
        message::{Body, Request, Response},
        middleware::{Answer, Next, receive::Gateway},
        server::Pulse,
    };

    /// What takes longer has failed.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// Answers, dies, or hangs until it is told to go on, as the path says.
    struct Way(Mutex<Receiver<()>>);

    impl Next for Way {
        async fn run(&self, _: &Arc<Exchange>, request: Request) -> Answer {
            assert_ne!(request.uri().path(), "/dies");
            if request.uri().path() == "/hangs" {
                self.0.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            }
            Ok(Response::new(Body::empty()))
        }
    }

    fn config() -> config::Server {
        config::Server {
            listen: Vec::new(),
            admin_listen: None,
            admin_token: None,
            health_listen: None,
            workers: 1,
            drain_timeout: PATIENCE,
            header_timeout: PATIENCE,
            idle_timeout: PATIENCE,
            max_header_bytes: 32 * 1024,
            max_body_bytes: None,
            max_connections: 16,
            tls: None,
        }
    }

    /// A worker that serves `socket`, and its deaths; what hangs goes on when `goes_on` says so.
    fn start(socket: TcpListener, goes_on: Receiver<()>) -> (Running, Deaths) {
        socket.set_nonblocking(true).unwrap();
        let (deaths, listeners) = (Deaths::of("worker"), Deaths::of("listener"));
        let seat = Seat {
            edge: Arc::new(Edge::new(&config(), None)),
            live: Live::new(Gateway::new(Way(Mutex::new(goes_on)))),
            ticks: Arc::default(),
            sockets: Arc::new(Mutex::new(vec![Socket::Tcp(socket)])),
            deaths: deaths.clone(),
            listeners,
        };
        (seat.start(0).unwrap(), deaths)
    }

    fn end(running: Running) {
        running.stop.cancel();
        running.thread.join().unwrap();
    }

    fn socket() -> (TcpListener, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    fn connect(address: SocketAddr) -> TcpStream {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn ask(stream: &mut TcpStream, path: &str) {
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    }

    /// The status of the next answer.
    fn status(stream: &mut TcpStream) -> u16 {
        let (mut answer, mut some) = (Vec::new(), [0; 4096]);
        loop {
            let size = stream.read(&mut some).unwrap();
            assert_ne!(size, 0, "it has hung up");
            answer.extend_from_slice(&some[..size]);
            let text = String::from_utf8_lossy(&answer);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() == length.unwrap().parse::<usize>().unwrap() {
                return head[9..12].parse().unwrap();
            }
        }
    }

    fn eventually(mut condition: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !condition() {
            assert!(begin.elapsed() < PATIENCE, "in vain");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_worker_that_fails_begins_anew_until_it_serves() {
        // The system has no events for it.
        let file = File::open("/dev/null").unwrap();
        let (_never, goes_on) = channel();
        let (running, deaths) = start(TcpListener::from(OwnedFd::from(file)), goes_on);
        eventually(|| deaths.count() >= 2);

        let (socket, address) = socket();
        socket.set_nonblocking(true).unwrap();
        *running.sockets.lock().unwrap() = vec![Socket::Tcp(socket)];
        let mut stream = connect(address);
        ask(&mut stream, "/");

        assert_eq!(status(&mut stream), 200);
        end(running);
    }

    #[test]
    fn a_request_that_panics_harms_no_other_and_not_even_its_connection() {
        let (socket, address) = socket();
        let (_never, goes_on) = channel();
        let (running, deaths) = start(socket, goes_on);
        let (mut one, mut other) = (connect(address), connect(address));
        // Half of a request, on another connection of the same worker.
        write!(other, "GET / HTTP/1.1\r\nhost:").unwrap();

        for (path, expected) in [("/", 200), ("/dies", 500), ("/", 200)] {
            ask(&mut one, path);
            assert_eq!(status(&mut one), expected, "{path}");
        }
        write!(other, " x\r\n\r\n").unwrap();

        assert_eq!((status(&mut other), deaths.count()), (200, 0));
        end(running);
    }

    #[test]
    fn a_worker_that_hangs_is_seen_until_it_turns_again() {
        let (socket, address) = socket();
        let (go_on, goes_on) = channel();
        let (running, _) = start(socket, goes_on);
        let mut pulse = Pulse::of([Arc::clone(&running.ticks)].into_iter());
        let mut stream = connect(address);

        ask(&mut stream, "/hangs");
        eventually(|| pulse.hung(Duration::from_secs(1)) == [0]);
        go_on.send(()).unwrap();

        assert_eq!(status(&mut stream), 200);
        eventually(|| pulse.hung(Duration::from_secs(1)).is_empty());
        end(running);
    }
}
