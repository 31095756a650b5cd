//! What operators write becomes what the gateway does, or a report that helps.
#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::{path::Path, time::Duration};

use amove_gateway::config::{
    Credentials, Http2, Listen, QuotaStore, Rate, UserType,
    load::{Loaded, Sources, load, load_str},
    report::Report,
    schema,
    secret::Secret,
};
use proptest::prelude::*;
use secrecy::ExposeSecret;

const REFERENCE: &str = include_str!("../config/gateway.toml");
const SIDECAR: &str = include_str!("../config/sidecar.toml");
const CENTRAL: &str = include_str!("../config/central.toml");

/// An identity, so that a test can be about something else.
const IDENTITY: &str = "[identities.main]\napi_token = \"token\"\n";

fn variables(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn loaded(text: &str, environment: &[(&str, &str)]) -> Loaded {
    load_str(text, &variables(environment)).expect("a configuration that loads")
}

fn refused(text: &str, environment: &[(&str, &str)]) -> Report {
    load_str(text, &variables(environment)).expect_err("a configuration that is refused")
}

/// What is wrong, in the order of the report: the line, and the first words.
fn findings(report: &Report) -> Vec<(Option<usize>, String)> {
    let mut findings: Vec<(Option<usize>, String)> = Vec::new();
    for line in report.render(false).lines() {
        if let Some(message) = line.strip_prefix("error: ") {
            findings.push((None, message.to_owned()));
        } else if let Some((_, place)) = line.split_once("--> ")
            && let Some(last) = findings.last_mut()
        {
            last.0 = place.rsplit(':').nth(1).and_then(|line| line.parse().ok());
        }
    }
    // The last line only counts them.
    findings.pop();
    findings
}

fn write(directory: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).expect("a file that can be written");
    path
}

#[test]
fn the_reference_alone_lacks_nothing_but_an_identity() {
    let report = refused(REFERENCE, &[]);

    assert_eq!(report.len(), 1, "{report}");
    assert!(report.to_string().contains("there is no identity"), "{report}");
    assert!(report.to_string().contains("amove-gateway sandbox"), "{report}");
}

#[test]
fn a_sidecar_needs_its_file_and_four_variables() {
    let directory = tempfile::tempdir().expect("a directory");
    let password = write(directory.path(), "password", "hush\n");
    let password = password.to_str().expect("a path of text");

    let loaded = loaded(
        SIDECAR,
        &[
            ("AMOVE_USERNAME", "svc@corp.test"),
            ("AMOVE_PASSWORD_FILE", password),
            ("AMOVE_USER_TYPE", "AccountAdmin"),
            ("AMOVE_TOTP_SECRET", "JBSWY3DPEHPK3PXP"),
        ],
    );

    let config = &loaded.config;
    assert_eq!(config.server.workers, 1);
    assert_eq!(config.server.drain_timeout, Duration::from_secs(20));
    assert_eq!(config.upstream.max_connections, 32);
    let [identity] = &config.identities[..] else { panic!("one identity: {config:?}") };
    let Credentials::Password { username, password, user_type, totp } = &identity.credentials
    else {
        panic!("a user: {identity:?}")
    };
    assert_eq!((&**username, *user_type), ("svc@corp.test", UserType::AccountAdmin));
    assert_eq!(password.read().expect("a password").expose_secret(), "hush");
    assert!(matches!(totp, Some(Secret::Inline(_))), "{totp:?}");
}

