//! Whether pauses begin, hold back and end as they should, by a clock that the test turns.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Pauses, and the time.
struct Scene {
    pauses: Pauses,
    now: Instant,
}

impl Scene {
    fn new() -> Self {
        Self { pauses: Pauses::default(), now: Instant::now() }
    }

    fn passes(&mut self, seconds: u32) {
        self.now += SECOND * seconds;
    }

    fn is_told(&self, identity: usize, host: Host, status: u16, seconds: u32) -> bool {
        let status = StatusCode::from_u16(status).unwrap();
        let wish = Wish::new(status, SECOND * seconds).expect("a wish");
        self.pauses.ask(identity, host, wish, self.now)
    }

    fn check(&self, identity: usize, host: Host) -> Result<Option<Trial>, Held> {
        self.pauses.check(identity, host, self.now)
    }

    /// The seconds that a request must wait; none if it may go and has nothing to find out.
    fn left(&self, identity: usize, host: Host) -> f64 {
        match self.check(identity, host) {
            Ok(None) => 0.0,
            Ok(Some(trial)) => panic!("nothing is to be found out: {trial:?}"),
            Err(held) => held.left.as_secs_f64(),
        }
    }
}

#[test]
fn a_429_stops_one_identity_at_one_host() {
    let mut scene = Scene::new();
    assert!(!scene.pauses.any());

    assert!(scene.is_told(1, Host::Api, 429, 10));

    assert!(scene.pauses.any());
    let held = scene.check(1, Host::Api).unwrap_err();
    assert_eq!(held, Held { reason: Reason::Quota, left: 10 * SECOND });
    assert_eq!((scene.left(0, Host::Api), scene.left(1, Host::Auth)), (0.0, 0.0));
    scene.passes(9);
    assert_eq!(scene.left(1, Host::Api), 1.0);
    scene.passes(1);
    assert_eq!(scene.left(1, Host::Api), 0.0);
    assert!(!scene.pauses.any(), "what is over is forgotten");
}

#[test]
fn a_503_stops_everybody_at_one_host() {
    let scene = Scene::new();

    scene.is_told(1, Host::Api, 503, 10);

    for identity in [0, 1, 2] {
        let held = scene.check(identity, Host::Api).unwrap_err();
        assert_eq!(held, Held { reason: Reason::Unavailable, left: 10 * SECOND });
        assert_eq!(scene.left(identity, Host::Auth), 0.0);
    }
}

#[test]
fn other_answers_stop_nobody() {
    let clock = Clock::system();
    let headers = |text| HeaderMap::from_iter([(http::header::RETRY_AFTER, text)]);
    let of = |status: u16, text: &'static str| {
        let status = StatusCode::from_u16(status).unwrap();
        Wish::of(status, &headers(http::HeaderValue::from_static(text)), &clock)
    };

    assert_eq!(of(429, "5"), Some(Wish { reason: Reason::Quota, pause: 5 * SECOND }));
    assert_eq!(of(503, "5"), Some(Wish { reason: Reason::Unavailable, pause: 5 * SECOND }));
    for status in [200, 202, 301, 401, 413, 499, 500, 502, 504] {
        assert_eq!(of(status, "5"), None, "{status}");
    }
    assert_eq!((of(429, "0"), of(503, "later")), (None, None));
    assert_eq!(Wish::of(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new(), &clock), None);
}

