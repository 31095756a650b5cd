//! Signs the request in; replays it once after its token was denied.

use std::{sync::Arc, time::Duration};

use http::{Method, header};

use super::{Answer, Middleware, Next, request_token::Mint};
use crate::{
    amove::catalogue::{AuthKind, Route},
    audit::Replay,
    circuit::Circuits,
    config::{Config, RequestTokenRoutes},
    exchange::Exchange,
    message::{Body, Held, Request},
    pause::Pauses,
    problem::{Kind, Problem},
    session::{self, Sessions, Token},
    slots::Slots,
};

/// When to come back where nobody knows better.
const PAUSE: Duration = Duration::from_secs(5);

/// Puts our token where the API wants it. Holds no lock, no cache and no clock: those are the
/// sessions' business.
#[derive(Debug)]
pub struct InjectToken {
    sessions: Arc<Sessions>,
    mint: Mint,
    request_tokens: RequestTokenRoutes,
    /// How long a body may take that is held before it is sent.
    patience: Duration,
    /// Of each identity: the size up to which a body is kept for a replay.
    replay_buffers: Vec<usize>,
}

impl InjectToken {
    /// Signs in with `sessions`; asks for no request token during one of `pauses`, nor while one of
    /// `circuits` is open or all of `slots` are taken.
    pub fn new(
        sessions: &Arc<Sessions>,
        pauses: &Arc<Pauses>,
        circuits: &Arc<Circuits>,
        slots: &Slots,
        config: &Config,
    ) -> Self {
        Self {
            sessions: Arc::clone(sessions),
            mint: Mint::new(sessions, pauses, circuits, slots, &config.rate_limit),
            request_tokens: config.policy.request_token_routes,
            patience: config.upstream.response_timeout,
            replay_buffers: config.identities.iter().map(|it| it.replay_buffer).collect(),
        }
    }

    /// Sends `request` with a token, and once more with a newer one if the first was denied.
    async fn signed<N: Next>(
        &self,
        exchange: &Arc<Exchange>,
        mut request: Request,
        next: &N,
    ) -> Answer {
        let identity = exchange.caller()?.identity;
        let token = match self.sessions.current(identity) {
            Some(token) => token,
            None => Box::pin(self.sessions.token(identity)).await?,
        };
        let custom = Custom::of(exchange.destination()?.route, request.method());
        let spare = if custom.replayable {
            self.replica(identity, &mut request).await?
        } else {
            Err(Replay::Declined)
        };

        let answer = next.run(exchange, sign(request, &token)).await;
        if !(custom.judges_token && exchange.token_was_denied()) {
            return answer;
        }
        drop(answer);

        let again = match spare {
            Ok(again) => again,
            Err(reason) => {
                exchange.set_replay(reason);
                // The session is no better for it: the next request is to find a new one.
                let fresh = Box::pin(self.sessions.renew(identity, &token)).await?;
                // Whether it helps is not found out here.
                self.sessions.doubt(identity, &fresh);
                return Err(not_replayed(reason));
            }
        };
        let renewal = Box::pin(self.sessions.renew(identity, &token)).await;
        exchange.set_replay(if renewal.is_ok() { Replay::Done } else { Replay::Failed });
        let fresh = renewal?;
        tracing::debug!(id = ?exchange.id, "token was denied: replayed with a newer one");
        let answer = next.run(exchange, sign(again, &fresh)).await;
        if !exchange.token_was_denied() {
            return answer;
        }
        self.sessions.doubt(identity, &fresh);
        Err(rejected())
    }

    /// What a replay would send, byte-identical, or why there is none.
    async fn replica(
        &self,
        identity: usize,
        request: &mut Request,
    ) -> Result<Result<Request, Replay>, Problem> {
        let limit = self.replay_buffers.get(identity).copied().unwrap_or_default();
        let body = std::mem::take(request.body_mut());
        let (bytes, trailers) =
            match super::forward::in_time(self.patience, body.hold(limit)).await? {
                Held::Whole(bytes, trailers) => (bytes, trailers),
                Held::TooLong(body) => {
                    *request.body_mut() = body;
                    return Ok(Err(Replay::TooLarge));
                }
            };
        *request.body_mut() = Body::held(bytes, trailers);
        Ok(request.again().ok_or(Replay::Declined))
    }

