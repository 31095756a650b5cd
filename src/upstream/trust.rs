//! Whom we trust when we connect: whoever the system trusts, and whom a setting names besides.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};
use rustls_platform_verifier::Verifier;

use crate::message::BoxError;

/// How to speak TLS as a client that trusts the system's roots and those in `ca_file` (PEM), which
/// is what `setting` says.
///
/// # Errors
///
/// A sentence with the setting and the file, if there are no certificates in it.
pub fn client(setting: &str, ca_file: Option<&Path>) -> Result<ClientConfig, BoxError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let extra = ca_file.map(|path| roots(setting, path)).transpose()?.unwrap_or_default();
    let verifier = Verifier::new_with_extra_roots(extra, Arc::clone(&provider))?;
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous() // rustls' word for any verifier but its own; this one is the platform's
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

fn roots(setting: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, BoxError> {
    let unreadable = |error| format!("cannot read {setting} {}: {error}", path.display());
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable)?;
    if certificates.is_empty() {
        return Err(format!("{setting} {} holds no certificate", path.display()).into());
    }
    Ok(certificates)
}