#[test]
fn a_central_gateway_lacks_only_its_secret_files() {
    let report = refused(CENTRAL, &[]);

    let mut missing: Vec<_> = findings(&report).into_iter().map(|(_, message)| message).collect();
    missing.sort();
    assert_eq!(
        missing,
        [
            "`identities.main.password_file` cannot be used",
            "`identities.main.totp_secret_file` cannot be used",
            "`identities.transfers.password_file` cannot be used",
        ]
    );

    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().display().to_string();
    for name in ["amove-password", "amove-totp", "amove-transfers-password"] {
        write(directory.path(), name, "JBSWY3DPEHPK3PXP");
    }
    let loaded = loaded(&CENTRAL.replace("/run/secrets", &path), &[]);
    let names: Vec<_> = loaded.config.identities.iter().map(|identity| &*identity.name).collect();
    assert_eq!(names, ["main", "transfers"]);
    let media = loaded.config.callers.iter().find(|caller| &*caller.name == "media");
    assert_eq!(media.map(|caller| caller.identity), Some(1));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn the_environment_wins_over_the_later_file_which_wins_over_the_earlier_and_the_default() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = write(
        directory.path(),
        "first.toml",
        "[upstream]\nconnect_timeout = \"1s\"\nmax_connections = 1\nhttp2 = \"never\"\n",
    );
    let second = write(
        directory.path(),
        "second.toml",
        "[upstream]\nmax_connections = 2\nhttp2 = \"always\"\n[identities.main]\napi_token = \"t\"\n",
    );
    let environment = variables(&[("AMOVE_GATEWAY_UPSTREAM__HTTP2", "auto")]);

    let loaded =
        load(&Sources { files: vec![first, second], environment }).expect("a valid configuration");

    let upstream = &loaded.config.upstream;
    assert_eq!(upstream.response_timeout, Duration::from_secs(60), "the default");
    assert_eq!(upstream.connect_timeout, Duration::from_secs(1), "the first file");
    assert_eq!(upstream.max_connections, 2, "the second file");
    assert_eq!(upstream.http2, Http2::Auto, "the environment");
    let shown = loaded.show();
    for (setting, origin) in [
        ("response_timeout = \"60s\"", "# default"),
        ("connect_timeout = \"1s\"", "first.toml"),
        ("max_connections = 2", "second.toml"),
        ("http2 = \"auto\"", "# the environment"),
    ] {
        let line = shown.lines().find(|line| line.starts_with(setting)).expect(setting);
        assert!(line.ends_with(origin), "{line}");
    }
}

#[test]
fn short_names_make_the_identity_main() {
    let directory = tempfile::tempdir().expect("a directory");
    let role = write(directory.path(), "role", "4\n");
    let token = write(directory.path(), "token", "api-token\n");

    let user = loaded(
        "",
        &[
            ("AMOVE_USERNAME", "svc"),
            ("AMOVE_PASSWORD", "hush"),
            ("AMOVE_USER_TYPE_FILE", role.to_str().expect("a path of text")),
        ],
    );
    let api = loaded("", &[("AMOVE_API_TOKEN_FILE", token.to_str().expect("a path of text"))]);

    let [identity] = &user.config.identities[..] else { panic!("one identity") };
    assert_eq!(&*identity.name, "main");
    assert!(matches!(
        &identity.credentials,
        Credentials::Password { user_type: UserType::AccountAdmin, totp: None, .. }
    ));
    let [identity] = &api.config.identities[..] else { panic!("one identity") };
    let Credentials::ApiToken(token) = &identity.credentials else { panic!("an API token") };
    assert_eq!(token.read().expect("a token").expose_secret(), "api-token");
}

#[test]
fn every_setting_has_a_name_in_the_environment() {
    let hash = format!("blake3:{}", "ab".repeat(32));
    let loaded = loaded(
        "",
        &[
            ("AMOVE_GATEWAY_IDENTITIES__MAIN__USERNAME", "svc"),
            ("AMOVE_GATEWAY_IDENTITIES__MAIN__PASSWORD", "hush"),
            ("AMOVE_GATEWAY_IDENTITIES__MAIN__USER_TYPE", "64"),
            ("AMOVE_GATEWAY_UPSTREAM__RESPONSE_TIMEOUT", "7s"),
            ("AMOVE_GATEWAY_CALLERS__BILLING__RATE", "30/m"),
            ("AMOVE_GATEWAY_CALLERS__BILLING__BURST", "3"),
            ("AMOVE_GATEWAY_CALLERS__BILLING__API_KEY_HASH", &hash),
            ("AMOVE_GATEWAY_SERVER__LISTEN", "127.0.0.1:1, unix:/run/gateway.sock"),
            ("AMOVE_GATEWAY_SERVER__MAX_BODY_BYTES", "0"),
            ("AMOVE_GATEWAY_AUDIT__STDOUT", "true"),
            ("AMOVE_GATEWAY_ERRORS__STATUS__DUPLICATE", "422"),
            // Arguments of the command line are no settings.
            ("AMOVE_GATEWAY_CONFIG", "ignored.toml"),
            ("AMOVE_GATEWAY_LOG_FORMAT", "json"),
        ],
    );

    let config = &loaded.config;
    assert_eq!(config.upstream.response_timeout, Duration::from_secs(7));
    assert_eq!(
        config.server.listen,
        [Listen::Tcp(([127, 0, 0, 1], 1).into()), Listen::Unix("/run/gateway.sock".into())]
    );
    assert_eq!(config.server.max_body_bytes, None);
    assert!(config.audit.stdout);
    assert_eq!(config.errors.status.get("DUPLICATE").map(|status| status.as_u16()), Some(422));
    let [caller] = &config.callers[..] else { panic!("one caller") };
    assert_eq!(&*caller.name, "billing");
    let per_minute = Rate { count: 30.try_into().expect("not 0"), per: Duration::from_secs(60) };
    assert_eq!(caller.rate, Some(per_minute));
    assert_eq!(caller.burst.map(u32::from), Some(3));
    assert_eq!(caller.api_key_hashes, [[0xab; 32]]);
}

