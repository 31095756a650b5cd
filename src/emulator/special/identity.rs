//! Who one is: the user's own data, API tokens.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::emulator::{
    MAILED_TOKEN,
    answer::{self, Outcome, Refusal},
    clock::{seconds, written},
    desk::Call,
    resources::text,
    sessions::NewToken,
    users::random,
};

pub(super) fn act(call: &Call<'_>) -> Option<Outcome> {
    Some(match call.route.name.as_str() {
        "apitoken/get_all" => api_tokens(call),
        "apitoken/insert" => insert_api_token(call),
        "apitoken/delete" => delete_api_token(call),
        "user/userinfo" => userinfo(call),
        "user/update_user" => update_user(call),
        "user/update_subscription" => update_subscription(call),
        "user/reset_password" => reset_password(call),
        "user/generate_mfa_token" => generate_mfa_token(call),
        "user/set_mfa" => set_mfa(call),
        "user/package_inquiry" => Ok(answer::json(&json!({
            "users": {"total": 25, "used": 4, "remaining": 21},
            "connections": {"total": 10, "used": 2, "remaining": 8},
        }))),
        "user/resend_user_email" => resend(call),
        "user/delete_user" => delete_user(call),
        "usergroup/import_users" => import_users(call),
        "provision/create_user" => Ok(call.world.string(MAILED_TOKEN)),
        _ => return None,
    })
}

fn api_tokens(call: &Call<'_>) -> Outcome {
    let own = call.holder()?.identity.user_id.as_str();
    let tokens = call.world.store.all("apitoken", |row| text(row, "userId") == own);
    Ok(answer::json(&tokens.into_iter().map(Value::Object).collect()))
}

fn insert_api_token(call: &Call<'_>) -> Outcome {
    let (world, identity) = (call.world, &call.holder()?.identity);
    let encrypted = call.body.get("isEncrypted").and_then(Value::as_bool).unwrap_or(false);
    if encrypted && call.text("encryptionKey").is_empty() {
        return Err(Refusal::code("DEFAULT", "An encrypted token needs an encryptionKey."));
    }
    let wrong = || Refusal::code("DEFAULT", "The expirationDate has to be a time to come.");
    let expires: jiff::Timestamp = call.text("expirationDate").parse().map_err(|_| wrong())?;
    let expires = SystemTime::from(expires);
    if expires <= world.age() {
        return Err(wrong());
    }
    let new = NewToken { id: Uuid::now_v7().to_string(), expires, encrypted };
    let token = world.sessions.issue(world, identity, &new)?;
    let session = Uuid::now_v7().to_string();
    let fields = call.with([
        ("token", token.into()),
        ("sessionId", session.into()),
        ("userId", identity.user_id.as_str().into()),
    ])?;
    let now = written(world.now());
    let row = world.store.insert_as("apitoken", &new.id, &fields, (&identity.user_id, &now))?;
    Ok(answer::json(&Value::Object(row)))
}

fn delete_api_token(call: &Call<'_>) -> Outcome {
    let id = call.parameter("id").unwrap_or("");
    call.world.store.delete("apitoken", id, Some(&call.holder()?.identity))?;
    call.world.sessions.end_api_token(id);
    Ok(answer::empty())
}

fn userinfo(call: &Call<'_>) -> Outcome {
    let identity = &call.holder()?.identity;
    let row = call.world.store.first("user", |row| text(row, "id") == identity.user_id);
    let row = row.unwrap_or_default();
    Ok(answer::json(&json!({
        "userId": identity.user_id,
        "username": identity.username,
        "firstname": row.get("firstname"),
        "lastname": row.get("lastname"),
        "userType": identity.role,
        "mfa": identity.mfa,
        "migration": false,
        "owner": identity.owner,
        "accountId": identity.account_id,
        "accountName": call.world.account_name(),
        "subscriptionType": call.world.subscription(),
        "authProvider": 0,
    })))
}

