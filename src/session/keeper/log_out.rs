//! Ends sessions that are no longer wanted: the API allows a user only so many.

use std::{sync::Arc, time::Duration};

use tokio::{select, time::sleep};
use tracing::{info, warn};

use super::{Keeper, Shared};
use crate::{
    config::Credentials,
    session::{Token, error::sentence, login},
};

/// Requests that were signed with the old token just before have arrived by then.
const GRACE: Duration = Duration::from_secs(30);

impl Keeper {
    /// Ends the session in force.
    pub(in crate::session) async fn end(&self) {
        if self.may_log_out()
            && let Some(token) = self.slot.take()
        {
            self.log_out(&token).await;
        }
    }

    /// Ends a session that has been replaced, a little later: requests may still carry its token.
    pub(super) fn retire(self: &Arc<Self>, token: Arc<Token>) {
        if !self.may_log_out() {
            return;
        }
        let keeper = Arc::clone(self);
        let later = async move {
            select! {
                () = sleep(GRACE) => {}
                () = keeper.shared.stop.cancelled() => {}
            }
            keeper.log_out(&token).await;
        };
        self.shared.tasks.spawn_on(later, &self.shared.runtime);
    }

    async fn log_out(&self, token: &Token) {
        let Shared { upstream, clock, skew, .. } = &*self.shared;
        let (identity, generation) = (&self.identity.name, token.generation());
        match login::logout(upstream, token.jwt(), clock, skew).await {
            Ok(()) => info!(%identity, generation, "logged out"),
            Err(error) => {
                warn!(%identity, generation, reason = sentence(&error), "logout failed");
            }
        }
    }

    /// An API token's session is not ours to end.
    fn may_log_out(&self) -> bool {
        let ours = matches!(self.identity.credentials, Credentials::Password { .. });
        ours && self.identity.logout_on_shutdown
    }
}
