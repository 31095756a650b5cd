//! Separates what hyper may see from what it may not.

use bytes::BytesMut;
use hyper::rt::ReadBufCursor;

use super::{Guard, Mode, Phase, Refusal, Step};

/// What hyper receives in place of a refused message.
const ANNOUNCEMENT: &[u8] =
    b"REFUSED / HTTP/1.1\r\nHost: refused.invalid\r\nConnection: close\r\n\r\n";

impl<S> Guard<S> {
    /// Inspects all of `input` before any of it is handed over, so that a message that is wrong
    /// anywhere in it is never begun. Returns how much of it is done with.
    pub(super) fn sift(&mut self, input: &[u8], cursor: &mut ReadBufCursor<'_>) -> usize {
        let part = |from: usize, to: usize| input.get(from..to).unwrap_or_default();
        // What hyper has not been given, and what has not been looked at.
        let (mut from, mut at) = (0, 0);
        // Where the message begins that is looked at, unless hyper has begun to read it.
        let mut message = self.inspector.is_between().then_some(0);
        while at < input.len() {
            let (len, last) = match self.inspector.feed(part(at, input.len())) {
                Ok(Step::Partial) => break,
                Ok(Step::Blank(len)) => {
                    self.hand(part(from, at), cursor);
                    from = at + len;
                    message = Some(from);
                    (len, false)
                }
                Ok(Step::Head { len, last }) => {
                    self.handed = self.handed.wrapping_add(1);
                    self.handle.hand_over(self.handed);
                    (len, last)
                }
                Ok(Step::Body { len, last }) => (len, last),
                Err(refusal) => {
                    self.refuse(refusal, message.map(|begin| part(from, begin)), cursor);
                    return input.len();
                }
            };
            at += len;
            if last {
                message = Some(at);
                if self.message_ended() {
                    break;
                }
            }
        }
        self.hand(part(from, at), cursor);
        at
    }

    /// A message has ended. Returns whether it is undecided in which protocol the next will be.
    pub(super) const fn message_ended(&mut self) -> bool {
        if self.inspector.wants_upgrade() {
            self.mode = Mode::Undecided;
        }
        self.inspector.wants_upgrade()
    }

    /// Refuses the message that is looked at. `before` is what precedes it and is good; `None`
    /// if hyper has begun to read the message itself.
    pub(super) fn refuse(
        &mut self,
        refusal: Refusal,
        before: Option<&[u8]>,
        cursor: &mut ReadBufCursor<'_>,
    ) {
        self.handle.refuse(refusal);
        self.held = Vec::new();
        self.mode = match before {
            Some(before) => {
                self.hand(before, cursor);
                self.hand(ANNOUNCEMENT, cursor);
                Mode::Refused
            }
            None => Mode::Broken(refusal),
        };
    }

    /// Gives `bytes` to hyper, or keeps them until there is room.
    fn hand(&mut self, bytes: &[u8], cursor: &mut ReadBufCursor<'_>) {
        let room = if self.ready.is_empty() { cursor.remaining() } else { 0 };
        let (now, later) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
        cursor.put_slice(now);
        self.ready.extend_from_slice(later);
    }

    /// Gives hyper what there was no room for.
    pub(super) fn pour(&mut self, cursor: &mut ReadBufCursor<'_>) {
        let now = self.ready.split_to(self.ready.len().min(cursor.remaining()));
        cursor.put_slice(&now);
        if self.ready.is_empty() {
            self.ready = BytesMut::new();
        }
    }

    pub(super) fn note_phase(&self) {
        let phase = match self.mode {
            Mode::Refused | Mode::Broken(_) => return,
            _ if !self.inspector.is_between() => Phase::Body,
            Mode::Inspect if !self.held.is_empty() => Phase::Head,
            _ => Phase::Between,
        };
        self.handle.enter(phase);
    }
}
