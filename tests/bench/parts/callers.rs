//! From an API key to its caller.

use std::hint::black_box;

use amove_gateway::{
    caller::{Callers, api_key},
    clock::Clock,
};
use criterion::{BenchmarkId, Criterion};

use crate::support::{config, peer};

/// Keys that are in use at the same time.
const IN_USE: usize = 1_000;

pub(crate) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("callers");
    for count in [10, 1_000, 100_000, 1_000_000] {
        let callers = callers(count);
        let peer = peer();
        let apart = (count / IN_USE).max(1);
        let keys: Vec<_> = (0..count).step_by(apart).map(key_of).collect();
        let mut keys = keys.iter().cycle();
        group.bench_function(BenchmarkId::new("keys", count), |bencher| {
            bencher.iter(|| {
                let key = keys.next().expect("there is always a next one");
                callers.recognise(Some(black_box(key)), &peer).expect("a caller")
            });
        });
    }
    let (callers, peer) = (callers(10), peer());
    let wrong = key_of(usize::MAX);
    group.bench_function("stranger", |bencher| {
        bencher.iter(|| callers.recognise(Some(black_box(&wrong)), &peer).expect_err("nobody"));
    });
    group.finish();
}

/// So many callers, with a key each.
fn callers(count: usize) -> Callers {
    let mut config = config("");
    let first = config.callers.swap_remove(0);
    let caller = |number| {
        let mut caller = first.clone();
        caller.name = format!("caller-{number}").into();
        caller.api_key_hashes = vec![api_key::hash(&key_of(number))];
        caller
    };
    config.callers = (0..count).map(caller).collect();
    Callers::new(&config, &Clock::system()).expect("callers")
}

fn key_of(caller: usize) -> Vec<u8> {
    format!("amgw_{caller:048}").into_bytes()
}
