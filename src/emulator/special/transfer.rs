//! Transfers and syncs.

use serde_json::{Value, json};

use super::identity::until;
use crate::emulator::{
    answer::{self, Outcome, Refusal},
    clock::written,
    desk::Call,
    paging::Page,
    resources::{Listing, Row, text},
};

const CANCELED: u64 = 8;
const ERROR: u64 = 16;

pub(super) fn act(call: &Call<'_>) -> Option<Outcome> {
    Some(match call.route.name.as_str() {
        "transfer/calculate_cost" => calculate_cost(),
        "transfer/cancel_transfer" => cancel(call),
        "transfer/retry_transfer" => retry(call),
        "transfer/download_failed_files" => report(call),
        "transferhistory/get_trends" => Ok(answer::json(&json!([{
            "date": written(call.world.now()), "transferCount": 4, "completedVolume": 7_340_032,
            "speedSum": 2000.5, "speedCount": 3, "completedCount": 3, "failedCount": 1,
            "canceledCount": 0,
        }]))),
        "sync/get_jobs" => jobs(call),
        "sync/get" => sync(call).map(|row| answer::json(&Value::Object(row))),
        "sync/delete" => delete_sync(call),
        _ => return None,
    })
}

/// A decimal that a float could not carry.
fn calculate_cost() -> Outcome {
    let mut reply = answer::text("1234567890.123456789012");
    answer::set(&mut reply, http::header::CONTENT_TYPE, "application/json; charset=utf-8");
    Ok(reply)
}

fn transfer(call: &Call<'_>) -> Result<(Row, u64), Refusal> {
    let id = call.text("id");
    let found = call.world.store.first("transfer", |row| text(row, "id") == id);
    let row = found.ok_or_else(|| Refusal::code("NOT_FOUND", "There is no such transfer."))?;
    let status = row.get("status").and_then(Value::as_u64).unwrap_or(0);
    Ok((row, status))
}

fn cancel(call: &Call<'_>) -> Outcome {
    let (row, status) = transfer(call)?;
    if ![1, 2, 128].contains(&status) {
        return Err(Refusal::code("TRANSFER", "The transfer is not running."));
    }
    let canceled = json!({"status": CANCELED});
    call.world.store.update("transfer", text(&row, "id"), &canceled, None)?;
    Ok(answer::empty())
}

/// A retry is a new job.
fn retry(call: &Call<'_>) -> Outcome {
    let (mut row, status) = transfer(call)?;
    if ![CANCELED, ERROR].contains(&status) {
        return Err(Refusal::code("TRANSFER", "The transfer did not fail."));
    }
    row.insert("status".to_owned(), 1.into());
    row.insert("requestDate".to_owned(), "".into());
    let (owner, now) = (&call.holder()?.identity.user_id, written(call.world.now()));
    call.world.store.insert("transfer", &Value::Object(row), (owner, &now))?;
    Ok(answer::empty())
}

fn report(call: &Call<'_>) -> Outcome {
    let (row, _) = transfer(call)?;
    let (id, until) = (text(&row, "id"), until(call, 1));
    let url = format!("https://reports.storage.test/{id}.csv?X-Sig=fake&X-Until={until}");
    Ok(call.world.string(&url))
}

fn sync(call: &Call<'_>) -> Result<Row, Refusal> {
    let id = call.parameter("id").unwrap_or("");
    let found = call.world.store.first("sync", |row| text(row, "id") == id);
    found.ok_or_else(|| Refusal::code("NOT_FOUND", "No sync with this id."))
}

fn jobs(call: &Call<'_>) -> Outcome {
    let page = Page::asked(&call.query, ("Info.CreateDate", true))?;
    let reader = &call.holder()?.identity;
    let listing = Listing { kind: "sync", details: false, reader, filters: &call.query };
    let (rows, total) = call.world.store.list(&listing, &page);
    let jobs =
        rows.into_iter().map(|info| json!({"info": info, "lastCycle": null, "lastError": null}));
    let jobs: Value = jobs.collect();
    Ok(answer::json(&json!({"data": jobs, "total": total, "options": page.options()})))
}

/// Says whether there was one.
fn delete_sync(call: &Call<'_>) -> Outcome {
    let found = sync(call).ok();
    if let Some(row) = &found {
        call.world.store.delete("sync", text(row, "id"), None)?;
    }
    Ok(answer::json(&found.is_some().into()))
}
