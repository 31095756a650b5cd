//! What an account holds: small collections that can be listed, changed and sorted.

use std::collections::HashMap;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{USER_TYPE, USERNAME, http::Call};

pub(super) const USER_ID: &str = "5b1d0c52-7f0e-4c55-9a53-0e6f7d0a1101";
pub(super) const ACCOUNT_ID: &str = "5b1d0c52-7f0e-4c55-9a53-0e6f7d0a1102";

/// A collection holds no more.
const LIMIT: usize = 10_000;

/// All collections, by name.
pub(super) struct Data {
    collections: HashMap<&'static str, Vec<Map<String, Value>>>,
    /// Counts what was made, so that later things have later dates.
    made: u64,
}

impl Data {
    /// An account that was used a little.
    pub(super) fn new() -> Self {
        let mut data = Self { collections: HashMap::new(), made: 0 };
        for (name, text) in
            [("Rushes", "camera originals"), ("Dailies", ""), ("Archive 2025", "closed")]
        {
            data.insert("projects", &json!({ "name": name, "description": text, "active": true }));
        }
        for name in ["Editors", "Colour", "Sound"] {
            data.insert("usergroups", &json!({ "name": name, "description": "", "active": true }));
        }
        for (name, provider) in [("Cutting room", 1), ("Cold storage", 2)] {
            data.insert("cloudaccounts", &json!({ "name": name, "cloudType": provider, "accessKey": "AK***", "secretKey": "***", "shared": false }));
        }
        for name in ["Drive A", "Drive B"] {
            data.insert(
                "sharedclouddrives",
                &json!({ "name": name, "storageName": "bucket", "active": true }),
            );
        }
        for (name, role) in [("anna", 8), ("ben", 32), ("carla", 64)] {
            data.insert("users", &json!({ "username": format!("{name}@corp.test"), "email": format!("{name}@corp.test"), "firstname": name, "lastname": "Test", "userType": role, "userStatus": 1 }));
        }
        for status in [4, 2, 16] {
            data.insert("transfers", &json!({ "type": 1, "status": status, "sourcePath": "/in", "destinationPath": "/out" }));
        }
        data
    }

    fn collection(&mut self, name: &'static str) -> &mut Vec<Map<String, Value>> {
        self.collections.entry(name).or_default()
    }

    /// Adds what `body` describes, and returns it the way the API would.
    pub(super) fn insert(&mut self, name: &'static str, body: &Value) -> Option<Value> {
        self.made += 1;
        let date = format!("2026-01-{:02}T{:02}:00:00Z", 1 + self.made / 24 % 28, self.made % 24);
        let mut row = Map::from_iter([
            ("id".to_owned(), json!(Uuid::new_v4())),
            ("accountId".to_owned(), ACCOUNT_ID.into()),
            ("createDate".to_owned(), date.clone().into()),
            ("requestDate".to_owned(), date.clone().into()),
            ("startDate".to_owned(), date.into()),
            ("deleted".to_owned(), false.into()),
        ]);
        let given = body.as_object().into_iter().flatten();
        row.extend(
            given
                .filter(|(key, _)| key.as_str() != "id")
                .map(|(key, value)| (key.clone(), value.clone())),
        );
        let rows = self.collection(name);
        if rows.len() >= LIMIT {
            return None;
        }
        rows.push(row.clone());
        Some(row.into())
    }

    /// The row with that id, if there is one that was not deleted.
    pub(super) fn find(&mut self, name: &'static str, id: &str) -> Option<&mut Map<String, Value>> {
        let is_it = |row: &&mut Map<String, Value>| row["id"] == id && row["deleted"] != true;
        self.collection(name).iter_mut().find(is_it)
    }

    /// Changes the row that `body` names by `id`.
    pub(super) fn update(&mut self, name: &'static str, body: &Value) -> Option<Value> {
        let row = self.find(name, body["id"].as_str()?)?;
        row.extend(body.as_object()?.iter().map(|(key, value)| (key.clone(), value.clone())));
        Some(row.clone().into())
    }

    /// Deletes softly, as the API does.
    pub(super) fn delete(&mut self, name: &'static str, id: &str) -> bool {
        let row = self.find(name, id);
        row.map(|row| row.insert("deleted".to_owned(), true.into())).is_some()
    }

    /// All rows that were not deleted.
    pub(super) fn all(&mut self, name: &'static str) -> Vec<Value> {
        let rows = self.collection(name).iter().filter(|row| row["deleted"] != true);
        rows.cloned().map(Value::from).collect()
    }

    /// A page of rows (contract section 6): `page`, `pagesize`, `sortfield`, `descending`, and a
    /// few filters by content.
    pub(super) fn page(&mut self, name: &'static str, call: &Call<'_>) -> Value {
        let number = |name: &str, default: usize| {
            call.parameter(name)
                .and_then(|it| it.parse().ok())
                .filter(|it| *it > 0)
                .unwrap_or(default)
        };
        let (page, size) = (number("page", 1), number("pagesize", 50));
        let mut rows = self.all(name);
        for filter in ["name", "username"] {
            if let Some(wanted) = call.parameter(filter).filter(|it| !it.is_empty()) {
                let wanted = wanted.to_lowercase();
                rows.retain(|row| {
                    row[filter].as_str().is_some_and(|it| it.to_lowercase().contains(&wanted))
                });
            }
        }
        let field = call.parameter("sortfield").unwrap_or_else(|| "CreateDate".into());
        let descending =
            call.parameter("descending").is_some_and(|it| it.eq_ignore_ascii_case("true"));
        // Dotted names sort by the last part; the first letter is lower in JSON.
        let last = field.rsplit('.').next().unwrap_or_default().to_lowercase();
        let value = |row: &Value| {
            let fields = row.as_object().into_iter().flatten();
            fields
                .clone()
                .find(|(key, _)| key.to_lowercase() == last)
                .map(|(_, value)| value.to_string().to_lowercase())
        };
        rows.sort_by_key(value);
        if descending {
            rows.reverse();
        }
        let total = rows.len();
        let start = (page - 1).saturating_mul(size);
        let data: Vec<_> = rows.into_iter().skip(start).take(size).collect();
        json!({
            "data": data,
            "total": total,
            "options": { "pageSize": size, "page": page, "sort": [{ "field": field, "descending": descending }] },
        })
    }
}

/// The user that everybody is to the API.
pub(super) fn user() -> Value {
    json!({
        "userId": USER_ID,
        "username": USERNAME,
        "firstname": "Svc",
        "lastname": "Gate",
        "userType": USER_TYPE,
        "mfa": true,
        "migration": false,
        "owner": true,
        "accountId": ACCOUNT_ID,
        "accountName": "Corp",
        "subscriptionType": 2,
        "authProvider": 0,
    })
}
