//! Cloud storage: accounts, buckets, objects, keys, drives.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::identity::until;
use crate::emulator::{
    answer::{self, Outcome, Refusal},
    api::done,
    clock::written,
    desk::Call,
    resources::{Row, masked, text},
    users::random,
};

pub(super) fn act(call: &Call<'_>) -> Option<Outcome> {
    Some(match call.route.name.as_str() {
        "cloudaccount/get_amove_storage" => live_keys(call),
        "cloudaccount/idrive_add_storage" => add_storage(call),
        "cloudaccount/idrive_delete_storage" => delete_storage(call),
        "cloudaccount/idrive_regions" => Ok(answer::json(&json!([
            {"name": "Frankfurt", "code": "FR"},
            {"name": "Dublin", "code": "DU"},
        ]))),
        "cloudaccount/idrive_get_daily_usage" => Ok(answer::json(&json!(12.305))),
        "cloudaccount/list_buckets" | "desktop/list_buckets" => list_buckets(call),
        "cloudaccount/list_objects" | "desktop/list_objects" => list_objects(call),
        "cloudaccount/idrive_create_bucket" | "storage/create_bucket" => create_bucket(call),
        "cloudaccount/idrive_delete_bucket" | "storage/delete_bucket" => delete_bucket(call),
        "storage/bucket_status" => bucket_status(call),
        "storage/update_bucket" => update_bucket(call),
        "storage/create_storage_key" => create_key(call),
        "desktop/refresh_token" => {
            let account = account(call, call.text("cloudAccountId"));
            account.map(|row| answer::json(&Value::Object(masked("cloudaccount", row))))
        }
        "desktop/create_folder" | "desktop/delete_object" | "desktop/send_download_url" => {
            account(call, call.text("cloudAccountId")).and_then(|_| done(call))
        }
        "desktop/generate_download_url" | "desktop/generate_upload_url" => signed_url(call),
        "desktop/billing_status" => Ok(answer::json(&subscription(call))),
        "desktop/active_subscriptions" => Ok(answer::json(&json!([subscription(call)]))),
        "sharedclouddrive/get_shared_cloud_drive" => drives(call),
        _ => return None,
    })
}

fn account(call: &Call<'_>, id: &str) -> Result<Row, Refusal> {
    let found = call.world.store.first("cloudaccount", |row| text(row, "id") == id);
    found.ok_or_else(|| Refusal::code("Global", "There is no cloud account with this id."))
}

/// Storage keys in clear, unless the bearer is an encrypted API token.
fn live_keys(call: &Call<'_>) -> Outcome {
    let internal = |row: &Row| row.get("internal").and_then(Value::as_bool).unwrap_or(false);
    let encrypted = call.holder()?.encrypted;
    let shown = |key: &str| match encrypted {
        true => BASE64_STANDARD.encode(blake3::hash(key.as_bytes()).as_bytes()),
        false => key.to_owned(),
    };
    let keys = call.world.store.all("cloudaccount", internal).into_iter().map(|row| {
        json!({
            "access_key": shown(text(&row, "accessKey")),
            "secret_key": shown(text(&row, "secretKey")),
            "service_url": text(&row, "serviceUrl"),
        })
    });
    Ok(answer::json(&keys.collect()))
}

fn add_storage(call: &Call<'_>) -> Outcome {
    let (region, tier) = (call.text("regionName"), call.body.get("storageTier"));
    let same = |row: &Row| text(row, "regionName") == region && row.get("storageTier") == tier;
    if call.world.store.first("cloudaccount", same).is_some() {
        return Err(Refusal::code("Global", "Storage exists already."));
    }
    let fields = json!({
        "name": format!("Amove {region}"), "cloudType": 8, "internal": true,
        "regionName": region, "storageTier": tier, "shared": call.body.get("shared"),
        "accessKey": format!("AK{}", random()), "secretKey": random(),
        "serviceUrl": "https://s3.storage.test",
    });
    let (owner, now) = (&call.holder()?.identity.user_id, written(call.world.now()));
    let row = call.world.store.insert("cloudaccount", &fields, (owner, &now))?;
    Ok(answer::json(&Value::Object(masked("cloudaccount", row))))
}

fn delete_storage(call: &Call<'_>) -> Outcome {
    let id = call.parameter("id").unwrap_or("");
    if account(call, id)?.get("internal") != Some(&true.into()) {
        return Err(Refusal::code("Global", "Only internal storage can be deleted."));
    }
    call.world.store.delete("cloudaccount", id, None)?;
    done(call)
}

/// A value from the body, or from the query of those that have no body.
fn given<'a>(call: &'a Call<'_>, name: &str) -> &'a str {
    call.parameter(name).unwrap_or_else(|| call.text(name))
}

fn bucket(call: &Call<'_>) -> Option<Row> {
    let (account, name) = (given(call, "cloudAccountId"), given(call, "bucketName"));
    call.world
        .store
        .first("bucket", |row| text(row, "cloudAccountId") == account && text(row, "name") == name)
}

