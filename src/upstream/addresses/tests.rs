//! Whether names are looked up as often as they should, by a clock that the test turns.

use std::{
    future::pending,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::time::sleep;

use super::*;

/// What the resolver says; `None`: nothing at all.
type Says = Option<Result<Vec<u8>, &'static str>>;

/// The addresses, and a resolver that says what it is told.
struct Scene {
    addresses: Arc<Addresses>,
    says: Arc<Mutex<Says>>,
    asked: Arc<AtomicUsize>,
}

impl Scene {
    fn new(host: &str) -> Self {
        let says = Arc::new(Mutex::new(Says::None));
        let asked = Arc::<AtomicUsize>::default();
        let (saying, asking) = (Arc::clone(&says), Arc::clone(&asked));
        let resolve: Resolve = Arc::new(move |host, port| {
            assert_eq!((&*host, port), ("a.test", 443));
            asking.fetch_add(1, Relaxed);
            let said = saying.lock().unwrap().clone();
            async move {
                sleep(Duration::from_millis(20)).await;
                match said {
                    Some(Ok(numbers)) => Ok(numbers.into_iter().map(address).collect()),
                    Some(Err(error)) => Err(io::Error::other(error)),
                    None => pending().await,
                }
            }
            .boxed()
        });
        let base = BaseUrl { tls: true, host: host.into(), port: 443 };
        Self { addresses: Addresses::new(&base, resolve, Arc::default()), says, asked }
    }

    fn say(&self, numbers: &[u8]) {
        *self.says.lock().unwrap() = Some(Ok(numbers.to_vec()));
    }

    fn fail(&self) {
        *self.says.lock().unwrap() = Some(Err("no resolver"));
    }

    /// The next addresses to try, sorted.
    async fn sorted(&self) -> Vec<SocketAddr> {
        let mut next = self.addresses.next().await.unwrap();
        next.sort();
        next
    }

    fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }

    fn counted(&self) -> (u64, u64) {
        let counted = self.addresses.counts.read();
        (counted.lookups_ok, counted.lookups_failed)
    }
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 443))
}

fn list(numbers: &[u8]) -> Vec<SocketAddr> {
    numbers.iter().copied().map(address).collect()
}