#[test]
fn a_misspelt_variable_is_named_with_what_was_meant() {
    let report = refused(IDENTITY, &[("AMOVE_GATEWAY_UPSTREAM__RESPONSE_TIMEOT", "7s")]);

    let text = report.to_string();
    assert_eq!(report.len(), 1, "{text}");
    assert!(text.contains("AMOVE_GATEWAY_UPSTREAM__RESPONSE_TIMEOT"), "{text}");
    assert!(text.contains("did you mean `response_timeout`?"), "{text}");
}

#[test]
fn all_mistakes_are_reported_at_once_each_at_its_line() {
    let text = r#"[server]
listne = ["127.0.0.1:8080"]
drain_timeout = "30"
workers = 2000
admin_listen = "here"
max_header_bytes = "32KB"
[upstream]
api_url = "http://api.amove.io"
http2 = "sometimes"
connect_timeout = "0s"
[identities.main]
username = "svc"
user_type = "AccountAdmn"
refresh_ahead = "120%"
max_age = 12
[callers.billing]
identity = "nobody-at-all"
api_key_hash = "blake3:12"
rate = "fast"
burst = 0
[policy]
unknown_routes = "forbid"
[legacy]
mode = "drop"
sunset = "soon"
[rate_limit]
global = "1/y"
headers = "all"
[errors]
mode = "html"
[errors.status]
DUPLICATE = 200
[audit]
stdout = "perhaps"
[telemetry]
log_format = "xml"
[polcy]
unknown_routes = "deny"
"#;

    let report = refused(text, &[]);

    let found: Vec<_> = findings(&report);
    let lines: Vec<_> = found.iter().map(|(line, _)| line.unwrap_or_default()).collect();
    assert_eq!(
        lines,
        [
            2, 3, 4, 5, 6, 8, 9, 10, 12, 13, 14, 15, 17, 18, 19, 20, 22, 24, 25, 27, 28, 30, 32,
            34, 36, 37
        ],
        "{report}"
    );
    assert_eq!(report.len(), lines.len());
    let (_, lacks) = found.iter().find(|(line, _)| *line == Some(12)).expect("line 12");
    assert!(lacks.contains("lacks `password_file`"), "{lacks}");
}

#[test]
fn a_mistake_in_one_place_causes_no_report_about_another() {
    let text = r#"[server]
listen = ["0.0.0.0:8080"]
[identities.main]
username = 5
password = "hush"
user_type = "AccountAdmin"
[callers.billing]
identity = "main"
api_key_hash = "blake3:12"
"#;

    let report = refused(text, &[]);

    let lines: Vec<_> = findings(&report).into_iter().filter_map(|(line, _)| line).collect();
    assert_eq!(lines, [4, 9], "{report}");
}

#[test]
fn an_unknown_key_is_drawn_with_the_nearest_known_one() {
    let report = refused(&format!("{IDENTITY}\n[upstream]\nconect_timeout = \"5s\"\n"), &[]);

    assert_eq!(
        report.to_string(),
        r#"error: `upstream.conect_timeout` is not a setting
 --> configuration:5:1
  |
5 | conect_timeout = "5s"
  | ^^^^^^^^^^^^^^ did you mean `connect_timeout`?

error: the configuration cannot be used: 1 error
"#
    );
}

#[test]
fn a_wrong_unit_is_drawn_with_the_right_ones() {
    let report = refused(&format!("{IDENTITY}\n[server]\ndrain_timeout = \"30 seconds\"\n"), &[]);

    assert_eq!(
        report.to_string(),
        r#"error: `server.drain_timeout` cannot be used
 --> configuration:5:17
  |
5 | drain_timeout = "30 seconds"
  |                 ^^^^^^^^^^^^ expected a duration such as "250ms", "30s", "5m", "12h" or "90d"

error: the configuration cannot be used: 1 error
"#
    );
}

