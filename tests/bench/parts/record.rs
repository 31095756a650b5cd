//! Writing down what happened. Sealing has no door of its own: it is most of what `verify` does.

use std::{hint::black_box, sync::Arc};

use amove_gateway::{
    audit::{Archive, Hash, Outcome, Phase, Record, Scribe, Sealed, Trail, verify},
    clock::Clock,
    config::{Audit, Config},
    exchange::{Destination, Exchange},
};
use criterion::{BatchSize, Criterion, Throughput};
use http::StatusCode;
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::{config, exchange, now, route};

/// Records that are verified at once, and those that are written at once.
const STORED: usize = 1_000;
const TOGETHER: usize = 16;

pub(crate) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record");
    let clock = Clock::system();

    let folder = tempfile::tempdir().expect("a folder");
    let (trail, writer) = Trail::open(&audit(&folder), &clock).expect("an audit log");
    let scribe = trail.scribe();
    group.bench_function("settle", |bencher| {
        bencher.iter_batched(
            || answered(&scribe, &clock),
            |exchange| now(exchange.settle()).expect("it is written"),
            BatchSize::SmallInput,
        );
    });
    group.throughput(Throughput::Elements(TOGETHER as u64));
    group.bench_function("settle together", |bencher| {
        bencher.iter(|| {
            let receipts = [(); TOGETHER].map(|()| scribe.note(black_box(&record())));
            for receipt in receipts {
                now(scribe.settle(receipt)).expect("it is written");
            }
        });
    });
    drop(scribe);
    writer.finish();

    let sealed = sealed();
    let mut line = Vec::with_capacity(1024);
    group.throughput(Throughput::Elements(1));
    group.bench_function("json line", |bencher| {
        bencher.iter(|| {
            line.clear();
            black_box(&sealed).json_line(&mut line);
            line.len()
        });
    });

    let folder = tempfile::tempdir().expect("a folder");
    let (trail, writer) = Trail::open(&audit(&folder), &clock).expect("an audit log");
    let scribe = trail.scribe();
    (0..STORED).for_each(|_| scribe.leave(&record()));
    writer.finish();
    let archive = Archive::open(&audit(&folder).store, &clock).expect("an audit log");
    group.throughput(Throughput::Elements(STORED as u64));
    group.bench_function("verify", |bencher| {
        bencher.iter(|| verify(&archive, None, None, |_| {}).expect("nobody has changed it"));
    });
    group.finish();
}

/// An audit log that goes on when its store cannot keep up: nobody measures as slowly as callers call.
fn audit(folder: &TempDir) -> Audit {
    let store = folder.path().join("audit");
    let Config { audit, .. } =
        config(&format!("audit.on_failure = \"allow\"\naudit.store = {store:?}"));
    audit
}

/// An exchange that has been answered, and is not yet written down.
fn answered(scribe: &Arc<Scribe>, clock: &Clock) -> Arc<Exchange> {
    let exchange = exchange();
    exchange.set_ledger(scribe, clock);
    exchange.set_destination(Destination { route: Some(route()), legacy: false });
    exchange.answered(StatusCode::OK, None);
    exchange.answer_is_complete();
    exchange
}

fn record() -> Record<'static> {
    Record {
        phase: Phase::Outcome,
        id: Uuid::from_u128(0x0192_f0c1_2345_7000_8000_0000_0000_0001),
        request_id: "0192f0c1-2345-7000-8000-000000000001",
        time: 1_772_354_400_000_000,
        caller: Some("billing"),
        identity: Some("main"),
        method: "GET",
        route: Some("/api/v1/user/userinfo"),
        effect: Some("read"),
        status: Some(200),
        upstream_status: Some(200),
        code: None,
        outcome: Some(Outcome::Ok),
        duration_us: 1_234,
        upstream_us: 1_100,
        bytes_in: 0,
        bytes_out: 512,
        attempts: 1,
        replay: None,
        rule: None,
        legacy: false,
        peer: "10.1.2.3:40000",
        trace_id: Some("0af7651916cd43dd8448eb211c80319c"),
        lost: 0,
    }
}

fn sealed() -> Sealed<'static> {
    Sealed {
        seq: 4_711,
        gateway: "host/0192f0c1",
        record: record(),
        prev_hash: Hash::default(),
        hash: Hash::default(),
    }
}
