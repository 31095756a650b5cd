//! `check`: validates the configuration and prints what it means.

use std::{fmt::Write, io};

use clap::Args;

use super::{Failure, Global, login, print, runtime};
use crate::config::{
    Audit, Caller, ClientAuth, Config, Credentials, Durability, Identity, OnFailure, QuotaStore,
    QuotaStoreError, RefreshAhead, Tls, secret::Secret,
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Also log every identity in, ask who it is, and log it out again
    #[arg(long)]
    online: bool,
}

/// Prints what the configuration means, or everything that is wrong with it.
pub(super) fn run(arguments: &Arguments, global: &Global) -> Result<(), Failure> {
    let loaded = global.load()?;
    for warning in &loaded.warnings {
        let _ = io::Write::write_fmt(&mut io::stderr(), format_args!("warning: {warning}\n"));
    }
    print(meaning(&loaded.config))?;
    if arguments.online {
        let runtime = runtime()?;
        for identity in &loaded.config.identities {
            print(format!("\n{}", runtime.block_on(login::trial(&loaded.config, identity))?))?;
        }
    }
    Ok(())
}

fn meaning(config: &Config) -> String {
    let mut text = String::from("The configuration is valid.\n\n");
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:12} {value}");
    };
    let server = &config.server;
    let listen: Vec<_> = server.listen.iter().map(ToString::to_string).collect();
    line("callers at", format!("{}, {} worker(s)", listen.join(", "), server.workers));
    if let Some(tls) = &server.tls {
        line("TLS", describe_tls(tls));
    }
    if let Some(admin) = &server.admin_listen {
        line("operators at", admin.to_string());
    }
    if let Some(health) = &server.health_listen {
        line("probes at", health.to_string());
    }
    line("API", format!("{}, logins at {}", config.upstream.api_url, config.upstream.auth_url));
    for (at, identity) in config.identities.iter().enumerate() {
        line("identity", describe_identity(identity, at == 0));
    }
    if config.callers.is_empty() {
        line("callers", "everybody on this machine, as `local`".into());
    }
    for caller in &config.callers {
        line("caller", describe_caller(caller, config));
    }
    if let Some(rate) = config.rate_limit.global {
        line("all callers", format!("{} requests in {:?}", rate.count, rate.per));
    }
    if let QuotaStore::Redis { on_error, .. } = &config.rate_limit.store {
        let away = match on_error {
            QuotaStoreError::Local => "each gateway gives out its share",
            QuotaStoreError::Allow => "everything passes",
            QuotaStoreError::Deny => "nothing with a quota passes",
        };
        line("quotas", format!("shared in Redis; while that is away, {away}"));
    }
    line("audit", describe_audit(&config.audit));
    text
}

fn describe_audit(audit: &Audit) -> String {
    let outlives = match audit.durability {
        Durability::Batch => "a kill",
        Durability::Sync => "a power cut",
    };
    let otherwise = match audit.on_failure {
        OnFailure::Deny => "are refused",
        OnFailure::Allow => "go on",
    };
    let days = audit.retain.as_secs() / (24 * 60 * 60);
    let signed = if audit.signing_key.is_some() { ", signed" } else { "" };
    let shipped = audit.postgres.as_ref().map_or_else(String::new, |postgres| {
        format!("; shipped to PostgreSQL, URL {}", place(&postgres.url))
    });
    format!(
        "{} for {days} day(s){signed}; outlives {outlives}; requests without a record \
         {otherwise}{shipped}",
        audit.store.display()
    )
}

fn describe_tls(tls: &Tls) -> String {
    let clients = match &tls.client_auth {
        ClientAuth::Off => "callers are asked for no certificate".to_owned(),
        ClientAuth::Optional(trust) => {
            format!("callers may show a certificate of {}", trust.ca_file.display())
        }
        ClientAuth::Required(trust) => {
            format!("callers must show a certificate of {}", trust.ca_file.display())
        }
    };
    format!("over TCP, with {}; {clients}", tls.cert_file.display())
}

fn describe_identity(identity: &Identity, is_default: bool) -> String {
    let default = if is_default { ", the default" } else { "" };
    let ahead = match identity.refresh_ahead {
        RefreshAhead::Share(share) => format!("{:.0} % of its life", share * 100.0),
        RefreshAhead::Before(ahead) => format!("{ahead:?}"),
    };
    let who = match &identity.credentials {
        Credentials::Password { username, password, user_type, totp } => {
            let factor = if totp.is_some() { ", with TOTP" } else { "" };
            let role = user_type.name();
            format!("{username} as {role}, password {}{factor}", place(password))
        }
        Credentials::ApiToken(token) => format!("API token {}", place(token)),
    };
    format!("{}{default}: {who}; renewed {ahead} ahead", identity.name)
}

fn place(secret: &Secret) -> String {
    match secret {
        Secret::Inline(_) => "given directly".into(),
        Secret::File(path) => format!("from {}", path.display()),
    }
}

fn describe_caller(caller: &Caller, config: &Config) -> String {
    let mut ways = Vec::new();
    match caller.api_key_hashes.len() {
        0 => {}
        1 => ways.push("by its API key".to_owned()),
        count => ways.push(format!("by {count} API keys")),
    }
    ways.extend(caller.spiffe_id.as_ref().map(|id| format!("by certificate as {id}")));
    ways.extend(caller.san.as_ref().map(|name| format!("by certificate as {name}")));
    ways.extend(caller.unix_uid.map(|uid| format!("as user {uid} on a unix listener")));
    ways.extend(caller.jwt_subject.as_ref().map(|subject| format!("by token as {subject}")));
    if ways.is_empty() {
        ways.push("who shows nothing, on this machine".to_owned());
    }
    let known_by = ways.join(", or ");
    let identity = config.identities.get(caller.identity).map_or("", |identity| &*identity.name);
    let rate = caller.rate.map_or_else(
        || "any number of requests".to_owned(),
        |rate| format!("{} requests in {:?}", rate.count, rate.per),
    );
    format!("{} ({known_by}), as `{identity}`, {rate}", caller.name)
}
