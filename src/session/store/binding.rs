//! Whose a session is, and at which auth host.

use std::sync::Arc;

use crate::config::UserType;

/// What a session is bound to: sealed for one binding, it does not open for another.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::session) struct Binding {
    /// The name of the identity.
    pub(in crate::session) identity: Arc<str>,
    pub(in crate::session) username: String,
    pub(in crate::session) user_type: UserType,
    /// The auth host, as its base URL.
    pub(in crate::session) auth_url: String,
}

impl Binding {
    /// Names the binding in a store: 32 hex digits that tell nothing about it.
    pub(in crate::session) fn id(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("amove-gateway session binding 1");
        let hash = hasher.update(&self.bytes()).finalize();
        hash.to_hex()[..32].to_owned()
    }

    /// All of it; no two bindings have the same bytes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let user_type = [self.user_type as u8];
        let parts = [
            self.identity.as_bytes(),
            self.username.as_bytes(),
            &user_type,
            self.auth_url.as_bytes(),
        ];
        let sized = |part: &[u8]| [&(part.len() as u64).to_le_bytes(), part].concat();
        parts.into_iter().flat_map(sized).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn binding(identity: &str, username: &str, user_type: UserType, auth_url: &str) -> Binding {
        let (username, auth_url) = (username.to_owned(), auth_url.to_owned());
        Binding { identity: identity.into(), username, user_type, auth_url }
    }

    #[test]
    fn every_part_makes_another_binding() {
        let bindings = [
            binding("main", "svc", UserType::AccountAdmin, "https://auth.test"),
            binding("mains", "vc", UserType::AccountAdmin, "https://auth.test"),
            binding("main", "svc2", UserType::AccountAdmin, "https://auth.test"),
            binding("main", "svc", UserType::AccountUser, "https://auth.test"),
            binding("main", "svc", UserType::AccountAdmin, "https://auth2.test"),
        ];

        let ids: HashSet<_> = bindings.iter().map(Binding::id).collect();

        assert_eq!(ids.len(), bindings.len());
    }

    #[test]
    fn an_id_is_hex_and_stays_the_same() {
        let binding = binding("main", "svc", UserType::AccountAdmin, "https://auth.test");

        let id = binding.id();

        assert_eq!(id, binding.clone().id());
        assert_eq!(id.len(), 32);
        assert!(id.bytes().all(|digit| digit.is_ascii_hexdigit()));
    }
}
