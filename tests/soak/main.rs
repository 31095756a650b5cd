//! A gateway with everything on, under mixed load, while whatever it relies on fails again and again.
//!
//! ```sh
//! cargo test --test soak -- --minutes 30
//! ```
//!
//! Throughout: each answer belongs to its request, nobody waits in vain, nothing is done twice. When
//! all is well again: so is every answer. In the end: what was answered is recorded once, here and in
//! the central store, and the gateway holds no more memory, descriptors and tasks than before.
#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

#[path = "../process_support/mod.rs"]
mod process_support;

mod book;
mod calls;
mod crowd;
mod faults;
mod hub;
mod judge;
mod line;
mod scene;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use self::{
    book::Book,
    crowd::Crowd,
    faults::Deck,
    judge::{Footprint, Judge},
    scene::Scene,
};

const USAGE: &str = "\
usage: cargo test --test soak -- --minutes NUMBER [--seed NUMBER]
  --minutes   how long there are faults; without it, nothing is done
  --seed      repeats the order of faults and calls, as far as time lets it";

/// How long there is load without faults: before them, and after everybody has recovered.
const CALM: Duration = Duration::from_secs(8);

/// How long it may take until all is well after the last fault: a login may have to wait for its
/// back-off, and a circuit for its cool-down.
const RECOVERY: Duration = Duration::from_secs(75);

#[derive(Debug)]
struct Order {
    minutes: f64,
    seed: u64,
}

/// What the command line says. Names of tests, and what `cargo test` itself adds, mean others.
fn order() -> Option<Order> {
    let (mut minutes, mut seed) = (None, fastrand::u64(..));
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--minutes" => minutes = Some(arguments.next()?.parse().ok()?),
            "--seed" => seed = arguments.next()?.parse().ok()?,
            _ => {}
        }
    }
    Some(Order { minutes: minutes?, seed })
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(order) = order() else {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    };
    println!("seed {}", order.seed);
    fastrand::seed(order.seed);
    let Some(mut scene) = Scene::start().await else {
        return ExitCode::SUCCESS;
    };

    let book = Book::open();
    let crowd = Crowd::start(&scene.door(), &book, order.seed);
    calm("before", &book).await;
    let before = Footprint::of(&scene);

    let end = Instant::now() + Duration::from_secs_f64(order.minutes * 60.0);
    book.expect_trouble(true);
    let mut deck = Deck::new(order.seed);
    while Instant::now() < end && book.is_clean() {
        let (fault, heard) = (deck.draw(), book.tally());
        println!("{:>6.1} s  {}", book.age().as_secs_f64(), fault.name());
        fault.befall(&mut scene).await;
        let pause = Duration::from_millis(deck.pause());
        tokio::time::sleep(pause).await;
        println!("          {}", book.tally().since(&heard));
    }
    let recovered = book.recovers(RECOVERY).await;
    book.expect_trouble(false);
    if recovered {
        calm("after", &book).await;
    }
    crowd.leave().await;

    let mut judge = Judge::over(&book);
    judge.footprint(&before, &scene).await;
    judge.metrics(&scene).await;
    judge.records(scene).await;
    judge.verdict()
}

/// All must be well meanwhile.
async fn calm(when: &str, book: &Book) {
    let heard = book.tally();
    tokio::time::sleep(CALM).await;
    println!("{:>6.1} s  calm {when}: {}", book.age().as_secs_f64(), book.tally().since(&heard));
}
