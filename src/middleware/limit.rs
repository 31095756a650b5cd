//! Takes the request from its caller's quota.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};

use super::{Answer, Middleware, Next};
use crate::{
    config::{self, RateLimitHeaders},
    exchange::Exchange,
    limit::{Decision, Limiter, Scope, Standing},
    message::Request,
    problem::{Kind, Problem},
};

/// Lets a request pass while its caller's quota lasts.
#[derive(Debug)]
pub struct Limit {
    limiter: Arc<Limiter>,
    style: RateLimitHeaders,
}

impl Limit {
    /// Asks `limiter`, which outlives any one configuration.
    pub fn new(limiter: &Arc<Limiter>, config: &config::RateLimit) -> Self {
        Self { limiter: Arc::clone(limiter), style: config.headers }
    }
}

impl Middleware for Limit {
    async fn handle<N: Next>(
        &self,
        exchange: &Arc<Exchange>,
        request: Request,
        next: &N,
    ) -> Answer {
        match self.limiter.take(exchange.caller()?) {
            Decision::Unlimited => next.run(exchange, request).await,
            Decision::Granted(standing) => {
                let mut answer = next.run(exchange, request).await;
                for (name, value) in fields(self.style, &standing) {
                    match &mut answer {
                        Ok(response) => drop(response.headers_mut().insert(name, value)),
                        Err(problem) => problem.add_header(name, value),
                    }
                }
                answer
            }
            Decision::Refused { standing, retry_after } => {
                Err(refusal(self.style, &standing, retry_after))
            }
        }
    }
}

fn refusal(style: RateLimitHeaders, standing: &Standing, retry_after: Duration) -> Problem {
    let detail = match standing.scope {
        Scope::Caller => "Your quota is used up for now.",
        Scope::Global => "The gateway's quota for all callers is used up for now.",
    };
    let mut problem = Problem::new(Kind::QuotaExceeded, detail).retry_after(retry_after);
    for (name, value) in fields(style, standing) {
        problem.add_header(name, value);
    }
    problem
}

/// The header fields that tell a caller how its quota stands: of draft-ietf-httpapi-ratelimit-headers-11,
/// or those that were usual before.
fn fields(
    style: RateLimitHeaders,
    standing: &Standing,
) -> impl Iterator<Item = (HeaderName, HeaderValue)> + use<> {
    let Standing { scope, burst, window, remaining, next } = *standing;
    let (name, window, next) = (scope.name(), seconds(window), seconds(next));
    let named = |name, value: String| {
        HeaderValue::try_from(value).ok().map(|value| (HeaderName::from_static(name), value))
    };
    let fields = match style {
        RateLimitHeaders::Ietf => [
            named("ratelimit-policy", format!("\"{name}\";q={burst};w={window}")),
            named("ratelimit", format!("\"{name}\";r={remaining};t={next}")),
            None,
        ],
        RateLimitHeaders::Legacy => [
            named("x-ratelimit-limit", burst.to_string()),
            named("x-ratelimit-remaining", remaining.to_string()),
            named("x-ratelimit-reset", next.to_string()),
        ],
        RateLimitHeaders::Off => [None, None, None],
    };
    fields.into_iter().flatten()
}

/// Whole seconds, rounded up, so that nobody comes back too early.
fn seconds(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}
