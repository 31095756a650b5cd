//! Settings of which there is at most one.

use http::Method;
use serde_json::{Value, json};

use super::{
    answer::{self, Outcome, Refusal},
    clock::written,
    desk::Call,
    resources::{Row, text},
};

/// Sets up, shows, changes or removes the setting called `name`.
pub(super) fn act(call: &Call<'_>, name: &'static str) -> Outcome {
    let store = &call.world.store;
    let found = store.first("setting", |row| text(row, "setting") == name);
    let missing = || Refusal::code("NOT_FOUND", "It is not set up.");
    match call.route.method {
        Method::GET => Ok(answer::json(&found.map_or(Value::Null, shown))),
        Method::POST if found.is_some() => Err(Refusal::code("DUPLICATE", "It is set up already.")),
        Method::POST => {
            let now = written(call.world.now());
            let fields = json!({"setting": name, "content": call.body});
            Ok(answer::json(&shown(store.insert("setting", &fields, ("", &now))?)))
        }
        Method::PUT => {
            let id = found.as_ref().map(|row| text(row, "id")).ok_or_else(missing)?;
            if call.text("id") != id {
                return Err(missing());
            }
            let fields = json!({"content": call.body});
            Ok(answer::json(&shown(store.update("setting", id, &fields, None)?)))
        }
        _ => {
            let id = found.as_ref().map(|row| text(row, "id")).ok_or_else(missing)?;
            store.delete("setting", id, None)?;
            Ok(answer::empty())
        }
    }
}

fn shown(mut row: Row) -> Value {
    let mut content = row.remove("content").unwrap_or_default();
    if let Some(fields) = content.as_object_mut() {
        for name in ["id", "accountId"] {
            fields.insert(name.to_owned(), row.remove(name).unwrap_or_default());
        }
    }
    content
}
