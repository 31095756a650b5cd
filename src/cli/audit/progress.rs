//! How far long work has got, on a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar on standard error for `total` records; invisible where that is no terminal.
pub(super) fn bar(total: u64) -> ProgressBar {
    const LOOK: &str = "{bar:30} {percent:>3} %  {human_pos} of {human_len} records, {eta} left";
    let style = ProgressStyle::with_template(LOOK);
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    // The look is the same each time, and a good one.
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