#[tokio::test(start_paused = true)]
async fn a_name_is_looked_up_again_when_its_answer_is_old() {
    let scene = Scene::new("a.test");
    scene.say(&[1, 2]);
    assert_eq!(scene.sorted().await, list(&[1, 2]));
    let generation = scene.addresses.generation();

    scene.say(&[2, 1, 2]);
    sleep(FRESH - Duration::from_millis(1)).await;
    assert_eq!((scene.sorted().await, scene.asked()), (list(&[1, 2]), 1));
    sleep(Duration::from_millis(1)).await;
    assert_eq!((scene.sorted().await, scene.asked()), (list(&[1, 2]), 2));
    assert_eq!(scene.addresses.generation(), generation, "they are the same");

    scene.say(&[2, 3]);
    sleep(FRESH).await;
    assert_eq!(scene.sorted().await, list(&[2, 3]));
    assert_ne!(scene.addresses.generation(), generation);
    assert!(!scene.addresses.contain(&address(1)) && scene.addresses.contain(&address(2)));
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_the_former_one_serves() {
    let scene = Scene::new("a.test");
    scene.say(&[1]);
    assert_eq!(scene.sorted().await, list(&[1]));

    for failing in [Scene::fail, |scene: &Scene| scene.say(&[])] {
        failing(&scene);
        let before = scene.asked();
        sleep(FRESH).await;
        for _ in 0..3 {
            assert_eq!(scene.sorted().await, list(&[1]));
        }
        assert_eq!(scene.asked() - before, 1, "nobody is asked at once again");
        sleep(AGAIN).await;
        assert_eq!((scene.sorted().await, scene.asked() - before), (list(&[1]), 2));
    }
    assert_eq!(scene.counted(), (1, 4));
    assert!(scene.addresses.known(Instant::now()).failure.is_some());

    scene.say(&[3]);
    sleep(AGAIN).await;
    assert_eq!(scene.sorted().await, list(&[3]));
    assert_eq!(scene.addresses.known(Instant::now()).failure, None);
}

#[tokio::test(start_paused = true)]
async fn a_resolver_that_says_nothing_is_not_waited_for_if_there_is_a_former_answer() {
    let scene = Scene::new("a.test");
    scene.say(&[1]);
    assert_eq!(scene.sorted().await, list(&[1]));
    *scene.says.lock().unwrap() = None;
    sleep(FRESH).await;

    let begin = Instant::now();
    for _ in 0..5 {
        assert_eq!(scene.sorted().await, list(&[1]));
    }

    assert!(begin.elapsed() <= PATIENCE * 5 + Duration::from_millis(5), "{:?}", begin.elapsed());
    assert_eq!(scene.asked(), 2, "there is one look-up at a time");
}

#[tokio::test(start_paused = true)]
async fn all_who_wait_share_one_lookup_and_its_failure() {
    let scene = Scene::new("a.test");
    scene.fail();

    let all = futures_util::future::join_all((0..9).map(|_| scene.addresses.next())).await;

    assert!(all.iter().all(|it| it.as_ref().unwrap_err().to_string() == "no resolver"));
    assert_eq!((scene.asked(), scene.counted()), (1, (0, 1)));
    assert!(scene.addresses.next().await.is_err());
    assert_eq!(scene.asked(), 2, "nobody is kept from asking again");
    // Whoever asks may give up: the look-up goes on, and serves the next.
    scene.say(&[1]);
    assert!(timeout(Duration::from_millis(1), scene.addresses.next()).await.is_err());
    assert_eq!((scene.sorted().await, scene.asked()), (list(&[1]), 3));
}

#[tokio::test(start_paused = true)]
async fn where_nobody_is_others_are_tried_first_for_a_while() {
    let scene = Scene::new("a.test");
    scene.say(&[1, 2, 3]);
    let last = async || *scene.addresses.next().await.unwrap().last().unwrap();
    last().await;

    scene.addresses.avoid(address(2));
    scene.addresses.avoid(address(9));
    for _ in 0..6 {
        assert_eq!(last().await, address(2));
    }
    let known = scene.addresses.known(Instant::now()).addresses;
    assert_eq!(known.iter().filter(|(_, avoided)| *avoided).count(), 1, "others are not known");
    sleep(AVOID).await;
    let mut lasts: Vec<_> = [last().await, last().await, last().await].into();
    lasts.sort();
    assert_eq!(lasts, list(&[1, 2, 3]), "each has its turn");

    scene.addresses.avoid(address(1));
    scene.addresses.praise(address(1));
    assert!(scene.addresses.known(Instant::now()).addresses.iter().all(|(_, avoided)| !avoided));
}

#[tokio::test(start_paused = true)]
async fn where_all_have_failed_others_are_looked_for_soon() {
    let scene = Scene::new("a.test");
    scene.say(&[1]);
    scene.sorted().await;
    scene.say(&[2]);

    scene.addresses.doubt();
    assert_eq!(scene.sorted().await, list(&[1]));
    sleep(AGAIN).await;

    assert_eq!(scene.sorted().await, list(&[2]));
}

#[tokio::test(start_paused = true)]
async fn an_answer_has_an_end_and_an_address_needs_none() {
    let scene = Scene::new("a.test");
    scene.say(&(0..=255).collect::<Vec<_>>());
    assert_eq!(scene.sorted().await.len(), MOST);

    let scene = Scene::new("192.0.2.7");
    sleep(FRESH * 2).await;
    assert_eq!((scene.sorted().await, scene.asked()), (list(&[7]), 0));
    assert_eq!(scene.addresses.known(Instant::now()).age, None);
}
