//! Clients of HTTP/2 that flood us, hoard, or dawdle: memory stays bounded, honest callers are
//! served meanwhile, and whoever overdoes it is sent away or slowed down.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};

use crate::{
    frames::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, PING,
        PRIORITY, PUSH_PROMISE, RST_STREAM, Raw, Reader, SETTINGS, WINDOW_UPDATE, block, frame,
        get, number, request, settings,
    },
    target::Target,
};

const PATH: &str = "/api/v1/hostile/case";
const MIB: u64 = 1024 * 1024;
/// How much memory a flood may cost.
const GROWTH: u64 = 32 * MIB;
/// How long an honest caller may wait meanwhile, also on a busy machine.
const WAIT: Duration = Duration::from_secs(3);
/// How long a flood lasts at most.
const LASTS: Duration = Duration::from_secs(1);

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const FRAME_SIZE_ERROR: u32 = 6;

/// How a flood ended.
#[derive(Debug)]
struct Ended {
    /// Why the gateway ended the connection, if it did and said so.
    reason: Option<u32>,
    /// It did not take all that was sent, or not in time.
    stopped: bool,
}

/// Sends `pieces` as fast as they are taken, over connections that have begun with `first`, while
/// honest callers ask and the memory is watched.
async fn flood(
    target: &Target,
    connections: usize,
    first: &[u8],
    reads: bool,
    mut piece: impl FnMut(u32) -> Option<Vec<u8>>,
) -> Vec<Ended> {
    for _ in 0..20 {
        target.serves().await.expect("quiet callers are served");
    }
    let before = target.memory();
    let over = AtomicBool::new(false);
    let pieces: Vec<Vec<u8>> = (0..).map_while(&mut piece).collect();
    let attack = async {
        let attacks = (0..connections).map(|_| attack(target, first, reads, &pieces));
        let ended = futures_util::future::join_all(attacks).await;
        over.store(true, Ordering::Relaxed);
        ended
    };
    let honest = async {
        let (mut worst, mut peak) = (Duration::ZERO, 0);
        while !over.load(Ordering::Relaxed) {
            let asked = Instant::now();
            target.serves().await.expect("honest callers are served meanwhile");
            worst = worst.max(asked.elapsed());
            peak = peak.max(target.memory());
            sleep(Duration::from_millis(2)).await;
        }
        (worst, peak)
    };
    let (ended, (worst, peak)) = tokio::join!(attack, honest);
    let grown = peak.saturating_sub(before);
    let stopped = ended.iter().filter(|it| it.stopped).count();
    let kib = grown / 1024;
    eprintln!("{kib} KiB more, an honest caller waits {worst:?}, {stopped} stopped, {ended:?}");
    assert!(grown < GROWTH, "{} KiB", grown / 1024);
    assert!(worst < WAIT, "{worst:?}");
    ended
}

async fn attack(target: &Target, first: &[u8], reads: bool, pieces: &[Vec<u8>]) -> Ended {
    let mut raw = Raw::to(target.gateway.address, &[]).await;
    raw.write(first).await;
    let Raw { mut reader, mut writer } = raw;
    let writes = async {
        for piece in pieces {
            if tokio::io::AsyncWriteExt::write_all(&mut writer, piece).await.is_err() {
                return true;
            }
        }
        false
    };
    if !reads {
        // Not even the gateway's answers are taken: it must not keep them for ever.
        let stopped = timeout(LASTS, writes).await.unwrap_or(true);
        return Ended { reason: None, stopped };
    }
    let (stopped, reason) =
        tokio::join!(async { timeout(LASTS, writes).await.unwrap_or(true) }, reason(&mut reader));
    Ended { reason, stopped }
}

/// Why the connection is ended, if it is soon.
async fn reason(reader: &mut Reader) -> Option<u32> {
    timeout(LASTS, reader.farewell()).await.ok()?
}

/// The one attacker was told to calm down.
fn assert_calmed(ended: &[Ended]) {
    assert!(ended.iter().all(|it| it.reason == Some(ENHANCE_YOUR_CALM)), "{ended:?}");
}

/// So many of the same piece.
fn repeated(piece: &[u8], times: u32) -> impl FnMut(u32) -> Option<Vec<u8>> {
    move |at| (at < times).then(|| piece.to_vec())
}

