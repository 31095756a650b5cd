//! How the slots stand up to an API that can do only so much: simulated, in paused time.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use tokio::{
    sync::Semaphore,
    task::LocalSet,
    time::{Instant, sleep, sleep_until},
};

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn config(settings: &str) -> config::Upstream {
    let text = format!("[identities.main]\napi_token = \"t\"\n[upstream]\n{settings}\n");
    config::load::load_str(&text, &[]).unwrap().config.upstream
}

/// An API that serves a few requests at once and lets the others wait.
struct Api {
    free: Semaphore,
    /// How long it takes to serve one.
    takes: Cell<Duration>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
struct Ended {
    at: Instant,
    after: Duration,
    priority: Priority,
    served: bool,
}

struct Scene {
    gate: Arc<Gate>,
    api: Api,
    ended: RefCell<Vec<Ended>>,
    chance: Cell<u64>,
}

impl Scene {
    fn new(servers: usize, takes: Duration, settings: &str) -> Rc<Self> {
        let slots = Slots::new(&config(settings));
        Rc::new(Self {
            gate: Arc::clone(slots.to(Host::Api)),
            api: Api { free: Semaphore::new(servers), takes: takes.into() },
            ended: RefCell::default(),
            chance: 7.into(),
        })
    }

    /// From 0 to 1, the same in each run.
    fn chance(&self) -> f64 {
        let mut x = self.chance.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.chance.set(x);
        (x >> 11) as f64 / (1_u64 << 53) as f64
    }

    async fn request(&self, wish: Wish, work: f64) {
        let begin = Instant::now();
        let served = match self.gate.enter(wish).await {
            Ok((turn, slot)) => {
                let sent = Instant::now();
                let place = self.api.free.acquire().await.expect("it stays open");
                // Nothing takes the same time twice.
                let jitter = 0.9 + self.chance() * 0.2;
                sleep(self.api.takes.get().mul_f64(work * jitter)).await;
                drop(place);
                turn.answered(sent.elapsed());
                drop(slot);
                true
            }
            Err(_) => false,
        };
        let (at, after) = (Instant::now(), begin.elapsed());
        self.ended.borrow_mut().push(Ended { at, after, priority: wish.priority, served });
    }

    /// So many requests a second, whether they are served or not; one in ten is a write.
    async fn open_loop(self: &Rc<Self>, rate: f64, time: Duration) {
        let mut next = Instant::now();
        let end = next + time;
        while next < end {
            sleep_until(next).await;
            let priority = if self.chance() < 0.1 { Priority::Write } else { Priority::Read };
            let scene = Rc::clone(self);
            let wish = Wish { priority, route: Some(0), lasts: false };
            tokio::task::spawn_local(async move { scene.request(wish, 1.0).await });
            next += Duration::from_secs_f64(-self.chance().max(1e-9).ln() / rate);
        }
    }

