//! How an identity is kept signed in: by logging in, or by a configured token.

use std::sync::Arc;

use super::{
    api_token::ApiToken,
    keeper::{Given, Keeper, Shared},
    status::Status,
    store::{Binding, Store},
};
use crate::config::{BaseUrl, Credentials, Identity};

/// Whatever keeps one identity signed in. Cloning it makes no other.
#[derive(Clone)]
pub(super) enum Kept {
    /// By logging in.
    Login(Arc<Keeper>),
    /// By a configured token.
    ApiToken(Arc<ApiToken>),
}

impl Kept {
    /// One that is still to be started.
    pub(super) fn new(
        given: Given,
        auth_url: &BaseUrl,
        store: &Store,
        shared: &Arc<Shared>,
    ) -> Self {
        match binding(&given.identity, auth_url) {
            Some(binding) => {
                let shelf = store.shelf(&binding, &shared.clock);
                Self::Login(Arc::new(Keeper::new(given, binding, shelf, Arc::clone(shared))))
            }
            None => Self::ApiToken(Arc::new(ApiToken::new(given, Arc::clone(shared)))),
        }
    }

    /// Whether it keeps what `identity` describes: the same user, or any API token of that name,
    /// whatever else is configured.
    pub(super) fn is_of(&self, identity: &Identity, auth_url: &BaseUrl) -> bool {
        match (self, binding(identity, auth_url)) {
            (Self::Login(keeper), Some(binding)) => keeper.is_of(&binding),
            (Self::ApiToken(keeper), None) => *keeper.name() == identity.name,
            (Self::Login(_) | Self::ApiToken(_), _) => false,
        }
    }

    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Login(one), Self::Login(other)) => Arc::ptr_eq(one, other),
            (Self::ApiToken(one), Self::ApiToken(other)) => Arc::ptr_eq(one, other),
            (Self::Login(_) | Self::ApiToken(_), _) => false,
        }
    }

    pub(super) fn name(&self) -> &Arc<str> {
        match self {
            Self::Login(keeper) => keeper.name(),
            Self::ApiToken(keeper) => keeper.name(),
        }
    }

    pub(super) fn start(&self) {
        match self {
            Self::Login(keeper) => keeper.start(),
            Self::ApiToken(keeper) => keeper.start(),
        }
    }

    pub(super) fn follow(&self, given: Given) {
        match self {
            Self::Login(keeper) => keeper.follow(given),
            Self::ApiToken(keeper) => keeper.follow(given),
        }
    }

    pub(super) fn end(&self) {
        match self {
            Self::Login(keeper) => keeper.end(),
            Self::ApiToken(keeper) => keeper.end(),
        }
    }

    pub(super) fn status(&self) -> Status {
        match self {
            Self::Login(keeper) => keeper.status(),
            Self::ApiToken(keeper) => keeper.status(),
        }
    }
}

/// Whose session it is; nothing where there is no login.
fn binding(identity: &Identity, auth_url: &BaseUrl) -> Option<Binding> {
    match &identity.credentials {
        Credentials::Password { username, user_type, .. } => Some(Binding {
            identity: Arc::clone(&identity.name),
            username: username.clone(),
            user_type: *user_type,
            auth_url: auth_url.to_string(),
        }),
        Credentials::ApiToken(_) => None,
    }
}
