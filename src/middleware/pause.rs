//! Leaves the API alone while it asks for that.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{Answer, Middleware, Next};
use crate::{
    amove::host::Host,
    config::{self, LimitMode},
    exchange::Exchange,
    message::Request,
    pause::{Held, Pauses, Reason, Trial, Wish},
    problem::{Kind, Problem},
};

/// Holds requests back as long as the API does not want them: refuses them, or lets them wait.
#[derive(Clone, Debug)]
pub struct Pause {
    pauses: Arc<Pauses>,
    /// How long a request may wait; none waits if that is no time.
    patience: Duration,
}

impl Pause {
    /// Asks `pauses`, which outlive any one configuration.
    pub fn new(pauses: &Arc<Pauses>, config: &config::RateLimit) -> Self {
        let patience = match config.mode {
            LimitMode::Reject => Duration::ZERO,
            LimitMode::Wait(patience) => patience,
        };
        Self { pauses: Arc::clone(pauses), patience }
    }

    /// Lets a request of `identity` pass to `host`, at once or after a while.
    pub(super) async fn pass(&self, identity: usize, host: Host) -> Result<Option<Trial>, Problem> {
        if !self.pauses.any() {
            return Ok(None);
        }
        match self.pauses.check(identity, host, Instant::now()) {
            Ok(trial) => Ok(trial),
            // Seldom done, so it takes no room in the future of every request.
            Err(held) => Box::pin(self.wait(identity, host, held)).await,
        }
    }

    async fn wait(
        &self,
        identity: usize,
        host: Host,
        mut held: Held,
    ) -> Result<Option<Trial>, Problem> {
        let reason = held.reason;
        let end = Instant::now() + self.patience;
        let mut place = None;
        loop {
            if Instant::now() + held.left > end {
                break;
            }
            place = place.or_else(|| self.pauses.place());
            if place.is_none() {
                break;
            }
            sleep(held.left).await;
            // Others may have learnt meanwhile that it goes on.
            match self.pauses.check(identity, host, Instant::now()) {
                Ok(trial) => {
                    self.pauses.waited(host, reason);
                    return Ok(trial);
                }
                Err(longer) => held = longer,
            }
        }
        self.pauses.refused(host, held.reason);
        Err(refusal(held))
    }

    /// Takes note of what came back from `host`: what it asks for, or that there was an answer.
    pub(super) fn heard(
        &self,
        identity: usize,
        host: Host,
        wish: Option<Wish>,
        trial: Option<Trial>,
    ) {
        match (wish, trial) {
            (Some(wish), _) => {
                if self.pauses.ask(identity, host, wish, Instant::now()) {
                    let (host, reason, seconds) =
                        (host.name(), wish.reason.name(), wish.pause.as_secs());
                    tracing::warn!(host, reason, seconds, "Amove asks to be left alone");
                }
            }
            (None, Some(trial)) => self.pauses.lift(&trial),
            (None, None) => {}
        }
    }
}

impl Middleware for Pause {
    async fn handle<N: Next>(
        &self,
        exchange: &Arc<Exchange>,
        request: Request,
        next: &N,
    ) -> Answer {
        let (identity, host) = (exchange.caller()?.identity, exchange.destination()?.host());
        let trial = self.pass(identity, host).await?;

        let answer = next.run(exchange, request).await;

        // Where there was no answer, nothing was found out.
        let trial = trial.filter(|_| exchange.attempts().status.is_some());
        self.heard(identity, host, exchange.wish(), trial);
        answer
    }
}

fn refusal(held: Held) -> Problem {
    let (kind, detail) = match held.reason {
        Reason::Quota => (
            Kind::QuotaExceeded,
            "Amove has asked for fewer requests of the user whom you call as; this one did not \
             leave the gateway.",
        ),
        Reason::Unavailable => (
            Kind::UpstreamPaused,
            "Amove has asked to be left alone for now; the request did not leave the gateway.",
        ),
    };
    Problem::new(kind, detail).retry_after(held.left)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::{
        exchange::Destination,
        message::Response,
        middleware::testing::{api, called, request},
        problem::PSEUDONYM,
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn pause(mode: LimitMode) -> Pause {
        let patience = match mode {
            LimitMode::Reject => Duration::ZERO,
            LimitMode::Wait(patience) => patience,
        };
        Pause { pauses: Arc::default(), patience }
    }

    fn told(pause: &Pause, status: u16, seconds: u32) {
        let status = StatusCode::from_u16(status).unwrap();
        pause.heard(0, Host::Api, Wish::new(status, SECOND * seconds), None);
    }

    async fn call(pause: &Pause) -> Answer {
        let exchange = called();
        exchange.set_destination(Destination { route: None, legacy: false });
        pause.handle(&exchange, request(), &api(StatusCode::OK)).await
    }

    async fn refused(pause: &Pause) -> Response {
        let problem = call(pause).await.expect_err("a refusal");
        problem.into_response(&http::HeaderValue::from_static("id"))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_back_is_told_until_when() {
        for (status, error) in [(429, "http_request_denied"), (503, "destination_unavailable")] {
            let pause = pause(LimitMode::Reject);
            assert!(call(&pause).await.is_ok());
            told(&pause, status, 10);

            tokio::time::advance(Duration::from_millis(2500)).await;
            let refusal = refused(&pause).await;

            assert_eq!(refusal.status().as_u16(), status);
            assert_eq!(refusal.headers()["retry-after"], "8", "rounded up");
            assert_eq!(refusal.headers()["proxy-status"], format!("{PSEUDONYM}; error={error}"));
            tokio::time::advance(Duration::from_millis(7500)).await;
            assert!(call(&pause).await.is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_fits_into_the_patience_is_waited_for() {
        let pause = pause(LimitMode::Wait(3 * SECOND));
        told(&pause, 503, 3);
        let begin = Instant::now();

        assert!(call(&pause).await.is_ok());

        assert!(begin.elapsed() >= 3 * SECOND && begin.elapsed() < 4 * SECOND);
        assert_eq!(pause.pauses.waiting(), 0);
        assert!(pause.pauses.counts().any(|it| it.waited == 1));
        told(&pause, 503, 4);
        let begin = Instant::now();
        assert_eq!(refused(&pause).await.headers()["retry-after"], "4");
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_grows_is_waited_for_only_as_long_as_the_patience_lasts() {
        let pause = pause(LimitMode::Wait(3 * SECOND));
        told(&pause, 503, 2);
        let begin = Instant::now();

        let (answer, ()) = tokio::join!(call(&pause), async {
            sleep(SECOND).await;
            told(&pause, 503, 20);
        });

        assert_eq!(answer.unwrap_err().kind(), Kind::UpstreamPaused);
        let waited = begin.elapsed();
        assert!((2 * SECOND..3 * SECOND).contains(&waited), "{waited:?}");
        assert_eq!(pause.pauses.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn where_too_many_wait_the_next_is_refused_at_once() {
        let pause = pause(LimitMode::Wait(3 * SECOND));
        told(&pause, 429, 2);
        let places: Vec<_> = std::iter::from_fn(|| pause.pauses.place()).collect();
        let begin = Instant::now();

        let answer = call(&pause).await;

        assert_eq!(answer.unwrap_err().kind(), Kind::QuotaExceeded);
        assert_eq!((begin.elapsed(), places.len()), (Duration::ZERO, 1000));
    }
}
