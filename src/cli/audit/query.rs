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
};
use crate::clock::Clock;

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// How many to show
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Only records before this one: the next page, as the one before has told
    #[arg(long, value_name = "SEQ")]
    before: Option<String>,
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
    let filter = arguments.filters.filter(now)?;
    let source = arguments.place.store(global)?.0.source()?;
    let mut page = Page::new(if arguments.json {
        Form::Json
    } else {
        Form::Table(Table::new(Look {
            colour: global.colour(&io::stdout()),
            ago: (io::stdout().is_terminal() && !arguments.utc).then_some(now),
            intent: if filter.intents { "started" } else { "started, end unknown" },
        }))
    });
    let (mut shown, mut end, mut wrote) = (0, None, Ok(()));
    source.newest_first(&filter, arguments.before.as_deref(), |sealed| {
        wrote = page.add(sealed);
        shown += 1;
        // The first of all has none before it.
        end = (shown == arguments.limit && sealed.seq > 1).then(|| source.end(sealed));
        if wrote.is_err() || shown == arguments.limit {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    wrote?;
    page.finish()?;
    if shown == 0 {
        remark("no record fits");
    } else if let Some(end) = end {
        remark(format_args!("there may be older ones: add --before {end}"));
    }
    Ok(())
}
