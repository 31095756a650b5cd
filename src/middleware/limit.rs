//! Takes the request from its caller's quota.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};

use self::Part::{Number, Text};
use super::{Answer, Middleware, Next};
use crate::{
    config::{self, RateLimitHeaders},
    exchange::Exchange,
    limit::{Decision, Limiter, Scope, Standing},
    message::Request,
    problem::{Kind, Problem},
};

// Constants, because a name is looked at byte by byte where it is made.
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const QUOTA: HeaderName = HeaderName::from_static("ratelimit");
const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

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
        let (caller, route) = (exchange.caller()?, exchange.destination()?.route);
        let Some(permit) = self.limiter.enter(caller.index) else {
            self.limiter.refusals().too_many_under_way();
            return Err(too_many());
        };
        if let Some(permit) = permit {
            // It is under way until its answer has been sent.
            exchange.hold(permit);
        }
        match self.limiter.pass(caller.index, caller.identity, route).await {
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
                self.limiter.refusals().over(standing.scope);
                Err(refusal(self.style, &standing, retry_after))
            }
            Decision::Unreachable { retry_after } => Err(unreachable(retry_after)),
        }
    }
}

fn too_many() -> Problem {
    let detail = "You have as many requests under way as you may; let some of them end first.";
    Problem::new(Kind::QuotaExceeded, detail).retry_after(Duration::from_secs(1))
}

fn unreachable(retry_after: Duration) -> Problem {
    let detail = "The store of quotas cannot be reached, so nobody knows what is left of yours; try \
        again in a moment.";
    Problem::new(Kind::QuotaExceeded, detail).retry_after(retry_after)
}

fn refusal(style: RateLimitHeaders, standing: &Standing, retry_after: Duration) -> Problem {
    let detail = match standing.scope {
        Scope::Route => "The quota of this route is used up for now.",
        Scope::Identity => "The quota of the user whom you call as is used up for now.",
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
    let (burst, remaining) = (u64::from(burst), u64::from(remaining));
    let mut bytes = Vec::with_capacity(48);
    let mut named = |name, parts: &[Part<'_>]| Some((name, value(parts, &mut bytes)?));
    let fields = match style {
        RateLimitHeaders::Ietf => [
            named(
                POLICY,
                &[
                    Text("\""),
                    Text(name),
                    Text("\";q="),
                    Number(burst),
                    Text(";w="),
                    Number(window),
                ],
            ),
            named(
                QUOTA,
                &[
                    Text("\""),
                    Text(name),
                    Text("\";r="),
                    Number(remaining),
                    Text(";t="),
                    Number(next),
                ],
            ),
            None,
        ],
        RateLimitHeaders::Legacy => [
            named(X_LIMIT, &[Number(burst)]),
            named(X_REMAINING, &[Number(remaining)]),
            named(X_RESET, &[Number(next)]),
        ],
        RateLimitHeaders::Off => [None, None, None],
    };
    fields.into_iter().flatten()
}

/// A part of a field's value.
enum Part<'a> {
    Text(&'a str),
    Number(u64),
}

/// The parts as one value, put together in `bytes`. Every granted answer has two of them, so nothing
/// is formatted at length.
fn value(parts: &[Part<'_>], bytes: &mut Vec<u8>) -> Option<HeaderValue> {
    bytes.clear();
    for part in parts {
        match part {
            Text(text) => bytes.extend_from_slice(text.as_bytes()),
            Number(number) => {
                bytes.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes());
            }
        }
    }
    HeaderValue::from_bytes(bytes).ok()
}

/// Whole seconds, rounded up, so that nobody comes back too early.
fn seconds(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};
    use tokio::runtime::Handle;

    use super::*;
    use crate::{
        config::load::load_str,
        exchange::Destination,
        middleware::testing::{api, called, request},
    };

    /// The header fields of the first answer and of the second, which is over the quota.
    async fn answers(style: &str) -> (HeaderMap, HeaderMap) {
        let text = format!(
            "[identities.main]\napi_token = \"t\"\n[callers.local]\nrate = \"1/m\"\n\
             [rate_limit]\nheaders = \"{style}\"\n"
        );
        let config = load_str(&text, &[]).unwrap().config;
        let limit = Limiter::new(&config, Handle::current()).unwrap();
        let limit = Limit::new(&Arc::new(limit), &config.rate_limit);
        let api = api(StatusCode::OK);

        let exchange = || {
            let exchange = called();
            exchange.set_destination(Destination { route: None, legacy: false });
            exchange
        };
        let first = limit.handle(&exchange(), request(), &api).await.unwrap();
        let second = limit.handle(&exchange(), request(), &api).await.unwrap_err();

        assert_eq!(second.kind(), Kind::QuotaExceeded);
        let second = second.into_response(&HeaderValue::from_static("id"));
        (first.headers().clone(), second.headers().clone())
    }

    #[tokio::test]
    async fn a_caller_reads_how_its_quota_stands() {
        let (first, second) = answers("ietf").await;

        assert_eq!(first["ratelimit-policy"], r#""caller";q=1;w=60"#);
        assert_eq!(first["ratelimit"], r#""caller";r=0;t=60"#);
        assert_eq!(second["ratelimit"], r#""caller";r=0;t=60"#);
        assert_eq!(second["retry-after"], "60");
    }

    #[tokio::test]
    async fn the_fields_of_old_or_none_are_a_matter_of_configuration() {
        let (legacy, _) = answers("legacy").await;
        let (off, refused) = answers("off").await;

        assert_eq!(legacy["x-ratelimit-limit"], "1");
        assert_eq!(legacy["x-ratelimit-remaining"], "0");
        assert!(!legacy.contains_key("ratelimit") && off.is_empty());
        assert_eq!(refused["retry-after"], "60");
    }
}
