//! What the parts of a request's way cost, each by itself. The whole is counted by `whole`.
//!
//! Times depend on the machine, so nobody is held up by them; what they are good for is to see
//! that a part costs the same however much is configured, and which part is worth a look.
#![expect(clippy::expect_used, reason = "a measurement that cannot be set up has failed")]

mod callers;
mod classification;
mod limit;
mod policy;
mod problem;
mod record;
mod sanitising;
mod support;

use std::time::Duration;

use criterion::Criterion;

fn main() {
    // Short: each part takes well below a microsecond, and there are many.
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    classification::measure(&mut criterion);
    callers::measure(&mut criterion);
    sanitising::measure(&mut criterion);
    policy::measure(&mut criterion);
    limit::measure(&mut criterion);
    problem::measure(&mut criterion);
    record::measure(&mut criterion);
    criterion.final_summary();
}
