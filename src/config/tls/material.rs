//! What the files of `[server.tls]` say → what connections are served with.

use std::{path::Path, sync::Arc};

use jiff::Timestamp;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject},
    server::{
        NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier,
        danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
};
use x509_parser::{
    certificate::X509Certificate, prelude::FromDer, revocation_list::CertificateRevocationList,
};

use super::files::{CA, CERT, CRL, FileError, Files, KEY, Unusable};
use crate::config::{ClientAuth, ClientTrust, Tls};

/// The protocols that a client may choose from, the better one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What connections are served with.
#[derive(Clone, Debug)]
pub struct Material {
    /// What a handshake needs.
    pub server: Arc<ServerConfig>,
    /// From when the certificate is good.
    pub begins: Timestamp,
    /// Until when the certificate is good.
    pub expires: Timestamp,
    /// When the first of the revocation lists was to be followed by another.
    pub crl_due: Option<Timestamp>,
}

impl Tls {
    /// What `files` say.
    ///
    /// # Errors
    ///
    /// [`Unusable`]: those that make no sense, or do not go together.
    pub fn assemble(&self, files: &Files) -> Result<Material, Unusable> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let own = self.own(files, &provider);
        let clients = self.clients(files, &provider);
        let ((chain, key), (verifier, crl_due)) = both(own, clients)?;
        let (begins, expires) =
            validity(&chain).map_err(|reason| self.unusable_certificate(reason))?;
        let assembled = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder.with_client_cert_verifier(verifier).with_single_cert(chain, key)
            });
        let mut server = assembled.map_err(|error| self.unusable_certificate(error.to_string()))?;
        server.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        if self.client_auth.trust().is_some() {
            // A session that is resumed is not verified again: a client whose certificate was
            // revoked or has expired would come back with a ticket.
            server.session_storage = Arc::new(NoServerSessionStorage {});
            server.send_tls13_tickets = 0;
        } else {
            // Its keys change by themselves, and with the certificate.
            server.ticketer = aws_lc_rs::Ticketer::new()
                .map_err(|error| self.unusable_certificate(error.to_string()))?;
        }
        Ok(Material { server: Arc::new(server), begins, expires, crl_due })
    }

    fn own(&self, files: &Files, provider: &CryptoProvider) -> Result<Own, FileError> {
        let wrong = |setting, path: &Path, reason: &str| FileError {
            setting,
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let chain = certificates(&files.certificate)
            .map_err(|reason| wrong(CERT, &self.cert_file, &reason))?;
        let wrong_key = |reason: &str| wrong(KEY, &self.key_file, reason);
        let key = PrivateKeyDer::from_pem_slice(&files.key)
            .map_err(|_| wrong_key("there is no private key in it (PEM, and not encrypted)"))?;
        match CertifiedKey::from_der(chain.clone(), key.clone_key(), provider) {
            Ok(_) => Ok((chain, key)),
            Err(rustls::Error::InconsistentKeys(_)) => Err(wrong_key(
                "this is not the key of the first certificate in server.tls.cert_file",
            )),
            Err(rustls::Error::InvalidCertificate(error)) => {
                let reason = format!("its first certificate cannot be used: {error:?}");
                Err(wrong(CERT, &self.cert_file, &reason))
            }
            Err(error) => Err(wrong_key(&format!("this key cannot be used: {error}"))),
        }
    }

    fn clients(&self, files: &Files, provider: &Arc<CryptoProvider>) -> Result<Clients, FileError> {
        let Some(trust) = self.client_auth.trust() else {
            return Ok((WebPkiClientVerifier::no_client_auth(), None));
        };
        let wrong_ca = |reason| FileError { setting: CA, path: trust.ca_file.clone(), reason };
        let mut roots = RootCertStore::empty();
        for root in certificates(&files.ca).map_err(wrong_ca)? {
            roots
                .add(root)
                .map_err(|error| wrong_ca(format!("not a CA's certificate: {error}")))?;
        }
        let (lists, crl_due) = revocation_lists(trust, files)?;
        // Lists that are silent about a CA say nothing against its certificates, and one that is
        // out of date still names those that were revoked: better than a gateway that nobody
        // reaches. What cannot be read, however, is never ignored.
        let builder =
            WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(provider))
                .with_crls(lists)
                .allow_unknown_revocation_status();
        let builder = match self.client_auth {
            ClientAuth::Optional(_) => builder.allow_unauthenticated(),
            ClientAuth::Off | ClientAuth::Required(_) => builder,
        };
        let verifier = builder.build().map_err(|error| match error {
            VerifierBuilderError::InvalidCrl(error) => wrong_crl(trust, &format!("{error:?}")),
            error => wrong_ca(error.to_string()),
        })?;
        Ok((verifier, crl_due))
    }

    fn unusable_certificate(&self, reason: String) -> Unusable {
        Unusable(vec![FileError { setting: CERT, path: self.cert_file.clone(), reason }])
    }
}

