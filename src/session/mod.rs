//! Our sessions with the API: one valid token for each identity.

mod api_token;
mod backoff;
mod counts;
mod error;
mod keeper;
mod kept;
mod login;
mod machine;
mod skew;
mod slot;
mod status;
mod steps;
mod store;
#[cfg(test)]
mod succession_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod token;
pub mod totp;

use std::{fmt, sync::Arc, time::Duration};

use secrecy::SecretString;
use tokio::{
    runtime::Handle,
    time::{error::Elapsed, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

pub use self::{
    error::Error,
    login::Error as LoginError,
    status::{Counts, CredentialsKind, State, Status},
    store::OpenError,
    token::Token,
};
use self::{
    keeper::{Given, Shared},
    kept::Kept,
    skew::Skew,
    store::Store,
};
use crate::{
    clock::Clock,
    config::{self, BaseUrl, Identity},
    upstream::Upstream,
    upstream::auth::{self, Unavailable},
};

/// How long a caller waits for a request token, and how soon it may ask for another.
const REQUEST_TOKEN_DEADLINE: Duration = Duration::from_secs(10);
const REQUEST_TOKEN_PAUSE: Duration = Duration::from_secs(1);

/// Our sessions, one for each configured identity and by its position. Nothing that one of them does
/// touches another.
///
/// Other identities make other sessions, which take over those that stay: see [`Sessions::under`].
pub struct Sessions {
    identities: Vec<Identity>,
    keepers: Vec<Kept>,
    upstream: Upstream,
    store: Arc<Store>,
    shared: Arc<Shared>,
}

impl Sessions {
    /// Sessions that are still to be opened: see [`Sessions::start`]. Logins run on `runtime`.
    ///
    /// # Errors
    ///
    /// When the store that `config` describes cannot be used at all. One that is away is none.
    pub fn new(
        identities: &[Identity],
        config: &config::SessionStore,
        auth_url: &BaseUrl,
        upstream: Upstream,
        clock: Clock,
        runtime: Handle,
    ) -> Result<Arc<Self>, OpenError> {
        let store = Arc::new(Store::open(config)?);
        let shared = Arc::new(Shared {
            clock,
            skew: Skew::default(),
            runtime,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            on_error: config.on_error,
        });
        let keepers = identities.iter().map(|identity| {
            let given = Given { identity: identity.clone(), upstream: upstream.clone() };
            Kept::new(given, auth_url, &store, &shared)
        });
        let (keepers, identities) = (keepers.collect(), identities.to_vec());
        Ok(Arc::new(Self { identities, keepers, upstream, store, shared }))
    }

    /// Signs in now and from then on ahead of expiry, in the background.
    pub fn start(&self) {
        self.keepers.iter().for_each(Kept::start);
    }

    /// Sessions of other identities. Whoever stays the same user at the same host keeps its
    /// session, and all that is known about it. Nothing happens before [`Sessions::take_over`].
    #[must_use]
    pub fn under(
        &self,
        identities: &[Identity],
        auth_url: &BaseUrl,
        upstream: &Upstream,
    ) -> Arc<Self> {
        let keepers = identities.iter().map(|identity| {
            let mut known = self.keepers.iter();
            let known = known.find(|kept| kept.is_of(identity, auth_url));
            let given = || Given { identity: identity.clone(), upstream: upstream.clone() };
            let new = || Kept::new(given(), auth_url, &self.store, &self.shared);
            known.map_or_else(new, Kept::clone)
        });
        Arc::new(Self {
            keepers: keepers.collect(),
            identities: identities.to_vec(),
            upstream: upstream.clone(),
            store: Arc::clone(&self.store),
            shared: Arc::clone(&self.shared),
        })
    }

    /// Of each identity, the position that it has among `before`, if it stays.
    pub fn positions_in(&self, before: &Self) -> Vec<Option<usize>> {
        let position = |kept: &Kept| before.keepers.iter().position(|known| known.is_same_as(kept));
        self.keepers.iter().map(position).collect()
    }

    /// Comes into force in place of `before`: signs in whoever is new, and ends the sessions of
    /// those who are gone, once the requests that were signed with them have arrived.
    pub fn take_over(&self, before: &Self) {
        for ((kept, identity), known) in
            self.keepers.iter().zip(&self.identities).zip(self.positions_in(before))
        {
            if known.is_none() {
                kept.start();
            } else {
                kept.follow(Given { identity: identity.clone(), upstream: self.upstream.clone() });
            }
        }
        let stays = |gone: &Kept| self.keepers.iter().any(|kept| kept.is_same_as(gone));
        for gone in before.keepers.iter().filter(|kept| !stays(kept)) {
            info!(identity = %gone.name(), "identity is gone or another user's: its session will be ended");
            let (gone, stop) = (gone.clone(), self.shared.stop.clone());
            let end = async move {
                // When the gateway ends, so do all.
                let _ = timeout(machine::GRACE, stop.cancelled()).await;
                gone.end();
            };
            self.shared.tasks.spawn_on(end, &self.shared.runtime);
        }
    }

    /// The token in force, if it may be sent. Takes no lock and waits for nothing.
    pub fn current(&self, identity: usize) -> Option<Arc<Token>> {
        match self.keepers.get(identity)? {
            Kept::Login(keeper) => keeper.current(),
            Kept::ApiToken(keeper) => keeper.current(),
        }
    }

    /// The token in force, or that of the one login that everybody waits for.
    ///
    /// # Errors
    ///
    /// The failure of that login, or at once the last one, while it is not to be repeated.
    pub async fn token(&self, identity: usize) -> Result<Arc<Token>, Error> {
        match self.keeper(identity)? {
            Kept::Login(keeper) => keeper.token().await,
            Kept::ApiToken(keeper) => keeper.token().await,
        }
    }

    /// A token newer than `stale`, which the API has denied.
    ///
    /// If there is one already, no login is made: a thousand late denials cause one.
    ///
    /// # Errors
    ///
    /// As [`Sessions::token`]; and always for a configured API token that has not changed.
    pub async fn renew(&self, identity: usize, stale: &Token) -> Result<Arc<Token>, Error> {
        match self.keeper(identity)? {
            Kept::Login(keeper) => keeper.renew(stale).await,
            Kept::ApiToken(keeper) => keeper.renew(stale).await,
        }
    }

    /// The API has denied a `fresh` token as well, or nobody has found out whether it helps.
    /// That does not go on for long: a route that denies every token must not cost a login each time.
    pub fn doubt(&self, identity: usize, fresh: &Token) {
        if let Some(Kept::Login(keeper)) = self.keepers.get(identity) {
            keeper.doubt(fresh);
        }
    }

    /// Replaces the token in force now, whatever stands in the way: refused credentials are tried
    /// once more, and a pause is cut short. The old token serves until there is a new one. An API
    /// token is read again.
    ///
    /// # Errors
    ///
    /// The failure of that login.
    pub async fn refresh(&self, identity: usize) -> Result<Arc<Token>, Error> {
        match self.keeper(identity)? {
            Kept::Login(keeper) => keeper.refresh().await,
            Kept::ApiToken(keeper) => keeper.refresh().await,
        }
    }

    /// Ends the session in force now: its token is sent no more, and it is logged out as soon as
    /// nobody uses it. The next one is opened at once.
    ///
    /// # Errors
    ///
    /// [`Error::ApiToken`]: the session of an API token is not ours to end. [`Error::Store`]: the
    /// others who share the session cannot be told.
    pub async fn revoke(&self, identity: usize) -> Result<(), Error> {
        match self.keeper(identity)? {
            Kept::Login(keeper) => keeper.revoke().await,
            Kept::ApiToken(keeper) => Err(keeper.not_ours()),
        }
    }

    /// A fresh request token, for the routes that want one in their body.
    ///
    /// # Errors
    ///
    /// When the API gives none.
    pub async fn request_token(&self) -> Result<SecretString, Error> {
        let call = auth::request_token(&self.upstream);
        let answer = timeout(REQUEST_TOKEN_DEADLINE, call).await.unwrap_or_else(|_: Elapsed| {
            Err(auth::Error::Unavailable(Unavailable::Timeout(REQUEST_TOKEN_DEADLINE)))
        });
        match answer {
            Ok(answer) => Ok(answer.value.into_secret()),
            Err(error) => Err(Error::NoRequestToken {
                retry_after: error.retry_after().unwrap_or(REQUEST_TOKEN_PAUSE),
                source: Arc::new(error),
            }),
        }
    }

    /// How each identity stands.
    pub fn status(&self) -> Vec<Status> {
        self.keepers.iter().map(Kept::status).collect()
    }

    /// Stops renewing, leaves those who share the sessions, and logs out what is ours, within this
    /// time.
    pub async fn shutdown(&self, within: Duration) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        if timeout(within, self.shared.tasks.wait()).await.is_err() {
            warn!(?within, "sessions were not logged out in time");
        }
    }

    fn keeper(&self, identity: usize) -> Result<&Kept, Error> {
        self.keepers.get(identity).ok_or(Error::UnknownIdentity(identity))
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.status()).finish()
    }
}
