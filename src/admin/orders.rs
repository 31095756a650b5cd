//! Orders of operators: replace a token now, end its session, or read the configuration again.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, StatusCode};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    Refused, Status, Trigger,
    reply::{self, Refusal},
};
use crate::{
    exchange::REQUEST_ID,
    message::Response,
    problem::{Kind, Problem},
    session::{self, Sessions},
};

/// A login takes up to 30 s, and as long again if it has to wait for the next TOTP code.
const PATIENCE: Duration = Duration::from_secs(90);

/// What can be ordered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Order {
    /// Replace the token.
    Refresh,
    /// End the session, and open another.
    Revoke,
}

/// Passes orders on.
#[derive(Debug)]
pub(super) struct Orders {
    status: Arc<Status>,
    stop: CancellationToken,
}

/// The identity that an order is about.
struct Identity {
    sessions: Arc<Sessions>,
    index: usize,
    name: Arc<str>,
}

impl Orders {
    /// Orders to the gateway whose `status` it is; those under way are left when `stop` is cancelled.
    pub(super) fn new(status: Arc<Status>, stop: CancellationToken) -> Self {
        Self { status, stop }
    }

    /// Has the configuration read again, and tells what came of it.
    pub(super) async fn reload(&self) -> Result<Response, Refusal> {
        let Some(reloads) = &self.status.reloads else {
            let sentence = "There is no configuration to read again: the gateway brings its own.";
            return Err(Refusal::new(StatusCode::CONFLICT, sentence));
        };
        let busy = || {
            let sentence = "Others have just asked for the same; look at /-/status.json.";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, sentence)
        };
        let outcome = reloads.ask(Trigger::Operator).ok_or_else(busy)?;
        match timeout(PATIENCE, outcome).await {
            Ok(Ok(Ok(applied))) => Ok(reply::json(StatusCode::OK, &applied)),
            Ok(Ok(Err(refused))) => Ok(refusal(&refused)),
            Ok(Err(_)) => Ok(refusal(&Refused::Ending)),
            Err(_) => {
                let sentence = "The files take their time; look at /-/status.json.";
                Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, sentence))
            }
        }
    }

    /// Carries `order` out for the identity that `query` names, and tells how that stands then.
    pub(super) async fn carry_out(&self, order: Order, query: &str) -> Result<Response, Refusal> {
        let identity = self.identity(query)?;
        let Ok(outcome) = timeout(PATIENCE, self.given(order, &identity)).await else {
            let detail = "The login takes its time, and goes on; look at /-/status.json.";
            return Ok(told(Problem::new(Kind::UpstreamTimeout, detail), &identity));
        };
        match outcome {
            Ok(()) => {
                info!(identity = %identity.name, ?order, "operator's order carried out");
                let status = identity.sessions.status().into_iter().nth(identity.index);
                Ok(reply::json(StatusCode::OK, &status))
            }
            Err(session::Error::ApiToken { .. }) if order == Order::Revoke => {
                Err(not_ours(&identity))
            }
            Err(error) => Ok(told(error.into(), &identity)),
        }
    }

    /// Gives `order` in a task of its own: whoever gave it may leave, and it is carried out.
    async fn given(&self, order: Order, identity: &Identity) -> Result<(), session::Error> {
        let (sessions, stop) = (Arc::clone(&identity.sessions), self.stop.clone());
        let index = identity.index;
        let work = async move {
            match order {
                Order::Refresh => sessions.refresh(index).await.map(drop),
                Order::Revoke => sessions.revoke(index).await,
            }
        };
        let task = tokio::spawn(async move { stop.run_until_cancelled(work).await });
        let broken_off = || session::Error::BrokenOff { identity: Arc::clone(&identity.name) };
        task.await.ok().flatten().unwrap_or_else(|| Err(broken_off()))
    }

    /// The identity that `query` names; without one, the default.
    fn identity(&self, query: &str) -> Result<Identity, Refusal> {
        let mut wanted = None;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if name != "identity" || wanted.is_some() {
                let sentence = "An order takes one parameter: identity=NAME.";
                return Err(Refusal::new(StatusCode::BAD_REQUEST, sentence));
            }
            wanted = Some(value);
        }
        let sessions = Arc::clone(&self.status.shared.load().sessions);
        let known: Vec<_> = sessions.status().into_iter().map(|status| status.name).collect();
        let index = match &wanted {
            Some(wanted) => known.iter().position(|name| name == wanted),
            None => Some(0),
        };
        let found = index.and_then(|index| Some((index, known.get(index)?)));
        let found = found.map(|(index, name)| Identity {
            sessions: Arc::clone(&sessions),
            index,
            name: name.as_str().into(),
        });
        found.ok_or_else(|| {
            let known = known.join(", ");
            let sentence = format!("There is no such identity; there are: {known}.");
            Refusal::new(StatusCode::NOT_FOUND, sentence)
        })
    }
}

fn not_ours(identity: &Identity) -> Refusal {
    let sentence = format!(
        "The identity {} uses an API token: its session is not the gateway's to end. Revoke the \
         token at Amove, and configure another.",
        identity.name
    );
    Refusal::new(StatusCode::CONFLICT, sentence)
}

/// Tells why a configuration did not come into force; it is in the log already.
fn refusal(refused: &Refused) -> Response {
    let detail = "The former configuration stays in force: the new one cannot be used.";
    let problem = Problem::new(Kind::ConfigurationRefused, detail);
    let problem = match refused {
        Refused::Invalid(report) => {
            problem.member("errors", report.len()).member("report", report.to_string())
        }
        Refused::Unusable(_) | Refused::Ending => problem.with_status(StatusCode::CONFLICT),
    };
    answer(problem.member("reason", refused.first_line()), &Uuid::now_v7().to_string())
}

/// Tells the problem, with its causes: an operator can do something about them.
fn told(problem: Problem, identity: &Identity) -> Response {
    let id = Uuid::now_v7().to_string();
    let (kind, reason) = (problem.kind().name(), problem.causes());
    warn!(id, identity = %identity.name, kind, reason, "operator's order failed");
    let problem = problem.member("identity", &*identity.name);
    let problem = if reason.is_empty() { problem } else { problem.member("reason", reason) };
    answer(problem, &id)
}

fn answer(problem: Problem, id: &str) -> Response {
    // Digits, letters and dashes.
    let id = HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("-"));
    let mut response = problem.into_response(&id);
    response.headers_mut().insert(REQUEST_ID, id);
    response
}
