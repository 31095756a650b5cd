//! Signs the request in; replays it once after its token was denied.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use secrecy::ExposeSecret;
use serde_json::{Map, Value};

use super::{Answer, Middleware, Next};
use crate::{
    amove::catalogue::{AuthKind, Route},
    config::{Config, RequestTokenRoutes},
    exchange::Exchange,
    message::{Body, Held, Request},
    problem::{Kind, Problem},
    session::{self, Sessions, Token},
};

/// A body into which a request token must be put is held in memory; it is a small form.
const FORM: usize = 64 * 1024;

/// When to come back where nobody knows better.
const PAUSE: Duration = Duration::from_secs(5);

/// Puts our token where the API wants it. Holds no lock, no cache and no clock: those are the
/// sessions' business.
#[derive(Debug)]
pub struct InjectToken {
    sessions: Arc<Sessions>,
    request_tokens: RequestTokenRoutes,
    /// Of each identity: the size up to which a body is kept for a replay.
    replay_buffers: Vec<usize>,
}

impl InjectToken {
    /// Signs in with `sessions`.
    pub fn new(sessions: &Arc<Sessions>, config: &Config) -> Self {
        Self {
            sessions: Arc::clone(sessions),
            request_tokens: config.policy.request_token_routes,
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
        let spare =
            if custom.replayable { self.replica(identity, &mut request).await? } else { None };

        let answer = next.run(exchange, sign(request, &token)).await;
        if !(custom.judges_token && exchange.token_was_denied()) {
            return answer;
        }
        drop(answer);

        let fresh = Box::pin(self.sessions.renew(identity, &token)).await?;
        let Some(again) = spare else { return Err(not_replayed()) };
        tracing::debug!(id = ?exchange.id, "token was denied: replayed with a newer one");
        let answer = next.run(exchange, sign(again, &fresh)).await;
        if exchange.token_was_denied() { Err(rejected()) } else { answer }
    }

    /// What a replay would send: byte-identical, or nothing if the body is too large to keep.
    async fn replica(
        &self,
        identity: usize,
        request: &mut Request,
    ) -> Result<Option<Request>, Problem> {
        let limit = self.replay_buffers.get(identity).copied().unwrap_or_default();
        let body = std::mem::take(request.body_mut());
        let (bytes, trailers) = match body.hold(limit).await.map_err(super::forward::body_broke_off)? {
            Held::Whole(bytes, trailers) => (bytes, trailers),
            Held::TooLong(body) => {
                *request.body_mut() = body;
                return Ok(None);
            }
        };
        *request.body_mut() = Body::held(bytes.clone(), trailers.clone());
        Ok(Some(copy(request, Body::held(bytes, trailers))))
    }

    /// Puts a fresh request token into the body of a route that wants one there.
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
        let (mut parts, body) = request.into_inner().into_parts();
        let Held::Whole(form, _) = body.hold(FORM).await.map_err(super::forward::body_broke_off)?
        else {
            return Err(super::admit::too_large(FORM as u64));
        };
        let mut form: Map<String, Value> = if form.is_empty() {
            Map::new()
        } else {
            serde_json::from_slice(&form).map_err(|_| {
                Problem::new(Kind::Malformed, "The body of this route must be a JSON object.")
            })?
        };
        let token = self.sessions.request_token().await?;
        form.insert("requestToken".to_owned(), token.expose_secret().into());
        // Strings, numbers and maps with string keys can always be written as JSON.
        let body = Bytes::from(serde_json::to_vec(&form).unwrap_or_default());
        parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        next.run(exchange, http::Request::from_parts(parts, body.into()).into()).await
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

fn copy(request: &Request, body: Body) -> Request {
    let mut copy = Request::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// Not a 401: the caller is known, it is *our* login that failed.
fn rejected() -> Problem {
    Problem::new(Kind::UpstreamAuth, "Amove rejected the gateway's login, also after a new one.")
}

fn not_replayed() -> Problem {
    Problem::new(
        Kind::UpstreamAuth,
        "The gateway's session had ended, and this request cannot be repeated for you: it spends \
         something that works once, or its body is too large to keep. A new session is there now.",
    )
    .member("retryable", true)
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
