//! Every setting that has a value, with where it comes from: to be shown, and to be compared.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write},
    path::PathBuf,
};

use figment::value::{Dict, Num, Value};

use super::{
    Changes,
    secret::Secret,
    settings::{self, Kind, Known},
};

/// Sections whose last name the operator chooses: each stands for something that comes and goes.
const NAMED: [&[&str]; 3] = [&["identities"], &["callers"], &["rate_limit", "routes"]];

/// All values, by section and name.
#[derive(Clone, Debug, Default)]
pub(super) struct Inventory(BTreeMap<(Vec<String>, String), Entry>);

/// One value.
#[derive(Clone)]
struct Entry {
    /// As TOML; a secret is redacted.
    shown: String,
    origin: String,
    /// Only a start sets it.
    at_start: bool,
    /// Tells values from one another; of files that are read only once, also what is in them.
    digest: blake3::Hash,
}

impl Inventory {
    /// What is in `values`; `origin` tells where a value comes from.
    pub(super) fn new(values: &Dict, origin: &dyn Fn(&Value) -> String) -> Self {
        let mut inventory = Self::default();
        inventory.add(&[], values, origin);
        inventory
    }

    fn add(&mut self, section: &[String], values: &Dict, origin: &dyn Fn(&Value) -> String) {
        for (name, value) in values {
            let mut path = section.to_vec();
            if let Value::Dict(_, values) = value {
                path.push(name.clone());
                self.add(&path, values, origin);
                continue;
            }
            path.push(name.clone());
            let entry = Entry::new(&path.join("."), value, origin(value));
            self.0.insert((section.to_vec(), name.clone()), entry);
        }
    }

    /// As TOML, secrets redacted; `default` is the identity that says so in any case.
    pub(super) fn toml(&self, default: Option<&str>) -> String {
        let mut text = String::from("# The effective configuration; secrets are redacted.\n");
        let mut last = None;
        for ((section, name), entry) in &self.0 {
            let is_default = matches!(&section[..], [of, own]
                if of == "identities" && default.is_some_and(|default| default == own));
            if last.replace(section) != Some(section) {
                let _ = writeln!(text, "\n[{}]", path(section));
                if is_default {
                    let _ = writeln!(text, "default = true  # the first one, or said to be");
                }
            }
            if is_default && name == "default" {
                continue;
            }
            let _ = writeln!(text, "{} = {}  # {}", key(name), entry.shown, entry.origin);
        }
        text
    }

    /// What is in force when this comes after `before`: what only a start sets, and what is in the
    /// section `kept`, stays what it was. Tells what differs.
    pub(super) fn after(&self, before: &Self, kept: Option<&str>) -> (Self, Changes) {
        let is_kept = |(section, _): &(Vec<String>, String), entry: &Entry| {
            entry.at_start || kept.is_some_and(|kept| section.join(".") == kept)
        };
        let (mut changes, mut in_force) = (Changes::default(), BTreeMap::new());
        let names: BTreeSet<_> = self.0.keys().chain(before.0.keys()).collect();
        for name in names {
            let (now, then) = (self.0.get(name), before.0.get(name));
            let keeps = now.or(then).is_some_and(|entry| is_kept(name, entry));
            let entry = if keeps { then } else { now };
            in_force.extend(entry.map(|entry| (name.clone(), entry.clone())));
            if now.map(|entry| entry.digest) == then.map(|entry| entry.digest) {
                continue;
            }
            let told = if name.0.join(".") == kept.unwrap_or_default() {
                path(&name.0)
            } else {
                self.told(before, &name.0, &name.1)
            };
            if keeps { changes.add_at_start(told) } else { changes.add_taken(told) }
        }
        (Self(in_force), changes)
    }

    /// How a setting that differs is told: what comes or goes as a whole, by its section.
    fn told(&self, before: &Self, section: &[String], name: &str) -> String {
        let has = |inventory: &Self| inventory.0.keys().any(|(known, _)| known == section);
        let parent = section.split_last().map(|(_, parent)| parent);
        let is_named = NAMED.iter().any(|named| parent.is_some_and(|parent| parent == *named));
        if is_named && has(self) != has(before) {
            return path(section);
        }
        format!("{}.{}", path(section), key(name))
    }
}

impl Entry {
    fn new(path: &str, value: &Value, origin: String) -> Self {
        let known = settings::look_up(path);
        let is_secret = matches!(known, Known::Setting(setting) if setting.kind == Kind::Secret);
        let literal = literal(value);
        let at_start = settings::is_set_at_start(path);
        let mut hasher = blake3::Hasher::new();
        hasher.update(literal.as_bytes());
        // What is read again by itself when it changes is nobody's business here.
        let is_read_once = at_start && matches!(known, Known::SecretFile);
        if let Some(file) = value.as_str().filter(|it| is_read_once && !it.is_empty())
            && let Ok(secret) = Secret::File(PathBuf::from(file)).read()
        {
            hasher.update(secrecy::ExposeSecret::expose_secret(&secret).as_bytes());
        }
        if let Some(file) = value.as_str().filter(|it| is_of_roots(path) && !it.is_empty()) {
            hasher.update(&std::fs::read(file).unwrap_or_default());
        }
        let shown = if is_secret { "\"***\"".to_owned() } else { literal };
        Self { shown, origin, at_start, digest: hasher.finalize() }
    }
}

/// Whether the file there holds trust roots, which nobody looks at again.
fn is_of_roots(path: &str) -> bool {
    path.ends_with(".ca_file")
}

impl fmt::Debug for Entry {
    /// The digest of a short secret would give it away.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("shown", &self.shown)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

fn path(section: &[String]) -> String {
    section.iter().map(|name| key(name)).collect::<Vec<_>>().join(".")
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
