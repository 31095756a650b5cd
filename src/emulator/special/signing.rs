//! How one comes in without a bearer: sign-up, and single sign-on.

use http::StatusCode;
use serde_json::{Value, json};

use crate::emulator::{
    MAILED_TOKEN,
    answer::{self, Outcome, Refusal},
    clock::written,
    desk::Call,
    resources::text,
};

pub(super) fn act(call: &Call<'_>) -> Option<Outcome> {
    Some(match call.route.name.as_str() {
        "desktop/signup" => signup(call),
        "desktop/confirm_signup" if call.text("token") == MAILED_TOKEN => jwt(call),
        "desktop/confirm_signup" => Err(Refusal::Status(StatusCode::NOT_FOUND)),
        "desktop/resend_confirmation_email" => match pending(call, call.text("email")) {
            true => Ok(answer::empty()),
            false => Err(Refusal::Status(StatusCode::NOT_FOUND)),
        },
        "desktop/google_signup" => identified(call).map(|()| answer::empty()),
        "desktop/google_signin" => identified(call).and_then(|()| jwt(call)),
        "user/signupinfo" => signupinfo(call),
        "user/signup" => confirm(call),
        "sso/sso_url" | "sso/sso_url_import_user" => sso_url(call),
        "sso/authenticate" => match call.text("authorizationCode") {
            "" => Err(Refusal::code("AUTH", "The authorizationCode is missing.")),
            _ => jwt(call),
        },
        "sso/saml_acs" => saml(call),
        "sso/get_user_usergroups" => match call.parameter("authorizationCode") {
            None | Some("") => Err(Refusal::code("AUTH", "The authorizationCode is missing.")),
            Some(_) => Ok(answer::json(&json!([
                {"user": {"username": "ida@corp.test"}, "userGroups": [{"name": "Editors"}]}
            ]))),
        },
        _ => return None,
    })
}

fn jwt(call: &Call<'_>) -> Outcome {
    let jwt = call.world.sessions.open_first(call.world)?;
    Ok(call.world.string(&jwt))
}

fn identified(call: &Call<'_>) -> Result<(), Refusal> {
    match call.text("idToken") {
        "" => Err(Refusal::code("AUTH", "The idToken is missing.")),
        _ => Ok(()),
    }
}

fn signup(call: &Call<'_>) -> Outcome {
    let email = call.text("email");
    if !email.contains('@') {
        return Err(Refusal::code("INVALID_EMAIL", "The email is no e-mail address."));
    }
    let fields = json!({"username": email, "email": email, "firstname": call.text("name")});
    call.world.store.insert("user", &fields, ("", &written(call.world.now())))?;
    Ok(answer::empty())
}

fn pending(call: &Call<'_>, username: &str) -> bool {
    let waits = |row: &_| {
        let status = serde_json::Map::get(row, "userStatus").and_then(Value::as_u64);
        text(row, "username") == username && status == Some(4)
    };
    call.world.store.first("user", waits).is_some()
}

fn signupinfo(call: &Call<'_>) -> Outcome {
    if call.parameter("token") != Some(MAILED_TOKEN) {
        return Err(Refusal::code("TOKEN", "The signup token is not valid."));
    }
    Ok(answer::json(&json!({
        "username": "new@corp.test", "firstname": "", "lastname": "", "userStatus": 4,
    })))
}

fn confirm(call: &Call<'_>) -> Outcome {
    if call.text("token") != MAILED_TOKEN {
        return Err(Refusal::code("TOKEN", "The signup token is not valid."));
    }
    if call.text("password").is_empty() {
        return Err(Refusal::code("DEFAULT", "A password is required."));
    }
    Ok(answer::json(&json!({
        "username": "new@corp.test",
        "firstname": call.text("firstname"),
        "lastname": call.text("lastname"),
        "userStatus": 1,
    })))
}

fn sso_url(call: &Call<'_>) -> Outcome {
    if call.text("callbackUrl").is_empty() {
        return Err(Refusal::code("DEFAULT", "A callbackUrl is required."));
    }
    Ok(answer::json(&json!({"url": "https://idp.corp.test/authorize?fake=1", "provider": 4})))
}

/// Any assertion is good that says so.
fn saml(call: &Call<'_>) -> Outcome {
    if !call.text("SAMLResponse").starts_with("signed") {
        return Err(Refusal::Plain(StatusCode::BAD_REQUEST, "The signature is not valid."));
    }
    let jwt = call.world.sessions.open_first(call.world)?;
    Ok(answer::redirect(&format!("https://app.corp.test/sso?jwt={jwt}")))
}
