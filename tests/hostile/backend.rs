//! A stand-in for the API that reads strictly, remembers every byte, and answers as it is told.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::sleep,
};

use crate::strict::{self, Message, Parsed};

/// The API, as these tests need it. A request whose target has `token=` in it is an honest one,
/// and is answered with the token; the others are answered as a script says, if there is one.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    connections: usize,
    received: Vec<Received>,
    scripts: VecDeque<Script>,
}

/// What came in.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// Which connection it came on; they are counted from 1.
    pub(crate) connection: usize,
    pub(crate) what: What,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    /// A request from its first byte to its last.
    Request(Message),
    /// The beginning of one: its connection ended before it did.
    Part(String),
    /// Bytes that are no request, or more than one.
    Garbage(String),
}

impl What {
    /// For whoever reads that a case has failed.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Request(message) => format!("{} {}", message.method, message.target),
            Self::Part(text) => format!("a part: {text:?}"),
            Self::Garbage(why) => format!("garbage: {why}"),
        }
    }
}

/// How the next request that is not honest is answered.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// These bytes, each after a while.
    pub(crate) pieces: Vec<(Duration, Vec<u8>)>,
    /// When the head is there, and not only with the body.
    pub(crate) early: bool,
    /// The connection ends after the last piece.
    pub(crate) closes: bool,
}

impl Backend {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = {
                    let mut state = lock(&shared);
                    state.connections += 1;
                    state.connections
                };
                tokio::spawn(serve(stream, number, Arc::clone(&shared)));
            }
        });
        Self { address, state }
    }

    pub(crate) fn script(&self, script: Script) {
        lock(&self.state).scripts.push_back(script);
    }

    /// What came in since it was last asked for. No script is left.
    pub(crate) fn take(&self) -> Vec<Received> {
        let mut state = lock(&self.state);
        state.scripts.clear();
        std::mem::take(&mut state.received)
    }
}

async fn serve(mut stream: TcpStream, connection: usize, state: Arc<Mutex<State>>) {
    let _ = stream.set_nodelay(true);
    let note = |what| lock(&state).received.push(Received { connection, what });
    let mut bytes = Vec::new();
    // The present request was answered before it was whole.
    let mut answered = false;
    loop {
        match strict::parse(&bytes) {
            Ok(Parsed::Whole(message, len)) => {
                bytes.drain(..len);
                note(What::Request(message.clone()));
                if !std::mem::take(&mut answered)
                    && !answer(&mut stream, &message, take_script(&state, &message)).await
                {
                    return;
                }
                continue;
            }
            Ok(Parsed::Head(message)) if !answered && has_early_script(&state, &message) => {
                answered = true;
                if !answer(&mut stream, &message, take_script(&state, &message)).await {
                    note(What::Part(String::from_utf8_lossy(&bytes).into()));
                    return;
                }
            }
            Ok(_) => {}
            Err(error) => return note(What::Garbage(error)),
        }
        if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
            break;
        }
    }
    if !bytes.is_empty() {
        note(What::Part(String::from_utf8_lossy(&bytes).into()));
    }
}

fn is_honest(message: &Message) -> bool {
    message.target.contains("token=")
}

fn has_early_script(state: &Mutex<State>, message: &Message) -> bool {
    !is_honest(message) && lock(state).scripts.front().is_some_and(|script| script.early)
}

fn take_script(state: &Mutex<State>, message: &Message) -> Option<Script> {
    if is_honest(message) { None } else { lock(state).scripts.pop_front() }
}

/// Whether the connection goes on.
async fn answer(stream: &mut TcpStream, message: &Message, script: Option<Script>) -> bool {
    let Some(script) = script else {
        if let Some((_, size)) = message.target.split_once("blob=") {
            return answer_with_blob(stream, size.parse().unwrap_or(0)).await;
        }
        let echo = message.target.split_once("token=").map_or(&*message.target, |(_, it)| it);
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", echo.len());
        if message.method != "HEAD" {
            answer += echo;
        }
        return stream.write_all(answer.as_bytes()).await.is_ok();
    };
    for (pause, piece) in script.pieces {
        sleep(pause).await;
        if stream.write_all(&piece).await.is_err() {
            return false;
        }
    }
    !script.closes
}

/// Many bytes, of which few are there at once.
async fn answer_with_blob(stream: &mut TcpStream, mut size: usize) -> bool {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
    let piece = [b'x'; 16 * 1024];
    let mut written = stream.write_all(head.as_bytes()).await;
    while size > 0 && written.is_ok() {
        let some = size.min(piece.len());
        written = stream.write_all(&piece[..some]).await;
        size -= some;
    }
    written.is_ok()
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
