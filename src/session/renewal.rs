//! Keeps a session alive: logs in, renews ahead of expiry, survives every failure.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use jiff::SignedDuration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::identity::{Cause, Session};

/// How often one looks whether something has changed that nobody announces: the wall clock, or the
/// content of a secret file.
const LOOK: Duration = Duration::from_secs(5);

/// How long a token that was replaced may still be on its way with a request.
const GRACE: SignedDuration = SignedDuration::from_secs(30);

/// Keeps `session` until `stop`. It cannot die silently: a panic is logged, and it goes on.
pub(super) async fn keep(session: Arc<Session>, stop: CancellationToken) {
    loop {
        let turn = AssertUnwindSafe(turn(&session)).catch_unwind();
        tokio::select! {
            ended = turn => {
                if ended.is_err() {
                    tracing::error!(identity = &*session.identity.name, "renewal has crashed and goes on");
                    // What has crashed once may do so at once again.
                    tokio::time::sleep(LOOK).await;
                }
            }
            () = stop.cancelled() => return,
        }
    }
}

/// Does what is to be done now, and waits until there may be something else to do.
async fn turn(session: &Arc<Session>) {
    let changed = session.changed.notified();
    let now = session.clock.now();
    for token in session.take_retired(now.checked_sub(GRACE).unwrap_or(now)) {
        session.log_out(&token).await;
    }
    let wait = match session.current() {
        Some(token) => {
            let wait =
                Duration::try_from(token.renew_at.duration_since(now)).unwrap_or(Duration::ZERO);
            if wait.is_zero() && session.may_log_in() {
                // What becomes of it is told to whoever asks for the session's status.
                let _ = session.succeed(token.generation, Cause::Due).await;
                return;
            }
            wait.max(Duration::from_millis(100))
        }
        None if session.may_log_in() => {
            let _ = session.succeed(session.generation(), Cause::Missing).await;
            return;
        }
        None => session
            .look_at_gate(|gate| gate.remaining(now))
            .unwrap_or(LOOK)
            .max(Duration::from_millis(100)),
    };
    // Whether time or news comes first does not matter.
    let _ = timeout(wait.min(LOOK), changed).await;
}