/// Identifiers of streams, in their order.
fn stream(at: u32) -> u32 {
    2 * at + 1
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_reset_at_once() {
    let target = Target::start().await;
    let piece = |at: u32| {
        let reset = |at: u32| {
            [request(stream(at), PATH), frame(RST_STREAM, 0, stream(at), &[0, 0, 0, 8])].concat()
        };
        (at < 500).then(|| (at * 100..at * 100 + 100).flat_map(reset).collect())
    };

    let ended = flood(&target, 2, &[], true, piece).await;

    assert_calmed(&ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_whose_reset_is_provoked() {
    let target = Target::start().await;
    // Each breaks a rule, so that it is we who reset it.
    let piece = |at: u32| {
        let broken = |at: u32| {
            let fields = [&get(PATH)[..], &[("content-length", "5")]].concat();
            let data = frame(DATA, END_STREAM, stream(at), b"x");
            [frame(HEADERS, END_HEADERS, stream(at), &block(&fields)), data].concat()
        };
        (at < 500).then(|| (at * 100..at * 100 + 100).flat_map(broken).collect())
    };

    let ended = flood(&target, 2, &[], true, piece).await;

    assert_calmed(&ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_never_end() {
    let target = Target::start().await;
    let first = frame(HEADERS, END_STREAM, 1, &block(&get(PATH)));
    let field = block(&[("a", &"b".repeat(1000))]);
    for piece in [frame(CONTINUATION, 0, 1, &field), frame(CONTINUATION, 0, 1, &[])] {
        let ended = flood(&target, 2, &first, true, repeated(&piece.repeat(10), 2000)).await;

        assert!(ended.iter().all(|it| it.reason.is_some()), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_small_and_become_large() {
    let target = Target::start().await;
    // A field of 4,000 bytes, kept in the table, and then named again in one byte.
    let mut bomb = block(&get(PATH));
    bomb.push(0x40);
    number(&mut bomb, 1);
    bomb.push(b'a');
    number(&mut bomb, 4000);
    bomb.extend([b'b'; 4000]);
    bomb.extend([0x80 | 62; 10_000]);
    let piece =
        |at: u32| (at < 200).then(|| frame(HEADERS, END_HEADERS | END_STREAM, stream(at), &bomb));

    flood(&target, 2, &[], true, piece).await;
    assert!(target.backend.take().iter().all(|it| it.what.shown().contains("token=")));
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_want_an_answer_or_none() {
    let target = Target::start().await;
    let headers = block(&get(PATH));
    let open = frame(HEADERS, END_HEADERS, 1, &headers);
    let many_settings = settings(&[(3, 100), (4, 65_535)].repeat(20));
    for (name, first, piece) in [
        ("PING", vec![], frame(PING, 0, 0, &[0; 8])),
        ("PING acknowledged", vec![], frame(PING, ACK, 0, &[0; 8])),
        ("SETTINGS", vec![], settings(&[(4, 65_535)])),
        ("SETTINGS of many", vec![], many_settings),
        ("SETTINGS of nothing", vec![], settings(&[])),
        ("SETTINGS of the table's size", vec![], settings(&[(1, 0), (1, 4096)])),
        ("PRIORITY", vec![], frame(PRIORITY, 0, 3, &[0, 0, 0, 1, 1])),
        ("WINDOW_UPDATE", open.clone(), frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])),
        ("frames nobody knows", vec![], frame(0xbe, 0, 0, &[0; 100])),
        ("RST_STREAM of nothing", vec![], frame(RST_STREAM, 0, 1, &[0; 4])),
    ] {
        for reads in [true, false] {
            eprint!("{name}, answers read: {reads}: ");
            flood(&target, 1, &first, reads, repeated(&piece.repeat(200), 500)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_nothing_and_of_one_byte() {
    let target = Target::start().await;
    let mut fields = get(PATH).to_vec();
    fields[0].1 = "POST";
    let open = frame(HEADERS, END_HEADERS, 1, &block(&fields));

    let nothing = frame(DATA, 0, 1, &[]).repeat(500);
    let ended = flood(&target, 2, &open, true, repeated(&nothing, 400)).await;
    assert_calmed(&ended);

    let one_byte = frame(DATA, 0, 1, b"x").repeat(100);
    flood(&target, 2, &open, true, repeated(&one_byte, 600)).await;

    let padded = frame(DATA, 8, 1, &[&[200], &[0; 200][..]].concat()).repeat(100);
    flood(&target, 2, &open, true, repeated(&padded, 400)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_protocol_ends_the_connection() {
    let target = Target::start().await;
    let huge = frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]);
    for (name, bytes, reason) in [
        ("a window beyond its end", huge.repeat(2), FLOW_CONTROL_ERROR),
        ("a window that grows by nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), PROTOCOL_ERROR),
        ("an initial window beyond its end", settings(&[(4, 0x8000_0000)]), PROTOCOL_ERROR),
        ("frames larger than there are", settings(&[(5, 0x0100_0000)]), PROTOCOL_ERROR),
        ("a push that is neither yes nor no", settings(&[(2, 2)]), PROTOCOL_ERROR),
        ("settings that acknowledge something", frame(SETTINGS, ACK, 0, &[0; 6]), PROTOCOL_ERROR),
        ("half a setting", frame(SETTINGS, 0, 0, &[0; 5]), FRAME_SIZE_ERROR),
        ("a short ping", frame(PING, 0, 0, &[0; 7]), FRAME_SIZE_ERROR),
        ("a push", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]), PROTOCOL_ERROR),
        ("a huge frame", frame(DATA, 0, 1, &[0; 100_000]), FRAME_SIZE_ERROR),
    ] {
        let mut raw = Raw::to(target.gateway.address, &[]).await;
        raw.write(&bytes).await;

        let said = raw.reader.farewell().await;

        // Whatever it is called more exactly, it is an error of the protocol.
        assert!([Some(reason), Some(PROTOCOL_ERROR)].contains(&said), "{name}: {said:?}");
        target.serves().await.expect(name);
    }
}

/// Answers that nobody takes: they are neither kept nor waited for by others.
#[tokio::test(flavor = "multi_thread")]
async fn large_answers_for_which_there_is_no_window() {
    let target = Target::start().await;
    let before = target.memory();
    let mut hoarders = Vec::new();
    for window in [0, 1] {
        let mut raw = Raw::to(target.gateway.address, &[(4, window)]).await;
        let path = "/api/v1/hostile/case?blob=100000000";
        let requests: Vec<u8> = (0..300).flat_map(|at| request(stream(at), path)).collect();
        raw.write(&requests).await;
        hoarders.push(raw);
    }
    let mut peak = 0;
    for _ in 0..50 {
        let asked = Instant::now();
        target.serves().await.expect("honest callers are served meanwhile");
        assert!(asked.elapsed() < WAIT, "{:?}", asked.elapsed());
        peak = peak.max(target.memory());
        sleep(Duration::from_millis(10)).await;
    }
    let grown = peak.saturating_sub(before);
    eprintln!("{} KiB for 2 hoarders of large answers", grown / 1024);
    assert!(grown < GROWTH, "{} KiB", grown / 1024);
}
