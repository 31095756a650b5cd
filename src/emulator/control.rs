//! The control endpoint: what has happened, and what is to go wrong.

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{
    answer::{self, Reply},
    faults,
    world::World,
};

/// Where the control endpoint lives, on the main host.
pub(super) const PREFIX: &str = "/_emulator/";

const MAX_BODY: usize = 1024 * 1024;

/// Answers whoever controls the emulator.
pub(super) async fn answer(world: &World, request: Request<Incoming>) -> Reply {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    match (&method, path.strip_prefix(PREFIX).unwrap_or("")) {
        (&Method::GET, "stats") => described(serde_json::to_value(world.stats())),
        (&Method::GET, "requests") => described(serde_json::to_value(world.memory.read())),
        (&Method::POST, "faults") => match ordered(world, request.into_body()).await {
            Ok(count) => answer::json(&json!({"ordered": count})),
            Err(message) => refused(StatusCode::BAD_REQUEST, &message),
        },
        (&Method::DELETE, "faults") => {
            world.clear_faults();
            answer::json(&json!({}))
        }
        (&Method::POST, "revoke_sessions") => {
            world.sessions.revoke();
            answer::json(&json!({}))
        }
        (_, other) => {
            let message = format!(
                "there is no {method} {PREFIX}{other}: expected GET stats, GET requests, \
                 POST faults, DELETE faults or POST revoke_sessions"
            );
            refused(StatusCode::NOT_FOUND, &message)
        }
    }
}

async fn ordered(world: &World, body: Incoming) -> Result<usize, String> {
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|error| error.to_string())?;
    let ordered = faults::parse(&String::from_utf8_lossy(&body.to_bytes()))?;
    let count = ordered.len();
    for fault in ordered {
        if !world.inject(fault) {
            return Err("there are too many faults: DELETE /_emulator/faults first".to_owned());
        }
    }
    Ok(count)
}

fn described(value: serde_json::Result<Value>) -> Reply {
    match value {
        Ok(value) => answer::json(&value),
        Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn refused(status: StatusCode, message: &str) -> Reply {
    answer::with_status(answer::json(&json!({"error": message})), status)
}
