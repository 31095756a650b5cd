//! TLS towards callers: certificates, and their replacement while everything goes on.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::CertificateDer,
    server::{
        NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier, danger::ClientCertVerifier,
    },
};
use tokio::{net::TcpStream, time::sleep};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use crate::{
    clock::Clock,
    config::{self, ClientAuth, tls},
    message::{BoxError, Certificate},
};

/// Files are looked at so often; what has changed has to look the same twice before it counts.
const LOOK: Duration = Duration::from_secs(1);
/// Whoever renews certificates has holidays: days ahead of expiry.
const WARNINGS: [i64; 3] = [14, 7, 1];
/// No honest certificate has more names, or longer ones.
const MOST_NAMES: usize = 32;
const LONGEST_NAME: usize = 512;

/// Wraps callers' connections into TLS.
pub struct Tls {
    settings: config::Tls,
    ticketer: Arc<dyn ProducesTickets>,
    active: ArcSwap<Active>,
    /// When the certificate in force expires, in Unix time.
    expires: Arc<AtomicI64>,
    /// What the files were changed to, at the last look.
    candidate: Mutex<Option<blake3::Hash>>,
}

/// What is shown to callers at present.
struct Active {
    config: Arc<ServerConfig>,
    expires: Timestamp,
    /// Of the files it was made from.
    files: Option<blake3::Hash>,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[error("[server.tls] cannot be used")]
pub struct Error(#[from] BoxError);

impl Tls {
    /// Reads what `settings` name.
    ///
    /// # Errors
    ///
    /// [`Error`], with what is wrong as its cause.
    pub fn new(settings: &config::Tls) -> Result<Arc<Self>, Error> {
        let ticketer = aws_lc_rs::Ticketer::new().map_err(BoxError::from)?;
        let active = ArcSwap::from_pointee(Active::read(settings, &ticketer)?);
        let expires = active.load().expires.as_second();
        let expires = Arc::new(AtomicI64::new(expires));
        let (settings, candidate) = (settings.clone(), Mutex::default());
        Ok(Arc::new(Self { settings, ticketer, active, expires, candidate }))
    }

    /// When the certificate in force expires, in Unix time: follows each replacement.
    pub fn expires(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.expires)
    }

    /// Shakes hands; gives whom the caller's certificate names, if it has shown a good one.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<(Box<TlsStream<TcpStream>>, Option<Arc<Certificate>>)> {
        let config = Arc::clone(&self.active.load().config);
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = shown.map(named).transpose()?.map(Arc::new);
        Ok((Box::new(stream), certificate))
    }

    /// Replaces what is shown when its files change, until `stop`. What cannot be used replaces
    /// nothing.
    pub async fn watch(self: Arc<Self>, clock: Clock, stop: CancellationToken) {
        let mut warned = None;
        loop {
            self.warn_of_expiry(clock.now(), &mut warned);
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(LOOK) => {}
            }
            let tls = Arc::clone(&self);
            // Reading may wait for a disk, and parsing takes its time.
            let _ = tokio::task::spawn_blocking(move || tls.look()).await;
        }
    }

    fn look(&self) {
        // While a file is being replaced it may be missing.
        let Some(files) = hash_of(&self.settings) else { return };
        {
            let mut candidate = self.candidate.lock().unwrap_or_else(PoisonError::into_inner);
            if self.active.load().files == Some(files) {
                *candidate = None;
                return;
            }
            if candidate.replace(files) != Some(files) {
                return;
            }
        }
        match Active::read(&self.settings, &self.ticketer) {
            Ok(active) if active.files == Some(files) => {
                info!(expires = %active.expires, "certificate replaced");
                self.expires.store(active.expires.as_second(), Relaxed);
                self.active.store(Arc::new(active));
            }
            // It has changed again.
            Ok(_) => {}
            Err(Error(error)) => {
                error!(reason = error.to_string(), "new certificate is no use; the old one stays");
                let old = self.active.load();
                // Not again until something changes.
                let (config, expires) = (Arc::clone(&old.config), old.expires);
                self.active.store(Arc::new(Active { config, expires, files: Some(files) }));
            }
        }
    }

    fn warn_of_expiry(&self, now: Timestamp, warned: &mut Option<(Timestamp, i64)>) {
        let expires = self.active.load().expires;
        let rest = expires.duration_since(now);
        let due = |days: &&i64| rest <= SignedDuration::from_hours(24 * **days);
        let Some(days) = WARNINGS.iter().filter(due).min().copied() else { return };
        let said = warned.is_some_and(|(of, said)| of == expires && said <= days);
        if !said {
            *warned = Some((expires, days));
            warn!(%expires, hours = rest.as_hours(), "the certificate for callers expires soon");
        }
    }
}

