//! The two hosts of the API.

/// Which of the two hosts of the API (contract section 2).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Host {
    /// `api.amove.io`: everything but logins.
    Api,
    /// `auth.amove.io`: `/api/authentication/*` only.
    Auth,
}