#[test]
fn a_wrong_word_is_drawn_with_the_right_ones() {
    let report = refused(&format!("{IDENTITY}\n[policy]\nunknown_routes = \"denied\"\n"), &[]);

    assert_eq!(
        report.to_string(),
        r#"error: `policy.unknown_routes` cannot be used
 --> configuration:5:18
  |
5 | unknown_routes = "denied"
  |                  ^^^^^^^^ expected `allow` or `deny`

error: the configuration cannot be used: 1 error
"#
    );
}

#[test]
fn broken_toml_is_drawn_where_it_breaks() {
    let report = refused(&format!("{IDENTITY}\n[server]\nlisten = [\"127.0.0.1:8080\"\n"), &[]);

    assert_eq!(
        report.to_string(),
        r#"error: this is not TOML
 --> configuration:5:28
  |
5 | listen = ["127.0.0.1:8080"
  |                           ^ invalid array

error: the configuration cannot be used: 1 error
"#
    );
}

#[test]
fn identities_keep_their_order_but_the_default_comes_first() {
    let identity = |name: &str| format!("[identities.{name}]\napi_token = \"token\"\n");
    let text = identity("zeta") + &identity("alpha") + &identity("mid") + "default = true\n";
    let names = |text: &str| {
        let identities = loaded(text, &[]).config.identities;
        identities.iter().map(|identity| identity.name.to_string()).collect::<Vec<_>>()
    };

    assert_eq!(names(&text), ["mid", "zeta", "alpha"]);
    assert_eq!(names(&text.replace("default = true\n", "")), ["zeta", "alpha", "mid"]);
    let twice = text + &identity("last") + "default = true\n";
    assert_eq!(refused(&twice, &[]).len(), 1);
}

#[test]
fn a_secret_is_a_value_or_a_file_but_not_both_in_one_place() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = write(directory.path(), "token", "from the file");
    let both = format!(
        "[identities.main]\napi_token = \"inline\"\napi_token_file = \"{}\"\n",
        file.display()
    );
    let file_only = both.replace("api_token = \"inline\"\n", "");

    let report = refused(&both, &[]);
    assert_eq!(findings(&report)[0].0, Some(3), "{report}");
    assert!(report.to_string().contains("not both"), "{report}");

    // A later place wins over an earlier one, whichever form it has.
    let overridden = loaded(&file_only, &[("AMOVE_API_TOKEN", "from the environment")]);
    let Credentials::ApiToken(token) = &overridden.config.identities[0].credentials else {
        panic!("an API token")
    };
    assert_eq!(token.read().expect("a token").expose_secret(), "from the environment");
}

#[test]
fn two_callers_cannot_have_one_key_nor_both_have_none() {
    let key = format!("api_key_hash = \"blake3:{}\"\n", "ab".repeat(32));
    let two = |first: &str, second: &str| {
        format!(
            "{IDENTITY}[callers.one]\nrate = \"1/s\"\n{first}[callers.two]\nrate = \"1/s\"\n{second}"
        )
    };

    let report = refused(&two(&key, &key), &[]);
    assert_eq!(findings(&report).iter().map(|it| it.0).collect::<Vec<_>>(), [Some(8)]);
    assert!(report.to_string().contains("another caller has the same key"), "{report}");
    let report = refused(&two("", ""), &[]);
    assert!(report.to_string().contains("lacks `api_key_hash`"), "{report}");
    assert_eq!(loaded(&two(&key, ""), &[]).config.callers.len(), 2);
}

#[test]
fn nobody_on_the_network_is_let_in_by_accident() {
    let key = format!("[callers.one]\napi_key_hash = \"blake3:{}\"\n", "ab".repeat(32));
    let open = format!("{IDENTITY}[server]\nlisten = [\"0.0.0.0:8080\"]\n");

    let report = refused(&open, &[]);
    assert!(report.to_string().contains("no caller can be recognised"), "{report}");
    assert_eq!(report.len(), 1, "{report}");
    assert!(loaded(&(open.clone() + &key), &[]).warnings.is_empty());
    let meant = loaded(&(open + "[policy]\nallow_unauthenticated_network = true\n"), &[]);
    assert_eq!(meant.warnings.len(), 1);
    for address in ["192.0.2.1:8080", "[::]:8080"] {
        let text = format!("{IDENTITY}[server]\nlisten = [\"{address}\"]\n");
        assert_eq!(refused(&text, &[]).len(), 1, "{address}");
    }
    for address in ["127.0.0.2:8080", "[::1]:8080", "unix:/run/gateway.sock", "localhost:8080"] {
        loaded(&format!("{IDENTITY}[server]\nlisten = [\"{address}\"]\n"), &[]);
    }
}

