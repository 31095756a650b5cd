//! The effective configuration as TOML, with where each value comes from.

use std::fmt::Write;

use figment::value::{Dict, Num, Value};

use super::settings::{self, Kind, Known};

/// Writes `values`; `origin` tells where a value comes from.
pub(super) fn toml(values: &Dict, origin: &dyn Fn(&Value) -> String) -> String {
    let mut text = String::from("# The effective configuration; secrets are redacted.\n");
    section("", values, origin, &mut text);
    text
}

fn section(path: &str, values: &Dict, origin: &dyn Fn(&Value) -> String, text: &mut String) {
    let join =
        |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let (tables, settings): (Vec<_>, Vec<_>) =
        values.iter().partition(|(_, value)| matches!(value, Value::Dict(..)));
    if !settings.is_empty() {
        let _ = writeln!(text, "\n[{path}]");
    }
    for (name, value) in settings {
        let shown = match settings::look_up(&join(name)) {
            Known::Setting(setting) if setting.kind == Kind::Secret => "\"***\"".to_owned(),
            _ => literal(value),
        };
        let _ = writeln!(text, "{} = {shown}  # {}", key(name), origin(value));
    }
    for (name, value) in tables {
        if let Value::Dict(_, values) = value {
            section(&join(&key(name)), values, origin, text);
        }
    }
}

fn key(name: &str) -> String {
    toml_edit::Key::new(name).display_repr().into_owned()
}

fn literal(value: &Value) -> String {
    match value {
        Value::String(_, text) => toml_edit::Value::from(text.as_str()).to_string(),
        Value::Char(_, c) => toml_edit::Value::from(c.to_string()).to_string(),
        Value::Bool(_, it) => it.to_string(),
        Value::Num(_, number) => number_literal(*number),
        Value::Array(_, values) => {
            format!("[{}]", values.iter().map(literal).collect::<Vec<_>>().join(", "))
        }
        Value::Empty(..) | Value::Dict(..) => "\"\"".to_owned(),
    }
}

fn number_literal(number: Num) -> String {
    match (number.to_i128(), number.to_u128(), number.to_f64()) {
        (Some(number), _, _) => number.to_string(),
        (_, Some(number), _) => number.to_string(),
        (_, _, Some(number)) => number.to_string(),
        _ => "0".to_owned(),
    }
}
