//! The names of all settings, and what kind of value each takes.

use std::{collections::BTreeMap, sync::LazyLock};

/// The annotated reference: what stands there is the default.
pub(super) const REFERENCE: &str = include_str!("../../config/gateway.toml");

/// A setting.
#[derive(Debug)]
pub(super) struct Setting {
    /// Section and key; `*` stands for a name that the operator chooses.
    pub(super) path: &'static str,
    pub(super) kind: Kind,
    /// A running gateway keeps the value that it was started with.
    pub(super) at_start: bool,
}

/// What a setting takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Bool,
    Count,
    Duration,
    Size,
    /// From 0 to 1.
    Share,
    Text,
    /// One of these.
    Word(&'static [&'static str]),
    Listen,
    Listens,
    Url,
    File,
    /// Has a second form, `…_file`.
    Secret,
    UserType,
    RefreshAhead,
    KeyHash,
    /// Patterns over the catalogue.
    Rules,
    Tags,
    Rate,
    Status,
    Date,
    Filter,
}

/// A reload takes it over.
const fn setting(path: &'static str, kind: Kind) -> Setting {
    Setting { path, kind, at_start: false }
}

/// Only a start sets it: `Config::keep_from` keeps what is in force.
const fn at_start(path: &'static str, kind: Kind) -> Setting {
    Setting { path, kind, at_start: true }
}

