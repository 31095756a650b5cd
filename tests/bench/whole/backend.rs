//! A minimal API: answers by the path, and can wait until all requests of a round have come.

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Builder,
    sync::oneshot,
    task::LocalSet,
};

/// The API, on a thread of its own, until the process ends.
#[derive(Debug)]
pub(crate) struct Backend {
    address: SocketAddr,
    together: Arc<AtomicUsize>,
}

/// Requests that wait for the rest of their round.
type Waiting = Rc<RefCell<Vec<oneshot::Sender<()>>>>;

impl Backend {
    /// Starts it.
    pub(crate) fn start() -> io::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let together = Arc::new(AtomicUsize::new(1));
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let shared = Arc::clone(&together);
        thread::Builder::new().name("backend".to_owned()).spawn(move || {
            let tasks = LocalSet::new();
            tasks.block_on(&runtime, listen(listener, &shared)).expect("a listener");
        })?;
        Ok(Self { address, together })
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on, answers when so many requests have come: the same ones are under way at the
    /// same time in every run. With 1, it answers at once.
    pub(crate) fn answer_together(&self, requests: usize) {
        self.together.store(requests, SeqCst);
    }
}

async fn listen(listener: std::net::TcpListener, together: &Arc<AtomicUsize>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let (waiting, answers) = (Waiting::default(), Rc::new(Answers::new()));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // A gateway that breaks a connection off is told by whoever misses the answer.
        let (waiting, answers) = (Rc::clone(&waiting), Rc::clone(&answers));
        tokio::task::spawn_local(serve(stream, answers, waiting, Arc::clone(together)));
    }
}

async fn serve(
    mut stream: TcpStream,
    answers: Rc<Answers>,
    waiting: Waiting,
    together: Arc<AtomicUsize>,
) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(16 * 1024);
    loop {
        let Some(size) = request(&mut stream, &mut buffer).await? else { return Ok(()) };
        let answer = answers.to(&buffer);
        buffer.drain(..size);
        turn(&waiting, together.load(SeqCst)).await;
        stream.write_all(answer).await?;
    }
}

/// Waits for the others of the round; the last one lets all of them go.
async fn turn(waiting: &Waiting, together: usize) {
    let (go, may_go) = oneshot::channel();
    let round = {
        let mut waiting = waiting.borrow_mut();
        waiting.push(go);
        if waiting.len() < together { Vec::new() } else { std::mem::take(&mut *waiting) }
    };
    for go in round {
        let _ = go.send(());
    }
    let _ = may_go.await;
}

/// Reads until a whole request is in `buffer`; its size, or `None` at the end of the connection.
async fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
    loop {
        if let Some(size) = size_of(buffer) {
            return Ok(Some(size));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// The size of the message at the beginning of `bytes`, head and body, once it is there.
pub(crate) fn size_of(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).expect("a head of text");
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    let size = head + length.map_or(0, |length| length.expect("a length"));
    (bytes.len() >= size).then_some(size)
}

/// What the API answers.
#[derive(Debug)]
struct Answers {
    short: Vec<u8>,
    page: Vec<u8>,
    error: Vec<u8>,
}

impl Answers {
    fn new() -> Self {
        let user = r#"{"id":4711,"email":"svc@corp.test","type":4,"accountId":17,"active":true}"#;
        let row = r#"{"id":4711,"state":3,"files":12,"bytes":734003200,"finished":"2026-03-01T08:30:00Z"}"#;
        let rows = vec![row; 96].join(",");
        let page =
            format!(r#"{{"data":[{rows}],"total":4711,"options":{{"page":2,"pageSize":96}}}}"#);
        let error =
            r#"{"type":"NOT_FOUND","status":499,"errors":{"NOT_FOUND":["No sync with this id."]}}"#;
        Self {
            short: answer("200 OK", "application/json; charset=utf-8", user),
            page: answer("200 OK", "application/json; charset=utf-8", &page),
            error: answer("499 ", "application/problem+json; charset=utf-8", error),
        }
    }

    fn to(&self, request: &[u8]) -> &[u8] {
        let target = request.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        if target.starts_with(b"/api/v1/sync/") {
            &self.error
        } else if target.starts_with(b"/api/v1/transferhistory/") {
            &self.page
        } else {
            &self.short
        }
    }
}

fn answer(status: &str, kind: &str, body: &str) -> Vec<u8> {
    let size = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\n\
         date: Sun, 01 Mar 2026 08:30:00 GMT\r\n\
         content-type: {kind}\r\n\
         content-length: {size}\r\n\
         server: Kestrel\r\n\
         access-control-allow-origin: *\r\n\r\n"
    );
    [head.as_bytes(), body.as_bytes()].concat()
}
