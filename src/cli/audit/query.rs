//! `audit query`: records that fit, the newest first, a page at a time.

use std::{
    io::{self, IsTerminal},
    ops::ControlFlow,
};

use clap::Args;

use super::{
    Failure, Global,
    filters::Filters,
    page::{Form, Page},
    place::Place,
    remark,
    table::{Look, Table},
    unread,
};
use crate::clock::Clock;

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// How many to show
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Only records before the one with this number: the next page
    #[arg(long, value_name = "SEQ")]
    before: Option<u64>,
    /// As JSON, one record a line
    #[arg(long)]
    json: bool,
    /// Times in UTC, also on a terminal
    #[arg(long)]
    utc: bool,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    filters: Filters,
}

/// Prints a page.
pub(super) fn run(arguments: &Arguments, global: &Global) -> Result<(), Failure> {
    let now = Clock::system().now();
    let mut filter = arguments.filters.filter(now)?;
    filter.before = arguments.before;
    let archive = arguments.place.store(global)?.0.open()?;
    let days = archive.days().map_err(|error| unread(&error))?;
    let mut page = Page::new(if arguments.json {
        Form::Json
    } else {
        Form::Table(Table::new(Look {
            colour: global.colour(&io::stdout()),
            ago: (io::stdout().is_terminal() && !arguments.utc).then_some(now),
            intent: if filter.intents { "started" } else { "started, end unknown" },
        }))
    });
    let (mut shown, mut last, mut wrote) = (0, 0, Ok(()));
    days.newest_first(&filter, |sealed| {
        wrote = page.add(sealed);
        (shown, last) = (shown + 1, sealed.seq);
        if wrote.is_err() || shown == arguments.limit {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })
    .map_err(|error| unread(&error))?;
    wrote?;
    page.finish()?;
    if shown == 0 {
        remark("no record fits");
    } else if shown == arguments.limit && last > 1 {
        remark(format_args!("there may be older ones: add --before {last}"));
    }
    Ok(())
}
