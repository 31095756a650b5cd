//! Our sessions with the API: one valid token for each identity.

mod error;
mod gate;
mod keeper;
mod login;
mod renewal;
mod skew;
mod slot;
mod status;
mod store;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod token;
pub mod totp;

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::join_all;
use moka::future::Cache;
use secrecy::SecretString;
use tokio::{
    runtime::Handle,
    time::{error::Elapsed, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

pub use self::{
    error::Error,
    login::Error as LoginError,
    status::{Counts, CredentialsKind, State, Status},
    token::Token,
};
use self::{
    keeper::{Keeper, Shared},
    skew::Skew,
};
use crate::{
    amove::auth::{self, Unavailable},
    clock::Clock,
    config::Identity,
    upstream::Upstream,
};

/// Logins are remembered just long enough that who asks for the same one late finds it.
const REMEMBERED: Duration = Duration::from_secs(60);
const MAX_REMEMBERED: u64 = 256;
/// How long a caller waits for a request token, and how soon it may ask for another.
const REQUEST_TOKEN_DEADLINE: Duration = Duration::from_secs(10);
const REQUEST_TOKEN_PAUSE: Duration = Duration::from_secs(1);

/// Our sessions, one for each configured identity and by its position.
pub struct Sessions {
    keepers: Vec<Arc<Keeper>>,
    shared: Arc<Shared>,
}

impl Sessions {
    /// Sessions that are still to be opened. Logins run on `runtime`.
    pub fn new(
        identities: &[Identity],
        upstream: Upstream,
        clock: Clock,
        runtime: Handle,
    ) -> Arc<Self> {
        let logins = Cache::builder().max_capacity(MAX_REMEMBERED).time_to_live(REMEMBERED).build();
        let shared = Arc::new(Shared {
            upstream,
            clock,
            skew: Skew::default(),
            logins,
            runtime,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        let keeper = |(index, identity): (usize, &Identity)| {
            Arc::new(Keeper::new(index, identity.clone(), Arc::clone(&shared)))
        };
        let keepers = identities.iter().enumerate().map(keeper).collect();
        Arc::new(Self { keepers, shared })
    }

    /// The token in force, if it still serves. Takes no lock and waits for nothing.
    pub fn current(&self, identity: usize) -> Option<Arc<Token>> {
        self.keepers.get(identity)?.current()
    }

    /// The token in force, or that of the one login that everybody waits for.
    ///
    /// # Errors
    ///
    /// The failure of that login, or at once the last one, while it is not to be repeated.
    pub async fn token(&self, identity: usize) -> Result<Arc<Token>, Error> {
        self.keeper(identity)?.token().await
    }

    /// A token newer than `stale`, which the API has refused.
    ///
    /// If there is one already, no login is made: a thousand late refusals cause one.
    ///
    /// # Errors
    ///
    /// As [`Sessions::token`]; and always for a configured API token that has not changed.
    pub async fn renew(&self, identity: usize, stale: &Token) -> Result<Arc<Token>, Error> {
        self.keeper(identity)?.renew(stale).await
    }

    /// A fresh request token, for the routes that want one in their body.
    ///
    /// # Errors
    ///
    /// When the API gives none.
    pub async fn request_token(&self) -> Result<SecretString, Error> {
        let call = auth::request_token(&self.shared.upstream);
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
        self.keepers.iter().map(|keeper| keeper.status()).collect()
    }

    /// Replaces the token in force now, whatever stands in the way: refused credentials are tried
    /// once more, and a pause is cut short. The old token serves until there is a new one.
    ///
    /// # Errors
    ///
    /// The failure of that login.
    pub async fn refresh(&self, identity: usize) -> Result<Arc<Token>, Error> {
        let keeper = self.keeper(identity)?;
        keeper.unlatch();
        keeper.token().await
    }

    /// Ends the session in force now: its token is sent no more, and it is logged out as soon as
    /// nobody uses it. The next one is opened at once.
    ///
    /// # Errors
    ///
    /// [`Error::ApiToken`]: the session of an API token is not ours to end.
    pub async fn revoke(&self, identity: usize) -> Result<(), Error> {
        let keeper = self.keeper(identity)?;
        keeper.end().await;
        Ok(())
    }

    /// Lets refused credentials be tried once more.
    pub fn unlatch(&self, identity: usize) {
        if let Some(keeper) = self.keepers.get(identity) {
            keeper.unlatch();
        }
    }

    /// Signs in now and from then on ahead of expiry, in the background.
    pub fn start(self: &Arc<Self>) {
        let Shared { runtime, tasks, stop, .. } = &*self.shared;
        for keeper in &self.keepers {
            let (name, work) = (Arc::clone(keeper.name()), Arc::clone(keeper));
            let stopped = stop.clone();
            let keep = move || renewal::keep(Arc::clone(&work), stopped.clone());
            tasks.spawn_on(renewal::supervise(runtime.clone(), name, stop.clone(), keep), runtime);
        }
    }

    /// Stops renewing and logs out what is ours, within this time.
    pub async fn shutdown(&self, within: Duration) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        let end = async {
            self.end_all().await;
            // A login that was under way has opened one more session.
            self.shared.tasks.wait().await;
            self.end_all().await;
        };
        if timeout(within, end).await.is_err() {
            warn!(?within, "sessions were not logged out in time");
        }
    }

    async fn end_all(&self) {
        join_all(self.keepers.iter().map(|keeper| keeper.end())).await;
    }

    fn keeper(&self, identity: usize) -> Result<&Arc<Keeper>, Error> {
        self.keepers.get(identity).ok_or(Error::UnknownIdentity(identity))
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.status()).finish()
    }
}
