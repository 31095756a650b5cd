//! The wire guard: stands between a socket and hyper, and lets hyper see nothing of a message
//! that has not been understood.
//!
//! A lenient reader is how one request is smuggled inside another. The guard reads the bytes
//! first ([`Inspector`]) and refuses what could be read in two ways. In place of a refused
//! message hyper receives a request of the method [`REFUSED`], so that the answer keeps its place
//! behind those to earlier requests; the service finds the reason in the [`Handle`].

mod chunks;
mod counted;
mod discard;
mod handle;
mod head;
mod inspect;
mod line;
mod refusal;
mod sift;
mod sniff;
mod target;
#[cfg(test)]
mod tests;
mod wait;
mod write;

use std::{
    fmt, io, mem,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use hyper::rt::{Read, ReadBufCursor};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::yield_now,
};

use self::counted::Counted;
pub(super) use self::counted::with_scratch;
pub use self::{
    handle::{Handle, Overdue, Patience, Phase, Ticks},
    head::REFUSED,
    inspect::{Inspector, Step},
    refusal::Refusal,
    sniff::{Protocol, Sniffed},
};

/// How many reads of HTTP/2 may follow one another before others get their turn: frames are small,
/// and there are thousands in each.
const READS: u8 = 4;

/// How much is kept of what follows a request for another protocol, until that is decided.
const KEPT: usize = 16 * 1024;

/// A connection of which hyper sees only what the guard has understood.
pub struct Guard<S> {
    io: TokioIo<Counted<S>>,
    handle: Handle,
    inspector: Inspector,
    mode: Mode,
    /// Read, and not complete enough to be understood.
    held: Vec<u8>,
    /// Understood, and hyper had no room for it.
    ready: BytesMut,
    /// How many heads hyper was given.
    handed: u32,
    /// How much of what follows a refused message is still read and dropped.
    discard: usize,
    /// Our side of the connection is closed.
    finished: bool,
    /// How many reads of what is not inspected have followed one another.
    reads: u8,
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    /// The requests of HTTP/1 are inspected.
    Inspect,
    /// They are, beginning with what is held.
    Resume,
    /// The latest request asks for another protocol; what follows is held until that is decided.
    Undecided,
    /// The bytes are not ours to understand.
    Through,
    /// A message was refused before hyper had seen any of it.
    Refused,
    /// A message was refused when hyper had already seen a part of it.
    Broken(Refusal),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guard<S> {
    /// Guards `stream`, which speaks HTTP/1. The head of a request may have `max_head` bytes;
    /// hyper's buffer (`max_buf_size`) must be larger than that.
    pub fn new(stream: S, max_head: usize, handle: Handle) -> Self {
        Self {
            io: TokioIo::new(Counted::new(stream)),
            handle,
            inspector: Inspector::new(max_head),
            mode: Mode::Inspect,
            held: Vec::new(),
            ready: BytesMut::new(),
            handed: 0,
            discard: discard::MAX,
            finished: false,
            reads: 0,
        }
    }

    /// Keeps the time of `stream`, which speaks HTTP/2 and is not inspected.
    pub fn http2(stream: S, handle: Handle) -> Self {
        handle.enter(Phase::Http2);
        Self { mode: Mode::Through, ..Self::new(stream, 0, handle) }
    }

    /// The stream, to ask who is at its other end.
    pub fn stream(&self) -> &S {
        self.io.inner().stream()
    }

    /// What is known about the connection.
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }

    fn poll_hand_over(
        &mut self,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // First register, then look at the handle: this way no news is missed.
        self.handle.register(cx.waker());
        let room = cursor.remaining();
        loop {
            if !self.ready.is_empty() {
                self.pour(&mut cursor);
            }
            if cursor.remaining() < room {
                return Poll::Ready(Ok(()));
            }
            let next = match self.mode {
                Mode::Inspect if self.handle.is_expired() => self.expire(&mut cursor),
                Mode::Inspect if self.may_bypass(room) => return self.poll_data(cx, cursor),
                Mode::Inspect => ready!(self.poll_inspect(cx, room, &mut cursor))?,
                Mode::Resume => self.resume(&mut cursor),
                Mode::Undecided => ready!(self.poll_undecided(cx))?,
                Mode::Through => return self.poll_through(cx, cursor),
                Mode::Refused => return self.poll_refused(cx),
                Mode::Broken(refusal) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, refusal)));
                }
            };
            if matches!(next, Next::End) {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Whether all that fits into hyper's buffer is data, which nobody has to look at.
    const fn may_bypass(&self, room: usize) -> bool {
        let left = self.inspector.data_left();
        left > 0 && left >= room as u64
    }

    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_read(cx, cursor))?;
        self.inspector.pass(self.io.inner().latest());
        self.note_phase();
        if self.inspector.is_between() {
            self.message_ended();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_inspect(
        &mut self,
        cx: &mut Context<'_>,
        room: usize,
        cursor: &mut ReadBufCursor<'_>,
    ) -> Poll<io::Result<Next>> {
        with_scratch(|scratch| {
            // No more than hyper has room for, so that hardly anything must be put aside.
            let room = scratch.len().min(room);
            let window = scratch.get_mut(..room).unwrap_or_default();
            let bytes = ready!(self.io.inner_mut().poll_fill(cx, window))?;
            if bytes.is_empty() {
                return Poll::Ready(Ok(Next::End));
            }
            if self.held.is_empty() {
                let seen = self.sift(bytes, cursor);
                self.held.extend_from_slice(bytes.get(seen..).unwrap_or_default());
                self.note_phase();
            } else {
                self.held.extend_from_slice(bytes);
                self.resume(cursor);
            }
            Poll::Ready(Ok(Next::Again))
        })
    }

    fn resume(&mut self, cursor: &mut ReadBufCursor<'_>) -> Next {
        self.mode = Mode::Inspect;
        let mut held = mem::take(&mut self.held);
        let seen = self.sift(&held, cursor);
        if seen < held.len() {
            held.drain(..seen);
            self.held = held;
        }
        self.note_phase();
        Next::Again
    }

    /// The client has taken too long.
    fn expire(&mut self, cursor: &mut ReadBufCursor<'_>) -> Next {
        if self.handle.is_offered_all() {
            return Next::End;
        }
        if self.handle.open_exchanges() > 0 {
            self.handle.revive();
            return Next::Again;
        }
        if !self.inspector.is_between() || self.held.is_empty() {
            return Next::End;
        }
        // From now on the client may take its time to read the answer.
        self.handle.revive();
        self.refuse(Refusal::HeadTimeout, Some(&[]), cursor);
        Next::Again
    }

    fn poll_undecided(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Next>> {
        if self.handle.is_upgraded() {
            self.mode = Mode::Through;
            self.ready.extend_from_slice(&mem::take(&mut self.held));
            self.handle.enter(Phase::Upgraded);
            return Poll::Ready(Ok(Next::Again));
        }
        if self.handle.await_end() == self.handed {
            self.mode = Mode::Resume;
            return Poll::Ready(Ok(Next::Again));
        }
        if self.held.len() >= KEPT {
            return Poll::Pending;
        }
        // We read on, because this is how hyper learns that the client has gone.
        with_scratch(|scratch| {
            let bytes = ready!(self.io.inner_mut().poll_fill(cx, scratch))?;
            self.held.extend_from_slice(bytes);
            match (bytes.is_empty(), self.held.is_empty()) {
                (false, _) => Poll::Ready(Ok(Next::Again)),
                (true, true) => Poll::Ready(Ok(Next::End)),
                // The end comes after what is held.
                (true, false) => Poll::Pending,
            }
        })
    }

    fn poll_through(
        &mut self,
        cx: &mut Context<'_>,
        cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let idle = self.handle.phase() == Phase::Http2 && self.handle.open_exchanges() == 0;
        if idle && self.handle.is_expired() {
            return Poll::Ready(Ok(()));
        }
        if self.reads == READS {
            self.reads = 0;
            // Not merely woken: it goes on when the runtime has looked who else has something.
            return pin!(yield_now()).poll(cx).map(Ok);
        }
        let read = Pin::new(&mut self.io).poll_read(cx, cursor);
        self.reads = if read.is_ready() { self.reads + 1 } else { 0 };
        ready!(read)?;
        self.handle.touch();
        Poll::Ready(Ok(()))
    }
}

enum Next {
    /// Something has changed: look again.
    Again,
    /// Nothing more will come.
    End,
}

/// Without the bytes: they may be credentials.
impl<S> fmt::Debug for Guard<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("mode", &self.mode)
            .field("inspector", &self.inspector)
            .finish_non_exhaustive()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Read for Guard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_hand_over(cx, cursor)
    }
}
