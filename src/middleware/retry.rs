//! Repeats what is safe to repeat.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{Answer, Middleware, Next};
use crate::{
    amove::{catalogue::Effect, host::Host},
    circuit::Circuits,
    config,
    exchange::Exchange,
    message::Request,
    pause::Pauses,
    problem::{Kind, Problem},
    retry::{self, Budget, Outcome, Retries},
    upstream,
};

/// Sends a request once more where nobody answered it: only a read, only if all of its body is in
/// memory, and only if nobody was there or somebody hung up.
///
/// Never repeated is what may have taken effect, whatever took all of its time, and what was
/// answered, be it with 502, 503 or 504: who answers that has too much to do already, and the caller
/// is told so.
#[derive(Debug)]
pub struct Retry {
    budget: Budget,
    retries: Arc<Retries>,
    pauses: Arc<Pauses>,
    circuits: Arc<Circuits>,
    /// What all attempts together may take: as long as a single one.
    response_timeout: Duration,
}

impl Retry {
    /// As often as `config` grants it, and not while `pauses` or `circuits` hold requests back.
    pub fn new(
        retries: &Arc<Retries>,
        pauses: &Arc<Pauses>,
        circuits: &Arc<Circuits>,
        config: &config::Upstream,
    ) -> Self {
        Self {
            budget: Budget::new(config.retry_budget),
            retries: Arc::clone(retries),
            pauses: Arc::clone(pauses),
            circuits: Arc::clone(circuits),
            response_timeout: config.response_timeout,
        }
    }

    /// What a repeat would send, if there may be one.
    fn spare(&self, exchange: &Exchange, request: &Request) -> Option<Request> {
        let route = exchange.destination().ok()?.route?;
        let is_safe = route.effect == Effect::Read && route.retryable;
        if !is_safe || !self.budget.deposit() {
            return None;
        }
        request.again()
    }

    /// Sends `spare` until it is answered, or there is no point in it.
    async fn again<N: Next>(
        &self,
        exchange: &Arc<Exchange>,
        spare: Request,
        mut problem: Problem,
        next: &N,
    ) -> Answer {
        let (identity, host) = (exchange.caller()?.identity, exchange.destination()?.host());
        let mut waited = Duration::ZERO;
        for repeat in 1..=retry::REPEATS {
            let pause = retry::pause(repeat, chance(exchange, repeat));
            waited += pause;
            let spent = exchange.attempts().duration + waited;
            let Some(left) = self.response_timeout.checked_sub(spent) else { break };
            if left.is_zero() || self.is_held_back(identity, host) {
                break;
            }
            if !self.budget.withdraw() {
                self.retries.add(Outcome::OverBudget);
                break;
            }
            sleep(pause).await;
            // Others may have learnt meanwhile that it is of no use.
            if self.is_held_back(identity, host) {
                break;
            }
            let Some(request) = spare.again() else { break };
            exchange.set_patience(left);
            tracing::debug!(id = ?exchange.id, repeat, "request was not answered: sent once more");

            match next.run(exchange, request).await {
                Err(again) if is_hang_up(&again) => {
                    self.retries.add(Outcome::InVain);
                    problem = again;
                }
                // It was not sent, but the one before was.
                Err(again) if matches!(again.kind(), Kind::CircuitOpen | Kind::Overloaded) => break,
                answer => {
                    let is_timeout =
                        answer.as_ref().is_err_and(|it| it.kind() == Kind::UpstreamTimeout);
                    let outcome = if is_timeout { Outcome::InVain } else { Outcome::Answered };
                    self.retries.add(outcome);
                    return answer;
                }
            }
        }
        Err(problem)
    }

    /// Whether the host wants to be left alone, or is.
    fn is_held_back(&self, identity: usize, host: Host) -> bool {
        if self.circuits.to(host).is_open() {
            return true;
        }
        let is_ours = |whose: Option<usize>| whose.is_none_or(|whose| whose == identity);
        self.pauses.any()
            && (self.pauses.in_force(Instant::now()).iter())
                .any(|pause| pause.host == host && is_ours(pause.identity))
    }
}

impl Middleware for Retry {
    async fn handle<N: Next>(
        &self,
        exchange: &Arc<Exchange>,
        request: Request,
        next: &N,
    ) -> Answer {
        let spare = self.spare(exchange, &request);

        match (next.run(exchange, request).await, spare) {
            // Seldom done, so it takes no room in the future of every request.
            (Err(problem), Some(spare)) if is_hang_up(&problem) => {
                Box::pin(self.again(exchange, spare, problem, next)).await
            }
            (answer, _) => answer,
        }
    }
}

fn is_hang_up(problem: &Problem) -> bool {
    problem.cause::<upstream::Error>().is_some_and(upstream::Error::is_hang_up)
}