fn update_user(call: &Call<'_>) -> Outcome {
    let identity = &call.holder()?.identity;
    let mut fields = json!({});
    for (given, kept) in [("firstName", "firstname"), ("lastName", "lastname")] {
        if let Some(name) = call.body.get(given) {
            fields[kept] = name.clone();
        }
    }
    if !call.text("accountName").is_empty() {
        call.world.rename_account(call.text("accountName"));
    }
    call.world.store.update("user", &identity.user_id, &fields, None)?;
    userinfo(call)
}

fn update_subscription(call: &Call<'_>) -> Outcome {
    if !call.holder()?.identity.owner {
        let message = "Only the account owner may change the subscription.";
        return Err(Refusal::Plain(StatusCode::BAD_REQUEST, message));
    }
    match call.body.get("subscriptionType").and_then(Value::as_u64) {
        Some(subscription @ (1 | 2)) => call.world.subscribe(subscription),
        _ => return Err(Refusal::code("DEFAULT", "The subscriptionType is 1 or 2.")),
    }
    Ok(answer::empty())
}

fn reset_password(call: &Call<'_>) -> Outcome {
    let (index, current) = (call.holder()?.identity.index, call.text("currentPassword"));
    let password = call.text("password");
    call.world.sessions.with_user(index, |user| user.change_password(Some(current), password))?;
    Ok(answer::empty())
}

fn generate_mfa_token(call: &Call<'_>) -> Outcome {
    let seed = blake3::hash(random().as_bytes());
    let secret = seed.as_bytes().get(..20).unwrap_or_default().to_vec();
    let secret = totp_rs::Secret::from(secret).to_base32();
    call.world.sessions.with_user(call.holder()?.identity.index, |user| {
        user.propose_secret(&secret);
        Ok(())
    })?;
    Ok(call.world.string(&secret))
}

fn set_mfa(call: &Call<'_>) -> Outcome {
    let enabled = call.body.get("enabled").and_then(Value::as_bool);
    let enabled = enabled.ok_or_else(|| Refusal::code("DEFAULT", "Is it to be enabled?"))?;
    let index = call.holder()?.identity.index;
    let (code, now) = (call.text("userCode"), seconds(call.world.now()));
    call.world.sessions.with_user(index, |user| user.set_mfa(enabled, code, now))?;
    Ok(answer::empty())
}

/// Sends the invitation of a user again who has not signed up yet.
fn resend(call: &Call<'_>) -> Outcome {
    let pending = call.world.store.first("user", |row| {
        text(row, "username") == call.text("username")
            && row.get("userStatus").and_then(Value::as_u64) == Some(4)
    });
    match pending {
        Some(_) => Ok(answer::empty()),
        None => Err(Refusal::Plain(StatusCode::BAD_REQUEST, "Nothing is pending.")),
    }
}

/// Nobody keeps a session who is no more, the caller included.
fn delete_user(call: &Call<'_>) -> Outcome {
    let id = call.parameter("id").unwrap_or("");
    call.world.store.delete("user", id, None)?;
    call.world.sessions.deactivate(id);
    Ok(answer::empty())
}

fn import_users(call: &Call<'_>) -> Outcome {
    if !call.world.options.subscribed {
        return Err(Refusal::Status(StatusCode::PAYMENT_REQUIRED));
    }
    let users = call.body.as_array();
    let users = users.ok_or_else(|| Refusal::code("DEFAULT", "An array is required."))?;
    let (owner, now) = (&call.holder()?.identity.user_id, written(call.world.now()));
    for user in users {
        let user = user.get("user").unwrap_or(user);
        call.world.store.insert("user", user, (owner, &now))?;
    }
    Ok(answer::empty())
}

/// How long a signed URL is good for.
pub(super) fn until(call: &Call<'_>, hours: u64) -> String {
    written(call.world.now() + Duration::from_secs(hours.min(24 * 365) * 3600))
}
