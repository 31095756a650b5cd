//! One connection to PostgreSQL.

use std::{fmt::Write, future::Future, path::Path, time::Duration};

use secrecy::SecretString;
use tokio::time::timeout;
use tokio_postgres::{
    Client,
    config::{Host, SslMode},
};
use tokio_util::task::AbortOnDropHandle;

use super::{error::Error, tls::Tls};
use crate::config;

/// How long it may take to connect.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer may take. Longer than a batch ever needs, also on a machine that is busy.
const ANSWER: Duration = Duration::from_secs(60);
/// After so much silence it is asked whether anybody is there.
const SILENCE: Duration = Duration::from_secs(20);

/// A connection, which ends when it is dropped.
pub(super) struct Link {
    pub(super) client: Client,
    driver: AbortOnDropHandle<()>,
}

impl Link {
    /// Connects to where `postgres` says.
    pub(super) async fn open(
        mut postgres: tokio_postgres::Config,
        ca_file: Option<&Path>,
    ) -> Result<Self, Error> {
        postgres.application_name("amove-gateway");
        postgres.keepalives_idle(SILENCE).keepalives_interval(SILENCE / 4).keepalives_retries(3);
        if postgres.get_tcp_user_timeout().is_none() {
            postgres.tcp_user_timeout(ANSWER);
        }
        let connected = async {
            if postgres.get_ssl_mode() == SslMode::Disable {
                let (client, connection) = postgres.connect(tokio_postgres::NoTls).await?;
                return Ok(Self { client, driver: drive(connection) });
            }
            let tls = Tls::new(ca_file).map_err(Error::Roots)?;
            let (client, connection) = postgres.connect(tls).await?;
            Ok(Self { client, driver: drive(connection) })
        };
        timeout(CONNECT, connected).await.map_err(|_| Error::Silent)?
    }

    /// Waits for an answer, but not for ever.
    pub(super) async fn answer<T>(
        &self,
        asked: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Error> {
        Ok(timeout(ANSWER, asked).await.map_err(|_| Error::Silent)??)
    }

    /// Waits until the connection has ended.
    pub(super) async fn ended(&mut self) {
        let _ = (&mut self.driver).await;
    }
}

fn drive(
    connection: impl Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        // Whoever waits for an answer is told as well, and says so.
        if let Err(error) = connection.await {
            tracing::debug!(reason = super::error::words(&error), "connection to PostgreSQL lost");
        }
    }))
}

/// What `url` means.
pub(super) fn postgres(url: &SecretString) -> Result<tokio_postgres::Config, Error> {
    config::postgres(url).map_err(Error::Url)
}

/// Where that is: hosts and database, without who one is there.
pub(super) fn place(postgres: &tokio_postgres::Config) -> String {
    let mut place = String::new();
    let ports = postgres.get_ports();
    for (at, host) in postgres.get_hosts().iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        // A text can always be written to.
        let _ = match host {
            Host::Tcp(name) => write!(place, "{comma}{name}:{port}"),
            Host::Unix(path) => write!(place, "{comma}{}:{port}", path.display()),
        };
    }
    let database = postgres.get_dbname().or(postgres.get_user()).unwrap_or_default();
    place + "/" + database
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_says_where_and_not_who() {
        let of = |url: &str| place(&postgres(&url.into()).expect("a URL"));

        assert_eq!(of("postgres://u:canary@a,b:1/audit"), "a:5432,b:1/audit");
        assert_eq!(of("postgres://u:canary@/audit?host=/run/x"), "/run/x:5432/audit");
    }
}
