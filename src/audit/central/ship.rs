//! Ships what is in the embedded store, batch by batch, for as long as the gateway runs.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, sync::watch, task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    Outlet,
    columns::Batch,
    cursor::Cursor,
    error::Error,
    insert::{Inserting, Refused},
    link::{self, Link},
    outbox::{Next, Outbox},
    pause::pause,
    schema,
};
use crate::{audit::store::ReadError, supervise::supervise};

/// How long new records gather before they are shipped.
const GATHER: Duration = Duration::from_millis(200);
/// How often it is looked whether there is something that nobody has told of.
const REST: Duration = Duration::from_secs(5);
/// How long the last records may take when the gateway ends. What is left is shipped by the next.
const LAST: Duration = Duration::from_secs(3);

/// The task that ships, as long as it runs.
#[derive(Debug)]
pub struct Shipper {
    ending: CancellationToken,
    task: JoinHandle<()>,
}

impl Shipper {
    /// Starts it; `news` tells how far the embedded store has got.
    pub(super) fn start(outlet: Arc<Outlet>, mut news: watch::Receiver<u64>, begin: Begin) -> Self {
        let ending = CancellationToken::new();
        let end = ending.clone();
        let task = tokio::spawn(async move {
            // An error is the end of whoever would tell; what is there can be shipped.
            if begin == Begin::WithNews && end.run_until_cancelled(news.changed()).await.is_none() {
                return;
            }
            let (ends, deaths) = (end.clone(), outlet.deaths.clone());
            let ship = move || Shipping::new(Arc::clone(&outlet), news.clone(), ends.clone()).run();
            supervise(Handle::current(), end, ship, || deaths.note()).await;
        });
        Self { ending, task }
    }

    /// Ships what is left, for a few seconds at most.
    pub async fn finish(mut self) {
        self.ending.cancel();
        if tokio::time::timeout(LAST, &mut self.task).await.is_err() {
            tracing::warn!("not all audit records were shipped: the next start goes on");
            self.task.abort();
        }
    }
}

/// When shipping begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::audit) enum Begin {
    Now,
    /// When there is something new in the store: until then it is somebody else's to ship.
    WithNews,
}

struct Shipping {
    outlet: Arc<Outlet>,
    news: watch::Receiver<u64>,
    ending: CancellationToken,
    cursor: Cursor,
    outbox: Option<Outbox>,
    /// What was read and has not arrived.
    batch: Option<Batch>,
    open: Option<(Link, Inserting)>,
    /// Records that were refused since one was taken.
    refused_in_a_row: usize,
    /// Whether the cursor could be kept.
    is_kept: bool,
}

/// What to do next.
enum Then {
    GoOn,
    End,
}

impl Shipping {
    fn new(outlet: Arc<Outlet>, news: watch::Receiver<u64>, ending: CancellationToken) -> Self {
        let cursor = Cursor::read(&outlet.folder);
        let outbox = Some(Outbox::new(outlet.folder.clone()));
        let (batch, open) = (None, None);
        let (refused_in_a_row, is_kept) = (0, true);
        Self { outlet, news, ending, cursor, outbox, batch, open, refused_in_a_row, is_kept }
    }

    async fn run(mut self) {
        let mut failures = 0;
        loop {
            match self.step().await {
                Ok(Then::GoOn) => failures = 0,
                Ok(Then::End) => return,
                Err(error) => {
                    self.open = None;
                    failures += 1;
                    let reason = error.to_string();
                    if self.outlet.progress.set_down(reason.clone()) {
                        tracing::warn!(reason, "audit records cannot be shipped: they are kept");
                    }
                    if self.ending.is_cancelled() {
                        return;
                    }
                    rest(&self.ending, pause(failures)).await;
                }
            }
        }
    }

    /// Ships a batch, or waits until there is one.
    async fn step(&mut self) -> Result<Then, Error> {
        let began = Instant::now();
        if self.batch.is_none() {
            self.read().await?;
        }
        let reading = began.elapsed();
        let (mut link, mut inserting) = match self.open.take() {
            Some(open) => open,
            None => self.connect().await?,
        };
        let Some(batch) = self.batch.take() else {
            // Whether records are taken is known when there are some.
            self.works();
            let then = self.wait(&mut link).await?;
            self.open = Some((link, inserting));
            return Ok(then);
        };
        let began = Instant::now();
        let inserted = inserting.insert(&link, &batch, &mut self.refused_in_a_row).await;
        let refused = match inserted {
            Ok(refused) => refused,
            // The next try is with more records, some of which may be taken.
            Err(error @ Error::RefusesAll(_)) => return Err(error),
            Err(error) => {
                self.batch = Some(batch);
                return Err(error);
            }
        };
        self.open = Some((link, inserting));
        if let Some(Refused { seq, reason }) = refused.first() {
            let records = refused.len();
            tracing::error!(
                records,
                seq,
                reason,
                "PostgreSQL refuses audit records: they are only here"
            );
        }
        let (records, refused) = (batch.seqs().len() as u64, refused.len() as u64);
        self.outlet.progress.refused.fetch_add(refused, Relaxed);
        self.outlet.progress.shipped.fetch_add(records - refused, Relaxed);
        let last = batch.seqs().last().copied().unwrap_or(self.cursor.seq);
        // Who catches up takes at most half of a core from those who serve.
        let left = match batch.is_full() {
            true => reading.saturating_sub(began.elapsed()),
            false => GATHER,
        };
        self.works();
        self.arrived(last);
        if !left.is_zero() {
            rest(&self.ending, left).await;
        }
        Ok(Then::GoOn)
    }