/// All settings, in the order of the reference.
pub(super) const SETTINGS: &[Setting] = &[
    at_start("server.listen", Kind::Listens),
    at_start("server.admin_listen", Kind::Listen),
    at_start("server.admin_token", Kind::Secret),
    at_start("server.health_listen", Kind::Listen),
    at_start("server.workers", Kind::Count),
    setting("server.drain_timeout", Kind::Duration),
    setting("server.header_timeout", Kind::Duration),
    setting("server.idle_timeout", Kind::Duration),
    setting("server.max_header_bytes", Kind::Size),
    setting("server.max_body_bytes", Kind::Size),
    setting("server.max_connections", Kind::Count),
    setting("server.tls.cert_file", Kind::File),
    setting("server.tls.key_file", Kind::File),
    setting("server.tls.client_auth", Kind::Word(&["off", "optional", "required"])),
    setting("server.tls.client_ca_file", Kind::File),
    setting("server.tls.client_crl_file", Kind::File),
    setting("upstream.api_url", Kind::Url),
    setting("upstream.auth_url", Kind::Url),
    setting("upstream.ca_file", Kind::File),
    setting("upstream.http2", Kind::Word(&["auto", "always", "never"])),
    setting("upstream.connect_timeout", Kind::Duration),
    setting("upstream.response_timeout", Kind::Duration),
    setting("upstream.total_timeout", Kind::Duration),
    setting("upstream.max_connections", Kind::Count),
    setting("upstream.max_connection_age", Kind::Duration),
    setting("upstream.adaptive", Kind::Bool),
    setting("upstream.max_waiting", Kind::Count),
    setting("upstream.max_wait", Kind::Duration),
    setting("upstream.retry_budget", Kind::Share),
    setting("upstream.breaker_failures", Kind::Count),
    setting("upstream.breaker_cooldown", Kind::Duration),
    setting("identities.*.username", Kind::Text),
    setting("identities.*.password", Kind::Secret),
    setting("identities.*.user_type", Kind::UserType),
    setting("identities.*.totp_secret", Kind::Secret),
    setting("identities.*.api_token", Kind::Secret),
    setting("identities.*.default", Kind::Bool),
    setting("identities.*.refresh_ahead", Kind::RefreshAhead),
    setting("identities.*.max_age", Kind::Duration),
    setting("identities.*.replay_buffer", Kind::Size),
    setting("identities.*.logout_on_shutdown", Kind::Bool),
    at_start("session_store.kind", Kind::Word(&["memory", "file", "redis"])),
    at_start("session_store.path", Kind::File),
    at_start("session_store.url", Kind::Secret),
    at_start("session_store.ca_file", Kind::File),
    at_start("session_store.encryption_key", Kind::Secret),
    at_start("session_store.on_error", Kind::Word(&["local", "hold"])),
    setting("callers.*.identity", Kind::Text),
    setting("callers.*.api_key_hash", Kind::KeyHash),
    setting("callers.*.spiffe_id", Kind::Text),
    setting("callers.*.san", Kind::Text),
    setting("callers.*.unix_uid", Kind::Count),
    setting("callers.*.jwt_subject", Kind::Text),
    setting("callers.*.allow", Kind::Rules),
    setting("callers.*.deny", Kind::Rules),
    setting("callers.*.rate", Kind::Rate),
    setting("callers.*.burst", Kind::Count),
    setting("callers.*.max_concurrent", Kind::Count),
    setting("caller_jwt.issuer", Kind::Text),
    setting("caller_jwt.audience", Kind::Text),
    setting("caller_jwt.jwks_url", Kind::Text),
    setting("caller_jwt.jwks_file", Kind::File),
    setting("caller_jwt.ca_file", Kind::File),
    setting("caller_jwt.leeway", Kind::Duration),
    setting("policy.unknown_routes", Kind::Word(&["allow", "deny"])),
    setting("policy.deny_tags", Kind::Tags),
    setting("policy.request_token_routes", Kind::Word(&["mint", "deny"])),
    setting("policy.allow_unauthenticated_network", Kind::Bool),
    setting("legacy.mode", Kind::Word(&["rewrite", "reject"])),
    setting("legacy.deprecated_since", Kind::Date),
    setting("legacy.sunset", Kind::Date),
    setting("rate_limit.global", Kind::Rate),
    setting("rate_limit.per_identity", Kind::Rate),
    setting("rate_limit.mode", Kind::Word(&["reject", "wait"])),
    setting("rate_limit.max_wait", Kind::Duration),
    at_start("rate_limit.store", Kind::Word(&["memory", "redis"])),
    at_start("rate_limit.url", Kind::Secret),
    at_start("rate_limit.ca_file", Kind::File),
    setting("rate_limit.on_store_error", Kind::Word(&["local", "allow", "deny"])),
    setting("rate_limit.routes.*.rate", Kind::Rate),
    setting("rate_limit.routes.*.burst", Kind::Count),
    setting("rate_limit.routes.*.weight", Kind::Count),
    setting("rate_limit.headers", Kind::Word(&["ietf", "legacy", "off"])),
    setting("errors.mode", Kind::Word(&["problem", "passthrough"])),
    setting("errors.status.*", Kind::Status),
    at_start("audit.store", Kind::File),
    at_start("audit.on_failure", Kind::Word(&["deny", "allow"])),
    at_start("audit.durability", Kind::Word(&["batch", "sync"])),
    at_start("audit.retain", Kind::Duration),
    at_start("audit.stdout", Kind::Bool),
    at_start("audit.postgres.url", Kind::Secret),
    at_start("audit.postgres.ca_file", Kind::File),
    at_start("audit.signing.key", Kind::Secret),
    setting("telemetry.log", Kind::Filter),
    at_start("telemetry.log_format", Kind::Word(&["auto", "json", "pretty"])),
];

