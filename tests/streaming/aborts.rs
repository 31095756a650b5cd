//! Whoever breaks off takes the other side along, within a second or what a busy machine makes
//! of it.

use std::time::{Duration, Instant};

use crate::process_support::between::Between;

const PROMPT: Duration = Duration::from_secs(5);

const ASK: &str = "GET /api/v1/emulator/blob HTTP/1.1\r\nHost: x\r\n\r\n";
const UPLOAD: &str =
    "POST /api/v1/emulator/sink HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nsome";
const BEGUN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome";

/// How a side leaves.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    Closes,
    Resets,
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_caller_leaves_the_api_is_not_kept_busy() {
    let between = Between::start(&[]).await;
    for how in [Leaves::Closes, Leaves::Resets] {
        for (request, answer) in [(ASK, ""), (ASK, BEGUN), (UPLOAD, ""), (UPLOAD, BEGUN)] {
            let mut caller = between.caller(request).await;
            let (mut api, _) = between.api().await;
            if request == UPLOAD {
                api.hears("some").await;
            }
            if !answer.is_empty() {
                api.say(answer).await;
                caller.head().await;
                caller.hears("some").await;
            }
            let begun = Instant::now();
            match how {
                Leaves::Closes => drop(caller),
                Leaves::Resets => caller.reset(),
            }
            drop(api.rest().await);
            let took = begun.elapsed();
            assert!(took < PROMPT, "{how:?} {request:?} {answer:?}: {took:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_api_breaks_off_the_caller_sees_it() {
    let between = Between::start(&[]).await;
    for how in [Leaves::Closes, Leaves::Resets] {
        for (request, answer) in [(ASK, ""), (ASK, BEGUN), (UPLOAD, ""), (UPLOAD, BEGUN)] {
            let mut caller = between.caller(request).await;
            let (mut api, _) = between.api().await;
            if request == UPLOAD {
                api.hears("some").await;
            }
            if !answer.is_empty() {
                api.say(answer).await;
                caller.head().await;
                caller.hears("some").await;
            }
            let begun = Instant::now();
            match how {
                Leaves::Closes => drop(api),
                Leaves::Resets => api.reset(),
            }
            if answer.is_empty() {
                let answer = caller.head().await;
                assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
            } else {
                // It ends, and not as a whole answer would.
                assert!(caller.rest().await.map_or(true, |rest| rest.is_empty()));
            }
            let took = begun.elapsed();
            assert!(took < PROMPT, "{how:?} {request:?} {answer:?}: {took:?}");
        }
    }
}

/// In HTTP/1 a caller who closes its side in the middle of an exchange cannot be told from one who
/// is gone, and the API is not to work for nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_closes_its_side_before_the_answer_has_left() {
    let between = Between::start(&[]).await;
    let mut caller = between.caller(ASK).await;
    let (mut api, _) = between.api().await;

    caller.finish().await;

    assert_eq!(api.rest().await.expect("a clean end"), "");
    assert_eq!(caller.rest().await.expect("a clean end"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_with_a_body_that_nobody_reads_is_not_used_again() {
    let between = Between::start(&[]).await;
    let refused = UPLOAD.replace("\r\n\r\n", "\r\nVia: 1.1 amove-gateway\r\n\r\n");

    let mut caller = between.caller(&refused).await;

    let answer = caller.head().await;
    assert!(answer.starts_with("HTTP/1.1 508 "), "{answer}");
    assert!(caller.rest().await.is_ok_and(|rest| rest.contains("loop-detected")));
    assert!(between.is_quiet().await);
}