    /// Records are taken, or would be.
    fn works(&self) {
        if self.outlet.progress.set_up() {
            let behind = self.news.borrow().saturating_sub(self.cursor.seq);
            tracing::info!(behind, "audit records are shipped");
        }
    }

    /// Everything up to the record `seq` is done with.
    fn arrived(&mut self, seq: u64) {
        self.cursor.seq = seq;
        let kept = self.cursor.keep(&self.outlet.folder);
        if let (Err(error), true) = (&kept, self.is_kept) {
            // Then some of them are shipped again.
            let reason = error.to_string();
            tracing::warn!(reason, "how far audit records were shipped cannot be noted");
        }
        self.is_kept = kept.is_ok();
        self.outlet.progress.waiting.store(i64::MAX, Relaxed);
        self.outlet.progress.cursor.send_replace(seq);
    }

    /// Connects, and finds out whether it is still the store that the cursor is about.
    async fn connect(&mut self) -> Result<(Link, Inserting), Error> {
        let outlet = Arc::clone(&self.outlet);
        let postgres = link::postgres(&outlet.postgres.url.read()?)?;
        let place = link::place(&postgres);
        if place != self.cursor.place {
            self.start_over(Cursor { place, seq: 0, gateway: self.cursor.gateway.clone() });
        }
        let mut link = Link::open(postgres, outlet.postgres.ca_file.as_deref()).await?;
        schema::prepare(&mut link).await?;
        let inserting = Inserting::new(&link).await?;
        Ok((link, inserting))
    }

    fn start_over(&mut self, cursor: Cursor) {
        if self.cursor.seq != cursor.seq {
            (self.batch, self.outbox) = (None, None);
            self.news.mark_changed();
        }
        self.outlet.progress.cursor.send_replace(cursor.seq);
        self.cursor = cursor;
    }

    /// Reads the next batch, if there is one.
    async fn read(&mut self) -> Result<(), Error> {
        let mut outbox =
            self.outbox.take().unwrap_or_else(|| Outbox::new(self.outlet.folder.clone()));
        let mut cursor = self.cursor.clone();
        let told = *self.news.borrow_and_update();
        let read = tokio::task::spawn_blocking(move || {
            let next = next(&mut outbox, &mut cursor);
            (outbox, cursor, next)
        });
        let (mut outbox, cursor, next) = read.await.map_err(std::io::Error::other)?;
        if cursor != self.cursor {
            self.start_over(cursor);
        }
        let next = next?;
        let first = match &next {
            Next::Batch(batch) => batch.seqs().first().copied(),
            Next::Unreadable(seq, _) => Some(*seq),
            Next::Nothing => None,
        };
        let missing = first.map_or(0, |first| first.saturating_sub(self.cursor.seq + 1));
        if missing > 0 && self.cursor.seq > 0 {
            tracing::error!(missing, "audit records were gone before they were shipped");
            self.outlet.progress.missing.fetch_add(missing, Relaxed);
        }
        match next {
            Next::Batch(batch) => {
                self.outlet.progress.waiting.store(batch.earliest(), Relaxed);
                self.batch = Some(batch);
            }
            Next::Unreadable(seq, reason) => {
                tracing::error!(seq, reason, "an audit record cannot be read, nor shipped");
                self.outlet.progress.refused.fetch_add(1, Relaxed);
                self.arrived(seq);
                self.news.mark_changed();
            }
            // There should be something: perhaps the files are others now.
            Next::Nothing if told > self.cursor.seq => outbox.forget(),
            Next::Nothing => {}
        }
        self.outbox = Some(outbox);
        Ok(())
    }

    /// Waits for records, for the end, or for that of the connection.
    async fn wait(&mut self, link: &mut Link) -> Result<Then, Error> {
        let ending = self.ending.is_cancelled();
        if ending && *self.news.borrow() <= self.cursor.seq {
            return Ok(Then::End);
        }
        tokio::select! {
            // Without a writer there is no more news.
            changed = self.news.changed() => if changed.is_err() { sleep(GATHER).await },
            () = self.ending.cancelled(), if !ending => {}
            () = link.ended() => return Err(Error::Ended),
            () = sleep(REST) => {}
        }
        Ok(Then::GoOn)
    }
}

/// What comes after `cursor`, which is set back if it is about another chain than is there.
fn next(outbox: &mut Outbox, cursor: &mut Cursor) -> Result<Next, ReadError> {
    if !outbox.is_open() {
        let Some((gateway, last)) = outbox.head()? else { return Ok(Next::Nothing) };
        if gateway != cursor.gateway || last < cursor.seq {
            (cursor.gateway, cursor.seq) = (gateway, 0);
        }
    }
    outbox.next(cursor.seq)
}

async fn rest(ending: &CancellationToken, time: Duration) {
    tokio::select! {
        () = sleep(time) => {}
        () = ending.cancelled() => {}
    }
}
