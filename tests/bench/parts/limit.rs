//! Taking a request from the quotas.

use std::{hint::black_box, sync::Arc};

use amove_gateway::limit::{Decision, Limiter};
use criterion::Criterion;
use tokio::runtime::Builder;

use crate::support::{config, now, route};

/// None is ever used up.
const QUOTAS: [(&str, &str); 4] = [
    ("none", ""),
    ("global", "rate_limit.global = \"4000000000/s\""),
    ("caller", "callers.first.rate = \"4000000000/s\""),
    (
        "all",
        "callers.first.rate = \"4000000000/s\"\n\
         callers.first.max_concurrent = 10\n\
         [rate_limit]\n\
         global = \"4000000000/s\"\n\
         per_identity = \"4000000000/s\"\n\
         routes.\"GET user/*\".rate = \"4000000000/s\"",
    ),
];

pub(crate) fn measure(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let mut group = criterion.benchmark_group("limit");
    for (name, settings) in QUOTAS {
        let limiter = Limiter::new(&config(settings), runtime.handle().clone()).expect("quotas");
        let limiter = Arc::new(limiter);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let permit = limiter.enter(0).expect("there is room");
                let decision = now(limiter.pass(0, 0, Some(black_box(route()))));
                assert!(matches!(decision, Decision::Granted(_) | Decision::Unlimited));
                permit
            });
        });
    }
    group.finish();
}
