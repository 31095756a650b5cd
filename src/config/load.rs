//! Defaults ← files ← environment.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ops::Range,
    path::PathBuf,
};

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Format, Toml},
    value::{Dict, Map, Value},
};
use toml_edit::{ImDocument, Item, TableLike};

use super::{
    Changes, Config,
    inventory::Inventory,
    looks::{Fingerprint, fingerprint},
    read,
    report::{self, Finding, Report, Source},
    settings::{self, EXAMPLES, Known, REFERENCE},
};

/// What every identity has that says nothing of its own; the values are those of the reference.
const IDENTITY_DEFAULTS: [&str; 4] =
    ["refresh_ahead", "max_age", "replay_buffer", "logout_on_shutdown"];

/// The prefix of settings in the environment.
const PREFIX: &str = "AMOVE_GATEWAY_";

/// Variables with that prefix that are arguments of the command line.
const ARGUMENTS: [&str; 3] =
    ["AMOVE_GATEWAY_CONFIG", "AMOVE_GATEWAY_LOG_FORMAT", "AMOVE_GATEWAY_COLOR"];

/// Short names for what a sidecar needs.
const SHORT: [(&str, &str); 5] = [
    ("AMOVE_USERNAME", "username"),
    ("AMOVE_PASSWORD", "password"),
    ("AMOVE_USER_TYPE", "user_type"),
    ("AMOVE_TOTP_SECRET", "totp_secret"),
    ("AMOVE_API_TOKEN", "api_token"),
];

/// Where settings come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Files, the later winning.
    pub files: Vec<PathBuf>,
    /// The environment, which wins over files.
    pub environment: Vec<(String, String)>,
}

impl Sources {
    /// `files`, and the environment of this process.
    pub fn from_process(files: Vec<PathBuf>) -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self { files, environment: std::env::vars_os().filter_map(text).collect() }
    }
}

/// A configuration, and where it came from.
#[derive(Debug)]
pub struct Loaded {
    /// What is in force.
    pub config: Config,
    /// What is allowed and yet unwise.
    pub warnings: Vec<String>,
    inventory: Inventory,
    fingerprint: Fingerprint,
}

impl Loaded {
    /// Tells the files that it came from.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The effective configuration as TOML, secrets redacted, with where each value comes from.
    pub fn show(&self) -> String {
        let identities = &self.config.identities;
        // Sections are printed in the order of their names, which would make another the default.
        let default = identities.first().filter(|_| identities.len() > 1);
        self.inventory.toml(default.map(|identity| &*identity.name))
    }

    /// What comes into force where `before` is in force, and what that changes: a setting that only
    /// a start sets stays what it is.
    #[must_use]
    pub fn after(mut self, before: &Self) -> (Self, Changes) {
        let has_tls = [&self, before].map(|loaded| loaded.config.server.tls.is_some());
        let switched = (has_tls[0] != has_tls[1]).then_some("server.tls");
        let (inventory, mut changes) = self.inventory.after(&before.inventory, switched);
        let default = |loaded: &Self| loaded.config.identities.first().map(|it| it.name.clone());
        if let Some(name) = default(&self).filter(|name| Some(name) != default(before).as_ref()) {
            // It may be the order of the sections that has changed.
            changes.add_taken(format!("identities.{name}.default"));
        }
        self.inventory = inventory;
        self.config.keep_from(&before.config);
        (self, changes)
    }
}

/// Loads the configuration of `sources`.
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn load(sources: &Sources) -> Result<Loaded, Report> {
    let (mut layers, mut texts) = (Layers::default(), Vec::new());
    for path in &sources.files {
        match std::fs::read_to_string(path) {
            Ok(text) => {
                layers.add_file(&path.display().to_string(), &text);
                texts.push(text);
            }
            Err(error) => {
                layers.is_incomplete = true;
                layers.find(format!("cannot read {}: {error}", path.display()));
            }
        }
    }
    let mut loaded = layers.finish(&sources.environment)?;
    loaded.fingerprint = fingerprint(texts.iter().map(String::as_bytes));
    Ok(loaded)
}

