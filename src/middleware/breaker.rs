//! Leaves a failing API alone.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Answer, Middleware, Next};
use crate::{
    amove::host::Host,
    circuit::{Circuits, Pass, Refused},
    exchange::Exchange,
    message::Request,
    problem::{Kind, Problem},
};

/// Asks the circuit before, and tells it after. Logins do neither: they are few, and have a
/// back-off of their own that knows more than this one; a session must be there by the time the
/// circuit closes.
#[derive(Clone, Debug)]
pub struct Breaker {
    circuits: Arc<Circuits>,
}

/// What an attempt says about the host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sign {
    /// It answers.
    Well,
    /// It is silent, or says itself that it failed.
    Failing,
    /// Nothing: the request did not get that far.
    None,
}

impl Breaker {
    /// Asks `circuits`, which outlive any one configuration.
    pub fn new(circuits: &Arc<Circuits>) -> Self {
        Self { circuits: Arc::clone(circuits) }
    }

    /// Lets a request pass to `host`, if that is well.
    pub(super) fn pass(&self, host: Host) -> Result<Pass<'_>, Problem> {
        self.circuits.to(host).pass(Instant::now).map_err(refusal)
    }
}

/// Takes note of what came of a request to `host`.
pub(super) fn heard(host: Host, pass: Pass<'_>, sign: Sign) {
    match sign {
        Sign::Well => {
            if pass.succeeded() {
                tracing::info!(host = host.name(), "circuit closed");
            }
        }
        Sign::Failing => {
            if let Some(pause) = pass.failed(Instant::now()) {
                let seconds = pause.as_secs_f64();
                tracing::warn!(host = host.name(), seconds, "circuit opened: Amove keeps failing");
            }
        }
        Sign::None => drop(pass),
    }
}

impl Middleware for Breaker {
    async fn handle<N: Next>(
        &self,
        exchange: &Arc<Exchange>,
        request: Request,
        next: &N,
    ) -> Answer {
        let host = exchange.destination()?.host();
        let pass = self.pass(host)?;

        let answer = next.run(exchange, request).await;

        heard(host, pass, sign(&answer));
        answer
    }
}

/// Errors of the API's own, and whatever is the request's fault, are answers.
fn sign(answer: &Answer) -> Sign {
    match answer {
        Ok(response) if response.status().is_server_error() => Sign::Failing,
        Ok(_) => Sign::Well,
        Err(problem) => match problem.kind() {
            Kind::UpstreamFailure | Kind::UpstreamUnreachable | Kind::UpstreamTimeout => {
                Sign::Failing
            }
            Kind::UpstreamError => Sign::Well,
            _ => Sign::None,
        },
    }
}

fn refusal(refused: Refused) -> Problem {
    let detail = "Amove has failed to answer so often that it is left alone for now; the request did \
        not leave the gateway.";
    Problem::new(Kind::CircuitOpen, detail).retry_after(refused.left)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::message::{Body, Response};

    fn of(status: u16) -> Sign {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        sign(&Ok(response))
    }

    #[test]
    fn silence_and_5xx_count_and_whatever_else_is_an_answer() {
        for status in [500, 502, 503, 504, 599] {
            assert_eq!(of(status), Sign::Failing, "{status}");
        }
        for status in [200, 304, 400, 401, 404, 429, 499] {
            assert_eq!(of(status), Sign::Well, "{status}");
        }
        for (kind, expected) in [
            (Kind::UpstreamUnreachable, Sign::Failing),
            (Kind::UpstreamTimeout, Sign::Failing),
            (Kind::UpstreamFailure, Sign::Failing),
            (Kind::UpstreamError, Sign::Well),
            (Kind::Overloaded, Sign::None),
            (Kind::TooLarge, Sign::None),
            (Kind::Malformed, Sign::None),
            (Kind::RequestTimeout, Sign::None),
            (Kind::UpstreamMalformed, Sign::None),
        ] {
            assert_eq!(sign(&Err(Problem::new(kind, ""))), expected, "{kind:?}");
        }
    }
}