    /// Those that ended since `since`.
    fn since(&self, since: Instant) -> Vec<Ended> {
        self.ended.borrow().iter().filter(|it| it.at >= since).copied().collect()
    }
}

fn served(ended: &[Ended]) -> usize {
    ended.iter().filter(|it| it.served).count()
}

/// The time that all but one in a hundred of those served have needed at most.
fn p99(ended: &[Ended]) -> Duration {
    let mut times: Vec<_> = ended.iter().filter(|it| it.served).map(|it| it.after).collect();
    times.sort();
    times[times.len() * 99 / 100]
}

/// Runs `scene` in paused time.
async fn simulate(scene: impl Future<Output = ()>) {
    LocalSet::new().run_until(scene).await;
}

#[tokio::test(start_paused = true)]
async fn at_five_times_too_much_nothing_is_lost_and_what_is_served_is_served_soon() {
    simulate(async {
        for (servers, millis) in [(4, 20), (16, 20), (50, 100), (100, 20)] {
            let takes = MS * millis;
            let scene = Scene::new(servers, takes, "");
            let peak = servers as f64 / takes.as_secs_f64();
            scene.open_loop(peak * 0.3, 5 * SECOND).await;
            let unloaded = p99(&scene.since(Instant::now() - 4 * SECOND));

            scene.open_loop(peak * 5.0, 2 * SECOND).await;
            let begin = Instant::now();
            scene.open_loop(peak * 5.0, 5 * SECOND).await;

            let ended = scene.since(begin);
            let goodput = served(&ended) as f64 / 5.0 / peak;
            assert!(goodput >= 0.93, "{servers} servers: {goodput}");
            let slowest = p99(&ended);
            assert!(
                slowest <= unloaded.mul_f64(2.7),
                "{servers} servers: {slowest:?} {unloaded:?}"
            );
            let share = |priority| {
                let of: Vec<_> =
                    ended.iter().filter(|it| it.priority == priority).copied().collect();
                served(&of) as f64 / of.len() as f64
            };
            let (writes, reads) = (share(Priority::Write), share(Priority::Read));
            assert!(writes > 0.9 && reads < 0.25, "{servers} servers: {writes} {reads}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_long_where_the_host_is_well() {
    simulate(async {
        let scene = Scene::new(10_000, 2 * MS, "");
        let begin = Instant::now();

        let callers = (0..200).map(|_| async {
            for _ in 0..500 {
                let wish = Wish { priority: Priority::Read, route: Some(0), lasts: false };
                scene.request(wish, 1.0).await;
            }
        });
        futures_util::future::join_all(callers).await;

        let ended = scene.since(begin);
        assert_eq!(served(&ended), 100_000);
        assert!(begin.elapsed() < 1600 * MS, "{:?}", begin.elapsed());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn long_reports_keep_nobody_from_anything() {
    simulate(async {
        let scene = Scene::new(10_000, 5 * MS, "");
        let begin = Instant::now();
        let reports = (0..100).map(|number| {
            let scene = &scene;
            async move {
                sleep(SECOND + 5 * MS * number).await;
                for _ in 0..3 {
                    let wish = Wish { priority: Priority::Read, route: Some(1), lasts: false };
                    scene.request(wish, 2_000.0).await;
                }
            }
        });
        tokio::join!(futures_util::future::join_all(reports), scene.open_loop(500.0, 30 * SECOND));

        let ended = scene.since(begin);
        assert_eq!(served(&ended), ended.len());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_route_whose_requests_differ_is_no_overload() {
    simulate(async {
        let scene = Scene::new(10_000, 20 * MS, "");
        let begin = Instant::now();
        let callers = (0..100).map(|_| async {
            for _ in 0..200 {
                let wish = Wish { priority: Priority::Read, route: Some(0), lasts: false };
                // From a fifth to fifty times.
                let work = (scene.chance() * 5.5).exp() / 5.0;
                scene.request(wish, work).await;
            }
        });
        futures_util::future::join_all(callers).await;
        let ended = scene.since(begin);
        assert_eq!(served(&ended), ended.len());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_slower_by_itself_gets_as_many_requests_as_before() {
    simulate(async {
        for (slower, share) in [(2, 95), (3, 95), (10, 80)] {
            let scene = Scene::new(10_000, 20 * MS, "");
            scene.open_loop(1000.0, 5 * SECOND).await;
            let begin = Instant::now();
            scene.api.takes.set(20 * MS * slower);

            scene.open_loop(1000.0, 5 * SECOND).await;

            let ended = scene.since(begin);
            assert!(
                served(&ended) * 100 > ended.len() * share,
                "{slower} times: {} of {}",
                served(&ended),
                ended.len()
            );
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn it_is_soon_found_out_that_the_host_bears_more_again() {
    simulate(async {
        let scene = Scene::new(4, 20 * MS, "");
        scene.open_loop(1000.0, 10 * SECOND).await;

        scene.api.free.add_permits(10_000);
        sleep(10 * MS).await;
        let begin = Instant::now();
        scene.open_loop(1000.0, 5 * SECOND).await;

        let ended = scene.since(begin);
        assert!(served(&ended) * 100 > ended.len() * 90);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_stood_still_is_served_again() {
    simulate(async {
        let scene = Scene::new(100, 20 * MS, "");
        scene.open_loop(1000.0, 5 * SECOND).await;
        let stand = scene.api.free.acquire_many(50).await.expect("it is open");
        let rest = scene.api.free.acquire_many(50).await.expect("it is open");
        scene.open_loop(1000.0, 5 * SECOND).await;
        drop((stand, rest));
        // Who has waited through it is late.
        scene.open_loop(1000.0, 500 * MS).await;
        let begin = Instant::now();
        scene.open_loop(1000.0, 5 * SECOND).await;

        let ended = scene.since(begin);
        assert!(served(&ended) * 100 > ended.len() * 98);
    })
    .await;
}

/// What happens to the slots of a host.
#[derive(Clone, Copy, Debug)]
enum Step {
    Enter(Priority, bool),
    Answered(usize),
    Over(usize),
    Leaves(usize),
    Time(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let priority = prop_oneof![Just(Priority::Write), Just(Priority::Read)];
    prop_oneof![
        4 => (priority, prop::bool::weighted(0.1)).prop_map(|(it, lasts)| Step::Enter(it, lasts)),
        3 => (0..9_usize).prop_map(Step::Answered),
        3 => (0..9_usize).prop_map(Step::Over),
        1 => (0..9_usize).prop_map(Step::Leaves),
        2 => (1..400_u64).prop_map(Step::Time),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// Whatever happens: no more than may be are under way, open, or waiting; nobody waits while a
    /// slot is free; and in the end all is given back.
    #[test]
    fn slots_are_neither_lost_nor_made(steps in prop::collection::vec(step(), 1..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let settings = "max_connections = 5\nmax_waiting = 4\nmax_wait = \"300ms\"";
            let gate = Arc::clone(Slots::new(&config(settings)).to(Host::Api));
            let mut entering = Vec::new();
            let (mut turns, mut slots) = (Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Enter(priority, lasts) => {
                        let gate = &gate;
                        let wish = Wish { priority, route: Some(3), lasts };
                        entering.push(Box::pin(gate.enter(wish)));
                    }
                    Step::Answered(at) if at < turns.len() => {
                        let turn: Turn<'_> = turns.swap_remove(at);
                        turn.answered(MS * 7 * at as u32);
                    }
                    Step::Over(at) if at < slots.len() => drop(slots.swap_remove(at)),
                    Step::Leaves(at) if at < entering.len() => drop(entering.swap_remove(at)),
                    Step::Time(millis) => tokio::time::advance(MS * millis as u32).await,
                    _ => {}
                }
                let mut at = 0;
                while at < entering.len() {
                    match futures_util::poll!(entering[at].as_mut()) {
                        std::task::Poll::Pending => at += 1,
                        std::task::Poll::Ready(entered) => {
                            drop(entering.swap_remove(at));
                            if let Ok((turn, slot)) = entered {
                                turns.push(turn);
                                slots.push(slot);
                            }
                        }
                    }
                }
                let standing = gate.standing(Host::Api);
                let lasting = turns.iter().filter(|turn| turn.lasts).count();
                // What has been granted is under way, even if nobody has taken it yet.
                assert!(standing.under_way >= turns.len() - lasting);
                assert!(standing.under_way <= 5 && standing.open <= 5, "{standing:?}");
                assert!(standing.waiting.iter().sum::<usize>() <= 4, "{standing:?}");
                if standing.waiting != [0, 0] {
                    assert!(
                        standing.under_way >= standing.limit || standing.open >= 5,
                        "{standing:?}"
                    );
                }
            }
            drop(entering);
            turns.clear();
            slots.clear();
            let standing = gate.standing(Host::Api);
            assert_eq!((standing.under_way, standing.open, standing.waiting), (0, 0, [0, 0]));
        });
    }
}
