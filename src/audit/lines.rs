//! Records as JSON lines on standard output: one write for each, so that no two lines mix.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use crate::supervise::{Deaths, supervise_here};

/// Batches that may wait for a reader of standard output who is slow.
const WAITING: usize = 64;
/// Who does not read at the end does not hold us up.
const PATIENCE: Duration = Duration::from_secs(5);

/// The way to standard output. The store never waits for whoever reads there.
#[derive(Debug)]
pub(super) struct Lines {
    batches: SyncSender<Vec<u8>>,
    done: Receiver<()>,
    lost: Arc<AtomicU64>,
}

impl Lines {
    /// Starts the thread that writes; `lost` counts what it had no room for, `deaths` how often it has
    /// died.
    pub(super) fn start(lost: &Arc<AtomicU64>, deaths: &Deaths) -> io::Result<Self> {
        let (batches, to_write) = sync_channel::<Vec<u8>>(WAITING);
        let (end, done) = sync_channel(1);
        let (counter, deaths) = (Arc::clone(lost), deaths.clone());
        thread::Builder::new().name("audit-lines".into()).spawn(move || {
            supervise_here::<io::Error>(&deaths, || {
                to_write.iter().for_each(|batch| write(&batch, io::stdout(), &counter));
                Ok(())
            });
            // Nobody waits for it if this took too long.
            let _ = end.send(());
        })?;
        Ok(Self { batches, done, lost: Arc::clone(lost) })
    }

    /// Writes some lines.
    pub(super) fn push(&self, lines: Vec<u8>) {
        if let Err(error) = self.batches.try_send(lines) {
            let (std::sync::mpsc::TrySendError::Full(lines)
            | std::sync::mpsc::TrySendError::Disconnected(lines)) = error;
            lose(&lines, &self.lost, "it is read too slowly");
        }
    }

    /// Waits until everything is written.
    pub(super) fn finish(self) {
        drop(self.batches);
        // After that, whoever should read does not.
        let _ = self.done.recv_timeout(PATIENCE);
    }
}

fn write(lines: &[u8], mut out: impl Write, lost: &AtomicU64) {
    let mut rest = lines;
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let (line, after) = rest.split_at(end + 1);
        if let Err(error) = out.write_all(line).and_then(|()| out.flush()) {
            lose(rest, lost, &error.to_string());
            return;
        }
        rest = after;
    }
}

fn lose(lines: &[u8], lost: &AtomicU64, reason: &str) {
    let lines = memchr::memchr_iter(b'\n', lines).count() as u64;
    if lost.fetch_add(lines, Relaxed) == 0 {
        tracing::error!(reason, "audit lines on standard output are lost; the store has them");
    }
}
