//! `audit tail`: the last records, and then those that come, until somebody has seen enough.

use std::{future::pending, io, ops::ControlFlow, os::fd::AsFd, thread::sleep, time::Duration};

use clap::Args;
use tokio::{io::Interest, net::unix::pipe::Sender};

use super::{
    Failure, Global,
    filters::Filters,
    page::{Form, Page},
    place::{Place, Store},
    remark,
    table::{Look, Table},
    unread,
};
use crate::{
    audit::{Archive, Days, Filter, Phase, ReadError},
    cli::{Exit, run::End, runtime},
    clock::Clock,
};

/// How often it is looked for more.
const PERIOD: Duration = Duration::from_millis(200);

/// How often in a row it may fail: a file can be replaced while it is opened.
const ATTEMPTS: usize = 25;

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// How many of those that are there already
    #[arg(long, value_name = "N", default_value_t = 10)]
    limit: u64,
    /// As JSON, one record a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    filters: Filters,
}

/// Follows until it is told to end, or nobody reads any more.
pub(super) fn run(arguments: &Arguments, global: &Global) -> Result<(), Failure> {
    let filter = arguments.filters.filter(Clock::system().now())?;
    let (store, _) = arguments.place.store(global)?;
    let form = if arguments.json {
        Form::Json
    } else {
        let colour = global.colour(&io::stdout());
        let intent = if filter.intents { "started" } else { "started, end unknown" };
        Form::Table(Table::new(Look { colour, ago: None, intent }))
    };
    let mut follower = Follower { filter, page: Page::new(form), after: 0 };
    let limit = arguments.limit;
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let mut end = End::new()?;
        let following = tokio::task::spawn_blocking(move || follower.follow(&store, limit));
        tokio::select! {
            _ = end.wait() => Ok(()),
            () = reader_gone() => Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
            outcome = following => outcome.unwrap_or_else(|error| {
                Err(Failure::caused(Exit::Internal, "following broke off", &error))
            }),
        }
    });
    // It may be writing to somebody who does not read.
    runtime.shutdown_background();
    outcome
}

/// Returns when nobody reads standard output any more: without that, it would only be noticed at
/// the next record.
async fn reader_gone() {
    let out = io::stdout().as_fd().try_clone_to_owned();
    let Ok(out) = out.and_then(Sender::from_owned_fd_unchecked) else {
        // A file has no reader.
        return pending().await;
    };
    let _ = out.ready(Interest::ERROR).await;
}

/// What is followed, and how far.
struct Follower {
    filter: Filter,
    page: Page,
    after: u64,
}

impl Follower {
    fn follow(&mut self, store: &Store, limit: u64) -> Result<(), Failure> {
        let archive = self.begin(store, limit)?;
        let mut failures = 0;
        loop {
            sleep(PERIOD);
            let days = archive.days_after(self.after);
            match days.and_then(|days| self.show_new(&days)) {
                Ok(written) => {
                    written?;
                    failures = 0;
                }
                Err(error) if failures == ATTEMPTS => return Err(unread(&error)),
                Err(_) => failures += 1,
            }
        }
    }

    /// Waits until there is an audit log, and shows its last records.
    fn begin(&mut self, store: &Store, limit: u64) -> Result<Archive, Failure> {
        let mut waits = false;
        let archive = loop {
            if let Some(archive) = store.open_if_there()? {
                break archive;
            }
            if !std::mem::replace(&mut waits, true) {
                remark("there is no audit log yet: waiting for it");
            }
            sleep(PERIOD);
        };
        if !waits {
            let days = archive.days().map_err(|error| unread(&error))?;
            self.show_last(&days, limit).map_err(|error| unread(&error))??;
        }
        Ok(archive)
    }

    fn show_last(&mut self, days: &Days, limit: u64) -> Result<io::Result<()>, ReadError> {
        let last = days.last()?;
        let (mut found, mut first) = (0, last + 1);
        if limit > 0 {
            days.newest_first(&self.filter, |sealed| {
                (found, first) = (found + 1, sealed.seq);
                if found == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
        }
        self.after = first.saturating_sub(1);
        let written = self.show(days, true)?;
        self.after = self.after.max(last);
        Ok(written)
    }

    fn show_new(&mut self, days: &Days) -> Result<io::Result<()>, ReadError> {
        // Read before the records: what is added meanwhile may be shown, and is not missed.
        let last = days.last()?;
        if last < self.after {
            // Another log has taken its place.
            self.after = last;
        }
        if last == self.after {
            return Ok(Ok(()));
        }
        // How those end that have only just begun will be seen.
        let written = self.show(days, false)?;
        self.after = self.after.max(last);
        Ok(written)
    }

    /// Shows what comes after `self.after`, and moves that on.
    fn show(&mut self, days: &Days, open_intents: bool) -> Result<io::Result<()>, ReadError> {
        let filter = Filter { after: Some(self.after), ..self.filter.clone() };
        let mut written = Ok(());
        days.oldest_first(&filter, |sealed| {
            self.after = sealed.seq;
            if sealed.record.phase == Phase::Intent && !filter.intents && !open_intents {
                return ControlFlow::Continue(());
            }
            written = self.page.add(sealed);
            if written.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(written.and_then(|()| self.page.finish()))
    }
}
