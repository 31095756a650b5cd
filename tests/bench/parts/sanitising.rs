//! Taking away what the API must not hear.

use amove_gateway::{
    message::{Body, Response},
    middleware::{Middleware, sanitise::Sanitise},
};
use criterion::{BatchSize, Criterion};

use crate::support::{End, exchange, now, request};

pub(crate) fn measure(criterion: &mut Criterion) {
    let (exchange, end) = (exchange(), End(|| Response::new(Body::empty())));
    criterion.bench_function("sanitising", |bencher| {
        bencher.iter_batched(
            request,
            |request| now(Sanitise.handle(&exchange, request, &end)),
            BatchSize::SmallInput,
        );
    });
}
