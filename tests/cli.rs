//! Every verb does what its help says, and exits with the code that scripts rely on.
#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::Stdio,
};

use amove_gateway::emulator::{self, Emulator, Options};
use http::Response;
use process_support::{
    borrowed, command, emulator, environment, environment_with, eventually, free_port, request,
    run, stderr, stdout,
};

mod process_support;

const VERBS: [&str; 13] = [
    "run",
    "sandbox",
    "emulator",
    "check",
    "login",
    "status",
    "token",
    "audit",
    "routes",
    "config",
    "healthcheck",
    "completions",
    "man",
];

/// An identity that needs nobody.
const IDENTITY: [(&str, &str); 1] = [("AMOVE_API_TOKEN", "t0ken")];

#[tokio::test]
async fn without_a_verb_it_points_at_the_sandbox() {
    let output = run(&[], &[]).await;

    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stdout(&output), "");
    assert!(stderr(&output).contains("amove-gateway sandbox"), "{}", stderr(&output));
}

#[tokio::test]
async fn every_verb_has_help_and_the_overview_names_it() {
    let overview = run(&["--help"], &[]).await;
    assert_eq!(overview.status.code(), Some(0));

    for verb in VERBS {
        assert!(stdout(&overview).contains(&format!("  {verb} ")), "{verb}");
        let output = run(&[verb, "--help"], &[]).await;
        assert_eq!(output.status.code(), Some(0), "{verb}");
        let usage = format!("Usage: amove-gateway {verb}");
        assert!(stdout(&output).contains(&usage), "{verb}: {}", stdout(&output));
    }
}

