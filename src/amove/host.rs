//! The two hosts of the API.

/// Which of the two hosts of the API (contract section 2).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Host {
    /// `api.amove.io`: everything but logins.
    Api,
    /// `auth.amove.io`: `/api/authentication/*` only.
    Auth,
}

impl Host {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Api, Self::Auth];

    /// Its name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Auth => "auth",
        }
    }
}
