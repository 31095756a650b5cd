//! Who may call: credentials and peer → caller.

pub mod api_key;
pub mod jwt;

use std::{collections::HashMap, sync::Arc};

use subtle::ConstantTimeEq;

use self::jwt::{Verdict, Verifier};
use crate::{
    clock::Clock,
    config,
    message::{Certificate, Peer},
};

/// One who may call us.
#[derive(Debug)]
pub struct Caller {
    /// Its name in the configuration; `local` where none are configured.
    pub name: Arc<str>,
    /// Position among the configured callers: what is kept for each caller is found by it.
    pub index: usize,
    /// Whom it is to the API: position among the configured identities.
    pub identity: usize,
    /// The name of that identity.
    pub identity_name: Arc<str>,
}

/// Why nobody was recognised.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unknown {
    /// No credentials came.
    #[error("no credentials were presented")]
    Missing,
    /// Credentials came, and they are nobody's.
    #[error("the credentials that were presented are nobody's")]
    Wrong,
    /// A key of ours came, with a letter that is wrong.
    #[error("the key that was presented is misspelt or cut off")]
    Misspelt,
    /// A token came that was signed with a key that is not known, or not yet.
    #[error("the token that was presented is signed with a key that the issuer does not show")]
    UnknownKey,
    /// The certificate is good, and it is nobody's here.
    #[error("the client certificate names no caller")]
    Unmapped,
}

/// Everyone who may call.
#[derive(Debug, Default)]
pub struct Callers {
    by_uid: HashMap<u32, Arc<Caller>>,
    by_spiffe_id: HashMap<Box<str>, Arc<Caller>>,
    by_name: HashMap<Box<str>, Arc<Caller>>,
    by_key: HashMap<[u8; 32], Arc<Caller>>,
    by_subject: HashMap<Box<str>, Arc<Caller>>,
    verifier: Option<Arc<Verifier>>,
    /// Who calls without credentials from this machine.
    local: Option<Arc<Caller>>,
    /// Who calls without credentials from anywhere: only where the policy says so.
    anyone: Option<Arc<Caller>>,
}

impl Callers {
    /// The callers that `config` names.
    ///
    /// # Errors
    ///
    /// When the way to the issuer of their tokens cannot be prepared.
    pub fn new(config: &config::Config, clock: &Clock) -> Result<Self, jwt::KeysError> {
        let mut callers = Self::of(config);
        let verifier = |config| Verifier::new(config, clock.clone());
        callers.verifier = config.caller_jwt.as_ref().map(verifier).transpose()?;
        Ok(callers)
    }

    /// The callers that `config` names, whose issuer is the same as before: what is known of its
    /// keys stays known.
    #[must_use]
    pub fn under(&self, config: &config::Config) -> Self {
        Self { verifier: self.verifier.clone(), ..Self::of(config) }
    }

    fn of(config: &config::Config) -> Self {
        let caller = |name: &Arc<str>, index: usize, identity: usize| {
            let identity_name = config.identities.get(identity).map(|i| Arc::clone(&i.name));
            Arc::new(Caller {
                name: Arc::clone(name),
                index,
                identity,
                identity_name: identity_name.unwrap_or_default(),
            })
        };
        let mut callers = Self::default();
        callers.local = config.callers.is_empty().then(|| caller(&"local".into(), 0, 0));
        for (index, configured) in config.callers.iter().enumerate() {
            callers.add(configured, &caller(&configured.name, index, configured.identity));
        }
        let anyone = config.policy.allow_unauthenticated_network;
        callers.anyone = callers.local.clone().filter(|_| anyone);
        callers
    }