/// Loads `text` as if it were the only file.
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn load_str(text: &str, environment: &[(String, String)]) -> Result<Loaded, Report> {
    let mut layers = Layers::default();
    layers.add_file("configuration", text);
    layers.finish(environment)
}

/// The texts and values that a configuration is made of, the later winning.
#[derive(Default)]
pub(super) struct Layers {
    sources: Vec<Source>,
    findings: Vec<Finding>,
    /// Of each source, its values.
    values: Vec<Dict>,
    /// Of each source, where each value stands.
    places: Vec<HashMap<String, Range<usize>>>,
    /// The names of identities and callers, in the order in which they were written.
    names: Vec<String>,
    /// The same, to be found: there may be very many callers.
    noted: HashSet<String>,
    /// A file could not be read, so what seems to be missing may stand in it.
    is_incomplete: bool,
}

impl Layers {
    /// Something is wrong that has no place in a text.
    fn find(&mut self, message: String) {
        self.findings.push(Finding { message, place: None, label: String::new(), help: None });
    }

    fn add_file(&mut self, name: &str, text: &str) {
        let at = self.sources.len();
        self.sources.push(Source::new(name, text));
        self.places.push(HashMap::new());
        self.values.push(Dict::new());
        let document = match ImDocument::parse(text) {
            Ok(document) => document,
            Err(error) => {
                let span = error.span().unwrap_or(0..0);
                self.is_incomplete = true;
                return self.findings.push(Finding {
                    message: "this is not TOML".into(),
                    place: Some((at, span)),
                    label: error.message().lines().next().unwrap_or_default().to_owned(),
                    help: None,
                });
            }
        };
        self.walk(at, "", document.as_table());
        match Toml::from_str::<Dict>(text) {
            Ok(values) => self.values.splice(at.., [values]).for_each(drop),
            Err(error) => self.find(format!(
                "{name} cannot be read: {}",
                error.to_string().lines().next().unwrap_or_default()
            )),
        }
    }

    /// Remembers where everything stands, and refuses what is not a setting.
    fn walk(&mut self, at: usize, path: &str, table: &dyn TableLike) {
        for (name, _) in table.iter() {
            let Some((key, item)) = table.get_key_value(name) else { continue };
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            let place = key.span().or(item.span()).unwrap_or(0..0);
            let is_whole = item.as_table_like().is_some();
            match settings::look_up(&path) {
                Known::Section if is_whole => {
                    if let [_, _] = path.split('.').collect::<Vec<_>>()[..] {
                        self.note_name(&path);
                    }
                    let Some(table) = Item::as_table_like(item) else { continue };
                    self.walk(at, &path, table);
                }
                Known::Section => self.findings.push(Finding {
                    message: format!("`{path}` is a section, not a setting"),
                    place: Some((at, place)),
                    label: format!("write `[{path}]` and its settings below"),
                    help: None,
                }),
                Known::Setting(_) | Known::SecretFile => {
                    let value = item.span().unwrap_or(place);
                    if let Some(places) = self.places.get_mut(at) {
                        let elements = item.as_array().into_iter().flatten().enumerate();
                        let place = |(at, it): (usize, &toml_edit::Value)| {
                            Some((format!("{path}.{at}"), it.span()?))
                        };
                        places.extend(elements.filter_map(place));
                        places.insert(path, value);
                    }
                }
                Known::Unknown => {
                    self.hide_value(at, &path, name, item.span().unwrap_or(0..0));
                    self.findings.push(unknown(&path, name, Some((at, place))));
                }
            }
        }
    }

    /// A misspelt secret is still one, and what nobody knows may be one.
    fn hide_value(&mut self, at: usize, path: &str, name: &str, value: Range<usize>) {
        let siblings = settings::siblings(path);
        let meant = nearest(name, siblings.iter().map(String::as_str));
        let is_harmless = meant.is_some_and(|meant| !report::is_secret(meant));
        if let Some(source) = self.sources.get_mut(at).filter(|_| !is_harmless) {
            source.blot(value);
        }
    }

