//! Many connections that do nothing, and many that do it slowly: honest callers do not notice, and
//! each costs little.
//!
//! `AMOVE_GATEWAY_TEST_IDLE=10000 AMOVE_GATEWAY_TEST_SLOW=2000` makes it a real crowd.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio::time::sleep;

use crate::{
    case::PATH,
    process_support::eventually,
    target::{Client, Target},
};

/// How much memory a connection that does nothing may cost in the gateway, in bytes.
const IDLE: u64 = 8 * 1024;

/// How many come at once; what one wave gives back when it rests, the next one uses.
const WAVE: usize = 100;

/// After what time a connection has given back what it needs only for a request.
const RESTS: Duration = Duration::from_millis(1200);

/// After what time its bytes have come.
const ARRIVES: Duration = Duration::from_millis(100);

fn number(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |it| it.parse().expect("a number"))
}

/// Raises the limit of files of this process and of those that it starts.
fn raise_limit_of_files() {
    // The shell's own limit would end with the shell.
    let pid = std::process::id().to_string();
    let arguments = ["--pid", &pid, "--nofile=20000:20000"];
    let raised = std::process::Command::new("prlimit").args(arguments).status();
    if !raised.is_ok_and(|status| status.success()) {
        eprintln!("the limit of open files stays as it is");
    }
}

/// How long honest callers wait: the median and the slowest of a hundred, over connections that
/// they keep.
async fn waits(target: &Target) -> (Duration, Duration) {
    let mut client = Client::to(target.gateway.address).await;
    let mut waits = Vec::new();
    for _ in 0..1000 {
        let (request, token) = target.honest();
        let asked = Instant::now();
        client.write(request.as_bytes()).await;
        let reply = client.reply(false).await.expect("an answer");
        waits.push(asked.elapsed());
        assert_eq!(reply.body, token.as_bytes());
    }
    waits.sort();
    (waits[500], waits[990])
}

/// Opens so many connections and does `first` on each.
async fn wave(target: &Target, size: usize, first: &str, answered: bool) -> Vec<Client> {
    let open = |_| async {
        let mut client = Client::to(target.gateway.address).await;
        if !first.is_empty() {
            client.write(first.as_bytes()).await;
        }
        if answered {
            assert_eq!(client.reply(false).await.expect("an answer").status, 200);
            client.bytes = Vec::new();
        }
        client
    };
    stream::iter(0..size).map(open).buffer_unordered(WAVE).collect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_costs_little_and_holds_nobody_up() {
    raise_limit_of_files();
    let idle = number("AMOVE_GATEWAY_TEST_IDLE", 2000);
    let slow = number("AMOVE_GATEWAY_TEST_SLOW", 400);
    let target = Target::with(&[
        ("AMOVE_GATEWAY_SERVER__MAX_CONNECTIONS", "20000"),
        ("AMOVE_GATEWAY_SERVER__IDLE_TIMEOUT", "10m"),
        ("AMOVE_GATEWAY_SERVER__HEADER_TIMEOUT", "10m"),
    ])
    .await;
    waits(&target).await;
    let request = format!("GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n");
    // What is freed is used again: what the first ones needed is not counted.
    drop(wave(&target, WAVE, &request, true).await);
    sleep(RESTS).await;
    let quiet = waits(&target).await;

    let mut costs = Vec::new();
    let mut crowds = Vec::new();
    for (name, first, answered, size) in [
        ("between requests", &*request, true, idle / 2),
        ("nothing sent yet", "", false, idle / 2),
        ("half a head", "GET /api/v1/hostile/case HTTP/1.1\r\nHost: x\r\nA:", false, slow),
    ] {
        let before = target.memory();
        let mut crowd = Vec::new();
        while crowd.len() < size {
            crowd.extend(wave(&target, WAVE.min(size - crowd.len()), first, answered).await);
            sleep(if answered { RESTS } else { ARRIVES }).await;
        }
        let each = target.memory().saturating_sub(before) / crowd.len() as u64;
        eprintln!("{name}: {} connections, {each} bytes each", crowd.len());
        costs.push((name, each));
        crowds.push(crowd);
    }
    let slow_ones = crowds.last_mut().expect("a crowd");
    let honest = waits(&target);
    let drips = async {
        loop {
            // Slow clients do not keep step with one another.
            for some in slow_ones.chunks_mut(20) {
                for client in some {
                    client.write(b"x").await;
                }
                sleep(Duration::from_millis(2)).await;
            }
        }
    };
    let crowded = tokio::select! {
        waits = honest => waits,
        () = drips => unreachable!("they drip for ever"),
    };

    eprintln!("honest callers: {quiet:?} quiet, {crowded:?} in the crowd (median and p99)");
    for (name, each) in costs {
        assert!(each <= IDLE, "{name}: {each} bytes");
    }
    // On a busy machine a moment is nothing to go by.
    let allowed = (quiet.1 * 2).max(Duration::from_millis(50));
    assert!(crowded.1 <= allowed, "{crowded:?} instead of {quiet:?}");
    drop(crowds);
    eventually("they are forgotten", async || target.serves().await.is_ok()).await;
}