    fn add(&mut self, configured: &config::Caller, caller: &Arc<Caller>) {
        let config::Caller { api_key_hashes, spiffe_id, san, unix_uid, jwt_subject, .. } =
            configured;
        self.by_subject.extend(jwt_subject.clone().map(|it| (it, Arc::clone(caller))));
        let keys = api_key_hashes.iter().map(|hash| (*hash, Arc::clone(caller)));
        self.by_key.extend(keys);
        self.by_spiffe_id.extend(spiffe_id.clone().map(|id| (id, Arc::clone(caller))));
        self.by_name.extend(san.clone().map(|name| (name, Arc::clone(caller))));
        self.by_uid.extend(unix_uid.map(|uid| (uid, Arc::clone(caller))));
        if !configured.is_recognisable() {
            self.local = Some(Arc::clone(caller));
        }
    }

    /// Whether anybody has a key or a token.
    pub fn have_credentials(&self) -> bool {
        !self.by_key.is_empty() || self.verifier.is_some()
    }

    /// What proves tokens, where callers have some.
    pub fn verifier(&self) -> Option<&Arc<Verifier>> {
        self.verifier.as_ref()
    }

    /// Who calls from `peer` and presents `key`, or nothing. What the system or a certificate
    /// proves comes first: whoever is known by that need show no key.
    ///
    /// # Errors
    ///
    /// [`Unknown`]: the caller must not be told which it was, but for [`Unknown::Unmapped`].
    pub fn recognise(&self, key: Option<&[u8]>, peer: &Peer) -> Result<Arc<Caller>, Unknown> {
        if let Some(caller) = self.proven(peer) {
            return Ok(Arc::clone(caller));
        }
        let Some(key) = key else { return self.nobody(peer) };
        if let Some(verifier) = self.verifier.as_ref().filter(|_| Verifier::is_token(key)) {
            return match verifier.verify(key) {
                Verdict::Subject(subject) => {
                    self.by_subject.get(&*subject).cloned().ok_or(Unknown::Wrong)
                }
                Verdict::Refused => Err(Unknown::Wrong),
                Verdict::UnknownKey => Err(Unknown::UnknownKey),
            };
        }
        let hash = api_key::hash(key);
        // The map is searched by the hash, which tells nothing about the key; the comparison that
        // decides takes the same time wherever the two differ.
        match self.by_key.get_key_value(&hash) {
            Some((known, caller)) if bool::from(known.ct_eq(&hash)) => Ok(Arc::clone(caller)),
            _ if api_key::is_misspelt(key) => Err(Unknown::Misspelt),
            _ => Err(Unknown::Wrong),
        }
    }

    /// Who is known by the connection alone.
    fn proven(&self, peer: &Peer) -> Option<&Arc<Caller>> {
        match peer {
            Peer::Unix { uid } => self.by_uid.get(&(*uid)?),
            Peer::Tls { certificate, .. } => self.certified(certificate.as_deref()?),
            Peer::Tcp(_) => None,
        }
    }

    fn certified(&self, certificate: &Certificate) -> Option<&Arc<Caller>> {
        let id = certificate.spiffe_id.as_ref().and_then(|id| self.by_spiffe_id.get(id));
        let named = || {
            let mut callers = certificate.names.iter().filter_map(|name| self.by_name.get(name));
            let first = callers.next()?;
            // A certificate that names two callers is neither's.
            callers.all(|other| Arc::ptr_eq(first, other)).then_some(first)
        };
        id.or_else(named)
    }

