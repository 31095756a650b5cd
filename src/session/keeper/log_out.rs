//! Ends sessions that are no longer wanted: the API allows a user only so many.

use std::{sync::Arc, time::Duration};

use tokio::{select, time::sleep};
use tracing::{info, warn};

use super::Keeper;
use crate::session::{error::sentence, login, machine::Ending};

/// A logout that fails is tried so often, after pauses that grow fourfold.
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_secs(2);

impl Keeper {
    /// Ends a session `after` a while, in the background; at once when the identity has come to its end.
    pub(super) fn log_out_later(self: &Arc<Self>, session: Ending, after: Duration) {
        let keeper = Arc::clone(self);
        let later = async move {
            keeper.pause_unless_stopped(after).await;
            let mut pause = FIRST_PAUSE;
            for tries_left in (0..TRIES).rev() {
                if keeper.log_out(&session).await || tries_left == 0 || keeper.is_stopped() {
                    break;
                }
                keeper.pause_unless_stopped(pause).await;
                pause *= 4;
            }
        };
        self.shared.tasks.spawn_on(later, &self.shared.runtime);
    }

    /// Ends a session now; whether it has ended.
    pub(super) async fn log_out(&self, session: &Ending) -> bool {
        let (identity, session_id) = (&self.name, session.id);
        let given = self.given();
        match login::logout(&self.means(&given), &session.jwt).await {
            Ok(()) => {
                info!(%identity, session = %session_id, "logged out");
                self.counters.logouts_ok.add();
                true
            }
            Err(error) => {
                let reason = sentence(&error);
                warn!(%identity, session = %session_id, reason, "logout failed");
                self.counters.logouts_failed.add();
                false
            }
        }
    }

    async fn pause_unless_stopped(&self, pause: Duration) {
        select! {
            () = sleep(pause) => {}
            () = self.stop.cancelled() => {}
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }
}
