//! Understands a stream of HTTP/1 requests as strictly as RFC 9112 allows, and does no IO.

use super::{
    chunks::{Chunks, Piece},
    head::{BodyKind, Head},
    refusal::Refusal,
};

/// Finds out where requests begin and end in a stream of bytes, and refuses what could be read
/// in more than one way.
///
/// It keeps no bytes. What it has not understood yet, its owner keeps and shows again, with more
/// behind it; it remembers how far it has looked.
#[derive(Debug)]
pub struct Inspector {
    max_head: usize,
    state: State,
    upgrade: bool,
}

#[derive(Debug)]
enum State {
    Head { head: Head, blank: bool },
    Length(u64),
    Chunked(Chunks),
}

/// What the bytes at the front are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// They are not complete: keep them and come again with more.
    Partial,
    /// So many bytes stand before a request and mean nothing: drop them.
    Blank(usize),
    /// So many bytes are the head of a request.
    Head {
        /// Its size.
        len: usize,
        /// The request has no body: it ends here.
        last: bool,
    },
    /// So many bytes belong to the body, framing included.
    Body {
        /// Their number.
        len: usize,
        /// The request ends here.
        last: bool,
    },
}

impl Inspector {
    /// Accepts heads of at most `max_head` bytes.
    pub fn new(max_head: usize) -> Self {
        Self { max_head, state: State::start(), upgrade: false }
    }

    /// Looks at the front of `bytes`, which begin where the last step ended. After a refusal
    /// there is no sense in going on.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, however the bytes were split.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Step, Refusal> {
        match &mut self.state {
            State::Head { blank: blank @ false, .. } if bytes.first() == Some(&b'\r') => {
                let step = before_request(bytes)?;
                *blank = step != Step::Partial;
                Ok(step)
            }
            State::Head { .. } if bytes.first() == Some(&b'\n') => Err(Refusal::BareLf),
            State::Head { head, .. } => {
                let Some(announced) = head.read(bytes, self.max_head)? else {
                    return Ok(Step::Partial);
                };
                self.upgrade = announced.upgrade;
                self.state = State::body(announced.body);
                Ok(Step::Head { len: announced.len, last: self.is_between() })
            }
            State::Length(left) => {
                let len = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                self.pass(len);
                Ok(Step::Body { len, last: self.is_between() })
            }
            State::Chunked(chunks) => match chunks.read(bytes)? {
                Piece::Good(len) => Ok(Step::Body { len, last: false }),
                Piece::Partial => Ok(Step::Partial),
                Piece::Last(len) => {
                    self.state = State::start();
                    Ok(Step::Body { len, last: true })
                }
            },
        }
    }

    /// How many of the bytes that come next are data, which need not be looked at.
    pub const fn data_left(&self) -> u64 {
        match &self.state {
            State::Head { .. } => 0,
            State::Length(left) => *left,
            State::Chunked(chunks) => chunks.data_left(),
        }
    }

    /// So many bytes of data, at most [`Self::data_left`], went by unseen.
    pub fn pass(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        match &mut self.state {
            State::Head { .. } => {}
            State::Length(left) if *left > bytes => *left -= bytes,
            State::Length(_) => self.state = State::start(),
            State::Chunked(chunks) => chunks.pass(bytes),
        }
    }

    /// Whether the next byte is not part of a body.
    pub const fn is_between(&self) -> bool {
        matches!(self.state, State::Head { .. })
    }

    /// Whether the latest request asks for another protocol.
    pub const fn wants_upgrade(&self) -> bool {
        self.upgrade
    }
}

impl State {
    fn start() -> Self {
        Self::Head { head: Head::default(), blank: false }
    }

    fn body(kind: BodyKind) -> Self {
        match kind {
            BodyKind::Length(0) => Self::start(),
            BodyKind::Length(length) => Self::Length(length),
            BodyKind::Chunked => Self::Chunked(Chunks::default()),
        }
    }
}

/// One empty line is tolerated before a request (RFC 9112, section 2.2).
fn before_request(bytes: &[u8]) -> Result<Step, Refusal> {
    match bytes {
        [_] => Ok(Step::Partial),
        [_, b'\n', ..] => Ok(Step::Blank(2)),
        _ => Err(Refusal::BareCr),
    }
}
