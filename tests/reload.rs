//! A running gateway takes another configuration over: as a whole, without a break, and it loses
//! nothing of what it knows.
#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::{
    net::SocketAddr,
    os::unix::fs::symlink,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use amove_gateway::emulator::{self, Account, Emulator, Fault, Host, Options};
use bytes::Bytes;
use http::{Method, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use process_support::{
    Gateway, Process, call, emulator, eventually, get,
    pki::{Authority, FUTURE, VERSIONS, connect, status},
    request, run, soon, stderr, stdout,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, net::TcpStream};

mod process_support;

const USERINFO: &str = "/api/v1/user/userinfo";

/// The same, of another user.
const OTHER: &str = "other@amove.test";

/// A gateway whose configuration is in a file, and the Amove behind it.
struct Scene {
    gateway: Gateway,
    amove: Emulator,
    folder: TempDir,
}

fn hash(key: &str) -> String {
    format!("blake3:{}", blake3::hash(key.as_bytes()).to_hex())
}

/// A caller, known by its name as its key.
fn caller(name: &str, settings: &str) -> String {
    format!("[callers.{name}]\napi_key_hash = \"{}\"\n{settings}", hash(name))
}

fn identity(name: &str, username: &str, password: &str) -> String {
    format!(
        "[identities.{name}]\nusername = \"{username}\"\npassword = \"{password}\"\nuser_type = {}\n",
        emulator::USER_TYPE
    )
}

fn main_identity() -> String {
    identity("main", emulator::USERNAME, emulator::PASSWORD)
}

async fn amove() -> Emulator {
    let other = Account { username: OTHER.into(), ..Account::default() };
    let accounts = vec![Account::default(), other];
    emulator(Options { mfa: false, accounts, ..Options::default() }).await
}

impl Scene {
    /// With these settings (TOML) besides the usual ones.
    async fn with(settings: &str) -> Self {
        let (amove, folder) = (amove().await, tempfile::tempdir().expect("a folder"));
        std::fs::write(folder.path().join("gateway.toml"), text(&amove, settings)).expect("a file");
        let gateway = start(&folder.path().join("gateway.toml")).await;
        Self { gateway, amove, folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("gateway.toml")
    }

    /// Puts these settings into the file, all at once.
    fn write(&self, settings: &str) {
        self.write_text(&text(&self.amove, settings));
    }

    fn write_text(&self, text: &str) {
        let next = self.folder.path().join("next");
        std::fs::write(&next, text).expect("a file");
        std::fs::rename(next, self.file()).expect("another file");
    }

    /// What an operator is answered who orders a reload.
    async fn reload(&self) -> (u16, Value) {
        let answer = call(self.gateway.admin, request("POST", "/-/reload")).await;
        told(&answer.expect("an answer"))
    }

    /// The same with another file. The order follows it so closely that it is not noticed before.
    async fn reload_text(&self, text: &str) -> (u16, Value) {
        let mut operator = connect_to(self.gateway.admin).await;
        self.write_text(text);
        let answer = operator.send(Method::POST, "-", "/-/reload", "").await.expect("an answer");
        told(&answer)
    }

    /// The same with these settings, which are fine.
    async fn reload_with(&self, settings: &str) -> Value {
        let (status, applied) = self.reload_text(&text(&self.amove, settings)).await;
        assert_eq!(status, 200, "{applied}");
        applied
    }

    async fn status(&self) -> Value {
        let status = get(self.gateway.admin, "/-/status.json").await;
        serde_json::from_slice(status.body()).expect("JSON")
    }

    /// How often a configuration came into force, and how often one was refused.
    async fn counts(&self) -> (u64, u64) {
        let reload = &self.status().await["reload"];
        let count = |name: &str| reload[name].as_u64().expect("a number");
        (count("applied"), count("refused"))
    }

    async fn connect(&self) -> Caller {
        connect_to(self.gateway.address).await
    }

    /// A call on a connection of its own.
    async fn call(&self, key: &str) -> u16 {
        self.connect().await.get(key, USERINFO).await.status().as_u16()
    }

    async fn calls(&self, key: &str, number: usize) -> Vec<u16> {
        let mut statuses = Vec::new();
        for _ in 0..number {
            statuses.push(self.call(key).await);
        }
        statuses
    }
}

async fn connect_to(address: SocketAddr) -> Caller {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    Caller(sender)
}

fn told(answer: &Response<Bytes>) -> (u16, Value) {
    let body = serde_json::from_slice(answer.body()).expect("JSON");
    (answer.status().as_u16(), body)
}

/// A caller's connection, which is kept alive.
struct Caller(SendRequest<Full<Bytes>>);

impl Caller {
    async fn get(&mut self, key: &str, target: &str) -> Response<Bytes> {
        self.send(Method::GET, key, target, "").await.expect("an answer")
    }

    async fn send(
        &mut self,
        method: Method,
        key: &str,
        target: &str,
        body: &str,
    ) -> Result<Response<Bytes>, hyper::Error> {
        let mut request = request(method.as_str(), target).map(|_| Full::from(body.to_owned()));
        request.headers_mut().insert("x-api-key", key.parse().expect("a key"));
        let exchange = async {
            self.0.ready().await?;
            let (parts, body) = self.0.send_request(request).await?.into_parts();
            Ok(Response::from_parts(parts, body.collect().await?.to_bytes()))
        };
        soon("an answer", exchange).await
    }
}

/// The usual settings, and these.
fn text(amove: &Emulator, settings: &str) -> String {
    let usual = [
        ("server", "listen", "[\"127.0.0.1:0\"]".to_owned()),
        ("server", "admin_listen", "\"127.0.0.1:0\"".to_owned()),
        ("server", "workers", "2".to_owned()),
        ("upstream", "api_url", format!("\"{}\"", amove.api_url())),
        ("upstream", "auth_url", format!("\"{}\"", amove.auth_url())),
    ];
    let identity = if settings.contains("[identities.") { String::new() } else { main_identity() };
    let mut text: toml_edit::DocumentMut = (identity + settings).parse().expect("TOML");
    for (section, key, value) in usual {
        let table = text.entry(section).or_insert(toml_edit::table());
        let value: toml_edit::Value = value.parse().expect("a value");
        table.as_table_mut().expect("a table").entry(key).or_insert(value.into());
    }
    text.to_string()
}

/// A gateway with the configuration in `file`, once it is ready.
async fn start(file: &std::path::Path) -> Gateway {
    let file = file.to_str().expect("text");
    let environment = [("AMOVE_GATEWAY_LOG_FORMAT", "json")];
    let gateway = Gateway::started(Process::start(&["run", "--config", file], &environment)).await;
    eventually("the gateway is ready", async || {
        get(gateway.admin, "/readyz").await.status() == 200
    })
    .await;
    gateway
}

fn names(value: &Value) -> Vec<&str> {
    value.as_array().expect("a list").iter().map(|it| it.as_str().expect("text")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_noticed_however_it_is_replaced_and_not_while_it_is_being_written() {
    let amove = amove().await;
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().to_owned();
    let path = |name: &str| root.join(name);
    // As Kubernetes mounts a ConfigMap.
    let version = |amove: &Emulator, name: &str, rate: u32| {
        std::fs::create_dir(path(name)).expect("a folder");
        let text = text(amove, &caller("a", &format!("rate = \"{rate}/s\"\n")));
        std::fs::write(path(name).join("gateway.toml"), text).expect("a file");
    };
    version(&amove, "v1", 1);
    symlink("v1", path("..data")).expect("a link");
    symlink("..data/gateway.toml", path("gateway.toml")).expect("a link");
    let gateway = start(&path("gateway.toml")).await;
    let scene = Scene { gateway, amove, folder };
    let in_force = async |rate: u32| {
        let changed = Instant::now();
        let expected = format!("rate = \"{rate}/s\"");
        eventually(&expected, async || {
            let shown = get(scene.gateway.admin, "/-/config").await;
            String::from_utf8_lossy(shown.body()).contains(&expected)
        })
        .await;
        changed.elapsed()
    };
    in_force(1).await;

    // The link of the folder is replaced.
    version(&scene.amove, "v2", 2);
    symlink("v2", path("next")).expect("a link");
    std::fs::rename(path("next"), path("..data")).expect("another link");
    let took = in_force(2).await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    // An editor renames a whole file over it.
    scene.write(&caller("a", "rate = \"3/s\"\n"));
    in_force(3).await;
    // Another one writes into the file itself, and takes its time.
    let whole = text(&scene.amove, &caller("a", "rate = \"4/s\"\n"));
    let (one, other) = whole.split_at(whole.find("[callers").expect("a caller") + 4);
    std::fs::write(scene.file(), one).expect("half a file");
    tokio::time::sleep(Duration::from_millis(50)).await;
    std::fs::write(scene.file(), format!("{one}{other}")).expect("a file");
    in_force(4).await;

    let reload = &scene.status().await["reload"];
    assert_eq!((&reload["applied"], &reload["refused"]), (&json!(3), &json!(0)), "{reload}");
    assert_eq!(reload["last"]["trigger"], "file");
    assert_eq!(names(&reload["last"]["changed"]), ["callers.a.rate"]);
    // A file that is gone is a mistake, which is told once.
    std::fs::remove_file(scene.file()).expect("no file");
    eventually("it is refused", async || scene.counts().await == (3, 1)).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(scene.counts().await, (3, 1));
    scene.write(&caller("a", "rate = \"4/s\"\n"));
    eventually("it is back", async || scene.counts().await == (4, 1)).await;
    assert_eq!(scene.call("a").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_reloads_under_load_cost_no_request_and_no_login() {
    let scene = Arc::new(Scene::with(&caller("a", "")).await);
    let (done, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..6)
        .map(|number| {
            let (scene, done, answered) =
                (Arc::clone(&scene), Arc::clone(&done), Arc::clone(&answered));
            tokio::spawn(async move {
                let mut caller = scene.connect().await;
                while !done.load(Relaxed) {
                    if number % 3 == 0 {
                        // Some come anew each time.
                        caller = scene.connect().await;
                    }
                    let (method, target, body) = match number % 2 {
                        0 => (Method::GET, USERINFO, ""),
                        _ => (Method::POST, "/api/v1/emulator/echo", "some body"),
                    };
                    let answer = caller.send(method, "a", target, body).await;
                    let answer = answer.expect("a connection that is kept");
                    assert_eq!(answer.status(), 200, "{answer:?}");
                    answered.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();

    for number in 1..=20 {
        let before = answered.load(Relaxed);
        // Every other one takes the connections to Amove along.
        let settings = format!(
            "{}[upstream]\nconnect_timeout = \"{}s\"\n",
            caller("a", &format!("rate = \"{}/s\"\n", 100_000 + number)),
            5 + number / 2
        );
        if number % 5 == 0 {
            scene.write(&settings);
            scene.gateway.process.signal("HUP");
            let expected = u64::try_from(number).expect("a number");
            eventually("it is reloaded", async || scene.counts().await.0 >= expected).await;
        } else {
            scene.reload_with(&settings).await;
        }
        eventually("it goes on", async || answered.load(Relaxed) > before + 20).await;
    }
    done.store(true, Relaxed);
    for task in load {
        task.await.expect("no request fails");
    }

    let stats = scene.amove.stats();
    assert_eq!((stats.logins, stats.failed_logins, stats.logouts), (1, 0, 0));
    let (applied, refused) = scene.counts().await;
    assert!(applied >= 20 && refused == 0, "{applied}, {refused}");
    eprintln!("{} requests", answered.load(Relaxed));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_is_refused_as_a_whole_and_told_everywhere() {
    let limited = caller("a", "rate = \"1/h\"\n");
    let scene = Scene::with(&limited).await;
    let shown = get(scene.gateway.admin, "/-/config").await;
    assert_eq!(scene.call("a").await, 200);

    let wrong = "[policy]\nunknown_routes = \"perhaps\"\n[legacy]\npassword = \"c4nary\"\n";
    let wrong = format!("{}{wrong}{}burts = 3\n", text(&scene.amove, ""), caller("b", ""));
    let (status, problem) = scene.reload_text(&wrong).await;

    assert_eq!((status, &problem["errors"]), (422, &json!(3)), "{problem}");
    assert_eq!(problem["type"], "urn:amove-gateway:problem:configuration-refused");
    let report = problem["report"].as_str().expect("a report");
    for expected in ["gateway.toml:", "did you mean `burst`?", "expected `allow` or `deny`"] {
        assert!(report.contains(expected), "{expected}: {report}");
    }
    assert_eq!(scene.calls("a", 1).await, [429], "the former one is in force");
    assert_eq!(scene.call("b").await, 401);
    assert_eq!(get(scene.gateway.admin, "/-/config").await.body(), shown.body());
    let reload = scene.status().await["reload"].clone();
    assert_eq!((&reload["applied"], &reload["refused"]), (&json!(0), &json!(1)), "{reload}");
    let error = reload["last"]["error"].as_str().expect("a reason");
    assert!(error.contains("is not a setting") || error.contains("cannot be used"), "{error}");
    let address = scene.gateway.admin.to_string();
    let screen = run(&["status", "--address", &address], &[]).await;
    assert!(stdout(&screen).contains("configuration  refused "), "{}", stdout(&screen));
    let metrics = get(scene.gateway.admin, "/metrics").await;
    let metrics = String::from_utf8_lossy(metrics.body()).into_owned();
    for expected in
        ["amove_gateway_reloads_total{result=\"refused\"} 1", "amove_gateway_reload_ok 0"]
    {
        assert!(metrics.contains(expected), "{expected}: {metrics}");
    }
    // The same by a signal, and by itself: it is not tried again and again.
    scene.gateway.process.signal("HUP");
    eventually("it is refused again", async || scene.counts().await == (0, 2)).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(scene.counts().await, (0, 2));
    let log = scene.gateway.process.stderr();
    assert_eq!(log.matches("new configuration refused").count(), 2, "{log}");
    assert!(log.contains("did you mean `burst`?"), "{log}");
    for text in [&log, &problem.to_string()] {
        assert!(!text.contains("c4nary") && !text.contains(emulator::PASSWORD), "{text}");
    }
    let applied = scene.reload_with(&(limited + &caller("b", ""))).await;
    assert_eq!(names(&applied["changed"]), ["callers.b"]);
    assert_eq!((scene.call("a").await, scene.call("b").await), (429, 200));
    let screen = run(&["status", "--address", &address], &[]).await;
    assert!(stdout(&screen).contains("configuration  reloaded "), "{}", stderr(&screen));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_set_up_is_refused_as_well() {
    let scene = Scene::with(&caller("a", "")).await;
    let roots = scene.folder.path().join("roots.pem");
    std::fs::write(&roots, "no certificate").expect("a file");

    let wrong = format!(
        "{}[callers.b]\njwt_subject = \"b\"\n[caller_jwt]\nissuer = \"i\"\naudience = \"a\"\n\
         jwks_url = \"https://127.0.0.1:1/keys\"\nca_file = {roots:?}\n",
        caller("c", "")
    );
    let (status, problem) = scene.reload_text(&text(&scene.amove, &wrong)).await;

    assert_eq!(status, 409, "{problem}");
    assert!(
        problem["reason"]
            .as_str()
            .is_some_and(|it| it.contains("holds no certificate") || it.contains("cannot read")),
        "{problem}"
    );
    assert_eq!((scene.call("a").await, scene.call("c").await), (200, 401));
    assert_eq!(scene.counts().await, (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_start_sets_is_named_and_the_rest_applies() {
    let scene = Scene::with(&caller("a", "rate = \"1/h\"\n")).await;
    let address = scene.gateway.address;
    let audit = scene.folder.path().join("elsewhere");

    let applied = scene
        .reload_with(&format!(
            "{}[server]\nworkers = 1\nlisten = [\"127.0.0.1:1\"]\nadmin_listen = \"127.0.0.1:2\"\n\
             idle_timeout = \"70s\"\n[audit]\nstore = {audit:?}\ndurability = \"sync\"\n\
             [telemetry]\nlog_format = \"pretty\"\nlog = \"debug\"\n\
             [rate_limit]\nstore = \"redis\"\nurl = \"redis://:c4nary@127.0.0.1:1\"\n",
            caller("a", "rate = \"7/h\"\nburst = 7\n")
        ))
        .await;

    let fixed = [
        "audit.durability",
        "audit.store",
        "rate_limit.store",
        "rate_limit.url",
        "server.admin_listen",
        "server.listen",
        "server.workers",
        "telemetry.log_format",
    ];
    assert_eq!(names(&applied["not_reloadable"]), fixed);
    let taken = ["callers.a.burst", "callers.a.rate", "server.idle_timeout", "telemetry.log"];
    assert_eq!(names(&applied["changed"]), taken);
    let answer = scene.connect().await.get("a", USERINFO).await;
    assert_eq!(answer.headers()["ratelimit"], "\"caller\";r=6;t=515");
    assert_eq!(scene.gateway.address, address);
    eventually("it logs more", async || {
        scene.gateway.process.stderr().contains("request answered")
    })
    .await;
    let status = scene.status().await;
    assert_eq!(names(&status["reload"]["not_reloadable"]), fixed);
    let shown = get(scene.gateway.admin, "/-/config").await;
    let shown = String::from_utf8_lossy(shown.body()).into_owned();
    for (is_shown, line) in [
        (true, "workers = 2"),
        (true, "listen = [\"127.0.0.1:0\"]"),
        (true, "idle_timeout = \"70s\""),
        (true, "store = \"memory\""),
        (true, "password = \"***\""),
        (false, "elsewhere"),
        (false, "c4nary"),
        (false, emulator::PASSWORD),
    ] {
        assert_eq!(shown.contains(line), is_shown, "{line}: {shown}");
    }
    let log = scene.gateway.process.stderr();
    let told = log.lines().find(|line| line.contains("wait for the next start")).expect("a line");
    assert!(fixed.iter().all(|name| told.contains(name)), "{told}");
    let screen = run(&["status", "--address", &scene.gateway.admin.to_string()], &[]).await;
    assert!(stdout(&screen).contains("at restart   audit.durability, "), "{}", stdout(&screen));
    // Once they are put back, they are not named any more.
    let applied = scene.reload_with(&caller("a", "")).await;
    assert!(names(&applied["not_reloadable"]).is_empty(), "{applied}");
    assert!(names(&scene.status().await["reload"]["not_reloadable"]).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_and_rules_change_with_the_next_request_on_the_same_connection() {
    let scene = Scene::with(&(caller("a", "") + &caller("b", ""))).await;
    let (mut a, mut b) = (scene.connect().await, scene.connect().await);
    assert_eq!(a.get("a", USERINFO).await.status(), 200);
    assert_eq!(b.get("b", USERINFO).await.status(), 200);
    assert_eq!(b.get("c", USERINFO).await.status(), 401);

    let deny = "deny = [\"GET user/*\"]\n";
    let applied = scene.reload_with(&(caller("c", "") + &caller("a", deny))).await;

    assert_eq!(names(&applied["changed"]), ["callers.a.deny", "callers.b", "callers.c"]);
    assert_eq!(b.get("b", USERINFO).await.status(), 401, "it is gone");
    assert_eq!(b.get("c", USERINFO).await.status(), 200, "it is new");
    let denied = a.get("a", USERINFO).await;
    assert_eq!(denied.status(), 403);
    assert!(String::from_utf8_lossy(denied.body()).contains("callers.a.deny: GET user/*"));
    assert_eq!(a.get("a", "/api/v1/project/get_all").await.status(), 200);
    scene.reload_with(&format!("{}[legacy]\nmode = \"reject\"\n", caller("a", ""))).await;
    assert_eq!(a.get("a", USERINFO).await.status(), 200);
    assert_eq!(a.get("a", "/api/user/userinfo").await.status(), 410);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_used_up_stays_used_up_and_so_does_who_is_under_way() {
    let limits = |rest: &str| {
        let (a, b) =
            (caller("a", "rate = \"2/h\"\nburst = 2\n"), caller("b", "max_concurrent = 1\n"));
        format!("{rest}{a}{b}[rate_limit]\nglobal = \"1000/s\"\n")
    };
    let scene = Scene::with(&limits("")).await;
    assert_eq!(scene.calls("a", 3).await, [200, 200, 429]);
    scene.amove.forget_requests();
    scene.amove.inject(Fault::Stall { count: 1, host: Some(Host::Main), route: None });
    let mut stalled = TcpStream::connect(scene.gateway.address).await.expect("a connection");
    let head = format!("GET {USERINFO} HTTP/1.1\r\nhost: x\r\nx-api-key: b\r\n\r\n");
    stalled.write_all(head.as_bytes()).await.expect("a request");
    eventually("it is under way", async || {
        scene.amove.requests().iter().any(|seen| seen.target == USERINFO)
    })
    .await;
    assert_eq!(scene.call("b").await, 429);
    let refused = scene.status().await["limits"]["refused"]["caller"].clone();

    // Others come before them, so that all have other places.
    scene.reload_with(&limits(&(caller("x", "") + &caller("y", "rate = \"5/s\"\n")))).await;

    assert_eq!((scene.call("a").await, scene.call("b").await), (429, 429));
    assert_eq!(scene.call("y").await, 200);
    let counted = scene.status().await["limits"]["refused"]["caller"].clone();
    assert_eq!(counted.as_u64(), refused.as_u64().map(|refused| refused + 1));
    drop(stalled);
    eventually("it has ended", async || scene.call("b").await == 200).await;
    scene.reload_with(&limits("").replace("2/h", "3/h")).await;
    assert_eq!(scene.calls("a", 3).await, [200, 200, 429], "another quota begins anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn identities_come_and_go_and_who_stays_keeps_its_session() {
    let main = main_identity();
    let other = identity("other", OTHER, emulator::PASSWORD);
    let callers = caller("a", "identity = \"main\"\n") + &caller("b", "identity = \"other\"\n");
    let mut scene = Scene::with(&format!("{main}{}", caller("a", ""))).await;
    assert_eq!(scene.call("a").await, 200);
    let identities = async |scene: &Scene| {
        let status = scene.status().await;
        let identities = status["identities"].as_array().expect("a list").clone();
        let tell = |it: &Value| (it["name"].as_str().map(str::to_owned), it["generation"].as_u64());
        identities.iter().map(tell).collect::<Vec<_>>()
    };

    // A second one, before the first.
    scene.reload_with(&format!("{other}{main}{callers}")).await;
    assert_eq!(scene.calls("b", 2).await, [200, 200]);
    assert_eq!(scene.call("a").await, 200);
    let (one, two) = (Some("main".to_owned()), Some("other".to_owned()));
    assert_eq!(identities(&scene).await, [(two.clone(), Some(1)), (one.clone(), Some(1))]);
    assert_eq!(scene.amove.stats().logins, 2);
    // The same user with other terms goes on as it is.
    let later = format!("{main}refresh_ahead = \"30%\"\nlogout_on_shutdown = true\n");
    scene.reload_with(&format!("{later}{other}{callers}")).await;
    assert_eq!(identities(&scene).await, [(one.clone(), Some(1)), (two.clone(), Some(1))]);
    assert_eq!(scene.amove.stats().logins, 2);
    // Another user of the same name is signed in anew, while the former is still there.
    let swapped = identity("main", OTHER, emulator::PASSWORD);
    scene.reload_with(&format!("{swapped}{}", caller("a", ""))).await;
    assert_eq!(scene.call("a").await, 200);
    assert_eq!(identities(&scene).await, [(one, Some(1))]);
    let stats = scene.amove.stats();
    assert_eq!((stats.logins, stats.live_sessions), (3, 3));
    scene.gateway.process.signal("TERM");
    assert_eq!(scene.gateway.process.exit_code().await, Some(0));
    let stats = scene.amove.stats();
    assert_eq!((stats.logouts, stats.live_sessions), (3, 0), "who is gone is logged out too");
    assert_eq!(stats.refused_bearers, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_password_is_proved_while_the_session_serves() {
    let with = |password: &str| identity("main", emulator::USERNAME, password) + &caller("a", "");
    let scene = Scene::with(&with(emulator::PASSWORD)).await;
    let main = async || scene.status().await["identities"][0].clone();

    scene.reload_with(&with("wrong")).await;
    eventually("it is refused", async || main().await["counts"]["logins_refused"] == 1).await;
    assert_eq!(scene.call("a").await, 200, "the session in force serves");
    assert_eq!(main().await["serving"], true);
    scene.reload_with(&with(emulator::PASSWORD)).await;

    eventually("it is signed in anew", async || main().await["state"] == "valid").await;
    assert_eq!(scene.call("a").await, 200);
    assert_eq!(scene.amove.stats().refused_bearers, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_edges_limits_change_too() {
    let scene = Scene::with(&caller("a", "")).await;
    let mut idle = scene.connect().await;
    let mut post = scene.connect().await;
    let body = "x".repeat(2000);
    let echo = "/api/v1/emulator/echo";
    assert_eq!(idle.get("a", USERINFO).await.status(), 200);
    let answer = post.send(Method::POST, "a", echo, &body).await.expect("an answer");
    assert_eq!(answer.status(), 200);

    scene
        .reload_with(&format!(
            "{}[server]\nmax_body_bytes = \"1KiB\"\nidle_timeout = \"1s\"\nmax_connections = 1\n",
            caller("a", "")
        ))
        .await;

    let answer = post.send(Method::POST, "a", echo, &body).await.expect("an answer");
    assert_eq!(answer.status(), 413);
    eventually("it is told to go", async || idle.0.is_closed()).await;
    drop((idle, post));
    let mut only = scene.connect().await;
    assert_eq!(only.get("a", USERINFO).await.status(), 200);
    let mut second = scene.connect().await;
    let waits = tokio::time::timeout(Duration::from_millis(300), second.get("a", USERINFO)).await;
    assert!(waits.is_err(), "there is room for one");
    let wide = format!("{}[server]\nmax_connections = 9\n", caller("a", ""));
    scene.reload_with(&wide).await;
    assert_eq!(scene.call("a").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_certificate_and_other_terms_are_shown_to_the_next_connection() {
    let authority = Authority::new();
    let [one, other] = ["one", "other"].map(|name| authority.certify(name, FUTURE));
    authority.keep("one", &one);
    authority.keep("other", &other);
    let tls = |name: &str, rest: &str| {
        let (cert, key) =
            (authority.path(&format!("{name}.crt")), authority.path(&format!("{name}.key")));
        let known = caller("a", "");
        format!("{known}[server.tls]\ncert_file = {cert:?}\nkey_file = {key:?}\n{rest}")
    };
    let scene = Scene::with(&tls("one", "")).await;
    let client = authority.client(None, VERSIONS, &["http/1.1"]);
    let shown = async || {
        let stream = connect(&client, scene.gateway.address).await.expect("a handshake");
        stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone().into_owned()
    };
    assert_eq!(shown().await, one.certificate);

    let applied = scene.reload_with(&tls("other", "")).await;

    assert_eq!(names(&applied["changed"]), ["server.tls.cert_file", "server.tls.key_file"]);
    assert_eq!(shown().await, other.certificate);
    // The renewal looks after the files that are in use now.
    authority.keep("one", &authority.certify("one", FUTURE));
    let third = authority.certify("third", FUTURE);
    authority.keep("other", &third);
    eventually("it is renewed", async || shown().await == third.certificate).await;
    // Half a pair is refused, and so is to do without.
    let half = tls("other", "").replace("other.key", "one.key");
    let (refused, problem) = scene.reload_text(&text(&scene.amove, &half)).await;
    assert_eq!(refused, 422, "{problem}");
    let applied = scene.reload_with(&caller("a", "")).await;
    assert_eq!(names(&applied["not_reloadable"]), ["server.tls"]);
    assert_eq!(shown().await, third.certificate);
    let ca = authority.path("ca.pem");
    let mutual = format!("client_auth = \"required\"\nclient_ca_file = {ca:?}\n");
    scene.reload_with(&tls("other", &mutual)).await;
    let ask = async |client| match connect(client, scene.gateway.address).await {
        Ok(stream) => status(stream, "/").await.map(|status| status.as_u16()).ok(),
        Err(_) => None,
    };
    assert_eq!(ask(&client).await, None, "a certificate is wanted");
    let known =
        authority.client(Some(&authority.certify("known", FUTURE)), VERSIONS, &["http/1.1"]);
    assert_eq!(ask(&known).await, Some(403), "it is nobody's here");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_reloads_leave_nothing_behind() {
    let scene = Scene::with(&caller("a", "")).await;
    let resident = || {
        let path = format!("/proc/{}/status", scene.gateway.process.pid());
        let status = std::fs::read_to_string(path).expect("a process");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
        line.split_whitespace().nth(1).and_then(|it| it.parse::<i64>().ok()).expect("a number")
    };
    let reload = async |number: usize| {
        let settings = format!(
            "{}{}[upstream]\nconnect_timeout = \"{}s\"\n",
            main_identity(),
            caller("a", &format!("rate = \"{}/s\"\nmax_concurrent = 5\n", 10_000 + number)),
            3 + number % 7
        );
        scene.reload_with(&settings).await;
        assert_eq!(scene.call("a").await, 200);
    };

    for number in 0..40 {
        reload(number).await;
    }
    let before = resident();
    let begun = Instant::now();
    for number in 0..200 {
        reload(number).await;
    }

    let (grown, took) = (resident() - before, begun.elapsed() / 200);
    eprintln!("{before} KiB, and {grown} KiB more; {took:?} each");
    assert!(grown < 6 * 1024, "{grown} KiB more than {before} KiB");
    assert_eq!(scene.amove.stats().logins, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_to_reload_is_guarded_as_others_are() {
    let scene = Scene::with(&caller("a", "")).await;

    assert_eq!(get(scene.gateway.admin, "/-/reload").await.status(), 405);
    let mut foreign = request("POST", "/-/reload");
    foreign.headers_mut().insert("origin", "https://evil.test".parse().expect("a value"));
    let refused = call(scene.gateway.admin, foreign).await.expect("an answer");

    assert_eq!(refused.status(), 403);
    assert_eq!(scene.counts().await, (0, 0));
    let (status, applied) = scene.reload().await;
    assert_eq!((status, names(&applied["changed"])), (200, Vec::new()));
}
