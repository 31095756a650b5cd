//! `[server.tls]`: what callers on the network are served with, and whether they prove who they are.

mod files;
mod material;

use std::path::PathBuf;

pub use self::{
    files::{FileError, Files, Unusable},
    material::Material,
};
use super::{ClientAuth, ClientTrust, Tls, load::value_at, parse, read::Reader};
use crate::clock::Clock;

/// The section.
const SECTION: &str = "server.tls";

#[derive(Clone, Copy, Eq, PartialEq)]
enum Word {
    Off,
    Optional,
    Required,
}

impl Reader<'_> {
    /// Nothing if there is no such section, or if something is wrong, which is then among the
    /// findings.
    pub(super) fn tls(&mut self) -> Option<Tls> {
        value_at(self.values, SECTION)?;
        let cert_file = self.tls_file("cert_file");
        let key_file = self.tls_file("key_file");
        let ca_file = self.tls_file("client_ca_file");
        let crl_file = self.tls_file("client_crl_file");
        for (key, file) in [("cert_file", &cert_file), ("key_file", &key_file)] {
            if file.is_none() {
                self.missing(SECTION, key, "TLS needs a certificate and its key");
            }
        }
        let words =
            [("off", Word::Off), ("optional", Word::Optional), ("required", Word::Required)];
        let auth = match value_at(self.values, "server.tls.client_auth") {
            Some(_) => self.word("server.tls.client_auth", &words)?,
            None => Word::Off,
        };
        if auth == Word::Off && (ca_file.is_some() || crl_file.is_some()) {
            self.warn("[server.tls] asks nobody for a certificate (client_auth is \"off\"): client_ca_file and client_crl_file do nothing");
        }
        if auth != Word::Off && ca_file.is_none() {
            let why = "nobody is trusted to say who clients are";
            self.missing(SECTION, "client_ca_file", why);
        }
        let trust = |ca_file| ClientTrust { ca_file, crl_file };
        let tls = Tls {
            cert_file: cert_file?,
            key_file: key_file?,
            client_auth: match auth {
                Word::Off => ClientAuth::Off,
                Word::Optional => ClientAuth::Optional(trust(ca_file?)),
                Word::Required => ClientAuth::Required(trust(ca_file?)),
            },
        };
        self.prove(&tls)?;
        Some(tls)
    }

    fn tls_file(&mut self, key: &str) -> Option<PathBuf> {
        let path = format!("{SECTION}.{key}");
        value_at(self.values, &path)?;
        self.read(&path, parse::optional(parse::text)).flatten().map(PathBuf::from)
    }

    /// Whether it could be served with now.
    fn prove(&mut self, tls: &Tls) -> Option<()> {
        match tls.look().and_then(|files| tls.assemble(&files)) {
            Ok(material) => {
                for warning in material.warnings(Clock::system().now()) {
                    self.warn(&warning);
                }
                Some(())
            }
            Err(Unusable(errors)) => {
                for error in errors {
                    self.wrong(error.setting, error.reason);
                }
                None
            }
        }
    }
}
