//! Every setting, section by section.
//!
//! The types are as narrow as the meaning: a [`Config`] that exists is valid. What each setting
//! means to an operator stands in `config/gateway.toml`, which is also where the defaults come from.
#![expect(missing_docs, reason = "what a setting means stands in config/gateway.toml, once")]

use std::{
    collections::BTreeMap, fmt, net::SocketAddr, num::NonZeroU32, path::PathBuf, sync::Arc,
    time::Duration,
};

use http::StatusCode;
use jiff::civil::Date;
use secrecy::SecretString;

use crate::amove::{patterns::RoutePattern, tags::Tags};

mod audit;
mod audit_postgres;
mod caller_jwt;
mod callers;
mod changes;
mod inventory;
mod limits;
pub mod load;
pub mod looks;
mod parse;
mod policy;
mod read;
pub mod report;
mod schema;
pub mod secret;
mod session_store;
mod settings;
pub mod tls;

pub use audit_postgres::postgres;
pub use changes::Changes;
pub(crate) use parse::duration_of;
pub use schema::schema;
use secret::Secret;
pub use session_store::SealingKey;

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Config {
    pub server: Server,
    pub upstream: Upstream,
    /// At least one; the default identity comes first.
    pub identities: Vec<Identity>,
    pub session_store: SessionStore,
    /// Empty on loopback and unix listeners: everyone is `local`.
    pub callers: Vec<Caller>,
    /// `None`: nobody is known by a token of an issuer.
    pub caller_jwt: Option<CallerJwt>,
    pub policy: Policy,
    pub legacy: Legacy,
    pub rate_limit: RateLimit,
    pub errors: Errors,
    pub audit: Audit,
    pub telemetry: Telemetry,
}

/// `[server]`: the callers' and the operators' edge.
#[derive(Clone, Debug)]
pub struct Server {
    pub listen: Vec<Listen>,
    /// `None` when set to `""`: no admin listener.
    pub admin_listen: Option<Listen>,
    pub admin_token: Option<Secret>,
    /// Only health and metrics, for probes and scrapers.
    pub health_listen: Option<Listen>,
    /// Never 0: "one per core" is resolved while loading.
    pub workers: usize,
    pub drain_timeout: Duration,
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
    pub max_header_bytes: usize,
    /// `None`: no limit.
    pub max_body_bytes: Option<u64>,
    pub max_connections: usize,
    /// `None`: no TLS.
    pub tls: Option<Tls>,
}

/// `[server.tls]`: TLS on every TCP address of `listen`.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Ours, and then those between it and its CA; PEM.
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    pub client_auth: ClientAuth,
}

/// Whether clients are asked for a certificate.
#[derive(Clone, Debug)]
pub enum ClientAuth {
    Off,
    /// A client may have none; one that it has must be good.
    Optional(ClientTrust),
    Required(ClientTrust),
}

/// Whose word counts about who a client is.
#[derive(Clone, Debug)]
pub struct ClientTrust {
    pub ca_file: PathBuf,
    /// Certificates that count no more.
    pub crl_file: Option<PathBuf>,
}

impl ClientAuth {
    /// What clients are measured by, if they are asked.
    pub const fn trust(&self) -> Option<&ClientTrust> {
        match self {
            Self::Off => None,
            Self::Optional(trust) | Self::Required(trust) => Some(trust),
        }
    }
}

/// An address to listen on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Listen {
    Tcp(SocketAddr),
    /// Written `unix:/path`.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `[upstream]`: the way to the API.
#[derive(Clone, Debug)]
pub struct Upstream {
    pub api_url: BaseUrl,
    pub auth_url: BaseUrl,
    /// Extra trust roots, PEM.
    pub ca_file: Option<PathBuf>,
    pub http2: Http2,
    pub connect_timeout: Duration,
    /// To the response headers.
    pub response_timeout: Duration,
    /// From when a request is sent until the last byte of its answer; `None`: any time.
    pub total_timeout: Option<Duration>,
    /// Over all workers, towards each host.
    pub max_connections: usize,
    /// After which age a connection takes no other request; `None`: at any age it does.
    pub max_connection_age: Option<Duration>,
    /// Whether fewer are used while the host cannot bear more.
    pub adaptive: bool,
    /// How many requests may wait for each host.
    pub max_waiting: usize,
    /// How long one may wait.
    pub max_wait: Duration,
    /// How many repeats there may be for each read, on average; 0: none.
    pub retry_budget: f64,
    /// Failures in a row that open the circuit; 0: nothing does.
    pub breaker_failures: usize,
    /// How long an open circuit lets nothing pass.
    pub breaker_cooldown: Duration,
}

/// Scheme, host and port of a host we dial: no path, query, user or fragment.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct BaseUrl {
    pub tls: bool,
    /// Without brackets, lower case.
    pub host: Arc<str>,
    pub port: u16,
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let own = if self.tls { 443 } else { 80 };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{open}{}{close}", self.host)?;
        if self.port == own { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// Which version of HTTP is spoken to the API.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Http2 {
    /// What TLS negotiates; HTTP/1.1 without TLS.
    Auto,
    /// Also without TLS, by prior knowledge.
    Always,
    Never,
}