    fn note_name(&mut self, path: &str) {
        if self.noted.insert(path.to_owned()) {
            self.names.push(path.to_owned());
        }
    }

    fn add_variable(&mut self, variable: &str, path: &str, value: &str) {
        let at = self.sources.len();
        let line = format!("{variable} = {value}");
        let start = variable.len() + 3;
        self.sources.push(Source::new("the environment", &line));
        let names: Vec<_> = path.split('.').collect();
        if let [section @ ("identities" | "callers"), name, _] = names[..] {
            self.note_name(&format!("{section}.{name}"));
        }
        self.places.push(HashMap::from([(path.to_owned(), start..line.len())]));
        self.values.push(nested(&names, Value::from(value.to_owned())));
        if !matches!(settings::look_up(path), Known::Setting(_) | Known::SecretFile) {
            let name = names.last().copied().unwrap_or_default();
            self.hide_value(at, path, name, start..line.len());
            self.findings.push(unknown(path, name, Some((at, 0..variable.len()))));
            self.values.pop();
            self.values.push(Dict::new());
        }
    }

    fn add_environment(&mut self, environment: &[(String, String)]) {
        let find = |name: &str| environment.iter().find(|(key, _)| key == name);
        for (short, key) in SHORT {
            let path = format!("identities.main.{key}");
            if let Some((variable, value)) = find(short) {
                self.add_variable(variable, &path, value);
            }
            let Some((variable, value)) = find(&format!("{short}_FILE")) else { continue };
            match settings::look_up(&format!("{path}_file")) {
                Known::SecretFile => self.add_variable(variable, &format!("{path}_file"), value),
                // It is no secret, so it has no second form; its file is read now.
                _ => match std::fs::read_to_string(value) {
                    Ok(text) => self.add_variable(variable, &path, text.trim_end()),
                    Err(error) => self.find(format!("cannot read {variable} = {value}: {error}")),
                },
            }
        }
        let mut variables: Vec<_> = environment
            .iter()
            .filter(|(name, _)| name.starts_with(PREFIX) && !ARGUMENTS.contains(&name.as_str()))
            .collect();
        variables.sort();
        for (variable, value) in variables {
            let path = variable.trim_start_matches(PREFIX).replace("__", ".");
            let path = match path.strip_prefix("ERRORS.STATUS.") {
                // The codes of the API are case-sensitive.
                Some(code) => format!("errors.status.{code}"),
                None => path.to_ascii_lowercase(),
            };
            self.add_variable(variable, &path, value);
        }
    }

    fn finish(mut self, environment: &[(String, String)]) -> Result<Loaded, Report> {
        self.add_environment(environment);
        if self.is_incomplete {
            return Err(Report { sources: self.sources, findings: self.findings });
        }
        let mut figment = Figment::from(Layer("default".into(), self.defaults()));
        for (at, values) in self.values.iter().enumerate() {
            figment = figment.merge(Layer(at.to_string(), values.clone()));
        }
        let merged = match figment.extract::<Dict>() {
            Ok(_) => figment.data().ok().and_then(|mut data| data.remove(&Profile::Default)),
            Err(error) => {
                self.find(format!("the settings cannot be put together: {error}"));
                None
            }
        };
        let origins = Origins { figment: &figment, places: &self.places, sources: &self.sources };
        let merged = merged.unwrap_or_default();
        let mut reader = read::Reader::new(&merged, &origins, &self.names);
        let config = reader.config();
        let (findings, mut warnings) = reader.finish();
        warnings.extend(misspelt(environment));
        self.findings.extend(findings);
        match config {
            Some(config) if self.findings.is_empty() => {
                let origin = |value: &Value| origins.describe(value, &self.sources);
                Ok(Loaded {
                    config,
                    warnings,
                    inventory: Inventory::new(&merged, &origin),
                    fingerprint: fingerprint([]),
                })
            }
            _ => Err(Report { sources: self.sources, findings: self.findings }),
        }
    }

