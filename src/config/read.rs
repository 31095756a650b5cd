//! Values → [`Config`]: everything is parsed once, and everything that is wrong is collected.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
};

use figment::value::{Dict, Value};
use http::StatusCode;
use secrecy::{ExposeSecret, SecretString};

use super::{
    BaseUrl, Config, Credentials, ErrorMode, Errors, Http2, Identity, Legacy, LegacyMode, Listen,
    LogFormat, Policy, Server, Telemetry, Upstream,
    load::{Origins, nearest, value_at},
    parse,
    report::Finding,
    secret::Secret,
};

/// More is held in memory for no request.
const LARGEST_REPLAY: u64 = 64 * 1024 * 1024;

/// Reads the merged values.
pub(super) struct Reader<'a> {
    pub(super) values: &'a Dict,
    pub(super) origins: &'a Origins<'a>,
    /// `identities.NAME` and `callers.NAME`, in the order in which they were written.
    pub(super) names: &'a [String],
    findings: Vec<Finding>,
    warnings: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(values: &'a Dict, origins: &'a Origins<'a>, names: &'a [String]) -> Self {
        Self { values, origins, names, findings: Vec::new(), warnings: Vec::new() }
    }

    /// What is wrong, and what is unwise.
    pub(super) fn finish(self) -> (Vec<Finding>, Vec<String>) {
        (self.findings, self.warnings)
    }

    /// The configuration; nothing when a value is missing without which there is none. What was
    /// found wrong has another value meanwhile, and is among the findings.
    pub(super) fn config(&mut self) -> Option<Config> {
        // Everything is read before anything is given up, so that all mistakes are found at once.
        let server = self.server();
        let upstream = self.upstream();
        let identities = self.identities();
        let session_store = self.session_store();
        let callers = self.callers(&identities);
        let caller_jwt = self.caller_jwt();
        let policy = self.policy();
        let legacy = self.legacy();
        let rate_limit = self.rate_limit();
        let errors = self.errors();
        let audit = self.audit();
        let telemetry = self.telemetry();
        let server = server?;
        self.check_network(&server, &policy);
        Some(Config {
            server,
            upstream: upstream?,
            identities,
            session_store: session_store?,
            callers,
            caller_jwt,
            policy,
            legacy: legacy?,
            rate_limit: rate_limit?,
            errors: errors?,
            audit: audit?,
            telemetry: telemetry?,
        })
    }

    fn server(&mut self) -> Option<Server> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let workers = self.read("server.workers", parse::count).unwrap_or(1);
        if workers > 1024 {
            self.wrong("server.workers", "expected at most 1024");
        }
        let listen: Vec<Listen> = self.read("server.listen", parse::listens).unwrap_or_default();
        let mut seen = HashSet::new();
        let unset =
            |listen: &&Listen| !matches!(listen, Listen::Tcp(address) if address.port() == 0);
        if listen.iter().filter(unset).any(|listen| !seen.insert(listen.to_string())) {
            self.wrong("server.listen", "the same address stands here twice");
        }
        let admin_listen = self.read("server.admin_listen", parse::optional(parse::listen));
        let admin_token = self.secret("server.admin_token");
        let health_listen = self.read("server.health_listen", parse::optional(parse::listen));
        let drain_timeout = self.read("server.drain_timeout", parse::duration);
        let header_timeout = self.positive("server.header_timeout", parse::duration);
        let idle_timeout = self.positive("server.idle_timeout", parse::duration);
        let max_header = self.read("server.max_header_bytes", parse::size);
        if max_header.is_some_and(|size| !(1024..=1024 * 1024).contains(&size)) {
            self.wrong("server.max_header_bytes", "expected between 1KiB and 1MiB");
        }
        let max_body = self.read("server.max_body_bytes", parse::size);
        let max_connections = self.positive("server.max_connections", parse::count);
        let tls = self.tls();
        Some(Server {
            listen,
            admin_listen: admin_listen?,
            admin_token,
            health_listen: health_listen?,
            workers: if workers == 0 { cores() } else { workers },
            drain_timeout: drain_timeout?,
            header_timeout: header_timeout?,
            idle_timeout: idle_timeout?,
            max_header_bytes: usize::try_from(max_header?).unwrap_or(usize::MAX),
            max_body_bytes: max_body.map(|size| (size > 0).then_some(size))?,
            max_connections: max_connections?,
            tls,
        })
    }

    fn upstream(&mut self) -> Option<Upstream> {
        let api_url = self.url("upstream.api_url");
        let auth_url = self.url("upstream.auth_url");
        let ca_file = self.read("upstream.ca_file", parse::optional(parse::text));
        let ca_file = ca_file.map(|path| path.map(PathBuf::from));
        if let Some(Some(path)) = &ca_file
            && let Err(error) = std::fs::File::open(path)
        {
            self.wrong("upstream.ca_file", format!("this file cannot be read: {error}"));
        }
        let words = [("auto", Http2::Auto), ("always", Http2::Always), ("never", Http2::Never)];
        let http2 = self.word("upstream.http2", &words);
        let connect_timeout = self.positive("upstream.connect_timeout", parse::duration);
        let response_timeout = self.positive("upstream.response_timeout", parse::duration);
        let total_timeout = self.read("upstream.total_timeout", parse::duration);
        let max_connections = self.positive("upstream.max_connections", parse::count);
        let max_connection_age = self.read("upstream.max_connection_age", parse::duration);
        let adaptive = self.read("upstream.adaptive", parse::boolean);
        let max_waiting = self.read("upstream.max_waiting", parse::count);
        let max_wait = self.read("upstream.max_wait", parse::duration);
        let retry_budget = self.read("upstream.retry_budget", parse::share);
        let breaker_failures = self.read("upstream.breaker_failures", parse::count);
        let breaker_cooldown = self.positive("upstream.breaker_cooldown", parse::duration);
        Some(Upstream {
            api_url: api_url?,
            auth_url: auth_url?,
            ca_file: ca_file?,
            http2: http2?,
            connect_timeout: connect_timeout?,
            response_timeout: response_timeout?,
            total_timeout: Some(total_timeout?).filter(|time| !time.is_zero()),
            max_connections: max_connections?,
            max_connection_age: Some(max_connection_age?).filter(|age| !age.is_zero()),
            adaptive: adaptive?,
            max_waiting: max_waiting?,
            max_wait: max_wait?,
            retry_budget: retry_budget?,
            breaker_failures: breaker_failures?,
            breaker_cooldown: breaker_cooldown?,
        })
    }

    fn url(&mut self, path: &str) -> Option<BaseUrl> {
        let url = self.read(path, parse::base_url)?;
        if !url.tls && !parse::is_loopback(&url.host) {
            self.wrong(path, "expected https: passwords and tokens would travel in the clear");
        }
        Some(url)
    }

    fn identities(&mut self) -> Vec<Identity> {
        let mut identities = Vec::new();
        let mut defaults = Vec::new();
        for path in self.names.iter().filter(|path| path.starts_with("identities.")) {
            let default: Option<bool> = self.maybe(&format!("{path}.default"), parse::boolean);
            if default == Some(true) {
                defaults.push((path, identities.len()));
            }
            if let Some(identity) = self.identity(path) {
                identities.push(identity);
            }
        }
        if let [_, (second, _), ..] = defaults[..] {
            self.wrong(&format!("{second}.default"), "another identity is the default already");
        }
        if let Some((_, at)) = defaults.first()
            && *at < identities.len()
        {
            let default = identities.remove(*at);
            identities.insert(0, default);
        }
        if !self.names.iter().any(|path| path.starts_with("identities.")) {
            self.findings.push(Finding {
                message: "there is no identity: the gateway has nobody to log in as".into(),
                place: None,
                label: String::new(),
                help: Some(
                    "set AMOVE_USERNAME, AMOVE_PASSWORD_FILE and AMOVE_USER_TYPE, or write a section \
                     [identities.main]; to try it without an account: amove-gateway sandbox"
                        .into(),
                ),
            });
        }
        identities
    }

    fn identity(&mut self, path: &str) -> Option<Identity> {
        let key = |key: &str| format!("{path}.{key}");
        let (_, name) = path.split_once('.')?;
        self.check_name(path, name);
        let credentials = self.credentials(path);
        let refresh_ahead = self.read(&key("refresh_ahead"), parse::refresh_ahead);
        let max_age = self.positive(&key("max_age"), parse::duration);
        let replay_buffer = self.read(&key("replay_buffer"), parse::size);
        if replay_buffer.is_some_and(|bytes| bytes > LARGEST_REPLAY) {
            self.wrong(
                &key("replay_buffer"),
                "expected at most 64MiB: so much is held for each request",
            );
        }
        let logout_on_shutdown = self.read(&key("logout_on_shutdown"), parse::boolean);
        Some(Identity {
            name: name.into(),
            credentials: credentials?,
            refresh_ahead: refresh_ahead?,
            max_age: max_age?,
            replay_buffer: usize::try_from(replay_buffer?).ok()?,
            logout_on_shutdown: logout_on_shutdown?,
        })
    }

    fn credentials(&mut self, path: &str) -> Option<Credentials> {
        let key = |key: &str| format!("{path}.{key}");
        let username = self.maybe(&key("username"), parse::text);
        let user_type = self.maybe(&key("user_type"), parse::user_type);
        let password = self.secret(&key("password"));
        let totp = self.secret(&key("totp_secret"));
        let token = self.secret(&key("api_token"));
        let is_set = |reader: &Self, name: &str| reader.value(&key(name)).is_some();
        match (token, username) {
            (Some(_), Some(_)) => {
                self.wrong(&key("username"), "an identity has either a user or an API token");
                None
            }
            (Some(token), None) => Some(Credentials::ApiToken(token)),
            (None, Some(username)) => {
                if password.is_none() && !self.is_secret_set(&key("password")) {
                    self.missing(path, "password_file", "the user has no password");
                }
                if !is_set(self, "user_type") {
                    let why = "the login must name the role that the user really has";
                    self.missing(path, "user_type", why);
                }
                Some(Credentials::Password {
                    username,
                    password: password?,
                    user_type: user_type?,
                    totp,
                })
            }
            (None, None) => {
                if !is_set(self, "username") && !self.is_secret_set(&key("api_token")) {
                    self.missing(path, "username", "it has neither a user nor an API token");
                }
                None
            }
        }
    }

    /// Names stand in records and logs.
    pub(super) fn check_name(&mut self, section: &str, name: &str) {
        if !(1..=64).contains(&name.len()) || name.chars().any(char::is_control) {
            self.findings.push(Finding {
                message: format!("[{section}] has a name that is empty, too long or not printable"),
                place: None,
                label: String::new(),
                help: None,
            });
        }
    }

    fn legacy(&mut self) -> Option<Legacy> {
        let modes = [("rewrite", LegacyMode::Rewrite), ("reject", LegacyMode::Reject)];
        let mode = self.word("legacy.mode", &modes);
        let deprecated_since = self.read("legacy.deprecated_since", parse::date);
        let sunset = self.read("legacy.sunset", parse::optional(parse::date));
        Some(Legacy { mode: mode?, deprecated_since: deprecated_since?, sunset: sunset? })
    }

    fn telemetry(&mut self) -> Option<Telemetry> {
        let log = self.read("telemetry.log", parse::filter).unwrap_or_default();
        let words =
            [("auto", LogFormat::Auto), ("json", LogFormat::Json), ("pretty", LogFormat::Pretty)];
        Some(Telemetry { log, log_format: self.word("telemetry.log_format", &words)? })
    }

    fn errors(&mut self) -> Option<Errors> {
        let modes = [("problem", ErrorMode::Problem), ("passthrough", ErrorMode::Passthrough)];
        let mut status = BTreeMap::new();
        let overrides = value_at(self.values, "errors.status").and_then(Value::as_dict);
        for code in overrides.into_iter().flat_map(Dict::keys) {
            let read: Option<StatusCode> =
                self.read(&format!("errors.status.{code}"), parse::status);
            status.extend(read.map(|read| (code.clone(), read)));
        }
        Some(Errors { mode: self.word("errors.mode", &modes)?, status })
    }

    /// Nobody on the network may use the company's account just by being there.
    fn check_network(&mut self, server: &Server, policy: &Policy) {
        let is_open = |listen: &Listen| matches!(listen, Listen::Tcp(at) if !at.ip().is_loopback());
        let mut callers = self.names.iter().filter(|path| path.starts_with("callers."));
        let nobody_is_known = callers.all(|path| !self.is_recognisable(path));
        // Who needs a certificate to connect is no stranger.
        let auth = self.value("server.tls.client_auth").and_then(Value::as_str);
        let nobody_is_known = nobody_is_known && auth != Some("required");
        let reachable = server.listen.iter().any(is_open);
        if reachable && nobody_is_known && !policy.allow_unauthenticated_network {
            self.wrong(
                "server.listen",
                "reachable from the network, and no caller can be recognised: give [callers.NAME] an \
                 api_key_hash, listen on loopback, or set policy.allow_unauthenticated_network",
            );
        }
        if reachable && nobody_is_known && policy.allow_unauthenticated_network {
            let warning = "everybody on the network can use the account: policy.allow_unauthenticated_network is set";
            self.warnings.push(warning.into());
        }
        let admin_open = server.admin_listen.as_ref().is_some_and(is_open);
        if admin_open && !self.is_secret_set("server.admin_token") {
            self.wrong("server.admin_listen", "not loopback, so it needs server.admin_token_file");
        }
        for (path, listen) in [
            ("server.admin_listen", &server.admin_listen),
            ("server.health_listen", &server.health_listen),
        ] {
            if matches!(listen, Some(Listen::Unix(_))) {
                self.wrong(path, "expected a TCP address");
            }
        }
    }

    /// A secret, if it is set: as a value, or as the name of a file.
    pub(super) fn secret(&mut self, path: &str) -> Option<Secret> {
        let file_path = format!("{path}_file");
        let file = self.value(&file_path).filter(|value| !is_blank(value));
        let inline = self.value(path).filter(|value| !is_blank(value));
        let file_wins = match (inline, file) {
            (Some(inline), Some(file)) => {
                let (inline, file) = (self.origins.source(inline), self.origins.source(file));
                if inline == file {
                    self.wrong(&file_path, "set either this or the value itself, not both");
                }
                file >= inline
            }
            (_, file) => file.is_some(),
        };
        if !file_wins {
            return self.maybe(path, parse::text).map(|text| Secret::Inline(text.into()));
        }
        let secret = Secret::File(PathBuf::from(self.maybe(&file_path, parse::text)?));
        if let Err(error) = secret.read() {
            self.wrong(&file_path, error.to_string());
            return None;
        }
        Some(secret)
    }

    pub(super) fn is_secret_set(&self, path: &str) -> bool {
        let is_set = |path: &str| self.value(path).is_some_and(|value| !is_blank(value));
        is_set(path) || is_set(&format!("{path}_file"))
    }

    /// Which of the two forms of a secret is set.
    pub(super) fn form_of(&self, path: &str) -> String {
        let file = format!("{path}_file");
        if self.value(&file).is_some_and(|value| !is_blank(value)) { file } else { path.to_owned() }
    }

    /// The URL of a Redis, which `secret` at `path` has to be.
    pub(super) fn redis(&mut self, path: &str, secret: &Secret) -> Option<SecretString> {
        let url = secret.read().ok()?;
        // Not the library's own words: they may repeat the password.
        if redis::parse_redis_url(url.expose_secret()).is_none() {
            let form = self.form_of(path);
            self.wrong(&form, "expected redis://HOST:PORT, rediss://HOST:PORT or unix:/path");
            return None;
        }
        Some(url)
    }

    pub(super) fn warn(&mut self, warning: &str) {
        self.warnings.push(warning.to_owned());
    }

    pub(super) fn value(&self, path: &str) -> Option<&'a Value> {
        value_at(self.values, path)
    }

    /// The value at `path`, which the defaults have in any case.
    pub(super) fn read<T>(
        &mut self,
        path: &str,
        parse: impl Fn(&Value) -> Result<T, String>,
    ) -> Option<T> {
        if self.value(path).is_none() {
            self.wrong(path, "it is missing");
        }
        self.maybe(path, parse)
    }

    /// The value at `path`, if there is one.
    pub(super) fn maybe<T>(
        &mut self,
        path: &str,
        parse: impl Fn(&Value) -> Result<T, String>,
    ) -> Option<T> {
        match parse(self.value(path)?) {
            Ok(value) => Some(value),
            Err(expected) => {
                self.wrong(path, expected);
                None
            }
        }
    }

    pub(super) fn positive<T: Default + PartialEq>(
        &mut self,
        path: &str,
        parse: impl Fn(&Value) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.read(path, parse)?;
        if value == T::default() {
            self.wrong(path, "expected more than nothing");
        }
        Some(value)
    }

    pub(super) fn word<T: Copy>(&mut self, path: &str, words: &[(&str, T)]) -> Option<T> {
        self.read(path, |value| {
            let text = parse::text(value)?;
            let found = words.iter().find(|(word, _)| *word == text);
            found.map(|(_, meaning)| *meaning).ok_or_else(|| {
                let known: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
                let hint = nearest(&text, words.iter().map(|(word, _)| *word))
                    .map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"));
                format!("expected {}{hint}", known.join(" or "))
            })
        })
    }

    /// A section has no place of its own in the texts; its first setting stands for it.
    fn place_of(&self, section: &str) -> Option<(usize, std::ops::Range<usize>)> {
        let values = value_at(self.values, section).and_then(Value::as_dict);
        let places = values
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| self.origins.place(&format!("{section}.{name}"), value));
        places.min_by_key(|(at, span)| (*at, span.start))
    }

    /// The name of a section is wrong.
    pub(super) fn wrong_section(&mut self, section: &str, why: &str) {
        self.findings.push(Finding {
            message: format!("[{section}] cannot be used: {why}"),
            place: self.place_of(section),
            label: "below this name".to_owned(),
            help: None,
        });
    }

    pub(super) fn missing(&mut self, section: &str, key: &str, why: &str) {
        self.findings.push(Finding {
            message: format!("[{section}] lacks `{key}`: {why}"),
            place: self.place_of(section),
            label: format!("`{key}` is expected beside this"),
            help: None,
        });
    }

    /// One element of the list at `path` is wrong.
    pub(super) fn wrong_element(&mut self, path: &str, element: &str, label: &str) {
        let value = self.value(path);
        let place = value.and_then(|value| self.origins.place(element, value));
        if place.is_none() {
            return self.wrong(path, label);
        }
        self.findings.push(Finding {
            message: format!("`{path}` cannot be used"),
            place,
            label: label.to_owned(),
            help: None,
        });
    }

    pub(super) fn wrong(&mut self, path: &str, expected: impl Into<String>) {
        let place = self.value(path).and_then(|value| self.origins.place(path, value));
        let (message, label) = match &place {
            Some(_) => (format!("`{path}` cannot be used"), expected.into()),
            // A default that is in somebody's way: there is no line to draw.
            None => (format!("`{path}` cannot be used: {}", expected.into()), String::new()),
        };
        self.findings.push(Finding { message, place, label, help: None });
    }
}

fn is_blank(value: &Value) -> bool {
    value.as_str().is_some_and(str::is_empty)
}
