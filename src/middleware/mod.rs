//! What a layer is: one step on a request's way.

use std::sync::Arc;

use tower::Layer;

pub mod admit;
pub mod announce;
pub mod audit;
pub mod authenticate;
pub mod authorise;
pub mod breaker;
mod entrance;
pub mod find_route;
pub mod forward;
pub mod inject_token;
pub mod limit;
pub mod normalise;
pub mod pause;
pub mod receive;
mod request_token;
pub mod retry;
pub mod sanitise;
#[cfg(test)]
mod testing;

use crate::{
    exchange::Exchange,
    message::{Request, Response},
    problem::Problem,
};

/// How a request is answered: with a response, or with a problem.
pub type Answer = Result<Response, Problem>;

/// One step on a request's way.
pub trait Middleware: Send + Sync + 'static {
    /// Takes the request; `next` is the rest of the way and may be used more than once.
    fn handle<N: Next>(
        &self,
        exchange: &Arc<Exchange>,
        request: Request,
        next: &N,
    ) -> impl Future<Output = Answer> + Send;
}

/// The rest of a request's way.
///
/// The whole way is one value that is borrowed while a request travels: no step allocates,
/// clones or locks anything to call the next.
pub trait Next: Send + Sync + 'static {
    /// Sends the request down and waits for the answer.
    fn run(
        &self,
        exchange: &Arc<Exchange>,
        request: Request,
    ) -> impl Future<Output = Answer> + Send;
}

/// The tower layer that puts `middleware` in front of the rest of the way.
pub fn around<M: Middleware>(middleware: M) -> Around<M> {
    Around(Arc::new(middleware))
}

/// See [`around`].
#[derive(Debug)]
pub struct Around<M>(Arc<M>);

/// A step and all that comes after it.
#[derive(Debug)]
pub struct Stage<M, N> {
    middleware: Arc<M>,
    next: N,
}

impl<M: Middleware, N: Next> Layer<N> for Around<M> {
    type Service = Stage<M, N>;

    fn layer(&self, next: N) -> Self::Service {
        Stage { middleware: Arc::clone(&self.0), next }
    }
}

impl<M: Middleware, N: Next> Next for Stage<M, N> {
    fn run(
        &self,
        exchange: &Arc<Exchange>,
        request: Request,
    ) -> impl Future<Output = Answer> + Send {
        self.middleware.handle(exchange, request, &self.next)
    }
}