#[test]
fn answers_that_overtake_each_other_leave_the_longest_pause() {
    let mut scene = Scene::new();

    assert!(scene.is_told(0, Host::Api, 503, 10));
    assert!(!scene.is_told(0, Host::Api, 503, 4), "it has begun already");
    assert_eq!(scene.left(0, Host::Api), 10.0);
    assert!(!scene.is_told(0, Host::Api, 503, 20));
    assert_eq!(scene.left(0, Host::Api), 20.0);
    scene.is_told(0, Host::Api, 429, 30);
    let held = scene.check(0, Host::Api).unwrap_err();
    assert_eq!(held, Held { reason: Reason::Quota, left: 30 * SECOND });
    scene.passes(30);
    assert_eq!(scene.left(0, Host::Api), 0.0);
    let begun: Vec<_> = scene.pauses.counts().map(|it| (it.host, it.reason, it.begun)).collect();
    let expected = [
        (Host::Api, Reason::Quota, 1),
        (Host::Api, Reason::Unavailable, 1),
        (Host::Auth, Reason::Quota, 0),
        (Host::Auth, Reason::Unavailable, 0),
    ];
    assert_eq!(begun, expected);
}

#[test]
fn a_day_is_not_believed_and_one_request_finds_out() {
    let mut scene = Scene::new();
    scene.is_told(0, Host::Api, 503, 86_400);
    assert_eq!(scene.left(0, Host::Api), 60.0);
    scene.passes(60);

    let trial = scene.check(0, Host::Api).unwrap().expect("somebody finds out");

    for identity in [0, 1] {
        assert_eq!(scene.left(identity, Host::Api), 5.0, "the others wait for what is found out");
    }
    scene.pauses.lift(&trial);
    assert_eq!(scene.left(1, Host::Api), 0.0);
    assert!(!scene.pauses.any());
}

#[test]
fn who_finds_out_that_it_was_meant_begins_a_new_pause() {
    let mut scene = Scene::new();
    scene.is_told(0, Host::Api, 429, 86_400);
    scene.passes(61);
    let trial = scene.check(0, Host::Api).unwrap().expect("somebody finds out");

    assert!(scene.is_told(0, Host::Api, 429, 2));
    scene.pauses.lift(&trial);

    assert_eq!(scene.left(0, Host::Api), 2.0, "what was found out counts, not what was feared");
    scene.passes(2);
    assert_eq!(scene.left(0, Host::Api), 0.0);
}

#[test]
fn who_leaves_while_finding_out_is_followed_by_the_next() {
    let mut scene = Scene::new();
    scene.is_told(0, Host::Api, 503, 3600);
    scene.passes(60);
    assert!(scene.check(0, Host::Api).unwrap().is_some());

    scene.passes(5);

    assert!(scene.check(1, Host::Api).unwrap().is_some());
    assert_eq!(scene.left(0, Host::Api), 5.0);
    scene.passes(65);
    assert_eq!(scene.left(0, Host::Api), 0.0, "nobody came to find out");
    assert!(!scene.pauses.any());
}

#[test]
fn those_who_wait_are_bounded() {
    let pauses = Pauses::default();

    let places: Vec<_> = std::iter::from_fn(|| pauses.place()).collect();
    assert_eq!((places.len(), pauses.waiting()), (ROOM, ROOM));
    drop(places);

    assert_eq!(pauses.waiting(), 0);
    assert!(pauses.place().is_some());
}

#[test]
fn a_pause_follows_its_identity_and_nobody_else_inherits_it() {
    let mut scene = Scene::new();
    scene.is_told(0, Host::Api, 429, 30);
    scene.is_told(1, Host::Api, 429, 20);

    // The second becomes the first, a new one the second; the first is gone.
    scene.pauses = scene.pauses.under(&[Some(1), None]);

    assert_eq!((scene.left(0, Host::Api), scene.left(1, Host::Api)), (20.0, 0.0));
    let in_force = scene.pauses.in_force(scene.now);
    assert_eq!(in_force.iter().map(|it| it.identity).collect::<Vec<_>>(), [Some(0)]);
    assert!(scene.is_told(1, Host::Api, 429, 5));
    scene.pauses = scene.pauses.under(&[None, Some(1), Some(0)]);
    assert_eq!(scene.left(0, Host::Api), 0.0);
    assert_eq!((scene.left(1, Host::Api), scene.left(2, Host::Api)), (5.0, 20.0));
}