    /// Who calls and shows nothing.
    fn nobody(&self, peer: &Peer) -> Result<Arc<Caller>, Unknown> {
        let nobody = if peer.is_local() { &self.local } else { &self.anyone };
        let is_certified = matches!(peer, Peer::Tls { certificate: Some(_), .. });
        let unknown = if is_certified { Unknown::Unmapped } else { Unknown::Missing };
        nobody.clone().ok_or(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn callers(local: bool, anyone: bool) -> Callers {
        let caller = |name: &str| {
            let (name, identity_name) = (name.into(), "main".into());
            Arc::new(Caller { name, index: 0, identity: 0, identity_name })
        };
        let nobody = local.then(|| caller("local"));
        Callers {
            by_uid: HashMap::from([(1000, caller("cron"))]),
            by_spiffe_id: HashMap::from([("spiffe://corp.test/media".into(), caller("media"))]),
            by_name: HashMap::from([
                ("reports.corp.test".into(), caller("reports")),
                ("sync.corp.test".into(), caller("sync")),
            ]),
            by_key: HashMap::from([(api_key::hash(b"key"), caller("billing"))]),
            anyone: nobody.clone().filter(|_| anyone),
            local: nobody,
            ..Callers::default()
        }
    }

    fn tcp(address: &str) -> Peer {
        Peer::Tcp(address.parse().unwrap())
    }

    fn tls(spiffe_id: Option<&str>, names: &[&str]) -> Peer {
        let names = names.iter().map(|name| (*name).into()).collect();
        let certificate = Certificate { spiffe_id: spiffe_id.map(Into::into), names };
        let certificate = Some(Arc::new(certificate));
        Peer::Tls { address: "10.0.0.1:1".parse().unwrap(), certificate }
    }

    #[track_caller]
    fn check(callers: &Callers, key: Option<&str>, peer: &Peer, expected: Result<&str, Unknown>) {
        let found = callers.recognise(key.map(str::as_bytes), peer);
        assert_eq!(found.as_ref().map(|caller| &*caller.name).map_err(|error| *error), expected);
    }

    #[test]
    fn a_key_tells_who_calls_and_a_wrong_one_is_nobody_even_from_here() {
        let here = tcp("127.0.0.1:1");

        check(&callers(true, true), Some("key"), &here, Ok("billing"));
        check(&callers(true, true), Some("kex"), &here, Err(Unknown::Wrong));
        check(&callers(true, true), Some(""), &here, Err(Unknown::Wrong));
        check(&callers(true, true), Some("amgw_x"), &here, Err(Unknown::Misspelt));
    }

    #[test]
    fn without_a_key_only_this_machine_is_let_in_and_only_where_that_is_configured() {
        let (here, mapped, there) =
            (tcp("127.0.0.9:1"), tcp("[::ffff:127.0.0.1]:1"), tcp("10.0.0.1:1"));

        check(&callers(true, false), None, &here, Ok("local"));
        check(&callers(true, false), None, &mapped, Ok("local"));
        check(&callers(true, false), None, &Peer::Unix { uid: None }, Ok("local"));
        check(&callers(true, false), None, &there, Err(Unknown::Missing));
        check(&callers(true, true), None, &there, Ok("local"));
        check(&callers(false, false), None, &here, Err(Unknown::Missing));
    }

    #[test]
    fn what_the_system_proves_comes_first() {
        let (cron, other) = (Peer::Unix { uid: Some(1000) }, Peer::Unix { uid: Some(1001) });

        check(&callers(true, false), None, &cron, Ok("cron"));
        check(&callers(true, false), Some("key"), &cron, Ok("cron"));
        check(&callers(true, false), Some("key"), &other, Ok("billing"));
        check(&callers(true, false), Some("kex"), &other, Err(Unknown::Wrong));
        check(&callers(true, false), None, &other, Ok("local"));
        check(&callers(false, false), None, &other, Err(Unknown::Missing));
    }

    #[test]
    fn a_certificate_tells_who_calls_if_it_names_one_caller() {
        let media = Some("spiffe://corp.test/media");
        let (reports, sync) = ("reports.corp.test", "sync.corp.test");
        let callers = callers(true, false);

        check(&callers, None, &tls(media, &[]), Ok("media"));
        check(&callers, None, &tls(media, &[reports]), Ok("media"));
        check(&callers, None, &tls(None, &["x.test", reports]), Ok("reports"));
        check(&callers, None, &tls(None, &[reports, sync]), Err(Unknown::Unmapped));
        check(&callers, None, &tls(Some("spiffe://corp.test/x"), &["x"]), Err(Unknown::Unmapped));
        check(&callers, Some("key"), &tls(None, &["x"]), Ok("billing"));
    }
}
