//! What time it is: asked of a value that is passed in, so that a test can turn it.

pub mod deadlines;

use jiff::Timestamp;
use tokio::time::Instant;

/// Tells the wall-clock time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Following { from: Timestamp, since: Instant },
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that shows `from` now and moves with tokio's time, which tests can pause.
    pub fn following(from: Timestamp) -> Self {
        Self(Source::Following { from, since: Instant::now() })
    }

    /// The time now.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that everybody else is passed"
    )]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => Timestamp::now(),
            Source::Following { from, since } => from
                .checked_add(
                    jiff::SignedDuration::try_from(since.elapsed())
                        .unwrap_or(jiff::SignedDuration::MAX),
                )
                .unwrap_or(Timestamp::MAX),
        }
    }
}
