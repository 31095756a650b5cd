//! From one process to the next: what we were given, and what we hand on.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    audit::{Rival, Trail},
    session::{Sessions, State},
    sockets::{
        Given, Passed,
        succession::{Post, Predecessor},
    },
};

/// Who takes a place is ready within this time, or leaves it: a login may have to wait for a TOTP code
/// that was not used yet.
const READY: Duration = Duration::from_secs(90);
/// When it has drained, a predecessor logs out, and ships its last records.
const LEAVING: Duration = Duration::from_secs(30);
/// How often it is looked whether something has happened.
const LOOK: Duration = Duration::from_millis(50);
/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// What a process begins with.
#[derive(Debug, Default)]
pub struct Heritage {
    /// Listening sockets.
    pub given: Given,
    /// The gateway whose place we take. It serves until we do.
    pub predecessor: Option<Predecessor>,
}

impl Heritage {
    /// What is to be made of another gateway that has the audit log, which drains for so long at most.
    pub(super) fn rival(&self, drain: Duration) -> Rival {
        match self.predecessor {
            Some(_) => Rival::Awaited { within: READY + drain + LEAVING },
            None => Rival::Refused,
        }
    }
}

/// Waits until a request would be served; otherwise says why not. Refused credentials are not waited
/// for.
pub(super) async fn ready(sessions: &Sessions) -> Result<(), String> {
    let looking = async {
        loop {
            let status = sessions.status();
            if status.iter().any(|identity| identity.serving) {
                return true;
            }
            if status.iter().all(|identity| identity.state == State::Latched) {
                return false;
            }
            sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(READY, looking).await == Ok(true) {
        return Ok(());
    }
    let status = sessions.status();
    let failure = status.into_iter().find_map(|identity| identity.failure);
    Err(failure.unwrap_or_else(|| "there is no session with Amove".to_owned()))
}

/// What a successor can have of us.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) folder: PathBuf,
    pub(super) trail: Arc<Trail>,
    pub(super) sockets: Arc<[Passed]>,
    /// How far a successor is.
    pub(super) stage: watch::Sender<Stage>,
    pub(super) draining: CancellationToken,
}

/// How far a successor is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Stage {
    /// There is none.
    #[default]
    None,
    /// It has our sockets, and gets ready.
    Prepares,
    /// It serves: we may end.
    Serves,
}

impl Offer {
    /// Hands the sockets to whoever takes our place, and tells how far that is, until the drain begins.
    ///
    /// Dropped with it: our handles of the sockets, and the file that a successor looks for.
    pub(super) async fn keep(self: Arc<Self>) {
        self.draining.run_until_cancelled(self.wait()).await;
    }

    async fn wait(&self) {
        let Self { folder, trail, sockets, stage, .. } = self;
        // Until then it is our predecessor who can be found.
        while trail.state().waits {
            sleep(LOOK).await;
        }
        let post = match Post::open(folder) {
            Ok(post) => post,
            Err(error) => {
                let reason = error.to_string();
                warn!(reason, "nobody can take this gateway's place without a break");
                // The sockets are nobody's but the workers'.
                return;
            }
        };
        loop {
            let mut successor = match post.successor(sockets).await {
                Ok(successor) => successor,
                Err(error) => {
                    debug!(error = error.to_string(), "nobody takes our place");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            info!("another process is about to take this gateway's place");
            stage.send_replace(Stage::Prepares);
            if successor.serves().await {
                stage.send_replace(Stage::Serves);
                return;
            }
            warn!("the other process has given up: this gateway goes on");
            stage.send_replace(Stage::None);
        }
    }
}
