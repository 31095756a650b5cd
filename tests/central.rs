//! The central audit store: the real program, and a real PostgreSQL.
#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use amove_gateway::{
    audit::{
        self, Archive, Filter, Sealed,
        central::{Central, Place, VerifyError},
    },
    clock::Clock,
    emulator::{Emulator, Options},
};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use process_support::{
    Gateway, Process, borrowed, emulator, environment_with, eventually, get,
    pki::{Authority, FUTURE},
    postgres::{PASSWORD, Postgres},
};
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinSet, time::sleep};
use tokio_postgres::Client;

mod process_support;

const USERINFO: &str = "/api/v1/user/userinfo";
const INSERT: &str = "/api/v1/project/insert?name=canary-of-a-query";

const STORE: &str = "AMOVE_GATEWAY_AUDIT__STORE";
const URL: &str = "AMOVE_GATEWAY_AUDIT__POSTGRES__URL";
const URL_FILE: &str = "AMOVE_GATEWAY_AUDIT__POSTGRES__URL_FILE";
const CA_FILE: &str = "AMOVE_GATEWAY_AUDIT__POSTGRES__CA_FILE";

/// No two projects have the same name.
static NAMES: AtomicU64 = AtomicU64::new(0);

async fn amove() -> Emulator {
    emulator(Options { mfa: false, max_sessions: 10_000, ..Options::default() }).await
}

/// A request; every other one writes.
fn numbered(number: u32) -> Request<Full<Bytes>> {
    let request = Request::builder().header("host", "x");
    let request = match number % 2 {
        0 => request.uri(USERINFO).body(Full::default()),
        _ => request
            .method("POST")
            .uri(INSERT)
            .header("content-type", "application/json")
            .body(Full::from(format!(r#"{{"name":"canary-{}"}}"#, NAMES.fetch_add(1, Relaxed)))),
    };
    request.expect("a request")
}

/// Sends up to `count` requests on one connection, until it breaks or `stop` is set.
async fn load(address: SocketAddr, count: u32, stop: Arc<AtomicBool>) {
    let Ok(stream) = TcpStream::connect(address).await else { return };
    let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(stream)).await else { return };
    tokio::spawn(connection);
    for number in 0..count {
        if stop.load(Relaxed) {
            return;
        }
        let Ok(answer) = sender.send_request(numbered(number)).await else { return };
        if answer.into_body().collect().await.is_err() || sender.ready().await.is_err() {
            return;
        }
    }
}

/// A load that goes on until it is told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

impl Load {
    fn on(address: SocketAddr) -> Self {
        let (stop, mut clients) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        for _ in 0..2 {
            clients.spawn(load(address, u32::MAX, Arc::clone(&stop)));
        }
        Self { stop, clients }
    }

    async fn stop(self) {
        self.stop.store(true, Relaxed);
        self.clients.join_all().await;
    }
}

/// How shipping fares.
async fn central(gateway: &Gateway) -> Value {
    let status = get(gateway.admin, "/-/status.json").await;
    serde_json::from_slice::<Value>(status.body()).expect("JSON")["audit"]["central"].clone()
}

/// Waits until as much has arrived as is stored.
async fn arrived(gateway: &Gateway) {
    eventually("everything has arrived", async || {
        // What was answered is in the journal, and soon in the store.
        sleep(Duration::from_millis(300)).await;
        let central = central(gateway).await;
        central["up"] == true && central["behind"] == 0
    })
    .await;
}

async fn ended(mut gateway: Gateway) {
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.exit_code().await, Some(0), "{}", gateway.process.stderr());
}

async fn count(client: &Client, select: &str) -> i64 {
    client.query_one(select, &[]).await.expect("an answer").get(0)
}

async fn rows(client: &Client) -> i64 {
    count(client, "SELECT count(*) FROM audit_records").await
}

/// The records of an embedded store as JSON lines.
fn local(store: &Path) -> BTreeSet<String> {
    let archive = Archive::open(store, &Clock::system()).expect("an audit log");
    audit::verify(&archive, None, None, |_| ()).expect("nothing is wrong with it");
    let mut lines = BTreeSet::new();
    let all = Filter { intents: true, ..Filter::default() };
    let days = archive.days().expect("days");
    let read = days.oldest_first(&all, |sealed| {
        lines.insert(line(sealed));
        ControlFlow::Continue(())
    });
    read.expect("records");
    lines
}

fn line(sealed: &Sealed<'_>) -> String {
    let mut line = Vec::new();
    sealed.json_line(&mut line);
    String::from_utf8(line).expect("text")
}

/// The central store, looked at from a thread that may block.
async fn looked_at<T: Send + 'static>(
    postgres: &Postgres,
    look: impl FnOnce(Central) -> T + Send + 'static,
) -> T {
    let url = postgres.owner().into();
    let look = move || look(Central::connect(&url, None).expect("the central store"));
    tokio::task::spawn_blocking(look).await.expect("no panic")
}