    /// Sends `request` once, with a request token in its body: there is no second attempt with it.
    async fn with_request_token<N: Next>(
        &self,
        exchange: &Arc<Exchange>,
        request: Request,
        next: &N,
    ) -> Answer {
        if self.request_tokens == RequestTokenRoutes::Deny {
            let detail = "This route is for people who sign up; the gateway does not let it pass.";
            let rule = "policy.request_token_routes = \"deny\"";
            return Err(Problem::new(Kind::PolicyDenied, detail).member("rule", rule));
        }
        let request =
            self.mint.complete(exchange.caller()?.identity, request, self.patience).await?;
        next.run(exchange, request).await
    }
}

impl Middleware for InjectToken {
    async fn handle<N: Next>(
        &self,
        exchange: &Arc<Exchange>,
        request: Request,
        next: &N,
    ) -> Answer {
        match exchange.destination()?.route.map_or(AuthKind::Bearer, |route| route.auth) {
            AuthKind::Bearer => self.signed(exchange, request, next).await,
            AuthKind::RequestToken => {
                // Seldom done, so it takes no room in the future of every request.
                Box::pin(self.with_request_token(exchange, request, next)).await
            }
            AuthKind::None => next.run(exchange, request).await,
        }
    }
}

/// What the catalogue says about a denied token; the method alone says nothing.
struct Custom {
    /// Whether a denial is about our token at all.
    judges_token: bool,
    /// Whether the same request may be sent again with a new one.
    replayable: bool,
}

impl Custom {
    fn of(route: Option<&Route>, method: &Method) -> Self {
        match route {
            Some(route) => Self { judges_token: route.judges_token, replayable: route.replayable },
            // Nothing is known about it, so only what is safe by definition is sent twice.
            None => Self { judges_token: true, replayable: method.is_safe() },
        }
    }
}

fn sign(mut request: Request, token: &Token) -> Request {
    request.headers_mut().insert(header::AUTHORIZATION, token.bearer().clone());
    request
}

/// Not a 401: the caller is known, it is *our* login that failed.
fn rejected() -> Problem {
    Problem::new(Kind::UpstreamAuth, "Amove rejected the gateway's login, also after a new one.")
}

fn not_replayed(reason: Replay) -> Problem {
    let detail = match reason {
        Replay::TooLarge => {
            "The gateway's session had ended, and this request's body is too large to keep for a \
             repetition. A new session is there now."
        }
        Replay::Declined | Replay::Failed | Replay::Done => {
            "The gateway's session had ended, and this request is not repeated for you: it may \
             spend something that works once. A new session is there now."
        }
    };
    Problem::new(Kind::UpstreamAuth, detail).member("retryable", true)
}

impl From<session::Error> for Problem {
    fn from(error: session::Error) -> Self {
        use session::Error;
        let problem = match &error {
            Error::Refused { .. } | Error::ApiToken { .. } => Self::new(
                Kind::UpstreamAuth,
                "Amove refuses the gateway's credentials; its operators have to act.",
            ),
            Error::RequestToken { .. }
            | Error::SessionLimit { .. }
            | Error::Unavailable { .. }
            | Error::Credentials { .. }
            | Error::Denied { .. }
            | Error::Store { .. }
            | Error::NoRequestToken { .. }
            | Error::BrokenOff { .. } => Self::new(
                Kind::SessionUnavailable,
                "The gateway has no session with Amove at the moment; please try again.",
            )
            .retry_after(error.retry_after().unwrap_or(PAUSE)),
            Error::UnknownIdentity(_) => {
                Self::new(Kind::Internal, "The gateway has made a mistake.")
            }
        };
        problem.caused_by(error)
    }
}
