//! Who may call: credentials and peer → caller.

use std::{collections::HashMap, sync::Arc};

use subtle::ConstantTimeEq;

use crate::{config, message::Peer};

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
}

/// Everyone who may call.
#[derive(Debug)]
pub struct Callers {
    by_key: HashMap<[u8; 32], Arc<Caller>>,
    /// Who calls without credentials from this machine.
    local: Option<Arc<Caller>>,
    /// Who calls without credentials from anywhere: only where the policy says so.
    anyone: Option<Arc<Caller>>,
}

impl Callers {
    /// The callers that `config` names.
    pub fn new(config: &config::Config) -> Self {
        let caller = |name: &Arc<str>, index: usize, identity: usize| {
            let identity_name = config.identities.get(identity).map(|i| Arc::clone(&i.name));
            Arc::new(Caller {
                name: Arc::clone(name),
                index,
                identity,
                identity_name: identity_name.unwrap_or_default(),
            })
        };
        let mut by_key = HashMap::new();
        let mut local = config.callers.is_empty().then(|| caller(&"local".into(), 0, 0));
        for (index, configured) in config.callers.iter().enumerate() {
            let known = caller(&configured.name, index, configured.identity);
            match configured.api_key_hash {
                Some(hash) => drop(by_key.insert(hash, known)),
                None => local = Some(known),
            }
        }
        let anyone = local.clone().filter(|_| config.policy.allow_unauthenticated_network);
        Self { by_key, local, anyone }
    }

    /// Whether anybody has a key.
    pub fn have_keys(&self) -> bool {
        !self.by_key.is_empty()
    }

    /// Who presents `key`, or nothing, from `peer`.
    ///
    /// # Errors
    ///
    /// [`Unknown`]: it must not be told to the caller which of the two it was.
    pub fn recognise(&self, key: Option<&[u8]>, peer: &Peer) -> Result<Arc<Caller>, Unknown> {
        let Some(key) = key else {
            let nobody = if peer.is_local() { &self.local } else { &self.anyone };
            return nobody.clone().ok_or(Unknown::Missing);
        };
        let hash = *blake3::hash(key).as_bytes();
        // The map is searched by the hash, which tells nothing about the key; the comparison that
        // decides takes the same time wherever the two differ.
        match self.by_key.get_key_value(&hash) {
            Some((known, caller)) if bool::from(known.ct_eq(&hash)) => Ok(Arc::clone(caller)),
            _ => Err(Unknown::Wrong),
        }
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
        let by_key = HashMap::from([(*blake3::hash(b"key").as_bytes(), caller("billing"))]);
        let nobody = local.then(|| caller("local"));
        Callers { by_key, anyone: nobody.clone().filter(|_| anyone), local: nobody }
    }

    fn tcp(address: &str) -> Peer {
        Peer::Tcp(address.parse().unwrap())
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
}