/// `[identities.NAME]`: whom a caller is to the API.
#[derive(Clone, Debug)]
pub struct Identity {
    pub name: Arc<str>,
    pub credentials: Credentials,
    pub refresh_ahead: RefreshAhead,
    /// How long a token serves whose expiry cannot be read.
    pub max_age: Duration,
    /// Up to this size a body is kept for one replay.
    pub replay_buffer: usize,
    pub logout_on_shutdown: bool,
}

/// What an identity proves itself with.
#[derive(Clone, Debug)]
pub enum Credentials {
    Password { username: String, password: Secret, user_type: UserType, totp: Option<Secret> },
    ApiToken(Secret),
}

/// The role an identity has (contract section 3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum UserType {
    ProviderAdmin = 1,
    ResellerAdmin = 2,
    AccountAdmin = 4,
    AccountUser = 8,
    DesktopAdmin = 16,
    DesktopCreativeUser = 32,
    DesktopStandardUser = 64,
}

impl UserType {
    /// All roles.
    pub const ALL: [Self; 7] = [
        Self::ProviderAdmin,
        Self::ResellerAdmin,
        Self::AccountAdmin,
        Self::AccountUser,
        Self::DesktopAdmin,
        Self::DesktopCreativeUser,
        Self::DesktopStandardUser,
    ];

    /// The API's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ProviderAdmin => "ProviderAdmin",
            Self::ResellerAdmin => "ResellerAdmin",
            Self::AccountAdmin => "AccountAdmin",
            Self::AccountUser => "AccountUser",
            Self::DesktopAdmin => "DesktopAdmin",
            Self::DesktopCreativeUser => "DesktopCreativeUser",
            Self::DesktopStandardUser => "DesktopStandardUser",
        }
    }
}

/// When a token is renewed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RefreshAhead {
    /// A share of the lifetime, 0 < share < 1; written `"20%"`.
    Share(f64),
    /// This long before expiry.
    Before(Duration),
}

/// `[session_store]`: where sessions outlive the process, or are shared by a fleet.
#[derive(Clone, Debug)]
pub struct SessionStore {
    pub kind: StoreKind,
    pub on_error: StoreError,
}

/// Where sessions are kept.
#[derive(Clone, Debug)]
pub enum StoreKind {
    /// In the process: they end with it.
    Memory,
    /// Sealed, in a file of this machine.
    File { path: PathBuf, key: SealingKey },
    /// Sealed, in a Redis or Valkey that a fleet shares.
    Redis {
        /// May hold a password.
        url: SecretString,
        /// Extra trust roots for `rediss://`, PEM.
        ca_file: Option<PathBuf>,
        key: SealingKey,
    },
}

/// What happens when the store cannot be asked and no valid token is left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StoreError {
    /// A login of one's own.
    Local,
    /// No login.
    Hold,
}

/// `[callers.NAME]`: who may call.
#[derive(Clone, Debug)]
pub struct Caller {
    pub name: Arc<str>,
    /// Index into [`Config::identities`]: that it exists is checked while loading.
    pub identity: usize,
    /// BLAKE3 of the caller's API keys, at most two; written `"blake3:<64 hex digits>"`.
    pub api_key_hashes: Vec<[u8; 32]>,
    /// From its client certificate.
    pub spiffe_id: Option<Box<str>>,
    /// A name from its client certificate, in lower case.
    pub san: Option<Box<str>>,
    /// The user that it runs as, on a unix listener.
    pub unix_uid: Option<u32>,
    /// The `sub` of its token.
    pub jwt_subject: Option<Box<str>>,
    /// What it may call; `None`: everything that is not guarded.
    pub allow: Option<Vec<Rule>>,
    /// What it may not call, whatever else is allowed.
    pub deny: Vec<Rule>,
    pub rate: Option<Rate>,
    /// Requests that may come at once; `None`: as many as `rate` allows in a second, at least 1.
    pub burst: Option<NonZeroU32>,
    /// Requests that may be under way at once; `None`: any number.
    pub max_concurrent: Option<NonZeroU32>,
}

impl Caller {
    /// Whether anything tells it from another caller.
    pub fn is_recognisable(&self) -> bool {
        !self.api_key_hashes.is_empty()
            || self.spiffe_id.is_some()
            || self.san.is_some()
            || self.unix_uid.is_some()
            || self.jwt_subject.is_some()
    }
}

/// `[caller_jwt]`: whose tokens tell who calls.
#[derive(Clone, Debug)]
pub struct CallerJwt {
    pub issuer: String,
    pub audience: String,
    pub keys: KeySource,
    /// Extra trust roots for the issuer's host, PEM.
    pub ca_file: Option<PathBuf>,
    pub leeway: Duration,
}