/// A random share: the id of a record ends in random bits, other ones for each repeat.
fn chance(exchange: &Exchange, repeat: u32) -> f64 {
    let bytes = exchange.record_id.into_bytes();
    let byte = |at: usize| f64::from(bytes.get(at).copied().unwrap_or_default());
    let at = 15_usize.saturating_sub(2 * repeat as usize);
    (byte(at) * 256.0 + byte(at + 1)) / 65_535.0
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::atomic::{AtomicU32, Ordering::Relaxed},
    };

    use http::{Method, StatusCode};
    use http_body::Body as _;

    use super::*;
    use crate::{
        amove::catalogue::{Catalogue, Lookup},
        config::load::load_str,
        exchange::Destination,
        message::{Body, Response},
        middleware::testing::{answering, called, request_for},
        pause::Wish,
    };

    const LIST: &str = "desktop/list_objects";

    /// The layer, and what became of it.
    struct Scene {
        retry: Retry,
        exchange: Arc<Exchange>,
        sent: Arc<AtomicU32>,
    }

    impl Scene {
        fn new(settings: &str, method: &Method, key: &str) -> Self {
            let text = format!("[identities.main]\napi_token = \"t\"\n[upstream]\n{settings}\n");
            let config = load_str(&text, &[]).unwrap().config.upstream;
            let circuits = Arc::new(Circuits::new(&config));
            let retry = Retry::new(&Arc::default(), &Arc::default(), &circuits, &config);
            let Lookup::Found(route) = Catalogue::get().find(method, key) else {
                panic!("{key} is unknown")
            };
            let exchange = called();
            exchange.set_destination(Destination { route: Some(route), legacy: false });
            Self { retry, exchange, sent: Arc::default() }
        }

        fn list(settings: &str) -> Self {
            Self::new(settings, &Method::POST, LIST)
        }

        /// Sends a request whose first attempts fail like that.
        async fn call(
            &self,
            fails: u32,
            how: impl Fn() -> Problem + Send + Sync + 'static,
        ) -> Answer {
            let (sent, exchange) = (Arc::clone(&self.sent), Arc::clone(&self.exchange));
            let api = answering(move |request| {
                assert_eq!(request.body().size_hint().exact(), Some(4));
                assert_eq!(request.headers()["x-kept"], "1");
                let failed = sent.fetch_add(1, Relaxed) < fails;
                exchange.attempted(None, Duration::from_millis(400));
                if failed { Err(how()) } else { Ok(Response::new(Body::empty())) }
            });
            let mut request = request_for(Method::POST, "/api/v1/x");
            request.headers_mut().insert("x-kept", http::HeaderValue::from_static("1"));
            *request.body_mut() = bytes::Bytes::from_static(b"body").into();
            self.retry.handle(&self.exchange, request, &api).await
        }

        fn sent(&self) -> u32 {
            self.sent.load(Relaxed)
        }

        fn counted(&self) -> Vec<u64> {
            self.retry.retries.read().map(|(_, count)| count).collect()
        }
    }

    fn refused() -> Problem {
        let source = io::ErrorKind::ConnectionRefused.into();
        upstream::Error::Connect { host: "a.test".into(), source }.into()
    }

    fn certificate() -> Problem {
        let source = io::ErrorKind::InvalidData.into();
        upstream::Error::Connect { host: "a.test".into(), source }.into()
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_answered_is_sent_twice_more_with_its_body() {
        for (fails, sent, counted) in
            [(0, 1, [0, 0, 0]), (1, 2, [1, 0, 0]), (2, 3, [1, 1, 0]), (9, 3, [0, 2, 0])]
        {
            let scene = Scene::list("");
            let begin = Instant::now();

            let answer = scene.call(fails, refused).await;

            assert_eq!((answer.is_ok(), scene.sent()), (fails < 3, sent), "{fails}");
            assert_eq!(scene.counted(), counted, "{fails}");
            assert!(begin.elapsed() <= Duration::from_millis(310));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_attempts_together_have_the_time_of_one() {
        let scene = Scene::list("response_timeout = \"1s\"");
        let answer = scene.call(9, refused).await;

        assert!(answer.is_err() && scene.sent() <= 3);
        assert!(scene.exchange.patience().unwrap() <= Duration::from_millis(600));

        let scene = Scene::list("response_timeout = \"300ms\"");
        assert!(scene.call(1, refused).await.is_err());
        assert_eq!(scene.sent(), 1, "the first attempt has taken all of it");
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_take_effect_or_will_not_pass_is_not_repeated() {
        let once = async |scene: Scene, how: fn() -> Problem| {
            assert!(scene.call(1, how).await.is_err());
            assert_eq!(scene.sent(), 1);
        };
        once(Scene::new("", &Method::POST, "project/insert"), refused).await;
        once(Scene::new("", &Method::POST, "fastrsettings/insert"), refused).await;
        once(Scene::new("", &Method::GET, "sso/get_user_usergroups"), refused).await;
        once(Scene::list("retry_budget = 0"), refused).await;
        once(Scene::list(""), certificate).await;
        once(Scene::list(""), || Problem::new(Kind::UpstreamTimeout, "")).await;
        once(Scene::list(""), || Problem::new(Kind::UpstreamFailure, "")).await;
        once(Scene::list(""), || Problem::new(Kind::CircuitOpen, "")).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_wants_to_be_left_alone_is() {
        let paused = Scene::list("");
        let wish = Wish::new(StatusCode::SERVICE_UNAVAILABLE, Duration::from_secs(9)).unwrap();
        paused.retry.pauses.ask(0, Host::Api, wish, Instant::now());
        let other = Scene::list("");
        let wish = Wish::new(StatusCode::TOO_MANY_REQUESTS, Duration::from_secs(9)).unwrap();
        other.retry.pauses.ask(1, Host::Api, wish, Instant::now());
        let open = Scene::list("breaker_failures = 1");
        let _ =
            open.retry.circuits.to(Host::Api).pass(Instant::now).unwrap().failed(Instant::now());

        for (scene, sent) in [(paused, 1), (other, 2), (open, 1)] {
            assert_eq!(scene.call(1, refused).await.is_ok(), sent == 2);
            assert_eq!(scene.sent(), sent);
        }
    }
}
