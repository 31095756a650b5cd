//! However a stream is cut into pieces, it is understood in the same way.

use proptest::prelude::*;

use super::{
    guard::{passed, served},
    inspect,
};

const ANNOUNCEMENT: &[u8] =
    b"REFUSED / HTTP/1.1\r\nHost: refused.invalid\r\nConnection: close\r\n\r\n";

/// Pieces of requests, good ones and bad ones, that combine to streams of all kinds.
const PARTS: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "POST /a?b HTTP/1.1\r\n",
    "OPTIONS * HTTP/1.0\r\n",
    "GET http://a/ HTTP/1.1\r\n",
    "Host: a\r\n",
    "Host: b\r\n",
    "X-Y: z\r\n",
    "X_Y: z\r\n",
    "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "\r\n",
    "\r",
    "\n",
    "abc",
    "3\r\nabc\r\n",
    "3;x=\"y\"\r\nabc\r\n",
    "0\r\n\r\n",
    "0\r\nX: y\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    " ",
    "\0",
    ":",
];

fn streams() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(PARTS), 0..12)
        .prop_map(|parts| parts.concat().into_bytes())
}

/// The same, with one byte replaced.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    (streams(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut stream, at, byte)| {
        if !stream.is_empty() {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        stream
    })
}

fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cuts_change_nothing(stream in prop_oneof![streams(), damaged()], cuts in cuts()) {
        let mut cuts = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect::<Vec<_>>();
        cuts.sort_unstable();

        let whole = inspect(&stream, &[]);
        let pieces = inspect(&stream, &cuts);

        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn what_arrives_with_its_fault_is_never_handed_over(stream in prop_oneof![streams(), damaged()]) {
        let found = inspect(&stream, &[]);
        let mut expected = Vec::new();
        for message in &found.messages {
            match (message.end, found.refusal) {
                (Some(end), _) => expected.extend_from_slice(&stream[message.begin..end]),
                (None, None) => expected.extend_from_slice(&stream[message.begin..stream.len() - found.partial]),
                (None, Some(_)) => {}
            }
        }
        if found.refusal.is_some() {
            expected.extend_from_slice(ANNOUNCEMENT);
        }

        prop_assert_eq!(passed(&stream), expected);
    }

    #[test]
    fn hyper_sees_the_same_requests(stream in prop_oneof![streams(), damaged()]) {
        let found = inspect(&stream, &[]);
        let heads = found.messages.iter().map(|message| &stream[message.begin..][..message.head]);
        let whole = found.messages.iter().filter(|message| message.end.is_some()).count();
        let mut expected = Vec::new();
        // After HTTP/1.0 the connection ends.
        let mut ended = false;
        for head in heads.take(if found.refusal.is_some() { whole } else { usize::MAX }) {
            expected.push(String::from_utf8_lossy(head).split(' ').next().unwrap_or_default().to_owned());
            ended = head.windows(10).any(|text| text == b"HTTP/1.0\r\n");
            if ended {
                break;
            }
        }
        if let (Some(refusal), false) = (found.refusal, ended) {
            expected.push(format!("refused: {refusal:?}"));
        }

        let seen = served(&stream);
        let seen = seen.iter().map(|text| match text.split_once(' ') {
            Some((method, _)) if method != "refused:" => method.to_owned(),
            _ => text.clone(),
        });

        prop_assert_eq!(seen.collect::<Vec<_>>(), expected);
    }
}