/// Where the keys of an issuer come from.
#[derive(Clone, Debug)]
pub enum KeySource {
    File(PathBuf),
    Url { base: BaseUrl, path: String },
}

/// So many in a second, minute or hour; written `"50/s"`, `"50/m"`, `"50/h"`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    pub count: NonZeroU32,
    pub per: Duration,
}

/// One line of a caller's `allow` or `deny`.
#[derive(Clone, Debug)]
pub struct Rule {
    pub pattern: RoutePattern,
    /// File and line, if it was written in one.
    pub place: Option<Arc<str>>,
}

/// `[policy]`: what may be called.
#[derive(Clone, Debug)]
pub struct Policy {
    pub unknown_routes: UnknownRoutes,
    /// Routes with any of these are for callers whose `allow` names the route itself.
    pub deny_tags: Vec<Tags>,
    pub request_token_routes: RequestTokenRoutes,
    pub allow_unauthenticated_network: bool,
}

/// What happens to routes that are not in the catalogue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UnknownRoutes {
    Allow,
    Deny,
}

/// What happens to routes that want a request token in their body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RequestTokenRoutes {
    Mint,
    Deny,
}

/// `[legacy]`: paths without a version.
#[derive(Clone, Debug)]
pub struct Legacy {
    pub mode: LegacyMode,
    pub deprecated_since: Date,
    pub sunset: Option<Date>,
}

/// What happens to paths without a version.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LegacyMode {
    Rewrite,
    Reject,
}

/// `[rate_limit]`: how much may be called by all callers together.
#[derive(Clone, Debug)]
pub struct RateLimit {
    pub global: Option<Rate>,
    /// All callers that share an identity.
    pub per_identity: Option<Rate>,
    pub routes: Vec<RouteLimit>,
    pub mode: LimitMode,
    pub store: QuotaStore,
    pub headers: RateLimitHeaders,
}

/// Where quotas are kept.
#[derive(Clone, Debug)]
pub enum QuotaStore {
    /// In the process.
    Memory,
    /// In a Redis or Valkey that a fleet shares.
    Redis {
        /// May hold a password.
        url: SecretString,
        /// Extra trust roots for `rediss://`, PEM.
        ca_file: Option<PathBuf>,
        on_error: QuotaStoreError,
    },
}

/// What happens to requests while the store of quotas cannot be asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QuotaStoreError {
    /// Each gateway gives out its share of the quota.
    Local,
    /// They pass.
    Allow,
    /// They are over the quota.
    Deny,
}

/// `[rate_limit.routes."PATTERN"]`: how much some routes may be called, and what one call counts for.
#[derive(Clone, Debug)]
pub struct RouteLimit {
    pub pattern: RoutePattern,
    /// By all callers together.
    pub rate: Option<Rate>,
    pub burst: Option<NonZeroU32>,
    /// One call takes so many requests from the other quotas.
    pub weight: NonZeroU32,
}

/// What happens to a request whose quota is used up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LimitMode {
    Reject,
    /// It waits, at most so long.
    Wait(Duration),
}

/// How a caller learns of its quota.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RateLimitHeaders {
    /// `RateLimit` and `RateLimit-Policy` of the IETF draft.
    Ietf,
    /// `X-RateLimit-Limit`, `-Remaining`, `-Reset`.
    Legacy,
    Off,
}

/// `[errors]`: what becomes of the API's own errors.
#[derive(Clone, Debug)]
pub struct Errors {
    pub mode: ErrorMode,
    /// Overrides of the built-in table, by code.
    pub status: BTreeMap<String, StatusCode>,
}

/// Whether a 499 is translated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ErrorMode {
    Problem,
    Passthrough,
}

/// `[audit]`: what is written down.
#[derive(Clone, Debug)]
pub struct Audit {
    /// The folder of the embedded store.
    pub store: PathBuf,
    pub on_failure: OnFailure,
    pub durability: Durability,
    /// How long records are kept.
    pub retain: Duration,
    /// Records also as JSON lines on standard output.
    pub stdout: bool,
    /// Signs heads of the chain: Ed25519, PKCS #8 in PEM.
    pub signing_key: Option<SecretString>,
    /// `None`: records stay here.
    pub postgres: Option<AuditPostgres>,
}

/// `[audit.postgres]`: where the records of all gateways come together.
#[derive(Clone, Debug)]
pub struct AuditPostgres {
    /// May hold a password; [`postgres`] says what it means.
    pub url: Secret,
    /// Extra trust roots, PEM.
    pub ca_file: Option<PathBuf>,
}

/// What happens to requests when no record can be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnFailure {
    /// They are refused.
    Deny,
    /// They go on, and what is lost is counted.
    Allow,
}

/// What a record has to outlive before the request goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// The process.
    Batch,
    /// The power.
    Sync,
}

/// `[telemetry]`: what operators see.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// A filter as tracing-subscriber's `EnvFilter` reads it; checked while loading.
    pub log: String,
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    Json,
    Pretty,
}