impl Active {
    fn read(settings: &config::Tls, ticketer: &Arc<dyn ProducesTickets>) -> Result<Self, Error> {
        let files = hash_of(settings);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let certificates = tls::certificates(&settings.cert).map_err(BoxError::from)?;
        let key = tls::private_key(&settings.key).map_err(BoxError::from)?;
        let expires = certificates.first().and_then(|first| expiry(first));
        let expires = expires.ok_or_else(|| BoxError::from("the certificate cannot be read"))?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(BoxError::from)?;
        let builder = match client_verifier(settings, provider)? {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(certificates, key).map_err(BoxError::from)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if settings.client_auth == ClientAuth::Off {
            config.ticketer = Arc::clone(ticketer);
        } else {
            // A session that is resumed would bring a certificate along that is revoked by now.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Self { config: Arc::new(config), expires, files })
    }
}

fn client_verifier(
    settings: &config::Tls,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, BoxError> {
    let authorities = match (settings.client_auth, &settings.client_ca) {
        (ClientAuth::Off, _) | (_, None) => return Ok(None),
        (ClientAuth::Optional | ClientAuth::Required, Some(path)) => tls::certificates(path)?,
    };
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority)?;
    }
    let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if let Some(path) = &settings.client_crl {
        // Whoever issues certificates publishes a list: without one, nothing is known to be good.
        verifier =
            verifier.with_crls(tls::revocation_lists(path)?).only_check_end_entity_revocation();
    }
    if settings.client_auth == ClientAuth::Optional {
        verifier = verifier.allow_unauthenticated();
    }
    Ok(Some(verifier.build()?))
}

/// Tells whether any of the files has changed; nothing if one cannot be read.
fn hash_of(settings: &config::Tls) -> Option<blake3::Hash> {
    let config::Tls { cert, key, client_ca, client_crl, .. } = settings;
    let mut hasher = blake3::Hasher::new();
    for path in
        [Some(cert), Some(key), client_ca.as_ref(), client_crl.as_ref()].into_iter().flatten()
    {
        let bytes = std::fs::read(path).ok()?;
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(&bytes);
    }
    Some(hasher.finalize())
}

fn expiry(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// Whom a certificate names. Names are told in lower case, as they are compared.
fn named(certificate: &CertificateDer<'_>) -> io::Result<Certificate> {
    let unreadable = || io::Error::other("the client certificate cannot be read");
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| unreadable())?;
    let names = certificate.subject_alternative_name().map_err(|_| unreadable())?;
    let names = names.map(|names| &names.value.general_names[..]).unwrap_or_default();
    let uris: Vec<_> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    // A SPIFFE certificate has exactly one URI (X509-SVID section 2).
    let spiffe_id = match uris[..] {
        [uri] if uri.starts_with("spiffe://") && uri.len() <= LONGEST_NAME => Some(uri.into()),
        _ => None,
    };
    let names = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
            Some(*name)
        }
        _ => None,
    });
    let names = names.filter(|name| name.len() <= LONGEST_NAME).take(MOST_NAMES);
    let names = names.map(|name| name.to_ascii_lowercase().into()).collect();
    Ok(Certificate { spiffe_id, names })
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("settings", &self.settings).finish_non_exhaustive()
    }
}