/// That the table holds exactly what the embedded stores hold, and its chains are whole.
async fn is_the_same(postgres: &Postgres, stores: &[PathBuf]) {
    let here: BTreeSet<_> = stores.iter().flat_map(|store| local(store)).collect();
    let gateways = stores.len();
    looked_at(postgres, move |central| {
        let mut there = Vec::new();
        let all = Filter { intents: true, ..Filter::default() };
        let read = central.oldest_first(&all, None, |sealed| {
            there.push(line(sealed));
            ControlFlow::Continue(())
        });
        read.expect("records");
        assert_eq!(there.len(), here.len());
        assert_eq!(there.into_iter().collect::<BTreeSet<_>>(), here);
        let verified = central.verify(&[], |_| ()).expect("nothing is wrong with it");
        assert_eq!(verified.len(), gateways);
        assert_eq!(verified.iter().map(|it| it.records).sum::<u64>(), here.len() as u64);
        assert!(verified.iter().all(|it| it.first == 1));
    })
    .await;
}

fn store(folder: &Path, name: &str) -> (PathBuf, String) {
    let store = folder.join(name);
    let text = store.display().to_string();
    (store, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_records_of_a_fleet_come_together_in_one_table() {
    let Some(postgres) = Postgres::start() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let amove = amove().await;
    // All at once: each finds no table.
    let (mut starting, mut stores) = (Vec::new(), Vec::new());
    for number in 0..4 {
        let (path, text) = store(folder.path(), &number.to_string());
        stores.push(path);
        let url = if number == 0 { postgres.owner_by_socket() } else { postgres.owner() };
        let environment = environment_with(&amove, &[(STORE, &text), (URL, &url)]);
        starting.push(Process::start(&["run"], &borrowed(&environment)));
    }
    let mut gateways = Vec::new();
    for process in starting {
        gateways.push(Gateway::started(process).await);
    }
    let mut clients = JoinSet::new();
    for gateway in &gateways {
        clients.spawn(load(gateway.address, 150, Arc::default()));
    }
    clients.join_all().await;
    for gateway in &gateways {
        arrived(gateway).await;
    }
    // The last records are shipped before it ends.
    for gateway in gateways {
        get(gateway.address, USERINFO).await;
        ended(gateway).await;
    }

    let client = postgres.client().await;
    // Each read leaves one record, and each write two.
    assert_eq!(rows(&client).await, 4 * (75 + 150 + 1));
    is_the_same(&postgres, &stores).await;
    assert_eq!(count(&client, "SELECT count(*) FROM audit_migrations").await, 1);
    assert_eq!(count(&client, "SELECT count(*) FROM audit_records_default").await, 0);
    looked_at(&postgres, pages).await;
    asked_by_the_verbs(&postgres).await;
    let dump = postgres.dump();
    assert!(dump.contains("/api/v1/project/insert"));
    let secrets = ["canary", amove_gateway::emulator::PASSWORD, "Bearer", PASSWORD];
    for secret in secrets {
        assert!(!dump.contains(secret), "{secret}");
    }
    tampering_is_found(&postgres, &client).await;
}

/// What people type, over the central store.
async fn asked_by_the_verbs(postgres: &Postgres) {
    let url = postgres.owner();
    let audit = async |arguments: &[&str]| {
        let arguments = [&["audit"], arguments, &["--store", &url]].concat();
        process_support::run(&arguments, &[]).await
    };
    let first = audit(&["query", "--limit", "100", "--json"]).await;
    let told = process_support::stderr(&first);
    let before = told.trim().rsplit_once("--before ").expect("where the next page is").1;
    let second = audit(&["query", "--limit", "1000", "--json", "--before", before]).await;
    let lines = |output| process_support::stdout(output).lines().map(str::to_owned);
    let paged: BTreeSet<_> = lines(&first).chain(lines(&second)).collect();
    assert_eq!(paged.len(), 4 * 151);

    let table = audit(&["query", "--route", "/api/v1/project/*", "--limit", "3"]).await;
    assert_eq!(process_support::stdout(&table).lines().count(), 1 + 3);
    let exported = audit(&["export", "--intents"]).await;
    assert_eq!(lines(&exported).count(), 4 * 226);
    let verified = audit(&["verify"]).await;
    assert_eq!(verified.status.code(), Some(0));
    assert_eq!(process_support::stdout(&verified).matches("whole and unchanged").count(), 4);
    for verb in ["tail", "prune"] {
        let refused = audit(&[verb]).await;
        assert_eq!(refused.status.code(), Some(2), "{verb}");
    }

    let wrong = postgres.url("postgres", "canary-wrong", "nowhere");
    let refused = process_support::run(&["audit", "query", "--store", &wrong], &[]).await;
    assert_eq!(refused.status.code(), Some(74));
    assert!(!process_support::stderr(&refused).contains("canary"));
}

/// Pages fit together, and filters filter.
fn pages(central: Central) {
    let filter = Filter::default();
    let (mut paged, mut place): (Vec<String>, Option<Place>) = (Vec::new(), None);
    loop {
        let mut left = 100;
        let read = central.newest_first(&filter, place.clone().as_ref(), |sealed| {
            paged.push(line(sealed));
            place = Some(Place::from(sealed));
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        read.expect("records");
        if left > 0 {
            break;
        }
    }
    // Intents whose outcome is known are not shown.
    assert_eq!(paged.len(), 4 * 151);
    assert_eq!(paged.iter().collect::<BTreeSet<_>>().len(), paged.len());
    let found = |filter: &Filter| {
        let mut found = 0;
        let read = central.newest_first(filter, None, |_| {
            found += 1;
            ControlFlow::Continue(())
        });
        read.expect("records");
        found
    };
    let now = Clock::system().now();
    let with = |name: &str, value: &str| {
        let mut filter = Filter::default();
        filter.set(name, value, now).expect("a filter");
        found(&filter)
    };
    assert_eq!(with("route", "/api/v1/project/insert"), 4 * 75);
    assert_eq!(with("route", "/api/v1/user/*"), 4 * 76);
    assert_eq!(with("status", "2xx"), 4 * 151);
    assert_eq!(with("outcome", "ok"), 4 * 151);
    assert_eq!(with("outcome", "denied"), 0);
    assert_eq!(with("caller", "local"), 4 * 151);
    assert_eq!(with("since", "1h"), 4 * 151);
    assert_eq!(with("until", "1h"), 0);
    assert_eq!(with("intents", "true"), 4 * 226);
}

async fn tampering_is_found(postgres: &Postgres, client: &Client) {
    let one = "gateway = (SELECT min(gateway) FROM audit_records) AND seq = 10";
    let last = "gateway = (SELECT max(gateway) FROM audit_records)";
    let again = "seq, phase, gen_random_uuid(), request_id, time, gateway, caller, identity, \
        method, route, effect, status, upstream_status, code, outcome, duration_us, upstream_us, \
        bytes_in, bytes_out, attempts, replay, rule, legacy, peer, trace_id, lost, prev_hash, hash";
    let tampering = [
        (format!("UPDATE audit_records SET caller = 'mallory' WHERE {one}"), 10),
        (format!("UPDATE audit_records SET lost = 0 WHERE {one}"), 10),
        (format!("DELETE FROM audit_records WHERE {one}"), 10),
        (format!("INSERT INTO audit_records SELECT {again} FROM audit_records WHERE {one}"), 10),
        (format!("UPDATE audit_records SET seq = seq + 1000 WHERE {one}"), 10),
        (format!("DELETE FROM audit_records WHERE {last} AND seq > 200"), 201),
    ];
    let heads = looked_at(postgres, |central| {
        let verified = central.verify(&[], |_| ()).expect("nothing is wrong with it");
        verified.into_iter().map(|it| (it.gateway, it.head)).collect::<Vec<_>>()
    })
    .await;
    client.batch_execute("CREATE TABLE kept AS SELECT * FROM audit_records").await.expect("a copy");
    for (tamper, first) in tampering {
        client.batch_execute(&tamper).await.expect("tampered with");
        let heads = heads.clone();
        let verdict = looked_at(postgres, move |central| central.verify(&heads, |_| ())).await;
        match verdict {
            Err(VerifyError::Broken { finding, .. }) => {
                // Of two that claim a place, either may come first.
                assert!([first, first + 1].contains(&finding.seq), "{tamper}: {finding}");
            }
            other => panic!("{tamper}: {other:?}"),
        }
        let back = "TRUNCATE audit_records; INSERT INTO audit_records SELECT * FROM kept";
        client.batch_execute(back).await.expect("as it was");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_repeated_when_postgresql_comes_and_goes() {
    let Some(mut postgres) = Postgres::start() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let amove = amove().await;
    let (path, text) = store(folder.path(), "audit");
    let settings = [(STORE, text.as_str()), (URL, &postgres.owner())];
    let gateway = Gateway::ready(&amove, &settings).await;
    let load = Load::on(gateway.address);
    for round in 0..5_u64 {
        eventually("records arrive", async || {
            let central = central(&gateway).await;
            central["up"] == true && central["shipped"].as_u64().is_some_and(|it| it > 100 * round)
        })
        .await;
        match round % 2 {
            0 => postgres.kill(),
            _ => postgres.stop(),
        }
        eventually("it is noticed", async || {
            let central = central(&gateway).await;
            central["up"] == false && central["behind"].as_u64().is_some_and(|it| it > 10)
        })
        .await;
        assert_eq!(get(gateway.address, USERINFO).await.status(), 200);
        postgres.revive();
    }
    load.stop().await;
    arrived(&gateway).await;
    let outages = central(&gateway).await["outages"].as_u64();
    let log = gateway.process.stderr();
    ended(gateway).await;

    is_the_same(&postgres, &[path]).await;
    // One warning each time, and one line when it is over.
    assert!(outages.is_some_and(|outages| outages >= 5), "{outages:?}");
    assert_eq!(log.matches("cannot be shipped").count() as u64, outages.unwrap_or(0));
    assert_eq!(log.matches("audit records are shipped").count() as u64, 1 + outages.unwrap_or(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_repeated_when_the_gateway_is_killed() {
    let Some(postgres) = Postgres::start() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let amove = amove().await;
    let (path, text) = store(folder.path(), "audit");
    let settings = [(STORE, text.as_str()), (URL, &postgres.owner())];
    for round in 0..4_u64 {
        let mut gateway = Gateway::ready(&amove, &settings).await;
        let load = Load::on(gateway.address);
        eventually("records arrive", async || {
            central(&gateway).await["shipped"].as_u64().is_some_and(|shipped| shipped > 100)
        })
        .await;
        sleep(Duration::from_millis(round * 67 % 200)).await;
        gateway.process.signal("KILL");
        gateway.process.ended().await;
        load.stop().await;
    }
    // Also when it has forgotten how far it had got.
    std::fs::remove_file(path.join("central.json")).expect("a cursor");
    let gateway = Gateway::ready(&amove, &settings).await;
    arrived(&gateway).await;
    ended(gateway).await;

    is_the_same(&postgres, &[path]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_only_insert_is_enough_once_there_is_a_table() {
    let Some(postgres) = Postgres::start() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let amove = amove().await;
    let client = postgres.client().await;
    let role = "CREATE ROLE writer LOGIN PASSWORD 'writer'; REVOKE ALL ON DATABASE postgres FROM \
                PUBLIC; GRANT CONNECT ON DATABASE postgres TO writer";
    client.batch_execute(role).await.expect("a role");
    let (path, text) = store(folder.path(), "audit");
    let url = postgres.url("writer", "writer", "postgres");
    let gateway = Gateway::ready(&amove, &[(STORE, &text), (URL, &url)]).await;
    load(gateway.address, 50, Arc::default()).await;
    eventually("it says what is missing", async || {
        let failure = central(&gateway).await["failure"].clone();
        failure.as_str().is_some_and(|failure| failure.contains("central/migrations/1.sql"))
    })
    .await;

    let schema = include_str!("../src/audit/central/migrations/1.sql");
    client.batch_execute(&format!("BEGIN; {schema} COMMIT")).await.expect("a table");
    client.batch_execute("GRANT INSERT ON audit_records TO writer").await.expect("a right");
    arrived(&gateway).await;
    // Nobody has made a partition for a month but the function, which runs as its owner.
    client
        .batch_execute("SET ROLE writer; SELECT audit_make_partition('1999-01-01'); RESET ROLE")
        .await
        .expect("a harmless call");
    let ahead =
        "SET ROLE writer; SELECT audit_make_partition((now() - '3 months'::interval)::date)";
    client.batch_execute(&format!("{ahead}; RESET ROLE")).await.expect("a call");
    ended(gateway).await;

    is_the_same(&postgres, &[path]).await;
    let partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'audit_records'::regclass";
    assert_eq!(count(&client, partitions).await, 1 + 3 + 1);
    let read = client.batch_execute("SET ROLE writer; SELECT FROM audit_records").await;
    assert!(read.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgresql_requests_go_on_and_the_lag_is_shown() {
    let Some(postgres) = Postgres::start() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let amove = amove().await;
    let (path, text) = store(folder.path(), "audit");
    let secret = folder.path().join("url");
    std::fs::write(&secret, "postgres://u:canary@db.invalid/audit\n").expect("a file");
    let settings = [(STORE, text.as_str()), (URL_FILE, secret.to_str().expect("text"))];
    let gateway = Gateway::ready(&amove, &settings).await;
    let failure = |words: &'static str| {
        let gateway = &gateway;
        eventually(words, async move || {
            let failure = central(gateway).await["failure"].clone();
            failure.as_str().is_some_and(|failure| failure.contains(words))
        })
    };

    failure("cannot be used").await;
    load(gateway.address, 20, Arc::default()).await;
    eventually("the lag is known", async || central(&gateway).await["behind"] == 30).await;
    eventually("it is known for how long", async || {
        central(&gateway).await["behind_seconds"].as_u64().is_some_and(|seconds| seconds > 0)
    })
    .await;
    let ready = get(gateway.admin, "/readyz?verbose").await;
    assert_eq!(ready.status(), 200);
    assert!(String::from_utf8_lossy(ready.body()).contains("\"behind\""));
    let metrics = get(gateway.admin, "/metrics").await;
    let metrics = String::from_utf8_lossy(metrics.body());
    for line in ["audit_central_up 0", "audit_central_behind_records 30"] {
        assert!(metrics.contains(&format!("amove_gateway_{line}")), "{metrics}");
    }
    // What is in the file counts each time.
    std::fs::write(&secret, postgres.url("postgres", "wrong", "postgres")).expect("a file");
    failure("refuses the user name or the password").await;
    std::fs::write(&secret, postgres.owner()).expect("a file");
    arrived(&gateway).await;
    let log = gateway.process.stderr();
    ended(gateway).await;

    assert!(!log.contains("canary"), "{log}");
    is_the_same(&postgres, &[path]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_right_postgresql_is_given_records() {
    let Some(mut postgres) = Postgres::start() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let amove = amove().await;
    let authority = Authority::new();
    let server = authority.certify("postgres", FUTURE);
    postgres.use_tls(&server.certificate_pem, &server.key.serialize_pem());
    let url = format!("{}?sslmode=verify-full", postgres.owner());
    let (path, text) = store(folder.path(), "audit");

    let stranger = Gateway::ready(&amove, &[(STORE, &text), (URL, &url)]).await;
    load(stranger.address, 10, Arc::default()).await;
    eventually("nobody vouches for it", async || {
        let failure = central(&stranger).await["failure"].clone();
        failure.as_str().is_some_and(|failure| failure.contains("TLS"))
    })
    .await;
    ended(stranger).await;
    let roots = authority.text("ca.pem");
    let settings = [(STORE, text.as_str()), (URL, &url), (CA_FILE, &roots)];
    let gateway = Gateway::ready(&amove, &settings).await;
    arrived(&gateway).await;
    let client = postgres.client().await;
    let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE ssl AND application_name = 'amove-gateway'";
    assert_eq!(count(&client, encrypted).await, 1);
    ended(gateway).await;

    is_the_same(&postgres, &[path]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_the_table_refuses_holds_up_no_other() {
    let Some(postgres) = Postgres::start() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let amove = amove().await;
    let (path, text) = store(folder.path(), "audit");
    let settings = [(STORE, text.as_str()), (URL, &postgres.owner())];
    let gateway = Gateway::ready(&amove, &settings).await;
    arrived(&gateway).await;
    let client = postgres.client().await;
    let picky = "ALTER TABLE audit_records ADD CONSTRAINT picky CHECK (seq % 40 <> 7)";
    client.batch_execute(picky).await.expect("a constraint");
    load(gateway.address, 200, Arc::default()).await;
    arrived(&gateway).await;
    let state = central(&gateway).await;
    assert_eq!((&state["refused"], &state["shipped"]), (&8.into(), &292.into()), "{state}");

    // A table that takes nothing is broken, not the records.
    let all = "ALTER TABLE audit_records ADD CONSTRAINT sulky CHECK (seq <= 300)";
    client.batch_execute(all).await.expect("a constraint");
    load(gateway.address, 200, Arc::default()).await;
    eventually("it is an outage", async || {
        let failure = central(&gateway).await["failure"].clone();
        failure.as_str().is_some_and(|failure| failure.contains("refuses all records"))
    })
    .await;
    let repaired = "ALTER TABLE audit_records DROP CONSTRAINT sulky, DROP CONSTRAINT picky";
    client.batch_execute(repaired).await.expect("no constraint");
    arrived(&gateway).await;
    ended(gateway).await;
    // What was refused is still here, and is shipped by whoever begins anew.
    std::fs::remove_file(path.join("central.json")).expect("a cursor");
    let gateway = Gateway::ready(&amove, &settings).await;
    arrived(&gateway).await;
    ended(gateway).await;

    is_the_same(&postgres, &[path]).await;
}
