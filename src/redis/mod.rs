//! A connection to Redis or Valkey, on which scripts are run.

#[cfg(test)]
pub(crate) mod testing;

use std::{
    fmt, io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use redis::{
    Client, ConnectionAddr, ErrorKind, FromRedisValue, RedisError, Script, TlsCertificates,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout_at};

/// How long connecting may take, and how long an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Connects when it is first used, and again whenever it must.
pub struct Link {
    client: Client,
    /// The setting that its URL comes from.
    setting: &'static str,
    manager: Mutex<Option<ConnectionManager>>,
}

/// Why a link cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Not the library's own words: they may repeat the password.
    #[error("the URL is none of a Redis")]
    Url,
    /// There are no roots.
    #[error("{0}")]
    Roots(#[source] io::Error),
}

/// Redis was of no help: what happened, without the URL and what is in it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub Arc<str>);

impl Link {
    /// A link to `url`, which comes from `setting`; TLS trusts `ca_file` too. Asks nobody yet: a Redis
    /// that is down is no reason not to start.
    ///
    /// # Errors
    ///
    /// See [`LinkError`].
    pub fn open(
        url: &SecretString,
        ca_file: Option<&Path>,
        setting: &'static str,
    ) -> Result<Self, LinkError> {
        let client = Client::open(url.expose_secret()).map_err(|_| LinkError::Url)?;
        let info = client.get_connection_info();
        let client = match info.addr() {
            // Whoever can be anybody is told nothing.
            ConnectionAddr::TcpTls { insecure: true, .. } => return Err(LinkError::Url),
            ConnectionAddr::TcpTls { .. } => {
                let root_cert = Some(roots(ca_file).map_err(LinkError::Roots)?);
                let certificates = TlsCertificates { client_tls: None, root_cert };
                Client::build_with_tls(info.clone(), certificates).map_err(|_| LinkError::Url)?
            }
            _ => client,
        };
        Ok(Self { client, setting, manager: Mutex::default() })
    }

    /// Runs `script`, once more if the connection turns out to be broken; gives up after `within`.
    ///
    /// # Errors
    ///
    /// What happened instead. The script may have run even so.
    pub async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &[&[u8]],
        within: Duration,
    ) -> Result<T, Unavailable> {
        let deadline = Instant::now() + within;
        let mut call = script.prepare_invoke();
        keys.iter().for_each(|key| {
            call.key(key);
        });
        arguments.iter().for_each(|argument| {
            call.arg(argument);
        });
        let mut again = true;
        loop {
            let mut manager = self.manager().map_err(|error| self.unavailable(&error))?;
            let result = timeout_at(deadline, call.invoke_async(&mut manager)).await;
            let error = match result {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                Err(_) => io::Error::from(io::ErrorKind::TimedOut).into(),
            };
            // Also after answers: one that has become a replica does not say that it is none.
            *self.lock() = None;
            if !(again && error.is_connection_dropped()) {
                return Err(self.unavailable(&error));
            }
            again = false;
        }
    }

    fn manager(&self) -> Result<ConnectionManager, RedisError> {
        let mut manager = self.lock();
        if let Some(manager) = &*manager {
            return Ok(manager.clone());
        }
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let new = ConnectionManager::new_lazy_with_config(self.client.clone(), config)?;
        Ok(manager.insert(new).clone())
    }

    /// What happened, without the URL and what is in it.
    fn unavailable(&self, error: &RedisError) -> Unavailable {
        let what = match (error.kind(), error.code()) {
            _ if error.is_timeout() => "Redis does not answer".to_owned(),
            (ErrorKind::AuthenticationFailed, _) => {
                format!("Redis refuses the user name or the password of {}", self.setting)
            }
            (_, Some(code)) => format!("Redis answers {code}"),
            (ErrorKind::Io, None) => format!("Redis cannot be reached: {error}"),
            (_, None) => format!("Redis cannot be used: {}", error.category()),
        };
        Unavailable(what.into())
    }

    fn lock(&self) -> MutexGuard<'_, Option<ConnectionManager>> {
        self.manager.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The system's roots and those of `ca_file`, as PEM.
fn roots(ca_file: Option<&Path>) -> io::Result<Vec<u8>> {
    let extra = ca_file.map(certificates).transpose()?.unwrap_or_default();
    let mut pem = String::new();
    for certificate in rustls_native_certs::load_native_certs().certs.into_iter().chain(extra) {
        // One that cannot be a root spoils the others.
        if RootCertStore::empty().add(certificate.clone()).is_ok() {
            let body = STANDARD.encode(&certificate);
            pem.push_str("-----BEGIN CERTIFICATE-----\n");
            pem.push_str(&body);
            pem.push_str("\n-----END CERTIFICATE-----\n");
        }
    }
    Ok(pem.into_bytes())
}

fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(io::Error::other)?;
    if certificates.is_empty() {
        return Err(io::Error::other("it holds no certificate"));
    }
    Ok(certificates)
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}
