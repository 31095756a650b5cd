//! From a 499 of the API to the answer that a caller gets.

use std::hint::black_box;

use amove_gateway::{
    message::{Body, Response},
    middleware::{Middleware, normalise::Normalise},
};
use bytes::Bytes;
use criterion::{BatchSize, Criterion};
use http::{HeaderValue, StatusCode};

use crate::support::{End, config, exchange, now, request};

const ERROR: &str =
    r#"{"type":"NOT_FOUND","status":499,"errors":{"NOT_FOUND":["No sync with this id."]}}"#;

pub(crate) fn measure(criterion: &mut Criterion) {
    let normalise = Normalise::new(&config("").errors);
    let (status, id) =
        (StatusCode::from_u16(499).expect("a status"), HeaderValue::from_static("request-4711"));
    let end = End(move || {
        let mut response = Response::new(Body::from(Bytes::from_static(ERROR.as_bytes())));
        *response.status_mut() = status;
        response
    });
    criterion.bench_function("problem", |bencher| {
        bencher.iter_batched(
            || (exchange(), request()),
            |(exchange, request)| {
                let answer = now(normalise.handle(&exchange, request, &end));
                answer.expect_err("a problem").into_response(black_box(&id))
            },
            BatchSize::SmallInput,
        );
    });
}
