//! Whether a caller may call a route.

use std::hint::black_box;

use amove_gateway::policy::Policy;
use criterion::{BenchmarkId, Criterion};

use crate::support::{config, route};

pub(crate) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("policy");
    for rules in [1, 10, 100] {
        // The last one allows it.
        let mut allow = vec!["\"GET cloudaccount/get_all\""; rules - 1];
        allow.push("\"GET user/*\"");
        let policy = Policy::new(&config(&format!("callers.first.allow = [{}]", allow.join(", "))));
        group.bench_function(BenchmarkId::new("rules", rules), |bencher| {
            bencher.iter(|| policy.check(0, &route().method, black_box(route())).expect("it may"));
        });
    }
    group.finish();
}
