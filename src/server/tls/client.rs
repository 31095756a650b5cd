//! A client's certificate → whom it names. It has been verified when it comes here.

use rustls::pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use crate::message::Certificate;

/// More names are not kept.
const MAX_NAMES: usize = 32;

/// A longer name is not kept.
const MAX_NAME: usize = 512;

/// How a SPIFFE id begins.
const SPIFFE: &str = "spiffe://";

/// Whom `certificate` names. One that cannot be read names nobody.
pub(super) fn names(certificate: &CertificateDer<'_>) -> Certificate {
    let nobody = Certificate { spiffe_id: None, names: Vec::new() };
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return nobody };
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else { return nobody };
    named(&alternatives.value.general_names)
}

fn named(alternatives: &[GeneralName<'_>]) -> Certificate {
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(text) | GeneralName::RFC822Name(text) => {
            Some(text.to_ascii_lowercase()).filter(|text| is_plain(text))
        }
        GeneralName::URI(text) => Some((*text).to_owned()).filter(|text| is_plain(text)),
        _ => None,
    };
    let ids: Vec<_> = alternatives
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(text) => Some(*text).filter(|text| is_spiffe(text)),
            _ => None,
        })
        .collect();
    // With two of them, nobody could say which one is meant.
    let spiffe_id = match ids[..] {
        [id] if id.starts_with(SPIFFE) && is_plain(id) => Some(id.into()),
        _ => None,
    };
    Certificate {
        spiffe_id,
        names: alternatives.iter().filter_map(text).map(Into::into).take(MAX_NAMES).collect(),
    }
}

/// In any spelling, so that none hides beside another.
fn is_spiffe(uri: &str) -> bool {
    uri.get(..SPIFFE.len()).is_some_and(|start| start.eq_ignore_ascii_case(SPIFFE))
}

/// Whether a name can be compared and written down without surprises.
fn is_plain(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(alternatives: &[GeneralName<'_>], spiffe_id: Option<&str>, names: &[&str]) {
        let found = named(alternatives);

        assert_eq!(found.spiffe_id.as_deref(), spiffe_id, "{alternatives:?}");
        let found: Vec<_> = found.names.iter().map(|name| &**name).collect();
        assert_eq!(found, names, "{alternatives:?}");
    }

    #[test]
    fn a_certificate_names_what_stands_in_it_and_one_spiffe_id_at_most() {
        use GeneralName::{DNSName, IPAddress, RFC822Name, URI};
        let (billing, media) = ("spiffe://corp.test/billing", "spiffe://corp.test/media");

        check(&[], None, &[]);
        check(&[URI(billing)], Some(billing), &[billing]);
        check(
            &[DNSName("a.test"), RFC822Name("a@b.test"), URI("https://a.test"), URI(billing)],
            Some(billing),
            &["a.test", "a@b.test", "https://a.test", billing],
        );
        check(&[URI(billing), URI(media)], None, &[billing, media]);
        check(&[URI(billing), URI("SPIFFE://x")], None, &[billing, "SPIFFE://x"]);
        check(&[URI("SPIFFE://x")], None, &["SPIFFE://x"]);
        check(&[DNSName(billing)], None, &[billing]);
        check(
            &[DNSName("A.Test"), RFC822Name("A@b.TEST"), URI("https://a.test/B")],
            None,
            &["a.test", "a@b.test", "https://a.test/B"],
        );
        check(&[IPAddress(&[127, 0, 0, 1])], None, &[]);
        check(&[DNSName("a\0.test"), DNSName("a\n"), DNSName(""), DNSName("ä.test")], None, &[]);
    }

    #[test]
    fn a_certificate_is_read_within_bounds() {
        let (fits, long) = ("x".repeat(512), "x".repeat(513));
        let id = format!("{SPIFFE}{}", "x".repeat(512));
        check(
            &[GeneralName::DNSName(&fits), GeneralName::DNSName(&long), GeneralName::URI(&id)],
            None,
            &[&fits],
        );

        let last = "spiffe://corp.test/last";
        let many: Vec<_> = (0..40).map(|_| GeneralName::DNSName("a.test")).collect();
        check(&[&many[..], &[GeneralName::URI(last)]].concat(), Some(last), &["a.test"; 32]);
    }

    #[test]
    fn a_certificate_that_cannot_be_read_names_nobody() {
        let found = names(&CertificateDer::from(&b"no certificate"[..]));

        assert_eq!(found, Certificate { spiffe_id: None, names: Vec::new() });
    }
}