/// What we prove ourselves with.
type Own = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Who proves clients, and when its lists are due.
type Clients = (Arc<dyn ClientCertVerifier>, Option<Timestamp>);

impl Material {
    /// What is unwise about serving with it at `now`.
    pub fn warnings(&self, now: Timestamp) -> Vec<String> {
        let (begins, expires) = (self.begins, self.expires);
        let mut warnings = Vec::new();
        if expires <= now {
            warnings.push(format!("the certificate of {CERT} has expired at {expires}"));
        }
        if begins > now {
            warnings.push(format!("the certificate of {CERT} is not good before {begins}"));
        }
        if let Some(due) = self.crl_due.filter(|due| *due <= now) {
            warnings
                .push(format!("{CRL} is out of date since {due}: it may lack what was revoked"));
        }
        warnings
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err("there is no certificate in it (PEM)".into()),
        Err(error) => Err(format!("this is not PEM: {error}")),
    }
}

type RevocationLists = (Vec<CertificateRevocationListDer<'static>>, Option<Timestamp>);

fn revocation_lists(trust: &ClientTrust, files: &Files) -> Result<RevocationLists, FileError> {
    if trust.crl_file.is_none() {
        return Ok((Vec::new(), None));
    }
    let lists = CertificateRevocationListDer::pem_slice_iter(&files.crl)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong_crl(trust, &format!("this is not PEM: {error}")))?;
    if lists.is_empty() {
        return Err(wrong_crl(trust, "there is no revocation list in it (PEM)"));
    }
    let due = |list: &CertificateRevocationListDer<'_>| {
        let (_, list) = CertificateRevocationList::from_der(list).ok()?;
        Timestamp::from_second(list.next_update()?.timestamp()).ok()
    };
    let first_due = lists.iter().filter_map(due).min();
    Ok((lists, first_due))
}

fn wrong_crl(trust: &ClientTrust, reason: &str) -> FileError {
    let path = trust.crl_file.clone().unwrap_or_default();
    FileError { setting: CRL, path, reason: reason.to_owned() }
}

/// From when to when the first certificate of `chain` is good.
fn validity(chain: &[CertificateDer<'_>]) -> Result<(Timestamp, Timestamp), String> {
    let own = chain.first().map(|own| X509Certificate::from_der(own));
    let Some(Ok((_, own))) = own else {
        return Err("its first certificate cannot be read".into());
    };
    let moment = |seconds| Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
    let validity = own.validity();
    Ok((moment(validity.not_before.timestamp()), moment(validity.not_after.timestamp())))
}

/// Both, or everything that is wrong.
fn both<A, B>(a: Result<A, FileError>, b: Result<B, FileError>) -> Result<(A, B), Unusable> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (a, b) => Err(Unusable(a.err().into_iter().chain(b.err()).collect())),
    }
}
