//! A load of everything at once, for a build that is guided by how the gateway is used.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    backend::Backend,
    client::{Client, Round},
    gateway::{Gateway, Size, run},
    scenario,
};

const CALLERS: usize = 64;

/// Sends a mix of all scenarios to `binary` for a time, and lets it end in good order.
pub(crate) fn train(binary: &Path, time: Duration) {
    let backend = Backend::start().expect("a backend");
    let gateway = Gateway::start(|config| run(binary, config), &backend, Size::default());
    let mut client = Client::connect(gateway.address, CALLERS);
    // At each moment some do the one and some the other, each in its turn.
    let mix: Vec<_> =
        scenario::ALL.iter().flat_map(|it| std::iter::repeat_n(it, it.share)).collect();
    let rounds: Vec<_> = (0..mix.len())
        .map(|turn| Round::new(CALLERS, |at| (mix[(at + turn) % mix.len()], at)))
        .collect();

    let (started, mut count) = (Instant::now(), 0);
    while started.elapsed() < time {
        rounds.iter().for_each(|round| client.round(round));
        count += rounds.len() * CALLERS;
        // Operators look as well.
        assert_eq!(gateway.ask("/metrics").0, 200);
    }
    drop(client);
    gateway.stop();
    println!("{count} requests of all kinds in {:.1} s", started.elapsed().as_secs_f64());
}
