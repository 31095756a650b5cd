//! A configuration, a request, and an end of the way.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use amove_gateway::{
    amove::catalogue::{Catalogue, Lookup, Route},
    config::{Config, load},
    exchange::{Arrival, Exchange},
    message::{Body, Peer, Request, Response},
    middleware::{Answer, Next},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// What a client that takes care of itself sends.
const FIELDS: [(&str, &str); 8] = [
    ("host", "gateway.internal:8080"),
    ("user-agent", "billing/4.2 (linux; x86_64)"),
    ("accept", "application/json"),
    ("accept-encoding", "gzip, br"),
    ("connection", "keep-alive"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("x-forwarded-for", "10.1.2.3"),
    ("x-api-key", "amgw_000000000000000000000000000000000000000000000000"),
];

/// One identity, one caller, and what `settings` say.
pub(crate) fn config(settings: &str) -> Config {
    let text = format!(
        "identities.main.api_token = \"token\"\n\
         callers.first.api_key_hash = \"blake3:{}\"\n\
         {settings}",
        "0".repeat(64)
    );
    load::load_str(&text, &[]).expect("a configuration").config
}

/// Where callers come from.
pub(crate) fn peer() -> Peer {
    Peer::Tcp(([10, 1, 2, 3], 40_000).into())
}

/// What callers send.
pub(crate) fn request() -> Request {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = http::Uri::from_static("/api/v1/user/userinfo");
    *request.headers_mut() = headers();
    request
}

/// The exchange of such a request.
pub(crate) fn exchange() -> Arc<Exchange> {
    let arrival = Arrival { peer: peer(), origin: peer().to_string().into(), refusal: None };
    Exchange::open(&Method::GET, &headers(), arrival)
}

fn headers() -> HeaderMap {
    let field = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    FIELDS.into_iter().map(field).collect()
}

/// The route that they ask for.
pub(crate) fn route() -> &'static Route {
    match Catalogue::get().find(&Method::GET, "user/userinfo") {
        Lookup::Found(route) => route,
        other => panic!("a documented route, not {other:?}"),
    }
}

/// The end of the way: a closure.
pub(crate) struct End<F>(pub(crate) F);

impl<F: Fn() -> Response + Send + Sync + 'static> Next for End<F> {
    async fn run(&self, _: &Arc<Exchange>, _: Request) -> Answer {
        Ok((self.0)())
    }
}

/// The outcome of what waits for nobody, except perhaps for its next turn.
pub(crate) fn now<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}
