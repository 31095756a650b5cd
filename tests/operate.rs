//! The verbs that ask a running gateway, and what they print and exit with.
#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use amove_gateway::emulator::{self, Emulator, Fault, Host, Options};
use process_support::{
    Gateway, borrowed, emulator, environment_with, eventually, free_port, get, run, stderr, stdout,
};
use serde_json::Value;

mod process_support;

const USERINFO: &str = "/api/v1/user/userinfo";

/// An Amove that asks for no second factor: a login need not wait for the next TOTP code.
async fn amove() -> Emulator {
    emulator(Options { mfa: false, ..Options::default() }).await
}

/// Runs a verb against `gateway`.
async fn ask(gateway: &Gateway, verb: &[&str]) -> std::process::Output {
    let address = gateway.admin.to_string();
    run(&[verb, &["--address", &address]].concat(), &[]).await
}

fn json(output: &std::process::Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    serde_json::from_str(stdout(output)).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn status_is_one_screen_and_token_status_a_part_of_it() {
    let emulator = amove().await;
    let gateway = Gateway::ready(&emulator, &[]).await;

    let screen = ask(&gateway, &["status"]).await;
    let part = ask(&gateway, &["token", "status"]).await;

    assert_eq!(screen.status.code(), Some(0), "{}", stderr(&screen));
    for expected in [
        "gateway        version ",
        &format!("listening      {}", gateway.address),
        "ready          yes",
        "identity       main",
        "  state        valid, serving",
        "  token        number 1, issued ",
        "  expires      in ",
        "  renews       in ",
        "  members      this gateway alone",
        "  last failure none",
        "  logins       1 ok, 0 refused",
    ] {
        assert!(stdout(&screen).contains(expected), "{expected}: {}", stdout(&screen));
    }
    assert!(stdout(&screen).lines().count() <= 24, "{}", stdout(&screen));
    assert!(stdout(&part).starts_with("identity       main\n"), "{}", stdout(&part));
    assert!(!stdout(&part).contains("listening"), "{}", stdout(&part));
    for output in [&screen, &part] {
        for secret in ["eyJ", emulator::PASSWORD, "\u{1b}"] {
            assert!(!stdout(output).contains(secret), "{}", stdout(output));
        }
    }
    let coloured = ask(&gateway, &["status", "--color", "always"]).await;
    assert!(stdout(&coloured).contains("\u{1b}[32mvalid\u{1b}[0m"), "{}", stdout(&coloured));
}

#[tokio::test(flavor = "multi_thread")]
async fn status_as_json_says_the_same() {
    let emulator = amove().await;
    let gateway = Gateway::ready(&emulator, &[]).await;

    let status = json(&ask(&gateway, &["status", "--json"]).await);
    let tokens = json(&ask(&gateway, &["token", "status", "--json"]).await);

    assert_eq!((&status["ready"], &status["draining"]), (&true.into(), &false.into()));
    assert_eq!(status["identities"][0]["state"], "valid");
    assert_eq!(tokens[0]["name"], "main");
    assert_eq!(tokens[0]["counts"]["logins_ok"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_of_a_host_that_is_left_alone() {
    let emulator = amove().await;
    let settings = [
        ("AMOVE_GATEWAY_UPSTREAM__BREAKER_FAILURES", "2"),
        ("AMOVE_GATEWAY_UPSTREAM__BREAKER_COOLDOWN", "1h"),
    ];
    let gateway = Gateway::ready(&emulator, &settings).await;
    let before = ask(&gateway, &["status"]).await;
    emulator.inject(Fault::Status {
        status: 500,
        body: String::new(),
        retry_after: None,
        count: 2,
        host: Some(Host::Main),
        route: None,
    });
    for status in [502, 502, 503] {
        assert_eq!(get(gateway.address, USERINFO).await.status(), status);
    }

    let screen = ask(&gateway, &["status"]).await;
    let report = json(&ask(&gateway, &["status", "--json"]).await);

    assert!(!stdout(&before).contains("circuit"), "{}", stdout(&before));
    let expected = "circuit        Amove's api host keeps failing: left alone, tried again in ";
    assert!(stdout(&screen).contains(expected), "{}", stdout(&screen));
    assert!(stdout(&screen).contains("1 requests refused"), "{}", stdout(&screen));
    let circuit = &report["circuits"][0];
    assert_eq!((&circuit["host"], &circuit["state"]), (&"api".into(), &"open".into()));
    assert_eq!((&circuit["opened"], &circuit["refused"]), (&1.into(), &1.into()));
    assert_eq!(report["circuits"][1]["state"], "closed");
    assert_eq!(report["ready"], true);
}

/// The API by its name: wherever `localhost` leads, somebody is at one of its addresses.
#[tokio::test(flavor = "multi_thread")]
async fn status_and_metrics_tell_where_connections_go_and_why_they_end() {
    let emulator = amove().await;
    let api_url = emulator.api_url().replace("127.0.0.1", "localhost");
    let settings = [
        ("AMOVE_GATEWAY_UPSTREAM__API_URL", &*api_url),
        ("AMOVE_GATEWAY_UPSTREAM__MAX_CONNECTION_AGE", "1ms"),
        ("AMOVE_GATEWAY_SERVER__WORKERS", "1"),
    ];
    let gateway = Gateway::ready(&emulator, &settings).await;
    // Requests that follow each other closely enough share a connection even so.
    let aged = "amove_gateway_upstream_connections_closed_total{host=\"api\",reason=\"aged\"} ";
    eventually("connections grow old", async || {
        assert_eq!(get(gateway.address, USERINFO).await.status(), 200);
        let metrics = get(gateway.admin, "/metrics").await;
        let metrics = String::from_utf8_lossy(metrics.body()).into_owned();
        let count = metrics.lines().find_map(|line| line.strip_prefix(aged)?.parse::<u32>().ok());
        count.is_some_and(|count| count >= 2)
    })
    .await;

    let report = json(&ask(&gateway, &["status", "--json"]).await);
    let metrics = get(gateway.admin, "/metrics").await;

    let api = &report["upstream"][0];
    assert_eq!((&api["host"], &api["name"]), (&"api".into(), &api_url["http://".len()..].into()));
    let addresses = api["addresses"].as_array().expect("a list");
    let port = api_url.rsplit(':').next().expect("a port");
    let expected = format!("127.0.0.1:{port}");
    assert!(addresses.iter().any(|it| it["address"] == *expected && it["avoided"] == false));
    assert!(api["resolved"].is_string() && api["failure"].is_null(), "{api}");
    let auth = &report["upstream"][1];
    assert!(auth["resolved"].is_null() && auth["addresses"][0]["address"].is_string(), "{auth}");
    let metrics = String::from_utf8_lossy(metrics.body());
    let count = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.trim().parse::<f64>().expect("a number")
    };
    // The last one may lie aside.
    let opened = count("amove_gateway_upstream_connections_opened_total{host=\"api\"}");
    let aged =
        count("amove_gateway_upstream_connections_closed_total{host=\"api\",reason=\"aged\"}");
    let open = count("amove_gateway_upstream_connections{host=\"api\"}");
    assert!(opened >= 2.0 && opened - open == aged, "{opened} {open} {aged}");
    assert_eq!(count("amove_gateway_upstream_lookups_total{host=\"api\",result=\"failed\"}"), 0.0);
    assert!(count("amove_gateway_upstream_lookups_total{host=\"api\",result=\"ok\"}") >= 1.0);
    assert!(count("amove_gateway_upstream_lookup_age_seconds{host=\"api\"}") >= 0.0);
    assert_eq!(count("amove_gateway_slots_open{host=\"api\"}"), 0.0);
    assert!(!metrics.contains("amove_gateway_upstream_lookup_age_seconds{host=\"auth\"}"));
}

/// Whoever dials a name that nobody knows says which.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_resolved_is_told_to_callers_and_in_the_log() {
    let emulator = amove().await;
    // The system needs not ask anybody: no part of a name is that long.
    let name = format!("{}.test", "a".repeat(64));
    let api_url = format!("https://{name}");
    let settings = [("AMOVE_GATEWAY_UPSTREAM__API_URL", &*api_url)];
    let gateway = Gateway::ready(&emulator, &settings).await;

    let answer = get(gateway.address, USERINFO).await;

    let body: Value = serde_json::from_slice(answer.body()).expect("a problem");
    let detail =
        format!("The name {name} cannot be resolved; the request did not leave the gateway.");
    assert_eq!((answer.status().as_u16(), &body["detail"]), (502, &detail.into()));
    let status = answer.headers()["proxy-status"].to_str().expect("text");
    assert!(status.contains("error=dns_error"), "{status}");
    let log = gateway.process.stderr();
    let line = log.lines().find(|line| line.contains("name is not resolved")).expect("a line");
    assert!(line.contains(&name), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_records_tell_what_amove_did_not_want() {
    let emulator = amove().await;
    let settings = [
        ("AMOVE_GATEWAY_AUDIT__STDOUT", "true"),
        ("AMOVE_GATEWAY_CALLERS__LOCAL__RATE", "3/h"),
        ("AMOVE_GATEWAY_CALLERS__LOCAL__BURST", "3"),
    ];
    let mut gateway = Gateway::ready(&emulator, &settings).await;
    let before = ask(&gateway, &["status"]).await;
    for status in [429, 503] {
        emulator.inject(Fault::Status {
            status,
            body: String::new(),
            retry_after: Some(if status == 429 { 1 } else { 50 }),
            count: 1,
            host: Some(Host::Main),
            route: None,
        });
        assert_eq!(get(gateway.address, USERINFO).await.status(), status);
        if status == 429 {
            let screen = ask(&gateway, &["status", "--json"]).await;
            assert_eq!(json(&screen)["pauses"][0]["identity"], "main");
            eventually("the pause is over", async || {
                let screen = json(&ask(&gateway, &["status", "--json"]).await);
                screen["pauses"].as_array().is_some_and(Vec::is_empty)
            })
            .await;
        }
    }
    // One is still within our quota, and one is not.
    assert_eq!(get(gateway.address, USERINFO).await.status(), 503);
    assert_eq!(get(gateway.address, USERINFO).await.status(), 429);

    let screen = ask(&gateway, &["status"]).await;
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.exit_code().await, Some(0));

    for word in ["quotas", "paused"] {
        assert!(!stdout(&before).contains(word), "{}", stdout(&before));
    }
    let screen = stdout(&screen);
    assert!(screen.contains("quotas         1 requests refused, 0 waiting\n"), "{screen}");
    let paused = "paused         everybody at Amove's api host (unavailable), ends in ";
    assert!(screen.contains(paused), "{screen}");
    let text = gateway.process.stdout();
    let records = text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON"));
    let told: Vec<_> = records
        .map(|record: Value| (record["outcome"].to_string(), record["attempts"].to_string()))
        .collect();
    let expected = [("upstream_error", 1), ("upstream_error", 1), ("failed", 0), ("limited", 0)];
    assert_eq!(told, expected.map(|(outcome, sent)| (format!("\"{outcome}\""), sent.to_string())));
    let log = gateway.process.stderr();
    assert_eq!(log.matches("Amove asks to be left alone").count(), 2, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn token_refresh_logs_in_once_and_tells_how_it_stands_then() {
    let emulator = amove().await;
    let gateway = Gateway::ready(&emulator, &[]).await;

    let told = ask(&gateway, &["token", "refresh"]).await;
    assert_eq!(told.status.code(), Some(0), "{}", stderr(&told));
    assert!(stdout(&told).contains("  token        number 2"), "{}", stdout(&told));
    assert_eq!(emulator.stats().logins, 2);

    let told = json(&ask(&gateway, &["token", "refresh", "--identity", "main", "--json"]).await);
    assert_eq!(told["generation"], 3);
    assert_eq!(emulator.stats().logins, 3);
    assert_eq!(get(gateway.address, USERINFO).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn token_revoke_logs_out_and_the_next_call_works() {
    let emulator = amove().await;
    let gateway = Gateway::ready(&emulator, &[]).await;

    let told = ask(&gateway, &["token", "revoke"]).await;

    assert_eq!(told.status.code(), Some(0), "{}", stderr(&told));
    assert!(stdout(&told).starts_with("identity       main\n"), "{}", stdout(&told));
    eventually("the session is logged out", async || emulator.stats().logouts == 1).await;
    assert_eq!(get(gateway.address, USERINFO).await.status(), 200);
    assert_eq!(emulator.stats().refused_bearers, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_have_their_exit_code_here_too() {
    let emulator = amove().await;
    let gateway = Gateway::start(&emulator, &[("AMOVE_PASSWORD", "wr0ng-w0rd")]).await;
    eventually("the login is refused", async || emulator.stats().failed_logins == 1).await;

    let told = ask(&gateway, &["token", "refresh"]).await;

    assert_eq!(told.status.code(), Some(77), "{}", stderr(&told));
    assert_eq!(stdout(&told), "");
    assert!(stderr(&told).contains("Correct the credentials"), "{}", stderr(&told));
    assert!(!stderr(&told).contains("wr0ng"), "{}", stderr(&told));
    assert_eq!(emulator.stats().failed_logins, 2);
    let screen = ask(&gateway, &["status"]).await;
    assert!(stdout(&screen).contains("ready          no: credentials refused"));
    assert!(stdout(&screen).contains("  state        latched, not serving"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_fails_otherwise_is_a_failure_like_any_other() {
    let emulator = amove().await;
    let gateway = Gateway::ready(&emulator, &[]).await;
    emulator.inject(Fault::Status {
        status: 503,
        body: String::new(),
        retry_after: None,
        count: 1000,
        host: Some(Host::Auth),
        route: None,
    });

    let told = ask(&gateway, &["token", "refresh"]).await;

    assert_eq!(told.status.code(), Some(1), "{}", stderr(&told));
    assert!(stderr(&told).contains("answers 503"), "{}", stderr(&told));
    assert_eq!(get(gateway.address, USERINFO).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_identity_is_a_usage_error_that_names_the_known() {
    let emulator = amove().await;
    let gateway = Gateway::ready(&emulator, &[]).await;

    for verb in ["status", "refresh", "revoke"] {
        let told = ask(&gateway, &["token", verb, "--identity", "ma & ine"]).await;
        assert_eq!(told.status.code(), Some(2), "{verb}: {}", stderr(&told));
        assert!(stderr(&told).contains("there are: main"), "{verb}: {}", stderr(&told));
    }
    assert_eq!((emulator.stats().logins, emulator.stats().logouts), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_gateway_answers_they_say_what_to_do() {
    let nobody = format!("127.0.0.1:{}", free_port());
    for verb in [&["status"][..], &["token", "status"], &["token", "refresh"], &["token", "revoke"]]
    {
        let told = run(&[verb, &["--address", &nobody]].concat(), &[]).await;

        assert_eq!(told.status.code(), Some(69), "{}", stderr(&told));
        assert!(stderr(&told).contains(&format!("no gateway answers at {nobody}")));
        assert!(stderr(&told).contains("Is it running?"), "{}", stderr(&told));
    }
    // Nothing configured, and no address either.
    let told = run(&["status"], &[]).await;
    assert_eq!(told.status.code(), Some(78));
    assert!(stderr(&told).contains("--address HOST:PORT"), "{}", stderr(&told));
}

#[tokio::test(flavor = "multi_thread")]
async fn address_and_token_come_from_the_configuration_or_the_command_line() {
    let emulator = amove().await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("token");
    std::fs::write(&file, "adm1n\n").expect("a file");
    let file = file.to_str().expect("a path of text");
    let token = ("AMOVE_GATEWAY_SERVER__ADMIN_TOKEN_FILE", file);
    let gateway = Gateway::ready(&emulator, &[token]).await;

    let stranger = ask(&gateway, &["token", "status"]).await;
    assert_eq!(stranger.status.code(), Some(1));
    assert!(stderr(&stranger).contains("--admin-token-file FILE"), "{}", stderr(&stranger));

    let shown = ask(&gateway, &["token", "status", "--admin-token-file", file]).await;
    assert_eq!(shown.status.code(), Some(0), "{}", stderr(&shown));

    let everywhere = format!("0.0.0.0:{}", gateway.admin.port());
    let listen = ("AMOVE_GATEWAY_SERVER__ADMIN_LISTEN", &*everywhere);
    let environment = environment_with(&emulator, &[token, listen]);
    let configured = run(&["token", "status"], &borrowed(&environment)).await;
    assert_eq!(configured.status.code(), Some(0), "{}", stderr(&configured));
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_on_the_network_need_a_token_or_there_is_no_start() {
    let emulator = amove().await;
    let directory = tempfile::tempdir().expect("a directory");
    let missing = directory.path().join("missing").display().to_string();
    let open = ("AMOVE_GATEWAY_SERVER__ADMIN_LISTEN", "0.0.0.0:0");

    for (settings, told) in [
        (&[open][..], "not loopback, so it needs server.admin_token_file"),
        (&[open, ("AMOVE_GATEWAY_SERVER__ADMIN_TOKEN_FILE", &missing)], "cannot read"),
    ] {
        let output = run(&["run"], &borrowed(&environment_with(&emulator, settings))).await;
        assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
        assert!(stderr(&output).contains(told), "{}", stderr(&output));
    }
    assert_eq!(emulator.stats().logins, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_opens_the_gateway_that_knows_its_hash() {
    let made = run(&["key", "new", "billing"], &[]).await;
    let text = stdout(&made);
    let key = text.lines().map(str::trim).find(|line| line.starts_with("amgw_")).expect("a key");
    let section = text.lines().skip_while(|line| !line.starts_with("[callers.")).take(2);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, section.collect::<Vec<_>>().join("\n")).expect("a file");
    let amove = amove().await;
    let config = ("AMOVE_GATEWAY_CONFIG", file.to_str().expect("text"));
    let gateway = Gateway::ready(&amove, &[config]).await;

    let mut with_key = process_support::request("GET", USERINFO);
    with_key.headers_mut().insert("x-api-key", key.parse().expect("a header value"));
    let known = process_support::call(gateway.address, with_key).await.expect("an answer");
    let unknown = get(gateway.address, USERINFO).await;

    assert_eq!((known.status().as_u16(), unknown.status().as_u16()), (200, 401));
    assert!(!gateway.process.stderr().contains(key));
    assert_eq!(run(&["key", "new", ""], &[]).await.status.code(), Some(2));
}