#[test]
fn operators_elsewhere_need_a_token() {
    let open = format!("{IDENTITY}[server]\nadmin_listen = \"0.0.0.0:9090\"\n");

    let report = refused(&open, &[]);
    assert!(report.to_string().contains("server.admin_token_file"), "{report}");
    loaded(&(open + "admin_token = \"hush\"\n"), &[]);
}

#[test]
fn passwords_never_travel_in_the_clear() {
    for (url, fits) in [
        ("http://api.amove.io", false),
        ("http://10.0.0.1:8080", false),
        ("http://localhost.evil.test", false),
        ("http://127.0.0.1:8099", true),
        ("http://localhost:8099", true),
        ("http://[::1]:8099", true),
        ("https://api.amove.io", true),
        ("https://api.amove.io/api", false),
        ("https://user@api.amove.io", false),
        ("ftp://api.amove.io", false),
    ] {
        for key in ["api_url", "auth_url"] {
            let text = format!("{IDENTITY}[upstream]\n{key} = \"{url}\"\n");
            let outcome = load_str(&text, &[]);
            assert_eq!(outcome.is_ok(), fits, "{key} = {url}: {outcome:?}");
        }
    }
}

#[test]
fn quotas_are_shared_only_where_there_is_a_redis() {
    const CANARY: &str = "c4n4ry";
    let with = |settings: &str| format!("{IDENTITY}[rate_limit]\nstore = \"redis\"\n{settings}");
    let url = format!("redis://:{CANARY}@redis.test:6379/1");

    let report = refused(&with(""), &[]);
    assert_eq!(
        findings(&report),
        [(Some(4), "[rate_limit] lacks `url`: there is no Redis to share quotas in".to_owned())]
    );
    let report =
        refused(&with(&format!("url = \"http://{CANARY}\"\non_store_error = \"hold\"\n")), &[]);
    let lines: Vec<_> = findings(&report).into_iter().map(|it| it.0).collect();
    assert_eq!(lines, [Some(5), Some(6)], "{report}");
    assert!(report.to_string().contains("expected redis://HOST:PORT"), "{report}");
    assert!(!report.to_string().contains(CANARY), "{report}");

    let directory = tempfile::tempdir().expect("a folder");
    let file = write(directory.path(), "url", &format!("{url}\n"));
    let file = format!("url_file = \"{}\"\n", file.display());
    for settings in [format!("url = \"{url}\"\n"), file] {
        let loaded = loaded(&with(&settings), &[]);
        assert!(matches!(loaded.config.rate_limit.store, QuotaStore::Redis { .. }));
        assert!(!format!("{} {loaded:?}", loaded.show()).contains(CANARY));
    }
    let idle = loaded(&format!("{IDENTITY}[rate_limit]\nurl = \"{url}\"\n"), &[]);
    assert_eq!(idle.warnings.len(), 1, "{:?}", idle.warnings);
}

#[test]
fn a_secret_never_shows() {
    const CANARY: &str = "c4n4ry";
    let text = format!(
        "[server]\nadmin_token = \"{CANARY}\"\n\
         [identities.main]\nusername = \"svc\"\npassword = \"{CANARY}\"\nuser_type = 4\n\
         totp_secret = '''\n{CANARY}'''\n\
         [identities.other]\n\"api_token\" = \"{CANARY}\"\n\
         [identities]\ninline = {{ api_token = \"{CANARY}\" }}\n"
    );
    let environment = [
        ("AMOVE_PASSWORD", CANARY),
        ("AMOVE_TOTP_SECRET", CANARY),
        ("AMOVE_GATEWAY_IDENTITIES__OTHER__API_TOKEN", CANARY),
    ];
    let wrong = text.clone() + "[server.tls]\n[upstream]\nhttp2 = 1\n";
    let broken = text.clone() + "password = \n";
    let misspelt = ["pasword", "totp_secert", "token", "x"]
        .map(|name| format!("{text}[identities.third]\n{name} = \"{CANARY}\"\n"));

    let loaded = loaded(&text, &environment);
    let shown = [
        loaded.show(),
        format!("{loaded:?}"),
        refused(&wrong, &environment).render(true),
        format!("{:?}", refused(&wrong, &environment)),
        refused(&broken, &environment).to_string(),
        refused(&text, &[("AMOVE_GATEWAY_IDENTITIES__MAIN__PASWORD", CANARY)]).to_string(),
    ];

    for text in misspelt.iter().map(|text| refused(text, &[]).to_string()).chain(shown) {
        assert!(!text.contains(CANARY), "{text}");
    }
    assert!(loaded.show().contains("password = \"***\""), "{}", loaded.show());
}

