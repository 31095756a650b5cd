//! Asks the policy.

use std::sync::Arc;

use super::{Answer, Middleware, Next};
use crate::{
    amove::paths,
    exchange::Exchange,
    message::Request,
    policy::{Denial, Policy},
    problem::{Kind, Problem},
};

/// Lets pass what the policy lets this caller call.
#[derive(Debug)]
pub struct Authorise {
    policy: Arc<Policy>,
}

impl Authorise {
    /// Asks `policy`.
    pub fn new(policy: &Arc<Policy>) -> Self {
        Self { policy: Arc::clone(policy) }
    }
}

impl Middleware for Authorise {
    async fn handle<N: Next>(
        &self,
        exchange: &Arc<Exchange>,
        request: Request,
        next: &N,
    ) -> Answer {
        let caller = exchange.caller()?.index;
        let verdict = match exchange.destination()?.route {
            Some(route) => self.policy.check(caller, request.method(), route),
            // On the normalised copy, like everything that is decided about a path.
            None => match paths::read(request.uri().path()) {
                Ok(place) => self.policy.check_unknown(caller, request.method(), &place.key),
                Err(ambiguity) => {
                    let detail = format!("The path is ambiguous: {ambiguity}.");
                    return Err(Problem::new(Kind::Malformed, detail));
                }
            },
        };
        match verdict {
            Ok(()) => next.run(exchange, request).await,
            Err(denial) => Err(denied(exchange, &denial)),
        }
    }
}

/// The record and the log get the rule and its line, the caller the rule.
fn denied(exchange: &Exchange, denial: &Denial) -> Problem {
    exchange.set_rule(Arc::clone(&denial.rule));
    Problem::new(Kind::PolicyDenied, "The gateway's policy does not let you call this route.")
        .member("rule", &*denial.rule)
        .caused_by(denial.to_string())
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};

    use super::*;
    use crate::{
        amove::catalogue::{Catalogue, Lookup},
        config::load,
        exchange::Destination,
        middleware::testing::{api, called, request_for},
    };

    async fn ask(method: Method, path: &str) -> Answer {
        let text = "[identities.main]\napi_token = \"x\"\n[policy]\nunknown_routes = \"deny\"\n";
        let config = load::load_str(text, &[]).unwrap().config;
        let authorise = Authorise::new(&Arc::new(Policy::new(&config)));
        let exchange = called();
        let key = paths::read(path).unwrap().key;
        let route = match Catalogue::get().find(&method, &key) {
            Lookup::Found(route) => Some(route),
            _ => None,
        };
        exchange.set_destination(Destination { route, legacy: false });
        authorise.handle(&exchange, request_for(method, path), &api(StatusCode::OK)).await
    }

    #[tokio::test]
    async fn what_is_forbidden_goes_no_further() {
        assert!(ask(Method::GET, "/api/v1/user/userinfo").await.is_ok());
        for (method, path) in
            [(Method::POST, "/api/v1/user/reset_password"), (Method::GET, "/api/v1/news/get_all")]
        {
            let problem = ask(method, path).await.expect_err("a problem");
            assert_eq!(problem.kind(), Kind::PolicyDenied, "{path}");
        }
    }
}
