//! What operators can ask for, and where.

use std::sync::Arc;

use http::{Method, Request, StatusCode, request::Parts};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

use super::{
    Scope, Status,
    audit::Search,
    guard::{self, Guard},
    metrics::Metrics,
    orders::{Order, Orders},
    reply::{self, Refusal},
};
use crate::message::Response;

/// Answers what comes in on one listener.
#[derive(Debug)]
pub(super) struct Desk {
    status: Arc<Status>,
    is_open: bool,
    guard: Guard,
    metrics: Metrics,
    orders: Orders,
    search: Search,
}

/// What there is to ask for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Page {
    View(View),
    Audit,
    Order(Order),
    Reload,
}

/// What can only be looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum View {
    Alive,
    Readiness,
    Metrics,
    Status,
    Config,
}

impl Page {
    fn at(path: &str) -> Option<Self> {
        Some(match path {
            "/livez" => Self::View(View::Alive),
            "/readyz" | "/healthz" => Self::View(View::Readiness),
            "/metrics" => Self::View(View::Metrics),
            "/-/status.json" => Self::View(View::Status),
            "/-/config" => Self::View(View::Config),
            "/-/audit" => Self::Audit,
            "/-/reload" => Self::Reload,
            "/-/token/refresh" => Self::Order(Order::Refresh),
            "/-/token/revoke" => Self::Order(Order::Revoke),
            _ => return None,
        })
    }

    /// Whether it is anybody's to know.
    fn is_health(self) -> bool {
        matches!(self, Self::View(View::Alive | View::Readiness))
    }
}

impl Desk {
    /// Shows as much of `status` as `scope` allows; orders under way are left when `stop` is
    /// cancelled.
    pub(super) fn new(
        status: Arc<Status>,
        scope: Scope,
        is_loopback: bool,
        stop: CancellationToken,
    ) -> Self {
        let (is_open, token) = match scope {
            Scope::Health => (false, None),
            Scope::All(token) => (true, token),
        };
        Self {
            is_open,
            guard: Guard { token, is_loopback },
            metrics: Metrics::of(&status),
            orders: Orders::new(Arc::clone(&status), stop),
            search: Search::new(&status.shared.load().trail, &status.shared.load().clock),
            status,
        }
    }

    /// Answers `request`.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response {
        let (head, body) = request.into_parts();
        let answered = match self.admit(&head) {
            Ok(Page::Order(order)) => self.carry_out(order, &head, body).await,
            Ok(Page::Reload) => self.reload(&head, body).await,
            Ok(Page::View(view)) => self.show(view, &head),
            Ok(Page::Audit) => self.search(&head).await,
            Err(refusal) => Err(refusal),
        };
        answered.unwrap_or_else(Response::from)
    }

    /// The page that is asked for, if it may be.
    fn admit(&self, head: &Parts) -> Result<Page, Refusal> {
        let page = Page::at(head.uri.path());
        if !page.is_some_and(Page::is_health) {
            self.guard.admit(head)?;
        }
        let is_here =
            |page: &Page| self.is_open || page.is_health() || *page == Page::View(View::Metrics);
        page.filter(is_here).ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, self.contents()))
    }

    async fn search(&self, head: &Parts) -> Result<Response, Refusal> {
        only_looked_at(head)?;
        self.search.answer(head.uri.query().unwrap_or_default()).await
    }

    fn show(&self, view: View, head: &Parts) -> Result<Response, Refusal> {
        only_looked_at(head)?;
        Ok(match view {
            View::Alive => reply::text(StatusCode::OK, "ok"),
            View::Readiness => self.readiness(head),
            View::Metrics => self.metrics.scrape(),
            View::Status => reply::json(StatusCode::OK, &self.status.report()),
            View::Config => return self.config(),
        })
    }

    fn readiness(&self, head: &Parts) -> Response {
        let report = self.status.report();
        let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let mut words = head.uri.query().unwrap_or_default().split('&');
        if words.any(|word| word == "verbose" || word.starts_with("verbose=")) {
            return reply::json(status, &report);
        }
        reply::text(status, report.reason.as_deref().unwrap_or("ok"))
    }

    fn config(&self) -> Result<Response, Refusal> {
        let Some(reloads) = &self.status.reloads else {
            let sentence = "The gateway brings its own configuration, and does not show it.";
            return Err(Refusal::new(StatusCode::NOT_FOUND, sentence));
        };
        let text = reloads.in_force().to_string();
        Ok(reply::new(StatusCode::OK, "application/toml", text))
    }

    async fn reload(&self, head: &Parts, body: Incoming) -> Result<Response, Refusal> {
        ordered(head, body).await?;
        self.orders.reload().await
    }

    async fn carry_out(
        &self,
        order: Order,
        head: &Parts,
        body: Incoming,
    ) -> Result<Response, Refusal> {
        ordered(head, body).await?;
        self.orders.carry_out(order, head.uri.query().unwrap_or_default()).await
    }

    fn contents(&self) -> &'static str {
        if self.is_open {
            "There is /livez, /readyz, /healthz, /metrics, /-/status.json, /-/config, /-/audit, and \
             to POST to /-/token/refresh, /-/token/revoke and /-/reload."
        } else {
            "There is /livez, /readyz, /healthz and /metrics."
        }
    }
}

/// Lets an order pass that comes from an operator.
async fn ordered(head: &Parts, body: Incoming) -> Result<(), Refusal> {
    if head.method != Method::POST {
        return Err(Refusal::method("POST"));
    }
    guard::admit_order(head)?;
    guard::discard(body).await
}

fn only_looked_at(head: &Parts) -> Result<(), Refusal> {
    if matches!(head.method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    Err(Refusal::method("GET, HEAD"))
}