#[test]
fn the_effective_configuration_can_be_loaded_again() {
    let first = loaded(&format!("{IDENTITY}[callers.\"a b\"]\nrate = \"5/s\"\n"), &[]);

    let again = loaded(&first.show(), &[]);

    let body = |loaded: &Loaded| {
        let shown = loaded.show();
        let lines = shown.lines().map(|line| line.split("  # ").next().map(str::to_owned));
        lines.flatten().collect::<Vec<_>>()
    };
    assert_eq!(body(&first), body(&again));
}

#[test]
fn what_is_shown_keeps_the_default_identity_whatever_the_order_of_names() {
    let two = "[identities.main]\napi_token = \"t\"\n[identities.backup]\napi_token = \"t\"\n";
    let said = two.replace("[identities.main]\n", "[identities.main]\ndefault = false\n");
    let moved = format!("{two}default = true\n");
    for (text, expected) in [(two, "main"), (&*said, "main"), (&*moved, "backup")] {
        let shown = loaded(text, &[]).show();

        let again = loaded(&shown, &[]);

        assert_eq!(&*again.config.identities[0].name, expected, "{shown}");
        assert_eq!(shown.matches("default = true").count(), 1, "{shown}");
    }
    assert!(!loaded(IDENTITY, &[]).show().contains("default = true"));
}

/// Each setting of the reference, with its value, examples included.
fn reference_settings() -> Vec<(Vec<String>, toml_edit::Value)> {
    let uncommented = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c == '[' || c.is_alphanumeric()) => {
            rest.to_owned()
        }
        _ => line.to_owned(),
    };
    let text: Vec<_> = REFERENCE.lines().map(uncommented).collect();
    let document: toml_edit::DocumentMut = text.join("\n").parse().expect("valid TOML");
    let mut settings = Vec::new();
    let mut waiting: Vec<(Vec<String>, toml_edit::Item)> =
        vec![(Vec::new(), document.as_item().clone())];
    while let Some((path, item)) = waiting.pop() {
        match item {
            toml_edit::Item::Table(table) => waiting.extend(
                table
                    .iter()
                    .map(|(name, item)| ([&path[..], &[name.to_owned()]].concat(), item.clone())),
            ),
            toml_edit::Item::Value(value) => settings.push((path, value)),
            _ => {}
        }
    }
    settings
}

#[test]
fn the_schema_describes_and_accepts_every_setting_of_the_reference() {
    let schema = schema();
    let settings = reference_settings();

    assert!(settings.len() > 40, "{}", settings.len());
    for (path, value) in settings {
        let node = path.iter().fold(&schema, |node, name| match &node["properties"][name] {
            serde_json::Value::Null => &node["additionalProperties"],
            known => known,
        });
        let description = node["description"].as_str().unwrap_or_default();
        assert!(description.len() > 10, "{path:?}: {node}");
        assert!(accepts(node, &value), "{path:?} = {value}: {node}");
    }
}

/// Whether a node of the schema accepts a value, as far as types and words go.
fn accepts(node: &serde_json::Value, value: &toml_edit::Value) -> bool {
    if let Some(words) = node["enum"].as_array() {
        return words.iter().any(|word| {
            word.as_str().is_some_and(|word| value.as_str() == Some(word))
                || word.as_i64().is_some_and(|word| value.as_integer() == Some(word))
        });
    }
    if let Some(choices) = node["anyOf"].as_array() {
        return choices.iter().any(|choice| accepts(choice, value));
    }
    match node["type"].as_str() {
        Some("string") => value.is_str(),
        Some("integer") => value.is_integer(),
        Some("number") => value.is_integer() || value.is_float(),
        Some("boolean") => value.is_bool(),
        Some("array") => value.is_array(),
        _ => false,
    }
}

