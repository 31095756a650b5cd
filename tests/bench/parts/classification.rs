//! From a path to its route.

use std::hint::black_box;

use amove_gateway::amove::{
    catalogue::{Catalogue, Lookup},
    paths,
};
use criterion::{BenchmarkId, Criterion, Throughput};
use http::Method;

const PATHS: [(&str, &str); 3] = [
    ("short", "/api/v1/user/userinfo"),
    ("long", "/api/v1/fastrLicense/info/4711-0815-%41%42%43%44-1174-2236-4711-0815-1174-2236/"),
    ("legacy", "/api/user/userinfo"),
];

pub(crate) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("classification");
    for (name, path) in PATHS {
        assert!(matches!(classify(path), Lookup::Found(_)), "{path}");
        group.bench_function(name, |bencher| bencher.iter(|| classify(black_box(path))));
    }

    // As many look-ups in each case: of one route again and again, and of all of them.
    let catalogue = Catalogue::get();
    let keys: Vec<_> = catalogue
        .routes()
        .iter()
        .map(|route| (&route.method, paths::read(route.template).expect("a path").key))
        .collect();
    group.throughput(Throughput::Elements(keys.len() as u64));
    for routes in [1, keys.len()] {
        let chosen: Vec<_> = keys.iter().take(routes).cycle().take(keys.len()).collect();
        group.bench_function(BenchmarkId::new("routes", routes), |bencher| {
            bencher.iter(|| {
                for (method, key) in &chosen {
                    black_box(catalogue.find(method, black_box(key)));
                }
            });
        });
    }
    group.finish();
}

fn classify(path: &str) -> Lookup {
    let place = paths::read(path).expect("a path with one meaning");
    Catalogue::get().find(&Method::GET, &place.key)
}
