//! Callers of all kinds, who go on until they are told to stop.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use http_body_util::BodyExt;
use tokio::{
    io::AsyncWriteExt,
    net::UnixStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    book::{Book, Heard},
    calls::{Call, KEYS, Kind, token},
    hub,
    line::{Door, Line, Way},
};

/// Callers of each way.
const EACH: u64 = 6;

/// How long a caller rests between two calls, at most.
const REST: u64 = 60;

/// Nobody waits longer, whatever goes wrong: the gateway has given up by then.
const LONGEST: Duration = Duration::from_secs(45);

/// See above.
pub(crate) struct Crowd {
    stop: Arc<AtomicBool>,
    callers: JoinSet<()>,
}

impl Crowd {
    pub(crate) fn start(door: &Arc<Door>, book: &Book, seed: u64) -> Self {
        let (stop, mut callers) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        let mut at = seed;
        let mut caller = || {
            at = at.wrapping_add(1);
            let random = fastrand::Rng::with_seed(at);
            Caller { door: Arc::clone(door), book: book.clone(), random, stop: Arc::clone(&stop) }
        };
        for _ in 0..EACH {
            for way in Way::ALL {
                callers.spawn(caller().calls(way));
            }
        }
        callers.spawn(caller().leaves());
        callers.spawn(caller().talks());
        Self { stop, callers }
    }

    /// Waits until all have been answered, and gone.
    pub(crate) async fn leave(self) {
        self.stop.store(true, Relaxed);
        self.callers.join_all().await;
    }
}

struct Caller {
    door: Arc<Door>,
    book: Book,
    random: fastrand::Rng,
    stop: Arc<AtomicBool>,
}

impl Caller {
    /// Calls, one after the other, mostly on the same connection.
    async fn calls(mut self, way: Way) {
        let mut line = None;
        while !self.stop.load(Relaxed) {
            sleep(Duration::from_millis(self.random.u64(..REST))).await;
            if self.random.u8(..30) == 0 {
                line = None;
            }
            let kind = Kind::any(&mut self.random);
            let (call, request) = Call::new(self.book.number(), kind, &mut self.random);
            match timeout(LONGEST, self.call(&call, way, &mut line, request)).await {
                Ok(Ok(())) => {}
                Ok(Err(wrong)) => {
                    self.book.wrong(wrong);
                    line = None;
                }
                Err(_) => {
                    self.book.wrong(format!("{:?} {}: no answer", call.kind, token(call.number)));
                    line = None;
                }
            }
        }
    }

    async fn call(
        &self,
        call: &Call,
        way: Way,
        line: &mut Option<Line>,
        mut request: http::Request<http_body_util::Full<bytes::Bytes>>,
    ) -> Result<(), String> {
        let answer = loop {
            if let Some(open) = line
                && !open.is_open().await
            {
                *line = None;
            }
            let open = match line {
                Some(open) => open,
                None => line.insert(Line::open(&self.door, way).await?),
            };
            match open.send(request).await {
                Ok(answer) => break answer,
                Err((_, Some(unsent))) => request = unsent,
                Err((error, None)) => {
                    let token = token(call.number);
                    return Err(format!("{:?} {token} by {way:?}: broken: {error:?}", call.kind));
                }
            }
            *line = None;
        };
        let (parts, body) = answer.into_parts();
        let status = parts.status.as_u16();
        match body.collect().await {
            Ok(body) => {
                let is_well = call.judge(status, &parts.headers, &body.to_bytes())?;
                if !is_well && !self.book.is_trouble_expected() {
                    return Err(format!("{:?} {}: {status}", call.kind, token(call.number)));
                }
                self.book.heard(call.number, Heard::Answer(status), is_well);
            }
            Err(error) => {
                *line = None;
                if !self.book.is_trouble_expected() {
                    return Err(format!("{:?}: its body broke off: {error:?}", call.kind));
                }
                self.book.heard(call.number, Heard::Cut(status), false);
            }
        }
        Ok(())
    }

    /// Leaves again and again before there is an answer: with half a head, half a body, or a request
    /// that is whole; politely, or not.
    async fn leaves(mut self) {
        while !self.stop.load(Relaxed) {
            sleep(Duration::from_millis(self.random.u64(..5 * REST))).await;
            if let Err(error) = self.leave().await {
                self.book.wrong(format!("nobody takes a connection: {error}"));
            }
        }
    }

    async fn leave(&mut self) -> io::Result<()> {
        let number = self.book.number();
        let mut stream = UnixStream::connect(&self.door.unix).await?;
        let request = format!(
            "POST /api/v1/emulator/echo?token={0} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {1}\r\n\
             X-Request-Id: {0}\r\nContent-Length: 100\r\n\r\n{2}",
            token(number),
            KEYS[0],
            "x".repeat(100),
        );
        let some = self.random.usize(..=request.len());
        // It may be refused before it is whole.
        let _ = stream.write_all(&request.as_bytes()[..some]).await;
        sleep(Duration::from_millis(self.random.u64(..4))).await;
        self.book.left(number);
        Ok(())
    }

    /// Talks to the hub over a WebSocket, again and again.
    async fn talks(mut self) {
        while !self.stop.load(Relaxed) {
            sleep(Duration::from_millis(self.random.u64(..5 * REST))).await;
            let (number, words) = (self.book.number(), self.random.u64(..20));
            let heard = match timeout(LONGEST, hub::talk(&self.door.unix, number, words)).await {
                Ok(Ok(heard)) => heard,
                Ok(Err(wrong)) => {
                    self.book.wrong(wrong);
                    continue;
                }
                Err(_) => {
                    self.book.wrong(format!("the hub leaves {} waiting", token(number)));
                    continue;
                }
            };
            let is_well = heard == Heard::Answer(101);
            if !is_well && !self.book.is_trouble_expected() {
                self.book.wrong(format!("the hub answers {} with {heard:?}", token(number)));
            }
            self.book.heard(number, heard, is_well);
        }
    }
}