#[tokio::test]
async fn what_nobody_knows_is_a_usage_error() {
    for arguments in [&["runn"][..], &["run", "--no-such"], &["completions", "dosh"]] {
        let output = run(arguments, &[]).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

#[tokio::test]
async fn check_tells_what_the_configuration_means() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("gateway.toml");
    let hash = "ab".repeat(32);
    let text = format!(
        "[identities.main]\nusername = \"svc@corp.test\"\npassword = \"hush-hush\"\n\
         user_type = \"AccountAdmin\"\n\
         [callers.billing]\napi_key_hash = \"blake3:{hash}\"\nrate = \"50/s\"\n"
    );
    std::fs::write(&file, text).expect("a file");

    let output = run(&["check", "--config", file.to_str().expect("a path of text")], &[]).await;

    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    for expected in [
        "The configuration is valid.",
        "127.0.0.1:8080",
        "https://api.amove.io, logins at https://auth.amove.io",
        "main, the default: svc@corp.test as AccountAdmin",
        "billing (by its API key), as `main`, 50 requests in 1s",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!text.contains("hush") && !text.contains(&hash), "{text}");
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_is_reported_and_nothing_is_done() {
    for verb in [&["check"][..], &["run"], &["login"], &["config", "show"], &["healthcheck"]] {
        let wrong = [IDENTITY[0], ("AMOVE_GATEWAY_UPSTREAM__HTTP2", "sometimes")];
        let output = run(verb, &wrong).await;

        assert_eq!(output.status.code(), Some(78), "{verb:?}");
        assert_eq!(stdout(&output), "", "{verb:?}");
        let report = stderr(&output);
        assert!(report.contains("expected `auto` or `always` or `never`"), "{report}");
        assert!(report.contains("AMOVE_GATEWAY_UPSTREAM__HTTP2"), "{report}");
    }
    let output = run(&["check", "--config", "/no/such/file.toml"], &IDENTITY).await;
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains("cannot read /no/such/file.toml"), "{}", stderr(&output));
}

/// That a trial login told everything but secrets, and left nothing behind.
fn assert_told(text: &str, emulator: &Emulator) {
    for expected in [
        emulator::USERNAME,
        "Corp",
        "AccountAdmin",
        "token expires",
        "s from now)",
        "asked for, and given",
        "closed again",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    for secret in ["eyJ", emulator::PASSWORD, emulator::TOTP_SECRET] {
        assert!(!text.contains(secret), "{text}");
    }
    let stats = emulator.stats();
    assert_eq!((stats.logins, stats.logouts, stats.live_sessions), (1, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_online_and_login_tell_who_we_are_and_leave_no_session() {
    for verb in [&["check", "--online"][..], &["login"], &["login", "--identity", "main"]] {
        let emulator = emulator(Options::default()).await;

        let output = run(verb, &borrowed(&environment(&emulator))).await;

        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_told(stdout(&output), &emulator);
        assert_eq!(stderr(&output), "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_without_a_second_factor_says_so() {
    let emulator = emulator(Options { mfa: false, ..Options::default() }).await;

    let output = run(&["login"], &borrowed(&environment(&emulator))).await;

    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("second factor  not asked for"), "{}", stdout(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_have_an_exit_code_of_their_own_and_are_tried_once() {
    for verb in [&["check", "--online"][..], &["login"]] {
        let emulator = emulator(Options::default()).await;
        let wrong = environment_with(&emulator, &[("AMOVE_PASSWORD", "wr0ng-w0rd")]);

        let output = run(verb, &borrowed(&wrong)).await;

        assert_eq!(output.status.code(), Some(77), "{}", stderr(&output));
        assert!(stderr(&output).contains("identity `main` cannot log in"), "{}", stderr(&output));
        assert!(!stderr(&output).contains("wr0ng"), "{}", stderr(&output));
        assert_eq!(emulator.stats().failed_logins, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_is_not_there_is_a_usage_error_that_names_those_that_are() {
    let output = run(&["login", "--identity", "maine"], &IDENTITY).await;

    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("there are: main"), "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_amove_that_is_down_has_an_exit_code_of_its_own() {
    let emulator = emulator(Options::default()).await;
    let environment = environment(&emulator);
    emulator.stop().await;

    for verb in [&["check", "--online"][..], &["login"]] {
        let output = run(verb, &borrowed(&environment)).await;
        assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
    }
}

#[tokio::test]
async fn routes_list_shows_the_whole_catalogue_or_a_part() {
    let all = run(&["routes", "list"], &[]).await;
    let lines: Vec<_> = stdout(&all).lines().collect();
    assert_eq!(lines.len(), 174 + 2);
    assert!(lines[0].starts_with("METHOD  ROUTE"), "{}", lines[0]);
    assert_eq!(lines.last(), Some(&"174 routes"));

    let some = run(&["routes", "list", "--tag", "destructive"], &[]).await;
    let lines: Vec<_> = stdout(&some).lines().collect();
    let (head, routes) = lines.split_first().expect("a head");
    let (foot, routes) = routes.split_last().expect("a foot");
    assert!(head.starts_with("METHOD") && *foot == format!("{} routes", routes.len()), "{foot}");
    assert!(routes.len() > 5 && routes.iter().all(|route| route.contains("destructive")));

    let none = run(&["routes", "list", "--tag", "fluffy"], &[]).await;
    assert_eq!(none.status.code(), Some(2));
    assert!(stderr(&none).contains("`fluffy`"), "{}", stderr(&none));
}

#[tokio::test]
async fn routes_list_as_json_says_the_same() {
    let output = run(&["routes", "list", "--json"], &[]).await;

    let routes: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let routes = routes.as_array().expect("a list");
    assert_eq!(routes.len(), 174);
    for route in routes {
        for field in ["method", "route", "host", "auth", "effect"] {
            assert!(route[field].is_string(), "{field}: {route}");
        }
    }
}

#[tokio::test]
async fn routes_explain_tells_what_becomes_of_a_request() {
    for (method, path, expected) in [
        ("GET", "/api/user/userinfo", "→ forwarded: GET /api/v1/user/userinfo"),
        ("GET", "/api/user/userinfo", "Deprecation"),
        ("GET", "/api/v1/user/userinfo?a=b", "→ forwarded: GET /api/v1/user/userinfo?a=b"),
        ("GET", "/api/v1/../v1/user/userinfo", "→ 400 malformed"),
        ("GET", "/api/v1/user%2fuserinfo", "→ 400 malformed"),
        ("POST", "/api/authentication/login", "→ 403 auth-managed"),
        ("GET", "/api/v1/no/such", "not in the catalogue"),
        ("PATCH", "/api/v1/user/userinfo", "documented for GET only"),
        ("POST", "/api/v1/desktop/signup", "a fresh request token is put into its body"),
    ] {
        let output = run(&["routes", "explain", method, path], &[]).await;
        assert_eq!(output.status.code(), Some(0), "{method} {path}");
        assert!(stdout(&output).contains(expected), "{method} {path}: {}", stdout(&output));
    }
}

#[tokio::test]
async fn routes_explain_respects_the_configuration_and_speaks_json() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("gateway.toml");
    let text = "[identities.main]\napi_token = \"t\"\n[policy]\nunknown_routes = \"deny\"\n\
                request_token_routes = \"deny\"\n[legacy]\nmode = \"reject\"\n";
    std::fs::write(&file, text).expect("a file");
    let file = file.to_str().expect("a path of text");

    for (method, path, answer) in [
        ("GET", "/api/v1/no/such", "403 policy-denied, by policy.unknown_routes"),
        ("POST", "/api/v1/desktop/signup", "403 policy-denied, by policy.request_token_routes"),
        ("GET", "/api/user/userinfo", "410 legacy-rejected, by legacy.mode"),
    ] {
        let output =
            run(&["routes", "explain", method, path, "--json", "--config", file], &[]).await;
        let explanation: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(explanation["answer"], answer, "{explanation}");
        assert!(explanation["forwarded_as"].is_null(), "{explanation}");
        assert!(!explanation["steps"].as_array().expect("steps").is_empty());
    }
}

#[tokio::test]
async fn routes_explain_names_the_rule_of_a_caller_and_its_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("gateway.toml");
    let text = "[identities.main]\napi_token = \"t\"\n\
                [callers.billing]\napi_key_hash = \"blake3:1111111111111111111111111111111111111111111111111111111111111111\"\n\
                deny = [\n  \"DELETE *\",\n  \"* transfer/*\",\n]\n\
                [callers.reports]\napi_key_hash = \"blake3:2222222222222222222222222222222222222222222222222222222222222222\"\n";
    std::fs::write(&file, text).expect("a file");
    let file = file.to_str().expect("a path of text");
    let explain = async |caller: &str| {
        let request = ["routes", "explain", "POST", "/API/Transfer/Transfer/"];
        run(&[&request, &["--caller", caller, "--config", file][..]].concat(), &[]).await
    };

    let denied = explain("billing").await;
    let allowed = explain("reports").await;
    let nobody = explain("payroll").await;

    let rule = format!("billing may not call it: callers.billing.deny: * transfer/* ({file}:7)");
    assert!(stdout(&denied).contains(&rule), "{}", stdout(&denied));
    assert!(stdout(&denied).contains("→ 403 policy-denied"), "{}", stdout(&denied));
    assert!(stdout(&allowed).contains("reports may call it"), "{}", stdout(&allowed));
    assert_eq!(nobody.status.code(), Some(2));
    assert!(stderr(&nobody).contains("there are: billing, reports"), "{}", stderr(&nobody));
}

#[tokio::test]
async fn config_show_is_toml_with_origins_and_without_secrets() {
    let environment =
        [("AMOVE_API_TOKEN", "c4n4ry"), ("AMOVE_GATEWAY_UPSTREAM__RESPONSE_TIMEOUT", "7s")];

    let output = run(&["config", "show"], &environment).await;

    let text = stdout(&output);
    assert!(!text.contains("c4n4ry"), "{text}");
    let shown: toml_edit::DocumentMut = text.parse().expect("TOML");
    assert_eq!(shown["identities"]["main"]["api_token"].as_str(), Some("***"));
    assert_eq!(shown["upstream"]["response_timeout"].as_str(), Some("7s"));
    let line = |setting: &str| {
        text.lines().find(|line| line.starts_with(setting)).expect(setting).to_owned()
    };
    assert!(line("response_timeout").ends_with("# the environment"), "{text}");
    assert!(line("connect_timeout").ends_with("# default"), "{text}");
}

#[tokio::test]
async fn config_schema_needs_no_configuration() {
    let output = run(&["config", "schema"], &[]).await;

    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(schema["properties"]["server"]["properties"]["listen"].is_object(), "{schema}");
}

/// A stand-in for an admin listener that gives one answer to everything.
async fn probe_target(status: u16) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(move |request: http::Request<_>| {
                let _: &hyper::body::Incoming = request.body();
                let status = if request.uri().path() == "/readyz" { status } else { 404 };
                let answer = Response::builder().status(status);
                async move { answer.body("no session with Amove\n".to_owned()) }
            });
            let io = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn healthcheck_tells_ready_from_not_ready_from_not_there() {
    let (ready, unready) = (probe_target(200).await, probe_target(503).await);
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));

    for (address, code, said) in [
        (ready, 0, ""),
        (unready, 1, "is not ready: no session with Amove"),
        (nobody, 69, "no gateway answers at"),
    ] {
        let output = run(&["healthcheck", "--address", &address.to_string()], &[]).await;
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
    // Without an address it asks where the configuration says.
    let everywhere = format!("0.0.0.0:{}", ready.port());
    let configured = [IDENTITY[0], ("AMOVE_GATEWAY_SERVER__HEALTH_LISTEN", &everywhere)];
    let output = run(&["healthcheck"], &configured).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[tokio::test]
async fn completions_and_the_manual_know_every_verb() {
    for arguments in
        [&["completions", "bash"][..], &["completions", "zsh"], &["completions", "fish"], &["man"]]
    {
        let output = run(arguments, &[]).await;
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        for verb in VERBS {
            assert!(stdout(&output).contains(verb), "{arguments:?}: {verb}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_early_causes_no_panic() {
    for arguments in [&["routes", "list", "--json"][..], &["completions", "zsh"], &["man"]] {
        let mut child = command(arguments, &[])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the executable starts");
        let mut first = String::new();
        let mut pipe = BufReader::with_capacity(16, child.stdout.take().expect("a pipe"));
        pipe.read_line(&mut first).expect("a line");
        drop(pipe);

        let output = child.wait_with_output().expect("it ends");

        assert!(!first.is_empty(), "{arguments:?}");
        assert_eq!(stderr(&output), "", "{arguments:?}");
    }
}

#[tokio::test]
async fn colour_is_for_terminals_and_those_who_ask() {
    let wrong = [("AMOVE_GATEWAY_UPSTREAM__HTTP2", "sometimes")];
    let escape = "\u{1b}[";

    for (arguments, coloured) in [
        (&["check"][..], false),
        (&["check", "--color", "always"], true),
        (&["--color", "never", "check"], false),
    ] {
        let output = run(arguments, &wrong).await;
        assert_eq!(stderr(&output).contains(escape), coloured, "{arguments:?}");
    }
    // On a terminal, unless NO_COLOR is set to something.
    for (no_color, coloured) in [("", true), ("1", false)] {
        let check = format!("{} check", env!("CARGO_BIN_EXE_amove-gateway"));
        let shown = std::process::Command::new("script")
            .args(["-qec", &check, "/dev/null"])
            .env("NO_COLOR", no_color)
            .envs(wrong)
            .stdin(Stdio::null())
            .output();
        // Not every machine has a pseudo-terminal to lend.
        let Ok(shown) = shown else { return };
        assert_eq!(stdout(&shown).contains(escape), coloured, "NO_COLOR={no_color}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_emulator_prints_a_configuration_that_works_against_it() {
    let mut emulator = process_support::Process::start(
        &["emulator", "--listen", "127.0.0.1:0", "--mfa", "--token-ttl", "5m"],
        &[],
    );
    eventually("the emulator tells how to use it", async || {
        emulator.stdout().contains("/_emulator/faults\n")
    })
    .await;
    let screen = emulator.stdout();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("gateway.toml");
    let start = screen.find("[upstream]").expect("a configuration");
    let end = screen.find("curl ").expect("commands");
    std::fs::write(&file, &screen[start..end]).expect("a file");

    let output = run(&["login", "--config", file.to_str().expect("a path of text")], &[]).await;

    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("asked for, and given"), "{}", stdout(&output));
    emulator.signal("INT");
    assert_eq!(emulator.exit_code().await, Some(0));
}

#[tokio::test]
async fn the_emulator_stays_on_this_machine() {
    let output = run(&["emulator", "--listen", "0.0.0.0:0"], &[]).await;

    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("loopback only"), "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_emulator_begins_with_the_faults_of_a_file_or_tells_what_is_wrong_with_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("faults.json");
    let path = file.to_str().expect("a path of text").to_owned();
    let arguments = ["emulator", "--listen", "127.0.0.1:0", "--faults", &path];

    std::fs::write(&file, r#"[{"fault":"no_such"}]"#).expect("a file");
    let output = run(&arguments, &[]).await;
    assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
    assert!(stderr(&output).contains("no_such"), "{}", stderr(&output));

    // One fault needs no brackets, as at the control endpoint.
    std::fs::write(&file, r#"{"fault":"status","status":418,"count":1}"#).expect("a file");
    let emulator = process_support::Process::start(&arguments, &[]);
    let mut api = None;
    eventually("the emulator listens", async || {
        let screen = emulator.stdout();
        let line = screen.lines().find_map(|line| line.strip_prefix("api_url = \"http://"));
        api = line.and_then(|line| line.trim_end_matches('"').parse().ok());
        api.is_some()
    })
    .await;
    let api: SocketAddr = api.expect("an address");
    let answer = process_support::call(api, request("GET", "/")).await.expect("an answer");
    assert_eq!(answer.status(), 418);
}
