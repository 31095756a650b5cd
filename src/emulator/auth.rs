//! The auth host: login, second factor, logout.

use http::StatusCode;
use serde_json::{Value, json};

use super::{
    answer::{self, Outcome, Refusal, Reply},
    desk::Call,
    faults::Malformed,
    options::Unused,
    sessions::Login,
};

/// Answers a call to the auth host.
pub(super) fn act(call: &Call<'_>) -> Outcome {
    let world = call.world;
    match call.route.name.as_str() {
        "authentication/request_token" => Ok(world.string(&world.request_tokens.mint(world))),
        "authentication/login" => login(call).inspect_err(|_| world.stats.failed_logins.add(1)),
        "authentication/mfa_respond" => {
            respond(call).inspect_err(|_| world.stats.failed_logins.add(1))
        }
        "authentication/logout" => {
            if world.sessions.end(call.text("jwtToken")) {
                world.stats.logouts.add(1);
            }
            Ok(answer::empty())
        }
        "authentication/reset_password" => {
            if call.text("resetToken") != super::MAILED_TOKEN {
                return Err(Refusal::code("TOKEN", "The reset token is not valid."));
            }
            let password = call.text("password");
            world.sessions.with_user(0, |user| user.change_password(None, password))?;
            Ok(answer::empty())
        }
        // Whether the address exists is not revealed.
        "authentication/forgot_password" => Ok(answer::empty()),
        _ => Err(Refusal::Status(StatusCode::NOT_FOUND)),
    }
}

fn login(call: &Call<'_>) -> Outcome {
    let world = call.world;
    let credentials = (call.text("username"), call.text("password"));
    let role = call.body.get("type").and_then(Value::as_u64).unwrap_or(0);
    match world.sessions.login(world, credentials, role)? {
        Login::Done(jwt) => {
            world.stats.logins.add(1);
            Ok(outcome(call, 0, "jwtToken", &jwt))
        }
        Login::Totp(session) => Ok(outcome(call, 1, "session", &session)),
    }
}

fn respond(call: &Call<'_>) -> Outcome {
    let world = call.world;
    let jwt = world.sessions.respond(world, call.text("session"), call.text("userCode"))?;
    world.stats.mfa_responses.add(1);
    world.stats.logins.add(1);
    Ok(outcome(call, 0, "jwtToken", &jwt))
}

/// A login's answer with one of its two fields filled.
fn outcome(call: &Call<'_>, challenge: u8, filled: &str, value: &str) -> Reply {
    let other = if filled == "session" { "jwtToken" } else { "session" };
    let mut body = json!({"challenge": challenge, filled: value});
    match call.world.options.unused {
        Unused::Null => body[other] = Value::Null,
        Unused::Empty => body[other] = "".into(),
        Unused::Absent => {}
    }
    answer::json(&body)
}

/// What a login answers when it is malformed. A refused login stays as it is.
pub(super) fn malformed(kind: Malformed, reply: Reply) -> Reply {
    if reply.status() != StatusCode::OK {
        return reply;
    }
    match kind {
        Malformed::Empty => answer::empty(),
        Malformed::Html => {
            let mut reply = answer::text("<html><body>Welcome</body></html>");
            answer::set(&mut reply, http::header::CONTENT_TYPE, "text/html");
            reply
        }
        Malformed::HalfJson => {
            let mut reply = answer::text("{\"challenge\":0,\"jwtTok");
            answer::set(&mut reply, http::header::CONTENT_TYPE, "application/json");
            reply
        }
        Malformed::NoToken => answer::json(&json!({"challenge": 0, "jwtToken": null})),
        Malformed::NoSession => answer::json(&json!({"challenge": 1, "session": null})),
        Malformed::Sms => answer::json(&json!({"challenge": 2, "session": "c21zLWZha2U="})),
        Malformed::UnknownChallenge => answer::json(&json!({"challenge": 99})),
        Malformed::BadToken => {
            answer::json(&json!({"challenge": 0, "jwtToken": "two\r\nlines: of it"}))
        }
    }
}
