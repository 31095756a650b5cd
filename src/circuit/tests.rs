//! Whether circuits open, probe and close as they should, by a clock that the test turns.

use super::*;
use crate::config::load::load_str;

const SECOND: Duration = Duration::from_secs(1);

/// The circuits, and the time.
struct Scene {
    circuits: Circuits,
    now: Instant,
}

fn config(settings: &str) -> config::Upstream {
    let text = format!("[identities.main]\napi_token = \"t\"\n[upstream]\n{settings}");
    load_str(&text, &[]).unwrap().config.upstream
}

const THREE: &str = "breaker_failures = 3\nbreaker_cooldown = \"5s\"\n";

impl Scene {
    fn new() -> Self {
        Self { circuits: Circuits::new(&config(THREE)), now: Instant::now() }
    }

    fn api(&self) -> &Circuit {
        self.circuits.to(Host::Api)
    }

    fn pass(&self) -> Result<Pass<'_>, Refused> {
        self.api().pass(|| self.now)
    }

    fn fails(&self, times: usize) -> Option<Duration> {
        (0..times).fold(None, |_, _| self.pass().unwrap().failed(self.now))
    }

    fn passes(&mut self, time: Duration) {
        self.now += time;
    }

    fn left(&self) -> Duration {
        self.pass().expect_err("it is open").left
    }

    fn standing(&self) -> Standing {
        self.circuits.standings(self.now)[Host::Api as usize]
    }
}

#[test]
fn so_many_failures_in_a_row_open_it_for_the_cool_down() {
    let mut scene = Scene::new();

    assert_eq!(scene.fails(2), None);
    assert_eq!((scene.standing().position, scene.standing().failures), (Position::Closed, 2));
    assert_eq!(scene.fails(1), Some(5 * SECOND));

    assert_eq!(scene.standing().position, Position::Open);
    scene.passes(2 * SECOND);
    assert_eq!(scene.left(), 3 * SECOND);
    let standing = scene.standing();
    assert_eq!((standing.opened, standing.refused, standing.left), (1, 1, Some(3 * SECOND)));
    assert!(scene.circuits.to(Host::Auth).pass(|| scene.now).is_ok(), "the other host is well");
}

#[test]
fn an_answer_in_between_begins_the_count_anew() {
    let scene = Scene::new();

    for _ in 0..5 {
        assert_eq!(scene.fails(2), None);
        assert!(!scene.pass().unwrap().succeeded());
    }

    assert_eq!((scene.standing().failures, scene.standing().opened), (0, 0));
}

#[test]
fn while_the_host_is_well_nobody_asks_for_the_time() {
    let scene = Scene::new();

    let pass = scene.api().pass(|| panic!("it is not needed"));

    assert!(!pass.unwrap().succeeded());
}

#[test]
fn one_probe_at_a_time_finds_out_and_closes_it() {
    let mut scene = Scene::new();
    scene.fails(3);
    scene.passes(5 * SECOND);
    assert_eq!(scene.standing().position, Position::HalfOpen);

    let probe = scene.pass().unwrap();

    assert_eq!(scene.left(), SECOND);
    assert!(probe.succeeded());
    assert_eq!(scene.standing().position, Position::Closed);
    assert_eq!(scene.fails(2), None, "the count begins anew");
}

#[test]
fn a_probe_that_fails_opens_it_for_longer_up_to_a_minute() {
    let mut scene = Scene::new();
    scene.fails(3);

    let mut pauses = Vec::new();
    for _ in 0..6 {
        scene.passes(LONGEST);
        pauses.extend(scene.fails(1).map(|pause| pause.as_secs()));
    }

    assert_eq!(pauses, [10, 20, 40, 60, 60, 60]);
    scene.passes(LONGEST);
    assert!(scene.pass().unwrap().succeeded());
    assert_eq!(scene.fails(3), Some(5 * SECOND), "and from the beginning");
    assert_eq!(scene.standing().opened, 8);
}

#[test]
fn a_probe_whose_caller_leaves_is_followed_by_the_next() {
    let mut scene = Scene::new();
    scene.fails(3);
    scene.passes(5 * SECOND);

    drop(scene.pass().unwrap());

    assert!(scene.pass().unwrap().succeeded());
}

#[test]
fn a_probe_that_takes_long_is_joined_by_another() {
    let mut scene = Scene::new();
    scene.fails(3);
    scene.passes(5 * SECOND);
    let now = scene.now;
    let slow = scene.circuits.to(Host::Api).pass(|| now).unwrap();

    let second = scene.circuits.to(Host::Api).pass(|| now + PROBE).unwrap();

    // Who leaves late takes nobody's place.
    drop(slow);
    assert!(scene.circuits.to(Host::Api).pass(|| now + PROBE).is_err());
    assert!(second.succeeded());
}

#[test]
fn who_was_sent_before_says_nothing_about_now() {
    let mut scene = Scene::new();
    let (late, later) = (scene.pass().unwrap(), scene.pass().unwrap());
    for _ in 0..3 {
        let _ = scene.pass().unwrap().failed(scene.now);
    }

    assert!(!late.succeeded());
    assert_eq!(scene.standing().position, Position::Open);
    assert_eq!(later.failed(scene.now + SECOND), None);
    assert_eq!(scene.left(), 5 * SECOND);
    scene.passes(5 * SECOND);
    assert!(scene.pass().unwrap().succeeded());
    assert_eq!(scene.standing().failures, 0);
}

#[test]
fn a_cool_down_longer_than_the_bound_is_kept() {
    let scene = Scene {
        circuits: Circuits::new(&config("breaker_failures = 1\nbreaker_cooldown = \"5m\"\n")),
        now: Instant::now(),
    };

    assert_eq!(scene.fails(1), Some(300 * SECOND));
}

#[test]
fn it_outlives_a_reload_unless_the_host_is_another() {
    let mut scene = Scene::new();
    scene.fails(3);

    let same = scene.circuits.under(&config("breaker_failures = 9\nbreaker_cooldown = \"1s\"\n"));
    let other = scene.circuits.under(&config("api_url = \"https://b.test\"\n"));
    let off = scene.circuits.under(&config("breaker_failures = 0\n"));

    assert_eq!(same.standings(scene.now)[0].position, Position::Open);
    let other = other.standings(scene.now)[0];
    assert_eq!((other.position, other.opened), (Position::Closed, 1));
    scene.circuits = off;
    assert!(scene.pass().is_ok(), "what is switched off holds nobody back");
    assert_eq!(scene.fails(100), None);
}
