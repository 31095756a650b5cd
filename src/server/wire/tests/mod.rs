//! Tests of the wire guard.

mod good;
mod guard;
mod malformed;
mod splits;

use super::{Inspector, Refusal, Step};

/// One request in a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Message {
    begin: usize,
    head: usize,
    end: Option<usize>,
}

/// What became of a stream.
#[derive(Debug, Eq, PartialEq)]
struct Found {
    messages: Vec<Message>,
    refusal: Option<Refusal>,
    /// Bytes that were not complete at the end.
    partial: usize,
}

/// Inspects `stream`, which arrives in pieces that end at `cuts`.
fn inspect(stream: &[u8], cuts: &[usize]) -> Found {
    inspect_within(32 * 1024, stream, cuts)
}

fn inspect_within(max_head: usize, stream: &[u8], cuts: &[usize]) -> Found {
    let mut inspector = Inspector::new(max_head);
    let mut messages: Vec<Message> = Vec::new();
    let mut at = 0;
    for &arrived in cuts.iter().chain([&stream.len()]) {
        while at < arrived {
            let (len, last) = match inspector.feed(&stream[at..arrived]) {
                Ok(Step::Partial) => break,
                Ok(Step::Blank(len)) => (len, false),
                Ok(Step::Head { len, last }) => {
                    messages.push(Message { begin: at, head: len, end: None });
                    (len, last)
                }
                Ok(Step::Body { len, last }) => (len, last),
                Err(refusal) => return Found { messages, refusal: Some(refusal), partial: 0 },
            };
            assert!(len > 0, "each step takes something");
            at += len;
            if last {
                messages.last_mut().expect("a body has a head").end = Some(at);
            }
        }
    }
    Found { messages, refusal: None, partial: stream.len() - at }
}