proptest! {
    #[test]
    fn no_text_makes_loading_panic(text in "\\PC{0,200}") {
        let _ = load_str(&text, &[]);
    }

    #[test]
    fn no_toml_makes_loading_panic(
        section in "(server|upstream|identities|callers|policy|errors|[a-z.\"]{0,9})(\\.[a-z\"\\-]{0,5})?",
        key in "(listen|password|rate|mode|status|user_type|[a-z_.\"]{0,12})",
        value in "(\"[ -~]{0,12}\"|[0-9.eE+\\-]{1,25}|\\[[0-9\", ]{0,9}\\]|\\{[a-z= 0-9]{0,9}\\}|true|'''\\PC{0,9})",
        variable in "AMOVE_GATEWAY_[A-Z_]{0,24}",
    ) {
        let text = format!("[{section}]\n{key} = {value}\n");
        let environment = [(variable, value.clone()), ("AMOVE_PASSWORD".to_owned(), value)];
        if let Err(report) = load_str(&text, &environment) {
            prop_assert!(!report.render(true).is_empty());
        }
    }

    #[test]
    fn no_mutation_of_the_reference_makes_loading_panic(
        mutations in proptest::collection::vec((any::<proptest::sample::Index>(), "\\PC|[\"\\[\\]=#.\n]", any::<bool>()), 1..6),
    ) {
        let mut text: Vec<char> = REFERENCE.chars().collect();
        for (at, with, replaces) in mutations {
            let at = at.index(text.len());
            text.splice(at..at + usize::from(replaces), with.chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(report) = load_str(&text, &[]) {
            prop_assert!(!report.render(false).is_empty());
        }
    }
}

#[test]
fn what_is_too_much_or_makes_no_sense_is_refused() {
    let text = "[identities.main]\napi_token = \"t\"\nreplay_buffer = \"65MiB\"\n\
                [callers.\"two\\nlines\"]\nburst = 2\n";

    let report = load_str(text, &[]).expect_err("three mistakes").to_string();

    assert!(report.contains("expected at most 64MiB"), "{report}");
    assert!(report.contains("has a name that is empty, too long or not printable"), "{report}");
    assert!(report.contains("there is no `rate` that it could be a burst of"), "{report}");
}

#[test]
fn a_short_name_that_is_misspelt_is_worth_a_warning() {
    let environment = [("AMOVE_API_TOKEN", "t"), ("AMOVE_PASWORD", "canary"), ("AMOVE_HOME", "x")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));

    let loaded = load_str("", &environment).expect("a valid configuration");

    assert_eq!(
        loaded.warnings,
        ["the variable AMOVE_PASWORD means nothing here; did you mean AMOVE_PASSWORD?"]
    );
}

#[test]
fn a_central_store_is_a_postgresql_and_its_password_is_not_shown() {
    let section = |line: &str| format!("{IDENTITY}[audit.postgres]\n{line}\n");
    for (line, expected) in [
        ("url = \"mysql://u:canary@db/audit\"", "expected postgres://"),
        ("url = \"postgres://u:canary@db/audit?sslmode=maybe\"", "sslmode=disable, prefer"),
        ("url = \"postgres://u:canary@db/audit?sslrootcert=x\"", "audit.postgres.ca_file"),
        ("url = \"postgres:///audit?password=canary\"", "a unix socket is named so"),
        ("ca_file = \"/nowhere/at/all\"", "cannot be read"),
    ] {
        let report = refused(&section(line), &[]);
        let found = findings(&report);
        assert_eq!(found.len(), 1, "{report}");
        assert_eq!(found[0].0, Some(4), "{report}");
        assert!(report.to_string().contains(expected), "{report}");
        assert!(!report.to_string().contains("canary"), "{report}");
    }

    let good = loaded(&section("url = \"postgres://u:p@db/audit\""), &[]);
    assert!(good.config.audit.postgres.is_some() && good.warnings.is_empty());
    let open = section("url = \"postgres://u:p@db/audit?sslmode=disable\"");
    assert!(loaded(&open, &[]).warnings[0].contains("in the clear"));
    assert!(loaded(IDENTITY, &[]).config.audit.postgres.is_none());
    let variable = [("AMOVE_GATEWAY_AUDIT__POSTGRES__URL", "postgres://u:p@db/audit")];
    assert!(loaded(IDENTITY, &variable).config.audit.postgres.is_some());
}

#[test]
fn a_rule_that_means_nothing_is_told_with_its_own_line() {
    let text = "[identities.main]\napi_token = \"t\"\n[callers.billing]\nallow = [\n  \"GET user/*\",\n  \"GET user/userinof\",\n]\ndeny = [\"@cost\"]\n[policy]\ndeny_tags = [\"selfish\"]\n";

    let report = load_str(text, &[]).expect_err("a report").to_string();

    for expected in [
        "6 |",
        "did you mean `GET user/userinfo`?",
        "8 |",
        "`cost` is not a tag",
        "`selfish` is not a tag",
    ] {
        assert!(report.contains(expected), "{expected}: {report}");
    }
}

#[test]
fn what_tells_one_caller_from_another_belongs_to_one() {
    let hash = "blake3:1111111111111111111111111111111111111111111111111111111111111111";
    let text = format!(
        "{IDENTITY}[callers.a]\napi_key_hash = [\"{hash}\"]\nunix_uid = 7\nsan = \"A.test\"\n\
         [callers.b]\napi_key_hash = \"{hash}\"\nunix_uid = 7\nsan = \"a.test\"\nspiffe_id = \"https://x\"\n"
    );

    let report = load_str(&text, &[]).expect_err("a report").to_string();

    for expected in [
        "another caller has the same key: `a`",
        "another caller has the same unix_uid: `a`",
        "another caller has the same san: `a`",
        "expected a SPIFFE id",
    ] {
        assert!(report.contains(expected), "{expected}: {report}");
    }
}

#[test]
fn a_certificate_name_is_kept_without_its_case_and_a_uri_with_it() {
    let san = |san: &str| {
        let loaded = loaded(&format!("{IDENTITY}[callers.a]\nsan = \"{san}\"\n"), &[]);
        loaded.config.callers[0].san.clone().expect("a name").into_string()
    };

    assert_eq!(san("A.Test"), "a.test");
    assert_eq!(san("Media@Corp.Test"), "media@corp.test");
    assert_eq!(san("spiffe://corp.test/Media"), "spiffe://corp.test/Media");
}

#[test]
fn tokens_of_an_issuer_need_an_issuer_an_audience_and_keys() {
    let caller = format!("{IDENTITY}[callers.a]\njwt_subject = \"x\"\n");
    let whole = "[caller_jwt]\nissuer = \"i\"\naudience = \"a\"\n";

    for (text, expected) in [
        ("", "lacks `issuer`"),
        ("[caller_jwt]\nissuer = \"i\"\n", "lacks `audience`"),
        (whole, "lacks `jwks_url`"),
        (&format!("{whole}jwks_url = \"http://issuer.test/keys\"\n"), "expected https"),
        (&format!("{whole}jwks_url = \"issuer\"\n"), "expected a URL"),
        (&format!("{whole}jwks_url = \"https://i.test/\"\njwks_file = \"x\"\n"), "not both"),
        (&format!("{whole}jwks_file = \"x\"\nleeway = \"1h\"\n"), "at most 10m"),
    ] {
        let report = refused(&format!("{caller}{text}"), &[]).to_string();
        assert!(report.contains(expected), "{expected}: {report}");
    }
    let good = loaded(&format!("{caller}{whole}jwks_url = \"https://i.test/keys?x=1\"\n"), &[]);
    assert!(good.config.caller_jwt.is_some());
    assert!(loaded(IDENTITY, &[]).config.caller_jwt.is_none());
}

#[test]
fn quotas_of_routes_that_mean_nothing_are_refused() {
    for (limits, expected) in [
        (
            "[rate_limit.routes.\"GET user/userinof\"]\nrate = \"1/s\"\n",
            "did you mean `GET user/userinfo`?",
        ),
        ("[rate_limit.routes.\"@costs\"]\nrate = \"fast\"\n", "expected a rate"),
        ("[rate_limit.routes.\"@costs\"]\nburst = 3\n", "there is no `rate`"),
        ("[rate_limit.routes.\"@costs\"]\nweight = 0\n", "from 1 to 1000"),
        ("[rate_limit.routes.\"@costs\"]\nwieght = 2\n", "did you mean `weight`?"),
    ] {
        let report = refused(&format!("{IDENTITY}{limits}"), &[]).to_string();
        assert!(report.contains(expected), "{expected}: {report}");
    }
}