    /// The reference, and what it says about every identity.
    fn defaults(&self) -> Dict {
        // A test loads both; without them every setting would be reported as missing.
        let mut defaults = Toml::from_str::<Dict>(REFERENCE).unwrap_or_default();
        let examples = Toml::from_str::<Dict>(&EXAMPLES).unwrap_or_default();
        let example = value_at(&examples, "identities.main").and_then(Value::as_dict);
        let common: Dict = (example.into_iter().flatten())
            .filter(|(key, _)| IDENTITY_DEFAULTS.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let names: BTreeSet<_> =
            self.names.iter().filter_map(|name| name.strip_prefix("identities.")).collect();
        let identities: Dict =
            names.into_iter().map(|name| (name.to_owned(), common.clone().into())).collect();
        defaults.insert("identities".into(), identities.into());
        defaults
    }
}

/// Variables that look like one of the short names, and are none.
fn misspelt(environment: &[(String, String)]) -> Vec<String> {
    let known: Vec<String> =
        SHORT.iter().flat_map(|(name, _)| [(*name).to_owned(), format!("{name}_FILE")]).collect();
    let is_suspect = |name: &&String| {
        name.starts_with("AMOVE_") && !name.starts_with(PREFIX) && !known.contains(name)
    };
    let names = environment.iter().map(|(name, _)| name).filter(is_suspect);
    let meant = |name: &String| {
        let nearest = nearest(name, known.iter().map(String::as_str))?;
        Some(format!("the variable {name} means nothing here; did you mean {nearest}?"))
    };
    names.filter_map(meant).collect()
}

/// Where a value came from.
pub(super) struct Origins<'a> {
    figment: &'a Figment,
    places: &'a [HashMap<String, Range<usize>>],
    sources: &'a [Source],
}

impl Origins<'_> {
    /// Which source gave `value`; nothing for a default.
    pub(super) fn source(&self, value: &Value) -> Option<usize> {
        self.figment.get_metadata(value.tag())?.name.parse().ok()
    }

    /// Where the value of `path` stands.
    pub(super) fn place(&self, path: &str, value: &Value) -> Option<(usize, Range<usize>)> {
        let at = self.source(value)?;
        Some((at, self.places.get(at)?.get(path)?.clone()))
    }

    /// File and line of an element of the list at `path`, or of the list itself.
    pub(super) fn line(&self, element: &str, path: &str, value: &Value) -> Option<String> {
        let (at, span) = self.place(element, value).or_else(|| self.place(path, value))?;
        Some(self.sources.get(at)?.line(span.start))
    }

    fn describe(&self, value: &Value, sources: &[Source]) -> String {
        let source = self.source(value).and_then(|at| sources.get(at));
        source.map_or_else(|| "default".to_owned(), |source| source.name.clone())
    }
}

/// Values under a name that tells where they came from.
struct Layer(String, Dict);

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.0.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.1.clone())]))
    }
}

/// The value at `path`.
pub(super) fn value_at<'a>(values: &'a Dict, path: &str) -> Option<&'a Value> {
    let mut names = path.split('.');
    let mut value = values.get(names.next()?)?;
    for name in names {
        value = value.as_dict()?.get(name)?;
    }
    Some(value)
}

fn nested(names: &[&str], value: Value) -> Dict {
    match names {
        [] => Dict::new(),
        [name] => Dict::from([((*name).to_owned(), value)]),
        [name, rest @ ..] => Dict::from([((*name).to_owned(), nested(rest, value).into())]),
    }
}

fn unknown(path: &str, name: &str, place: Option<(usize, Range<usize>)>) -> Finding {
    let label = match nearest(name, settings::siblings(path).iter().map(String::as_str)) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => match settings::home_of(name) {
            Some(home) => format!("there is `{home}`"),
            None => "no such name".to_owned(),
        },
    };
    Finding { message: format!("`{path}` is not a setting"), place, label, help: None }
}

/// The known name that somebody most likely meant.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance =
        |known: &&str| strsim::damerau_levenshtein(&name.to_lowercase(), &known.to_lowercase());
    let nearest = known.into_iter().min_by_key(distance)?;
    (distance(&nearest) <= (name.len() / 3).max(1)).then_some(nearest)
}
