//! Fastr: licences, and the settings of single users.

use http::StatusCode;
use serde_json::{Value, json};

use crate::emulator::{
    answer::{self, Outcome, Refusal},
    clock::written,
    desk::Call,
    resources::{Row, text},
    users::random,
};

/// The roles that may act for other users.
const ADMINS: &[u8] = &[1, 4, 16];

pub(super) fn act(call: &Call<'_>) -> Option<Outcome> {
    Some(match call.route.name.as_str() {
        "fastrlicense/generate" => generate(call),
        "fastrlicense/activate" => activate(call),
        "fastrlicense/validate" => validate(call),
        "fastrlicense/info/" => info(call),
        "fastrlicense/revoke/" => revoke(call),
        "fastrlicense/my-licenses" => my_licenses(call),
        "fastrsettings/get_all/" => settings_of(call),
        "fastrsettings/get_by_cloud_account/" => settings_by_account(call),
        "fastrsettings/insert" => own(call).and_then(|owner| upsert(call, &owner)),
        "fastrsettings/insert_for_user" => insert_for_user(call),
        "fastrsettings/update_for_user" => administer(call).and_then(|()| {
            let row = call.world.store.update("fastrsettings", id(call), &call.body, None)?;
            Ok(answer::json(&Value::Object(row)))
        }),
        "fastrsettings/delete_for_user" => administer(call).and_then(|()| {
            call.world.store.delete("fastrsettings", id(call), None)?;
            Ok(answer::empty())
        }),
        _ => return None,
    })
}

fn id<'a>(call: &'a Call<'_>) -> &'a str {
    call.parameter("id").unwrap_or_else(|| call.text("id"))
}

fn own(call: &Call<'_>) -> Result<String, Refusal> {
    Ok(call.holder()?.identity.user_id.clone())
}

fn administer(call: &Call<'_>) -> Result<(), Refusal> {
    match ADMINS.contains(&call.holder()?.identity.role) {
        true => Ok(()),
        false => Err(Refusal::Status(StatusCode::FORBIDDEN)),
    }
}

fn generate(call: &Call<'_>) -> Outcome {
    let owner = own(call)?;
    let key = format!("FAKE-{}", random().to_uppercase());
    let fields = call.with([("licenseKey", key.into()), ("userId", owner.as_str().into())])?;
    let now = written(call.world.now());
    let row = call.world.store.insert("license", &fields, (&owner, &now))?;
    Ok(answer::json(&Value::Object(row)))
}

fn licence(call: &Call<'_>, key: &str) -> Option<Row> {
    call.world.store.first("license", |row| text(row, "licenseKey") == key)
}

fn activate(call: &Call<'_>) -> Outcome {
    let refused = |error: &str| {
        let body = json!({"success": false, "error": error, "licenseKey": null});
        Err(Refusal::Json(StatusCode::BAD_REQUEST, body))
    };
    let machine = call.text("machineId");
    let Some(row) = licence(call, call.text("licenseKey")) else {
        return refused("There is no such licence.");
    };
    if !["", machine].contains(&text(&row, "machineId")) {
        return refused("Licence already bound to another machine.");
    }
    let bound = json!({"machineId": machine, "machineName": call.text("machineName"), "status": 1});
    call.world.store.update("license", text(&row, "id"), &bound, None)?;
    let key = text(&row, "licenseKey");
    Ok(answer::json(&json!({"success": true, "error": null, "licenseKey": key})))
}

fn validate(call: &Call<'_>) -> Outcome {
    let row = licence(call, call.text("licenseKey")).unwrap_or_default();
    let machine = call.text("machineId");
    let valid = !machine.is_empty() && text(&row, "machineId") == machine;
    Ok(answer::json(&json!({"isValid": valid, "expirationDate": null})))
}

fn info(call: &Call<'_>) -> Outcome {
    let row = licence(call, call.parameter.as_deref().unwrap_or(""));
    let row = row.ok_or(Refusal::Status(StatusCode::NOT_FOUND))?;
    let identity = &call.holder()?.identity;
    if text(&row, "userId") != identity.user_id && identity.role != 1 {
        return Err(Refusal::Status(StatusCode::FORBIDDEN));
    }
    Ok(answer::json(&Value::Object(row)))
}

fn revoke(call: &Call<'_>) -> Outcome {
    let unbound = json!({"machineId": null, "machineName": null, "status": 3});
    let id = call.parameter.as_deref().unwrap_or("");
    let identity = &call.holder()?.identity;
    call.world.store.update("license", id, &unbound, Some(identity))?;
    Ok(answer::json(&json!({"success": true, "error": null, "message": "Revoked."})))
}

fn my_licenses(call: &Call<'_>) -> Outcome {
    let own = own(call)?;
    let rows = call.world.store.all("license", |row| text(row, "userId") == own);
    Ok(answer::json(&rows.into_iter().map(Value::Object).collect()))
}

fn settings_of(call: &Call<'_>) -> Outcome {
    administer(call)?;
    let user = call.parameter.as_deref().unwrap_or("");
    let rows = call.world.store.all("fastrsettings", |row| text(row, "userId") == user);
    Ok(answer::json(&json!({"total": rows.len(), "data": rows})))
}

fn settings_by_account(call: &Call<'_>) -> Outcome {
    let (own, account) = (own(call)?, call.parameter.as_deref().unwrap_or(""));
    let found = call.world.store.first("fastrsettings", |row| {
        text(row, "userId") == own && text(row, "cloudAccountId") == account
    });
    let found = found.ok_or_else(|| Refusal::code("NOT_FOUND", "There are no settings."))?;
    Ok(answer::json(&Value::Object(found)))
}

fn insert_for_user(call: &Call<'_>) -> Outcome {
    administer(call)?;
    match call.text("userId") {
        "" => Err(Refusal::Plain(StatusCode::BAD_REQUEST, "The userId is required.")),
        user => upsert(call, user),
    }
}

/// There is one record for a user and a cloud account.
fn upsert(call: &Call<'_>, owner: &str) -> Outcome {
    let (store, account) = (&call.world.store, call.text("cloudAccountId"));
    let fields = call.with([("userId", owner.into())])?;
    let found = store.first("fastrsettings", |row| {
        text(row, "userId") == owner && text(row, "cloudAccountId") == account
    });
    let row = match found {
        Some(row) => store.update("fastrsettings", text(&row, "id"), &fields, None)?,
        None => store.insert("fastrsettings", &fields, (owner, &written(call.world.now())))?,
    };
    Ok(answer::json(&Value::Object(row)))
}