/// What a path is to us.
#[derive(Clone, Copy, Debug)]
pub(super) enum Known {
    /// A setting takes a value there.
    Setting(&'static Setting),
    /// The second form of a secret: the name of a file.
    SecretFile,
    /// Settings lie below it.
    Section,
    /// Nothing.
    Unknown,
}

/// Looks a path up.
pub(super) fn look_up(path: &str) -> Known {
    for setting in SETTINGS {
        if matches(setting.path, path) {
            return Known::Setting(setting);
        }
        let file = path.strip_suffix("_file").filter(|_| setting.kind == Kind::Secret);
        if file.is_some_and(|path| matches(setting.path, path)) {
            return Known::SecretFile;
        }
    }
    let depth = path.split('.').count();
    let is_section = |setting: &Setting| {
        let parents: Vec<_> = setting.path.split('.').collect();
        parents.len() > depth
            && parents.iter().zip(path.split('.')).all(|(part, name)| *part == "*" || *part == name)
    };
    if SETTINGS.iter().any(is_section) { Known::Section } else { Known::Unknown }
}

fn matches(pattern: &str, path: &str) -> bool {
    let (mut parts, mut names) = (pattern.split('.'), path.split('.'));
    loop {
        match (parts.next(), names.next()) {
            (None, None) => return true,
            (Some(part), Some(name)) if part == "*" || part == name => {}
            _ => return false,
        }
    }
}

/// The names that may stand where `path` stands: its siblings.
pub(super) fn siblings(path: &str) -> Vec<String> {
    let names: Vec<_> = path.split('.').collect();
    let Some((_, parents)) = names.split_last() else { return Vec::new() };
    let mut siblings = Vec::new();
    for setting in SETTINGS {
        let parts: Vec<_> = setting.path.split('.').collect();
        let fits = parts.iter().zip(parents).all(|(part, name)| *part == "*" || part == name);
        if let Some(name) = parts.get(parents.len()).filter(|name| fits && **name != "*") {
            siblings.push((*name).to_owned());
            if setting.kind == Kind::Secret {
                siblings.push(format!("{name}_file"));
            }
        }
    }
    siblings.dedup();
    siblings
}

/// The setting of that name in another section, for those who put it into the wrong one.
pub(super) fn home_of(name: &str) -> Option<&'static str> {
    let is_there = |setting: &&Setting| setting.path.rsplit('.').next() == Some(name);
    SETTINGS.iter().find(is_there).map(|setting| setting.path)
}

/// What the reference says about each setting, by path.
pub(super) static DOCUMENTATION: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    let (mut texts, mut section, mut text) = (BTreeMap::new(), String::new(), String::new());
    for line in REFERENCE.lines() {
        let line = uncommented(line);
        if let Some(prose) = line.strip_prefix("# ") {
            text = if text.is_empty() { prose.to_owned() } else { format!("{text} {prose}") };
        } else if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            name.clone_into(&mut section);
            text.clear();
        } else if let Some((key, _)) = line.split_once(" = ") {
            texts.insert(generic(&format!("{section}.{key}")), std::mem::take(&mut text));
        } else {
            text.clear();
        }
    }
    texts
});

/// The examples of the reference, as if they were no comments.
pub(super) static EXAMPLES: LazyLock<String> = LazyLock::new(|| {
    REFERENCE
        .lines()
        .filter(|line| is_example(line))
        .map(|line| uncommented(line).to_owned() + "\n")
        .collect()
});

fn is_example(line: &str) -> bool {
    let second = line.strip_prefix('#').and_then(|rest| rest.chars().next());
    second.is_some_and(|c| c == '[' || c.is_ascii_alphanumeric())
}

fn uncommented(line: &str) -> &str {
    if is_example(line) { line.get(1..).unwrap_or_default() } else { line }
}

/// Whether only a start sets what is written at `path`.
pub(super) fn is_set_at_start(path: &str) -> bool {
    let generic = generic(path);
    SETTINGS.iter().any(|setting| setting.path == generic && setting.at_start)
}

/// The path with `*` for a name that the operator chooses, and without the second form of a secret.
pub(super) fn generic(path: &str) -> String {
    let plain = path.strip_suffix("_file").unwrap_or(path);
    let found = SETTINGS.iter().find(|setting| {
        matches(setting.path, path) || setting.kind == Kind::Secret && matches(setting.path, plain)
    });
    found.map_or_else(|| path.to_owned(), |setting| setting.path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reload_does_not_take_over_is_documented_as_that() {
        for setting in SETTINGS {
            let text = &DOCUMENTATION[setting.path];
            let says_so = text.ends_with(" Not reloadable.");
            assert_eq!(says_so, setting.at_start, "{}: {text:?}", setting.path);
        }
    }

    #[test]
    fn every_setting_is_documented_and_everything_documented_is_a_setting() {
        let settings: Vec<_> = SETTINGS.iter().map(|setting| setting.path.to_owned()).collect();
        let documented: Vec<_> = DOCUMENTATION.keys().cloned().collect();

        let mut sorted = settings.clone();
        sorted.sort();
        assert_eq!(documented, sorted);
        for (path, text) in &*DOCUMENTATION {
            assert!(text.len() > 10 && text.ends_with('.'), "{path}: {text:?}");
        }
    }
}
