//! What is attacked: the real gateway between a login host and a [`Backend`].

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use amove_gateway::emulator::{Emulator, Options};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    backend::Backend,
    process_support::{self, Gateway},
};

/// What takes longer has failed, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway with one worker, so that there is one connection to the API to be poisoned.
pub(crate) struct Target {
    pub(crate) backend: Backend,
    pub(crate) gateway: Gateway,
    tokens: AtomicUsize,
    _auth: Emulator,
}

impl Target {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// The same, with some other settings.
    pub(crate) async fn with(more: &[(&str, &str)]) -> Self {
        let backend = Backend::start().await;
        let auth = process_support::emulator(Options { mfa: false, ..Options::default() }).await;
        let api_url = format!("http://{}", backend.address);
        let mut settings = vec![
            ("AMOVE_GATEWAY_SERVER__WORKERS", "1"),
            ("AMOVE_GATEWAY_UPSTREAM__API_URL", &*api_url),
            ("AMOVE_GATEWAY_UPSTREAM__HTTP2", "never"),
            ("AMOVE_GATEWAY_AUDIT__DURABILITY", "batch"),
        ];
        settings.extend(more);
        let gateway = Gateway::ready(&auth, &settings).await;
        backend.take();
        Self { backend, gateway, tokens: AtomicUsize::new(1), _auth: auth }
    }

    /// How much memory it occupies, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.gateway.process.pid()))
                .expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("memory");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024
    }

    /// An honest request, and what it must be answered with.
    pub(crate) fn honest(&self) -> (String, String) {
        let token = format!("t{}e", self.tokens.fetch_add(1, Ordering::Relaxed));
        let request = format!("GET /api/v1/hostile/echo?token={token} HTTP/1.1\r\nHost: x\r\n\r\n");
        (request, token)
    }

    /// Whether an honest caller gets its own answer, on a connection of its own.
    pub(crate) async fn serves(&self) -> Result<(), String> {
        let (request, token) = self.honest();
        let mut client = Client::to(self.gateway.address).await;
        client.write(request.as_bytes()).await;
        let reply = client.reply(false).await;
        match reply {
            Some(reply) if reply.status == 200 && reply.body == token.as_bytes() => Ok(()),
            other => Err(format!("an honest caller is answered {other:?}, not {token:?}")),
        }
    }
}

/// A connection on which anything may be written.
pub(crate) struct Client {
    stream: TcpStream,
    /// What was read, and is not part of an answer yet.
    pub(crate) bytes: Vec<u8>,
}

/// An answer that came whole.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) async fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        Self { stream, bytes: Vec::new() }
    }

    /// Writes as much of `bytes` as the gateway takes: it may have ended the connection.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = timeout(PATIENCE, self.stream.write_all(bytes)).await;
    }

    /// Sends nothing more.
    pub(crate) async fn shut(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// The next answer, or `None` if the connection ends before it is whole. The answer to `HEAD`
    /// has no body.
    pub(crate) async fn reply(&mut self, to_head: bool) -> Option<Reply> {
        loop {
            match take_reply(&mut self.bytes, to_head) {
                // More is to come.
                Some(reply) if reply.status < 200 => {}
                Some(reply) => return Some(reply),
                None => {
                    let read = timeout(PATIENCE, self.stream.read_buf(&mut self.bytes)).await;
                    if !matches!(read, Ok(Ok(1..))) {
                        return None;
                    }
                }
            }
        }
    }

    /// Reads so much of a body at a time, with a pause before each; how much comes.
    pub(crate) async fn takes_slowly(
        &mut self,
        body: usize,
        piece: usize,
        pause: Duration,
    ) -> usize {
        let (mut received, mut head) = (0, None);
        let mut some = vec![0; piece];
        while received < head.unwrap_or(usize::MAX) {
            tokio::time::sleep(pause).await;
            let mut taken = 0;
            while taken < piece && received < head.unwrap_or(usize::MAX) {
                let read = timeout(PATIENCE, self.stream.read(&mut some[taken..])).await;
                let Ok(Ok(read @ 1..)) = read else {
                    return received.saturating_sub(head.unwrap_or(0).saturating_sub(body));
                };
                if head.is_none() {
                    let end = some.windows(4).position(|it| it == b"\r\n\r\n");
                    head = end.map(|end| end + 4 + body);
                }
                (received, taken) = (received + read, taken + read);
            }
        }
        received - (head.unwrap_or(body) - body)
    }

    /// Reads until the gateway ends the connection; whether it does.
    pub(crate) async fn ends(&mut self) -> bool {
        // A reset ends it as well.
        timeout(PATIENCE, self.stream.read_to_end(&mut self.bytes)).await.is_ok()
    }
}

/// Takes the first answer off `bytes`, if it is whole.
fn take_reply(bytes: &mut Vec<u8>, to_head: bool) -> Option<Reply> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let status: u16 = head.strip_prefix("http/1.")?.get(2..5)?.parse().ok()?;
    let field = |name: &str| {
        let line = head.split("\r\n").find(|line| line.starts_with(name))?;
        line.split_once(": ").map(|(_, value)| value.to_owned())
    };
    let has_body = !to_head && status >= 200 && !matches!(status, 204 | 304);
    let (body, end) = if has_body && field("transfer-encoding").is_some() {
        let (body, len) = take_chunks(&bytes[end..])?;
        (body, end + len)
    } else if has_body {
        let length: usize = field("content-length")?.parse().ok()?;
        (bytes.get(end..end + length)?.to_vec(), end + length)
    } else {
        (Vec::new(), end)
    };
    bytes.drain(..end);
    Some(Reply { status, head, body })
}

fn take_chunks(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = bytes.get(at..)?.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(bytes.get(at..at + line)?).ok()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        at += line + 2;
        body.extend_from_slice(bytes.get(at..at + size)?);
        at += size + 2;
        if size == 0 {
            return (bytes.len() >= at).then_some((body, at));
        }
    }
}
