//! `[server.tls]`: what callers are shown, and what they have to show.

use std::path::{Path, PathBuf};

use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use super::{ClientAuth, Tls, parse, read::Reader};

impl Reader<'_> {
    /// `None` without that section, and where it cannot be used, which is then among the findings.
    pub(super) fn tls(&mut self) -> Option<Tls> {
        const KEYS: [&str; 5] =
            ["cert_file", "key_file", "client_ca_file", "client_auth", "client_crl_file"];
        let path = |key: &str| format!("server.tls.{key}");
        if KEYS.iter().all(|key| self.value(&path(key)).is_none()) {
            return None;
        }
        let words = [
            ("off", ClientAuth::Off),
            ("optional", ClientAuth::Optional),
            ("required", ClientAuth::Required),
        ];
        let mut file = |key: &str| {
            let path = self.maybe(&path(key), parse::optional(parse::text)).flatten();
            path.map(PathBuf::from)
        };
        let (cert, key) = (file("cert_file"), file("key_file"));
        let (client_ca, client_crl) = (file("client_ca_file"), file("client_crl_file"));
        let client_auth = match self.value(&path("client_auth")) {
            Some(_) => self.word(&path("client_auth"), &words)?,
            None => ClientAuth::Off,
        };
        for (missing, key) in [(cert.is_none(), "cert_file"), (key.is_none(), "key_file")] {
            if missing {
                self.missing("server.tls", key, "TLS needs a certificate and its key");
            }
        }
        if client_auth != ClientAuth::Off && client_ca.is_none() {
            let why = "client certificates are checked against these authorities";
            self.missing("server.tls", "client_ca_file", why);
        }
        let tls = Tls { cert: cert?, key: key?, client_ca, client_auth, client_crl };
        self.check_tls(&tls).then_some(tls)
    }

    /// Whether everything can be read, and the key is that of the certificate.
    fn check_tls(&mut self, tls: &Tls) -> bool {
        let mut good = true;
        let mut wrong = |reader: &mut Self, key: &str, error: String| {
            reader.wrong(&format!("server.tls.{key}"), error);
            good = false;
        };
        let certificates = certificates(&tls.cert);
        let key = private_key(&tls.key);
        match (certificates, key) {
            (Ok(certificates), Ok(key)) => {
                let provider = aws_lc_rs::default_provider();
                if let Err(error) = CertifiedKey::from_der(certificates, key, &provider) {
                    wrong(self, "key_file", format!("not the key of the certificate: {error}"));
                }
            }
            (certificates, key) => {
                certificates.err().into_iter().for_each(|it| wrong(self, "cert_file", it));
                key.err().into_iter().for_each(|it| wrong(self, "key_file", it));
            }
        }
        if let Some(Err(error)) = tls.client_ca.as_deref().map(self::certificates) {
            wrong(self, "client_ca_file", error);
        }
        if let Some(Err(error)) = tls.client_crl.as_deref().map(revocation_lists) {
            wrong(self, "client_crl_file", error);
        }
        good
    }
}

/// The certificates of a PEM file, in their order.
///
/// # Errors
///
/// Why there are none.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    some(path, "certificate", CertificateDer::pem_file_iter(path))
}

/// The revocation lists of a PEM file.
///
/// # Errors
///
/// Why there are none.
pub fn revocation_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    some(path, "revocation list", CertificateRevocationListDer::pem_file_iter(path))
}

/// The private key of a PEM file.
///
/// # Errors
///
/// Why there is none.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|error| format!("{} holds no private key in PEM: {error}", path.display()))
}

fn some<T, E: std::fmt::Display>(
    path: &Path,
    what: &str,
    items: Result<impl Iterator<Item = Result<T, E>>, E>,
) -> Result<Vec<T>, String> {
    let items = items.and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let items = items.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    if items.is_empty() {
        return Err(format!("{} holds no {what} in PEM", path.display()));
    }
    Ok(items)
}