fn existing_bucket(call: &Call<'_>) -> Result<Row, Refusal> {
    bucket(call).ok_or_else(|| Refusal::code("NOT_FOUND", "There is no such bucket."))
}

fn list_buckets(call: &Call<'_>) -> Outcome {
    let id = call.text("cloudAccountId");
    account(call, id)?;
    let buckets = call.world.store.all("bucket", |row| text(row, "cloudAccountId") == id);
    let shown = buckets.iter().map(|row| {
        json!({"name": text(row, "name"), "creationDate": text(row, "createDate"), "region": null})
    });
    Ok(answer::json(&shown.collect()))
}

/// Three objects in each bucket; the continuation token is the number of the next.
fn list_objects(call: &Call<'_>) -> Outcome {
    account(call, call.text("cloudAccountId"))?;
    let first: u64 = call.text("continuationToken").parse().unwrap_or(0);
    let count = call.body.get("count").and_then(Value::as_u64).unwrap_or(1000).clamp(1, 1000);
    let end = first.saturating_add(count).min(3);
    let object = |number| json!({"key": format!("reel-{number}.mov"), "size": 1024 * number});
    let next = (end < 3).then(|| end.to_string());
    Ok(answer::json(&json!({
        "objects": (first..end).map(object).collect::<Value>(),
        "continuationToken": next,
    })))
}

fn create_bucket(call: &Call<'_>) -> Outcome {
    let name = given(call, "bucketName");
    account(call, given(call, "cloudAccountId"))?;
    if name.is_empty() {
        return Err(Refusal::code("DEFAULT", "A bucketName is required."));
    }
    if bucket(call).is_some() {
        return Err(Refusal::code("DUPLICATE", "The bucket exists."));
    }
    let mut fields = bucket_flags(call);
    fields["cloudAccountId"] = given(call, "cloudAccountId").into();
    fields["name"] = name.into();
    call.world.store.insert("bucket", &fields, ("", &written(call.world.now())))?;
    done(call)
}

fn update_bucket(call: &Call<'_>) -> Outcome {
    let row = existing_bucket(call)?;
    call.world.store.update("bucket", text(&row, "id"), &bucket_flags(call), None)?;
    done(call)
}

fn bucket_flags(call: &Call<'_>) -> Value {
    let mut flags = call.body.as_object().cloned().unwrap_or_default();
    flags.retain(|_, value| value.is_boolean());
    if let Some(encrypted) = flags.remove("isEncrypted") {
        flags.insert("encryptionEnabled".to_owned(), encrypted);
    }
    Value::Object(flags)
}

fn delete_bucket(call: &Call<'_>) -> Outcome {
    let row = existing_bucket(call)?;
    call.world.store.delete("bucket", text(&row, "id"), None)?;
    done(call)
}

fn bucket_status(call: &Call<'_>) -> Outcome {
    let row = existing_bucket(call)?;
    Ok(answer::json(&json!({
        "versioningEnabled": row.get("versioningEnabled"),
        "encryptionEnabled": row.get("encryptionEnabled"),
        "isPublic": row.get("isPublic"),
        "objectLockEnabled": row.get("objectLockEnabled"),
    })))
}

/// The one answer that shows the secret key.
fn create_key(call: &Call<'_>) -> Outcome {
    let owner = call.holder()?.identity.user_id.as_str();
    let fields = call.with([
        ("accessKey", format!("AK{}", random()).into()),
        ("secretKey", random().into()),
        ("userId", owner.into()),
    ])?;
    let now = written(call.world.now());
    let row = call.world.store.insert("storagekey", &fields, (owner, &now))?;
    Ok(answer::json(&Value::Object(row)))
}

fn signed_url(call: &Call<'_>) -> Outcome {
    account(call, call.text("cloudAccountId"))?;
    let hours = call.body.get("expireHours").and_then(Value::as_u64).unwrap_or(24);
    let (bucket, key) = (call.text("storageName"), call.text("key"));
    let signature = blake3::hash(format!("{bucket}/{key}").as_bytes()).to_hex();
    let url = format!(
        "https://{bucket}.storage.test/{key}?X-Sig={signature}&X-Until={}",
        until(call, hours)
    );
    Ok(call.world.string(&url))
}

fn subscription(call: &Call<'_>) -> Value {
    json!({
        "active": call.world.options.subscribed,
        "subscriptionType": call.world.subscription(),
        "billingEmail": "billing@corp.test",
    })
}

/// Every drive, with the credentials of its cloud account in clear.
fn drives(call: &Call<'_>) -> Outcome {
    let drives = call.world.store.all("sharedclouddrive", |_| true).into_iter().map(|mut drive| {
        let account = account(call, text(&drive, "cloudAccountId")).ok().map(Value::Object);
        drive.insert("cloudAccount".to_owned(), account.unwrap_or_default());
        Value::Object(drive)
    });
    Ok(answer::json(&drives.collect()))
}
