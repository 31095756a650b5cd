//! A body that waits until the other side wants it (RFC 9110, section 10.1.1).

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::time::{Sleep, sleep};

/// Not everybody says so: after this long it is sent all the same.
const PATIENCE: Duration = Duration::from_secs(1);

/// Says that a body is wanted. Clones say it of the same body.
#[derive(Clone, Debug, Default)]
pub struct Wanted(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    wanted: AtomicBool,
    waker: AtomicWaker,
}

/// Waits until a body is wanted, or for long enough.
#[derive(Debug)]
pub(super) struct Waiting {
    wanted: Wanted,
    /// From when it is first looked for.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Wanted {
    /// From now on it is.
    pub fn tell(&self) {
        self.0.wanted.store(true, SeqCst);
        self.0.waker.wake();
    }
}

impl Waiting {
    pub(super) fn new(wanted: Wanted) -> Self {
        Self { wanted, patience: None }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // First the ear, then the look: no news is missed.
        self.wanted.0.waker.register(cx.waker());
        if self.wanted.0.wanted.load(SeqCst) {
            return Poll::Ready(());
        }
        self.patience.get_or_insert_with(|| Box::pin(sleep(PATIENCE))).as_mut().poll(cx)
    }
}
