//! The control endpoint: counts, faults, and what was received.

use serde_json::{Value, json};

use super::{
    World,
    faults::{Fault, Faults},
    http::{Call, Reply},
};

/// Where it is; nothing of Amove's begins like this.
pub(super) const PREFIX: &str = "/_emulator/";

/// Answers a call of the control endpoint, if it is one.
pub(super) fn answer(world: &World, call: &Call<'_>) -> Option<Reply> {
    let action = call.path.strip_prefix(PREFIX)?;
    Some(match (call.method, action) {
        ("GET", "stats") => {
            let now = world.now();
            let stats = world.state().stats(now);
            pretty(&serde_json::to_value(stats).unwrap_or_default())
        }
        ("GET", "requests") => {
            let seen: Vec<_> = world.state().book.seen.iter().cloned().collect();
            pretty(&serde_json::to_value(seen).unwrap_or_default())
        }
        ("POST", "faults") => match faults(call.body) {
            Ok(faults) => {
                let count = faults.len();
                let mut state = world.state();
                faults.into_iter().for_each(|fault| state.inject(fault));
                pretty(&json!({ "ordered": count }))
            }
            Err(error) => Reply::text(400, format!("These are no faults: {error}.\n")),
        },
        ("DELETE", "faults") => {
            world.state().faults = Faults::default();
            Reply::empty(200)
        }
        ("POST", "revoke_sessions") => {
            world.state().inject(Fault::RevokeSessions);
            pretty(&json!({ "revoked": "all sessions" }))
        }
        _ => Reply::text(
            404,
            "There is GET stats, GET requests, POST faults, DELETE faults, POST revoke_sessions.\n",
        ),
    })
}

/// One fault, or a list of them.
pub(super) fn faults(text: &[u8]) -> serde_json::Result<Vec<Fault>> {
    match serde_json::from_slice(text)? {
        list @ Value::Array(_) => serde_json::from_value(list),
        one => Ok(vec![serde_json::from_value(one)?]),
    }
}

fn pretty(value: &Value) -> Reply {
    let mut reply = Reply::json(value);
    reply.body = format!("{value:#}\n").into();
    reply
}
