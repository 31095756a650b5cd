//! The JSON Schema of the configuration, for editors.

use serde_json::{Map, Value, json};

use super::settings::{DOCUMENTATION, Kind, SETTINGS};

/// The schema; its descriptions are those of `config/gateway.toml`.
pub fn schema() -> Value {
    let mut root = section();
    for setting in SETTINGS {
        let parts: Vec<_> = setting.path.split('.').collect();
        let description = DOCUMENTATION.get(setting.path).cloned().unwrap_or_default();
        let mut schema = schema_of(setting.kind);
        insert(&mut schema, "description", description.clone().into());
        place(&mut root, &parts, schema);
        if setting.kind == Kind::Secret {
            let file = format!("{}_file", setting.path);
            let file: Vec<_> = file.split('.').collect();
            let description = format!("{description} The name of a file that holds it.");
            place(&mut root, &file, json!({ "type": "string", "description": description }));
        }
    }
    insert(&mut root, "$schema", "https://json-schema.org/draft/2020-12/schema".into());
    insert(&mut root, "title", "amove-gateway".into());
    root
}

fn section() -> Value {
    json!({ "type": "object", "additionalProperties": false, "properties": {} })
}

fn insert(schema: &mut Value, name: &str, value: Value) {
    if let Value::Object(fields) = schema {
        fields.insert(name.to_owned(), value);
    }
}

/// Puts `schema` at its path below `parent`; `*` stands for any name.
fn place(parent: &mut Value, path: &[&str], schema: Value) {
    let (Some(fields), [name, rest @ ..]) = (parent.as_object_mut(), path) else { return };
    let slot = if *name == "*" {
        fields.entry("additionalProperties").or_insert_with(section)
    } else {
        let properties = fields.entry("properties").or_insert_with(|| Map::new().into());
        let Some(properties) = properties.as_object_mut() else { return };
        properties.entry(*name).or_insert_with(section)
    };
    if rest.is_empty() {
        *slot = schema;
        return;
    }
    if !slot.is_object() {
        *slot = section();
    }
    place(slot, rest, schema);
}

fn schema_of(kind: Kind) -> Value {
    let text = || json!({ "type": "string" });
    let pattern = |pattern: &str| json!({ "type": "string", "pattern": pattern });
    match kind {
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Count => json!({ "type": "integer", "minimum": 0 }),
        Kind::Share => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        Kind::Duration => pattern("^[0-9]+(ms|s|m|h|d)$"),
        Kind::Size => {
            json!({ "anyOf": [pattern("^[0-9]+(B|KiB|MiB|GiB)?$"), { "type": "integer", "minimum": 0 }] })
        }
        Kind::Word(words) => json!({ "enum": words }),
        Kind::Rules | Kind::Tags => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Listens => json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 }),
        Kind::UserType => json!({ "anyOf": [
            { "enum": super::UserType::ALL.map(super::UserType::name) },
            { "enum": super::UserType::ALL.map(|it| it as u8) },
        ] }),
        Kind::RefreshAhead => pattern("^[0-9]+(\\.[0-9]+)?%$|^[0-9]+(ms|s|m|h|d)$"),
        Kind::KeyHash => pattern("^blake3:[0-9a-fA-F]{64}$"),
        Kind::Rate => pattern("^$|^[1-9][0-9]*/[smh]$"),
        Kind::Status => json!({ "type": "integer", "minimum": 400, "maximum": 599 }),
        Kind::Date => pattern("^$|^[0-9]{4}-[0-9]{2}-[0-9]{2}$"),
        Kind::Text | Kind::Listen | Kind::Url | Kind::File | Kind::Secret | Kind::Filter => text(),
    }
}
