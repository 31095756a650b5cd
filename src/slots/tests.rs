//! How the slots stand up to an API that can do only so much: simulated, in paused time.

use std::cell::RefCell;

use tokio::{
    sync::Semaphore,
    task::LocalSet,
    time::{sleep, sleep_until},
};

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
    takes: std::cell::Cell<Duration>,
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
    chance: std::cell::Cell<u64>,
}

impl Scene {
    fn new(servers: usize, takes: Duration, settings: &str) -> std::rc::Rc<Self> {
        let slots = Slots::new(&config(settings));
        std::rc::Rc::new(Self {
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
    async fn open_loop(self: &std::rc::Rc<Self>, rate: f64, time: Duration) {
        let mut next = Instant::now();
        let end = next + time;
        while next < end {
            sleep_until(next).await;
            let priority = if self.chance() < 0.1 { Priority::Write } else { Priority::Read };
            let scene = std::rc::Rc::clone(self);
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

async fn overload(servers: usize, takes: Duration, cold: bool) {
    let scene = Scene::new(servers, takes, "");
    let peak = servers as f64 / takes.as_secs_f64();
    if !cold {
        scene.open_loop(peak * 0.3, 5 * SECOND).await;
    }
    let unloaded = takes.mul_f64(1.2);
    for part in 0..4 {
        let begin = Instant::now();
        scene.open_loop(peak * 5.0, 5 * SECOND).await;
        let ended = scene.since(begin);
        println!(
            "C={servers} S={takes:?} part {part}: goodput {:.3} p99 {:.2} of {unloaded:?} limit {:?}",
            served(&ended) as f64 / (peak * 5.0),
            p99(&ended).as_secs_f64() / unloaded.as_secs_f64(),
            scene.gate.standing(Host::Api),
        );
    }
    let begin = Instant::now();
    scene.open_loop(peak * 0.5, 5 * SECOND).await;
    let ended = scene.since(begin + SECOND);
    println!(
        "   afterwards: served {} of {} p99 {:?} {:?}",
        served(&ended),
        ended.len(),
        p99(&ended),
        scene.gate.standing(Host::Api).limit
    );
}

#[tokio::test(start_paused = true)]
async fn five_times_too_much() {
    let local = LocalSet::new();
    local
        .run_until(async {
            let only = std::env::var("ONLY").ok();
            for (servers, takes) in [
                (4, 20 * MS),
                (1, 50 * MS),
                (16, 20 * MS),
                (50, 100 * MS),
                (4, SECOND),
                (100, 20 * MS),
            ] {
                if only.as_ref().is_some_and(|it| *it != servers.to_string()) {
                    continue;
                }
                overload(servers, takes, false).await;
                overload(servers, takes, true).await;
            }
        })
        .await;
}
