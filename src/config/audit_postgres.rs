//! `[audit.postgres]`: the central store, and what its URL means.

use std::{net::IpAddr, path::PathBuf};

use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::config::{Host, SslMode};

use super::{AuditPostgres, parse, read::Reader};

/// Only URLs: what else libpq takes cannot be told from a typing error.
const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

impl Reader<'_> {
    /// Nothing if there is no central store, or what is set is wrong, which is then among the
    /// findings.
    pub(super) fn audit_postgres(&mut self) -> Option<AuditPostgres> {
        let url = self.secret("audit.postgres.url");
        let ca_file = self.read("audit.postgres.ca_file", parse::optional(parse::text)).flatten();
        let ca_file = ca_file.map(PathBuf::from);
        if let Some(path) = &ca_file
            && let Err(error) = std::fs::File::open(path)
        {
            self.wrong("audit.postgres.ca_file", format!("this file cannot be read: {error}"));
        }
        let url = url?;
        match postgres(&url.read().ok()?) {
            Ok(postgres) if is_exposed(&postgres) => self.warn(
                "audit.postgres.url: without TLS, records travel in the clear; sslmode=require \
                 encrypts and verifies",
            ),
            Ok(_) => {}
            Err(expected) => {
                let form = self.form_of("audit.postgres.url");
                self.wrong(&form, expected);
            }
        }
        Some(AuditPostgres { url, ca_file })
    }
}

/// What a `postgres://` URL means. TLS always verifies who answers: `sslmode` can be `disable`,
/// `prefer` (if it is offered), or `require`, with `verify-ca` and `verify-full` as other words for
/// it. Where it is not said, it is required, except on this machine.
///
/// # Errors
///
/// What would have been right; never a part of the URL.
pub fn postgres(url: &SecretString) -> Result<tokio_postgres::Config, &'static str> {
    const EXPECTED: &str = "expected postgres://USER:PASSWORD@HOST/DATABASE";
    let url = url.expose_secret();
    if !SCHEMES.iter().any(|scheme| url.starts_with(scheme)) {
        return Err(EXPECTED);
    }
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let options = query.split('&').filter(|option| !option.is_empty());
    let (mut said, mut options) = (false, options.collect::<Vec<_>>());
    for option in &mut options {
        match option.split_once('=') {
            Some(("sslmode", mode)) => {
                said = true;
                match mode {
                    "verify-ca" | "verify-full" => *option = "sslmode=require",
                    "disable" | "prefer" | "require" => {}
                    _ => return Err("expected sslmode=disable, prefer, require or verify-full"),
                }
            }
            Some(("sslrootcert", _)) => return Err("roots are named by audit.postgres.ca_file"),
            Some(("sslcert" | "sslkey" | "sslpassword", _)) => {
                return Err("client certificates are not supported here: expected a password");
            }
            _ => {}
        }
    }
    // Not the library's own words: they may repeat the password.
    let url = zeroizing(base, &options);
    let mut postgres: tokio_postgres::Config = url.parse().map_err(|_| EXPECTED)?;
    if postgres.get_hosts().is_empty() {
        return Err(
            "expected a host; a unix socket is named so: postgres:///DATABASE?host=/run/postgresql",
        );
    }
    let (is_unix, is_here) = (postgres.get_hosts().iter().all(is_unix), is_here(&postgres));
    if is_unix || !said {
        postgres.ssl_mode(if is_here { SslMode::Disable } else { SslMode::Require });
    }
    Ok(postgres)
}

fn zeroizing(base: &str, options: &[&str]) -> secrecy::zeroize::Zeroizing<String> {
    let query = options.join("&");
    secrecy::zeroize::Zeroizing::new(format!("{base}?{query}"))
}

const fn is_unix(host: &Host) -> bool {
    matches!(host, Host::Unix(_))
}

/// Whether nothing leaves this machine.
fn is_here(postgres: &tokio_postgres::Config) -> bool {
    let is_loopback = |host: &String| {
        host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    };
    let hosts = postgres.get_hosts().iter().all(|host| match host {
        Host::Tcp(name) => is_loopback(name),
        Host::Unix(_) => true,
    });
    hosts && postgres.get_hostaddrs().iter().all(IpAddr::is_loopback)
}

/// Whether others may read along.
fn is_exposed(postgres: &tokio_postgres::Config) -> bool {
    postgres.get_ssl_mode() != SslMode::Require && !is_here(postgres)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn mode(url: &str, expected: Result<SslMode, ()>) {
        let mode = postgres(&url.into()).map(|postgres| postgres.get_ssl_mode());
        assert_eq!(mode.map_err(drop), expected, "{url}");
    }

    #[test]
    fn tls_is_required_unless_nothing_leaves_the_machine_or_it_is_said() {
        mode("postgres://u:p@db.corp/audit", Ok(SslMode::Require));
        mode("postgresql://u:p@10.0.0.1:5433/audit", Ok(SslMode::Require));
        mode("postgres://u:p@db.corp/audit?sslmode=disable", Ok(SslMode::Disable));
        mode("postgres://u:p@db.corp/audit?sslmode=prefer", Ok(SslMode::Prefer));
        mode("postgres://db.corp/audit?sslmode=verify-full&user=u", Ok(SslMode::Require));
        mode("postgres://u:p@localhost/audit", Ok(SslMode::Disable));
        mode("postgres://u:p@127.0.0.1,[::1]/audit", Ok(SslMode::Disable));
        mode("postgres://u:p@127.0.0.1,db.corp/audit", Ok(SslMode::Require));
        mode("postgres://u:p@127.0.0.1/audit?sslmode=require", Ok(SslMode::Require));
        mode("postgres:///audit?host=/run/postgresql&sslmode=require", Ok(SslMode::Disable));
        mode("postgres://u@%2Frun%2Fpostgresql/audit", Ok(SslMode::Disable));
    }

    #[test]
    fn what_is_no_url_of_postgresql_is_refused_without_being_repeated() {
        for url in [
            "",
            "mysql://u:canary@h/d",
            "host=h password=canary",
            "postgres://u:canary@h:port/d",
            "postgres://u:canary@h/d?sslmode=allow",
            "postgres://u:canary@h/d?sslrootcert=/ca.pem",
            "postgres://u:canary@h/d?unheard=of",
            "postgres:///d",
        ] {
            let expected = postgres(&url.into()).expect_err(url);
            assert!(!expected.contains("canary"), "{expected}");
        }
    }
}
