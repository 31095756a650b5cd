//! Requests, exchanges and ends of the way, for the tests of single layers.

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};

use super::{Answer, Next};
use crate::{
    caller::Caller,
    exchange::{Arrival, Exchange},
    message::{Body, Peer, Request, Response},
    problem::Problem,
};

/// The end of a way: a closure.
pub(super) struct End<F>(F);

impl<F: Fn(Request) -> Answer + Send + Sync + 'static> Next for End<F> {
    async fn run(&self, _: &Arc<Exchange>, request: Request) -> Answer {
        (self.0)(request)
    }
}

/// An API that answers what `answer` says.
pub(super) fn answering<F: Fn(Request) -> Answer + Send + Sync + 'static>(answer: F) -> End<F> {
    End(answer)
}

/// An API that always answers with `status`.
pub(super) fn api(status: StatusCode) -> impl Next {
    answering(move |_| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        Ok::<_, Problem>(response)
    })
}

/// A plain request.
pub(super) fn request() -> Request {
    request_for(Method::GET, "/api/v1/user/userinfo")
}

/// A plain request for something else.
pub(super) fn request_for(method: Method, path: &str) -> Request {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap();
    request
}

/// An exchange of which nothing is known yet.
pub(super) fn exchange() -> Arc<Exchange> {
    let arrival = Arrival { peer: Peer::Unix { uid: None }, origin: "unix".into(), refusal: None };
    Exchange::open(&Method::GET, &HeaderMap::new(), arrival)
}

/// An exchange whose caller is known.
pub(super) fn called() -> Arc<Exchange> {
    let exchange = exchange();
    let (name, identity_name) = ("billing".into(), "main".into());
    exchange.set_caller(Arc::new(Caller { name, index: 0, identity: 0, identity_name }));
    exchange
}
