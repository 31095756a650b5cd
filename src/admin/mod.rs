//! The operators' edge: health, and the state of the gateway.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tower::{ServiceBuilder, service_fn};
use tower_http::{
    catch_panic::CatchPanicLayer, set_header::SetResponseHeaderLayer, timeout::TimeoutLayer,
};

use crate::{audit::Trail, session::Sessions};

/// Connections at once: operators and probes are few.
const CONNECTIONS: usize = 64;

/// No answer takes longer; nor may a request's head.
const PATIENCE: Duration = Duration::from_secs(10);

/// What operators may know.
#[derive(Debug)]
pub struct Status {
    /// What signs us in.
    pub sessions: Arc<Sessions>,
    /// What has happened.
    pub trail: Arc<Trail>,
    /// Cancelled when the gateway begins to drain.
    pub draining: CancellationToken,
    /// When the gateway started.
    pub started: Timestamp,
    /// Where callers reach it.
    pub listening: Vec<String>,
}

/// What a listener shows.
#[derive(Debug)]
pub enum Scope {
    /// Health only, to anybody.
    Health,
    /// Everything; what is not health wants the token, if there is one.
    All(Option<SecretString>),
}

/// Serves `scope` on `listener` until `stop` is cancelled.
pub async fn serve(
    listener: TcpListener,
    status: Arc<Status>,
    scope: Scope,
    stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let desk = Arc::new(Desk { status, scope });
    let mut connections = JoinSet::new();
    loop {
        // Finished connections are let go of while waiting for the next.
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let desk = Arc::clone(&desk);
        let service = ServiceBuilder::new()
            .layer(CatchPanicLayer::new())
            .layer(SetResponseHeaderLayer::overriding(
                header::CACHE_CONTROL,
                HeaderValue::from_static("no-store"),
            ))
            .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, PATIENCE))
            .service(service_fn(move |request| {
                let answer = desk.answer(&request);
                async move { Ok::<_, Infallible>(answer) }
            }));
        connections.spawn(async move {
            let _permit = permit;
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
            if let Err(error) = served.await {
                tracing::debug!(error = error.to_string(), "admin connection ended");
            }
        });
    }
}

struct Desk {
    status: Arc<Status>,
    scope: Scope,
}

impl Desk {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are answered here.\n");
        }
        let verbose = request.uri().query().is_some_and(|query| {
            query.split('&').any(|q| q == "verbose" || q.starts_with("verbose="))
        });
        match (request.uri().path(), &self.scope) {
            ("/livez", _) => text(StatusCode::OK, "ok\n"),
            ("/readyz" | "/healthz", _) => self.readiness(verbose),
            ("/-/status.json", Scope::All(token)) => match token {
                Some(token) if !shows(request, token) => unauthorized(),
                _ => json(StatusCode::OK, &self.status.describe()),
            },
            _ => text(
                StatusCode::NOT_FOUND,
                "There is /livez, /readyz, /healthz and /-/status.json.\n",
            ),
        }
    }

    fn readiness(&self, verbose: bool) -> Response<Full<Bytes>> {
        let readiness = self.status.readiness();
        let status =
            if readiness.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        if verbose {
            let mut description = self.status.describe();
            description["ready"] = readiness.is_ok().into();
            description["reason"] = readiness.err().into();
            return json(status, &description);
        }
        match readiness {
            Ok(()) => text(status, "ok\n"),
            Err(reason) => text(status, &format!("{reason}\n")),
        }
    }
}

impl Status {
    /// Whether a call would be served: one identity at least has a session.
    ///
    /// # Errors
    ///
    /// Why not, in a few words.
    pub fn readiness(&self) -> Result<(), &'static str> {
        if self.draining.is_cancelled() {
            return Err("draining");
        }
        let is_serving = self.sessions.status().iter().any(|identity| identity.serving);
        if is_serving { Ok(()) } else { Err("no session with Amove") }
    }

    fn describe(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "started": self.started,
            "listening": self.listening,
            "draining": self.draining.is_cancelled(),
            "identities": self.sessions.status(),
            "audit": { "lost": self.trail.lost() },
        })
    }
}

fn shows(request: &Request<Incoming>, token: &SecretString) -> bool {
    let presented = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let presented = presented.and_then(|value| value.strip_prefix(b"Bearer "));
    presented.is_some_and(|it| it.ct_eq(token.expose_secret().as_bytes()).into())
}

fn unauthorized() -> Response<Full<Bytes>> {
    let mut response =
        text(StatusCode::UNAUTHORIZED, "Send the token of `server.admin_token_file` as bearer.\n");
    let challenge = HeaderValue::from_static(r#"Bearer realm="amove-gateway admin""#);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    answer(status, "text/plain; charset=utf-8", text.to_owned().into())
}

fn json(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    answer(status, "application/json", format!("{value:#}\n").into())
}

fn answer(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
